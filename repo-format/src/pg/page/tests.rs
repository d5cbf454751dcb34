use super::*;

/// The algorithm word by word, to compare with.
fn checksum_by_words(page: &[u8], block: u32) -> u16 {
    let mut page = page.to_vec();
    page[8..10].fill(0);
    page.resize(page.len() + 2 * 128, 0);
    let mut lanes = LANES_BEGIN;
    for (index, word) in page.chunks_exact(4).enumerate() {
        let mixed = lanes[index % 32] ^ u32::from_le_bytes(word.try_into().unwrap());
        lanes[index % 32] = mixed.wrapping_mul(16_777_619) ^ (mixed >> 17);
    }
    ((lanes.iter().fold(block, |sum, lane| sum ^ lane) % 65535) + 1) as u16
}

fn page(size: u32, seed: u32, block: u32) -> Vec<u8> {
    let mut page: Vec<u8> =
        (0..size).map(|index| (index.wrapping_mul(2_654_435_761) ^ seed).to_le_bytes()[2]).collect();
    page[14..16].copy_from_slice(&100u16.to_le_bytes());
    let sum = checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

fn check(size: u32, header_check: bool) -> PageRules {
    PageRules { page_size: size, first_page: 0, header_check }
}

#[test]
fn checksum_equals_the_algorithm_by_words_for_every_page_size() {
    for size in PAGE_SIZES {
        for block in [0, 1, 131_072, u32::MAX] {
            let page = page(size, block, block);
            assert_eq!(checksum(&page, block), checksum_by_words(&page, block), "{size} {block}");
        }
    }
}

#[test]
fn check_of_good_pages_finds_nothing() {
    for size in PAGE_SIZES {
        let data: Vec<u8> = (0..5).flat_map(|block| page(size, block, block)).collect();
        let mut suspects = Vec::new();
        assert_eq!(check(size, true).check(&data, 0, &mut suspects), 0);
        assert_eq!(check(size, true).check(&data[2 * size as usize..], 2 * u64::from(size), &mut suspects), 0);
        assert_eq!(suspects, []);
    }
}

#[test]
fn check_names_damaged_and_misplaced_pages() {
    let mut data: Vec<u8> = (0..4).flat_map(|block| page(8192, 9, if block == 3 { 7 } else { block })).collect();
    data[8192 + 500] ^= 1;
    let mut suspects = Vec::new();
    let _ = check(8192, true).check(&data, 0, &mut suspects);
    assert_eq!(suspects, [1, 3]);
}

#[test]
fn check_of_an_unused_page_wants_zeros() {
    let mut data = vec![0; 3 * 8192];
    data[8192 + 8191] = 1;
    // The header says that the page is used, but its checksum is zero
    data[2 * 8192 + 14] = 1;
    let mut by_header = Vec::new();
    let _ = check(8192, true).check(&data, 0, &mut by_header);
    assert_eq!(by_header, [1, 2]);
    let mut by_checksum = Vec::new();
    let _ = check(8192, false).check(&data, 0, &mut by_checksum);
    assert_eq!(by_checksum, [1, 2]);
}

#[test]
fn check_without_header_check_takes_an_upper_of_zero_with_a_right_checksum() {
    let mut data = page(8192, 3, 0);
    data[14..16].fill(0);
    let sum = checksum(&data, 0);
    data[8..10].copy_from_slice(&sum.to_le_bytes());
    let mut suspects = Vec::new();
    let _ = check(8192, false).check(&data, 0, &mut suspects);
    assert_eq!(suspects, []);
    let _ = check(8192, true).check(&data, 0, &mut suspects);
    assert_eq!(suspects, [0]);
}

#[test]
fn check_gives_the_bytes_after_the_last_page() {
    let mut data = page(8192, 3, 0);
    data.extend_from_slice(&[1; 511]);
    let mut suspects = Vec::new();
    assert_eq!(check(8192, true).check(&data, 0, &mut suspects), 511);
    assert_eq!(suspects, []);
}

#[test]
fn first_page_follows_the_segment_number() {
    assert_eq!(first_page("pg_data/base/5/1259", 8192), 0);
    assert_eq!(first_page("pg_data/base/5/1259.2", 8192), 262_144);
    assert_eq!(first_page("base/5/1259_fsm", 8192), 0);
    assert_eq!(first_page("base/5.1/x", 8192), 0);
    assert_eq!(first_page("base/5/1259.1", 1024), 1_048_576);
}

#[test]
fn page_of_a_later_segment_is_found_in_its_file() {
    let check = PageRules { page_size: 8192, first_page: 262_144, header_check: true };
    let mut data = page(8192, 1, 262_144 + 5);
    let mut suspects = Vec::new();
    let _ = check.check(&data, 5 * 8192, &mut suspects);
    assert_eq!(suspects, []);
    data[100] ^= 4;
    let _ = check.check(&data, 5 * 8192, &mut suspects);
    assert_eq!(suspects, [262_149]);
    assert_eq!(check.file_offset(262_149), 5 * 8192);
}
