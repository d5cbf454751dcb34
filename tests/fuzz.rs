//! Runs the fuzz targets over their corpora, and briefly over modified copies of them.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::env;

/// Modified copies of each corpus file.
const CHANGED_COPIES: u32 = 60;

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Returns (name, content) of the files in a target's corpus.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files: Vec<_> =
        names_in(&folder).into_iter().map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap())).collect();
    assert!(!files.is_empty(), "no corpus for {target}");
    files
}

#[test]
fn targets_are_all_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let listed: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names_in(&root.join("corpus")), listed);
}

#[test]
fn targets_return_for_their_corpus_and_its_cuts() {
    for (name, function) in targets::TARGETS {
        for (file, data) in corpus(name) {
            println!("{name}/{file}");
            function(&data);
            // Truncated, and with one bit flipped, at positions spread over the whole
            for position in (0..data.len()).step_by(data.len() / 100 + 1) {
                function(&data[..position]);
                let mut turned = data.clone();
                turned[position] ^= 1 << (position % 8);
                function(&turned);
            }
        }
    }
}

/// An input, which is printed if its target panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("input: {}", self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
}

/// With `RBR_FUZZ_SECONDS`, this goes on for so long, for the targets with `RBR_FUZZ_TARGET` in their names.
#[test]
fn targets_return_for_changed_copies_of_their_corpus() {
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below.max(1)
    };
    let seconds = std::env::var("RBR_FUZZ_SECONDS").ok().map(|seconds| seconds.parse().expect("seconds"));
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(0));
    let wanted = std::env::var("RBR_FUZZ_TARGET").unwrap_or_default();
    let corpora = targets::TARGETS.iter().map(|(name, _)| *name).filter(|name| name.contains(&wanted));
    let corpora: Vec<_> = corpora.flat_map(|name| corpus(name).into_iter().map(move |file| (name, file))).collect();
    let mut count = 0u64;
    loop {
        for (name, (file, data)) in &corpora {
            for copy in 0..CHANGED_COPIES {
                if seconds.is_none() {
                    println!("{name}/{file}, copy {copy}");
                }
                let data = changed(data.clone(), &mut random);
                let shown = Shown(&data);
                targets::run(name, &data);
                drop(shown);
                count += 1;
            }
        }
        if Instant::now() >= end {
            break;
        }
    }
    if seconds.is_some() {
        env::oracle::say(&format!("{count} inputs of {} files", corpora.len()));
    }
}

fn changed(mut data: Vec<u8>, random: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    for _ in 0..1 + random(4) {
        let index = random(data.len());
        match random(5) {
            0 => data.truncate(index),
            1 if !data.is_empty() => data[index] ^= 1 << random(8),
            2 if !data.is_empty() => data[index] = [0, 1, 0x7f, 0x80, 0xff][random(5)],
            3 => data.insert(index, random(256) as u8),
            _ => {
                let end = (index + random(20)).min(data.len());
                data.drain(index..end);
            }
        }
    }
    data
}
