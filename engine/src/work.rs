//! Parallel work: workers and their turns to compute, requests that are in flight at the same time, retries and pauses.
//!
//! * [`crew`]: runs jobs on worker threads.
//! * [`turn`]: limits how many of them compute at a time.
//! * [`together`]: sends requests that do not depend on each other at the same time.
//! * [`retry`]: repeats a step that failed.
//! * [`backoff`]: pauses between tries of something that depends on others.
//! * [`thread`]: starts threads, or reports that the system starts no more.

pub mod backoff;
pub mod crew;
pub mod retry;
pub mod thread;
pub mod together;
pub mod turn;
