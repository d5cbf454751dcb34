//! Golden repositories with modified info files and manifests and corrected checksums.
//!
//! Whatever the text says: a command ends by itself, uses little memory, and writes nothing outside of its target. A
//! successful restore matches a manifest, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::mutate::{Random, mutate};
use super::{ended_by_itself, run_limited, sealed, split};
use crate::compat::golden::Golden;
use crate::env::{Entry, Run, Space, Tree};

/// Repositories without encryption, whose texts can be changed.
const REPOSITORIES: [&str; 6] = ["plain-none", "plain-gz", "bundle-lz4", "block-none", "block-zst", "online"];

/// The expected content of a test's folder. Anything else was written by a command that left its target.
const EXPECTED: [&str; 14] = [
    "bin",
    "golden.tar.xz",
    "list",
    "lock",
    "log",
    "outside",
    "pg",
    "pgbackrest.conf",
    "pristine",
    "repo",
    "restored",
    "spool",
    "tablespaces",
    "wal",
];

/// A golden repository that can be modified and reset.
pub struct Site {
    golden: Golden,
    name: &'static str,
    labels: Vec<String>,
    /// Names and paths of archived segments.
    segments: Vec<(String, PathBuf)>,
    pg: BTreeMap<String, String>,
    outside: Tree,
}

/// One of the files that describe a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    ArchiveInfo,
    BackupInfo,
    Manifest,
}

impl Site {
    pub fn new(name: &'static str) -> Self {
        let golden = Golden::unpack(name);
        let space = &golden.space;
        let folders = fs::read_dir(space.path("repo/backup/demo")).expect("backups").flatten();
        let names = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut labels: Vec<String> = names.map(|entry| entry.file_name().into_string().expect("name")).collect();
        labels.retain(|name| name.starts_with('2'));
        labels.sort();
        golden.restore("pg", labels.last().expect("a backup")).success();
        // A data directory that is whole, as the next backup finds it
        let _ = fs::remove_file(space.path("pg/recovery.signal"));
        space.copy("repo", "pristine");
        space.folder("outside");
        space.write("outside/file", "nobody may write here");
        let mut segments: Vec<_> = files(&space.path("repo/archive/demo"))
            .into_iter()
            .filter_map(|path| Some((path.file_name()?.to_str()?.get(..24)?.to_owned(), path)))
            .collect();
        segments.sort();
        let (pg, outside) = (contents(&space.path("pg")), Tree::read(&space.path("outside")));
        Self { golden, name, labels, segments, pg, outside }
    }

    pub fn space(&self) -> &Space {
        &self.golden.space
    }

    /// The label of the newest backup.
    pub fn last(&self) -> &str {
        self.labels.last().expect("a backup")
    }

    /// Returns names and paths of archived segments.
    pub fn segments(&self) -> Vec<(String, PathBuf)> {
        self.segments.clone()
    }

    /// Resets the repository to its original state.
    pub fn reset(&self) {
        fs::remove_dir_all(self.space().path("repo")).expect("remove the repository");
        self.space().copy("pristine", "repo");
    }

    fn file(file: Changed, label: &str) -> String {
        match file {
            Changed::ArchiveInfo => "repo/archive/demo/archive.info".to_owned(),
            Changed::BackupInfo => "repo/backup/demo/backup.info".to_owned(),
            Changed::Manifest => format!("repo/backup/demo/{label}/backup.manifest"),
        }
    }

    /// Returns the text of a file. For a manifest, it is that of the given backup.
    pub fn text(&self, file: Changed, label: &str) -> String {
        fs::read_to_string(self.space().path(&Self::file(file, label))).expect("text")
    }

    /// Replaces a file and its copy.
    pub fn replace(&self, file: Changed, label: &str, text: &str) {
        let name = Self::file(file, label);
        self.space().write(&name, text);
        self.space().write(&format!("{name}.copy"), text);
    }

    pub fn command(&self, arguments: &[&str]) -> Run {
        let space = &self.golden.space;
        let mut all = vec![
            format!("--config={}", space.text("pgbackrest.conf")),
            "--stanza=demo".to_owned(),
            "--log-level-console=warn".to_owned(),
        ];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        run_limited(space, &space.path("bin/rbr"), &all)
    }

    pub fn restore(&self, label: &str, delta: bool) -> Run {
        let space = &self.golden.space;
        let _ = fs::remove_dir_all(space.path("tablespaces"));
        let _ = fs::remove_dir_all(space.path("restored"));
        if delta {
            space.copy("pg", "restored");
        } else {
            space.folder("restored");
        }
        let path = format!("--pg1-path={}", space.text("restored"));
        let tablespaces = format!("--tablespace-map-all={}", space.text("tablespaces"));
        let set = format!("--set={label}");
        let mut arguments = vec![path.as_str(), &tablespaces, &set, "--job-retry=0", "restore"];
        if delta {
            arguments.insert(0, "--delta");
        }
        self.command(&arguments)
    }

    /// One case: modifies a file, then runs the commands that read it.
    fn case(&self, seed: u64) {
        let mut random = Random::new(seed);
        let space = &self.golden.space;
        let what = format!("repository {}, seed {seed}", self.name);
        self.reset();
        let label = match random.below(3) {
            0 => random.pick(&self.labels).clone(),
            _ => self.last().to_owned(),
        };
        let changed = match random.below(8) {
            0 => Changed::ArchiveInfo,
            1 | 2 => Changed::BackupInfo,
            _ => Changed::Manifest,
        };
        let text = self.text(changed, &label);
        self.replace(changed, &label, &sealed(&mutate(&mut random, &text, &space.text("outside"))));

        let commands: &[u8] = match changed {
            Changed::Manifest => b"rdvbm",
            Changed::ArchiveInfo | Changed::BackupInfo => b"irvbegam",
        };
        let first = random.below(commands.len());
        for at in 0..2 {
            self.act(&mut random, commands[(first + at) % commands.len()], &label, &what);
            assert_eq!(Tree::read(&space.path("outside")), self.outside, "{what}: something outside was changed");
            for entry in fs::read_dir(space.path("")).expect("folder of the test").flatten() {
                let name = entry.file_name().into_string().expect("name");
                assert!(EXPECTED.contains(&name.as_str()), "{what}: '{name}' was written");
            }
        }
    }

