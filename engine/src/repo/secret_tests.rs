//! Tests that no error about a damaged encrypted file shows a part of a passphrase.

use std::io::BufReader;
use std::sync::Arc;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::{self, Cipher, Keyring, Passphrase};
use repo_format::info::Origin;
use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::{Manifest, ManifestData, ManifestFile, ManifestPath, PG_DATA, Target, TargetType};
use repo_format::pg::PgVersion;

use super::{Repo, formats, info_files, manifest_store};
use crate::Error;
use crate::storage::memory::MemoryStorage;
use crate::storage::{self, WriteOptions};

/// The maximum number of consecutive characters of a passphrase that may be shown.
const SHOWN_MAX: usize = 7;
const MAIN: &str = "a-mAin-pAss-phRase-oF-thIs-rePosiTory";
/// 64 characters, like a generated passphrase. The equals signs and digits are where a damaged line could be split or
/// parsed as a number.
const SUB: &str = "12345678901234567890=\"abcdefghijklmnopqrstuv=1XYZ{}[]ABCDEFGHIJK";

/// Pseudo-random numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// Damage by a broken disk, or by somebody who can write but does not know the passphrase: in this mode of encryption a
/// changed bit changes the same bit 16 bytes later, and blocks can be moved.
fn damage(numbers: &mut Numbers, stored: &[u8]) -> Vec<u8> {
    let mut bytes = stored.to_vec();
    let block = |numbers: &mut Numbers, len: usize| 16 + 16 * numbers.below(len / 16 - 1);
    match numbers.below(4) {
        0 => {
            let at = 16 + numbers.below(bytes.len() - 16);
            bytes[at] ^= 1 << numbers.below(8);
        }
        1 => bytes.truncate(16 + 16 * (1 + numbers.below(bytes.len() / 16 - 1))),
        2 => {
            let (from, to) = (block(numbers, stored.len()), block(numbers, stored.len()));
            bytes.copy_within(from..from + 16, to);
        }
        _ => {
            let at = block(numbers, stored.len());
            bytes.drain(at..at + 16);
        }
    }
    bytes
}

/// Damage in a text that is not encrypted, as by somebody who knows the passphrase.
fn damage_text(numbers: &mut Numbers, text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let at = numbers.below(text.len());
    match numbers.below(3) {
        0 => text[at] ^= 1 << numbers.below(8),
        1 => drop(text.remove(at)),
        _ => text[at] = b"=\"\n[]{},0"[numbers.below(9)],
    }
    text
}

fn check(error: &Error) {
    let mut text = format!("{error}\n{error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text += &format!("\n{inner}\n{inner:?}");
        cause = inner.source();
    }
    for pass in [MAIN, SUB] {
        for start in 0..pass.len() - SHOWN_MAX {
            let part = &pass[start..=start + SHOWN_MAX];
            assert!(!text.contains(part), "'{part}' is shown:\n{text}");
        }
    }
}

fn stanza() -> Stanza {
    "demo".parse().unwrap()
}

fn manifest() -> Manifest {
    let label: BackupLabel = "20260101-000000F".parse().unwrap();
    let data = ManifestData::new(label.clone(), label.backup_type(), 1, PgVersion::V15, 202_209_061);
    let mut manifest = Manifest::new(data);
    manifest.cipher_pass = Some(Passphrase::new(SUB));
    let base = Target {
        name: PG_DATA.to_owned(),
        target_type: TargetType::Path,
        path: "/pg".to_owned(),
        file: None,
        tablespace: None,
    };
    manifest.targets.push(base);
    let owner = manifest.owners.intern(Some("postgres")).unwrap();
    manifest.paths.push(ManifestPath { name: PG_DATA.to_owned(), mode: 0o700, user: owner, group: owner });
    let mut file = ManifestFile::new("pg_data/PG_VERSION", 3, 1);
    (file.user, file.group) = (owner, owner);
    file.checksum = Some(repo_format::hash::Sha1::of(b"15\n"));
    manifest.files.push(file);
    manifest
}

/// The stored bytes of a whole file, and its text.
fn stored(text: Vec<u8>, pass: &str) -> (Vec<u8>, Vec<u8>) {
    (cipher::encrypt(&Cipher::Aes256Cbc(Passphrase::new(pass)), &text).unwrap(), text)
}

#[test]
fn damaged_encrypted_files_show_no_passphrase() {
    let memory = MemoryStorage::new();
    let main = Cipher::Aes256Cbc(Passphrase::new(MAIN));
    let repo = Repo { key: 1, storage: Arc::new(memory.clone()), cipher: main };
    let sub = Some(Passphrase::new(SUB));
    let archive = ArchiveInfo::new(PgVersion::V15, 7, sub.clone().map(Keyring::single));
    let backup = BackupInfo::new(PgVersion::V15, 7, 202_209_061, sub.clone()).unwrap();
    let manifest = manifest();
    let label = manifest.data.label.clone();
    let files = [
        (layout::archive_info(&stanza()), stored(archive.serialize().unwrap(), MAIN)),
        (layout::backup_info(&stanza()), stored(backup.serialize().unwrap(), MAIN)),
        (layout::manifest(&stanza(), &label), stored(manifest.serialize().unwrap(), SUB)),
    ];
    let put = |path: &RepoPath, bytes: &[u8]| storage::put(&memory, path, bytes, WriteOptions::ATOMIC).unwrap();
    let cipher = Cipher::from_passphrase(sub.as_ref());
    let mut numbers = Numbers(1);
    let mut errors = 0;
    for (path, (bytes, text)) in &files {
        for _ in 0..400 {
            put(path, &damage(&mut numbers, bytes));
            put(&layout::copy(path), &damage(&mut numbers, bytes));
            let loaded = [
                info_files::load_archive_info(&repo, &stanza()).err(),
                info_files::load_backup_info(&repo, &stanza()).err(),
                manifest_store::load(&repo, &stanza(), &label, &cipher).err(),
                manifest_store::load_copy(&repo, &stanza(), &label, &cipher).err(),
                formats::check(&repo, &stanza()).err(),
            ];
            let text = damage_text(&mut numbers, text);
            let text = || BufReader::new(text.as_slice());
            let parsed = [
                ArchiveInfo::read(text(), Origin::Decrypted).err(),
                BackupInfo::read(text(), Origin::Decrypted).err(),
                Manifest::read(text(), Origin::Decrypted).err(),
                // Stored without encryption, as by somebody who disabled it
                ArchiveInfo::read(text(), Origin::Plain).err(),
                BackupInfo::read(text(), Origin::Plain).err(),
                Manifest::read(text(), Origin::Plain).err(),
            ];
            for error in loaded.into_iter().chain(parsed).flatten() {
                errors += 1;
                check(&error);
            }
        }
    }
    assert!(errors > 3000, "{errors}");
}

#[test]
fn debug_forms_show_no_passphrase() {
    let archive = ArchiveInfo::new(PgVersion::V15, 7, Some(Keyring::single(Passphrase::new(SUB))));
    let cipher = Cipher::Aes256Cbc(Passphrase::new(MAIN));
    for text in [format!("{archive:?}"), format!("{:?}", manifest()), format!("{cipher:?}")] {
        assert!(!text.contains(&SUB[..8]) && !text.contains(&MAIN[..8]), "{text}");
    }
}
