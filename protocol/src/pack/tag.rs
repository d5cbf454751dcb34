//! The first bytes of a field: type, id, and value or size.

use super::{FieldType, Shape, read_number, write_number};
use crate::format_error;
use repo_format::Result;

/// The number in the high bits of a tag byte whose type follows.
const TYPE_EXTENDED: u64 = 15;

/// What stands at a position of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The end of the pack, array or object.
    End,
    /// A field.
    Field(Tag),
}

/// The first bytes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub field_type: FieldType,
    /// The id minus the last field's id minus 1.
    pub gap: u64,
    /// The number, in zigzag form if it is signed, or the bit.
    pub value: u64,
    /// The number of bytes that follow.
    pub size: u64,
}

/// How many bits of the gap a tag byte contains, and at which bit it says that more follow.
fn gap_bits(shape: Shape, value_follows: bool) -> (u32, u8) {
    match shape {
        Shape::Number if value_follows => (2, 4),
        Shape::Number => (1, 2),
        Shape::Bit { .. } => (2, 4),
        Shape::Plain { .. } => (3, 8),
    }
}

impl Tag {
    /// Reads what stands at `position` and moves past it. Returns `None` if the bytes end before it does.
    pub fn read(bytes: &[u8], position: &mut usize) -> Result<Option<Next>> {
        let mut at = *position;
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        at += 1;
        if byte == 0 {
            *position = at;
            return Ok(Some(Next::End));
        }
        let mut number = u64::from(byte >> 4);
        if number == TYPE_EXTENDED {
            let Some(more) = read_number(bytes, &mut at)? else { return Ok(None) };
            number = number.saturating_add(more);
        }
        let field_type = FieldType::from_number(number).ok_or_else(|| format_error("invalid tag type"))?;
        let shape = field_type.shape();
        let value_follows = shape == Shape::Number && byte & 8 != 0;
        let (bits, more) = gap_bits(shape, value_follows);
        let mut gap = u64::from(byte) & ((1 << bits) - 1);
        if byte & more != 0 {
            let Some(high) = read_number(bytes, &mut at)? else { return Ok(None) };
            if high > u64::from(u32::MAX) {
                return Err(format_error("invalid field id"));
            }
            gap |= high << bits;
        }
        let mut value = match shape {
            Shape::Number => u64::from(byte >> 2 & 1),
            Shape::Bit { .. } => u64::from(byte >> 3),
            Shape::Plain { .. } => 0,
        } & 1;
        if value_follows {
            let Some(number) = read_number(bytes, &mut at)? else { return Ok(None) };
            value = number;
        }
        let mut size = 0;
        if matches!(shape, Shape::Plain { sized: true }) || (shape == Shape::Bit { sized: true } && value != 0) {
            let Some(number) = read_number(bytes, &mut at)? else { return Ok(None) };
            size = number;
        }
        *position = at;
        Ok(Some(Next::Field(Tag { field_type, gap, value, size })))
    }

    /// Appends the tag.
    pub fn write(self, bytes: &mut Vec<u8>) {
        let shape = self.field_type.shape();
        let number = self.field_type as u64;
        let value_follows = shape == Shape::Number && self.value > 1;
        let (bits, more) = gap_bits(shape, value_follows);
        let mut byte = (number.min(TYPE_EXTENDED) as u8) << 4;
        byte |= (self.gap & ((1 << bits) - 1)) as u8;
        let high = self.gap >> bits;
        if high > 0 {
            byte |= more;
        }
        byte |= match shape {
            Shape::Number if value_follows => 8,
            Shape::Number => (self.value as u8) << 2,
            Shape::Bit { .. } => (self.value as u8 & 1) << 3,
            Shape::Plain { .. } => 0,
        };
        bytes.push(byte);
        if number >= TYPE_EXTENDED {
            write_number(bytes, number - TYPE_EXTENDED);
        }
        if high > 0 {
            write_number(bytes, high);
        }
        if value_follows {
            write_number(bytes, self.value);
        }
        if matches!(shape, Shape::Plain { sized: true }) || (shape == Shape::Bit { sized: true } && self.value != 0) {
            write_number(bytes, self.size);
        }
    }
}
