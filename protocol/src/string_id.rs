//! Short names in a number.
//!
//! Bit 0 is the number of bits of a character: 0 means 5, 1 means 6. Bits 1 to 3 contain a sequence number, which no
//! message uses. The characters follow from bit 4 on, the first one lowest; a sequence above 5 moves them up by five
//! bits (source: pgBackRest `src/common/type/stringId.c`).

use std::fmt;

/// The characters of five bits. The number is the position; 0 ends the name.
const ALPHABET_5: &[u8] = b"\0abcdefghijklmnopqrstuvwxyz-256";
/// The characters of six bits.
const ALPHABET_6: &[u8] = b"\0abcdefghijklmnopqrstuvwxyz-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// The bits of a sequence number. If all are set, the sequence continues in five more bits.
const SEQUENCE_MASK: u64 = 0xE;
/// The size of the header in bits.
const HEADER_BITS: u32 = 4;
/// The size of the sequence that does not fit into the header.
const SEQUENCE_HIGH_BITS: u32 = 5;

/// A short name, as its number. Zero stands for no name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StringId(pub u64);

impl StringId {
    /// The number of `text`: with five bits a character if they suffice, else with six. Returns `None` for an empty
    /// text, one that is too long (12 characters of five bits, 10 of six), and for other characters.
    pub const fn encode(text: &str) -> Option<Self> {
        match Self::encode_with(text.as_bytes(), ALPHABET_5, 0) {
            Some(id) => Some(id),
            None => Self::encode_with(text.as_bytes(), ALPHABET_6, 1),
        }
    }

    /// The number of a name of the protocol. Tests compare all of them with their text; a name that is none would be 0.
    pub(crate) const fn known(text: &str) -> Self {
        match Self::encode(text) {
            Some(id) => id,
            None => StringId(0),
        }
    }

    const fn encode_with(text: &[u8], alphabet: &[u8], header: u64) -> Option<Self> {
        let bits = 5 + header as u32;
        if text.is_empty() || text.len() > ((u64::BITS - HEADER_BITS) / bits) as usize {
            return None;
        }
        let (mut id, mut index) = (header, 0);
        while index < text.len() {
            let mut code = 1;
            while code < alphabet.len() && alphabet[code] != text[index] {
                code += 1;
            }
            if code == alphabet.len() {
                return None;
            }
            id |= (code as u64) << (HEADER_BITS + bits * index as u32);
            index += 1;
        }
        Some(StringId(id))
    }

    /// The name. A number that no name has gives `!` for characters that do not exist.
    pub fn text(self) -> String {
        let (bits, alphabet) = if self.0 & 1 == 0 { (5, ALPHABET_5) } else { (6, ALPHABET_6) };
        let mut rest = self.0 >> HEADER_BITS;
        if self.0 & SEQUENCE_MASK == SEQUENCE_MASK {
            rest >>= SEQUENCE_HIGH_BITS;
        }
        let mut text = String::new();
        while rest != 0 {
            let code = (rest & ((1 << bits) - 1)) as usize;
            text.push(alphabet.get(code).filter(|character| **character != 0).map_or('!', |byte| char::from(*byte)));
            rest >>= bits;
        }
        text
    }
}

impl fmt::Display for StringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for StringId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encode_matches_the_numbers_of_pgbackrest() {
        // Source: the constants STRID5 and STRID6 of pgBackRest
        for (text, number) in [
            ("db", 0x440),
            ("noop", 0x0083_dee0),
            ("lz4-cmp", 0x1034_36e0_68c1),
            ("i32", 0x001e_7c91),
            ("aes-256-cbc", 55_237_246_849_960_464),
            ("cipher-blk", 0x0016_c16e_4544_1230),
            ("none", 2_858_720),
        ] {
            assert_eq!(StringId::encode(text), Some(StringId(number)), "{text}");
            assert_eq!(StringId(number).text(), text);
        }
    }

    #[test]
    fn encode_of_what_has_no_number_is_none() {
        for text in ["", "under_score", "abcdefghijklm", "ABCDEFGHIJK", "é"] {
            assert_eq!(StringId::encode(text), None, "{text}");
        }
        assert!(StringId::encode("abcdefghijkl").is_some() && StringId::encode("ABCDEFGHIJ").is_some());
    }

    #[test]
    fn text_of_a_name_with_a_sequence_is_the_name() {
        let name = StringId::encode("sort").unwrap().0;
        assert_eq!(StringId(name | 3 << 1).text(), "sort");
        let high = (name >> 1 << 6) | 7 << 4 | SEQUENCE_MASK;
        assert_eq!(StringId(high).text(), "sort");
        assert_eq!(StringId(0).text(), "");
    }

    proptest! {
        #[test]
        fn names_round_trip(text in "[a-z256-]{1,12}|[a-zA-Z0-9-]{1,10}") {
            let id = StringId::encode(&text);
            prop_assert_eq!(id.map(StringId::text), Some(text));
        }

        #[test]
        fn text_of_any_number_is_short(number: u64) {
            prop_assert!(StringId(number).text().len() <= 12);
        }
    }
}
