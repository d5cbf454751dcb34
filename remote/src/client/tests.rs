//! Tests with a server in memory.

use std::io::{BufReader, Read};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use protocol::filter::FilterResult;
use protocol::message::ErrorAnswer;
use protocol::pack::{MESSAGE_SIZE_MAX, read_message};
use protocol::storage::{Chunk, Level, ReadAnswer, ReadRequest, WriteRequest};
use protocol::{AnswerMessage, PackWriter, Packed, RequestMessage};

use super::*;

type TestClient = Client<BufReader<UnixStream>, UnixStream>;

/// What the test server does with a request: the answer, or the end of the server.
type Handler = fn(u64, Call<'_>) -> Option<Packed<'static>>;

/// A client whose server answers with `handler`, one request after the other as pgBackRest does, until the client is
/// gone. The thread returns how many requests there were.
fn connected(handler: Handler) -> (TestClient, JoinHandle<usize>) {
    let (near, far) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        let mut output = far.try_clone().unwrap();
        let mut input = BufReader::new(far);
        output.write_all(greeting::encode(Service::Remote, Dialect::NEWEST).as_bytes()).unwrap();
        let (mut message, mut count) = (Vec::new(), 0);
        while read_message(&mut input, &mut message, MESSAGE_SIZE_MAX).is_ok() {
            count += 1;
            let request = RequestMessage::decode(&message).unwrap();
            let call = Call::decode(&request, Dialect::NEWEST).unwrap();
            let Some(answer) = handler(request.session, call) else { break };
            if answer.write_to(&mut output).is_err() {
                break;
            }
        }
        count
    });
    let input = BufReader::new(near.try_clone().unwrap());
    (Client::connect(input, near, Service::Remote, "remote-0").unwrap(), server)
}

