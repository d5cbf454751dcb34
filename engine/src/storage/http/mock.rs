//! A server that says what a test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

/// A request as received by a server.
pub(crate) struct Received {
    /// Method, path and query.
    pub(crate) line: String,
    /// The headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// Starts a server that sends these answers one after another and returns the requests. An answer is the raw text on
/// the wire.
pub(crate) fn server(answers: Vec<String>) -> (String, mpsc::Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                lines.push(line.trim().to_owned());
            }
            let line = lines.remove(0).trim_end_matches(" HTTP/1.1").to_owned();
            let head = lines.join("\n").to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).unwrap();
            let _ = sender.send(Received { line, head, body });
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    (address, requests)
}

/// An answer after which the connection ends.
pub(crate) fn answer_with(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// A success.
pub(crate) fn answer(body: &str) -> String {
    answer_with("200 OK", "", body)
}
