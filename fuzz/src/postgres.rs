//! Targets for PostgreSQL's structures.

use repo_format::pg::page::{PAGE_SIZES, PageRules, checksum};
use repo_format::pg::wal::{PageHeader, RecordStream, StreamStart, WalEvent};
use repo_format::pg::{PgControl, PgVersion, TimelineHistory, WalHeader, control};
use repo_format::wal_name::{Lsn, WalSegment};

/// Timeline history files.
pub fn history(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(history) = TimelineHistory::parse(text) {
        assert!(history.0.iter().all(|entry| entry.timeline.0 > 0 && entry.end_lsn.0 > 0));
    }
}

/// The first byte chooses the page size. A page with its computed checksum must be valid.
pub fn page(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let page_size = PAGE_SIZES[usize::from(choice) % PAGE_SIZES.len()];
    let check = PageRules { page_size, first_page: u32::from(choice) << 24, header_check: choice & 0x80 != 0 };
    let mut suspects = Vec::new();
    let rest = check.check(data, 0, &mut suspects);
    assert_eq!(rest, data.len() % page_size as usize);
    assert!(suspects.len() <= data.len() / page_size as usize);
    let mut page = data.to_vec();
    page.resize(page_size as usize, choice);
    page[14] |= 1;
    let sum = checksum(&page, check.first_page);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    suspects.clear();
    assert_eq!((check.check(&page, 0, &mut suspects), suspects.as_slice()), (0, [].as_slice()));
}

/// Control files, with their version detected and forced.
pub fn pg_control(data: &[u8]) {
    for force in std::iter::once(None).chain(PgVersion::supported().map(Some)) {
        let parsed = PgControl::parse(data, force);
        let mut changed = data.to_vec();
        let invalidated = control::invalidate_checkpoint(&mut changed, force);
        assert_eq!(parsed.is_ok(), invalidated.is_ok());
        if let Ok(parsed) = parsed {
            assert_eq!(
                PgControl::parse(&changed, force).ok(),
                Some(PgControl { checkpoint: control::CHECKPOINT_INVALID, ..parsed })
            );
        } else {
            assert_eq!(changed, data);
        }
    }
}

/// First pages of WAL segments.
pub fn wal_header(data: &[u8]) {
    for force in [None, Some(PgVersion::V15)] {
        if let Ok(header) = WalHeader::parse(data, force) {
            assert!(header.segment_size.is_power_of_two() && header.version.is_supported());
        }
    }
}

/// WAL pages from the beginning of a segment on. The first byte chooses the version.
pub fn wal_records(data: &[u8]) {
    const VERSIONS: [PgVersion; 3] = [PgVersion::V13, PgVersion::V15, PgVersion::V18];
    let Some((&choice, data)) = data.split_first() else { return };
    let version = VERSIONS[usize::from(choice) % VERSIONS.len()];
    let Ok(PageHeader { long: Some(long), lsn, timeline, .. }) = PageHeader::parse(data, version) else { return };
    let segment = WalSegment::from_lsn(timeline, lsn, long.segment_bytes);
    let Ok(start) = StreamStart::parse(data, segment, version) else { return };
    let mut stream = RecordStream::new(start, Lsn(u64::MAX));
    for page in data.chunks(start.long.page_bytes as usize) {
        let read = stream.page(page, &mut |record| {
            assert!(record.lsn < record.end);
            if let Ok(Some(WalEvent::Commit(xact) | WalEvent::Abort(xact))) = WalEvent::decode(record, version) {
                let files = xact.removed_files().len() + xact.subtransactions().len();
                assert!(files <= record.header.size as usize);
            }
            Ok(())
        });
        if read.is_err() {
            return;
        }
    }
}
