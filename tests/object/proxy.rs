//! Tests that the proxy of other tests works as they expect.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::env::proxy::{Fault, Proxy, ProxyOptions, Rule};

/// Answers every request of every connection with `hello`, until the test ends.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while socket.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let place = "location: http://x/upload?a=b&upload_id=ID42";
                        let _ = write!(socket, "HTTP/1.1 200 OK\r\n{place}\r\ncontent-length: 10\r\n\r\n0123456789");
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

/// Returns whether a text is a whole answer.
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.and_then(|(_, length)| length.trim().parse().ok()) == Some(body.len())
}

/// Sends one request and returns everything that arrives, up to the end of the answer or of the connection, or how that ended.
fn ask(proxy: &Proxy, path: &str) -> Result<String, std::io::ErrorKind> {
    let mut socket = TcpStream::connect(("127.0.0.1", proxy.port())).expect("proxy");
    write!(socket, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("request");
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("time limit");
    // The server keeps its connections, so only a fault ends this one
    while !is_whole(&text) {
        let read = socket.read(&mut buffer).map_err(|error| error.kind())?;
        if read == 0 {
            break;
        }
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("UTF-8"));
    }
    Ok(text)
}

#[test]
fn every_fault_is_what_it_says() {
    let proxy = Proxy::start(ProxyOptions { target: server(), upload_id_header: true, ..ProxyOptions::default() });
    let healthy = ask(&proxy, "/").expect("answer");
    assert!(healthy.ends_with("\r\n\r\n0123456789"), "{healthy}");
    assert!(healthy.contains("X-GUploader-UploadID: ID42\r\n"), "{healthy}");

    let fault = |fault| Rule::new(fault).on("^GET /bad").every(2).times(1);
    for (kind, expected) in [
        (Fault::Reset, Err(std::io::ErrorKind::ConnectionReset)),
        (Fault::LoseReply, Err(std::io::ErrorKind::ConnectionReset)),
        (Fault::Close, Ok(String::new())),
        (Fault::CutBody, Ok(healthy[..healthy.len() - 5].to_owned())),
        (Fault::Stall(Duration::from_millis(100)), Ok(healthy.clone())),
    ] {
        proxy.set_rules(vec![fault(kind.clone())]);
        assert_eq!(ask(&proxy, "/good"), Ok(healthy.clone()), "another request");
        assert_eq!(ask(&proxy, "/bad/1"), Ok(healthy.clone()), "the first request");
        assert_eq!(ask(&proxy, "/bad/2"), expected, "{kind:?}");
        assert_eq!(ask(&proxy, "/bad/3"), Ok(healthy.clone()), "the third request");
        assert_eq!(ask(&proxy, "/bad/4"), Ok(healthy.clone()), "no more than once");
        assert_eq!(proxy.hits(), [1]);
    }
    proxy.set_rules(vec![Rule::new(Fault::error(503))]);
    proxy.clear();
    let answer = ask(&proxy, "/path?query").expect("answer");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("<Code>SlowDown</Code>"), "{answer}");
    let log = proxy.requests();
    assert_eq!((log.len(), log[0].path.as_str(), log[0].status), (1, "/path?query", 503));
    assert_eq!(proxy.counts().into_iter().collect::<Vec<_>>(), [(("GET".to_owned(), 503), 1)]);
}

#[test]
fn latency_delays_each_request_and_serializes_none() {
    let latency = Duration::from_millis(500);
    let proxy = Proxy::start(ProxyOptions { target: server(), ..ProxyOptions::default() });
    proxy.set_latency(latency);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut socket = TcpStream::connect(("127.0.0.1", proxy.port())).expect("proxy");
                for _ in 0..2 {
                    write!(socket, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").expect("request");
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"0123456789") {
                        let mut byte = [0];
                        socket.read_exact(&mut byte).expect("answer");
                        answer.push(byte[0]);
                    }
                }
            });
        }
    });
    let took = start.elapsed();
    assert!(took >= latency * 2, "{took:?}");
    let connections: std::collections::BTreeSet<_> =
        proxy.requests().iter().map(|request| request.connection).collect();
    assert_eq!((proxy.requests().len(), connections.len()), (16, 8), "connections are kept");
}
