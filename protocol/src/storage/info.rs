//! Information about files, and lists of directories.
//!
//! In a list, a time is the difference to that of the entry before, and a mode, an owner or a group that is the same as
//! in the entry before is left out. Entries are therefore read in order, and decoded one at a time.

use crate::format_error;
use crate::pack::{EMPTY, PackReader, PackWriter};
use repo_format::Result;

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InfoLevel {
    /// Names only.
    Exists = 1,
    /// Kinds.
    Type = 2,
    /// Sizes and times.
    Basic = 3,
    /// Modes, owners and the targets of links.
    Detail = 4,
}

impl InfoLevel {
    const ALL: [InfoLevel; 4] = [InfoLevel::Exists, InfoLevel::Type, InfoLevel::Basic, InfoLevel::Detail];

    fn read(reader: &mut PackReader<'_>) -> Result<Self> {
        let number = reader.u32()?;
        Self::ALL
            .into_iter()
            .find(|level| *level as u32 == number)
            .ok_or_else(|| format_error(format!("invalid info level {number}")))
    }
}

/// A request for information about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfoRequest<'a> {
    /// The file.
    pub path: &'a str,
    /// How much is asked.
    pub level: InfoLevel,
    /// Whether the target of a link is asked for.
    pub follow_link: bool,
}

impl<'a> FileInfoRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.text(self.path).u32(self.level as u32).bool(self.follow_link);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        let path = reader.text_required("path")?;
        Ok(FileInfoRequest { path, level: InfoLevel::read(reader)?, follow_link: reader.bool()? })
    }
}

/// A request for the entries of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRequest<'a> {
    /// The directory.
    pub path: &'a str,
    /// How much is asked.
    pub level: InfoLevel,
    /// The time as of which a store with versions is listed; 0 for now.
    pub target_time: i64,
}

impl<'a> ListRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.text(self.path).u32(self.level as u32).time(self.target_time);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        let path = reader.text_required("path")?;
        Ok(ListRequest { path, level: InfoLevel::read(reader)?, target_time: reader.time()? })
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file of this size in bytes. Below [`InfoLevel::Basic`] it is 0.
    File(u64),
    /// A directory.
    Path,
    /// A symbolic link.
    Link,
    /// Anything else.
    Special,
}

/// An owner or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OwnerInfo<'a> {
    /// The number.
    pub id: u32,
    /// The name, if it has one on the server.
    pub name: Option<&'a str>,
}

/// What [`InfoLevel::Detail`] adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoDetail<'a> {
    /// The mode.
    pub mode: u32,
    /// The owner.
    pub user: OwnerInfo<'a>,
    /// The group.
    pub group: OwnerInfo<'a>,
    /// The target of a link.
    pub link_target: Option<&'a str>,
}

/// Information about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info<'a> {
    /// What it is.
    pub kind: FileKind,
    /// When it was changed, in seconds since 1970. Below [`InfoLevel::Basic`] it is 0.
    pub modified: i64,
    /// The version in a store with versions.
    pub version: Option<&'a str>,
    /// Present if the level is [`InfoLevel::Detail`].
    pub detail: Option<InfoDetail<'a>>,
}

/// What an entry is compared with.
#[derive(Clone, Copy, Debug, Default)]
struct Baseline<'a> {
    modified: i64,
    mode: u32,
    user: OwnerInfo<'a>,
    group: OwnerInfo<'a>,
}

impl<'a> Info<'a> {
    fn write(&self, writer: &mut PackWriter<'_>, baseline: &mut Baseline<'a>) {
        let kind = match self.kind {
            FileKind::File(_) => 0,
            FileKind::Path => 1,
            FileKind::Link => 2,
            FileKind::Special => 3,
        };
        writer.u32(kind).time(self.modified.wrapping_sub(baseline.modified));
        if let FileKind::File(size) = self.kind {
            writer.u64(size);
        }
        writer.text(self.version);
        baseline.modified = self.modified;
        if let Some(detail) = &self.detail {
            writer.mode_unless(detail.mode, baseline.mode);
            baseline.mode = detail.mode;
            detail.user.write(writer, &mut baseline.user);
            detail.group.write(writer, &mut baseline.group);
            if self.kind == FileKind::Link {
                writer.text(detail.link_target);
            }
        }
    }

