use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use protocol::channel::{CHANNELS_MAX, FrameHeader, FrameKind, HEADER_BYTES, WINDOW_BYTES};
use protocol::copy::WorkerRequest;
use protocol::filter::{Codec, Digest, Filter};
use protocol::message::ErrorAnswer;
use protocol::storage::{FeaturesAnswer, FileInfoRequest, InfoAnswer, InfoLevel, ReadRequest, StorageFeatures};
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect, Offer, RequestMessage};

use crate::remote::testing::{
    Script, connect_with_channels, serve_data, serve_data_over, serve_data_watched, thread_settings,
};
use crate::remote::{Connection, RemoteSettings};
use crate::{CancelToken, Error, ErrorCode, Result};

/// A connection to a directory that has these files.
fn connect(names: &[&str]) -> (tempfile::TempDir, Arc<Connection>) {
    let dir = tempfile::tempdir().unwrap();
    names.iter().for_each(|name| std::fs::write(dir.path().join(name), name).unwrap());
    let path = dir.path().to_owned();
    let connection = connect_with_channels(move |stream| drop(serve_data(stream, &path))).unwrap();
    (dir, connection)
}

fn open(connection: &Arc<Connection>) -> Arc<Connection> {
    connection.open_channel(&thread_settings()).unwrap().unwrap()
}

fn exists(connection: &Arc<Connection>, path: &std::path::Path) -> bool {
    let request = FileInfoRequest { path: path.to_str().unwrap(), level: InfoLevel::Exists, follow_link: true };
    let answer = connection.call(&Call::Info(request)).unwrap();
    InfoAnswer::decode(answer.data(), InfoLevel::Exists).unwrap().info.is_some()
}

#[test]
fn channels_of_a_connection_are_served_at_the_same_time() {
    let (dir, first) = connect(&["a"]);
    let channels: Vec<_> = (0..8).map(|_| open(&first)).collect();
    let path = dir.path();
    std::thread::scope(|scope| {
        for connection in channels.iter().chain([&first]) {
            scope.spawn(move || {
                for _ in 0..100 {
                    assert!(exists(connection, &path.join("a")) && !exists(connection, &path.join("b")));
                }
            });
        }
    });
    // They have sessions and capabilities of their own, and carry no further ones
    assert!(channels[0].has(Capability::CopyJobs) && !channels[0].has(Capability::Channels));
    assert!(channels[0].open_channel(&thread_settings()).unwrap().is_none());
}

#[test]
fn connection_lasts_as_long_as_its_channels() {
    let (dir, first) = connect(&["a"]);
    let channel = open(&first);
    drop(first);
    assert!(exists(&channel, &dir.path().join("a")));
}

#[test]
fn connection_whose_last_channel_waits_for_answers_ended_in_a_thread_of_that() {
    let (dir, first) = connect(&[]);
    std::fs::File::create(dir.path().join("large")).unwrap().set_len(8 << 20).unwrap();
    let name = dir.path().join("large");
    for _ in 0..5 {
        let channel = open(&first);
        let sent: Vec<_> = (0..200).map(|_| channel.send(&Call::ReadOpen(sum_of(&name)), None)).collect();
        drop(sent);
        drop(channel);
        assert_eq!(Arc::strong_count(&first), 1);
    }
}

/// A request for the checksum of a file.
fn sum_of(path: &std::path::Path) -> ReadRequest<'_> {
    let filters = vec![Filter::Hash(Digest::Sha1), Filter::Size, Filter::Sink];
    ReadRequest { path: path.to_str().unwrap(), offset: 0, limit: None, version: None, filters }
}

#[test]
fn channel_that_ends_makes_room_for_another_one() {
    let (dir, first) = connect(&["a"]);
    let mut channels: Vec<_> = (1..CHANNELS_MAX).map(|_| open(&first)).collect();
    assert!(first.open_channel(&thread_settings()).unwrap().is_none());
    for _ in 0..2 * CHANNELS_MAX {
        channels.pop();
        let end = Instant::now() + Duration::from_secs(20);
        // It counts until the server has ended it, too
        let opened = std::iter::repeat_with(|| first.open_channel(&thread_settings()).unwrap());
        let opened = opened.inspect(|_| assert!(Instant::now() < end)).find_map(|opened| opened).unwrap();
        channels.push(opened);
    }
    assert!(exists(&channels[0], &dir.path().join("a")) && exists(&first, &dir.path().join("a")));
}

