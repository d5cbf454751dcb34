//! Options that depend on others, adjusted after each option was resolved.

use engine::{Error, ErrorCode, Result};

use super::decl::{Command, IndexGroup, OptionDecl, ValueKind};
use super::handle::OptIndexed;
use super::{Config, Source, Value, opt, value};

const SECOND: i64 = 1000;
/// How much longer the protocol timeout is than the database timeout.
const TIMEOUT_MARGIN: i64 = 30 * SECOND;

impl Config {
    /// Derives values that depend on several options, and checks options that must agree. It is called once, when the
    /// log is open.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalid`], [`ErrorCode::OptionInvalidValue`], [`ErrorCode::OptionRequired`],
    /// [`ErrorCode::Config`]
    pub fn adjust(&mut self) -> Result<()> {
        if self.command == Command::Init {
            // Its options are written as they are. They are checked for the commands that will read them
            return Ok(());
        }
        self.check_repo_chosen()?;
        self.check_repo_paths()?;
        self.adjust_timeouts()?;
        self.check_hosts()?;
        self.warn_retention();
        self.adjust_archive_retention();
        self.check_s3_buckets()?;
        self.adjust_compress();
        self.adjust_sftp()?;
        if self.find(opt::REPO_TARGET_TIME).is_some() && self.source(opt::REPO) == Source::Default {
            let text = "option 'repo-target-time' not valid without option 'repo'";
            return Err(Error::new(ErrorCode::OptionInvalid, text));
        }
        if self.source(opt::STOP_AUTO) != Source::Default {
            engine::warn!(
                "option 'stop-auto' is deprecated\n\
                 HINT: all supported versions use non-exclusive backup.\n\
                 HINT: stop using this option to avoid an error when it is removed."
            );
        }
        Ok(())
    }

    /// Fails if stanza-delete would have to guess the repository.
    fn check_repo_chosen(&self) -> Result<()> {
        let unclear = self.repo_keys() != [1];
        if !self.help && self.command == Command::StanzaDelete && self.find(opt::REPO).is_none() && unclear {
            let text = format!("{} command requires option: repo", self.command.name());
            return Err(Error::new(ErrorCode::OptionRequired, text)
                .hint("this command requires a specific repository to operate on"));
        }
        Ok(())
    }

    fn check_repo_paths(&self) -> Result<()> {
        let local_path = |key: u32| {
            let kind = self.find_at(opt::REPO_TYPE, key)?;
            let is_local = self.find_at(opt::REPO_HOST, key).is_none() && matches!(kind, "posix" | "cifs");
            self.find_at(opt::REPO_PATH, key).filter(|_| is_local).map(|path| (kind, path))
        };
        for &key in self.repo_keys() {
            let Some(place) = local_path(key) else { continue };
            let other =
                self.repo_keys().iter().copied().find(|&other| other != key && local_path(other) == Some(place));
            if let Some(other) = other {
                let path = self.display(opt::REPO_PATH.decl(), other).unwrap_or_default();
                let text = format!("local repo{key} and repo{other} paths are both '{path}' but must be different");
                return Err(Error::new(ErrorCode::OptionInvalidValue, text));
            }
        }
        Ok(())
    }

    fn adjust_timeouts(&mut self) -> Result<()> {
        let (db, protocol) = (opt::DB_TIMEOUT.decl(), opt::PROTOCOL_TIMEOUT.decl());
        let (Some(db_timeout), Some(timeout)) = (self.number(db, 0), self.number(protocol, 0)) else { return Ok(()) };
        if timeout > db_timeout {
            return Ok(());
        }
        if self.source(opt::PROTOCOL_TIMEOUT) == Source::Default {
            self.set_number(protocol, 0, db_timeout + TIMEOUT_MARGIN);
        } else if self.source(opt::DB_TIMEOUT) == Source::Default {
            let less = timeout - TIMEOUT_MARGIN;
            self.set_number(db, 0, if less >= 15 * SECOND { less } else { timeout / 2 });
        } else {
            let protocol = self.display(protocol, 0).unwrap_or_default();
            let db = self.display(db, 0).unwrap_or_default();
            // The hint has no colon in pgBackRest either
            let text = format!(
                "'{protocol}' is not valid for 'protocol-timeout' option\n\
                 HINT 'protocol-timeout' option ({protocol}) should be greater than 'db-timeout' option ({db})."
            );
            return Err(Error::new(ErrorCode::OptionInvalidValue, text));
        }
        Ok(())
    }

