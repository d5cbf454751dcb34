use super::*;

/// Returns a control file as `version` writes it.
fn control(version: PgVersion, checksum_version: u32) -> Vec<u8> {
    let facts = version.facts().unwrap();
    let offsets = offsets(version);
    let mut data = vec![0; CONTROL_FILE_SIZE];
    let mut put = |offset: usize, bytes: &[u8]| data[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &7_123_456_789_012_345_678u64.to_le_bytes());
    put(8, &facts.control_version.to_le_bytes());
    put(12, &facts.catalog_version.to_le_bytes());
    put(32, &0x1_0200_0028u64.to_le_bytes());
    put(offsets.timeline, &3u32.to_le_bytes());
    put(offsets.page_size, &8192u32.to_le_bytes());
    put(offsets.wal_segment_size, &(16u32 << 20).to_le_bytes());
    put(offsets.data_checksum_version, &checksum_version.to_le_bytes());
    seal(&mut data, offsets.crc);
    data
}

fn seal(data: &mut [u8], crc_offset: usize) {
    let crc = crc32c::crc32c(&data[..crc_offset]);
    data[crc_offset..crc_offset + 4].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn control_of_each_version_is_read() {
    for version in PgVersion::supported() {
        let parsed = PgControl::parse(&control(version, 1), None).unwrap();
        let expected = PgControl {
            version,
            system_id: 7_123_456_789_012_345_678,
            control_version: version.control_version().unwrap(),
            catalog_version: version.catalog_version().unwrap(),
            checkpoint: Lsn(0x1_0200_0028),
            timeline: TimelineId(3),
            page_size: 8192,
            wal_segment_size: 16 << 20,
            data_checksums: true,
        };
        assert_eq!(parsed, expected);
        assert!(!PgControl::parse(&control(version, 0), None).unwrap().data_checksums);
    }
}

#[test]
fn control_of_an_unreleased_version_has_any_catalog_version_of_its_year() {
    for (catalog_version, known) in
        [(202_605_130, false), (202_605_132, true), (202_699_999, true), (202_700_000, false)]
    {
        let mut data = control(PgVersion::V19, 1);
        data[12..16].copy_from_slice(&u32::to_le_bytes(catalog_version));
        seal(&mut data, 304);
        assert_eq!(PgControl::parse(&data, None).is_ok(), known, "{catalog_version}");
    }
}

#[test]
fn control_of_an_unknown_version_gives_046_unless_forced() {
    let mut data = control(PgVersion::V15, 1);
    data[12] ^= 1;
    seal(&mut data, 288);
    let error = PgControl::parse(&data, None).unwrap_err();
    assert_eq!(error.code, ErrorCode::VersionNotSupported);
    assert_eq!(error.message, "unexpected control version = 1300 and catalog version = 202209060");
    let forced = PgControl::parse(&data, Some(PgVersion::V15)).unwrap();
    assert_eq!((forced.version, forced.catalog_version), (PgVersion::V15, 202_209_060));
}

#[test]
fn control_with_the_crc_elsewhere_is_found_when_forced() {
    let mut data = control(PgVersion::V15, 1);
    data[288..292].copy_from_slice(&[1, 2, 3, 4]);
    seal(&mut data, 508);
    assert_eq!(PgControl::parse(&data, None).unwrap_err().code, ErrorCode::Checksum);
    assert!(PgControl::parse(&data, Some(PgVersion::V15)).is_ok());
    invalidate_checkpoint(&mut data, Some(PgVersion::V15)).unwrap();
    assert!(PgControl::parse(&data, Some(PgVersion::V15)).unwrap().is_checkpoint_invalid());
}

#[test]
fn control_with_a_changed_bit_before_the_crc_gives_026() {
    for offset in [0, 40, 100, 200, 287, 288, 291] {
        let mut data = control(PgVersion::V15, 1);
        data[offset] ^= 0x10;
        assert_eq!(PgControl::parse(&data, None).unwrap_err().code, ErrorCode::Checksum, "{offset}");
    }
}

#[test]
fn control_with_impossible_sizes_gives_029() {
    let offsets = offsets(PgVersion::V15);
    for (offset, value) in [
        (offsets.page_size, 0u32),
        (offsets.page_size, 65536),
        (offsets.wal_segment_size, 0),
        (offsets.wal_segment_size, 3 << 20),
        (offsets.data_checksum_version, 2),
    ] {
        let mut data = control(PgVersion::V15, 1);
        data[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        seal(&mut data, offsets.crc);
        assert_eq!(PgControl::parse(&data, None).unwrap_err().code, ErrorCode::Format, "{offset} {value}");
    }
}

#[test]
fn control_while_checksums_are_switched_counts_as_without() {
    for state in [2, 3] {
        assert!(!PgControl::parse(&control(PgVersion::V19, state), None).unwrap().data_checksums);
    }
    assert_eq!(PgControl::parse(&control(PgVersion::V19, 4), None).unwrap_err().code, ErrorCode::Format);
}

#[test]
fn control_cut_short_gives_029() {
    let data = control(PgVersion::V15, 1);
    for len in [0, 8, 292, 511] {
        assert_eq!(PgControl::parse(&data[..len], None).unwrap_err().code, ErrorCode::Format);
    }
    assert!(PgControl::parse(&data[..CONTROL_DATA_SIZE], None).is_ok());
}

#[test]
fn invalidate_checkpoint_changes_checkpoint_and_crc_only() {
    let before = control(PgVersion::V17, 1);
    let mut after = before.clone();
    invalidate_checkpoint(&mut after, None).unwrap();
    let parsed = PgControl::parse(&after, None).unwrap();
    assert_eq!(parsed.checkpoint, Lsn(0xDEAD));
    assert_eq!(PgControl { checkpoint: Lsn(0x1_0200_0028), ..parsed }, PgControl::parse(&before, None).unwrap());
    let changed: Vec<usize> = (0..before.len()).filter(|&index| before[index] != after[index]).collect();
    assert!(changed.iter().all(|index| (32..40).contains(index) || (288..292).contains(index)), "{changed:?}");
}

#[test]
fn invalidate_checkpoint_of_a_damaged_file_changes_nothing() {
    let mut data = control(PgVersion::V15, 1);
    data[100] ^= 1;
    let before = data.clone();
    assert_eq!(invalidate_checkpoint(&mut data, None).unwrap_err().code, ErrorCode::Checksum);
    assert_eq!(data, before);
}

#[test]
fn control_of_a_real_cluster_is_read() {
    let data = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pg/pg_control_15"));
    let control = PgControl::parse(data, None).unwrap();
    assert_eq!((control.version, control.system_id), (PgVersion::V15, 7_710_988_385_751_255_555));
    assert_eq!((control.checkpoint, control.timeline), (Lsn(0x174_14D0), TimelineId(1)));
    assert_eq!((control.page_size, control.wal_segment_size, control.data_checksums), (8192, 16 << 20, true));
}
