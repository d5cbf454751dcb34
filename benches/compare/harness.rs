//! What every comparison stands on: a cluster with both programs beside it, what a command costs, and the table of results.

mod cost;
mod report;
mod site;

pub use cost::{Figures, machine_processor_s};
pub use report::Report;
pub use site::{Site, VERSION};

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// The compression types to compare.
pub fn codecs() -> Vec<String> {
    let names = std::env::var("RBR_BENCH_CODECS").unwrap_or_else(|_| "none lz4 zst gz bz2".to_owned());
    names.split_whitespace().map(str::to_owned).collect()
}
