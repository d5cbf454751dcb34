//! Decodes captured streams and encodes them again.

use std::collections::BTreeMap;

use protocol::database::{Column, Expected, QueryAnswer, columns};
use protocol::greeting::{self, Service};
use protocol::message::ErrorAnswer;
use protocol::options::OptionsAnswer;
use protocol::pack::{PackScan, PackScanner};
use protocol::storage::{
    Chunk, FeaturesAnswer, InfoAnswer, ListAnswer, ListAnswerWriter, PathRemoveAnswer, ReadAnswer, WriteAnswer,
};
use protocol::{AnswerMessage, Call, PackWriter, Packed, RequestMessage};

/// The messages in `stream`, which must end with one.
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let PackScan::Whole(size) = PackScanner::new(stream.len()).scan(stream).expect("a message") else {
            panic!("the stream ends inside of a message");
        };
        let (message, rest) = stream.split_at(size);
        messages.push(message);
        stream = rest;
    }
    messages
}

/// A request with its answer. `exit` has none, and a server may end before it answers.
pub type Exchange<'a> = (Call<'a>, Option<AnswerMessage<'a>>);

/// Decodes both directions of a connection, encodes every message again, and compares the bytes.
pub fn check<'a>(requests: &'a [u8], answers: &'a [u8]) -> Vec<Exchange<'a>> {
    let line = answers.iter().position(|byte| *byte == b'\n').expect("a greeting");
    let dialect = greeting::check(&answers[..line], Service::Remote).unwrap();
    assert_eq!(greeting::encode(Service::Remote, dialect).as_bytes(), &answers[..=line]);
    let mut answers = messages(&answers[line + 1..]).into_iter();
    let mut exchanges = Vec::new();
    for bytes in messages(requests) {
        let message = RequestMessage::decode(bytes).unwrap();
        let call = Call::decode(&message, dialect).unwrap_or_else(|error| panic!("{message:?}: {error}"));
        assert_eq!(call.encode(message.session, dialect).to_vec(), bytes, "{call:?}");
        let answer = if call == Call::Exit { None } else { answers.next().map(|bytes| check_answer(&call, bytes)) };
        if let Some(answer) = &answer {
            assert!(answer.session.is_none_or(|session| session == message.session), "{answer:?} to {message:?}");
        }
        exchanges.push((call, answer));
    }
    // A server whose client is gone says so
    for bytes in answers {
        let answer = check_answer(&Call::Noop, bytes);
        assert!(answer.session.is_none() && answer.outcome.is_err(), "an answer without a request: {answer:?}");
    }
    exchanges
}

fn check_answer<'a>(call: &Call<'a>, bytes: &'a [u8]) -> AnswerMessage<'a> {
    let answer = AnswerMessage::decode(bytes).unwrap();
    assert_eq!(encoded(call, &answer).to_vec(), bytes, "{answer:?} to {call:?}");
    answer
}

/// How often each kind of request is in `exchanges`, and how many errors.
pub fn count(exchanges: &[Exchange<'_>]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (call, answer) in exchanges {
        *counts.entry(format!("{:?}:{:?}", call.command(), call.step())).or_default() += 1;
        if answer.as_ref().is_some_and(|answer| answer.outcome.is_err()) {
            *counts.entry("Error".to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Decodes the data of an answer and encodes the message again.
fn encoded<'a>(call: &Call<'a>, answer: &AnswerMessage<'a>) -> Packed<'a> {
    let data = match &answer.outcome {
        Err(error) => return AnswerMessage::encode_error(answer.session, &ErrorAnswer::clone(error)),
        Ok(data) => *data,
    };
    let writer = match call {
        Call::Options(request) => Some(OptionsAnswer::decode(data, request.names.len()).unwrap().encode()),
        Call::Features => Some(FeaturesAnswer::decode(data).unwrap().encode()),
        Call::Info(request) => Some(InfoAnswer::decode(data, request.level).unwrap().encode()),
        Call::List(request) => {
            let entries = ListAnswer::decode(data, request.level).unwrap().entries;
            let mut writer = ListAnswerWriter::new(entries.is_some());
            entries.into_iter().flatten().for_each(|entry| writer.entry(&entry.unwrap()));
            Some(writer.finish())
        }
        Call::PathRemove(_) => Some(PathRemoveAnswer::decode(data).unwrap().encode()),
        Call::ReadOpen(_) => Some(ReadAnswer::decode(data, answer.is_closed).unwrap().encode()),
        Call::ReadNext | Call::ReadManyOpen(_) | Call::ReadManyNext => {
            Some(Chunk::decode(data, answer.is_closed).unwrap().encode())
        }
        Call::DatabaseQuery(request) => Some(encoded_rows(request.expected, data)),
        Call::Close(protocol::call::CallKind::StorageWrite) => Some(WriteAnswer::decode(data).unwrap().encode()),
        _ => {
            assert_eq!(data, None, "{call:?}");
            None
        }
    };
    AnswerMessage::encode(answer.session.unwrap(), answer.is_closed, writer)
}

fn encoded_rows<'a>(expected: Expected, data: Option<&'a [u8]>) -> PackWriter<'a> {
    let answer = QueryAnswer::decode(data, expected).unwrap();
    let rows: Vec<Vec<Column<'_>>> = answer
        .rows()
        .map(|row| {
            let row = row.unwrap();
            let mut rest = row.clone();
            let count = std::iter::from_fn(|| rest.value().unwrap()).last().map_or(0, |(id, _)| id as usize);
            columns(&row, count).unwrap()
        })
        .collect();
    QueryAnswer::encode(expected, &rows)
}
