//! Verifies the identity of a server: fingerprints and files of known hosts.
//!
//! The rules are those of pgBackRest (`src/storage/sftp/storage.c`) and of libssh2 (`knownhost.c`), which pgBackRest
//! uses: a host is looked up as `[host]:port` and as `host`, names may be hashed, and a host that is known only with
//! other keys does not match. Patterns and markers mean what they mean to ssh (`sshd(8)`, "SSH_KNOWN_HOSTS FILE
//! FORMAT"), although libssh2 ignores them: a revoked key is never accepted, and a host that matches a pattern is not
//! unknown.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::system_text;
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// A file of known hosts larger than this is not one.
const FILE_SIZE_MAX_BYTES: u64 = 16 << 20;
/// The prefix of a hashed name.
const HASH_MAGIC: &str = "|1|";

/// The hash of a fingerprint (`repo-sftp-host-key-hash-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashType {
    /// `md5`
    Md5,
    /// `sha1`
    Sha1,
    /// `sha256`
    Sha256,
}

/// How a server is checked (`repo-sftp-host-key-check-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKeyCheck {
    /// `strict`: it must be in a file of known hosts.
    Strict,
    /// `accept-new`: like strict, but an unknown host is added to the user's file.
    AcceptNew,
    /// `fingerprint`: its key must have the fingerprint of `repo-sftp-host-fingerprint`, in hex.
    Fingerprint(String),
    /// `none`: any server is trusted.
    None,
}

/// Returns the fingerprint of a public key in its wire form, as lower-case hex.
pub(super) fn fingerprint(hash: HashType, key: &[u8]) -> String {
    let digest = match hash {
        HashType::Md5 => Md5::digest(key).to_vec(),
        HashType::Sha1 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key).as_ref().to_vec(),
        HashType::Sha256 => digest::digest(&digest::SHA256, key).as_ref().to_vec(),
    };
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The result of looking up a host's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is this host's key.
    Match,
    /// The host is known but this key is not, or the key is revoked.
    Mismatch,
    /// The host is not known.
    NotFound,
}

/// One line of a file of known hosts.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    revoked: bool,
    /// Names separated by commas, or one hashed name.
    names: String,
    key_type: String,
    /// The key in its wire form.
    key: Vec<u8>,
}

/// The content of all files of known hosts.
#[derive(Debug, Default)]
pub(crate) struct KnownHosts(Vec<Known>);

impl KnownHosts {
    /// Reads the existing files and ignores others, like pgBackRest.
    pub(super) fn load(files: &[PathBuf]) -> Self {
        let mut all = KnownHosts::default();
        for file in files {
            let name = file.display();
            match read(file) {
                Ok(text) if text.trim().is_empty() => crate::detail!("known hosts file '{name}' is empty"),
                Ok(text) => {
                    all.add(&text);
                    crate::detail!("known hosts file '{name}' was read");
                }
                Err(error) => crate::detail!("unable to read known hosts file '{name}': {}", system_text(&error)),
            }
        }
        all
    }

    /// Adds the lines of one file. Invalid lines are ignored: another program's extension must not lock a user out, and
    /// a missing line never makes a host trusted.
    pub(crate) fn add(&mut self, text: &str) {
        self.0.extend(text.lines().filter_map(parse_line));
    }

    /// Returns the types of the keys that the host is known by, e.g. `ssh-ed25519`.
    pub(crate) fn key_types(&self, host: &str, port: u16) -> Vec<&str> {
        self.of(host, port).filter(|known| !known.revoked).map(|known| known.key_type.as_str()).collect()
    }

    /// Checks a key in its wire form.
    pub(crate) fn check(&self, host: &str, port: u16, key: &[u8]) -> Verdict {
        let mut verdict = Verdict::NotFound;
        let mut matches = false;
        for known in self.of(host, port) {
            match (known.key == key, known.revoked) {
                (true, true) => return Verdict::Mismatch,
                (true, false) => matches = true,
                (false, true) => {}
                (false, false) => verdict = Verdict::Mismatch,
            }
        }
        if matches { Verdict::Match } else { verdict }
    }

