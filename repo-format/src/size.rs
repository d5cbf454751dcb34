//! Sizes and percentages as messages and reports show them.
//!
//! Source: pgBackRest `src/common/type/string.c` (`strSizeFormat`) and `src/common/type/convert.c`.

/// A size in bytes as `22.1MB`: bytes below 1 KiB, then powers of 1024 with one decimal, rounded, `.0` left out. There is no
/// unit above GB.
pub fn format_size(size: u64) -> String {
    const KB: u64 = 1 << 10;
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    let (divisor, suffix) = match size {
        ..KB => return format!("{size}B"),
        KB..MB => (KB, "KB"),
        MB..GB => (MB, "MB"),
        _ => (GB, "GB"),
    };
    // One digit more than is shown decides about rounding; u128 holds it for every size
    let hundredths = u128::from(size) * 100 / u128::from(divisor);
    let tenths = (hundredths + 5) / 10;
    if tenths % 10 == 0 {
        format!("{}{suffix}", tenths / 10)
    } else {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    }
}

/// How much `done` is of `total` in hundredths of a percent, rounded; 10000 exactly when all is done (also of nothing).
pub fn percent_hundredths(done: u64, total: u64) -> u32 {
    if done >= total {
        return 10_000;
    }
    // pgBackRest computes in floating point; a difference would need sizes that no double holds
    let thousandths = u128::from(done) * 100_000 / u128::from(total);
    u32::try_from((thousandths + 5) / 10).unwrap_or(10_000)
}

/// `done` of `total` as `83.69%`.
pub fn format_percent(done: u64, total: u64) -> String {
    let hundredths = percent_hundredths(done, total);
    format!("{}.{:02}%", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_size_table() {
        let table = [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1KB"),
            (2047, "2KB"),
            (2098, "2KB"),
            (144_281, "140.9KB"),
            (1_048_575, "1024KB"),
            (1_048_576, "1MB"),
            (36_700_160, "35MB"),
            (23_173_530, "22.1MB"),
            (1 << 30, "1GB"),
            (5 << 40, "5120GB"),
            (u64::MAX, "17179869184GB"),
        ];
        for (size, text) in table {
            assert_eq!(format_size(size), text, "{size}");
        }
    }

    #[test]
    fn format_percent_table() {
        let table = [
            (0, 100, "0.00%"),
            (1, 3, "33.33%"),
            (2, 3, "66.67%"),
            (1_135_285, 1_356_479, "83.69%"),
            (7, 7, "100.00%"),
            (0, 0, "100.00%"),
            (9, 7, "100.00%"),
        ];
        for (done, total, text) in table {
            assert_eq!(format_percent(done, total), text, "{done}/{total}");
        }
    }
}
