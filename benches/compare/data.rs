//! Content of the clusters: one large table, many relations, and changes to them.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::harness::Site;
use crate::tests::env::Cluster;

const PAGE_BYTES: usize = 8192;
/// Only files of at least this size are damaged, that is, those of the large table and its index.
const LARGE_BYTES: u64 = 1 << 20;

/// A cluster with a table `accounts`, like the largest table of pgbench. Table and index use about `size_mb`. Its pages
/// have room for a changed row.
pub fn large(size_mb: usize) -> Site {
    let rows = size_mb * 6_300;
    Site::load(|cluster| {
        cluster.sql(
            "create table accounts(aid int not null, bid int, abalance int, filler char(84)) with (fillfactor = 90)",
        );
        cluster
            .sql(&format!("insert into accounts select g, g / 100000, g % 7919, '' from generate_series(1, {rows}) g"));
        cluster.sql("alter table accounts add primary key (aid)");
    })
}

/// A cluster of `count` tables with one row each.
pub fn tables(count: usize) -> Site {
    Site::load(|cluster| {
        cluster.sql(
            "create procedure make(first int, last int) language plpgsql as $$ begin
             for i in first..last loop execute format('create table s%s as select %s as a', i, i);; end loop;; end $$",
        );
        for first in (1..=count).step_by(500) {
            cluster.sql(&format!("call make({first}, {})", (first + 499).min(count)));
        }
    })
}

/// Changes a row in every `every`th block of `accounts`, starting with block `first`. The new row version stays in the
/// same block.
pub fn change_blocks(cluster: &Cluster, first: usize, every: usize) {
    cluster.sql(&format!(
        "update accounts set abalance = abalance + 1 where ctid = any (array(
         select format('(%s,1)', block)::tid
         from generate_series({first}, pg_relation_size('accounts') / {PAGE_BYTES} - 1, {every}) block))"
    ));
}

/// Overwrites some bytes in every `every`th page of the large files of a stopped cluster.
pub fn damage_pages(folder: &Path, every: usize) {
    for entry in fs::read_dir(folder).expect("data folder").flatten() {
        let found = entry.metadata().expect("size");
        if found.is_dir() {
            damage_pages(&entry.path(), every);
        } else if found.len() >= LARGE_BYTES {
            let file = fs::OpenOptions::new().write(true).open(entry.path()).expect("open data file");
            for offset in (0..found.len()).step_by(every * PAGE_BYTES) {
                file.write_all_at(b"damaged", offset + 4000).expect("overwrite page");
            }
        }
    }
}

/// Segments of 1 MB per log file of 4 GB.
const SEGMENTS_PER_LOG: u64 = 4096;

/// The number of a segment of 1 MB on the first timeline.
pub fn segment_number(name: &str) -> u64 {
    let part = |range| u64::from_str_radix(&name[range], 16).expect("name of a segment");
    part(8..16) * SEGMENTS_PER_LOG + part(16..24)
}

/// The reverse of [`segment_number`].
pub fn segment_name(number: u64) -> String {
    format!("00000001{:08X}{:08X}", number / SEGMENTS_PER_LOG, number % SEGMENTS_PER_LOG)
}

/// Appends to a file of a cluster.
pub fn append(file: &Path, text: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(file).expect("open for appending");
    file.write_all(text.as_bytes()).expect("append");
}
