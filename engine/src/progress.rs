//! Progress of a long copy, for a display.

/// Receives progress from the main thread of a backup, restore or verify.
pub trait Progress: Send + Sync {
    /// The copy starts: so many files, with so many bytes in all.
    fn start(&self, files: u64, bytes: u64);

    /// Adds completed files and bytes.
    fn advance(&self, files: u64, bytes: u64);

    /// The copy ended, well or not.
    fn finish(&self);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NoProgress;

impl Progress for NoProgress {
    fn start(&self, _files: u64, _bytes: u64) {}

    fn advance(&self, _files: u64, _bytes: u64) {}

    fn finish(&self) {}
}

/// Returns the ratio of `done` to `total` in units of 0.01%, rounded; 10000 when complete (like pgBackRest's
/// `cvtPctToUInt`).
pub(crate) fn percent_hundredths(done: u64, total: u64) -> u32 {
    if done >= total {
        return 10_000;
    }
    // The quotient is at most 10000, so it fits
    u32::try_from((u128::from(done) * 100_000 / u128::from(total) + 5) / 10).unwrap_or(10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_rounded() {
        assert_eq!(percent_hundredths(0, 0), 10_000);
        assert_eq!(percent_hundredths(0, 3), 0);
        assert_eq!(percent_hundredths(2, 3), 6_667);
        assert_eq!(percent_hundredths(u64::MAX - 1, u64::MAX), 10_000);
        assert_eq!(percent_hundredths(3, 3), 10_000);
    }
}