    fn check_hosts(&self) -> Result<()> {
        let any = |group: IndexGroup, option: OptIndexed<String>| {
            self.keys(group).iter().any(|&key| self.find_at(option, key).is_some())
        };
        if any(IndexGroup::Pg, opt::PG_HOST) && any(IndexGroup::Repo, opt::REPO_HOST) {
            return Err(Error::new(ErrorCode::Config, "pg and repo hosts cannot both be configured as remote"));
        }
        Ok(())
    }

    fn warn_retention(&self) {
        if self.help || !self.is_valid(opt::REPO_RETENTION_FULL_TYPE.decl()) {
            return;
        }
        for &key in self.repo_keys() {
            if self.find_at(opt::REPO_RETENTION_FULL, key).is_none() {
                let full = opt::REPO_RETENTION_FULL.decl().indexed_name(key);
                let kind = opt::REPO_RETENTION_FULL_TYPE.decl();
                engine::warn!(
                    "option '{full}' is not set for '{}={}', the repository may run out of space\n\
                     HINT: to retain full backups indefinitely (without warning), set option '{full}' to the maximum.",
                    kind.indexed_name(key),
                    self.display(kind, key).unwrap_or_default(),
                );
            }
        }
    }

    /// Sets the number of backups to keep WAL for to the number of retained backups of the counted type.
    fn adjust_archive_retention(&mut self) {
        if !self.is_valid(opt::REPO_RETENTION_ARCHIVE.decl()) {
            return;
        }
        for key in self.repo_keys().to_vec() {
            let archive = opt::REPO_RETENTION_ARCHIVE.decl();
            let archive_name = archive.indexed_name(key);
            let diff_name = opt::REPO_RETENTION_DIFF.decl().indexed_name(key);
            let kind_name = opt::REPO_RETENTION_ARCHIVE_TYPE.decl().indexed_name(key);
            let kind = self.find_at(opt::REPO_RETENTION_ARCHIVE_TYPE, key).unwrap_or_default().to_owned();
            let diff = self.find_at(opt::REPO_RETENTION_DIFF, key);
            if self.find_at(opt::REPO_RETENTION_ARCHIVE, key).is_some() {
                if kind == "diff" && diff.is_none() {
                    engine::warn!(
                        "option '{diff_name}' is not set for '{kind_name}=diff'\n\
                         HINT: to retain differential backups indefinitely (without warning), set option '{diff_name}' to \
                         the maximum."
                    );
                }
                continue;
            }
            let off = format!("WAL segments will not be expired: option '{kind_name}={kind}' but");
            match kind.as_str() {
                "full" => {
                    let full = self.find_at(opt::REPO_RETENTION_FULL, key);
                    // If retention is by time, expire determines the number itself
                    if let (Some("count"), Some(full)) = (self.find_at(opt::REPO_RETENTION_FULL_TYPE, key), full) {
                        self.set_number(archive, key, full);
                    }
                }
                "diff" => match diff {
                    Some(diff) => self.set_number(archive, key, diff),
                    None => {
                        engine::warn!("{off} neither option '{archive_name}' nor option '{diff_name}' is set");
                    }
                },
                _ => engine::warn!("{off} option '{archive_name}' is not set"),
            }
        }
    }

