use std::sync::Arc;

use repo_format::cipher::{self, Framing, Keyring};
use repo_format::pg::version::PgVersion;

use super::save::with_stored_keys;
use super::*;
use crate::storage::faulty::{FaultyStorage, Op};
use crate::storage::memory::MemoryStorage;

fn stanza() -> Stanza {
    "main".parse().unwrap()
}

fn repo(pass: Option<&str>, storage: &MemoryStorage) -> Repo {
    let pass = pass.map(Passphrase::new);
    Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::from_passphrase(pass.as_ref()) }
}

fn saved(pass: Option<&str>) -> (MemoryStorage, ArchiveInfo) {
    let storage = MemoryStorage::new();
    let info = ArchiveInfo::new(PgVersion::V15, 7, pass.map(|_| Keyring::single(Passphrase::new("sub"))));
    save_archive_info(&repo(pass, &storage), &stanza(), &info).unwrap();
    (storage, info)
}

#[test]
fn archive_info_is_saved_without_losing_a_key_of_a_stored_file() {
    let storage = MemoryStorage::new();
    let repo = repo(Some("secret"), &storage);
    let stanza: Stanza = "main".parse().unwrap();
    let sha256 = || Passphrase::generate(RepoFormat::V6).unwrap();
    let keys = Keyring::rotatable(sha256(), 10);
    let older = ArchiveInfo::with_format(RepoFormat::V6, PgVersion::V15, 7, Some(keys));
    let mut newer = older.clone();
    newer.keys.as_mut().unwrap().rotate(sha256(), 20).unwrap();
    let path = layout::archive_info(&stanza);
    for rotated in [path.clone(), layout::copy(&path)] {
        save_archive_info(&repo, &stanza, &older).unwrap();
        let text = newer.serialize().unwrap();
        let stored = cipher::encrypt(&repo.cipher.of_info_file(RepoFormat::V6), &text).unwrap();
        storage::put(&storage, &rotated, &stored, WriteOptions::ATOMIC).unwrap();
        // Loaded before the rotation
        save_archive_info(&repo, &stanza, &older).unwrap();
        assert_eq!(load_archive_info(&repo, &stanza).unwrap().keys, newer.keys);
        assert_eq!(load_archive_info_copy(&repo, &stanza).unwrap().unwrap().keys, newer.keys);
        repo.storage.remove_all(&RepoPath::new("archive").unwrap()).unwrap();
    }
}

/// Stores this information as one file.
fn put_one(repo: &Repo, path: &RepoPath, info: &ArchiveInfo) -> Vec<u8> {
    let text = info.serialize().unwrap();
    let stored = cipher::encrypt(&repo.cipher.of_info_file(info.format), &text).unwrap();
    storage::put(&*repo.storage, path, &stored, WriteOptions::ATOMIC).unwrap();
    stored
}

fn of_format_6() -> ArchiveInfo {
    let keys = Keyring::rotatable(Passphrase::generate(RepoFormat::V6).unwrap(), 10);
    ArchiveInfo::with_format(RepoFormat::V6, PgVersion::V15, 7, Some(keys))
}

#[test]
fn archive_info_of_format_5_does_not_replace_one_of_format_6() {
    let (storage, old) = saved(Some("secret"));
    let repo = repo(Some("secret"), &storage);
    // Another host upgrades the stanza after this one has loaded the file
    put_one(&repo, &layout::archive_info(&stanza()), &of_format_6());
    let before = storage::get(&storage, &layout::archive_info(&stanza()), SIZE_MAX).unwrap();
    let error = save_archive_info(&repo, &stanza(), &old).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileInvalid);
    assert!(error.message.contains("was upgraded to repository format 6 meanwhile"), "{error}");
    assert_eq!(storage::get(&storage, &layout::archive_info(&stanza()), SIZE_MAX).unwrap(), before);
    assert_eq!(load_archive_info_copy(&repo, &stanza()).unwrap(), Some(old));
}

#[test]
fn damaged_file_of_format_6_is_not_replaced_by_its_copy_of_format_5_but_the_copy_is_read() {
    let (storage, old) = saved(Some("secret"));
    let repo = repo(Some("secret"), &storage);
    let path = layout::archive_info(&stanza());
    let mut stored = put_one(&repo, &path, &of_format_6());
    stored[100] ^= 1;
    storage::put(&storage, &path, &stored, WriteOptions::ATOMIC).unwrap();
    assert_eq!(load_archive_info(&repo, &stanza()).unwrap(), old);
    let error = load_archive_info_to_save(&repo, &stanza()).unwrap_err();
    assert!(error.message.contains("whose copy has an older format"), "{error}");
    assert!(error.hints.iter().any(|hint| hint.contains("lacks cipher keys")), "{error}");
    assert_eq!(save_archive_info(&repo, &stanza(), &old).unwrap_err().code, ErrorCode::FileInvalid);
    assert_eq!(storage::get(&storage, &path, SIZE_MAX).unwrap(), Some(stored));
    // Nor by a copy of the same format, which may lack its newest key
    assert_eq!(load_archive_info_to_refresh(&repo, &stanza()).unwrap(), Some(old));
    put_one(&repo, &layout::copy(&path), &of_format_6());
    assert_eq!(load_archive_info_to_refresh(&repo, &stanza()).unwrap(), None);
    let error = save_archive_info(&repo, &stanza(), &of_format_6()).unwrap_err();
    assert!(error.message.contains("may have cipher keys that its copy lacks"), "{error}");
    // A missing one has no keys
    repo.storage.remove(&path).unwrap();
    let copy = load_archive_info_to_refresh(&repo, &stanza()).unwrap().unwrap();
    save_archive_info(&repo, &stanza(), &copy).unwrap();
    assert_eq!(load_archive_info_to_save(&repo, &stanza()).unwrap(), copy);
}

