//! The parts of HTTP/1.1 that forwarding requires: heads, and where bodies end.

use std::io::{self, BufRead, BufReader, Write};

use super::tls::Stream;

/// A head larger than this is an error.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// Maximum number of headers.
const HEADERS_MAX: usize = 100;

/// One side of a connection.
pub type Wire = BufReader<Box<dyn Stream>>;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Length(u64),
    Chunked,
    /// At the end of the connection.
    Open,
}

/// First line and headers of a message.
pub struct Head {
    /// The first line without its end.
    pub line: String,
    pub headers: Vec<(String, Vec<u8>)>,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Head {
    /// Reads a head; `None` if the connection ended in good order before it.
    pub fn read(wire: &mut Wire) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if wire.read_until(b'\n', &mut bytes)? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if bytes.len() > HEAD_MAX_BYTES {
                return Err(bad("head is too large"));
            }
        }
        let end = bytes.iter().position(|&byte| byte == b'\r').unwrap_or(0);
        let line = String::from_utf8(bytes[..end].to_vec()).map_err(|_| bad("first line"))?;
        let mut found = [httparse::EMPTY_HEADER; HEADERS_MAX];
        httparse::parse_headers(&bytes[end + 2..], &mut found).map_err(io::Error::other)?;
        let headers = found.iter().filter(|header| !header.name.is_empty());
        let headers = headers.map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
        Ok(Some(Self { line, headers }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(&found.1).ok()
    }

    /// Returns whether a header contains this word.
    pub fn says(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    }

    /// The status in an answer's first line.
    pub fn status(&self) -> io::Result<u16> {
        self.line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(|| bad("status"))
    }

    /// Returns how the body of a request is delimited.
    pub fn request_body(&self) -> io::Result<Body> {
        if self.says("transfer-encoding", "chunked") {
            return Ok(Body::Chunked);
        }
        let length = self.header("content-length").map_or(Ok(0), str::parse);
        length.map(Body::Length).map_err(|_| bad("content-length"))
    }

    /// Returns how the body of the answer to a request of this method is delimited.
    pub fn answer_body(&self, method: &str) -> io::Result<Body> {
        let status = self.status()?;
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(Body::Length(0));
        }
        if self.header("content-length").is_none() && !self.says("transfer-encoding", "chunked") {
            return Ok(Body::Open);
        }
        self.request_body()
    }

    pub fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut bytes = format!("{}\r\n", self.line).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        to.write_all(&bytes)
    }
}

/// Forwards a body, up to `limit` bytes, and returns how many bytes it was.
pub fn copy_body(from: &mut Wire, to: &mut dyn Write, body: Body, limit: u64) -> io::Result<u64> {
    match body {
        Body::Length(size) => copy(from, to, size.min(limit), true),
        Body::Open => copy(from, to, limit, false),
        Body::Chunked => copy_chunks(from, to, limit),
    }
}

fn copy(from: &mut Wire, to: &mut dyn Write, size: u64, whole: bool) -> io::Result<u64> {
    let mut done = 0;
    while done < size {
        let available = from.fill_buf()?;
        if available.is_empty() {
            return if whole { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(done) };
        }
        let count = usize::try_from(size - done).unwrap_or(usize::MAX).min(available.len());
        to.write_all(&available[..count])?;
        from.consume(count);
        done += count as u64;
    }
    Ok(done)
}

fn copy_chunks(from: &mut Wire, to: &mut dyn Write, limit: u64) -> io::Result<u64> {
    let mut done = 0;
    loop {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        to.write_all(&line)?;
        let digits = std::str::from_utf8(&line).map_err(|_| bad("chunk"))?.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| bad("size of a chunk"))?;
        if size == 0 {
            return copy_trailers(from, to).map(|()| done);
        }
        if size > limit - done {
            return Ok(done + copy(from, to, limit - done, true)?);
        }
        done += copy(from, to, size, true)?;
        copy(from, to, 2, true)?;
    }
}

fn copy_trailers(from: &mut Wire, to: &mut dyn Write) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&line)?;
        if line == b"\r\n" {
            return Ok(());
        }
    }
}
