use std::io::{Cursor, ErrorKind, IoSlice, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::call::CallKind;
use protocol::channel::{CHANNELS_MAX, FOLLOWING_MAX, FrameHeader, FrameKind, HEADER_BYTES};
use protocol::options::{OptionValue, OptionsRequest};
use protocol::storage::{FileInfoRequest, InfoLevel};
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect, Offer};

use super::super::memory::Usage;
use super::super::{ServeMore, Served, ServedOptions, ServedStorage, Server};
use super::ChannelsWay;
use crate::work::thread::limit;
use crate::{CancelToken, Error, ErrorCode, Result};

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, name: &str) -> Result<OptionValue> {
        assert_ne!(name, "panics");
        Ok(OptionValue::Null)
    }
}

/// Tells when it is asked, and answers when the test says so.
struct SlowOptions {
    begun: Sender<()>,
    may_end: Mutex<Receiver<()>>,
}

impl ServedOptions for SlowOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        self.begun.send(()).unwrap();
        self.may_end.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
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

/// The first request of a client that sends so many others before it gets frames.
fn offer(following: u32) -> Vec<u8> {
    Call::Offer(Offer { capabilities: Capabilities::own(), following }).encode(1, Dialect::NEWEST).to_vec()
}

/// Serves a client that agrees on channels and then sends this. Returns the result, and what it got after that.
fn serve(frames: &[u8]) -> (Result<()>, Vec<u8>) {
    serve_with(Cursor::new(frames.to_vec()), &CancelToken::new(), || ())
}

/// Does the same with a token. `begin` is called for each channel that is opened.
fn serve_with(
    frames: impl Read,
    cancel: &CancelToken,
    begin: impl Fn() + Send + Sync + 'static,
) -> (Result<()>, Vec<u8>) {
    let stream = offer(0);
    let got = Got::default();
    let mut first = served(cancel);
    let serve = Box::new(move |cancel: &CancelToken| {
        begin();
        Ok(served(cancel))
    });
    first.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    let server = Server::greet(Cursor::new(stream).chain(frames), got.clone()).unwrap();
    let begin = got.0.lock().unwrap().len();
    let result = server.serve(first);
    let all = got.0.lock().unwrap().split_off(begin);
    // The first answer is no frame
    let answer = protocol::AnswerMessage::encode(1, false, Some(Capabilities::own().encode())).to_vec();
    assert_eq!(all[..answer.len()], answer);
    (result, all[answer.len()..].to_vec())
}

/// What a channel got, and whether it has ended.
fn got_on(channel: u32, mut frames: &[u8]) -> (Vec<u8>, bool) {
    let (mut got, mut has_ended) = (Vec::new(), false);
    while let Some((header, rest)) = frames.split_first_chunk::<HEADER_BYTES>() {
        let header = FrameHeader::decode(*header).unwrap();
        let size = if let FrameKind::Data(size) = header.kind { size } else { 0 };
        let (data, rest) = rest.split_at(size);
        if header.channel == channel {
            got.extend_from_slice(data);
            has_ended |= header.kind == FrameKind::End;
        }
        frames = rest;
    }
    assert!(frames.is_empty());
    (got, has_ended)
}

