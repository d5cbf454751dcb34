//! Golden repositories, written once by the real pgBackRest (`scripts/golden`) and read here by rbr alone.
//!
//! Every backup of every repository must restore file by file, and `info` must print the same text.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::{Run, Space, Tree};

/// A golden repository, unpacked.
pub struct Golden {
    pub space: Space,
    program: PathBuf,
}

impl Golden {
    pub fn unpack(name: &str) -> Self {
        let space = Space::new();
        let archive = format!("{}/tests/fixtures/golden/{name}.tar.xz", env!("CARGO_MANIFEST_DIR"));
        // The test user may not be able to read the archive, so pass a copy
        space.write("golden.tar.xz", fs::read(archive).expect("golden repository"));
        fs::remove_dir(space.path("repo")).expect("empty folder");
        space.run("tar", &["-xJf", "golden.tar.xz", "--no-same-owner"]).success();
        let cipher =
            if name.contains("cipher") { "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=golden\n" } else { "" };
        let text = |folder| space.text(folder);
        let config = format!(
            "[global]\nrepo1-path={}\n{cipher}log-path={}\nlock-path={}\nspool-path={}\nlog-level-console=detail\n\
             log-level-file=off\nprocess-max=2\n[demo]\npg1-path={}\n",
            text("repo"),
            text("log"),
            text("lock"),
            text("spool"),
            text("pg")
        );
        space.write("pgbackrest.conf", config);
        let program = space.path("bin/rbr");
        Self { space, program }
    }

    /// Runs rbr on the repository.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_program(&self.program, arguments)
    }

    /// Runs `program` on the repository.
    pub fn run_program(&self, program: &Path, arguments: &[&str]) -> Run {
        let mut all = vec![format!("--config={}", self.space.text("pgbackrest.conf")), "--stanza=demo".to_owned()];
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.space.run(program, &all)
    }

    /// Returns pgBackRest's output, as recorded in `name`.
    pub fn expected(&self, name: &str) -> String {
        fs::read_to_string(self.space.path("list").join(name)).expect("recorded text")
    }

    /// The labels of the backups whose data directory was listed.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<_> = fs::read_dir(self.space.path("list"))
            .expect("list")
            .filter_map(|entry| entry.expect("entry").file_name().to_str()?.strip_suffix(".list").map(str::to_owned))
            .collect();
        labels.sort();
        labels
    }

    /// Restores a backup into the new folder `name`.
    pub fn restore(&self, name: &str, label: &str) -> Run {
        self.space.folder(name);
        let path = format!("--pg1-path={}", self.space.text(name));
        // A retry does not repair damage
        self.run(&[&path, &format!("--set={label}"), "--job-retry=0", "restore"])
    }
}

fn restores_every_backup(name: &str) {
    let golden = Golden::unpack(name);
    let labels = golden.labels();
    assert_eq!(labels.len(), 4, "full, diff and two incr backups");
    for label in labels {
        golden.restore(&label, &label).success();
        let listed = Tree::parse(&golden.expected(&format!("{label}.list")));
        // What no backup contains: the settings that a restore writes, and what the server creates anew
        listed
            .without(|path| path == "postgresql.auto.conf" || path.starts_with("pg_subtrans/"))
            .assert_same(&Tree::read_restored(&golden.space.path(&label)));
    }
}

fn info_says_the_same(name: &str) {
    let golden = Golden::unpack(name);
    let quiet = "--log-level-console=off";
    let json = golden.run(&["info", "--output=json", quiet]).success();
    assert_eq!(json.stdout, golden.expected("info.json"));
    let text = golden.run(&["info", quiet]).success();
    assert_eq!(text.stdout, golden.expected("info.txt"));
}

fn verify_says_the_same(name: &str) {
    let golden = Golden::unpack(name);
    let run = golden.run(&["verify", "--verbose", "--output=text", "--log-level-console=off"]).success();
    assert_eq!(run.stdout, golden.expected("verify.txt"));
}

macro_rules! golden {
    ($($module:ident $name:literal),+ $(,)?) => {$(
        mod $module {
            #[test]
            fn restore_of_every_backup_equals_the_listing() {
                super::restores_every_backup($name);
            }

            #[test]
            fn info_equals_pgbackrest() {
                super::info_says_the_same($name);
            }

            #[test]
            fn verify_equals_pgbackrest() {
                super::verify_says_the_same($name);
            }
        }
    )+};
}

golden! {
    plain_none "plain-none",
    plain_gz "plain-gz",
    plain_bz2_cipher "plain-bz2-cipher",
    bundle_lz4 "bundle-lz4",
    bundle_gz_cipher "bundle-gz-cipher",
    block_none "block-none",
    block_zst "block-zst",
    block_lz4_cipher "block-lz4-cipher",
    block_zst_limit "block-zst-limit",
    hardlink_gz "hardlink-gz",
}

#[test]
fn info_of_an_online_repository_with_wal_equals_pgbackrest() {
    info_says_the_same("online");
}

#[test]
fn verify_of_an_online_repository_with_wal_equals_pgbackrest() {
    verify_says_the_same("online");
}