fn failure(session: Option<u64>, code: i32, message: &'static str) -> Option<Packed<'static>> {
    let error = ErrorAnswer { code, message: message.into(), stack_trace: "".into() };
    Some(AnswerMessage::encode_error(session, &error))
}

fn data(session: u64, is_closed: bool, data: Option<PackWriter<'static>>) -> Option<Packed<'static>> {
    Some(AnswerMessage::encode(session, is_closed, data))
}

/// A file of `CHUNKS` chunks. Sessions are told apart by the sizes of their chunks.
const CHUNKS: u64 = 5;

fn file_server(session: u64, call: Call<'_>) -> Option<Packed<'static>> {
    // How many chunks were sent, by session. The server thread is the test's own
    thread_local!(static SENT: std::cell::RefCell<std::collections::BTreeMap<u64, u64>> = Default::default());
    let sent = |session| {
        SENT.with_borrow_mut(|all| {
            let sent = all.entry(session).or_default();
            *sent += 1;
            *sent
        })
    };
    let block: &'static [u8] = &[7; 300_000];
    match call {
        Call::ReadOpen(request) if request.path == "/none" => data(session, true, Some(ReadAnswer::Missing.encode())),
        Call::ReadOpen(_) => {
            sent(session);
            data(session, false, Some(ReadAnswer::Chunk(Chunk { data: block, results: None }).encode()))
        }
        Call::ReadNext => match sent(session) {
            3 if session == 99 => failure(Some(session), 42, "unable to read"),
            number if number < CHUNKS => data(session, false, Some(Chunk { data: block, results: None }.encode())),
            CHUNKS => {
                let results = Some(vec![FilterResult::Size(CHUNKS * 300_000)]);
                data(session, true, Some(Chunk { data: block, results }.encode()))
            }
            _ => failure(Some(session), 39, "unable to find session"),
        },
        Call::WriteBlock(b"bad") => failure(Some(session), 64, "unable to write"),
        Call::Close(_) => {
            let answer = protocol::storage::WriteAnswer { results: vec![FilterResult::Size(6)] };
            data(session, true, Some(answer.encode()))
        }
        Call::Cancel(_) => data(session, true, None),
        Call::PathSync("/fatal") => failure(None, 25, "broken"),
        Call::PathSync("/other") => data(session + 1, false, None),
        Call::PathSync("/end") => None,
        Call::Exit => None,
        _ => data(session, false, None),
    }
}

fn read_request(path: &str) -> ReadRequest<'_> {
    ReadRequest { path, offset: 0, limit: None, version: None, filters: Vec::new() }
}

fn write_request(path: &str) -> WriteRequest<'_> {
    WriteRequest {
        path,
        file_mode: 0o640,
        path_mode: 0o750,
        user: None,
        group: None,
        modified: 0,
        create_path: true,
        sync_file: true,
        sync_path: true,
        is_atomic: true,
        filters: Vec::new(),
    }
}

fn read_all(client: &mut TestClient, reading: &mut Reading) -> usize {
    let mut size = 0;
    while let Some(chunk) = client.next_chunk(reading).unwrap() {
        size += chunk.len();
    }
    size
}

#[test]
fn file_is_read_whole_with_any_number_of_requests_ahead() {
    for ahead in [0, 1, 2, 4, 5, 10] {
        let (mut client, server) = connected(file_server);
        client.noop().unwrap();
        let mut reading = client.open_read(read_request("/file"), ahead).unwrap().unwrap();
        assert_eq!(reading.results().unwrap_err().code, ErrorCode::Assert);
        assert_eq!(read_all(&mut client, &mut reading), 1_500_000, "{ahead} ahead");
        assert_eq!(reading.results().unwrap(), [FilterResult::Size(1_500_000)]);
        client.cancel_read(reading).unwrap();
        client.noop().unwrap();
        drop(client.exit().unwrap());
        assert!(server.join().unwrap() >= 3 + CHUNKS as usize);
    }
}

#[test]
fn sessions_get_their_own_answers_when_they_take_turns() {
    let (mut client, _server) = connected(file_server);
    let mut first = client.open_read(read_request("/1"), 2).unwrap().unwrap();
    let mut second = client.open_read(read_request("/2"), 3).unwrap().unwrap();
    let ticket = client.send(&Call::PathSync("/path")).unwrap();
    let mut size = 0;
    for _ in 0..CHUNKS {
        size += client.next_chunk(&mut second).unwrap().unwrap().len();
        size += client.next_chunk(&mut first).unwrap().unwrap().len();
    }
    assert_eq!(size, 3_000_000);
    assert_eq!(client.receive(ticket).unwrap(), None);
    for reading in [&mut first, &mut second] {
        assert_eq!(client.next_chunk(reading).unwrap(), None);
        assert!(reading.results().is_ok());
    }
    assert!(client.open_read(read_request("/none"), 2).unwrap().is_none());
}

#[test]
fn large_request_is_sent_while_chunks_wait() {
    // The server would not read it before its chunks are read
    let (mut client, _server) = connected(file_server);
    let mut reading = client.open_read(read_request("/file"), 4).unwrap().unwrap();
    let mut writing = client.open_write(write_request("/copy")).unwrap();
    let block = vec![1; 5_000_000];
    for _ in 0..3 {
        client.write_block(&mut writing, &block).unwrap();
    }
    assert_eq!(client.finish_write(writing).unwrap().results, [FilterResult::Size(6)]);
    assert_eq!(read_all(&mut client, &mut reading), 1_500_000);
}

#[test]
fn many_requests_are_sent_before_the_first_answer() {
    let (mut client, _server) = connected(file_server);
    let path = format!("/{}", "x".repeat(500));
    let tickets: Vec<_> = (0..1000).map(|_| client.send(&Call::PathSync(&path)).unwrap()).collect();
    for ticket in tickets.into_iter().rev() {
        assert_eq!(client.receive(ticket).unwrap(), None);
    }
}

#[test]
fn chunk_after_an_error_is_not_given() {
    let (mut client, _server) = connected(file_server);
    for _ in 0..98 {
        client.noop().unwrap();
    }
    let mut reading = client.open_read(read_request("/file"), 4).unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(client.next_chunk(&mut reading).unwrap().unwrap().len(), 300_000);
    }
    let error = client.next_chunk(&mut reading).unwrap_err();
    assert_eq!((error.code, error.to_string().as_str()), (ErrorCode::FileRead, "raised from remote-0: unable to read"));
    assert_eq!(client.next_chunk(&mut reading).unwrap_err().to_string(), "reading has failed before");
    assert!(reading.results().is_err());
    client.cancel_read(reading).unwrap();
    client.noop().unwrap();
}