/// Returns whether a text is in what a channel got.
fn has_text(got: &[u8], text: &str) -> bool {
    got.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Something that a client sends later, or that fails.
struct Later(Receiver<Result<Vec<u8>>>, Vec<u8>);

impl Read for Later {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_empty() {
            let Ok(next) = self.0.recv() else { return Ok(0) };
            self.1 = next?;
        }
        let size = self.1.len().min(buffer.len());
        buffer[..size].copy_from_slice(&self.1[..size]);
        self.1.drain(..size);
        Ok(size)
    }
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

fn exit_message() -> Vec<u8> {
    Call::Exit.encode(2, Dialect::NEWEST).to_vec()
}

fn exit() -> Vec<u8> {
    data(0, &exit_message())
}

/// A question for an option, which the server answers without files.
fn question(session: u64) -> Vec<u8> {
    Call::Options(OptionsRequest { names: vec!["repo1-cipher-type"] }).encode(session, Dialect::NEWEST).to_vec()
}

/// Serves a client that sends this. Returns the result, and what it got after the greeting.
fn serve_all_of(stream: Vec<u8>) -> (Result<()>, Vec<u8>) {
    let got = Got::default();
    let mut first = served(&CancelToken::new());
    let serve = Box::new(|cancel: &CancelToken| Ok(served(cancel)));
    first.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    let server = Server::greet(Cursor::new(stream), got.clone()).unwrap();
    let begin = got.0.lock().unwrap().len();
    let result = server.serve(first);
    let all = got.0.lock().unwrap().split_off(begin);
    (result, all)
}

/// Takes the first answer off. Returns its session and its data or error.
fn take_answer(got: &mut Vec<u8>) -> (Option<u64>, Result<Option<Vec<u8>>>) {
    let mut message = Vec::new();
    protocol::pack::read_message(&mut got.as_slice(), &mut message, 1 << 20).unwrap();
    got.drain(..message.len());
    let answer = AnswerMessage::decode(&message).unwrap();
    (answer.session, answer.outcome.map(|data| data.map(<[u8]>::to_vec)).map_err(|fault| fault.to_error("far")))
}

fn agreed(answer: Result<Option<Vec<u8>>>) -> Capabilities {
    Capabilities::decode(answer.unwrap().as_deref()).unwrap()
}

#[test]
fn requests_that_follow_the_offer_are_answered_before_there_are_frames() {
    let last = question(4);
    let stream = [offer(2), question(2), question(3), data(0, &last), data(0, &exit_message())].concat();
    let (result, mut got) = serve_all_of(stream);
    result.unwrap();
    assert!(agreed(take_answer(&mut got).1).has(Capability::Channels));
    // Sessions are told by their order where they are those of the requests
    let first = take_answer(&mut got);
    let second = take_answer(&mut got);
    assert!(first.1.is_ok() && second.1.is_ok());
    assert_eq!((first.0, second.0), (Some(2), Some(3)));
    // The rest are frames
    let (mut on_first, has_ended) = got_on(0, &got);
    assert!(has_ended);
    assert_eq!(take_answer(&mut on_first).0, Some(4));
    assert!(on_first.is_empty());
}

#[test]
fn error_of_a_request_that_follows_the_offer_is_its_answer_and_frames_come_all_the_same() {
    // Files of a directory that is not there
    let info = FileInfoRequest { path: "/none/a", level: InfoLevel::Exists, follow_link: true };
    let info = Call::Info(info).encode(2, Dialect::NEWEST).to_vec();
    let unknown = Call::Close(CallKind::StorageRead).encode(3, Dialect::NEWEST).to_vec();
    let (result, mut got) = serve_all_of([offer(1), unknown, data(0, &question(4)), exit()].concat());
    result.unwrap();
    assert!(agreed(take_answer(&mut got).1).has(Capability::Channels));
    let (session, outcome) = take_answer(&mut got);
    assert_eq!((session, outcome.unwrap_err().code), (Some(3), ErrorCode::Protocol));
    assert_eq!(take_answer(&mut got_on(0, &got).0).0, Some(4));
    // One that ends the connection does so: the features were not asked for
    let (result, mut got) = serve_all_of([offer(2), info, question(3), exit()].concat());
    assert_eq!(result.unwrap_err().code, ErrorCode::Assert);
    assert!(agreed(take_answer(&mut got).1).has(Capability::Channels));
    assert_eq!(take_answer(&mut got).1.unwrap_err().code, ErrorCode::Assert);
    assert!(got.is_empty());
}

#[test]
fn client_that_ends_before_there_are_frames_gets_none() {
    let (result, mut got) = serve_all_of([offer(3), question(2), exit_message()].concat());
    result.unwrap();
    drop(take_answer(&mut got));
    drop(take_answer(&mut got));
    assert!(got.is_empty());
    // It has announced more than it sends
    let (result, _) = serve_all_of([offer(3), question(2)].concat());
    let error = result.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Format, "unexpected EOF"));
    // It sends frames too early
    let (result, _) = serve_all_of([offer(1), exit(), exit()].concat());
    assert!(result.is_err());
}

#[test]
fn server_does_not_agree_on_channels_after_more_requests_than_a_client_needs() {
    for (following, agrees) in [(FOLLOWING_MAX, true), (FOLLOWING_MAX + 1, false), (u32::MAX, false)] {
        let (_, mut got) = serve_all_of([offer(following), exit_message()].concat());
        let common = agreed(take_answer(&mut got).1);
        assert_eq!(common.has(Capability::Channels), agrees, "{following}");
        assert!(common.has(Capability::CopyJobs));
    }
    // All goes on without frames
    let (result, mut got) = serve_all_of([offer(FOLLOWING_MAX + 1), question(2), exit_message()].concat());
    result.unwrap();
    drop(take_answer(&mut got));
    assert_eq!(take_answer(&mut got).0, Some(2));
    assert!(got.is_empty());
}

