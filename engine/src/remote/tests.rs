//! Versions of both sides that differ.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use protocol::message::{ErrorAnswer, NoSpace};
use protocol::storage::{FeaturesAnswer, PathRemoveRequest, StorageFeatures};
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect, PackWriter, StringId};

use super::testing::{
    Script, connect, connect_slowly, connect_with_channels, connect_within, offer_without_channels, serve_data,
    serve_repository,
};
use crate::storage::full::no_space;
use crate::work::retry::is_stop;
use crate::{CancelToken, ErrorCode};

/// A list with capabilities of other versions.
fn list(entries: &[(&str, u32)]) -> PackWriter<'static> {
    let mut writer = PackWriter::new();
    writer.array(|list| {
        for (name, number) in entries {
            list.object(|entry| {
                entry.text(*name).u32(*number).bool(true);
            });
        }
    });
    writer
}

fn has_jobs(answer: Option<PackWriter<'static>>) -> bool {
    let connection = connect(|stream| {
        let mut script = Script::new(stream);
        script.begin(answer);
        while script.read().is_some_and(|call| call != Call::Exit) {}
    });
    connection.unwrap().has(Capability::CopyJobs)
}

#[test]
fn two_sides_of_this_version_agree_on_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let connection = connect_with_channels(move |stream| serve_data(stream, &path).unwrap()).unwrap();
    assert!(Capability::ALL.into_iter().all(|capability| connection.has(capability)));
    connection.features().unwrap();
}

#[test]
fn warning_of_the_server_is_one_of_the_command_here() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    std::fs::create_dir_all(path.join("archive/demo")).unwrap();
    let link = path.join("archive/demo/15-1");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let (_, warnings) = crate::log::collect_warnings(|| {
        let connection = connect(move |stream| serve_repository(stream, &path).unwrap()).unwrap();
        // The server warns of what it does not remove
        let request = PathRemoveRequest { path: link.to_str().unwrap(), recurse: true };
        connection.call(&Call::PathRemove(request)).unwrap();
        connection.call(&Call::Noop).unwrap();
    });
    assert_eq!(warnings.total, 1);
    let expected = format!("raised from remote-1 ssh protocol on 'far': path '{}' is a link: ", link.display());
    assert!(warnings.texts[0].starts_with(&expected), "{}", warnings.texts[0]);
}

#[test]
fn server_of_an_earlier_version_is_asked_for_nothing_more() {
    // pgBackRest, and a version of rbr without capabilities
    assert!(!has_jobs(None));
    assert!(!has_jobs(Some(list(&[]))));
}

#[test]
fn server_of_a_later_version_does_what_both_know() {
    assert!(has_jobs(Some(list(&[("later", 1), ("copy-jobs", 9)]))));
    assert!(!has_jobs(Some(list(&[("later", 1), ("copy-jobs-2", 1)]))));
}

#[test]
fn first_requests_take_one_way_together() {
    let connection = connect(|stream| {
        let mut script = Script::silent(stream);
        assert_eq!(script.read(), Some(offer_without_channels()));
        let offer = script.session();
        assert_eq!(script.read(), Some(Call::Features));
        // Nothing was said before both had come
        script.greet();
        script.answer_as(offer, None);
        script.answer(Some(FeaturesAnswer { path: "/far", features: StorageFeatures(0) }.encode()));
        while script.read().is_some_and(|call| call != Call::Exit) {}
    });
    assert_eq!(connection.unwrap().features().unwrap().path, "/far");
}

#[test]
fn server_that_refuses_is_not_used() {
    // One that ends, and one that waits for the client's end, for which the client once waited
    for waits in [false, true] {
        let connection = connect(move |stream| {
            let mut script = Script::new(stream);
            script.read();
            script.refuse(&crate::Error::new(ErrorCode::Stop, "stop file exists"));
            while waits && script.read().is_some() {}
        });
        assert_eq!(connection.err().map(|error| error.code), Some(ErrorCode::Stop));
    }
}

#[test]
fn refusal_was_lost_if_the_server_ended_before_the_next_request_was_sent() {
    let connection = connect_slowly(|stream| {
        let mut script = Script::new(stream);
        script.read();
        script.refuse(&crate::Error::new(ErrorCode::Access, "access denied"));
    });
    let error = connection.err().unwrap();
    assert_eq!(error.code, ErrorCode::Access, "{error}");
}

/// What this side takes from an error of a server with these capabilities about the space of its storage.
fn said_of_space(capabilities: Option<Capabilities>, text: &str, said: Option<NoSpace>) -> Option<NoSpace> {
    let error = crate::Error::new(ErrorCode::FileWrite, text);
    let answer = ErrorAnswer { no_space: said, ..ErrorAnswer::from(&error) };
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.begin(capabilities.as_ref().map(Capabilities::encode));
        script.read();
        script.refuse_as(Some(script.session()), &answer);
        while script.read().is_some_and(|call| call != Call::Exit) {}
    });
    no_space(&connection.unwrap().call(&Call::Noop).err().unwrap())
}

#[test]
fn full_disk_of_a_host_is_told_as_data_by_this_program_and_as_text_by_pgbackrest() {
    let own = || Some(Capabilities::own());
    let full = "unable to write '/repo/x': [28] No space left on device";
    let other = "unable to write '/repo/: [28] No space left on device'";
    let certain = Some(NoSpace::Certain);
    assert_eq!(said_of_space(None, full, None), certain);
    assert_eq!(said_of_space(Some(Capabilities::own().without(Capability::NoSpace)), full, None), certain);
    assert_eq!(said_of_space(None, other, None), None);
    assert_eq!(said_of_space(own(), full, None), None);
    assert_eq!(said_of_space(own(), other, certain), certain);
    assert_eq!(said_of_space(own(), other, Some(NoSpace::Possible)), Some(NoSpace::Possible));
}

