//! How a process ends: exit status and the error line.

/// What a command returns when it does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// All went well.
    pub const SUCCESS: ExitStatus = ExitStatus(0);
    /// archive-get, repo-get: there is no such file.
    pub const NOT_FOUND: ExitStatus = ExitStatus(1);
}