#[test]
fn read_of_archive_info_that_fails_for_a_moment_is_no_damage() {
    let memory = MemoryStorage::new();
    let plain = repo(Some("secret"), &memory);
    save_archive_info(&plain, &stanza(), &of_format_6()).unwrap();
    let failing = || {
        let storage = FaultyStorage::new(Arc::new(memory.clone())).fail(Op::Read, 1);
        Repo { storage: Arc::new(storage), ..plain.clone() }
    };
    let to_refresh = load_archive_info_to_refresh(&failing(), &stanza()).unwrap_err();
    for error in [to_refresh, load_archive_info_to_save(&failing(), &stanza()).unwrap_err()] {
        assert_eq!(error.code, ErrorCode::Service);
        let expected = "unable to load info file '/archive/main/archive.info': fault injected";
        assert!(error.message.starts_with(expected), "{error}");
    }
    // Who only reads takes the copy
    assert_eq!(load_archive_info(&failing(), &stanza()).unwrap(), load_archive_info(&plain, &stanza()).unwrap());
}

#[test]
fn new_key_is_in_the_file_before_it_is_in_the_copy() {
    let memory = MemoryStorage::new();
    let plain = repo(Some("secret"), &memory);
    let mut info = of_format_6();
    save_archive_info(&plain, &stanza(), &info).unwrap();
    info.keys.as_mut().unwrap().rotate(Passphrase::generate(RepoFormat::V6).unwrap(), 20).unwrap();
    let path = layout::archive_info(&stanza());
    let failing = FaultyStorage::new(Arc::new(memory)).fail(Op::Finish, 1);
    let failing = Repo { storage: Arc::new(failing), ..plain.clone() };
    assert!(save_archive_info(&failing, &stanza(), &info).is_err());
    let merged = with_stored_keys(&plain, &stanza(), info.keys.clone().unwrap()).unwrap();
    assert!(!merged.are_stored);
    put_one(&plain, &path, &info);
    assert!(!with_stored_keys(&plain, &stanza(), info.keys.clone().unwrap()).unwrap().are_stored);
    save_archive_info(&plain, &stanza(), &info).unwrap();
    assert!(with_stored_keys(&plain, &stanza(), info.keys.unwrap()).unwrap().are_stored);
}

#[test]
fn info_file_without_a_key_in_an_encrypted_repository_is_refused_before_plain_text_is_written() {
    let path = layout::archive_info(&stanza());
    let storage = MemoryStorage::new();
    let error = check_keys(&repo(Some("secret"), &storage), &path, false).unwrap_err();
    assert_eq!(error.code, ErrorCode::Format);
    assert!(error.message.contains("/archive/main/archive.info"), "{error}");
    check_keys(&repo(Some("secret"), &storage), &path, true).unwrap();
    check_keys(&repo(None, &storage), &path, false).unwrap();
}

#[test]
fn segment_of_a_key_that_was_added_meanwhile_is_no_damage() {
    let storage = MemoryStorage::new();
    let repo = repo(Some("secret"), &storage);
    // Rotated, or upgraded, by another process after this one has loaded the file
    for mut loaded in [of_format_6(), saved(Some("secret")).1] {
        storage::RepoStorage::remove_all(&storage, &RepoPath::new("archive").unwrap()).unwrap();
        save_archive_info(&repo, &stanza(), &loaded).unwrap();
        let cipher = archive_cipher(&repo, &stanza(), &loaded);
        loaded.format = RepoFormat::V6;
        loaded.keys.as_mut().unwrap().rotate(Passphrase::generate(RepoFormat::V6).unwrap(), 20).unwrap();
        save_archive_info(&repo, &stanza(), &loaded).unwrap();
        let segment = cipher::encrypt(&loaded.cipher(), b"segment").unwrap();
        assert_eq!(cipher::decrypt(&cipher, &segment).unwrap(), b"segment");
        let unknown = cipher::decrypt(&cipher, b"PGBR006K\x019saltsalt0123456789abcdef").unwrap_err();
        assert_eq!((unknown.code, unknown.message.as_str()), (ErrorCode::Crypto, "unable to find cipher key '9'"));
    }
}

