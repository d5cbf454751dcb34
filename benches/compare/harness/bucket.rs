//! An S3 server behind a proxy that delays and counts every request.

use std::cell::Cell;
use std::fmt::Write as _;
use std::time::Duration;

use super::cost::Figures;
use crate::tests::env::proxy::Proxy;
use crate::tests::env::{Space, Weed};

/// See the module documentation.
pub struct Bucket {
    // Declared before the server, so that it is dropped first
    proxy: Proxy,
    weed: Weed,
    space: Space,
    repos: Cell<usize>,
}

impl Bucket {
    /// Starts a server with an empty bucket. It is on a disk, because it never frees space.
    pub fn start() -> Self {
        let weed = Weed::start_in(Space::on_disk()).expect("run scripts/oracles first");
        Self { proxy: weed.proxy(), weed, space: Space::new(), repos: Cell::new(0) }
    }

    /// Delays every request by this time from now on.
    pub fn set_latency(&self, latency: Duration) {
        self.proxy.set_latency(latency);
    }

    /// Returns the configuration lines for a new repository in the bucket, followed by `lines`.
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

    /// Returns `repo1-path` of the newest repository.
    pub fn path(&self) -> String {
        format!("/repo-{}", self.repos.get())
    }

    /// Measures, and adds the number of requests.
    pub fn count(&self, measure: impl FnOnce() -> Figures) -> Figures {
        self.proxy.clear();
        let mut figures = measure();
        figures.push(("requests", self.proxy.counts().values().sum::<u64>() as f64));
        figures
    }

    /// Puts small objects with these names into the bucket, without the proxy.
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
