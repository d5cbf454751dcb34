//! The text form of `manifest`, byte for byte pgBackRest's. The only difference is that control characters are escaped.

use std::fmt::Write as _;

use engine::manifest::{BackupReads, BlockRestore};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use repo_format::manifest::{BlockIncr, Manifest, ManifestFile};
use repo_format::size::format_size;

use super::control::visible_value;

/// The backup itself, up to its first file.
pub fn head(manifest: &Manifest, zone: &TimeZone) -> String {
    let data = &manifest.data;
    let references: Vec<&str> = manifest.references.iter().map(AsRef::as_ref).collect();
    let seconds = data.timestamp_stop.saturating_sub(data.timestamp_start);
    format!(
        "label: {}\nreference: {}\ntype: {}\ntime: start: {}, stop: {}, duration: {}:{:02}:{:02}\nbundle: {}\n\
         block: {}\n\nfile list:\n",
        data.label,
        references.join(", "),
        data.backup_type,
        format_time(data.timestamp_start, zone),
        format_time(data.timestamp_stop, zone),
        seconds / 3600,
        seconds % 3600 / 60,
        seconds % 60,
        data.bundle,
        data.block_incr,
    )
}

/// Formats local time.
fn format_time(epoch: i64, zone: &TimeZone) -> String {
    match Timestamp::from_second(epoch) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("@{epoch}"),
    }
}

/// A file, with what a restore of it reads if that was asked for.
pub fn file(manifest: &Manifest, file: &ManifestFile, restore: Option<&BlockRestore>) -> String {
    let mut out = format!("  - {}\n", visible_value(&file.name));
    let mut line = |text: String| {
        out.push_str("      ");
        out.push_str(&text);
        out.push('\n');
    };
    if file.reference.is_some() {
        line(format!("reference: {}", manifest.holder(file)));
    }
    line(format!("size: {}, repo {}", format_size(file.size), format_size(file.size_repo)));
    line(format!("checksum: {}", file.checksum.map_or_else(|| "none".to_owned(), |checksum| checksum.to_string())));
    if let Some(bundle) = file.bundle {
        line(format!("bundle: {}", bundle.id()));
    }
    if let Some(block) = file.block {
        line(format!(
            "block: size {}, map size {}, checksum size {}",
            format_size(u64::from(block.size)),
            format_size(block.map_size),
            format_size(u64::from(block.checksum_size))
        ));
        match restore {
            None => (),
            Some(BlockRestore::UpToDate) => line("block delta: file is up-to-date".to_owned()),
            Some(BlockRestore::Reads(backups)) => {
                line("block delta:".to_owned());
                render_reads(&mut out, backups, block);
            }
        }
    }
    out
}

fn render_reads(out: &mut String, backups: &[BackupReads], block: BlockIncr) {
    let mut total = BackupReads::default();
    for reads in backups {
        let _ = writeln!(out, "        reference: {}, read: {}", visible_value(&reads.path), counts(reads, block));
        total.reads += reads.reads;
        total.read_size = total.read_size.saturating_add(reads.read_size);
        total.super_blocks += reads.super_blocks;
        total.super_block_size = total.super_block_size.saturating_add(reads.super_block_size);
        total.blocks += reads.blocks;
    }
    let _ = writeln!(out, "        total read: {}", counts(&total, block));
}

fn counts(reads: &BackupReads, block: BlockIncr) -> String {
    format!(
        "{}/{}, superBlock: {}/{}, block: {}/{}",
        reads.reads,
        format_size(reads.read_size),
        reads.super_blocks,
        format_size(reads.super_block_size),
        reads.blocks,
        format_size(reads.blocks.saturating_mul(u64::from(block.size)))
    )
}
