//! Compares rbr with the real pgBackRest: the same work with the same options on the same data, alternately on the same
//! machine.
//!
//! `make bench` runs every subject. `RBR_BENCH=incr,wal make bench` (or `cargo bench --bench compare -- incr wal`) runs
//! the subjects whose names begin with these words. Requires `scripts/oracles`. Every line is one value of one
//! comparison: median, minimum and maximum of each program, and the ratio of the medians, rbr / pgBackRest (less is
//! better everywhere; below 1.00 rbr is better).
//!
//! Each comparison is repeated `RBR_BENCH_ROUNDS` times (3), and the programs take turns to begin. Dirty data is
//! written to the disk before each measurement. `wall s` is the time until the command ends, `cpu s` the processor time
//! of the command and its children, `peak MiB` the maximum of the proportional memory of all processes of the program
//! together, `own MiB` the same without what is part of files, such as the programs and their libraries, `stored KiB`
//! what the command added to the repository.
//!
//! Sizes: `RBR_BENCH_MB` (1024) of the large cluster, `RBR_BENCH_RELATIONS` (100000) and `RBR_BENCH_TABLES` (20000) of
//! the clusters with many relations, `RBR_BENCH_SEGMENTS` (500) of the recovery, `RBR_BENCH_TRANSACTIONS` (10000) and
//! `RBR_BENCH_INSERTS` (200) of each client while WAL is archived, `RBR_BENCH_CODECS` ("none lz4 zst gz bz2"). For a
//! repository in an S3 server and for distant hosts, `RBR_BENCH_LATENCY_MS` ("0 20") is the delay of each request or direction,
//! `RBR_BENCH_PROCESSES` ("2 4") the values of process-max. Distant hosts: `RBR_BENCH_DISTANT_TABLES` (500) of a page,
//! `RBR_BENCH_DISTANT_MB` (0) of large tables, `RBR_BENCH_DISTANT_BUNDLES` ("n y"), `RBR_BENCH_DISTANT_FAR` ("cluster
//! repository"), `RBR_BENCH_DISTANT_SEGMENTS` (64).
//!
//! Measure on an idle machine: both programs use every core.

#[path = "../../tests"]
mod tests {
    #[allow(dead_code, unused_imports)]
    pub mod env;
}

mod data;
mod delta;
mod distant;
mod full;
mod harness;
mod incr;
mod s3;
mod s3_wal;
mod wal_calls;
mod wal_load;
mod wal_recovery;
mod wal_segment;

use harness::Report;

type Subject = fn(&mut Report);

/// Every subject by its name.
const SUBJECTS: [(&str, Subject); 16] = [
    ("full", full::codecs_of_large),
    ("relations", full::relations),
    ("incr-tables", incr::unchanged_tables),
    ("incr-blocks", incr::changed_blocks),
    ("delta", delta::restore),
    ("wal-load", wal_load::load),
    ("wal-recovery", wal_recovery::recovery),
    ("wal-segment", wal_segment::usual),
    ("wal-large", wal_segment::large),
    ("wal-calls", wal_calls::calls),
    ("distant", distant::hosts),
    ("distant-archive", distant::archive),
    ("s3-full", s3::full),
    ("s3-incr", s3::incr),
    ("s3-wal", s3_wal::segments),
    ("s3-archive", s3_wal::archive),
];

/// Returns the requested names, from arguments or the environment. No names mean all.
fn wanted() -> Vec<String> {
    let mut wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if wanted.is_empty() {
        let names = std::env::var("RBR_BENCH").unwrap_or_default();
        wanted = names.split([',', ' ']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    }
    for name in &wanted {
        let known = SUBJECTS.map(|(known, _)| known);
        assert!(known.iter().any(|known| known.starts_with(name)), "no subject '{name}', there are {known:?}");
    }
    wanted
}

fn main() {
    // `cargo test --benches` only checks that benchmarks start
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let wanted = wanted();
    let mut report = Report::begin();
    for (name, subject) in SUBJECTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted)) {
            subject(&mut report);
        }
    }
}