#[test]
fn server_without_channels_is_asked_for_none() {
    for known in [None, Some(Capabilities::own().without(Capability::Channels))] {
        let (sender, requests) = channel();
        let first = connect_with_channels(move |stream| {
            let mut script = Script::new(stream);
            script.begin(known.as_ref().map(Capabilities::encode));
            while let Some(call) = script.read() {
                let is_end = call == Call::Exit;
                sender.send(format!("{call:?}")).unwrap();
                if is_end {
                    return;
                }
                script.answer(None);
            }
        })
        .unwrap();
        assert!(first.open_channel(&thread_settings()).unwrap().is_none());
        first.call(&Call::Noop).unwrap();
        drop(first);
        // No frame was sent
        assert_eq!(requests.iter().collect::<Vec<_>>(), ["Noop", "Exit"]);
    }
}

/// Reads the first requests of a client that offers channels, and agrees.
fn agree(script: &mut Script) {
    let offer = Offer { capabilities: Capabilities::own(), following: 1 };
    assert_eq!(script.read(), Some(Call::Offer(offer)));
    script.answer(Some(Capabilities::own().encode()));
}

/// Reads a frame of data of channel 0. Returns the request in it.
fn framed_request(stream: &mut UnixStream) -> String {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = FrameHeader::decode(header).unwrap();
    let FrameKind::Data(size) = header.kind else { panic!("{header:?}") };
    assert_eq!(header.channel, 0);
    let mut message = vec![0; size];
    stream.read_exact(&mut message).unwrap();
    format!("{:?}", Call::decode(&RequestMessage::decode(&message).unwrap(), Dialect::NEWEST).unwrap())
}

#[test]
fn client_sends_nothing_between_its_first_requests_and_their_last_answer() {
    let (sender, requests) = channel();
    let first = connect_with_channels(move |mut stream| {
        let mut script = Script::new(stream.try_clone().unwrap());
        agree(&mut script);
        assert_eq!(script.read(), Some(Call::Features));
        // Whatever the first answer says
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(stream.read(&mut [0]).is_err());
        stream.set_read_timeout(None).unwrap();
        script.answer(Some(FeaturesAnswer { path: "/far", features: StorageFeatures::PATH }.encode()));
        sender.send(framed_request(&mut stream)).unwrap();
        sender.send(framed_request(&mut stream)).unwrap();
    })
    .unwrap();
    assert_eq!(first.features().unwrap().path, "/far");
    assert_eq!(requests.recv().unwrap(), "Noop");
    drop(first);
    assert_eq!(requests.recv().unwrap(), "Exit");
}

#[test]
fn client_whose_first_requests_fail_ends_with_a_frame() {
    let (sender, requests) = channel();
    let error = connect_with_channels(move |mut stream| {
        let mut script = Script::new(stream.try_clone().unwrap());
        agree(&mut script);
        script.read();
        script.refuse(&Error::new(ErrorCode::PathMissing, "no such directory"));
        sender.send(framed_request(&mut stream)).unwrap();
    });
    assert_eq!(error.err().map(|error| error.code), Some(ErrorCode::PathMissing));
    assert_eq!(requests.recv().unwrap(), "Exit");
}

#[test]
fn frame_that_came_before_the_client_had_looked_at_the_last_answer_was_taken_for_a_message() {
    for _ in 0..20 {
        let first = connect_with_channels(move |mut stream| {
            let mut script = Script::new(stream.try_clone().unwrap());
            agree(&mut script);
            script.read();
            let features = FeaturesAnswer { path: "/far", features: StorageFeatures::PATH };
            let answer = AnswerMessage::encode(script.session(), false, Some(features.encode())).to_vec();
            // All at once, as if the server was told to stop meanwhile
            stream.write_all(&[answer, last_frame()].concat()).unwrap();
        });
        let error = first.and_then(|first| first.call(&Call::Noop).map(drop)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Term, "{error}");
    }
}

/// The frame of a server that ends.
fn last_frame() -> Vec<u8> {
    let reason = Error::new(ErrorCode::Term, "terminated on signal SIGTERM");
    let message = AnswerMessage::encode_error(None, &ErrorAnswer::from(&reason)).to_vec();
    let header = FrameHeader { kind: FrameKind::Data(message.len()), channel: 0 };
    [&header.encode()[..], &message].concat()
}

#[test]
fn login_of_a_host_nearby_counted_as_its_distance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let first = connect_with_channels(move |stream| {
        std::thread::sleep(Duration::from_millis(500));
        drop(serve_data(stream, &path));
    })
    .unwrap();
    assert!(first.round_trip().unwrap() < Duration::from_millis(400), "{:?}", first.round_trip());
}

