//! Parallel work: worker threads and their turns to compute, requests that go out together, retries and pauses.

pub mod backoff;
pub mod crew;
pub mod together;
pub mod turn;
