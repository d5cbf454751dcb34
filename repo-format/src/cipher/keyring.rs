//! The keys in the section `[cipher]` of an info file or manifest.
//!
//! Format 5 has one key. Format 6 has several with ids, each with the digest that derives from it. The key with the id
//! `0` is that of format 5, and the only one of backup.info and manifests. archive.info has others, one of which is the
//! current one: new files are encrypted with it (source: pgBackRest 2.60.0, `src/common/format/cipherSpecMap.c`).

use std::collections::BTreeMap;
use std::fmt;

use super::{KeyDigest, Passphrase};
use crate::json::{ObjectWriter, Reader};
use crate::{Error, ErrorCode, Result};

/// The id of a key: 1 to 255 bytes of text that need no escapes in JSON.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(Box<str>);

impl KeyId {
    /// The id of the key that a file has at format 5.
    pub const ZERO: &str = "0";

    /// Returns the id; `None` for text that can't be one.
    pub fn new(text: &str) -> Option<Self> {
        let valid = (1..=usize::from(u8::MAX)).contains(&text.len())
            && text.chars().all(|char| !char.is_control() && !matches!(char, '"' | '\\'));
        valid.then(|| KeyId(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The size in bytes.
    pub(super) fn size(&self) -> u8 {
        // `new` checks that it fits
        self.0.len() as u8
    }

    fn zero() -> Self {
        KeyId(Self::ZERO.into())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Keys with ids, one of which is the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyring {
    /// Never empty, and contains `current`.
    keys: BTreeMap<KeyId, Passphrase>,
    current: KeyId,
    /// When the current key was made, in seconds since 1970; 0 if that is not known.
    rotated: i64,
}

impl Keyring {
    /// The only key of a file at format 5, and of backup.info and a manifest at any format.
    pub fn single(passphrase: Passphrase) -> Self {
        Keyring { keys: BTreeMap::from([(KeyId::zero(), passphrase)]), current: KeyId::zero(), rotated: 0 }
    }

    /// The first key of the archive of a stanza that is made at format 6 at this time.
    pub fn rotatable(passphrase: Passphrase, now: i64) -> Self {
        let first = KeyId("1".into());
        Keyring { keys: BTreeMap::from([(first.clone(), passphrase)]), current: first, rotated: now }
    }

    /// The id of the key of new files.
    pub fn current_id(&self) -> &KeyId {
        &self.current
    }

    /// The key of new files.
    pub fn current(&self) -> &Passphrase {
        &self.keys[&self.current]
    }

    /// When the current key was made, in seconds since 1970; 0 if that is not known.
    pub fn rotated(&self) -> i64 {
        self.rotated
    }

    /// All keys, in the order of their ids.
    pub fn keys(&self) -> impl Iterator<Item = (&KeyId, &Passphrase)> {
        self.keys.iter()
    }

    /// Returns whether there are others than the one with the id `0`.
    pub fn has_others(&self) -> bool {
        self.keys.keys().any(|id| id.as_str() != KeyId::ZERO)
    }

    /// Returns the key with this id.
    ///
    /// # Errors
    /// [`ErrorCode::Crypto`] if there is none.
    pub fn find(&self, id: &str) -> Result<&Passphrase> {
        let found = KeyId::new(id).and_then(|id| self.keys.get(&id));
        found.ok_or_else(|| Error::new(ErrorCode::Crypto, format!("unable to find cipher key '{}'", id.escape_debug())))
    }

    /// Adds a key, whose id is the number after the current one's, and makes it the current one.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the current id is no number, [`ErrorCode::JsonFormat`] if the next one is taken already.
    pub fn rotate(&mut self, passphrase: Passphrase, now: i64) -> Result<()> {
        let current = &self.current;
        let number: Option<u32> = current.as_str().parse().ok().filter(|_| !current.as_str().starts_with('+'));
        let next = number.and_then(|number| number.checked_add(1)).ok_or_else(|| {
            let message = format!("unable to convert base 10 string '{current}' to unsigned int");
            Error::new(ErrorCode::Format, message)
        })?;
        let next = KeyId(next.to_string().into());
        if self.keys.contains_key(&next) {
            return Err(Error::new(ErrorCode::JsonFormat, format!("key '{next}' is not after prior key '{next}'")));
        }
        self.keys.insert(next.clone(), passphrase);
        (self.current, self.rotated) = (next, now);
        Ok(())
    }

    /// Adds the keys of `other` whose ids are not in use. If its current key is newer, it becomes the current one.
    ///
    /// # Errors
    /// [`ErrorCode::FileInvalid`] if both have different keys with the same id.
    pub fn keep(&mut self, other: &Keyring) -> Result<()> {
        for (id, passphrase) in &other.keys {
            if self.keys.entry(id.clone()).or_insert_with(|| passphrase.clone()) != passphrase {
                let text = format!("the stored file has another cipher key '{id}', which would be lost");
                return Err(Error::new(ErrorCode::FileInvalid, text));
            }
        }
        if other.rotated > self.rotated {
            (self.current, self.rotated) = (other.current.clone(), other.rotated);
        }
        Ok(())
    }

    /// Reads the text form of format 5.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for the form of later formats, [`ErrorCode::JsonFormat`] for any other value.
    pub(crate) fn read_single(json: &mut Reader<'_>) -> Result<Self> {
        if json.is_object() {
            return Err(Error::new(ErrorCode::Format, "only one cipher key can be stored before format 6"));
        }
        Ok(Keyring::single(Passphrase::new(json.string()?)))
    }

    /// Reads the keys in the form of format 6. The last one other than `0` counts as the current one.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for the form of format 5, and for a key without a known digest; [`ErrorCode::JsonFormat`]
    /// for any other value.
    pub(crate) fn read_keys(json: &mut Reader<'_>) -> Result<Self> {
        if json.is_string() {
            return Err(missing_digest());
        }
        let mut keys = BTreeMap::new();
        json.object_begin()?;
        while json.has_more() {
            let id = json.key()?;
            let id = KeyId::new(id).ok_or_else(|| Error::new(ErrorCode::Format, "invalid id of a cipher key"))?;
            let passphrase = read_key(json)?;
            if keys.insert(id.clone(), passphrase).is_some() {
                return Err(Error::new(ErrorCode::JsonFormat, format!("key '{id}' is not after prior key '{id}'")));
            }
        }
        json.object_end()?;
        let last = keys.keys().rev().find(|id| id.as_str() != KeyId::ZERO).or_else(|| keys.keys().next());
        let current = last.cloned().ok_or_else(|| Error::new(ErrorCode::Format, "file has no cipher key"))?;
        Ok(Keyring { keys, current, rotated: 0 })
    }

    /// Reads the id of the current key.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for an id that none of the keys has, [`ErrorCode::JsonFormat`] for any other value.
    pub(crate) fn read_current(&mut self, json: &mut Reader<'_>) -> Result<()> {
        let id = json.string()?;
        let known = KeyId::new(&id).filter(|id| self.keys.contains_key(id));
        self.current = known.ok_or_else(|| Error::new(ErrorCode::Format, "current cipher key is not stored"))?;
        Ok(())
    }

    /// Reads the time of the last rotation.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] for a value that is not a time.
    pub(crate) fn read_rotated(&mut self, json: &mut Reader<'_>) -> Result<()> {
        self.rotated = json.timestamp()?;
        Ok(())
    }

    /// Returns the key for the form of format 5.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the form can't hold all keys with their digests.
    pub(crate) fn to_single(&self) -> Result<&Passphrase> {
        let message = match self.keys.iter().next() {
            Some((id, key)) if self.keys.len() == 1 && id.as_str() == KeyId::ZERO => {
                if key.digest() == KeyDigest::Sha1 {
                    return Ok(key);
                }
                "cipher key must derive with sha1 before format 6"
            }
            _ => "only one cipher key can be stored before format 6",
        };
        Err(Error::new(ErrorCode::Format, message))
    }

    /// Appends the keys in the form of format 6.
    pub(crate) fn write_keys(&self, json: &mut String) {
        let mut object = ObjectWriter::new(json);
        for (id, passphrase) in &self.keys {
            let mut entry = object.object(id.as_str());
            entry.plain("digest", passphrase.digest().name());
            entry.string("key", passphrase.expose());
            entry.end();
        }
        object.end();
    }
}

fn missing_digest() -> Error {
    Error::new(ErrorCode::Format, "cipher key must have a digest from format 6")
}

/// Reads a key. Members in any order, and others that are not known.
fn read_key(json: &mut Reader<'_>) -> Result<Passphrase> {
    let (mut digest, mut text) = (None, None);
    json.object_begin()?;
    while json.has_more() {
        match json.key()? {
            "digest" => {
                let name = json.string()?;
                let unknown = || Error::new(ErrorCode::Format, "cipher key has a digest that is not supported");
                digest = Some(KeyDigest::from_name(&name).ok_or_else(unknown)?);
            }
            "key" => text = Some(json.string()?),
            _ => json.skip()?,
        }
    }
    json.object_end()?;
    let text = text.ok_or_else(|| Error::new(ErrorCode::JsonFormat, "required key 'key' not found"))?;
    Ok(Passphrase::with_digest(text, digest.ok_or_else(missing_digest)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Keyring> {
        Keyring::read_keys(&mut Reader::new(json))
    }

    fn written(keys: &Keyring) -> String {
        let mut json = String::new();
        keys.write_keys(&mut json);
        json
    }

    #[test]
    fn keys_after_twelve_rotations_are_in_byte_order() {
        let mut keys = Keyring::rotatable(Passphrase::with_digest("k1", KeyDigest::Sha256), 5);
        for number in 2..=12 {
            keys.rotate(Passphrase::with_digest(format!("k{number}"), KeyDigest::Sha256), number).unwrap();
        }
        assert_eq!(keys.current_id().as_str(), "12");
        assert_eq!(keys.rotated(), 12);
        let json = written(&keys);
        assert!(json.starts_with(
            "{\"1\":{\"digest\":\"sha256\",\"key\":\"k1\"},\"10\":{\"digest\":\"sha256\",\"key\":\"k10\"},"
        ));
        let again = read(&json).unwrap();
        assert_eq!(written(&again), json);
        // In byte order, 9 is the last one
        assert_eq!(again.current_id().as_str(), "9");
    }

    #[test]
    fn keys_without_current_id_use_the_last_one_that_is_not_0() {
        let entry = |id: &str| format!("\"{id}\":{{\"key\":\"k\",\"other\":[1],\"digest\":\"sha1\"}}");
        let current = |ids: &[&str]| {
            let entries: Vec<String> = ids.iter().map(|id| entry(id)).collect();
            read(&format!("{{{}}}", entries.join(","))).unwrap().current_id().to_string()
        };
        assert_eq!(current(&["0"]), "0");
        assert_eq!(current(&["0", "1"]), "1");
        assert_eq!(current(&["2", "0", "10"]), "2");
    }

    #[test]
    fn keys_that_are_not_valid_are_refused() {
        for (json, code, message) in [
            ("\"text\"", ErrorCode::Format, "cipher key must have a digest from format 6"),
            ("{\"1\":{\"key\":\"k\"}}", ErrorCode::Format, "cipher key must have a digest from format 6"),
            ("{\"1\":{\"digest\":\"sha1\"}}", ErrorCode::JsonFormat, "required key 'key' not found"),
            (
                "{\"1\":{\"digest\":\"md5\",\"key\":\"k\"}}",
                ErrorCode::Format,
                "cipher key has a digest that is not supported",
            ),
            ("{}", ErrorCode::Format, "file has no cipher key"),
            ("{\"\":{\"digest\":\"sha1\",\"key\":\"k\"}}", ErrorCode::Format, "invalid id of a cipher key"),
            (
                "{\"1\":{\"digest\":\"sha1\",\"key\":\"k\"},\"1\":{\"digest\":\"sha1\",\"key\":\"k\"}}",
                ErrorCode::JsonFormat,
                "key '1' is not after prior key '1'",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, message));
        }
        let mut keys = Keyring::single(Passphrase::new("k"));
        assert_eq!(keys.read_current(&mut Reader::new("\"1\"")).unwrap_err().code, ErrorCode::Format);
        assert_eq!(keys.read_current(&mut Reader::new("1")).unwrap_err().code, ErrorCode::JsonFormat);
        assert_eq!(Keyring::read_single(&mut Reader::new("{}")).unwrap_err().code, ErrorCode::Format);
    }

    #[test]
    fn rotation_that_has_no_next_id_is_refused() {
        let entry = "{\"digest\":\"sha256\",\"key\":\"k\"}";
        for (json, current, message) in [
            (format!("{{\"a1\":{entry}}}"), "a1", "unable to convert base 10 string 'a1' to unsigned int"),
            (format!("{{\"1\":{entry},\"2\":{entry}}}"), "1", "key '2' is not after prior key '2'"),
        ] {
            let mut keys = read(&json).unwrap();
            keys.read_current(&mut Reader::new(&format!("\"{current}\""))).unwrap();
            let before = keys.clone();
            assert_eq!(keys.rotate(Passphrase::new("x"), 9).unwrap_err().message, message);
            assert_eq!(keys, before);
        }
    }

    #[test]
    fn keys_of_a_stored_file_are_kept() {
        let mut older = Keyring::rotatable(Passphrase::new("one"), 10);
        let mut newer = older.clone();
        newer.rotate(Passphrase::new("two"), 20).unwrap();
        let mut kept = newer.clone();
        kept.keep(&older).unwrap();
        assert_eq!(kept, newer);
        older.keep(&newer).unwrap();
        assert_eq!(older, newer);
        let mut other = Keyring::rotatable(Passphrase::new("another"), 30);
        assert_eq!(other.keep(&newer).unwrap_err().code, ErrorCode::FileInvalid);
    }

    #[test]
    fn keys_of_format_6_do_not_fit_format_5() {
        let message = |keys: &Keyring| keys.to_single().map(drop).map_err(|error| error.message);
        assert_eq!(message(&Keyring::single(Passphrase::new("k"))), Ok(()));
        let sha256 = Passphrase::with_digest("k", KeyDigest::Sha256);
        let refused = |text: &str| Err(format!("{text} before format 6"));
        assert_eq!(message(&Keyring::single(sha256.clone())), refused("cipher key must derive with sha1"));
        assert_eq!(message(&Keyring::rotatable(sha256, 1)), refused("only one cipher key can be stored"));
    }

    proptest! {
        #[test]
        fn keys_with_any_ids_and_texts_read_back(
            keys in proptest::collection::btree_map("[a-zA-Z0-9_ é]{1,20}", "\\PC{0,70}", 1..9)
        ) {
            let keys: BTreeMap<KeyId, Passphrase> = keys
                .into_iter()
                .filter_map(|(id, text)| Some((KeyId::new(&id)?, Passphrase::with_digest(text, KeyDigest::Sha256))))
                .collect();
            let current = keys.keys().next().unwrap().clone();
            let ring = Keyring { keys, current, rotated: 0 };
            let read = read(&written(&ring)).unwrap();
            prop_assert_eq!(read.keys, ring.keys);
        }
    }
}
