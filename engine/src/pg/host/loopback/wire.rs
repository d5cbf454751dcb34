//! The encoding of the loop-back host: tuples in JSON.

use std::sync::Arc;

use repo_format::block_map::{BlockMap, BlockRef};
use repo_format::cipher::{Cipher, KeyDigest, Passphrase};
use repo_format::compress::Compression;
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;
use repo_format::manifest::PageRange;
use repo_format::pg::control::PgControl;
use repo_format::wal_name::{Lsn, TimelineId};
use serde_json::{Value, from_value, to_value};

use crate::pg::data_dir::{Scan, ScannedFile, ScannedLink, ScannedPath, ScannedTarget, ServerTablespace};
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{
    BlockJob, CodecPool, Copied, CopyFile, CopyFrom, CopyJob, CopyMethod, CopyOutcome, CopyResult, CopyRules, PriorMap,
};
use crate::storage::WriteOptions;
use crate::{Error, ErrorCode};

type Text = String;

pub(super) fn error_to(error: &Error) -> Value {
    to_value((error.code.number(), &error.message, &error.hints)).unwrap()
}

pub(super) fn error_from(value: Value) -> Error {
    let (code, message, hints): (u8, Text, Vec<Text>) = from_value(value).unwrap();
    hints.into_iter().fold(Error::new(ErrorCode::from_number(code).unwrap(), message), Error::hint)
}

pub(super) fn control_to(control: &PgControl) -> Value {
    let numbers = (control.control_version, control.catalog_version, control.page_size, control.wal_segment_size);
    let place = (control.checkpoint.0, control.timeline.0);
    to_value((control.version.to_string(), control.system_id, place, numbers, control.data_checksums)).unwrap()
}

pub(super) fn control_from(value: Value) -> PgControl {
    type Control = (Text, u64, (u64, u32), (u32, u32, u32, u32), bool);
    let (version, system_id, place, numbers, data_checksums): Control = from_value(value).unwrap();
    PgControl {
        version: version.parse().unwrap(),
        system_id,
        control_version: numbers.0,
        catalog_version: numbers.1,
        checkpoint: Lsn(place.0),
        timeline: TimelineId(place.1),
        page_size: numbers.2,
        wal_segment_size: numbers.3,
        data_checksums,
    }
}

pub(super) fn tablespaces_to(tablespaces: &[ServerTablespace]) -> Value {
    tablespaces.iter().map(|tablespace| to_value((tablespace.id, &tablespace.name)).unwrap()).collect()
}

pub(super) fn tablespaces_from(value: Value) -> Vec<ServerTablespace> {
    let list: Vec<(u32, Text)> = from_value(value).unwrap();
    list.into_iter().map(|(id, name)| ServerTablespace { id, name }).collect()
}

pub(super) fn scan_to(scan: &Scan) -> Value {
    let name = |id| scan.owners.name(id);
    let target = |target: &ScannedTarget| {
        let tablespace = target.tablespace.as_ref().map(|found| (found.id, found.name.clone()));
        (target.name.clone(), target.path.clone(), target.file.clone(), tablespace, target.is_link)
    };
    let path = |path: &ScannedPath| (path.name.clone(), path.mode, name(path.user), name(path.group));
    let link = |link: &ScannedLink| (link.name.clone(), link.destination.clone(), name(link.user), name(link.group));
    let file = |file: &ScannedFile| {
        (file.name.clone(), file.size, file.modified, file.mode, name(file.user), name(file.group), file.pages)
    };
    let targets: Vec<_> = scan.targets.iter().map(target).collect();
    let paths: Vec<_> = scan.paths.iter().map(path).collect();
    let links: Vec<_> = scan.links.iter().map(link).collect();
    let files: Vec<_> = scan.files.iter().map(file).collect();
    to_value((targets, paths, links, files)).unwrap()
}

pub(super) fn scan_from(value: Value) -> Scan {
    type Owner = Option<Text>;
    type Target = (Text, Text, Option<Text>, Option<(u32, Text)>, bool);
    type File = (Box<str>, u64, i64, u16, Owner, Owner, bool);
    type Lists = (Vec<Target>, Vec<(Text, u16, Owner, Owner)>, Vec<(Text, Text, Owner, Owner)>, Vec<File>);
    let (targets, paths, links, files): Lists = from_value(value).unwrap();
    let mut scan = Scan::default();
    let owners = &mut scan.owners;
    let mut id = |name: Owner| owners.intern(name.as_deref()).unwrap();
    for (name, mode, user, group) in paths {
        scan.paths.push(ScannedPath { name, mode, user: id(user), group: id(group) });
    }
    for (name, destination, user, group) in links {
        scan.links.push(ScannedLink { name, destination, user: id(user), group: id(group) });
    }
    for (name, size, modified, mode, user, group, pages) in files {
        scan.files.push(ScannedFile { name, size, modified, mode, user: id(user), group: id(group), pages });
    }
    for (name, path, file, tablespace, is_link) in targets {
        let tablespace = tablespace.map(|(id, name)| ServerTablespace { id, name });
        scan.targets.push(ScannedTarget { name, path, file, tablespace, is_link });
    }
    scan
}

