//! WAL with the repository in an S3 server, without and with latency: archiving and fetching segments of 16 MB, and
//! commands that list a long archive.

use std::fs;

use crate::data;
use crate::harness::{Bucket, Figures, Report, STANZA, Site, VERSION, latencies, processes};
use crate::s3::create_stanza;
use crate::tests::env::{Shutdown, Tool};
use crate::wal_segment::{copies, fill, text};

/// Segments that are archived and fetched together.
const SEGMENTS: usize = 64;
/// Segments in the long archive.
const LONG: u64 = 10_000;
/// Segments of 16 MB per log file of 4 GB, which is one directory of the archive.
const SEGMENTS_PER_LOG: u64 = 256;

/// archive-push and archive-get, one call per segment; then asynchronously, with the work in the background.
pub fn segments(report: &mut Report) {
    let mut site = Site::new(&[], &["archive_mode = on", "archive_command = 'false'"]);
    let source = fill(&mut site, 16);
    let (names, bucket) = (copies(&site, &source, SEGMENTS), Bucket::start());
    for latency in latencies() {
        bucket.set_latency(latency);
        let how = format!("+{} ms", latency.as_millis());
        compare(report, &site, &bucket, &names, &format!("S3 {SEGMENTS} segments, {how}"), &[]);
        for count in processes() {
            let what = format!("S3 async {SEGMENTS} segments, {how}, {count} pr.");
            let count = format!("process-max={count}");
            compare(
                report,
                &site,
                &bucket,
                &names,
                &what,
                &["archive-async=y", "archive-get-queue-max=256MiB", &count],
            );
        }
    }
}

fn compare(report: &mut Report, site: &Site, bucket: &Bucket, names: &[String], what: &str, lines: &[&str]) {
    let asynchronous = lines.contains(&"archive-async=y");
    let measure = |tool, commands: &mut dyn Iterator<Item = std::process::Command>| {
        let mut figures = bucket.count(|| site.measure_all(tool, commands));
        site.worker_ends(tool);
        if asynchronous {
            // The worker is not a child of ours
            figures.retain(|(measure, _)| *measure != "cpu s");
        }
        figures
    };
    let wal = site.cluster.data().join("pg_wal");
    report.in_turn(
        &format!("push {what}"),
        |_| {},
        |tool| {
            create_stanza(site, bucket, tool, &[lines, &["compress-type=zst"]].concat());
            let status = |name: &String| wal.join("archive_status").join(format!("{name}.ready"));
            for name in names {
                fs::write(status(name), "").expect("segment that waits");
                site.space.user().own(&status(name));
            }
            let mut before: Option<&String> = None;
            let figures = measure(
                tool,
                &mut names.iter().map(|name| {
                    // PostgreSQL removes the status of acknowledged segments
                    if let Some(before) = before.replace(name) {
                        fs::remove_file(status(before)).expect("acknowledged segment");
                    }
                    site.command(tool, &["archive-push", &text(&wal.join(name))])
                }),
            );
            fs::remove_file(status(&names[names.len() - 1])).expect("last segment");
            figures
        },
    );
    report.in_turn(
        &format!("get {what}"),
        |_| {},
        |tool| {
            let folder = site.empty(tool, "fetched");
            site.empty(tool, "spool");
            let get = |name: &String| site.command(tool, &["archive-get", name, &text(&folder.join(name))]);
            site.warm_memory();
            let figures = measure(tool, &mut names.iter().map(get));
            for name in names {
                let same = fs::read(folder.join(name)).expect("fetched") == fs::read(wal.join(name)).expect("segment");
                assert!(same, "segment {name} differs");
            }
            figures
        },
    );
    site.clear();
}

/// info and expire with an archive of many segments before the only backup.
pub fn archive(report: &mut Report) {
    let (mut site, bucket) = (Site::new(&[], &["archive_mode = on"]), Bucket::start());
    // The cluster goes on behind the long archive
    let next = segment_name(LONG + SEGMENTS_PER_LOG);
    let resetwal = site.oracles.postgres[&VERSION].join("pg_resetwal");
    site.space.run(resetwal, &["-l", &next, &site.cluster.data_text()]).success();
    let repos = [Tool::Rbr, Tool::PgBackRest].map(|tool| {
        create_stanza(&site, &bucket, tool, &["repo1-retention-full=1", "repo1-bundle=y"]);
        let command = site.command_line(tool, "archive-push %p");
        data::append(&site.cluster.data().join("postgresql.conf"), &format!("archive_command = '{command}'\n"));
        site.cluster.start();
        site.run(tool, &["--type=full", "backup"]);
        site.cluster.stop(Shutdown::Immediate);
        bucket.path()
    });
    for latency in latencies() {
        bucket.set_latency(latency);
        let what = format!("S3 with {LONG} segments, +{} ms", latency.as_millis());
        let command = |tool, command: &str| -> Figures { bucket.count(|| site.measure(tool, &[command])) };
        let lengthen = |_| repos.iter().for_each(|repo| bucket.put_small(long_archive(repo)));
        lengthen(0);
        report.in_turn(&format!("info, {what}"), |_| {}, |tool| command(tool, "info"));
        report.in_turn(&format!("expire, {what}"), lengthen, |tool| command(tool, "expire"));
    }
}

/// Returns names of archived segments below a repository.
fn long_archive(repo: &str) -> impl Iterator<Item = String> {
    (1..=LONG).map(move |number| {
        let name = segment_name(number);
        format!("{repo}/archive/{STANZA}/{VERSION}-1/{}/{name}-{number:040x}.zst", &name[..16])
    })
}

fn segment_name(number: u64) -> String {
    format!("00000001{:08X}{:08X}", number / SEGMENTS_PER_LOG, number % SEGMENTS_PER_LOG)
}
