//! The types of compression and their names.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::{Error, ErrorCode, Result};

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CompressType {
    /// No compression.
    None,
    /// bzip2.
    Bz2,
    /// gzip, the default.
    #[default]
    Gz,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zst,
}

/// Extensions that a compressed file may have. They include the unsupported `.xz`, so that such names are recognized.
pub const EXTENSIONS: [&str; 5] = [".gz", ".lz4", ".zst", ".xz", ".bz2"];

impl CompressType {
    /// Every type.
    pub const ALL: [CompressType; 5] =
        [CompressType::None, CompressType::Bz2, CompressType::Gz, CompressType::Lz4, CompressType::Zst];

    /// The name in options and manifests.
    pub fn name(self) -> &'static str {
        match self {
            CompressType::None => "none",
            CompressType::Bz2 => "bz2",
            CompressType::Gz => "gz",
            CompressType::Lz4 => "lz4",
            CompressType::Zst => "zst",
        }
    }

    /// Returns the extension of file names, with its dot; empty without compression.
    pub fn extension(self) -> &'static str {
        match self {
            CompressType::None => "",
            CompressType::Bz2 => ".bz2",
            CompressType::Gz => ".gz",
            CompressType::Lz4 => ".lz4",
            CompressType::Zst => ".zst",
        }
    }

    /// Returns the type by the end of a file name, as for archived WAL. A name without a known extension is not
    /// compressed. Returns an option-invalid-value error (032) for `.xz`, which no program of this format can read.
    pub fn from_file_name(name: &str) -> Result<Self> {
        if name.ends_with(".xz") {
            return Err(xz_error());
        }
        Ok(Self::ALL.into_iter().skip(1).find(|kind| name.ends_with(kind.extension())).unwrap_or(CompressType::None))
    }

    /// Returns `name` without this type's extension, or a format error (029) if it has another ending.
    pub fn strip_extension(self, name: &str) -> Result<&str> {
        name.strip_suffix(self.extension()).ok_or_else(|| {
            Error::new(ErrorCode::Format, format!("'{name}' must have '{}' extension", self.extension()))
        })
    }

    /// The level used when none is asked for.
    pub fn default_level(self) -> i32 {
        match self {
            CompressType::None => 0,
            CompressType::Bz2 => 9,
            CompressType::Gz => 6,
            CompressType::Lz4 => 1,
            CompressType::Zst => 3,
        }
    }

    /// The levels that can be asked for.
    pub fn level_range(self) -> RangeInclusive<i32> {
        match self {
            CompressType::None => 0..=0,
            CompressType::Bz2 => 1..=9,
            CompressType::Gz => -1..=9,
            CompressType::Lz4 => -5..=12,
            CompressType::Zst => -7..=22,
        }
    }
}

fn xz_error() -> Error {
    Error::new(ErrorCode::OptionInvalidValue, "not built with xz support")
}

impl fmt::Display for CompressType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for CompressType {
    type Err = Error;

    /// Returns an option-invalid-value error (032) for `xz`, which is known by name only, and an assert error (025) for
    /// other names.
    fn from_str(name: &str) -> Result<Self> {
        if name == "xz" {
            return Err(xz_error());
        }
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::new(ErrorCode::Assert, format!("invalid compression type '{name}'")))
    }
}
