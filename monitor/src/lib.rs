//! What rbr shows of repositories, clusters and jobs.
//!
//! A collector fills a [`snapshot::Snapshot`]. From it and from the JSON of `info` ([`info`]) the rest follows, as pure
//! functions:
//!
//! * [`metrics`]: the metrics of rbr. [`compat`]: those of `pgbackrest_exporter`.
//! * [`text`]: the text format of metrics. [`page`]: the status page.
//!
//! [`files`] are what a collection leaves, and [`http`] is the server that shows them.

pub mod compat;
pub mod files;
pub mod http;
pub mod info;
pub mod metrics;
pub mod page;
pub mod snapshot;
pub mod text;
