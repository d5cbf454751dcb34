//! Packs: sequences of typed, numbered fields.
//!
//! A field begins with a tag byte. Its high four bits are the [type](FieldType); 15 means that the type minus 15 follows
//! as a number. The low four bits contain a part of the distance from the last field's id, the value if it has one bit
//! only, and whether more of either follows. Numbers are base-128 with the low seven bits first, signed ones in zigzag
//! form. Arrays and objects are fields whose own fields follow, numbered from 1 again; a zero byte ends them, and the
//! pack as a whole.
//!
//! A field that has its default value (false, 0, no text) is left out, and so is a NULL. A reader asks for one id after
//! the other: a missing id gives the default. Fields that nobody asks for are passed over, so later versions may add
//! fields at the end (source: pgBackRest `src/common/type/pack.c`).

mod read;
mod scan;
mod tag;
mod write;

pub use read::{PackReader, PackValue};
pub use scan::{MESSAGE_SIZE_MAX, PackScan, PackScanner, TooLarge, read_message};
pub(crate) use scan::{MessageForm, read_with};
pub use write::{PackWriter, Packed};

use crate::format_error;
use repo_format::{Error, Result};

/// How deep arrays and objects may nest. Messages need three levels.
pub const DEPTH_MAX: usize = 8;

/// The pack without a field.
pub const EMPTY: &[u8] = &[0];

/// The type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FieldType {
    /// A list; ids are positions.
    Array = 1,
    /// True or false.
    Bool = 2,
    /// A signed number of 32 bits.
    I32 = 3,
    /// A signed number of 64 bits.
    I64 = 4,
    /// Fields of its own.
    Object = 5,
    /// Text.
    Text = 7,
    /// A number of 32 bits.
    U32 = 8,
    /// A number of 64 bits.
    U64 = 9,
    /// A short name.
    StringId = 10,
    /// Seconds since 1970.
    Time = 15,
    /// Bytes.
    Binary = 16,
    /// A complete pack.
    Pack = 17,
    /// A file mode.
    Mode = 18,
}

/// How a tag byte is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// The value is a number.
    Number,
    /// The value is one bit. If it is set, `sized` types have a size and bytes.
    Bit { sized: bool },
    /// There is no value; `sized` types have a size and bytes.
    Plain { sized: bool },
}

impl FieldType {
    const ALL: [FieldType; 13] = [
        FieldType::Array,
        FieldType::Bool,
        FieldType::I32,
        FieldType::I64,
        FieldType::Object,
        FieldType::Text,
        FieldType::U32,
        FieldType::U64,
        FieldType::StringId,
        FieldType::Time,
        FieldType::Binary,
        FieldType::Pack,
        FieldType::Mode,
    ];

    fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == number)
    }

    /// The name as messages print it.
    pub fn name(self) -> &'static str {
        match self {
            FieldType::Array => "array",
            FieldType::Bool => "bool",
            FieldType::I32 => "i32",
            FieldType::I64 => "i64",
            FieldType::Object => "obj",
            FieldType::Text => "str",
            FieldType::U32 => "u32",
            FieldType::U64 => "u64",
            FieldType::StringId => "strid",
            FieldType::Time => "time",
            FieldType::Binary => "bin",
            FieldType::Pack => "pack",
            FieldType::Mode => "mode",
        }
    }

    fn shape(self) -> Shape {
        match self {
            FieldType::I32
            | FieldType::I64
            | FieldType::U32
            | FieldType::U64
            | FieldType::StringId
            | FieldType::Time
            | FieldType::Mode => Shape::Number,
            FieldType::Bool => Shape::Bit { sized: false },
            FieldType::Text | FieldType::Binary => Shape::Bit { sized: true },
            FieldType::Array | FieldType::Object => Shape::Plain { sized: false },
            FieldType::Pack => Shape::Plain { sized: true },
        }
    }

    /// Whether the field's own fields follow it.
    fn is_container(self) -> bool {
        matches!(self, FieldType::Array | FieldType::Object)
    }
}

/// The error for a field of another type than expected.
fn wrong_type(id: u64, found: FieldType, expected: FieldType) -> Error {
    format_error(format!("field {id} is type '{}' but expected '{}'", found.name(), expected.name()))
}

/// Appends a base-128 number.
fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a base-128 number at `position` and moves past it. Returns `None` if the bytes end before the number does.
fn read_number(bytes: &[u8], position: &mut usize) -> Result<Option<u64>> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let Some(&byte) = bytes.get(*position) else { return Ok(None) };
        *position += 1;
        let part = u64::from(byte & 0x7F);
        if part << shift >> shift != part {
            return Err(format_error("base-128 integer exceeds 64 bits"));
        }
        number |= part << shift;
        if byte < 0x80 {
            return Ok(Some(number));
        }
    }
    Err(format_error("unterminated base-128 integer"))
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
mod tests;
