//! What differs between versions of pgBackRest.
//!
//! pgBackRest requires the same version on both sides, so each version has its own protocol. A server here speaks the
//! dialect that it announces; a client speaks that of the server's greeting.
//!
//! To add a version: add a constant and put it into [`Dialect::ALL`]. Where its messages differ, add a variant to the
//! enum of that place, or an enum, and match on it where the message is encoded and decoded.

use crate::StringId;
use crate::call_kind::CallKind;

/// The form of the parameters of filters that encrypt and decrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherForm {
    /// A direction, cipher, digest, passphrase and [header form](crate::filter::CipherHeader). The filter `cipher-fmt` reads
    /// the format of a repository from a file. From 2.60.0 on; earlier versions have other lists.
    DigestAndHeader,
}

/// The protocol of one version.
#[derive(Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The version, as greetings contain it.
    pub version: &'static str,
    /// The commands that a server of this version knows.
    pub commands: &'static [CallKind],
    /// The form of ciphers' parameters.
    pub cipher: CipherForm,
}

/// pgBackRest 2.60.0.
static V2_60_0: Dialect = Dialect { version: "2.60.0", commands: &CallKind::ALL, cipher: CipherForm::DigestAndHeader };

impl Dialect {
    /// The dialect that a server announces.
    pub const NEWEST: &'static Dialect = &V2_60_0;
    /// Every dialect that a client speaks.
    pub const ALL: &'static [&'static Dialect] = &[&V2_60_0];

    /// The dialect of a version.
    pub fn of(version: &str) -> Option<&'static Dialect> {
        Self::ALL.iter().copied().find(|dialect| dialect.version == version)
    }

    /// The command with this name, if this version has it, or one that two programs of this project may use.
    pub fn command(&self, id: StringId) -> Option<CallKind> {
        self.commands.iter().chain(&CallKind::OWN).copied().find(|command| command.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_dialect_is_that_of_the_repository_format() {
        assert_eq!(Dialect::NEWEST.version, repo_format::BACKREST_VERSION);
        assert_eq!(Dialect::of(repo_format::BACKREST_VERSION), Some(Dialect::NEWEST));
        assert_eq!(Dialect::of("2.59.1"), None);
    }
}
