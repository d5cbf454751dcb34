//! Synchronous archive-push and archive-get of single segments: of the usual 16 MB, and of the largest size, 1 GB.

use std::fs;
use std::path::Path;

use crate::harness::{Report, Site, codecs};
use crate::tests::env::{Cluster, Shutdown};

/// Calls that are measured together.
const USUAL_CALLS: usize = 10;

/// Segments of 16 MB.
pub fn usual(report: &mut Report) {
    compare(report, 16, USUAL_CALLS);
}

/// A segment of 1 GB.
pub fn large(report: &mut Report) {
    compare(report, 1024, 1);
}

fn compare(report: &mut Report, segment_mb: usize, calls: usize) {
    let size = format!("--wal-segsize={segment_mb}");
    let mut site = Site::new(&[&size], &["archive_mode = on", "archive_command = 'false'", "max_wal_size = 16GB"]);
    let source = fill(&mut site, segment_mb);
    let wal = site.cluster.data().join("pg_wal");
    let names = copies(&site, &source, calls);
    for codec in codecs() {
        let compress = format!("compress-type={codec}");
        report.in_turn(
            &format!("archive-push of {calls} x {segment_mb} MB, {codec}"),
            |_| {},
            |tool| {
                site.create_stanza(tool, &[&compress]);
                let push = |name| site.command(tool, &["archive-push", &text(&wal.join(name))]);
                let mut figures = site.measure_all(tool, names.iter().map(push));
                figures.push(("stored KiB", site.stored_kib(tool)));
                figures
            },
        );
        report.in_turn(
            &format!("archive-get of {calls} x {segment_mb} MB, {codec}"),
            |_| {},
            |tool| {
                let folder = site.empty(tool, "fetched");
                let get = |name: &String| site.command(tool, &["archive-get", name, &text(&folder.join(name))]);
                let figures = site.measure_all(tool, names.iter().map(get));
                let same =
                    fs::read(folder.join(&names[0])).expect("fetched") == fs::read(wal.join(&source)).expect("segment");
                assert!(same, "a segment differs");
                figures
            },
        );
        site.clear();
    }
}

/// Creates copies of a segment next to it: one name per call, with the same content.
pub fn copies(site: &Site, source: &str, count: usize) -> Vec<String> {
    let wal = site.cluster.data().join("pg_wal");
    let names: Vec<_> = (0..count).map(|number| format!("00000001000000A0000000{number:02X}")).collect();
    for name in &names {
        let copy = wal.join(name);
        fs::copy(wal.join(source), &copy).expect("copy segment");
        site.space.user().own(&copy);
    }
    names
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Fills a segment with rows and returns its name.
pub fn fill(site: &mut Site, segment_mb: usize) -> String {
    site.cluster.start();
    let current = |cluster: &Cluster| cluster.sql("select pg_walfile_name(pg_current_wal_lsn())");
    site.cluster.sql("create table bulk(id int, number double precision, body text)");
    // The segment that initdb began is left out
    site.cluster.switch_wal();
    let segment = current(&site.cluster);
    while current(&site.cluster) == segment {
        site.cluster.sql(&format!(
            "insert into bulk select g, random(), md5((g / 10)::text) || ' note ' || g % 7
             from generate_series(1, {segment_mb} * 1000) g"
        ));
    }
    site.cluster.stop(Shutdown::Fast);
    segment
}