#[test]
fn client_that_leaves_in_order_is_served_without_error() {
    let (result, got) = serve(&exit());
    result.unwrap();
    assert_eq!(got, frame(FrameKind::End, 0));
    // Also if it has a channel, which greets and ends
    let (result, got) = serve(&[frame(FrameKind::Open, 1), exit()].concat());
    result.unwrap();
    let (got, has_ended) = got_on(1, &got);
    assert!(has_ended && has_text(&got, "\"pgBackRest\""));
}

#[test]
fn client_that_vanishes_is_an_error_as_without_channels() {
    // At once, in the middle of a header, and of data
    for frames in [Vec::new(), frame(FrameKind::End, 0)[..5].to_vec(), frame(FrameKind::Data(10), 0)] {
        let (result, got) = serve(&frames);
        let error = result.unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::Format, "unexpected EOF"));
        assert!(has_text(&got_on(0, &got).0, "unexpected EOF"));
    }
}

#[test]
fn reason_why_reading_ended_was_lost() {
    let failures = [
        (Error::new(ErrorCode::Term, "terminated on signal SIGTERM"), true),
        (Error::new(ErrorCode::FileRead, "timeout after 5ms waiting for read from 'remote-0 read'"), false),
    ];
    for (error, is_signal) in failures {
        let (sender, frames) = channel();
        sender.send(Ok(frame(FrameKind::Open, 1))).unwrap();
        let (cancel, expected) = (CancelToken::new(), (error.code, error.message.clone()));
        if is_signal {
            cancel.cancel_by_signal(15);
        }
        sender.send(Err(error)).unwrap();
        let (result, got) = serve_with(Later(frames, Vec::new()), &cancel, || ());
        let error = result.unwrap_err();
        assert_eq!((error.code, &error.message), (expected.0, &expected.1));
        assert!(has_text(&got_on(0, &got).0, &expected.1));
        assert!(got_on(1, &got).1);
    }
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
        (vec![frame(FrameKind::End, 1)], "channel 1 was not opened"),
    ] {
        let error = refused(&frames);
        assert_eq!((error.code, &*error.message), (ErrorCode::Protocol, expected));
    }
    let error = refused(&[vec![7; HEADER_BYTES]]);
    assert_eq!(error.code, ErrorCode::Format);
    assert!(error.message.starts_with("frame of kind 7 with value"), "{error}");
}

#[test]
fn channels_of_a_client_have_a_limit() {
    let open =
        |count: usize| (1..=count as u32).flat_map(|channel| frame(FrameKind::Open, channel)).collect::<Vec<_>>();
    serve(&[open(CHANNELS_MAX - 1), exit()].concat()).0.unwrap();
    let error = refused(&[open(CHANNELS_MAX), exit()]);
    assert_eq!((error.code, error.message), (ErrorCode::Protocol, format!("more than {CHANNELS_MAX} channels")));
}

/// Takes a few bytes, fails once, and then takes everything.
struct Fails {
    left: usize,
    got: Got,
}

impl Write for Fails {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            self.left = usize::MAX;
            return Err(ErrorKind::TimedOut.into());
        }
        let taken = buffer.len().min(self.left);
        self.left -= taken;
        self.got.write(&buffer[..taken])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn half_a_frame_was_continued_by_another_channel() {
    for left in [1, HEADER_BYTES, HEADER_BYTES + 3] {
        let (got, cancel) = (Got::default(), CancelToken::new());
        let way = ChannelsWay::new(
            Fails { left, got: got.clone() },
            cancel.clone(),
            Usage::of_connection().with_channels(),
            Duration::ZERO,
        );
        let send = |channel: u32| way.send(FrameHeader { kind: FrameKind::Data(4), channel }, &[IoSlice::new(&[9; 4])]);
        assert!(send(1).is_err() && send(2).is_err());
        way.close(1);
        assert_eq!(*got.0.lock().unwrap(), data(1, &[9; 4])[..left]);
        // Nothing can be answered any more
        assert!(cancel.is_cancelled() && way.is_broken());
    }
}

