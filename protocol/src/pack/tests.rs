//! Tests of packs.

use std::io::{self, IoSlice, Write};

use proptest::prelude::*;

use super::*;
use crate::StringId;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Writes a value with its id.
fn write<'a>(writer: &mut PackWriter<'a>, id: u32, value: &PackValue<'a>) {
    writer.skip_to(id);
    match value {
        PackValue::Bool(value) => writer.bool_always(*value),
        PackValue::I32(value) => writer.i32_always(*value),
        PackValue::I64(value) => writer.i64_always(*value),
        PackValue::U32(value) => writer.u32_always(*value),
        PackValue::U64(value) => writer.u64_or_null(Some(*value)),
        PackValue::StringId(value) => writer.string_id_always(*value),
        PackValue::Time(value) => writer.time_always(*value),
        PackValue::Mode(value) => writer.mode_always(*value),
        PackValue::Text(value) => writer.text(*value),
        PackValue::Binary(value) => writer.binary(*value),
        PackValue::Pack(value) => writer.pack_bytes(*value),
        PackValue::Array(reader) => writer.array(|writer| copy(reader.clone(), writer)),
        PackValue::Object(reader) => writer.object(|writer| copy(reader.clone(), writer)),
    };
}

fn copy<'a>(mut reader: PackReader<'a>, writer: &mut PackWriter<'a>) {
    while let Some((id, value)) = reader.value().unwrap() {
        write(writer, id, &value);
    }
    reader.finish().unwrap();
}

fn rewritten(pack: &[u8]) -> Vec<u8> {
    let mut writer = PackWriter::new();
    copy(PackReader::new(pack), &mut writer);
    writer.finish().to_vec()
}