/// What a server sends to a client that begins with these bytes, up to the end.
fn answers(requests: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (mut near, far) = UnixStream::pair().unwrap();
    let path = dir.path().to_owned();
    let (sender, ended) = channel();
    std::thread::spawn(move || sender.send(serve_data(far, &path).map_err(|error| error.code)));
    near.write_all(requests).unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    near.read_to_end(&mut all).unwrap();
    let _ = ended.recv().unwrap();
    let end = all.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert_eq!(end, 60, "the greeting is that of pgBackRest");
    all.split_off(end)
}

#[test]
fn client_of_an_earlier_version_gets_the_bytes_of_pgbackrest() {
    let mut requests = Call::Noop.encode(1, Dialect::NEWEST).to_vec();
    requests.extend(Call::Exit.encode(2, Dialect::NEWEST).to_vec());
    assert_eq!(answers(&requests), [0x94, 0x80, 0x00]);
    // What both sides have not agreed on is not known
    let mut requests = Call::Noop.encode(1, Dialect::NEWEST).to_vec();
    requests.extend(Call::JobNext.encode(2, Dialect::NEWEST).to_vec());
    let all = answers(&requests);
    let error = AnswerMessage::decode(&all[3..]).unwrap();
    assert_eq!(error.session, None);
    let id = StringId::encode("copy").unwrap().0;
    assert_eq!(error.outcome.unwrap_err().message, format!("invalid request 'copy' (0x{id:x})"));
}

#[test]
fn client_of_a_later_version_is_told_what_both_know() {
    let offer = |entries: &[(&str, u32)]| {
        let noop = protocol::RequestMessage {
            command: StringId::encode("noop").unwrap(),
            step: protocol::message::Step::Process,
            session: 1,
            is_open: false,
            parameters: None,
        };
        let mut parameters = list(entries);
        parameters.u32(2).text("of a later version");
        let mut requests = noop.encode_with(Some(parameters)).to_vec();
        requests.extend(Call::Exit.encode(2, Dialect::NEWEST).to_vec());
        let answer = answers(&requests);
        Capabilities::decode(AnswerMessage::decode(&answer).unwrap().outcome.unwrap()).unwrap()
    };
    let common = offer(&[("later", 3), ("copy-jobs", 8)]);
    assert!(common.has(Capability::CopyJobs) && !common.has(Capability::WholeWrites));
    assert_eq!(Capabilities::own().common(&common), common);
    assert!(offer(&[("later", 3)]).is_empty());
}

#[test]
fn error_of_a_server_that_gives_up_unasked_is_the_one_of_the_command() {
    let connection = connect(|stream| {
        let mut script = Script::new(stream);
        script.begin(None);
        script.give_up(&crate::Error::new(ErrorCode::FileRead, "timeout after 5000ms waiting for read from 'client'"));
        while script.read().is_some() {}
    });
    let connection = connection.unwrap();
    let begin = Instant::now();
    while !connection.has_ended() && begin.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = connection.check().unwrap_err();
    assert_eq!(error.code, ErrorCode::FileRead);
    assert!(error.message.contains("timeout after 5000ms waiting for read from 'client'"), "{}", error.message);
}

#[test]
fn only_the_first_who_waited_got_the_error_of_a_server_that_gave_up() {
    let connection = connect(|stream| {
        let mut script = Script::new(stream);
        script.begin(None);
        (0..3).for_each(|_| drop(script.read()));
        script.give_up(&crate::Error::new(ErrorCode::Term, "terminated on signal SIGTERM"));
    });
    let connection = connection.unwrap();
    let asked: Vec<_> = (0..3).map(|_| connection.send(&Call::Noop, None)).collect();
    for answer in asked {
        let error = answer.wait().err().unwrap();
        assert_eq!(error.code, ErrorCode::Term);
        assert!(error.message.ends_with("terminated on signal SIGTERM"), "{error}");
        assert!(!is_stop(&error), "nobody told this process to stop");
    }
    assert_eq!(connection.check().unwrap_err().code, ErrorCode::Term);
}

#[test]
fn connection_that_ends_because_this_process_is_to_stop_is_no_fault_of_the_host() {
    let connection = connect(|stream| {
        let mut script = Script::new(stream);
        script.begin(None);
        while script.read().is_some() {}
    });
    let (connection, cancel) = (connection.unwrap(), CancelToken::new());
    let asked = connection.send(&Call::Noop, None);
    cancel.cancel_by_signal(15);
    assert!(is_stop(&asked.wait_or_stop(&cancel).err().unwrap()));
    assert!(is_stop(&connection.check().unwrap_err()));
}

#[test]
fn idle_connection_with_a_short_time_limit_is_kept() {
    let limit = Duration::from_secs(5);
    let (sender, noops) = channel();
    let connection = connect_within(limit, move |stream| {
        // As a server of pgBackRest with the same time limit
        stream.set_read_timeout(Some(limit)).unwrap();
        let mut script = Script::new(stream);
        script.begin(None);
        while let Some(call) = script.read() {
            let is_noop = call == Call::Noop;
            script.answer(None);
            if is_noop && sender.send(()).is_err() {
                break;
            }
        }
    });
    let connection = connection.unwrap();
    for _ in 0..2 {
        noops.recv_timeout(Duration::from_secs(60)).expect("a request before the time limit");
    }
    assert!(!connection.has_ended());
}
