//! Sizes and percentages as shown in messages and reports.
//!
//! Source: pgBackRest `src/common/type/string.c` (`strSizeFormat`) and `src/common/type/convert.c`.

/// Formats a size in bytes as `22.1MB`: bytes below 1 KiB, then powers of 1024 with one rounded decimal, without `.0`.
/// There is no unit above GB.
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
    // One more digit than shown decides the rounding; u128 fits every size
    let hundredths = u128::from(size) * 100 / u128::from(divisor);
    let tenths = (hundredths + 5) / 10;
    if tenths % 10 == 0 {
        format!("{}{suffix}", tenths / 10)
    } else {
        format!("{}.{}{suffix}", tenths / 10, tenths % 10)
    }
}

/// Returns the ratio of `done` to `total` in hundredths of a percent, rounded. It is 10000 only if everything is done,
/// also for a total of 0.
pub fn percent_hundredths(done: u64, total: u64) -> u32 {
    if done >= total {
        return 10_000;
    }
    // pgBackRest computes in floating point; the results differ only for sizes that no double can represent
    let thousandths = u128::from(done) * 100_000 / u128::from(total);
    u32::try_from((thousandths + 5) / 10).unwrap_or(10_000)
}

/// Formats the ratio of `done` to `total` as `83.69%`.
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
