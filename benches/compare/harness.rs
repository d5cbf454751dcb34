//! Common code of all comparisons: a cluster with a repository for each program, the cost of commands, and the table of
//! results.

use std::time::Duration;

mod bucket;
mod cost;
mod report;
mod site;

pub use bucket::Bucket;
pub use cost::{Figures, Watch, machine_processor_s};
pub use report::Report;
pub use site::{STANZA, Site, VERSION};

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Returns words from the environment.
pub fn words(name: &str, default: &str) -> Vec<String> {
    let words = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    words.split_whitespace().map(str::to_owned).collect()
}

/// The compression types to compare.
pub fn codecs() -> Vec<String> {
    words("RBR_BENCH_CODECS", "none lz4 zst gz bz2")
}

/// The latencies that are added to every request to an object store.
pub fn latencies() -> Vec<Duration> {
    let number = |word: String| word.parse().unwrap_or_else(|_| panic!("RBR_BENCH_LATENCY_MS: {word} is no number"));
    words("RBR_BENCH_LATENCY_MS", "0 20").into_iter().map(number).map(Duration::from_millis).collect()
}

/// The numbers of processes that work with an object store.
pub fn processes() -> Vec<String> {
    words("RBR_BENCH_PROCESSES", "2 4")
}