pub(super) fn rules_to(rules: &CopyRules) -> Value {
    let pass = rules.cipher.passphrase().map(|key| (key.expose(), key.digest().name()));
    let compression = (rules.compression.kind.to_string(), rules.compression.level);
    let write = (rules.write_options.atomic, rules.write_options.sync_file, rules.write_options.sync_path);
    let pages = (rules.page_size, rules.page_header_check);
    to_value((compression, pass, rules.bundle_raw, rules.reference, pages, rules.compare_buffer_bytes, write)).unwrap()
}

fn key((text, digest): (Text, Text)) -> Passphrase {
    Passphrase::with_digest(text, KeyDigest::from_name(&digest).unwrap())
}

pub(super) fn rules_from(value: Value) -> CopyRules {
    type Rules = ((Text, i32), Option<(Text, Text)>, bool, u32, (u32, bool), usize, (bool, bool, bool));
    let (compression, pass, bundle_raw, reference, pages, compare_buffer_bytes, write): Rules =
        from_value(value).unwrap();
    CopyRules {
        compression: Compression { kind: compression.0.parse().unwrap(), level: compression.1 },
        cipher: Cipher::from_passphrase(pass.map(key).as_ref()),
        bundle_raw,
        reference,
        page_size: pages.0,
        page_header_check: pages.1,
        compare_buffer_bytes,
        write_options: WriteOptions { atomic: write.0, sync_file: write.1, sync_path: write.2 },
        codecs: Arc::new(CodecPool::new(2)),
    }
}

type WireBlock = (u32, u8, u64, Option<(Text, u64, u64)>);
type WireSums = (Option<Text>, Option<Text>, u64);
type WireFile = (Box<str>, u8, (u64, u64), bool, bool, WireSums, bool, Option<WireBlock>);

const METHODS: [CopyMethod; 4] = [
    CopyMethod::Copy,
    CopyMethod::Compare,
    CopyMethod::Resume { compare: false },
    CopyMethod::Resume { compare: true },
];

fn file_to(file: &CopyFile) -> WireFile {
    let sum = |sum: Option<Sha1>| sum.map(|sum| sum.to_string());
    let block = file.block.as_ref().map(|block| {
        let prior = block.prior.as_ref().map(|prior| (prior.path.as_str().to_owned(), prior.offset, prior.size));
        (block.block_size, block.checksum_size, block.super_block_size, prior)
    });
    let method = METHODS.iter().position(|method| *method == file.method).unwrap() as u8;
    let sums = (sum(file.checksum), sum(file.checksum_repo), file.size_repo);
    let sizes = (file.size, file.size_original);
    (file.name.clone(), method, sizes, file.exact_size, file.has_reference, sums, file.page_check, block)
}

pub(super) fn file_from(value: Value) -> CopyFile {
    let (name, method, sizes, exact_size, has_reference, sums, page_check, block): WireFile =
        from_value(value).unwrap();
    let sum = |text: Option<Text>| text.map(|text| text.parse().unwrap());
    let block = block.map(|(block_size, checksum_size, super_block_size, prior)| BlockJob {
        block_size,
        checksum_size,
        super_block_size,
        prior: prior.map(|(path, offset, size)| PriorMap { path: RepoPath::new(path).unwrap(), offset, size }),
    });
    CopyFile {
        name,
        method: METHODS[usize::from(method)],
        size: sizes.0,
        size_original: sizes.1,
        exact_size,
        has_reference,
        checksum: sum(sums.0),
        checksum_repo: sum(sums.1),
        size_repo: sums.2,
        page_check,
        block,
    }
}

pub(super) fn one_file_to(file: &CopyFile) -> Value {
    to_value(file_to(file)).unwrap()
}

pub(super) fn job_to(job: &CopyJob) -> Value {
    let files: Vec<_> = job.files.iter().map(file_to).collect();
    to_value((job.from == CopyFrom::Standby, job.path.as_str(), job.bundle_id, files, job.threads)).unwrap()
}

pub(super) fn job_from(value: Value) -> CopyJob {
    let (standby, path, bundle_id, files, threads): (bool, Text, Option<u64>, Vec<Value>, usize) =
        from_value(value).unwrap();
    CopyJob {
        from: if standby { CopyFrom::Standby } else { CopyFrom::Primary },
        path: RepoPath::new(path).unwrap(),
        bundle_id,
        files: files.into_iter().map(file_from).collect(),
        threads,
    }
}

