//! Ciphers of filters.

use std::fmt;

use super::{Digest, unsupported};
use crate::dialect::CipherForm;
use crate::pack::{PackReader, PackWriter};
use crate::{Dialect, StringId, format_error};
use repo_format::Result;

/// The largest number of keys of [`super::Filter::CipherFormat`].
pub const CIPHER_KEYS_MAX: usize = 1000;

/// What a cipher does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Encrypts.
    Encrypt,
    /// Decrypts.
    Decrypt,
}

/// A passphrase. `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PassphraseBytes<'a>(pub &'a [u8]);

impl fmt::Debug for PassphraseBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The form of the header of an encrypted stream, as a number: 0 is `Salted__` and the salt, 1 is the salt alone. The
/// server takes any other number for 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherHeader(pub u32);

/// The parameters of a cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherFilter<'a> {
    /// What it does.
    pub direction: Direction,
    /// The digest that derives the key.
    pub digest: Option<Digest>,
    /// The passphrase.
    pub passphrase: PassphraseBytes<'a>,
    /// The header's form.
    pub header: CipherHeader,
}

/// A key of [`super::Filter::CipherFormat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherKey<'a> {
    /// The name, `0` for the only key of a repository whose format is below 6.
    pub name: &'a str,
    /// The digest that derives the key. Info files leave it to the format of the file.
    pub digest: Option<Digest>,
    /// The passphrase.
    pub passphrase: PassphraseBytes<'a>,
}

/// The only cipher.
const AES_256_CBC: StringId = StringId::known("aes-256-cbc");

impl Direction {
    const ALL: [Direction; 2] = [Direction::Encrypt, Direction::Decrypt];

    const fn id(self) -> StringId {
        match self {
            Direction::Encrypt => StringId::known("encrypt"),
            Direction::Decrypt => StringId::known("decrypt"),
        }
    }
}

impl<'a> CipherFilter<'a> {
    pub(super) fn encode(&self, dialect: &Dialect) -> PackWriter<'a> {
        let mut writer = PackWriter::new();
        match dialect.cipher {
            CipherForm::DigestAndHeader => {
                writer.u64(self.direction.id().0).string_id(AES_256_CBC);
                writer.string_id(self.digest.map_or(StringId(0), Digest::id));
                writer.binary(self.passphrase.0).u32(self.header.0);
            }
        }
        writer
    }

    pub(super) fn read(reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        match dialect.cipher {
            CipherForm::DigestAndHeader => {
                let direction = StringId(reader.u64()?);
                let direction = Direction::ALL
                    .into_iter()
                    .find(|known| known.id() == direction)
                    .ok_or_else(|| unsupported("cipher direction", direction))?;
                read_cipher_type(reader)?;
                let digest = reader.string_id()?.map(Digest::from_id).transpose()?;
                let passphrase = read_passphrase(reader)?;
                Ok(CipherFilter { direction, digest, passphrase, header: CipherHeader(reader.u32()?) })
            }
        }
    }
}

impl<'a> CipherKey<'a> {
    pub(super) fn write_all(keys: &[CipherKey<'a>], writer: &mut PackWriter<'a>) {
        writer.u32(keys.len() as u32);
        for CipherKey { name, digest, passphrase } in keys {
            writer.text(*name).string_id(AES_256_CBC).string_id(digest.map_or(StringId(0), Digest::id));
            writer.binary(passphrase.0);
        }
    }

    pub(super) fn read_all(reader: &mut PackReader<'a>) -> Result<Vec<Self>> {
        let count = reader.u32()? as usize;
        if count > CIPHER_KEYS_MAX {
            return Err(format_error(format!("more than {CIPHER_KEYS_MAX} cipher keys")));
        }
        (0..count)
            .map(|_| {
                let name = reader.text_required("key of a cipher")?;
                read_cipher_type(reader)?;
                let digest = reader.string_id()?.map(Digest::from_id).transpose()?;
                Ok(CipherKey { name, digest, passphrase: read_passphrase(reader)? })
            })
            .collect()
    }
}

fn read_cipher_type(reader: &mut PackReader<'_>) -> Result<()> {
    match reader.string_id()?.unwrap_or(StringId(0)) {
        AES_256_CBC => Ok(()),
        other => Err(unsupported("cipher", other)),
    }
}

fn read_passphrase<'a>(reader: &mut PackReader<'a>) -> Result<PassphraseBytes<'a>> {
    reader.binary()?.map(PassphraseBytes).ok_or_else(|| format_error("passphrase is missing"))
}