#[test]
fn way_that_takes_no_more_ends_the_connection_with_the_reason() {
    let (sender, frames) = channel();
    let options = Call::Options(OptionsRequest { names: vec!["repo1-cipher-type"] });
    sender.send(Ok(data(0, &options.encode(2, Dialect::NEWEST).to_vec()))).unwrap();
    let got = Got::default();
    let mut first = served(&CancelToken::new());
    let serve = Box::new(|cancel: &CancelToken| Ok(served(cancel)));
    first.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    let stream = offer(0);
    let greeting = Server::greet(Cursor::new(Vec::new()), got.clone()).map(drop);
    greeting.unwrap();
    let answer = protocol::AnswerMessage::encode(1, false, Some(Capabilities::own().encode())).to_vec();
    let left = got.0.lock().unwrap().len() + answer.len() + 3;
    let server = Server::greet(Cursor::new(stream).chain(Later(frames, Vec::new())), Fails { left, got }).unwrap();
    drop(sender);
    let error = server.serve(first).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileWrite);
    assert!(error.message.starts_with("unable to write frame"), "{error}");
}

#[test]
fn client_was_not_told_of_a_signal_while_its_first_channel_was_at_work() {
    let cancel = CancelToken::new();
    let (sender, frames) = channel();
    let options = Call::Options(OptionsRequest { names: vec!["repo1-cipher-type"] });
    sender.send(Ok(data(0, &options.encode(2, Dialect::NEWEST).to_vec()))).unwrap();
    let got = Got::default();
    let (begun, begins) = channel();
    let (end, may_end) = channel();
    let slow = Box::new(SlowOptions { begun, may_end: Mutex::new(may_end) });
    let mut first = Served::new(ServedStorage::DataDirectory(Path::new("/none").to_owned()), slow, cancel.clone());
    let serve = Box::new(|cancel: &CancelToken| Ok(served(cancel)));
    first.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    let input = Cursor::new(offer(0)).chain(Later(frames, Vec::new()));
    let server = Server::greet(input, got.clone()).unwrap();
    std::thread::scope(|scope| {
        let serves = scope.spawn(move || server.serve(first));
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
        cancel.cancel_by_signal(15);
        sender.send(Err(cancel.check().unwrap_err())).unwrap();
        let text = "terminated on signal SIGTERM";
        while !has_text(&got.0.lock().unwrap(), text) {
            assert!(!serves.is_finished());
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!serves.is_finished(), "it is still at work");
        end.send(()).unwrap();
        assert_eq!(serves.join().unwrap().unwrap_err().code, ErrorCode::Term);
        // Nothing follows
        let all = got.0.lock().unwrap();
        let end = frame(FrameKind::End, 0);
        assert!(all.ends_with(&end));
        assert_eq!(all.windows(text.len()).filter(|window| *window == text.as_bytes()).count(), 1);
    });
}

#[test]
fn client_was_not_told_of_a_signal_before_its_first_request() {
    for sent in [0, 1] {
        let (cancel, got) = (CancelToken::new(), Got::default());
        cancel.cancel_by_signal(15);
        let (sender, later) = channel();
        sender.send(Err(cancel.check().unwrap_err())).unwrap();
        let mut first = served(&cancel);
        let serve = Box::new(|cancel: &CancelToken| Ok(served(cancel)));
        first.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
        // With or without the first one of those that come before frames
        let stream = if sent == 0 { Vec::new() } else { offer(1) };
        let server = Server::greet(Cursor::new(stream).chain(Later(later, Vec::new())), got.clone()).unwrap();
        let begin = got.0.lock().unwrap().len();
        assert_eq!(server.serve(first).unwrap_err().code, ErrorCode::Term);
        let mut all = got.0.lock().unwrap().split_off(begin);
        (0..sent).for_each(|_| drop(take_answer(&mut all)));
        let (session, told) = take_answer(&mut all);
        assert_eq!((session, told.unwrap_err().code, all.len()), (None, ErrorCode::Term, 0));
    }
}

