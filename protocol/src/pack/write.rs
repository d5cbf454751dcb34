//! Writing a pack.

use std::io::{self, IoSlice, Write};

use super::tag::Tag;
use super::{FieldType, zigzag};
use crate::StringId;

/// Bytes from this size on are not copied into the pack.
const BORROWED_SIZE_MIN: usize = 4096;

/// A writer of the fields of a pack. Each method writes the field with the next id, or leaves it out if it has the
/// default value. Large [binary](PackWriter::binary) fields stay where they are.
#[derive(Clone, Debug)]
pub struct PackWriter<'a> {
    packed: Packed<'a>,
    last_id: u32,
    /// Ids left out since the last field.
    nulls: u32,
}

impl Default for PackWriter<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> PackWriter<'a> {
    /// A writer of an empty pack.
    pub fn new() -> Self {
        PackWriter { packed: Packed { bytes: Vec::new(), borrowed: Vec::new() }, last_id: 0, nulls: 0 }
    }

    fn tag(&mut self, field_type: FieldType, value: u64, size: usize) {
        let gap = u64::from(self.nulls);
        // Ids that exceed 32 bits can't be read. A field has at least one byte, so only gaps could lead there
        self.last_id = self.last_id.saturating_add(self.nulls).saturating_add(1);
        self.nulls = 0;
        Tag { field_type, gap, value, size: size as u64 }.write(&mut self.packed.bytes);
    }

    fn number(&mut self, field_type: FieldType, value: u64, is_default: bool) -> &mut Self {
        if is_default {
            self.null()
        } else {
            self.tag(field_type, value, 0);
            self
        }
    }

    /// Leaves out an id.
    pub fn null(&mut self) -> &mut Self {
        self.nulls = self.nulls.saturating_add(1);
        self
    }

    /// Leaves out the ids before `id`, so that the next field gets it. An id that has passed is ignored.
    pub fn skip_to(&mut self, id: u32) -> &mut Self {
        self.nulls = self.nulls.max(id.saturating_sub(self.last_id).saturating_sub(1));
        self
    }

    /// True, or nothing for false.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.number(FieldType::Bool, value.into(), !value)
    }

    /// True or false.
    pub fn bool_always(&mut self, value: bool) -> &mut Self {
        self.number(FieldType::Bool, value.into(), false)
    }

    /// A signed number.
    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.number(FieldType::I32, zigzag(value.into()), value == 0)
    }

    /// A signed number, also 0.
    pub fn i32_always(&mut self, value: i32) -> &mut Self {
        self.number(FieldType::I32, zigzag(value.into()), false)
    }

    /// A signed number, also 0.
    pub fn i64_always(&mut self, value: i64) -> &mut Self {
        self.number(FieldType::I64, zigzag(value), false)
    }

    /// A number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.u32_unless(value, 0)
    }

    /// A number, also 0.
    pub fn u32_always(&mut self, value: u32) -> &mut Self {
        self.number(FieldType::U32, value.into(), false)
    }

    /// A number, or nothing if it equals `default`.
    pub fn u32_unless(&mut self, value: u32, default: u32) -> &mut Self {
        self.number(FieldType::U32, value.into(), value == default)
    }

    /// A number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.number(FieldType::U64, value, value == 0)
    }

    /// A number, also 0, or NULL.
    pub fn u64_or_null(&mut self, value: Option<u64>) -> &mut Self {
        self.number(FieldType::U64, value.unwrap_or_default(), value.is_none())
    }

    /// A file mode, or nothing if it equals `default`.
    pub fn mode_unless(&mut self, value: u32, default: u32) -> &mut Self {
        self.number(FieldType::Mode, value.into(), value == default)
    }

    /// A file mode, also 0.
    pub fn mode_always(&mut self, value: u32) -> &mut Self {
        self.number(FieldType::Mode, value.into(), false)
    }

    /// Seconds since 1970.
    pub fn time(&mut self, value: i64) -> &mut Self {
        self.number(FieldType::Time, zigzag(value), value == 0)
    }

    /// Seconds since 1970, also 0.
    pub fn time_always(&mut self, value: i64) -> &mut Self {
        self.number(FieldType::Time, zigzag(value), false)
    }

    /// A short name.
    pub fn string_id(&mut self, value: StringId) -> &mut Self {
        self.number(FieldType::StringId, value.0, value.0 == 0)
    }

    /// A short name, also the one without a character.
    pub fn string_id_always(&mut self, value: StringId) -> &mut Self {
        self.number(FieldType::StringId, value.0, false)
    }

    /// Text or NULL.
    pub fn text<'t>(&mut self, value: impl Into<Option<&'t str>>) -> &mut Self {
        match value.into() {
            None => self.null(),
            Some(text) => {
                self.tag(FieldType::Text, (!text.is_empty()).into(), text.len());
                self.packed.bytes.extend_from_slice(text.as_bytes());
                self
            }
        }
    }

    /// Bytes or NULL. A large block is not copied.
    pub fn binary(&mut self, value: impl Into<Option<&'a [u8]>>) -> &mut Self {
        match value.into() {
            None => self.null(),
            Some(bytes) => {
                self.tag(FieldType::Binary, (!bytes.is_empty()).into(), bytes.len());
                self.packed.push(bytes);
                self
            }
        }
    }

    /// A pack or NULL.
    pub fn pack(&mut self, value: Option<PackWriter<'a>>) -> &mut Self {
        match value {
            None => self.null(),
            Some(writer) => {
                let packed = writer.finish();
                self.tag(FieldType::Pack, 0, packed.size());
                self.packed.append(packed);
                self
            }
        }
    }

    /// A pack that is complete already, or NULL.
    pub fn pack_bytes(&mut self, value: impl Into<Option<&'a [u8]>>) -> &mut Self {
        match value.into() {
            None => self.null(),
            Some(bytes) => {
                self.tag(FieldType::Pack, 0, bytes.len());
                self.packed.push(bytes);
                self
            }
        }
    }

    /// An array, with the fields that `write` adds.
    pub fn array(&mut self, write: impl FnOnce(&mut PackWriter<'a>)) -> &mut Self {
        self.container(FieldType::Array, write)
    }

    /// An object, with the fields that `write` adds.
    pub fn object(&mut self, write: impl FnOnce(&mut PackWriter<'a>)) -> &mut Self {
        self.container(FieldType::Object, write)
    }

    fn container(&mut self, field_type: FieldType, write: impl FnOnce(&mut PackWriter<'a>)) -> &mut Self {
        self.tag(field_type, 0, 0);
        let (last_id, nulls) = (std::mem::take(&mut self.last_id), std::mem::take(&mut self.nulls));
        write(self);
        self.packed.bytes.push(0);
        (self.last_id, self.nulls) = (last_id, nulls);
        self
    }

    /// The complete pack.
    pub fn finish(mut self) -> Packed<'a> {
        self.packed.bytes.push(0);
        self.packed
    }
}

/// A complete pack, whose large blocks are still where they were.
#[derive(Clone)]
pub struct Packed<'a> {
    bytes: Vec<u8>,
    /// Blocks, each with the position in `bytes` that it stands before.
    borrowed: Vec<(usize, &'a [u8])>,
}

impl<'a> Packed<'a> {
    fn push(&mut self, block: &'a [u8]) {
        if block.len() < BORROWED_SIZE_MIN {
            self.bytes.extend_from_slice(block);
        } else {
            self.borrowed.push((self.bytes.len(), block));
        }
    }

    fn append(&mut self, other: Packed<'a>) {
        let start = self.bytes.len();
        self.borrowed.extend(other.borrowed.into_iter().map(|(position, block)| (start + position, block)));
        self.bytes.extend(other.bytes);
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.borrowed.iter().map(|(_, block)| block.len()).sum::<usize>()
    }

    /// The bytes in pieces, in order.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.borrowed.iter().map(|(position, _)| *position));
        let ends = self.borrowed.iter().map(|(position, _)| *position).chain(std::iter::once(self.bytes.len()));
        let blocks = self.borrowed.iter().map(|(_, block)| *block).chain(std::iter::once([].as_slice()));
        starts.zip(ends).zip(blocks).flat_map(|((start, end), block)| [&self.bytes[start..end], block])
    }

    /// The bytes in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.slices().collect::<Vec<_>>().concat()
    }

    /// Writes the bytes, those around a block together with it.
    ///
    /// # Errors
    /// Those of `output`.
    pub fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        let mut slices: Vec<_> = self.slices().filter(|slice| !slice.is_empty()).map(IoSlice::new).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match output.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Packed<'_> {
    // Packs contain passphrases
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} bytes)", self.size())
    }
}
