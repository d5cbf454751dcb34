//! Targets for the protocol between hosts.

use protocol::copy::JobChunk;
use protocol::database::{Expected, QueryAnswer, columns};
use protocol::greeting::{self, Service};
use protocol::options::OptionsAnswer;
use protocol::pack::{PackReader, PackScan, PackScanner, PackValue, read_message};
use protocol::storage::{
    Chunk, FeaturesAnswer, InfoAnswer, InfoLevel, ListAnswer, ListAnswerWriter, PathRemoveAnswer, ReadAnswer,
    WriteAnswer,
};
use protocol::{AnswerMessage, Call, Capabilities, Dialect, PackWriter, RequestMessage};

/// The first line of a server.
pub fn remote_greeting(data: &[u8]) {
    for service in [Service::Remote, Service::Local] {
        if let Ok(dialect) = greeting::check(data, service) {
            let line = greeting::encode(service, dialect);
            assert_eq!(greeting::check(line.trim_end().as_bytes(), service).ok(), Some(dialect));
        }
    }
}

/// Packs, and the end of messages.
pub fn remote_pack(data: &[u8]) {
    let mut message = Vec::new();
    let read = read_message(&mut &data[..], &mut message, 1 << 20);
    match PackScanner::new(data.len()).scan(data) {
        Ok(PackScan::Whole(size)) => assert!(read.is_ok() && message == data[..size]),
        Ok(PackScan::Missing(missing)) => assert!(missing > 0 && read.is_err()),
        Err(_) => assert!(read.is_err()),
    }
    if let Some(pack) = rewritten(data) {
        assert_eq!(rewritten(&pack), Some(pack));
    }
}

/// The pack as the writer writes it, or `None` if it is damaged.
fn rewritten(pack: &[u8]) -> Option<Vec<u8>> {
    let mut writer = PackWriter::new();
    copy(PackReader::new(pack), &mut writer)?;
    Some(writer.finish().to_vec())
}

fn copy<'a>(mut reader: PackReader<'a>, writer: &mut PackWriter<'a>) -> Option<()> {
    while let Some((id, value)) = reader.value().ok()? {
        writer.skip_to(id);
        match value {
            PackValue::Bool(value) => writer.bool_always(value),
            PackValue::I32(value) => writer.i32_always(value),
            PackValue::I64(value) => writer.i64_always(value),
            PackValue::U32(value) => writer.u32_always(value),
            PackValue::U64(value) => writer.u64_or_null(Some(value)),
            PackValue::StringId(value) => writer.string_id_always(value),
            PackValue::Time(value) => writer.time_always(value),
            PackValue::Mode(value) => writer.mode_always(value),
            PackValue::Text(value) => writer.text(value),
            PackValue::Binary(value) => writer.binary(value),
            PackValue::Pack(value) => writer.pack_bytes(value),
            PackValue::Array(inner) => {
                let mut whole = None;
                writer.array(|writer| whole = copy(inner, writer));
                whole?;
                continue;
            }
            PackValue::Object(inner) => {
                let mut whole = None;
                writer.object(|writer| whole = copy(inner, writer));
                whole?;
                continue;
            }
        };
    }
    reader.finish().ok()
}

/// Requests with their parameters, as a server reads them.
pub fn remote_request(data: &[u8]) {
    let Ok(message) = RequestMessage::decode(data) else { return };
    let Ok(call) = Call::decode(&message, Dialect::NEWEST) else { return };
    let encoded = call.encode(message.session, Dialect::NEWEST).to_vec();
    let again = RequestMessage::decode(&encoded).expect("own request");
    assert_eq!(Call::decode(&again, Dialect::NEWEST).expect("own parameters"), call);
    assert_eq!(call.encode(again.session, Dialect::NEWEST).to_vec(), encoded);
}

/// Answers, read as each kind of data.
pub fn remote_answer(data: &[u8]) {
    let Ok(answer) = AnswerMessage::decode(data) else { return };
    let data = match &answer.outcome {
        Err(error) => {
            let encoded = AnswerMessage::encode_error(answer.session, error).to_vec();
            let again = AnswerMessage::decode(&encoded).expect("own error");
            assert_eq!((&again.outcome, again.session), (&answer.outcome, answer.session));
            error.to_error("peer");
            return;
        }
        Ok(data) => *data,
    };
    for count in 0..4 {
        check(OptionsAnswer::decode(data, count), OptionsAnswer::encode, |data| OptionsAnswer::decode(data, count));
    }
    check(FeaturesAnswer::decode(data), FeaturesAnswer::encode, |data| FeaturesAnswer::decode(data).map(drop));
    check(PathRemoveAnswer::decode(data), |answer| answer.encode(), PathRemoveAnswer::decode);
    for level in [InfoLevel::Exists, InfoLevel::Type, InfoLevel::Basic, InfoLevel::Detail] {
        check(InfoAnswer::decode(data, level), InfoAnswer::encode, |data| InfoAnswer::decode(data, level).map(drop));
        list(data, level);
    }
    for is_closed in [false, true] {
        let read = ReadAnswer::decode(data, is_closed);
        check(read, ReadAnswer::encode, |data| ReadAnswer::decode(data, is_closed).map(drop));
        check(Chunk::decode(data, is_closed), Chunk::encode, |data| Chunk::decode(data, is_closed).map(drop));
    }
    check(JobChunk::decode(data), JobChunk::encode, |data| JobChunk::decode(data).map(drop));
    check(Capabilities::decode(data), Capabilities::encode, Capabilities::decode);
    check(WriteAnswer::decode(data), WriteAnswer::encode, |data| WriteAnswer::decode(data).map(drop));
    for expected in Expected::ALL {
        let Ok(answer) = QueryAnswer::decode(data, expected) else { continue };
        for row in answer.rows() {
            let _ = row.and_then(|row| columns(&row, 3).map(drop));
        }
    }
}

/// Encodes what was decoded, and expects that it can be decoded again.
fn check<'a, T, E, U>(
    decoded: Result<T, E>,
    encode: impl FnOnce(&T) -> PackWriter<'a>,
    decode: impl FnOnce(Option<&[u8]>) -> Result<U, E>,
) where
    E: std::fmt::Debug,
{
    if let Ok(value) = decoded {
        let encoded = encode(&value).finish().to_vec();
        decode(Some(&encoded)).expect("own answer");
    }
}

fn list(data: Option<&[u8]>, level: InfoLevel) {
    let Ok(ListAnswer { entries: Some(entries) }) = ListAnswer::decode(data, level) else { return };
    let Ok(entries) = entries.collect::<Result<Vec<_>, _>>() else { return };
    let mut writer = ListAnswerWriter::new(true);
    entries.iter().for_each(|entry| writer.entry(entry));
    let encoded = writer.finish().finish().to_vec();
    let again = ListAnswer::decode(Some(&encoded), level).expect("own list").entries.expect("entries");
    assert_eq!(again.collect::<Result<Vec<_>, _>>().expect("own entries"), entries);
}
