use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::channel::{CHANNELS_MAX, FRAME_BYTES_MAX, FrameHeader, FrameKind, HEADER_BYTES, WINDOW_BYTES};
use protocol::options::OptionValue;
use protocol::{Call, Capabilities, Dialect};

use super::super::{ServeMore, Served, ServedOptions, ServedStorage, Server};
use super::Inbox;
use crate::{CancelToken, Error, ErrorCode, Result};

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

/// What a client gets, also after the server has gone.
#[derive(Clone, Default)]
struct Got(Arc<Mutex<Vec<u8>>>);

impl Write for Got {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn served(cancel: &CancelToken) -> Served {
    Served::new(ServedStorage::DataDirectory(Path::new("/none").to_owned()), Box::new(NoOptions), cancel.clone())
}

/// Serves a client that agrees on channels and then sends this. Returns the result, and what it got after that.
fn serve(frames: &[u8]) -> (Result<()>, Vec<u8>) {
    let mut stream = Call::Offer(Capabilities::own()).encode(1, Dialect::NEWEST).to_vec();
    stream.extend_from_slice(frames);
    let got = Got::default();
    let mut first = served(&CancelToken::new());
    let more = ServeMore { serve: Box::new(|cancel| Ok(served(cancel))), silence_max: Duration::from_secs(60) };
    first.more = Some(more);
    let server = Server::greet(Cursor::new(stream), got.clone()).unwrap();
    let begin = got.0.lock().unwrap().len();
    let result = server.serve(first);
    let all = got.0.lock().unwrap().split_off(begin);
    // The first answer is no frame
    let answer = protocol::AnswerMessage::encode(1, false, Some(Capabilities::own().encode())).to_vec();
    assert_eq!(all[..answer.len()], answer);
    (result, all[answer.len()..].to_vec())
}

fn frame(kind: FrameKind, channel: u32) -> Vec<u8> {
    FrameHeader { kind, channel }.encode().to_vec()
}

fn data(channel: u32, bytes: &[u8]) -> Vec<u8> {
    let mut all = frame(FrameKind::Data(bytes.len()), channel);
    all.extend_from_slice(bytes);
    all
}

fn refused(frames: &[Vec<u8>]) -> Error {
    serve(&frames.concat()).0.unwrap_err()
}

#[test]
fn client_that_leaves_in_order_is_served_without_error() {
    let exit = Call::Exit.encode(2, Dialect::NEWEST).to_vec();
    let (result, got) = serve(&data(0, &exit));
    result.unwrap();
    assert_eq!(got, frame(FrameKind::End, 0));
    // Also if it has a channel, which greets and ends
    let (result, got) = serve(&[frame(FrameKind::Open, 1), data(0, &exit)].concat());
    result.unwrap();
    assert!(got.windows(HEADER_BYTES).any(|window| window == frame(FrameKind::End, 1)));
    assert!(got.windows(12).any(|window| window == b"\"pgBackRest\""));
}

#[test]
fn client_that_vanishes_is_an_error_as_without_channels() {
    let (result, _) = serve(&[]);
    let error = result.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Format, "unexpected EOF"));
    // In the middle of a header, and of data
    assert_eq!(refused(&[frame(FrameKind::End, 0)[..5].to_vec()]).code, ErrorCode::Format);
    assert_eq!(refused(&[frame(FrameKind::Data(10), 0)]).code, ErrorCode::Format);
}

#[test]
fn frames_of_a_hostile_client_are_refused() {
    let open = |channel| frame(FrameKind::Open, channel);
    for (frames, expected) in [
        (vec![data(1, b"x")], "channel 1 was not opened"),
        (vec![open(0)], "channel 0 was opened before"),
        (vec![open(2), open(1)], "channel 1 was opened before"),
        (vec![open(1), open(1)], "channel 1 was opened before"),
        (vec![frame(FrameKind::Room(5), 0)], "client sent Room(5)"),
        (vec![frame(FrameKind::Abort, 5)], "channel 5 was not opened"),
    ] {
        let (result, _) = serve(&frames.concat());
        let error = result.unwrap_err();
        // Channel 0 ends with what ended the reading, or sees its end first
        assert!([ErrorCode::Protocol, ErrorCode::Format].contains(&error.code), "{expected}: {error}");
        assert_eq!(error.code == ErrorCode::Protocol, error.message == expected, "{error}");
    }
    assert_eq!(refused(&[vec![7; HEADER_BYTES]]).code, ErrorCode::Format);
}

#[test]
fn channels_of_a_client_have_a_limit() {
    let opened: Vec<_> = (1..=CHANNELS_MAX as u32).map(|channel| frame(FrameKind::Open, channel)).collect();
    let (result, _) = serve(&opened.concat());
    // Those of clients that have left do not count, and these have not
    assert!(result.is_err());
}

#[test]
fn client_that_sends_more_than_it_has_room_for_is_refused() {
    let inbox = Inbox::default();
    for _ in 0..WINDOW_BYTES as usize / FRAME_BYTES_MAX {
        inbox.push(vec![0; FRAME_BYTES_MAX]).unwrap();
    }
    assert_eq!(inbox.push(vec![0]).unwrap_err().code, ErrorCode::Protocol);
    // What comes after the end is not kept, and counts all the same
    let inbox = Inbox::default();
    inbox.end();
    for _ in 0..WINDOW_BYTES as usize / FRAME_BYTES_MAX {
        inbox.push(vec![0; FRAME_BYTES_MAX]).unwrap();
    }
    assert!(inbox.state.lock().unwrap().frames.is_empty());
    assert!(inbox.push(vec![0]).is_err());
}
