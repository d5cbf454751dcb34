//! The JSON form of `manifest`, byte for byte pgBackRest's: compact, and no line feed at the end. The only difference is
//! that control characters are escaped.

use engine::manifest::{BackupReads, BlockRestore};
use repo_format::json::ObjectWriter;
use repo_format::manifest::{BlockIncr, Manifest, ManifestFile};

use super::control::valid_json;

/// What follows the last file.
pub const END: &str = "]}";

/// The backup itself, up to its first file.
pub fn head(manifest: &Manifest) -> String {
    let data = &manifest.data;
    let mut out = String::new();
    let mut json = ObjectWriter::new(&mut out);
    json.plain("label", &data.label);
    let mut references = json.array("reference");
    for label in &manifest.references {
        references.string(label.as_ref());
    }
    references.end();
    json.plain("type", data.backup_type);
    let mut time = json.object("time");
    time.scalar("start", data.timestamp_start);
    time.scalar("copy", data.timestamp_copy_start);
    time.scalar("stop", data.timestamp_stop);
    time.end();
    let mut bundle = json.object("bundle");
    bundle.scalar("bundle", data.bundle);
    bundle.scalar("raw", data.bundle_raw);
    bundle.end();
    let mut block = json.object("block");
    block.scalar("block", data.block_incr);
    block.end();
    // The files follow, so the object stays open
    json.raw("fileList", "[");
    out
}

/// A file, with what a restore of it reads if that was asked for.
pub fn file(manifest: &Manifest, file: &ManifestFile, restore: Option<&BlockRestore>) -> String {
    let mut out = String::new();
    let mut json = ObjectWriter::new(&mut out);
    json.string("name", &file.name);
    if file.reference.is_some() {
        json.string("reference", manifest.holder(file).as_ref());
    }
    json.scalar("size", file.size);
    let checksum = file.checksum.map(|checksum| checksum.to_string());
    json.string_or_null("checksum", checksum.as_deref());
    let mut repo = json.object("repo");
    repo.scalar("size", file.size_repo);
    repo.end();
    if let Some(place) = file.bundle {
        let mut bundle = json.object("bundle");
        bundle.scalar("id", place.id());
        bundle.scalar("offset", place.offset);
        bundle.end();
    }
    if let Some(block) = file.block {
        render_block(&mut json, block, restore);
    }
    json.end();
    valid_json(&out).into_owned()
}

fn render_block(json: &mut ObjectWriter<'_>, block: BlockIncr, restore: Option<&BlockRestore>) {
    let mut out = json.object("block");
    out.scalar("size", block.size);
    let mut map = out.object("map");
    map.scalar("size", block.map_size);
    match restore {
        None => (),
        Some(BlockRestore::UpToDate) => map.raw("delta", "null"),
        Some(BlockRestore::Reads(backups)) => {
            let backups: Vec<String> = backups.iter().map(render_reads).collect();
            map.raw("delta", &format!("[{}]", backups.join(",")));
        }
    }
    map.end();
    let mut checksum = out.object("checksum");
    checksum.scalar("size", block.checksum_size);
    checksum.end();
    out.end();
}

fn render_reads(reads: &BackupReads) -> String {
    let mut out = String::new();
    let mut json = ObjectWriter::new(&mut out);
    json.scalar("reference", reads.reference);
    let mut read = json.object("read");
    read.scalar("total", reads.reads);
    read.scalar("size", reads.read_size);
    read.end();
    let mut super_block = json.object("superBlock");
    super_block.scalar("total", reads.super_blocks);
    super_block.scalar("size", reads.super_block_size);
    super_block.end();
    let mut block = json.object("block");
    block.scalar("total", reads.blocks);
    block.end();
    json.end();
    out
}