#[test]
fn file_with_a_failed_block_is_not_finished() {
    let (mut client, _server) = connected(file_server);
    let mut writing = client.open_write(write_request("/file")).unwrap();
    client.write_block(&mut writing, b"good").unwrap();
    client.write_block(&mut writing, b"bad").unwrap();
    let error = client.finish_write(writing).unwrap_err();
    assert_eq!(
        (error.code, error.to_string().as_str()),
        (ErrorCode::FileWrite, "raised from remote-0: unable to write")
    );
    let mut writing = client.open_write(write_request("/file")).unwrap();
    client.write_block(&mut writing, b"bad").unwrap();
    client.write_block(&mut writing, b"good").unwrap();
    assert!(client.write_block(&mut writing, b"good").is_err());
    assert_eq!(client.write_block(&mut writing, b"good").unwrap_err().to_string(), "writing has failed before");
    assert!(client.finish_write(writing).is_err());
    client.noop().unwrap();
}

#[test]
fn connection_that_broke_fails_every_call() {
    for (path, code, message) in [
        ("/fatal", 25, "raised from remote-0: broken"),
        ("/other", 39, "remote-0: expected answer for session 1 but got 2"),
        ("/end", 29, "remote-0: unexpected EOF"),
    ] {
        let (mut client, _server) = connected(file_server);
        let error = client.run(&Call::PathSync(path)).unwrap_err();
        assert_eq!((error.code.number(), error.to_string().as_str()), (code, message));
        let again = client.noop().unwrap_err();
        assert_eq!((again.code.number(), again.to_string().as_str()), (code, message));
    }
}

#[test]
fn error_of_the_stream_keeps_its_number() {
    #[derive(Debug)]
    struct Ended;
    impl Read for Ended {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::new(ErrorCode::Unknown, "remote-0 process on 'h' terminated unexpectedly [255]").into())
        }
    }
    let line = greeting::encode(Service::Remote, Dialect::NEWEST);
    let input = BufReader::new(line.as_bytes().chain(Ended));
    let mut client = Client::connect(input, Vec::new(), Service::Remote, "remote-0").unwrap();
    assert_eq!(client.noop().unwrap_err().code, ErrorCode::Unknown);
    assert_eq!(
        Client::connect(BufReader::new(Ended), Vec::new(), Service::Remote, "h").unwrap_err().code.number(),
        125
    );
}

#[test]
fn connection_without_a_greeting_is_refused() {
    let connect = |input: &[u8]| {
        let error = Client::connect(input, Vec::new(), Service::Remote, "h").unwrap_err();
        (error.code.number(), error.to_string())
    };
    assert_eq!(connect(b""), (42, "unexpected eof while reading line".to_owned()));
    assert_eq!(connect(b"{\"name\""), (42, "unexpected eof while reading line".to_owned()));
    assert_eq!(connect(b"Last login: today\n"), (99, "invalid type at: Last login: today".to_owned()));
    assert_eq!(connect(&[b'x'; 10_000]).0, 99);
}

#[test]
fn session_request_without_a_session_is_refused() {
    let (mut client, _server) = connected(file_server);
    assert_eq!(client.send(&Call::ReadNext).map(drop).unwrap_err().code, ErrorCode::Assert);
    assert_eq!(client.run(&Call::Exit).unwrap_err().code, ErrorCode::Assert);
    let names = client.options(&["db-timeout"]).unwrap_err();
    assert_eq!(names.to_string(), "option list is missing");
    assert!(client.info(InfoRequest { path: "/", level: Level::Basic, follow_link: false }).is_err());
    client.noop().unwrap();
}
