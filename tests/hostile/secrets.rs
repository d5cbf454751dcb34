//! Damages encrypted repositories and configuration files. At any log level, on the console and in the log file, a
//! command must show no part of a passphrase or of a storage key.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::mutate::Random;
use super::run_limited;
use crate::compat::golden::Golden;
use crate::env::{Run, Space};

/// The largest number of consecutive characters of a secret that may be shown.
const SHOWN_MAX: usize = 7;
/// At equals signs, brackets and digits a damaged line could be split or interpreted differently.
const MAIN: &str = "Qz7=mXin\"[pAs9]:fr4sE-81376429,{oF}#tHe=R3p0s/+x==kJ";
/// The secrets of other repositories, by option name.
const KEYS: [(&str, &str); 6] = [
    ("repo2-s3-key", "AKIAZ3EXAMPLEKEY0X7Q"),
    ("repo2-s3-key-secret", "wJa=rXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    ("repo2-s3-token", "FwoGZXIvYXdzEBYaDGx0b2tlbg=="),
    ("repo2-s3-sse-customer-key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
    ("repo3-azure-key", "Zm9vYmFyMDEyMzQ1Njc4OWFiY2RlZmdoaWprbG1ub3A="),
    ("repo4-sftp-private-key-passphrase", "sFtp k3y=oF\\tH1s[h0st]0815"),
];
/// The content of key files.
const KEY_FILE: &str = "MIIEvQ1BADANBgkqhk1G9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
/// Options that limit how long a command waits.
const WAITS: [(&str, &str); 4] =
    [("IO_TIMEOUT", "100ms"), ("DB_TIMEOUT", "1"), ("PROTOCOL_TIMEOUT", "2"), ("JOB_RETRY", "0")];
/// The log levels to choose from. Most of them show a lot.
const LEVELS: [&str; 6] = ["trace", "trace", "debug", "detail", "warn", "error"];
const SEGMENT: &str = "000000010000000000000001";

/// An encrypted repository that can be damaged and restored.
struct Vault {
    golden: Golden,
    label: String,
    /// Files to damage, with their content.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Every sequence of [`SHOWN_MAX`] + 1 characters of a secret.
    parts: HashSet<Vec<u8>>,
}

impl Vault {
    fn new() -> Self {
        let golden = Golden::unpack("plain-gz");
        let space = &golden.space;
        golden.restore("pg", golden.labels().last().expect("a backup")).success();
        fs::remove_dir_all(space.path("repo")).expect("the golden repository");
        space.folder("repo");
        space.write("pgbackrest.conf", repository_config(space));
        let mut vault = Self { label: String::new(), files: vec![], parts: HashSet::new(), golden };
        vault.run(&["stanza-create", "--no-online"]).success();
        vault.run(&["backup", "--no-online", "--type=full"]).success();
        vault.space().write("pg/base/5/new", vec![b'x'; 30_000]);
        vault.run(&["backup", "--no-online", "--type=incr", "--repo1-bundle"]).success();
        vault.space().write(&format!("pg/pg_wal/{SEGMENT}"), vec![0; 1 << 20]);
        vault.push(SEGMENT).success();
        let info = vault.run(&["info", "--output=json", "--log-level-console=off"]).success().json();
        vault.label = info[0]["backup"][1]["label"].as_str().expect("the second label").to_owned();
        vault.space().copy("repo", "pristine");

        let mut secrets: Vec<String> = KEYS.iter().map(|(_, key)| (*key).to_owned()).collect();
        secrets.extend([MAIN, KEY_FILE].map(str::to_owned));
        let manifest = format!("backup/demo/{}/backup.manifest", vault.label);
        for name in ["archive/demo/archive.info", "backup/demo/backup.info", &manifest] {
            let text = vault.run(&["repo-get", name, "--log-level-console=off"]).success().stdout;
            let pass = text.lines().find_map(|line| line.strip_prefix("cipher-pass=\"")?.strip_suffix('"'));
            secrets.push(pass.expect("a passphrase").to_owned());
        }
        let parts = secrets.iter().flat_map(|secret| secret.as_bytes().windows(SHOWN_MAX + 1));
        vault.parts = parts.map(<[u8]>::to_vec).collect();
        let names = files(&vault.space().path("repo"));
        vault.files = names.into_iter().map(|path| (path.clone(), fs::read(path).expect("stored file"))).collect();
        vault.files.sort();
        vault
    }

    fn space(&self) -> &Space {
        &self.golden.space
    }

    fn reset(&self) {
        fs::remove_dir_all(self.space().path("repo")).expect("remove the repository");
        self.space().copy("pristine", "repo");
    }

    fn run(&self, arguments: &[&str]) -> Run {
        // Limits in the environment, so that damage to the file can't make a command wait for missing servers
        let mut all: Vec<String> = WAITS.iter().map(|(name, seconds)| format!("PGBACKREST_{name}={seconds}")).collect();
        all.push(self.space().text("bin/rbr"));
        all.extend([format!("--config={}", self.space().text("pgbackrest.conf")), "--stanza=demo".to_owned()]);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        run_limited(self.space(), Path::new("env"), &all)
    }

    fn push(&self, segment: &str) -> Run {
        let path = self.space().text(&format!("pg/pg_wal/{segment}"));
        self.run(&["archive-push", "--no-archive-header-check", &path])
    }

    /// Runs a command that reads the repository, and checks everything that it shows.
    fn act(&self, random: &mut Random, repo: &str, what: &str) {
        let space = self.space();
        let (console, file) = (random.pick(&LEVELS), random.pick(&LEVELS));
        let levels = [format!("--log-level-console={console}"), format!("--log-level-file={file}")];
        let set = format!("--set={}", self.label);
        let manifest = format!("backup/demo/{}/backup.manifest", self.label);
        let (restored, wal) = (format!("--pg1-path={}", space.text("restored")), space.text("wal"));
        let pushed = space.text(&format!("pg/pg_wal/{SEGMENT}"));
        let commands: [&[&str]; 26] = [
            &["info", repo],
            &["info", repo, &set],
            &["info", repo, "--output=json"],
            &["manifest", repo, &set, "--output=json"],
            &["check", "--report"],
            &["verify", repo, "--output=text", "--verbose"],
            &["verify", repo, "--repair"],
            &["verify", repo, &set],
            &["check", repo, "--no-online"],
            &["expire", repo, "--repo1-retention-full=1"],
            &["expire", repo, &set, "--dry-run"],
            &["backup", repo, "--no-online", "--type=incr"],
            &["backup", repo, "--no-online", "--type=full", "--dry-run"],
            &["restore", repo, &restored, &set],
            &["restore", repo, &restored, &set, "--delta"],
            &["archive-push", &pushed, "--no-archive-header-check"],
            &["archive-get", repo, SEGMENT, &wal],
            &["repo-get", repo, &manifest],
            &["repo-get", repo, "backup/demo/backup.info"],
            &["repo-get", repo, "archive/demo/archive.info"],
            &["repo-ls", repo, "--recurse"],
            &["stanza-create", "--no-online"],
            &["stanza-upgrade", "--no-online"],
            &["stanza-delete", repo, "--force"],
            &["annotate", repo, &set, "--annotation=a=b"],
            &["help", "backup"],
        ];
        let command = *random.pick(&commands);
        if command[0] == "restore" && !command.contains(&"--delta") {
            let _ = fs::remove_dir_all(space.path("restored"));
        }
        space.folder("restored");
        let mut all = command.to_vec();
        all.extend(levels.iter().map(String::as_str));
        let mut run = self.run(&all);
        let killed = (124..=127).contains(&run.code) || run.code > 128;
        assert!(!killed && !run.stderr.contains("panicked"), "{what}\n{}", run.describe());
        if command[0] == "repo-get" {
            // It prints the requested content up to the damage
            run.stdout.clear();
        }
        let logs = files(&space.path("log")).into_iter().map(|path| {
            let text = fs::read(&path).expect("log file");
            fs::remove_file(path).expect("log file");
            text
        });
        for text in [run.stdout.clone().into_bytes(), run.stderr.clone().into_bytes()].into_iter().chain(logs) {
            if let Some(part) = text.windows(SHOWN_MAX + 1).find(|part| self.parts.contains(*part)) {
                let part = String::from_utf8_lossy(part);
                panic!("{what}: '{part}' is shown\n{}\n{}", run.describe(), String::from_utf8_lossy(&text));
            }
        }
    }

    /// Damages one file, or also its copy, in the same way or differently.
    fn repository_case(&self, seed: u64) {
        let mut random = Random::new(seed);
        self.reset();
        let is_text =
            |path: &Path| path.to_str().is_some_and(|path| path.contains(".info") || path.contains("manifest"));
        // Most stored files are data, but most messages are about the other files
        let wanted = random.below(4) > 0;
        let chosen: Vec<_> = self.files.iter().filter(|(path, _)| is_text(path) == wanted).collect();
        let (path, content) = random.pick(&chosen);
        let name = path.to_str().expect("path");
        let damaged = damage(&mut random, content);
        let (main, copy) = (name.trim_end_matches(".copy"), format!("{}.copy", name.trim_end_matches(".copy")));
        fs::write(main, &damaged).expect("file to damage");
        if Path::new(&copy).exists() && random.below(6) > 0 {
            let damaged = if random.below(2) == 0 { damage(&mut random, content) } else { damaged };
            fs::write(&copy, damaged).expect("copy to damage");
        }
        let what = format!("{name}, seed {seed}");
        for _ in 0..2 {
            self.act(&mut random, "--repo=1", &what);
        }
    }

    /// Damages the configuration file, or a file that it names.
    fn configuration_case(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut texts = vec![("pgbackrest.conf", stores_config(self.space()))];
        texts.extend(key_files());
        // The largest file gets the most damage
        let (chosen, repos): (_, &[u32]) = match random.below(8) {
            0 => ("ssh-key", &[4]),
            1 => ("gcs-key", &[5]),
            // Some requests to a missing server take seconds
            _ => ("pgbackrest.conf", if random.below(8) == 0 { &[2, 3] } else { &[1, 1, 4, 5] }),
        };
        let mut what = format!("seed {seed}");
        for (name, text) in texts {
            let text = if name == chosen { damage_text(&mut random, text.as_bytes()) } else { text.into_bytes() };
            self.space().write(name, &text);
            if name == chosen {
                what += &format!(", {name}:\n{}", String::from_utf8_lossy(&text));
            }
        }
        let repo = format!("--repo={}", random.pick(repos));
        self.act(&mut random, &repo, &what);
    }
}

fn common_config(space: &Space) -> String {
    format!(
        "[global]\nrepo1-path={}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass={MAIN}\nrepo1-retention-full=2\nlog-path={}\n\
         lock-path={}\nspool-path={}\nprocess-max=2\ncompress-type=lz4\n",
        space.text("repo"),
        space.text("log"),
        space.text("lock"),
        space.text("spool"),
    )
}

fn repository_config(space: &Space) -> String {
    format!("{}[demo]\npg1-path={}\n", common_config(space), space.text("pg"))
}

/// Returns the configuration of a host that also has repositories in stores without a running server. No damage makes
/// it name a real server.
fn stores_config(space: &Space) -> String {
    let mut text = common_config(space);
    text += "repo2-type=s3\nrepo2-s3-bucket=bucket\nrepo2-s3-endpoint=s3.invalid\nrepo2-storage-host=localhost\n\
             repo2-storage-port=1\nrepo2-s3-region=r\nrepo3-type=azure\nrepo3-azure-account=account\n\
             repo3-azure-container=container\nrepo3-azure-endpoint=azure.invalid\nrepo3-storage-host=localhost\n\
             repo3-storage-port=1\nrepo4-type=sftp\nrepo4-sftp-host=localhost\nrepo4-sftp-host-port=1\n\
             repo4-sftp-host-user=backup\nrepo4-sftp-host-key-hash-type=sha256\nrepo4-sftp-host-key-check-type=none\n\
             repo5-type=gcs\nrepo5-gcs-bucket=bucket\nrepo5-gcs-endpoint=gcs.invalid\nrepo5-storage-host=localhost\n\
             repo5-storage-port=1\n";
    text += &format!("repo4-sftp-private-key-file={}\n", space.text("ssh-key"));
    text += &format!("repo5-gcs-key={}\n", space.text("gcs-key"));
    for (at, (name, key)) in KEYS.iter().enumerate() {
        // The secrets are placed between other lines
        let lines: Vec<usize> = text.match_indices(&format!("\n{}-", &name[..5])).map(|(at, _)| at + 1).collect();
        text.insert_str(lines[1 + at % 3], &format!("{name}={key}\n"));
    }
    format!("{text}[demo]\npg1-path={}\n", space.text("pg"))
}

/// Returns key files in the form that other programs create, without real keys.
fn key_files() -> [(&'static str, String); 2] {
    let pem = |kind: &str| format!("-----BEGIN {kind}PRIVATE KEY-----\n{KEY_FILE}\n-----END {kind}PRIVATE KEY-----\n");
    let gcs = serde_json::json!({
        "type": "service_account",
        "private_key": pem(""),
        "client_email": "backup@gcs.invalid",
        "token_uri": "https://localhost:1/token",
    });
    [("ssh-key", pem("OPENSSH ")), ("gcs-key", gcs.to_string())]
}

/// Returns all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.path());
    let entries = entries.filter(|path| !path.is_symlink());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Makes the damage of a broken disk, or of somebody who can write but does not know the passphrase. In this mode of
/// encryption a changed bit changes the same bit 16 bytes later, and blocks can be moved.
fn damage(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    let blocks = bytes.len() / 16;
    if blocks < 4 {
        return bytes;
    }
    // The first block is a header. The interesting parts of text are near the beginning or anywhere
    let mut block = || 16 + 16 * random.below(blocks - 2);
    let (from, to) = (block(), block());
    match random.below(5) {
        0 => bytes[from + random.below(16)] ^= 1 << random.below(8),
        1 => bytes.truncate(from),
        2 => bytes.copy_within(from..from + 16, to),
        3 => drop(bytes.drain(from..from + 16)),
        _ => bytes[from] ^= 1 + random.below(255) as u8,
    }
    bytes
}

/// Makes one mistake of somebody who edits a file, or changes one bit. If larger damage moved a secret into another
/// value, nothing could recognize it.
fn damage_text(random: &mut Random, text: &[u8]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    // Texts are split at line ends, equals signs and brackets
    let borders: Vec<usize> = (0..bytes.len()).filter(|&at| b"\n=[]-".contains(&bytes[at])).collect();
    let at = if random.below(2) == 0 { *random.pick(&borders) } else { random.below(bytes.len()) };
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => drop(bytes.remove(at)),
        2 => bytes[at] = b"=\n[]# \0\xff,:-"[random.below(11)],
        3 => bytes.insert(at, b"=\n[]# \0\xff,:-"[random.below(11)]),
        4 => bytes.truncate(at),
        5 => bytes.swap(at, (at + 1) % text.len()),
        // Duplicates or removes a line
        _ => {
            let mut lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
            let line = random.below(lines.len());
            if random.below(2) == 0 {
                lines.remove(line);
            } else {
                lines.insert(random.below(lines.len()), lines[line]);
            }
            bytes = lines.concat();
        }
    }
    bytes
}

fn damaged_repositories(seeds: std::ops::Range<u64>) {
    let vault = Vault::new();
    for seed in seeds {
        vault.repository_case(seed);
    }
}

fn damaged_configurations(seeds: std::ops::Range<u64>) {
    let vault = Vault::new();
    for seed in seeds {
        vault.configuration_case(seed);
    }
}

/// The numbers of cases in the quick and the long tests.
const QUICK: u64 = 80;
const LONG: u64 = 500;

#[test]
fn damaged_repository_shows_no_passphrase() {
    damaged_repositories(0..QUICK);
}

#[test]
fn full_matrix_damaged_repository_shows_no_passphrase() {
    damaged_repositories(QUICK..LONG);
}

#[test]
fn damaged_configuration_shows_no_secret() {
    damaged_configurations(0..QUICK);
}

#[test]
fn full_matrix_damaged_configuration_shows_no_secret() {
    damaged_configurations(QUICK..LONG);
}