    fn check_s3_buckets(&self) -> Result<()> {
        for &key in self.repo_keys() {
            let Some(bucket) = self.find_at(opt::REPO_S3_BUCKET, key) else { continue };
            let verify = self.find_at(opt::REPO_STORAGE_VERIFY_TLS, key) == Some(true);
            if verify && self.find_at(opt::REPO_S3_URI_STYLE, key) == Some("host") && bucket.contains('.') {
                let name = opt::REPO_S3_BUCKET.decl().indexed_name(key);
                let text = format!("'{bucket}' is not valid for option '{name}'");
                return Err(Error::new(ErrorCode::OptionInvalidValue, text)
                    .hint("RFC-2818 forbids dots in wildcard matches.")
                    .hint("TLS/SSL verification cannot proceed with this bucket name.")
                    .hint("remove dots from the bucket name."));
            }
        }
        Ok(())
    }

    /// The old option `compress` becomes `compress-type`.
    fn adjust_compress(&mut self) {
        if !self.is_valid(opt::COMPRESS.decl()) {
            return;
        }
        if self.source(opt::COMPRESS) != Source::Default {
            let type_is_default = self.source(opt::COMPRESS_TYPE) == Source::Default;
            if !type_is_default {
                engine::warn!(
                    "'compress' and 'compress-type' options should not both be set\n\
                     HINT: 'compress-type' is preferred and 'compress' is deprecated."
                );
            }
            if self.find(opt::COMPRESS) == Some(false) && type_is_default {
                self.set_text(opt::COMPRESS_TYPE, "none".to_owned(), Source::CommandLine);
                self.set_number(opt::COMPRESS_LEVEL.decl(), 0, 0);
            }
        }
        // Nothing else may read it, and no child process gets it
        if let Some(slot) = self.slot_mut(opt::COMPRESS.decl(), 0) {
            *slot = super::Slot::EMPTY;
        }
    }

    fn adjust_sftp(&mut self) -> Result<()> {
        for key in self.repo_keys().to_vec() {
            let check_name = opt::REPO_SFTP_HOST_KEY_CHECK_TYPE.decl().indexed_name(key);
            let name = opt::REPO_SFTP_HOST_FINGERPRINT.decl().indexed_name(key);
            let Some(check) = self.find_at(opt::REPO_SFTP_HOST_KEY_CHECK_TYPE, key) else { continue };
            let is_fingerprint = check == "fingerprint";
            if self.find_at(opt::REPO_SFTP_HOST_FINGERPRINT, key).is_none() {
                if is_fingerprint {
                    let text = format!("{} command requires option: {name}", self.command.name());
                    return Err(Error::new(ErrorCode::OptionRequired, text));
                }
            } else if self.source_at(opt::REPO_SFTP_HOST_KEY_CHECK_TYPE, key) == Source::Default {
                engine::warn!(
                    "option '{name}' without option '{check_name}' = 'fingerprint' is deprecated\n\
                     HINT: set option '{check_name}=fingerprint'"
                );
                if let Some(slot) = self.slot_mut(opt::REPO_SFTP_HOST_KEY_CHECK_TYPE.decl(), key) {
                    slot.value = Some(Value::Text("fingerprint".into()));
                    slot.display = None;
                }
            } else if !is_fingerprint {
                let text = format!("option '{name}' not valid without option '{check_name}' = 'fingerprint'");
                return Err(Error::new(ErrorCode::OptionInvalid, text));
            }
        }
        Ok(())
    }

    /// Returns a number as stored: bytes, milliseconds or a plain number.
    fn number(&self, decl: &OptionDecl, key: u32) -> Option<i64> {
        match self.slot(decl, key)?.value.as_ref()? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Sets a derived number. The source stays `Default`.
    fn set_number(&mut self, decl: &OptionDecl, key: u32, number: i64) {
        if let Some(slot) = self.slot_mut(decl, key) {
            slot.value = Some(Value::Number(number));
            slot.display = None;
            slot.default = Some(match decl.kind {
                ValueKind::Time => value::format_time(number).into(),
                _ => number.to_string().into(),
            });
        }
    }
}
