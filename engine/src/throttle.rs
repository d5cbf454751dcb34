//! Limits the rate of a command, in bytes per second over all its workers.
//!
//! A worker reads a piece and then waits as long as the rate requires ([`Pace::after`]). It holds no connection or lock
//! that others wait for, and nothing counts this as a stall: time limits of connections run only while somebody waits
//! for an answer. Without a limit nothing is measured.

mod ease;
mod limit;

pub(crate) use self::ease::Ease;
pub use self::ease::EaseSettings;
pub use self::limit::{Pace, RATE_MIN, RateLimit};
