//! Clients that do not behave.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{HostOptions, Hosts};
use crate::env::Tool;

const RBR: HostOptions<'static> = HostOptions { server: Tool::Rbr, ..HostOptions::USUAL };

fn connect(hosts: &Hosts) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", hosts.port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("time limit");
    stream
}

#[test]
fn rubbish_and_silence_cost_little_and_others_are_served() {
    let Some(mut hosts) = Hosts::start(RBR) else { return };
    hosts.rbr(&["stanza-create"]).success();
    let before = hosts.server.memory_kib();
    // More than the server lets in at a time
    let silent: Vec<TcpStream> = (0..250).map(|_| connect(&hosts)).collect();
    let begin = Instant::now();
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 65536], &[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc], &[0xff; 9]] {
        // Among too many, a connection is closed without an answer
        let _ = connect(&hosts).write_all(rubbish);
    }
    let slow = connect(&hosts);
    let mut slow_writer = slow.try_clone().expect("clone");
    std::thread::spawn(move || {
        // One byte of a long message at a time
        for byte in [0x16u8, 3, 1, 0x3f, 0, 1].into_iter().chain(std::iter::repeat(0)) {
            if slow_writer.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    for mut silent in silent {
        // The end of the stream, or a reset
        let _ = silent.read(&mut [0; 16]);
    }
    let mut slow = slow;
    let _ = slow.read(&mut [0; 16]);
    assert!(begin.elapsed() < Duration::from_secs(50), "{:?}", begin.elapsed());
    hosts.rbr(&["info"]).success().says("status: error (no valid backups)");
    let grown = hosts.server.memory_kib().saturating_sub(before);
    assert!(grown < 60 << 10, "{grown} KiB:\n{}", hosts.server.log());
    let log = hosts.server.log();
    assert!(log.contains("nothing came within 30 seconds") && !log.contains("timeout after 0ms"), "{log}");
    assert!(hosts.server.is_running());
}

#[test]
fn look_whether_the_port_is_open_leaves_no_line_in_the_log() {
    let Some(mut hosts) = Hosts::start(RBR) else { return };
    let before = hosts.server.log();
    for _ in 0..5 {
        drop(connect(&hosts));
        let half = connect(&hosts);
        half.shutdown(std::net::Shutdown::Write).expect("shutdown");
        assert_eq!((&half).read(&mut [0; 16]).expect("end"), 0);
    }
    // What is no look is still an error
    connect(&hosts).write_all(b"GET / HTTP/1.1\r\n\r\n").expect("write");
    let end = Instant::now() + Duration::from_secs(20);
    while !hosts.server.log().contains("ERROR") {
        assert!(Instant::now() < end && hosts.server.is_running(), "{}", hosts.server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = hosts.server.log();
    assert_eq!(log.matches("ERROR").count(), before.matches("ERROR").count() + 1, "{log}");
    hosts.rbr(&["stanza-create"]).success();
}

#[test]
fn client_that_disappears_leaves_no_process_and_no_lock() {
    let Some(hosts) = Hosts::start(RBR) else { return };
    hosts.rbr(&["stanza-create"]).success();
    for _ in 0..3 {
        let mut backup = hosts.scenario.start_command(Tool::Rbr, &["backup", "--type=full"]);
        let end = Instant::now() + Duration::from_secs(30);
        while !backup.log().contains("execute") && !backup.log().contains("backup start archive") {
            assert!(backup.is_running() && Instant::now() < end, "{}", backup.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        backup.kill();
    }
    let end = Instant::now() + Duration::from_secs(30);
    while hosts.server.child_count() > 0 {
        assert!(Instant::now() < end, "{}", hosts.server.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    hosts.rbr(&["backup", "--type=full"]).success();
}