/// A connection to a server whose channels wait before they are served, and the tokens of those that have begun.
fn connect_held(held: Receiver<()>) -> (tempfile::TempDir, Arc<Connection>, Receiver<CancelToken>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (sender, begun) = channel();
    let (held, sender) = (Mutex::new(held), Mutex::new(sender));
    let connection = connect_with_channels(move |stream| {
        let served = serve_data_watched(stream, &path, move |cancel| {
            sender.lock().unwrap().send(cancel.clone()).unwrap();
            // A channel that comes when nothing holds the others any more is not held
            let _ = held.lock().unwrap().recv();
        });
        drop(served);
    });
    (dir, connection.unwrap(), begun)
}

#[test]
fn channel_that_is_not_served_holds_up_no_other_one() {
    let (release, held) = channel();
    let (dir, first, begun) = connect_held(held);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| open(&first));
        begun.recv().unwrap();
        assert!(!exists(&first, &dir.path().join("a")));
        assert!(!opening.is_finished());
        release.send(()).unwrap();
        drop(opening.join().unwrap());
    });
}

#[test]
fn channel_that_is_given_up_ends_on_both_sides_and_the_others_go_on() {
    let (release, held) = channel();
    let (_dir, first, begun) = connect_held(held);
    let settings = RemoteSettings { timeout: Duration::from_millis(200), ..thread_settings() };
    let error = first.open_channel(&settings).err().unwrap();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::FileRead, "timeout after 200ms waiting for read from 'test'")
    );
    let token = begun.recv().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !token.is_cancelled() {
        assert!(Instant::now() < end, "the server goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(release);
    let other = open(&first);
    assert!(!begun.recv().unwrap().is_cancelled() && !first.has_ended());
    other.call(&Call::Noop).unwrap();
    first.call(&Call::Noop).unwrap();
}

#[test]
fn channels_that_are_opened_at_the_same_time_keep_their_order() {
    let (dir, first) = connect(&["a"]);
    let path = dir.path().join("a");
    for _ in 0..20 {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    first.open_channel(&thread_settings()).unwrap().map(|channel| {
                        assert!(exists(&channel, &path));
                    })
                });
            }
        });
    }
    assert!(exists(&first, &path));
}

#[test]
fn lost_connection_ends_its_channels_with_the_reason() {
    let (sender, streams) = channel::<UnixStream>();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let first = connect_with_channels(move |stream| {
        sender.send(stream.try_clone().unwrap()).unwrap();
        drop(serve_data(stream, &path));
    })
    .unwrap();
    let channels = [open(&first), open(&first)];
    streams.recv().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
    for connection in channels.iter().chain([&first]) {
        let error = connection.call(&Call::Noop).err().unwrap();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, "unexpected EOF from test"));
    }
    assert!(first.open_channel(&thread_settings()).is_err());
}

/// A connection to a server that reads nothing more, and says why it ends once it may.
fn connect_to_one_that_ends(may_end: Receiver<()>) -> Arc<Connection> {
    let (sender, deaf) = channel();
    let first = connect_with_channels(move |mut stream| {
        let mut script = Script::new(stream.try_clone().unwrap());
        script.begin(Some(Capabilities::own().encode()));
        framed_request(&mut stream);
        stream.shutdown(std::net::Shutdown::Read).unwrap();
        sender.send(()).unwrap();
        may_end.recv().unwrap();
        stream.write_all(&last_frame()).unwrap();
    });
    deaf.recv().unwrap();
    first.unwrap()
}

#[test]
fn reason_why_a_server_ends_was_lost_if_a_channel_was_opened_or_given_up_before_it_was_said() {
    let (end, may_end) = channel();
    let first = connect_to_one_that_ends(may_end);
    // This one finds that nothing can be sent
    let settings = RemoteSettings { timeout: Duration::from_millis(100), ..thread_settings() };
    assert_eq!(first.open_channel(&settings).err().unwrap().code, ErrorCode::FileRead);
    let errors = std::thread::scope(|scope| {
        let opening = scope.spawn(|| first.open_channel(&thread_settings()).err().unwrap());
        let asked = first.send(&Call::Noop, None);
        end.send(()).unwrap();
        [opening.join().unwrap(), asked.wait().err().unwrap(), first.open_channel(&thread_settings()).err().unwrap()]
    });
    errors.iter().for_each(|error| assert_eq!(error.code, ErrorCode::Term, "{error}"));
}