    fn read(reader: &mut PackReader<'a>, level: InfoLevel, baseline: &mut Baseline<'a>) -> Result<Self> {
        let kind = reader.u32()?;
        let modified = baseline.modified.wrapping_add(reader.time()?);
        let kind = match kind {
            0 => FileKind::File(reader.u64()?),
            1 => FileKind::Path,
            2 => FileKind::Link,
            3 => FileKind::Special,
            _ => return Err(format_error(format!("invalid file type {kind}"))),
        };
        let version = reader.text()?;
        baseline.modified = modified;
        let detail = if level == InfoLevel::Detail {
            let mode = reader.mode_or(baseline.mode)?;
            baseline.mode = mode;
            let user = OwnerInfo::read(reader, &mut baseline.user)?;
            let group = OwnerInfo::read(reader, &mut baseline.group)?;
            let link_target = if kind == FileKind::Link { reader.text()? } else { None };
            Some(InfoDetail { mode, user, group, link_target })
        } else {
            None
        };
        Ok(Info { kind, modified, version, detail })
    }
}

impl<'a> OwnerInfo<'a> {
    fn write(&self, writer: &mut PackWriter<'_>, baseline: &mut OwnerInfo<'a>) {
        writer.u32_unless(self.id, baseline.id).bool(self.name.is_none());
        if self.name.is_some() {
            writer.text(self.name.filter(|name| baseline.name != Some(*name)));
        }
        *baseline = OwnerInfo { id: self.id, name: self.name.or(baseline.name) };
    }

    fn read(reader: &mut PackReader<'a>, baseline: &mut OwnerInfo<'a>) -> Result<Self> {
        let id = reader.u32_or(baseline.id)?;
        let name = if reader.bool()? { None } else { reader.text()?.or(baseline.name) };
        *baseline = OwnerInfo { id, name: name.or(baseline.name) };
        Ok(OwnerInfo { id, name })
    }
}

/// The answer to an [`FileInfoRequest`]: nothing if the file is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InfoAnswer<'a> {
    /// The information. It says nothing if the level is [`InfoLevel::Exists`].
    pub info: Option<Info<'a>>,
}

impl<'a> InfoAnswer<'a> {
    /// The data of the answer.
    pub fn encode(&self) -> PackWriter<'static> {
        let mut writer = PackWriter::new();
        writer.bool_always(self.info.is_some());
        if let Some(info) = &self.info {
            info.write(&mut writer, &mut Baseline::default());
        }
        writer
    }

    /// Reads the answer to a request with `level`.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>, level: InfoLevel) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        let exists = reader.bool_required()?;
        let info = exists.then(|| Info::read(&mut reader, level, &mut Baseline::default())).transpose()?;
        reader.finish()?;
        Ok(InfoAnswer { info })
    }
}

/// The answer to a [`ListRequest`]: nothing if the directory is missing.
#[derive(Clone, Debug)]
pub struct ListAnswer<'a> {
    /// The entries, in the order of the server's system.
    pub entries: Option<ListEntries<'a>>,
}

impl<'a> ListAnswer<'a> {
    /// Reads the answer to a request with `level`. The entries are decoded later.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>, level: InfoLevel) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        let exists = reader.bool_required()?;
        let entries = ListEntries { reader: Some(reader), level, baseline: Baseline::default() };
        Ok(ListAnswer { entries: exists.then_some(entries) })
    }
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry<'a> {
    /// The name.
    pub name: &'a str,
    /// Information about it.
    pub info: Info<'a>,
}

/// The entries of a list, decoded one at a time. An error is the last item.
#[derive(Clone, Debug)]
pub struct ListEntries<'a> {
    /// None after the end.
    reader: Option<PackReader<'a>>,
    level: InfoLevel,
    baseline: Baseline<'a>,
}

impl<'a> ListEntries<'a> {
    fn read(&mut self, reader: &mut PackReader<'a>) -> Result<Option<ListEntry<'a>>> {
        if reader.at_end()? {
            reader.clone().finish()?;
            return Ok(None);
        }
        let mut object = reader.object()?.ok_or_else(|| format_error("list entry is missing"))?;
        let name = object.text_required("name of a list entry")?;
        let info = Info::read(&mut object, self.level, &mut self.baseline)?;
        object.finish()?;
        Ok(Some(ListEntry { name, info }))
    }
}

impl<'a> Iterator for ListEntries<'a> {
    type Item = Result<ListEntry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut reader = self.reader.take()?;
        let entry = self.read(&mut reader).transpose();
        if let Some(Ok(_)) = entry {
            self.reader = Some(reader);
        }
        entry
    }
}