#[test]
fn half_an_answer_was_continued_by_the_error_that_it_met() {
    let greeting = Got::default();
    Server::greet(Cursor::new(Vec::new()), greeting.clone()).map(drop).unwrap();
    let answer = AnswerMessage::encode(1, false, Some(Capabilities::own().encode())).to_vec();
    let left = greeting.0.lock().unwrap().len() + answer.len() + 3;
    let got = Got::default();
    let mut first = served(&CancelToken::new());
    let serve = Box::new(|cancel: &CancelToken| Ok(served(cancel)));
    first.more = Some(ServeMore { serve, silence_max: Duration::from_secs(60) });
    let stream = [offer(1), question(2)].concat();
    let server = Server::greet(Cursor::new(stream), Fails { left, got: got.clone() }).unwrap();
    assert_eq!(server.serve(first).unwrap_err().code, ErrorCode::FileWrite);
    assert_eq!(got.0.lock().unwrap().len(), left);
}

#[test]
fn first_channel_found_no_reason_why_it_could_not_send() {
    let way =
        ChannelsWay::new(Got::default(), CancelToken::new(), Usage::of_connection().with_channels(), Duration::ZERO);
    way.tell_end(&Error::new(ErrorCode::Term, "terminated on signal SIGTERM"));
    let error = super::Output { way: &way, channel: 0 }.write(b"x").unwrap_err();
    assert_eq!(Error::from_io(ErrorCode::FileWrite, "unable to write message", error).code, ErrorCode::Term);
}

#[test]
fn channel_that_began_while_all_ended_was_stopped_after_the_error_of_another_job() {
    let cancel = CancelToken::new();
    let way = ChannelsWay::new(Got::default(), cancel.clone(), Usage::of_connection().with_channels(), Duration::ZERO);
    way.fail(&Error::new(ErrorCode::Protocol, "frame of kind 7"));
    // Nobody has told its inbox
    let (mut input, _output) = way.streams(1, &Arc::default(), &cancel);
    let error = input.read(&mut [0]).unwrap_err();
    let error = Error::from_io(ErrorCode::FileRead, "unable to read", error);
    assert_eq!(error.code, ErrorCode::Protocol, "{error}");
}

#[test]
fn panic_of_a_channel_left_its_client_waiting() {
    let (result, got) =
        serve_with(Cursor::new([frame(FrameKind::Open, 1), exit()].concat()), &CancelToken::new(), || {
            panic!("a fault of the test")
        });
    result.unwrap();
    let (got, has_ended) = got_on(1, &got);
    assert!(has_ended && has_text(&got, "a fault of the test"));
}

#[test]
fn panic_of_the_first_channel_is_an_error_of_the_connection() {
    let options = Call::Options(OptionsRequest { names: vec!["panics"] }).encode(2, Dialect::NEWEST).to_vec();
    let (result, got) = serve(&data(0, &options));
    let error = result.unwrap_err();
    assert_eq!(error.code, ErrorCode::Assert);
    assert!(error.message.starts_with("worker failed: "), "{error}");
    let (got, has_ended) = got_on(0, &got);
    assert!(has_ended && has_text(&got, "worker failed: "));
}

#[test]
fn channel_without_a_thread_ended_all_others() {
    let frames = [frame(FrameKind::Open, 1), frame(FrameKind::Open, 2), data(2, b"x"), exit()].concat();
    // Channels 0 and 1 get theirs
    let (result, got) = limit::with(2, || serve(&frames));
    result.unwrap();
    assert!(has_text(&got_on(1, &got).0, "\"pgBackRest\""));
    assert_eq!(got_on(2, &got), (Vec::new(), true));
    let (result, got) = limit::with(0, || serve(&frames));
    assert_eq!(result.unwrap_err().code, ErrorCode::Kernel);
    assert!(has_text(&got_on(0, &got).0, "unable to start a thread"));
}

#[test]
fn requests_of_channels_were_served_after_the_client_had_left() {
    let cancel = CancelToken::new();
    let way = ChannelsWay::new(Got::default(), cancel.clone(), Usage::of_connection().with_channels(), Duration::ZERO);
    let open = |channel| {
        let inbox = Arc::new(super::Inbox::default());
        inbox.push(vec![1]).unwrap();
        let child = cancel.child();
        super::lock(&way.open).insert(channel, super::Open { inbox: Arc::clone(&inbox), cancel: child.clone() });
        (inbox, child)
    };
    let ((first, first_token), (_, other_token)) = (open(0), open(1));
    way.end_input();
    // Its last request says that the client ends
    assert!(!first_token.is_cancelled() && !cancel.is_cancelled() && other_token.is_cancelled());
    let next = || first.next(&first_token, Duration::ZERO, String::new).unwrap();
    assert_eq!((next(), next()), (Some(vec![1]), None));
}