#[test]
fn requests_beyond_the_room_of_a_channel_wait_for_more() {
    let (release, held) = channel();
    let (dir, first, begun) = connect_held(held);
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| open(&first));
        begun.recv().unwrap();
        release.send(()).unwrap();
        let channel = opened.join().unwrap();
        // Far more than the server takes without reading it
        let path = format!("{}/{}", dir.path().display(), "x".repeat(60 << 10));
        let count = 3 * WINDOW_BYTES as usize / path.len();
        let request = FileInfoRequest { path: &path, level: InfoLevel::Exists, follow_link: true };
        let sent: Vec<_> = (0..count).map(|_| channel.send(&Call::Info(request), None)).collect();
        // Such a name is too long for a file
        assert!(sent.into_iter().all(|answer| answer.wait().is_err_and(|error| error.code != ErrorCode::Format)));
    });
}

/// What a client says of a server that agrees on channels and then sends this.
fn error_after(frames: &[u8]) -> crate::Error {
    let frames = frames.to_vec();
    let first = connect_with_channels(move |mut stream| {
        let mut script = Script::new(stream.try_clone().unwrap());
        script.begin(Some(Capabilities::own().encode()));
        // Frames come after the first one of the client
        let mut header = [0];
        stream.read_exact(&mut header).unwrap();
        stream.write_all(&frames).unwrap();
        std::thread::sleep(Duration::from_secs(20));
    })
    .unwrap();
    first.call(&Call::Noop).err().unwrap()
}

#[test]
fn frames_of_a_hostile_server_are_refused() {
    let frame = |kind, channel| FrameHeader { kind, channel }.encode();
    for (sent, expected) in [
        (frame(FrameKind::Data(5), 1), "frame for channel 1 that was not opened (answer of "),
        (frame(FrameKind::Room(WINDOW_BYTES), 0), "server gives channel 0 too much room (answer of "),
    ] {
        let error = error_after(&sent);
        assert_eq!(error.code, ErrorCode::Protocol);
        assert!(error.message.starts_with(expected), "{error}");
    }
    assert_eq!(error_after(&frame(FrameKind::Open, 0)).code, ErrorCode::Protocol);
    assert_eq!(error_after(&frame(FrameKind::Abort, 0)).code, ErrorCode::Protocol);
    assert_eq!(error_after(&[9; 9]).code, ErrorCode::Format);
}

#[test]
fn channel_that_panics_is_an_error_at_once_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (path, panics) = (dir.path().to_owned(), Arc::new(AtomicBool::new(false)));
    let (is_now, (sender, result)) = (Arc::clone(&panics), channel());
    let first = connect_with_channels(move |stream| {
        let begin = move |_: &CancelToken| assert!(!is_now.load(Ordering::SeqCst), "a fault of the test");
        sender.send(serve_data_watched(stream, &path, begin)).unwrap();
    })
    .unwrap();
    let other = open(&first);
    panics.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let error = first.open_channel(&thread_settings()).err().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(error.code, ErrorCode::Assert);
    assert!(error.message.ends_with("worker failed: a fault of the test"), "{error}");
    panics.store(false, Ordering::SeqCst);
    assert!(exists(&other, dir.path()) && exists(&open(&first), dir.path()));
    drop((other, first));
    result.recv().unwrap().unwrap();
}

/// What the server reads, unless it is told not to.
struct Stalling {
    stream: UnixStream,
    stalls: Arc<AtomicBool>,
}

impl Read for Stalling {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.stalls.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Little, so that it does not read far ahead
        let size = buffer.len().min(64);
        self.stream.read(&mut buffer[..size])
    }
}

/// A connection to a server that reads nothing while it is told so.
fn connect_stalling() -> (tempfile::TempDir, Arc<Connection>, Arc<AtomicBool>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, stalls) = (dir.path().to_owned(), Arc::new(AtomicBool::new(false)));
    let is_now = Arc::clone(&stalls);
    let first = connect_with_channels(move |stream| {
        let input = Stalling { stream: stream.try_clone().unwrap(), stalls: is_now };
        drop(serve_data_over((input, stream), &path, |_| {}));
    })
    .unwrap();
    (dir, first, stalls)
}

/// Has the server read nothing more.
fn stall(first: &Arc<Connection>, stalls: &AtomicBool) {
    stalls.store(true, Ordering::SeqCst);
    // It may wait for this one already
    drop(first.send(&Call::Noop, None));
    std::thread::sleep(Duration::from_millis(200));
}

/// More than a socket takes, and less than a channel may send.
fn long_path(dir: &tempfile::TempDir) -> String {
    format!("{}/{}", dir.path().display(), "x".repeat(3 << 20))
}