#[test]
fn load_gives_what_was_saved() {
    for pass in [None, Some("secret")] {
        let (storage, info) = saved(pass);
        assert_eq!(load_archive_info(&repo(pass, &storage), &stanza()).unwrap(), info);
    }
}

#[test]
fn load_with_missing_or_damaged_file_takes_the_copy() {
    let (storage, info) = saved(None);
    let path = layout::archive_info(&stanza());
    storage::put(&storage, &path, b"[broken", WriteOptions::ATOMIC).unwrap();
    assert_eq!(load_archive_info(&repo(None, &storage), &stanza()).unwrap(), info);
    storage::RepoStorage::remove(&storage, &path).unwrap();
    assert_eq!(load_archive_info(&repo(None, &storage), &stanza()).unwrap(), info);
}

#[test]
fn load_without_any_file_lists_both_causes_and_hints() {
    let error = load_archive_info(&repo(None, &MemoryStorage::new()), &stanza()).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileMissing);
    assert_eq!(
        error.to_string(),
        "unable to load info file '/archive/main/archive.info' or '/archive/main/archive.info.copy':\n\
         FileMissingError: unable to open missing file '/archive/main/archive.info' for read\n\
         FileMissingError: unable to open missing file '/archive/main/archive.info.copy' for read\n\
         HINT: archive.info cannot be opened but is required to push/get WAL segments.\n\
         HINT: is archive_command configured correctly in postgresql.conf?\n\
         HINT: has a stanza-create been performed?\n\
         HINT: use --no-archive-check to disable archive checks during backup if you have an alternate archiving scheme."
    );
}

/// Stores this text, encrypted, as archive.info and as its copy, and loads that.
fn load_of_text(text: &[u8]) -> Error {
    let storage = MemoryStorage::new();
    let cipher = Cipher::Aes256Cbc(Passphrase::new("secret"));
    let bytes = cipher::encrypt_framed(&cipher, Framing::Full, text).unwrap();
    for path in [layout::archive_info(&stanza()), layout::copy(&layout::archive_info(&stanza()))] {
        storage::put(&storage, &path, &bytes, WriteOptions::ATOMIC).unwrap();
    }
    load_archive_info(&repo(Some("secret"), &storage), &stanza()).unwrap_err()
}

#[test]
fn load_with_wrong_passphrase_asks_for_it_whatever_the_bytes_become() {
    let (storage, _) = saved(Some("secret"));
    let wrong = load_archive_info(&repo(Some("other"), &storage), &stanza()).unwrap_err();
    // The end of meaningless bytes can look like a padding
    for error in [wrong, load_of_text(b"\xf0\x9f\n[x]\n\xff=\xff"), load_of_text(b"x=1\n")] {
        assert_eq!(error.code, ErrorCode::Crypto, "{error}");
        let hint = "is the passphrase (repo1-cipher-pass) the one the repository was created with?";
        assert_eq!(cipher_option_hint(&error), Some(hint), "{error}");
    }
}

#[test]
fn load_of_damaged_text_does_not_ask_for_the_passphrase() {
    let error = load_of_text(b"[backrest]\nbackrest-format=5\nx");
    assert_eq!((error.code, cipher_option_hint(&error)), (ErrorCode::Format, None), "{error}");
}

#[test]
fn load_of_encrypted_file_without_cipher_asks_for_the_type_and_shows_no_byte_of_it() {
    let (storage, _) = saved(Some("secret"));
    let error = load_archive_info(&repo(None, &storage), &stanza()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Format);
    assert_eq!(cipher_option_hint(&error), Some("is repo1-cipher-type right?"));
    assert!(error.message.contains("FormatError: file is encrypted\n"), "{error}");
    assert!(!error.message.contains("Salted__"), "{error}");
}

#[test]
fn save_cut_short_leaves_a_loadable_stanza() {
    let (memory, old) = saved(None);
    let mut new = old.clone();
    new.upgrade(PgVersion::V16, 8).unwrap();
    for (op, n) in [(Op::Write, 1), (Op::Finish, 1), (Op::Write, 2), (Op::Finish, 2)] {
        let faulty = FaultyStorage::new(Arc::new(memory.clone())).fail(op, n);
        let failing = Repo { key: 1, storage: Arc::new(faulty), cipher: Cipher::None };
        assert!(save_archive_info(&failing, &stanza(), &new).is_err());
        let loaded = load_archive_info(&repo(None, &memory), &stanza()).unwrap();
        assert!(loaded == old || loaded == new);
    }
}

#[test]
fn generated_passphrase_only_with_encryption() {
    let storage = MemoryStorage::new();
    assert_eq!(generate_passphrase(&repo(None, &storage), RepoFormat::V5).unwrap(), None);
    assert_eq!(generate_passphrase(&repo(Some("x"), &storage), RepoFormat::V5).unwrap().unwrap().expose().len(), 64);
}
