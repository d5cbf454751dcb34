//! Compression of repository files: gz, bz2, lz4 and zst, as streams that pgBackRest reads and writes.
//!
//! Source of the formats: pgBackRest `src/common/compress`. Exact compressed bytes are no part of the format; the frame's
//! properties are (no content size, no zst checksum, linked lz4 blocks of 64 KiB, ...).

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use crate::cipher::Framing;
use crate::{Error, ErrorCode, Result};

/// How files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CompressType {
    /// Not at all.
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

/// Extensions that a compressed file may have, the unsupported `.xz` included: file names are recognised with it.
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

    /// The extension of a file's name with its dot; empty for none.
    pub fn extension(self) -> &'static str {
        match self {
            CompressType::None => "",
            CompressType::Bz2 => ".bz2",
            CompressType::Gz => ".gz",
            CompressType::Lz4 => ".lz4",
            CompressType::Zst => ".zst",
        }
    }

    /// The type of a file by the end of its name, as for archived WAL; a name without a known extension is not compressed.
    /// Option-invalid-value error [032] for `.xz`, which no program of this format can read.
    pub fn from_file_name(name: &str) -> Result<Self> {
        if name.ends_with(".xz") {
            return Err(xz_error());
        }
        Ok(Self::ALL.into_iter().skip(1).find(|kind| name.ends_with(kind.extension())).unwrap_or(CompressType::None))
    }

    /// `name` without this type's extension. Format error [029] if it has another ending.
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

    /// Option-invalid-value error [032] for `xz`, which is known by name only; assert error [025] for other names.
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

/// A type and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The type.
    pub kind: CompressType,
    /// The level, within [`CompressType::level_range`].
    pub level: i32,
}

impl Default for Compression {
    /// gz at its default level.
    fn default() -> Self {
        let kind = CompressType::default();
        Compression { kind, level: kind.default_level() }
    }
}

impl Compression {
    /// Not compressed.
    pub const NONE: Compression = Compression { kind: CompressType::None, level: 0 };

    /// A type with a level, its default one for `None`. Option-invalid-value error [032] for a level out of range.
    pub fn new(kind: CompressType, level: Option<i32>) -> Result<Self> {
        let level = level.unwrap_or(kind.default_level());
        // The level means nothing without compression, so any is taken.
        if kind != CompressType::None && !kind.level_range().contains(&level) {
            return Err(Error::new(
                ErrorCode::OptionInvalidValue,
                format!("'{level}' is out of range for 'compress-level' option when 'compress-type' option = '{kind}'"),
            ));
        }
        Ok(Compression { kind, level })
    }
}