fn failure(pack: &[u8], read: impl FnOnce(&mut PackReader<'_>) -> Result<()>) -> String {
    let mut reader = PackReader::new(pack);
    read(&mut reader).unwrap_err().to_string()
}

#[test]
fn fields_match_the_examples_of_pgbackrest() {
    // Source: the comment at the head of pgBackRest's pack.c, with today's number of u64
    let mut writer = PackWriter::new();
    writer.skip_to(10).u64_or_null(Some(1));
    assert_eq!(writer.finish().to_vec(), hex("97 04 00"));
    let mut writer = PackWriter::new();
    writer.skip_to(37).text("sample");
    assert_eq!(writer.finish().to_vec(), hex("7c 09 06 73616d706c65 00"));
    let mut writer = PackWriter::new();
    writer.skip_to(9).array(|_| ());
    assert_eq!(writer.finish().to_vec(), hex("18 01 00 00"));
}

#[test]
fn missing_fields_have_defaults_and_further_ones_are_passed_over() {
    let mut writer = PackWriter::new();
    writer.u32(0).bool(false).text(None).i32(-5).text("").object(|object| {
        object.u64(7);
    });
    let pack = writer.finish().to_vec();
    let mut reader = PackReader::new(&pack);
    assert_eq!(reader.u32_or(9).unwrap(), 9);
    assert!(!reader.bool().unwrap());
    assert_eq!(reader.next_id().unwrap(), Some(4));
    assert_eq!(reader.text().unwrap(), None);
    assert_eq!(reader.i32().unwrap(), -5);
    assert_eq!(reader.text().unwrap(), Some(""));
    reader.clone().finish().unwrap();
    let mut object = reader.object().unwrap().unwrap();
    assert_eq!(object.u64().unwrap(), 7);
    assert!(object.at_end().unwrap());
    assert_eq!((reader.u64().unwrap(), reader.time().unwrap(), reader.pack().unwrap()), (0, 0, None));
    reader.finish().unwrap();
}

#[test]
fn damaged_packs_are_errors() {
    let u32_field = hex("84 00");
    assert_eq!(failure(&u32_field, |r| r.bool().map(|_| ())), "field 1 is type 'u32' but expected 'bool'");
    assert_eq!(failure(EMPTY, |r| r.bool_required().map(|_| ())), "field 1 is missing");
    assert_eq!(failure(&hex("01 00"), |r| r.u32().map(|_| ())), "invalid tag type");
    assert_eq!(failure(&hex("f0 04 00"), |r| r.u32().map(|_| ())), "invalid tag type");
    assert_eq!(failure(&hex("88 80"), |r| r.u32().map(|_| ())), "unexpected EOF");
    assert_eq!(failure(&hex("78 05 61"), |r| r.text().map(|_| ())), "unexpected EOF");
    assert_eq!(failure(&hex("78 01 ff 00"), |r| r.text().map(|_| ())), "field 1 is not valid UTF-8: '\u{fffd}'");
    assert_eq!(failure(&hex("88 ffffffff1f 00"), |r| r.u32().map(|_| ())), "field 1 is out of range: 8589934591");
    let unterminated = hex("98 ffffffffffffffffffff 00");
    assert_eq!(failure(&unterminated, |r| r.u64().map(|_| ())), "base-128 integer exceeds 64 bits");
    let far = hex("87 ffffffff0f 87 ffffffff0f 00");
    assert_eq!(failure(&far, |r| r.clone().finish()), "invalid field id");
    assert_eq!(failure(&hex("00 00"), |r| r.clone().finish()), "invalid pack size");
    assert_eq!(failure(&hex("50 84"), |r| r.object().map(|_| ())), "unexpected EOF");
}

#[test]
fn depth_is_limited() {
    let nested = |depth: usize| [vec![0x50; depth], vec![0; depth + 1]].concat();
    let scan = |depth| PackScanner::new(1000).scan(&nested(depth));
    assert_eq!(scan(DEPTH_MAX).unwrap(), PackScan::Whole(2 * DEPTH_MAX + 1));
    assert_eq!(scan(DEPTH_MAX + 1).unwrap_err().to_string(), "pack has more than 8 levels");
}

#[test]
fn scan_reads_no_byte_after_the_message() {
    let mut writer = PackWriter::new();
    writer.u32_always(5).array(|array| {
        array.text("text").object(|object| {
            object.skip_to(70_000).i64_always(-1).mode_unless(0o750, 0);
        });
    });
    writer.pack(Some(PackWriter::new())).binary(&[7; 300][..]);
    let message = writer.finish().to_vec();
    let mut scanner = PackScanner::new(message.len());
    let mut known = 0;
    loop {
        match scanner.scan(&message[..known]).unwrap() {
            PackScan::Whole(size) => break assert_eq!((size, known), (message.len(), message.len())),
            PackScan::Missing(missing) => known += missing,
        }
        assert!(known <= message.len());
    }
    let two = [&message[..], &message[..]].concat();
    let mut input = &two[..];
    let mut read = Vec::new();
    read_message(&mut input, &mut read, message.len()).unwrap();
    assert_eq!((&read, input), (&message, &message[..]));
    // A message that is larger than the buffer of its input, and one that begins in the middle of it
    let block = vec![5; 100_000];
    let mut writer = PackWriter::new();
    writer.bool(true).binary(&block[..]).u32(7);
    let large = writer.finish().to_vec();
    let stream = [&message[..], &large[..], &message[..], &large[..]].concat();
    for capacity in [1, 7, 1000, 65_536] {
        let mut input = std::io::BufReader::with_capacity(capacity, &stream[..]);
        for expected in [&message, &large, &message, &large] {
            read_message(&mut input, &mut read, large.len()).unwrap();
            assert!(read == *expected, "capacity {capacity}");
        }
        assert_eq!(read_message(&mut input, &mut read, 10).unwrap_err().to_string(), "unexpected EOF");
    }
    assert_eq!(rewritten(&message), message);
}

#[test]
fn message_that_is_too_large_or_cut_is_an_error() {
    let announced = hex("f8 01 8080808008");
    let mut message = Vec::new();
    let failure = |input: &[u8], message: &mut Vec<u8>, size_max| {
        let mut input = input;
        read_message(&mut input, message, size_max).unwrap_err().to_string()
    };
    assert_eq!(failure(&announced, &mut message, 1 << 20), "message exceeds 1048576 bytes");
    assert_eq!(failure(&announced, &mut message, usize::MAX), "unexpected EOF");
    assert!(message.capacity() <= (2 << 20) + 100, "not what was announced: {}", message.capacity());
    assert_eq!(failure(&[], &mut message, 10), "unexpected EOF");
}

#[test]
fn large_blocks_are_not_copied() {
    let block = vec![3; 100_000];
    let mut inner = PackWriter::new();
    inner.bool(true).binary(&block[..]);
    let mut outer = PackWriter::new();
    outer.u64(5).pack(Some(inner)).bool(true);
    let packed = outer.finish();
    assert!(packed.slices().any(|slice| std::ptr::eq(slice, &block[..])));
    let bytes = packed.to_vec();
    assert_eq!(packed.size(), bytes.len());
    for limit in [1, 3, 50_000, usize::MAX] {
        let mut output = Slow { written: Vec::new(), limit, calls: 0 };
        packed.write_to(&mut output).unwrap();
        assert_eq!(output.written, bytes);
        assert!(limit != usize::MAX || output.calls == 1, "{} calls", output.calls);
    }
    let mut reader = PackReader::new(&bytes);
    assert_eq!(reader.u64().unwrap(), 5);
    let mut inner = PackReader::new(reader.pack().unwrap().unwrap());
    assert!(inner.bool().unwrap());
    assert_eq!(inner.binary().unwrap(), Some(&block[..]));
}

/// An output that takes no more than `limit` bytes at a time, and is interrupted now and then.
struct Slow {
    written: Vec<u8>,
    limit: usize,
    calls: usize,
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls += 1;
        if self.calls.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let before = self.written.len();
        for slice in slices {
            let left = self.limit - (self.written.len() - before);
            self.written.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        Ok(self.written.len() - before)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A value that owns its content.
#[derive(Clone, Debug)]
enum Owned {
    Number(u8, u64),
    Bytes(u8, Vec<u8>),
    Container(bool, Vec<(u32, Owned)>),
}

fn fields(value: impl Strategy<Value = Owned> + 'static) -> impl Strategy<Value = Vec<(u32, Owned)>> {
    let gap = prop_oneof![Just(1u32), 1u32..6, 1u32..100_000];
    prop::collection::vec((gap, value), 0..6)
}

fn owned() -> impl Strategy<Value = Owned> {
    let number = prop_oneof![0u64..3, any::<u64>(), any::<u32>().prop_map(u64::from)];
    let leaf = prop_oneof![
        (0u8..8, number).prop_map(|(kind, number)| Owned::Number(kind, number)),
        (0u8..3, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, bytes)| Owned::Bytes(kind, bytes)),
    ];
    leaf.prop_recursive(4, 30, 6, |inner| {
        (any::<bool>(), fields(inner)).prop_map(|(is_array, fields)| Owned::Container(is_array, fields))
    })
}

fn write_owned(writer: &mut PackWriter<'_>, fields: &[(u32, Owned)]) {
    let mut id = 0;
    for (gap, value) in fields {
        id += gap;
        writer.skip_to(id);
        match value {
            Owned::Number(0, number) => writer.bool_always(number % 2 == 1),
            Owned::Number(1, number) => writer.i32_always(*number as i32),
            Owned::Number(2, number) => writer.i64_always(*number as i64),
            Owned::Number(3, number) => writer.u32_always(*number as u32),
            Owned::Number(4, number) => writer.u64_or_null(Some(*number)),
            Owned::Number(5, number) => writer.string_id_always(StringId(*number)),
            Owned::Number(6, number) => writer.time_always(*number as i64),
            Owned::Number(_, number) => writer.mode_always(*number as u32),
            Owned::Bytes(0, bytes) => writer.text(&*String::from_utf8_lossy(bytes)),
            Owned::Bytes(1, bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let mut inner = PackWriter::new();
                inner.text(&*text);
                writer.pack(Some(inner))
            }
            Owned::Bytes(_, bytes) => writer.binary(bytes.clone().leak() as &[u8]),
            Owned::Container(true, fields) => writer.array(|writer| write_owned(writer, fields)),
            Owned::Container(false, fields) => writer.object(|writer| write_owned(writer, fields)),
        };
    }
}

proptest! {
    #[test]
    fn packs_round_trip(fields in fields(owned())) {
        let mut writer = PackWriter::new();
        write_owned(&mut writer, &fields);
        let pack = writer.finish().to_vec();
        prop_assert_eq!(PackScanner::new(pack.len()).scan(&pack).unwrap(), PackScan::Whole(pack.len()));
        prop_assert_eq!(rewritten(&pack), pack);
    }

    #[test]
    fn any_bytes_give_a_pack_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = PackReader::new(&bytes);
        while let Ok(Some(_)) = reader.value() {}
        let _ = PackReader::new(&bytes).finish();
        let _ = PackScanner::new(bytes.len()).scan(&bytes);
    }

    #[test]
    fn numbers_round_trip(number: u64) {
        let mut bytes = Vec::new();
        write_number(&mut bytes, number);
        prop_assert_eq!(read_number(&bytes, &mut 0).unwrap(), Some(number));
        prop_assert_eq!(unzigzag(zigzag(number as i64)), number as i64);
        prop_assert_eq!(read_number(&bytes[..bytes.len() - 1], &mut 0).unwrap(), None);
    }
}