/// Writes the answer to a [`ListRequest`], entry by entry.
#[derive(Clone, Debug)]
pub struct ListAnswerWriter<'a> {
    writer: PackWriter<'static>,
    baseline: Baseline<'a>,
}

impl<'a> ListAnswerWriter<'a> {
    /// A list, or the answer for a missing directory.
    pub fn new(exists: bool) -> Self {
        let mut writer = PackWriter::new();
        writer.bool_always(exists);
        ListAnswerWriter { writer, baseline: Baseline::default() }
    }

    /// Adds an entry.
    pub fn entry(&mut self, entry: &ListEntry<'a>) {
        let baseline = &mut self.baseline;
        self.writer.object(|object| {
            object.text(entry.name);
            entry.info.write(object, baseline);
        });
    }

    /// The data of the answer.
    pub fn finish(self) -> PackWriter<'static> {
        self.writer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Names that entries refer to.
    const NAMES: [Option<&str>; 4] = [None, Some(""), Some("postgres"), Some("root")];

    fn owner() -> impl Strategy<Value = OwnerInfo<'static>> {
        (prop_oneof![0u32..3, any::<u32>()], 0usize..4).prop_map(|(id, name)| OwnerInfo { id, name: NAMES[name] })
    }

    fn info(level: InfoLevel) -> impl Strategy<Value = Info<'static>> {
        let kind = prop_oneof![
            any::<u64>().prop_map(FileKind::File),
            Just(FileKind::Path),
            Just(FileKind::Link),
            Just(FileKind::Special),
        ];
        let modified = prop_oneof![Just(1_700_000_000), any::<i64>()];
        let mode = prop_oneof![Just(0o600), any::<u32>()];
        (kind, modified, 0usize..4, mode, owner(), owner()).prop_map(
            move |(kind, modified, name, mode, user, group)| {
                let link_target = if kind == FileKind::Link { NAMES[name] } else { None };
                let detail = (level == InfoLevel::Detail).then_some(InfoDetail { mode, user, group, link_target });
                Info { kind, modified, version: NAMES[name], detail }
            },
        )
    }

    fn level() -> impl Strategy<Value = InfoLevel> {
        (0usize..4).prop_map(|index| InfoLevel::ALL[index])
    }

    proptest! {
        #[test]
        fn lists_round_trip((level, infos) in level().prop_flat_map(|level| {
            (Just(level), prop::collection::vec(info(level), 0..10))
        })) {
            let entries: Vec<_> = infos.iter().map(|info| ListEntry { name: "name", info: *info }).collect();
            let mut writer = ListAnswerWriter::new(true);
            entries.iter().for_each(|entry| writer.entry(entry));
            let data = writer.finish().finish().to_vec();
            let decoded = ListAnswer::decode(Some(&data), level).unwrap().entries.unwrap();
            prop_assert_eq!(decoded.collect::<Result<Vec<_>>>().unwrap(), entries);
            if let Some(info) = infos.first() {
                let data = InfoAnswer { info: Some(*info) }.encode().finish().to_vec();
                prop_assert_eq!(InfoAnswer::decode(Some(&data), level).unwrap().info, Some(*info));
            }
        }
    }

    #[test]
    fn list_that_is_damaged_is_not_shorter() {
        let mut writer = PackWriter::new();
        writer.bool_always(true).object(|object| {
            object.text("first");
        });
        writer.null().object(|object| {
            object.text("after a gap");
        });
        let data = writer.finish().to_vec();
        let entries = ListAnswer::decode(Some(&data), InfoLevel::Exists).unwrap().entries.unwrap();
        let names: Vec<_> =
            entries.map(|entry| entry.map(|entry| entry.name).map_err(|error| error.to_string())).collect();
        assert_eq!(names, [Ok("first"), Err("list entry is missing".to_owned())]);
        assert!(ListAnswer::decode(None, InfoLevel::Exists).is_err());
        let cut = &data[..data.len() - 1];
        let entries = ListAnswer::decode(Some(cut), InfoLevel::Exists).unwrap().entries.unwrap();
        assert!(entries.last().unwrap().is_err());
    }
}
