//! An S3 server behind a proxy that makes every request wait, and counts them.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use super::cost::Figures;
use crate::tests::env::proxy::Proxy;
use crate::tests::env::{Space, Weed};

/// See the module.
pub struct Bucket {
    // Before the server that it asks
    proxy: Proxy,
    weed: Weed,
    space: Space,
    repos: Cell<usize>,
}

impl Bucket {
    /// A server with an empty bucket, on a disk: it never makes room again.
    pub fn start() -> Self {
        let weed = Weed::start_in(Space::on_disk()).expect("run scripts/oracles first");
        Self { proxy: weed.proxy(), weed, space: Space::new(), repos: Cell::new(0) }
    }

    /// From now on every request waits so long.
    pub fn set_latency(&self, latency: Duration) {
        self.proxy.set_latency(latency);
    }

    /// The lines of a configuration for a repository in the bucket that was not there before, and these.
    pub fn new_repo(&self, lines: &[&str]) -> Vec<String> {
        self.repos.set(self.repos.get() + 1);
        let mut all = self.weed.options(self.proxy.port());
        for line in &mut all {
            if line.starts_with("repo1-path=") {
                *line = format!("repo1-path={}", self.path());
            }
        }
        all.extend(lines.iter().map(|&line| line.to_owned()));
        all
    }

    /// `repo1-path` of the last new repository.
    pub fn path(&self) -> String {
        format!("/repo-{}", self.repos.get())
    }

    /// Measures, and adds how many requests that took.
    pub fn count(&self, measure: impl FnOnce() -> Figures) -> Figures {
        self.proxy.clear();
        let mut figures = measure();
        figures.push(("requests", self.proxy.counts().values().sum::<u64>() as f64));
        figures
    }

    /// Puts small objects with these names into the bucket, past the proxy.
    pub fn put_small(&self, names: impl Iterator<Item = String>) {
        let content = self.space.write("small", "not read by what is measured");
        let mut transfers = String::from("silent\nfail\n");
        for name in names {
            let _ = writeln!(
                transfers,
                "upload-file=\"{}\"\nurl=\"{}{name}\"\noutput=/dev/null",
                content.display(),
                self.weed.files()
            );
        }
        self.space.write("transfers", transfers);
        self.space.run("curl", &["--config", &self.space.text("transfers")]).success();
    }
}