#[test]
fn cancel_of_a_channel_waited_for_the_blocked_write_of_another_one() {
    let (dir, first, stalls) = connect_stalling();
    let (blocked, cancelled) = (open(&first), open(&first));
    stall(&first, &stalls);
    let answer = cancelled.send(&Call::Noop, None);
    let path = long_path(&dir);
    let request = Call::Info(FileInfoRequest { path: &path, level: InfoLevel::Exists, follow_link: true });
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| blocked.call(&request).map(drop));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!sends.is_finished());
        let (token, begun) = (CancelToken::new(), Instant::now());
        token.cancel();
        assert_eq!(answer.wait_or_stop(&token).err().unwrap().code, ErrorCode::Term);
        // The way is dead, so it ends for all
        assert!(sends.join().unwrap().is_err());
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    });
    assert!(first.call(&Call::Noop).is_err());
    drop((blocked, cancelled, first));
    stalls.store(false, Ordering::SeqCst);
}

#[test]
fn channel_that_is_dropped_waits_for_no_other_one() {
    let (dir, first, stalls) = connect_stalling();
    let (blocked, dropped) = (open(&first), open(&first));
    stall(&first, &stalls);
    let path = long_path(&dir);
    let request = Call::Info(FileInfoRequest { path: &path, level: InfoLevel::Exists, follow_link: true });
    std::thread::scope(|scope| {
        let sends = scope.spawn(|| blocked.call(&request).map(drop));
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        drop(dropped);
        // The write may take a minute
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(!sends.is_finished());
        // The others go on
        stalls.store(false, Ordering::SeqCst);
        let error = sends.join().unwrap().unwrap_err();
        assert_ne!(error.code, ErrorCode::Format, "such a name is too long for a file: {error}");
    });
    first.call(&Call::Noop).unwrap();
}

#[test]
fn memory_of_the_channels_of_a_connection_counts_together() {
    let (_dir, first) = connect(&["a"]);
    let (one, other) = (open(&first), open(&first));
    let worker = || {
        Call::WorkerOpen(WorkerRequest {
            compression: Some((Codec::Zst, 22)),
            passphrase: None,
            digest: Digest::Sha1,
            bundle_raw: true,
            reference: 0,
            page_size: 8192,
            page_header_check: true,
            compare_buffer_bytes: 1 << 20,
            version_force: None,
            network_level: None,
        })
    };
    let begin = |connection: &Arc<Connection>| -> Result<()> { connection.call(&worker()).map(drop) };
    // Begins as many as there is memory for
    let fill = |connection: &Arc<Connection>| {
        for count in 0..CHANNELS_MAX {
            if let Err(error) = begin(connection) {
                assert_eq!(error.code, ErrorCode::Memory);
                return count;
            }
        }
        panic!("there is no limit");
    };
    let (_dir_alone, alone) = connect(&["a"]);
    let of_one = fill(&alone);
    // The first connection counts, too. What is left of each may suffice for another one
    assert!((1..8).contains(&of_one) && (3 * of_one..3 * of_one + 3).contains(&fill(&one)));
    assert_eq!(begin(&other).unwrap_err().code, ErrorCode::Memory);
    drop(one);
    let end = Instant::now() + Duration::from_secs(20);
    while begin(&other).is_err() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn server_without_a_thread_for_a_channel_is_asked_for_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let first = connect_with_channels(move |stream| {
        // Channel 0 gets one
        let served = crate::work::thread::limit::with(1, || serve_data(stream, &path));
        drop(served);
    })
    .unwrap();
    assert!(first.open_channel(&thread_settings()).unwrap().is_none());
    first.call(&Call::Noop).unwrap();
}

#[test]
fn locks_of_the_server_outlived_a_client_with_requests_on_a_channel() {
    let (dir, (sender, ended)) = (tempfile::tempdir().unwrap(), channel());
    let path = dir.path().to_owned();
    let large = std::fs::File::create(path.join("large")).unwrap();
    large.set_len(8 << 20).unwrap();
    let first = connect_with_channels(move |stream| {
        sender.send(serve_data(stream, &path)).unwrap();
    })
    .unwrap();
    let channel = open(&first);
    let name = dir.path().join("large");
    let request = sum_of(&name);
    // Minutes of work
    let sent: Vec<_> = (0..2000).map(|_| channel.send(&Call::ReadOpen(request.clone()), None)).collect();
    drop(sent);
    let begun = Instant::now();
    drop(channel);
    drop(first);
    ended.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