fn pages_to(pages: &PageOutcome) -> Value {
    match pages {
        PageOutcome::Valid => Value::from("valid"),
        PageOutcome::Misaligned => Value::from("misaligned"),
        PageOutcome::Errors(ranges) => {
            ranges.iter().map(|range| to_value((range.first, range.last)).unwrap()).collect()
        }
    }
}

fn pages_from(value: Value) -> PageOutcome {
    match value.as_str() {
        Some("valid") => PageOutcome::Valid,
        Some(_) => PageOutcome::Misaligned,
        None => {
            let ranges: Vec<(u32, u32)> = from_value(value).unwrap();
            PageOutcome::Errors(ranges.into_iter().map(|(first, last)| PageRange { first, last }).collect())
        }
    }
}

type WireCopied = ((u64, Text), (u64, Option<Text>), u64, Option<u64>, Option<Value>, bool);

fn outcome_to(outcome: &CopyOutcome) -> (Text, Value) {
    let (kind, value) = match outcome {
        CopyOutcome::Copied(copied) => {
            let stored = (copied.size_repo, copied.checksum_repo.map(|sum| sum.to_string()));
            let plain = (copied.size, copied.checksum.to_string());
            let pages = copied.pages.as_ref().map(pages_to);
            let value: WireCopied = (plain, stored, copied.bundle_offset, copied.map_size, pages, copied.repo_invalid);
            ("copied", to_value(value).unwrap())
        }
        CopyOutcome::Unchanged { size, checksum } => ("unchanged", to_value((size, checksum.to_string())).unwrap()),
        CopyOutcome::Resumed { size, checksum } => ("resumed", to_value((size, checksum.to_string())).unwrap()),
        CopyOutcome::Truncated => ("truncated", Value::Null),
        CopyOutcome::Removed => ("removed", Value::Null),
    };
    (kind.to_owned(), value)
}

fn outcome_from(kind: &str, value: Value) -> CopyOutcome {
    match kind {
        "copied" => {
            let (plain, stored, bundle_offset, map_size, pages, repo_invalid): WireCopied = from_value(value).unwrap();
            CopyOutcome::Copied(Copied {
                size: plain.0,
                checksum: plain.1.parse().unwrap(),
                size_repo: stored.0,
                checksum_repo: stored.1.map(|sum| sum.parse().unwrap()),
                bundle_offset,
                map_size,
                pages: pages.map(pages_from),
                repo_invalid,
            })
        }
        "truncated" => CopyOutcome::Truncated,
        "removed" => CopyOutcome::Removed,
        _ => {
            let (size, checksum) = sum_from(value).unwrap();
            match kind {
                "unchanged" => CopyOutcome::Unchanged { size, checksum },
                _ => CopyOutcome::Resumed { size, checksum },
            }
        }
    }
}

pub(super) fn results_to(results: &[CopyResult]) -> Value {
    results.iter().map(|result| to_value((&result.name, outcome_to(&result.outcome))).unwrap()).collect()
}

pub(super) fn results_from(value: Value) -> Vec<CopyResult> {
    let list: Vec<(Box<str>, (Text, Value))> = from_value(value).unwrap();
    let result = |(name, (kind, value)): (_, (Text, _))| CopyResult { name, outcome: outcome_from(&kind, value) };
    list.into_iter().map(result).collect()
}

pub(super) fn sum_to(sum: Option<(u64, Sha1)>) -> Value {
    to_value(sum.map(|(size, checksum)| (size, checksum.to_string()))).unwrap()
}

pub(super) fn sum_from(value: Value) -> Option<(u64, Sha1)> {
    let sum: Option<(u64, Text)> = from_value(value).unwrap();
    sum.map(|(size, checksum)| (size, checksum.parse().unwrap()))
}

pub(super) fn map_to(map: Option<&BlockMap>) -> Value {
    let block = |block: &BlockRef| {
        let place = (block.reference, block.bundle_id, block.offset, block.size);
        (place, block.super_block_size, block.block, block.checksum)
    };
    to_value(map.map(|map| map.0.iter().map(block).collect::<Vec<_>>())).unwrap()
}

pub(super) fn map_from(value: Value) -> Option<BlockMap> {
    type Block = ((u32, u64, u64, u64), u64, u64, [u8; 16]);
    let blocks: Option<Vec<Block>> = from_value(value).unwrap();
    let block = |(place, super_block_size, block, checksum): Block| BlockRef {
        reference: place.0,
        bundle_id: place.1,
        offset: place.2,
        size: place.3,
        super_block_size,
        block,
        checksum,
    };
    blocks.map(|blocks| BlockMap(blocks.into_iter().map(block).collect()))
}
