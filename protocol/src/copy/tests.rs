use proptest::prelude::*;

use super::*;

fn result() -> impl Strategy<Value = JobFileResult<'static>> {
    const SUM: &[u8] = &[7; 20];
    let pages = prop_oneof![
        Just(None),
        Just(Some(CheckedPages::Valid)),
        Just(Some(CheckedPages::Misaligned)),
        prop::collection::vec((0u32..9, 0u32..9), 0..4)
            .prop_map(|ranges| Some(CheckedPages::Damaged(ranges.iter().map(|(a, b)| [*a, a + b]).collect()))),
    ];
    let copied = (any::<[u64; 3]>(), any::<bool>(), any::<Option<u64>>(), pages).prop_map(
        |([size, size_repo, offset], transforms, map_size, pages)| {
            let checksum_repo = transforms.then_some(SUM);
            JobFileResult::Copied(CopiedFile { size, checksum: SUM, size_repo, checksum_repo, offset, map_size, pages })
        },
    );
    prop_oneof![
        copied,
        any::<u64>().prop_map(|size| JobFileResult::Unchanged { size, checksum: SUM }),
        Just(JobFileResult::Truncated),
        Just(JobFileResult::Removed),
    ]
}

proptest! {
    #[test]
    fn chunks_round_trip(
        data in prop_oneof![prop::collection::vec(any::<u8>(), 0..50), Just(vec![5; 10_000])],
        size in any::<u64>(),
        results in prop::option::of(prop::collection::vec(result(), 0..5)),
    ) {
        let end = results.map(|results| JobEnd { size, checksum: &[9; 20], results });
        let chunk = JobChunk { data: &data, end, bytes_done: 7 << 40 };
        let encoded = chunk.encode().finish().to_vec();
        prop_assert_eq!(JobChunk::decode(Some(&encoded)).unwrap(), chunk);
    }
}

#[test]
fn names_of_results_are_known() {
    let all = [COPIED, UNCHANGED, TRUNCATED, REMOVED, VALID, MISALIGNED, DAMAGED];
    let distinct: std::collections::BTreeSet<_> = all.into();
    assert!(distinct.len() == all.len() && !distinct.contains(&StringId(0)));
}

/// Reads a chunk whose end has one result with these fields.
fn read(write: impl Fn(&mut PackWriter<'_>)) -> Result<()> {
    let mut writer = PackWriter::new();
    writer.null().object(|end| {
        end.u64(1).binary(&[9; 20][..]).array(|list| {
            list.object(&write);
        });
    });
    JobChunk::decode(Some(&writer.finish().to_vec())).map(drop)
}

#[test]
fn unknown_result_and_range_without_order_are_refused() {
    let kind = |kind: &'static str| {
        read(move |entry| {
            entry.string_id(StringId::known(kind));
        })
    };
    assert!(kind("removed").is_ok() && kind("truncated").is_ok());
    assert!(kind("odd").is_err());
    let damaged = |first: u32, last: u32| {
        read(move |entry| {
            entry.string_id(COPIED).u64(1).binary(&[9; 20][..]).u64(1).null().u64(0).null().string_id(DAMAGED);
            entry.array(|list| {
                list.u32_always(first).u32_always(last);
            });
        })
    };
    assert!(damaged(2, 3).is_ok());
    assert!(damaged(3, 2).is_err());
}

#[test]
fn gap_in_the_damaged_pages_of_a_file_was_filled_with_ranges_without_end() {
    let read = |write: &dyn Fn(&mut PackWriter<'_>)| {
        let mut list = PackWriter::new();
        list.array(|list| write(list));
        let packed = list.finish().to_vec();
        let ranges = read_ranges(PackReader::new(&packed).array().unwrap());
        ranges.map_err(|error| error.to_string())
    };
    let zeros = read(&|list| {
        for number in [0, 0, 3, 5] {
            list.u32_always(number);
        }
    });
    assert_eq!(zeros, Ok(vec![[0, 0], [3, 5]]));
    let gap = read(&|list| {
        list.skip_to(1_000_000_000).u32_always(1);
    });
    assert_eq!(gap, Err("field 1 is missing".to_owned()));
}
