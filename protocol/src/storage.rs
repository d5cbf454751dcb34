//! The repository or the data directory of a server.
//!
//! Which of the two it is depends on the server's command line. A client asks for the [features](StorageFeatures) first; other
//! requests before that end the server. Paths are absolute (source: pgBackRest `src/storage/remote/`).

mod info;
mod path;
mod read;
mod write;

pub use info::{
    FileInfoRequest, FileKind, Info, InfoAnswer, InfoDetail, InfoLevel, ListAnswer, ListAnswerWriter, ListEntries,
    ListEntry, ListRequest, OwnerInfo,
};
pub use path::{LinkRequest, LinkType, PathCreateRequest, PathRemoveAnswer, PathRemoveRequest, RemoveRequest};
pub use read::{Chunk, FileRange, ReadAnswer, ReadManyRequest, ReadRequest};
pub use write::{WriteAnswer, WriteRequest};

use crate::pack::{EMPTY, PackReader, PackWriter};
use repo_format::Result;

/// What a storage can do, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageFeatures(pub u64);

impl StorageFeatures {
    /// There are directories.
    pub const PATH: StorageFeatures = StorageFeatures(1);
    /// Directories can be synced.
    pub const PATH_SYNC: StorageFeatures = StorageFeatures(1 << 1);
    /// Files can have several names.
    pub const HARD_LINK: StorageFeatures = StorageFeatures(1 << 2);
    /// There are symbolic links.
    pub const SYMLINK: StorageFeatures = StorageFeatures(1 << 3);
    /// Information has a mode and owners.
    pub const INFO_DETAIL: StorageFeatures = StorageFeatures(1 << 4);
    /// Files have versions.
    pub const VERSIONS: StorageFeatures = StorageFeatures(1 << 5);
    /// A read that fails can be continued.
    pub const READ_RETRY: StorageFeatures = StorageFeatures(1 << 6);
    /// Removing a missing file is noticed.
    pub const REMOVE_MISSING: StorageFeatures = StorageFeatures(1 << 7);

    /// Whether it has all the bits of `other`.
    pub fn has(self, other: StorageFeatures) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for StorageFeatures {
    type Output = StorageFeatures;

    fn bitor(self, other: StorageFeatures) -> StorageFeatures {
        StorageFeatures(self.0 | other.0)
    }
}

/// Where a storage begins and what it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeaturesAnswer<'a> {
    /// The base directory.
    pub path: &'a str,
    /// What it can do.
    pub features: StorageFeatures,
}

impl<'a> FeaturesAnswer<'a> {
    /// The data of the answer.
    pub fn encode(&self) -> PackWriter<'static> {
        let mut writer = PackWriter::new();
        writer.text(self.path).u64(self.features.0);
        writer
    }

    /// Reads the data of the answer.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        let answer = FeaturesAnswer { path: reader.text_required("path")?, features: StorageFeatures(reader.u64()?) };
        reader.finish()?;
        Ok(answer)
    }
}
