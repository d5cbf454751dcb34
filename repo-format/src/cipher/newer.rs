//! Keys that were added after the keys of an archive were loaded.
//!
//! Commands that run for hours read files that were archived meanwhile. If the key was rotated in between, the keys that
//! the command loaded at its start do not contain that of the new files, although nothing is damaged.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use super::{Keyring, Passphrase};
use crate::{Error, Result};

/// After this many ids that were not found anywhere, no more are looked for. Names in headers are not trusted.
const UNKNOWN_MAX: usize = 16;

type Load = dyn Fn() -> Result<Option<Keyring>> + Send + Sync;

/// Loads the keys of an archive again.
pub(super) struct NewerKeys {
    load: Box<Load>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The keys that were loaded last.
    keys: Option<Keyring>,
    /// Ids that no loaded keys had.
    unknown: BTreeSet<String>,
}

impl NewerKeys {
    pub(super) fn new(load: impl Fn() -> Result<Option<Keyring>> + Send + Sync + 'static) -> Self {
        NewerKeys { load: Box::new(load), state: Mutex::default() }
    }

    /// Returns the key with this id, whose absence was the error `missing`. Loads the keys once per id.
    ///
    /// # Errors
    /// `missing` if there is no such key; the error of loading.
    pub(super) fn find(&self, id: &str, missing: Error) -> Result<Passphrase> {
        // Other threads that miss the same key wait for it
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passphrase) = state.find(id) {
            return Ok(passphrase);
        }
        if state.unknown.contains(id) || state.unknown.len() >= UNKNOWN_MAX {
            return Err(missing);
        }
        state.keys = (self.load)().map_err(|error| error.context(&missing.message))?;
        state.find(id).ok_or_else(|| {
            state.unknown.insert(id.to_owned());
            missing
        })
    }
}

impl State {
    fn find(&self, id: &str) -> Option<Passphrase> {
        self.keys.as_ref()?.find(id).ok().cloned()
    }
}

impl fmt::Debug for NewerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewerKeys")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Cipher, decrypt, encrypt};
    use super::*;
    use crate::ErrorCode;
    use crate::format::RepoFormat;

    /// A cipher of the first key that finds later ones, and how often it looked.
    fn cipher_that_looks(old: &Keyring, now: &Keyring) -> (Cipher, Arc<AtomicUsize>) {
        let (loads, now) = (Arc::new(AtomicUsize::new(0)), now.clone());
        let counted = Arc::clone(&loads);
        let cipher = Cipher::of_archive(Some(old), RepoFormat::V6).with_newer_keys(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(Some(now.clone()))
        });
        (cipher, loads)
    }

    #[test]
    fn file_of_a_key_that_was_added_meanwhile_is_read_with_one_look() {
        let generate = || Passphrase::generate(RepoFormat::V6).unwrap();
        let old = Keyring::rotatable(generate(), 1);
        let mut now = old.clone();
        now.rotate(generate(), 2).unwrap();
        let new_file = encrypt(&Cipher::of_archive(Some(&now), RepoFormat::V6), b"content").unwrap();
        let (cipher, loads) = cipher_that_looks(&old, &now);
        let old_file = encrypt(&cipher, b"old").unwrap();
        assert_eq!(decrypt(&cipher, &old_file).unwrap(), b"old");
        assert_eq!(loads.load(Ordering::Relaxed), 0);
        for _ in 0..3 {
            assert_eq!(decrypt(&cipher, &new_file).unwrap(), b"content");
        }
        assert_eq!(loads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn key_that_is_nowhere_is_looked_for_once_and_many_ids_not_for_ever() {
        let keys = Keyring::rotatable(Passphrase::generate(RepoFormat::V6).unwrap(), 1);
        let (cipher, loads) = cipher_that_looks(&keys, &keys);
        for id in 10..90 {
            for _ in 0..2 {
                let file = format!("PGBR006K\x02{id}saltsalt0123456789abcdef");
                let error = decrypt(&cipher, file.as_bytes()).unwrap_err();
                assert_eq!(
                    (error.code, error.message),
                    (ErrorCode::Crypto, format!("unable to find cipher key '{id}'"))
                );
            }
        }
        assert_eq!(loads.load(Ordering::Relaxed), UNKNOWN_MAX);
    }

    #[test]
    fn keys_that_can_not_be_loaded_now_are_no_sign_of_damage() {
        let keys = Keyring::rotatable(Passphrase::generate(RepoFormat::V6).unwrap(), 1);
        let cipher = Cipher::of_archive(Some(&keys), RepoFormat::V6)
            .with_newer_keys(|| Err(Error::new(ErrorCode::Service, "not now")));
        let error = decrypt(&cipher, b"PGBR006K\x012saltsalt0123456789abcdef").unwrap_err();
        assert_eq!(error.code, ErrorCode::Service);
        assert!(error.message.contains("unable to find cipher key '2'"), "{error}");
    }
}