    fn of(&self, host: &str, port: u16) -> impl Iterator<Item = &Known> {
        let (host, with_port) = (host.to_owned(), format!("[{host}]:{port}"));
        self.0.iter().filter(move |known| names_match(&known.names, &with_port) || names_match(&known.names, &host))
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(FILE_SIZE_MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn parse_line(line: &str) -> Option<Known> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let mut fields = line.split_ascii_whitespace();
    let mut names = fields.next()?;
    let revoked = names == "@revoked";
    if revoked {
        names = fields.next()?;
    } else if names.starts_with('@') {
        // A certificate authority: servers are asked for keys and not for certificates, so it applies to no host
        return None;
    }
    let key_type = fields.next()?.to_owned();
    let key = STANDARD.decode(fields.next()?).ok()?;
    Some(Known { revoked, names: names.to_owned(), key_type, key })
}

/// Returns whether names separated by commas match a host: one pattern matches, and none that begins with `!` does.
fn names_match(names: &str, host: &str) -> bool {
    if let Some(hashed) = names.strip_prefix(HASH_MAGIC) {
        return hash_matches(hashed, host).unwrap_or(false);
    }
    let mut found = false;
    for name in names.split(',') {
        match name.strip_prefix('!') {
            Some(name) if pattern_matches(name, host) => return false,
            Some(_) => {}
            None => found |= pattern_matches(name, host),
        }
    }
    found
}

/// Returns whether a pattern, in which `*` means any text and `?` one character, matches a name, ignoring case.
fn pattern_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    // The last star, and how much of the name it matches so far
    let mut star = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&name[from]) => {
                at += 1;
                from += 1;
            }
            _ => match &mut star {
                Some((star_at, end)) => {
                    *end += 1;
                    (at, from) = (*star_at + 1, *end);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Returns whether `salt|hash` is the keyed hash of a name.
fn hash_matches(hashed: &str, host: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &STANDARD.decode(salt).ok()?);
    Some(hmac::verify(&key, host.as_bytes(), &STANDARD.decode(hash).ok()?).is_ok())
}

/// Adds a host to the user's file of known hosts. A file that can't be written is no reason to stop: the host is
/// accepted this time and unknown the next.
pub(super) fn learn(file: &Path, host: &str, port: u16, key_type: &str, key: &[u8]) {
    let name = file.display();
    crate::warn!("host '{host}' not found in known hosts files, attempting to add host to '{name}'");
    match append(file, &line(host, port, key_type, key)) {
        Ok(()) => crate::warn!("added new host '{host}' to '{name}'"),
        Err(error) => {
            crate::warn!(
                "unable to write '{name}' for update: {}\nHINT: does '{name}' exist with proper permissions?",
                system_text(&error)
            );
        }
    }
}

fn line(host: &str, port: u16, key_type: &str, key: &[u8]) -> String {
    let host = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    format!("{host} {key_type} {} Generated from rbr\n", STANDARD.encode(key))
}

fn append(file: &Path, line: &str) -> std::io::Result<()> {
    if let Some(parent) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let last = match fs::read(file) {
        Ok(content) => content.last().copied(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let separator = if last.is_some_and(|byte| byte != b'\n') { "\n" } else { "" };
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
    // A single write, so that lines of several processes do not mix
    file.write_all(format!("{separator}{line}").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";

    fn key() -> Vec<u8> {
        STANDARD.decode(KEY).unwrap()
    }

    fn known(text: &str) -> KnownHosts {
        let mut hosts = KnownHosts::default();
        hosts.add(text);
        hosts
    }

    #[test]
    fn fingerprint_is_hex_of_the_hashed_key() {
        assert_eq!(fingerprint(HashType::Md5, b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(fingerprint(HashType::Sha1, b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint(HashType::Sha256, b"abc"), sha256);
    }

    #[test]
    fn known_host_matches_by_name_with_and_without_port() {
        let hosts = known(&format!("# comment\nother,db1 ssh-ed25519 {KEY} c\n[db2]:2222 ssh-ed25519 {KEY}\n"));
        assert_eq!(hosts.check("db1", 22, &key()), Verdict::Match);
        assert_eq!(hosts.check("db1", 2222, &key()), Verdict::Match);
        assert_eq!(hosts.check("db2", 2222, &key()), Verdict::Match);
        assert_eq!(hosts.check("db2", 22, &key()), Verdict::NotFound);
        assert_eq!(hosts.key_types("other", 22), ["ssh-ed25519"]);
    }

    #[test]
    fn known_host_with_hashed_name_matches() {
        let hosts = known(&format!("|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak= ssh-ed25519 {KEY}\n"));
        assert_eq!(hosts.check("example.com", 22, &key()), Verdict::Match);
        assert_eq!(hosts.check("example.org", 22, &key()), Verdict::NotFound);
    }

    #[test]
    fn other_key_of_known_host_is_mismatch() {
        let hosts = known(&format!("db ssh-ed25519 {KEY}\n"));
        assert_eq!(hosts.check("db", 22, b"other"), Verdict::Mismatch);
        let hosts = known(&format!("db ssh-rsa AAAA\ndb ssh-ed25519 {KEY}\n"));
        assert_eq!(hosts.check("db", 22, &key()), Verdict::Match);
    }

    #[test]
    fn revoked_key_is_mismatch_even_where_it_is_listed() {
        let hosts = known(&format!("db ssh-ed25519 {KEY}\n@revoked db ssh-ed25519 {KEY}\n"));
        assert_eq!(hosts.check("db", 22, &key()), Verdict::Mismatch);
    }

    #[test]
    fn revoked_key_of_all_hosts_is_mismatch() {
        let hosts = known(&format!("db ssh-ed25519 {KEY}\n@revoked * ssh-ed25519 {KEY}\n"));
        assert_eq!(hosts.check("db", 22, &key()), Verdict::Mismatch);
        assert_eq!(hosts.check("other", 2222, &key()), Verdict::Mismatch);
        assert_eq!(hosts.check("other", 22, b"another key"), Verdict::NotFound);
    }

    #[test]
    fn host_that_a_pattern_knows_by_another_key_is_mismatch() {
        let hosts =
            known(&format!("*.Example.com,!backup.example.com ssh-ed25519 {KEY}\n[10.0.0.?]:* ssh-ed25519 {KEY}\n"));
        for (host, port) in [("db.example.com", 22), ("DB.example.com", 2222), ("10.0.0.7", 2222)] {
            assert_eq!(hosts.check(host, port, &key()), Verdict::Match, "{host}");
            assert_eq!(hosts.check(host, port, b"other"), Verdict::Mismatch, "{host}");
        }
        for host in ["backup.example.com", "example.com", "10.0.0.77", "db.example.com.evil"] {
            assert_eq!(hosts.check(host, 2222, &key()), Verdict::NotFound, "{host}");
        }
    }

    #[test]
    fn patterns_with_many_stars_end() {
        let pattern = "*a".repeat(2000);
        assert!(!pattern_matches(&pattern, &"a".repeat(1000)));
        assert!(pattern_matches("*a*b*", "xaxxb"));
        assert!(!pattern_matches("a*b", "ab."));
        assert!(pattern_matches("**", ""));
    }

    #[test]
    fn certificate_authorities_and_broken_lines_are_passed_over() {
        let hosts = known(&format!("@cert-authority db ssh-ed25519 {KEY}\ndb\ndb ssh-ed25519 ***\n"));
        assert_eq!(hosts.check("db", 22, &key()), Verdict::NotFound);
    }

    #[test]
    fn learned_host_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".ssh/known_hosts");
        learn(&file, "db", 2222, "ssh-ed25519", &key());
        learn(&file, "db", 22, "ssh-ed25519", b"two");
        fs::write(&file, fs::read_to_string(&file).unwrap().trim_end()).unwrap();
        learn(&file, "db3", 22, "ssh-ed25519", &key());
        let hosts = KnownHosts::load(&[file, dir.path().join("missing")]);
        assert_eq!(hosts.check("db", 2222, &key()), Verdict::Match);
        assert_eq!(hosts.check("db3", 22, &key()), Verdict::Match);
        assert_eq!(hosts.0.len(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[ -~|@,\\n]{0,200}") {
            prop_assert_eq!(known(&text).check("host.example", 22, b"key") == Verdict::Match, false);
        }
    }
}