    fn act(&self, random: &mut Random, command: u8, label: &str, what: &str) {
        let space = &self.golden.space;
        let run = match command {
            b'r' | b'd' => {
                let run = self.restore(label, command == b'd');
                if run.code == 0 {
                    let manifest = self.text(Changed::Manifest, label);
                    check_restored(&manifest, &space.path("restored"), &format!("{what}\n{}", run.describe()));
                }
                run
            }
            b'v' => self.command(&["verify", "--output=text"]),
            b'i' if random.below(2) == 0 => self.command(&["info", &format!("--set={label}")]),
            b'i' => self.command(&["info", "--output=json"]),
            b'm' => {
                let names: Vec<&String> = self.pg.keys().collect();
                let filter = format!("--filter=pg_data/{}", random.pick(&names));
                let set = format!("--set={label}");
                let more = *random.pick(&["--output=json", "--pg=1", "--reference=latest"]);
                match random.below(3) {
                    0 => self.command(&["manifest", &set, more]),
                    _ => self.command(&["manifest", &set, &filter, more]),
                }
            }
            b'e' => self.command(&["expire", "--repo1-retention-full=1"]),
            b'a' => self.command(&["annotate", &format!("--set={label}"), "--annotation=a=b"]),
            b'g' if !self.segments.is_empty() => {
                self.command(&["archive-get", &random.pick(&self.segments).0, &space.text("wal")])
            }
            b'g' => self.command(&["archive-get", "000000010000000000000001", &space.text("wal")]),
            _ => {
                let kind = format!("--type={}", random.pick(&["incr", "diff", "incr"]));
                let run = self.command(&["--no-online", &kind, "--repo1-retention-full=9", "backup"]);
                if run.code == 0 {
                    // Files that were not copied again match a modified manifest: they are correct, or the restore
                    // fails
                    let restored = self.restore("latest", false);
                    ended_by_itself(&restored, what);
                    if restored.code == 0 {
                        let restored = contents(&space.path("restored"));
                        for (name, content) in &self.pg {
                            let same = restored.get(name) == Some(content);
                            let made = name == "postgresql.auto.conf" || name.starts_with("backup_label");
                            assert!(same || made, "{what}: '{name}' is not what was backed up\n{}", run.describe());
                        }
                    }
                }
                run
            }
        };
        ended_by_itself(&run, what);
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Returns the checksums of the files below a folder.
fn contents(folder: &Path) -> BTreeMap<String, String> {
    let files = Tree::read(folder).0.into_iter();
    files
        .filter_map(|(path, entry)| match entry {
            Entry::File { sha1, size, .. } => Some((path, format!("{sha1} {size}"))),
            _ => None,
        })
        .collect()
}

/// Checks that the data directory matches the manifest, without the code under test.
fn check_restored(manifest: &str, folder: &Path, what: &str) {
    let restored = contents(folder);
    let start = manifest.find("[target:file]").expect("files") + "[target:file]".len();
    let mut known = BTreeMap::new();
    for line in manifest[start..].lines().skip(1).take_while(|line| !line.starts_with('[') || line.contains('=')) {
        let Some((name, value)) = split(line) else { continue };
        let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        let size = value["size"].as_u64().unwrap_or(0);
        // An empty file has no checksum in the text
        let sum = match size {
            0 => "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            _ => value["checksum"].as_str().unwrap_or_default(),
        };
        if let Some(name) = name.strip_prefix("pg_data/") {
            known.insert(name.to_owned(), format!("{sum} {size}"));
        }
    }
    for (name, expected) in &known {
        // The control file of an online backup gets a checkpoint from which no server starts without recovery
        let made = matches!(
            name.as_str(),
            "global/pg_control" | "postgresql.auto.conf" | "recovery.signal" | "standby.signal" | "backup.manifest"
        );
        assert!(made || restored.get(name) == Some(expected), "{what}: '{name}' is not {expected}");
    }
}

fn cases(name: &'static str, seeds: std::ops::Range<u64>) {
    let site = Site::new(name);
    for seed in seeds {
        site.case(seed);
    }
}

/// Cases per repository in the usual tests.
const QUICK: u64 = 40;
/// Cases per repository in the long tests. `RBR_TEST_CASES` sets another number.
const LONG: u64 = 1500;

macro_rules! repositories {
    ($($module:ident $index:literal),+ $(,)?) => {$(
        mod $module {
            #[test]
            fn changed_texts_mislead_no_command() {
                super::cases(super::REPOSITORIES[$index], 0..super::QUICK);
            }

            #[test]
            fn full_matrix_changed_texts_mislead_no_command() {
                let cases = std::env::var("RBR_TEST_CASES").ok().and_then(|text| text.parse().ok());
                super::cases(super::REPOSITORIES[$index], super::QUICK..cases.unwrap_or(super::LONG));
            }
        }
    )+};
}

repositories! {
    plain_none 0,
    plain_gz 1,
    bundle_lz4 2,
    block_none 3,
    block_zst 4,
    online 5,
}
