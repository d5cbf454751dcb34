//! Reading the fields of a pack one after the other.

use super::tag::{Next, Tag};
use super::{FieldType, PackScan, PackScanner, unzigzag, wrong_type};
use crate::{StringId, format_error};
use repo_format::Result;

/// A forward reader of the fields of one pack, array or object. Each method reads the field with the next id, and gives
/// the default if it is missing. What it returns are slices of the pack.
///
/// All methods fail with [`repo_format::ErrorCode::Format`] if the field has another type or the pack is damaged.
#[derive(Clone, Debug)]
pub struct PackReader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The id of the last field that was read or found missing.
    last_id: u32,
    /// What stands at the position, if it was looked at already.
    peeked: Option<Peeked>,
}

#[derive(Clone, Copy, Debug)]
enum Peeked {
    End,
    Field { id: u32, tag: Tag },
}

/// A field of any type.
#[derive(Clone, Debug)]
pub enum PackValue<'a> {
    /// True or false.
    Bool(bool),
    /// A signed number of 32 bits.
    I32(i32),
    /// A signed number of 64 bits.
    I64(i64),
    /// A number of 32 bits.
    U32(u32),
    /// A number of 64 bits.
    U64(u64),
    /// A short name.
    StringId(StringId),
    /// Seconds since 1970.
    Time(i64),
    /// A file mode.
    Mode(u32),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// A complete pack.
    Pack(&'a [u8]),
    /// A list.
    Array(PackReader<'a>),
    /// An object.
    Object(PackReader<'a>),
}

impl<'a> PackReader<'a> {
    /// A reader at the start of a complete pack, including its end.
    pub fn new(pack: &'a [u8]) -> Self {
        PackReader { bytes: pack, position: 0, last_id: 0, peeked: None }
    }

    fn peek(&mut self) -> Result<Peeked> {
        if let Some(peeked) = self.peeked {
            return Ok(peeked);
        }
        let next = Tag::read(self.bytes, &mut self.position)?.ok_or_else(|| format_error("unexpected EOF"))?;
        let peeked = match next {
            Next::End => Peeked::End,
            Next::Field(tag) => {
                let id = u64::from(self.last_id).saturating_add(tag.gap).saturating_add(1);
                let id = u32::try_from(id).map_err(|_| format_error("invalid field id"))?;
                Peeked::Field { id, tag }
            }
        };
        self.peeked = Some(peeked);
        Ok(peeked)
    }

    /// Takes the field of the next id, if it is there.
    fn take(&mut self) -> Result<Option<(u32, Tag)>> {
        let id = self.last_id.checked_add(1).ok_or_else(|| format_error("invalid field id"))?;
        // The gap of a field counts from the last one, so peek before the id moves on
        match self.peek()? {
            Peeked::Field { id: found, tag } if found == id => {
                self.peeked = None;
                self.last_id = id;
                Ok(Some((id, tag)))
            }
            _ => {
                self.last_id = id;
                Ok(None)
            }
        }
    }

    fn field(&mut self, expected: FieldType) -> Result<Option<Tag>> {
        let Some((id, tag)) = self.take()? else { return Ok(None) };
        if tag.field_type != expected {
            return Err(wrong_type(id.into(), tag.field_type, expected));
        }
        Ok(Some(tag))
    }

    fn slice(&mut self, size: u64) -> Result<&'a [u8]> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let slice = usize::try_from(size).ok().and_then(|size| rest.get(..size));
        let slice = slice.ok_or_else(|| format_error("unexpected EOF"))?;
        self.position += slice.len();
        Ok(slice)
    }

    /// The reader of an array or object whose tag was just read. Moves past its end.
    fn container(&mut self) -> Result<PackReader<'a>> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        match PackScanner::new(rest.len()).scan(rest)? {
            PackScan::Whole(size) => Ok(PackReader::new(self.slice(size as u64)?)),
            PackScan::Missing(_) => Err(format_error("unexpected EOF")),
        }
    }

    fn number(&mut self, expected: FieldType) -> Result<Option<u64>> {
        Ok(self.field(expected)?.map(|tag| tag.value))
    }

    fn text_of(&mut self, id: u32, tag: Tag) -> Result<&'a str> {
        let bytes = self.slice(tag.size)?;
        std::str::from_utf8(bytes)
            .map_err(|_| format_error(format!("field {id} is not valid UTF-8: '{}'", String::from_utf8_lossy(bytes))))
    }

    /// True or false; false if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn bool(&mut self) -> Result<bool> {
        Ok(self.bool_or_null()?.unwrap_or_default())
    }

    /// True, false or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn bool_or_null(&mut self) -> Result<Option<bool>> {
        Ok(self.number(FieldType::Bool)?.map(|bit| bit != 0))
    }

    /// A bool that peers always write.
    ///
    /// # Errors
    /// As all methods, also if it is missing.
    pub fn bool_required(&mut self) -> Result<bool> {
        self.bool_or_null()?.ok_or_else(|| format_error(format!("field {} is missing", self.last_id)))
    }

    /// A signed number; 0 if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn i32(&mut self) -> Result<i32> {
        let number = unzigzag(self.number(FieldType::I32)?.unwrap_or_default());
        i32::try_from(number).map_err(|_| self.out_of_range(number))
    }

    /// A signed number; 0 if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn i64(&mut self) -> Result<i64> {
        Ok(unzigzag(self.number(FieldType::I64)?.unwrap_or_default()))
    }

    /// A number; 0 if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn u32(&mut self) -> Result<u32> {
        self.u32_or(0)
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it is missing.
    pub fn u32_required(&mut self) -> Result<u32> {
        let number = self.number(FieldType::U32)?;
        self.narrow(Some(number.ok_or_else(|| format_error(format!("field {} is missing", self.last_id)))?), 0)
    }

    /// A number; `default` if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn u32_or(&mut self, default: u32) -> Result<u32> {
        let number = self.number(FieldType::U32)?;
        self.narrow(number, default)
    }

    /// A file mode; `default` if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn mode_or(&mut self, default: u32) -> Result<u32> {
        let number = self.number(FieldType::Mode)?;
        self.narrow(number, default)
    }

    fn narrow(&self, number: Option<u64>, default: u32) -> Result<u32> {
        number.map_or(Ok(default), |number| u32::try_from(number).map_err(|_| self.out_of_range(number)))
    }

    fn out_of_range(&self, number: impl std::fmt::Display) -> repo_format::Error {
        format_error(format!("field {} is out of range: {number}", self.last_id))
    }

    /// A number; 0 if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn u64(&mut self) -> Result<u64> {
        Ok(self.u64_or_null()?.unwrap_or_default())
    }

    /// A number or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn u64_or_null(&mut self) -> Result<Option<u64>> {
        self.number(FieldType::U64)
    }

    /// Seconds since 1970; 0 if it is missing.
    ///
    /// # Errors
    /// As all methods.
    pub fn time(&mut self) -> Result<i64> {
        Ok(unzigzag(self.number(FieldType::Time)?.unwrap_or_default()))
    }

    /// A short name or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn string_id(&mut self) -> Result<Option<StringId>> {
        Ok(self.number(FieldType::StringId)?.map(StringId))
    }

    /// Text or NULL.
    ///
    /// # Errors
    /// As all methods, also if the text is not UTF-8.
    pub fn text(&mut self) -> Result<Option<&'a str>> {
        let Some(tag) = self.field(FieldType::Text)? else { return Ok(None) };
        self.text_of(self.last_id, tag).map(Some)
    }

    /// Text that must not be NULL. `name` says what it is.
    ///
    /// # Errors
    /// As all methods, also if it is missing.
    pub fn text_required(&mut self, name: &str) -> Result<&'a str> {
        self.text()?.ok_or_else(|| format_error(format!("{name} is missing")))
    }

    /// Text or NULL, as it is, in any encoding.
    ///
    /// # Errors
    /// As all methods.
    pub fn text_bytes(&mut self) -> Result<Option<&'a [u8]>> {
        let Some(tag) = self.field(FieldType::Text)? else { return Ok(None) };
        self.slice(tag.size).map(Some)
    }

    /// Bytes or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn binary(&mut self) -> Result<Option<&'a [u8]>> {
        let Some(tag) = self.field(FieldType::Binary)? else { return Ok(None) };
        self.slice(tag.size).map(Some)
    }

    /// A complete pack or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn pack(&mut self) -> Result<Option<&'a [u8]>> {
        let Some(tag) = self.field(FieldType::Pack)? else { return Ok(None) };
        self.slice(tag.size).map(Some)
    }

    /// An array or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn array(&mut self) -> Result<Option<PackReader<'a>>> {
        let Some(_) = self.field(FieldType::Array)? else { return Ok(None) };
        self.container().map(Some)
    }

    /// An object or NULL.
    ///
    /// # Errors
    /// As all methods.
    pub fn object(&mut self) -> Result<Option<PackReader<'a>>> {
        let Some(_) = self.field(FieldType::Object)? else { return Ok(None) };
        self.container().map(Some)
    }

    /// The id of the next field that is there, or `None` at the end.
    ///
    /// # Errors
    /// As all methods.
    pub fn next_id(&mut self) -> Result<Option<u32>> {
        Ok(match self.peek()? {
            Peeked::End => None,
            Peeked::Field { id, .. } => Some(id),
        })
    }

    /// Whether no field is left.
    ///
    /// # Errors
    /// As all methods.
    pub fn at_end(&mut self) -> Result<bool> {
        Ok(self.next_id()?.is_none())
    }

    /// The next field that is there, with its id, whatever its type; `None` at the end.
    ///
    /// # Errors
    /// As all methods.
    pub fn value(&mut self) -> Result<Option<(u32, PackValue<'a>)>> {
        let Peeked::Field { id, tag } = self.peek()? else { return Ok(None) };
        self.peeked = None;
        self.last_id = id;
        let signed = unzigzag(tag.value);
        let value = match tag.field_type {
            FieldType::Array => PackValue::Array(self.container()?),
            FieldType::Bool => PackValue::Bool(tag.value != 0),
            FieldType::I32 => PackValue::I32(i32::try_from(signed).map_err(|_| self.out_of_range(signed))?),
            FieldType::I64 => PackValue::I64(signed),
            FieldType::Object => PackValue::Object(self.container()?),
            FieldType::Text => PackValue::Text(self.text_of(id, tag)?),
            FieldType::U32 => PackValue::U32(self.narrow(Some(tag.value), 0)?),
            FieldType::U64 => PackValue::U64(tag.value),
            FieldType::StringId => PackValue::StringId(StringId(tag.value)),
            FieldType::Time => PackValue::Time(signed),
            FieldType::Binary => PackValue::Binary(self.slice(tag.size)?),
            FieldType::Pack => PackValue::Pack(self.slice(tag.size)?),
            FieldType::Mode => PackValue::Mode(self.narrow(Some(tag.value), 0)?),
        };
        Ok(Some((id, value)))
    }

    /// Passes over the rest and checks that the pack ends where its bytes do.
    ///
    /// # Errors
    /// As all methods.
    pub fn finish(mut self) -> Result<()> {
        while let Peeked::Field { id, tag } = self.peek()? {
            self.peeked = None;
            self.last_id = id;
            if tag.field_type.is_container() {
                self.container()?;
            } else {
                self.slice(tag.size)?;
            }
        }
        if self.position == self.bytes.len() { Ok(()) } else { Err(format_error("invalid pack size")) }
    }
}
