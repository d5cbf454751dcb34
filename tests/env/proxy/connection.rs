//! One client's connection.

use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::http::{Body, Head, Wire, copy_body};
use super::tls::Stream;
use super::{Fault, Request, Shared};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// A client's connection and the corresponding connection to the server.
struct Connection<'a> {
    shared: &'a Shared,
    number: u64,
    client: Wire,
    socket: TcpStream,
    server: Option<(Wire, TcpStream)>,
}

/// Whether the connection serves another request.
type KeepAlive = bool;

/// Serves a client until the client, the server or a fault ends the connection.
pub fn serve(shared: &Shared, number: u64, socket: TcpStream) -> io::Result<()> {
    let client = wire(shared.tls.accept(socket.try_clone()?)?);
    let mut connection = Connection { shared, number, client, socket, server: None };
    while let Some(head) = Head::read(&mut connection.client)? {
        let mut words = head.line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        shared.begin();
        let mut request = Request { connection: number, method, path, status: 0, sent: 0, received: 0 };
        let result = connection.request(head, &mut request);
        shared.record(request);
        if !result? {
            break;
        }
    }
    Ok(())
}

fn wire(stream: Box<dyn Stream>) -> Wire {
    BufReader::with_capacity(BUFFER_BYTES, stream)
}

impl Connection<'_> {
    fn request(&mut self, mut head: Head, request: &mut Request) -> io::Result<KeepAlive> {
        let (latency, fault) = self.shared.decide(&format!("{} {}", request.method, request.path));
        let body = head.request_body()?;
        match &fault {
            Some(Fault::Reset) => return self.reset().map(|()| false),
            Some(Fault::Close) => return Ok(false),
            Some(Fault::Stall(time)) => std::thread::sleep(*time),
            _ => {}
        }
        std::thread::sleep(latency);
        if head.says("expect", "100-continue") {
            head.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("expect"));
            self.client.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if let Some(Fault::Answer { status, body: text }) = &fault {
            request.sent = copy_body(&mut self.client, &mut io::sink(), body, u64::MAX)?;
            request.status = *status;
            return self.answer(*status, text, request.method == "HEAD").map(|()| !head.says("connection", "close"));
        }
        self.pass_on(&head, body, request)?;
        match fault {
            Some(Fault::LoseReply) => {
                self.lose_answer(request)?;
                self.reset().map(|()| false)
            }
            fault => self.pass_back(request, fault == Some(Fault::CutBody)),
        }
    }

    /// An answer of the proxy's own.
    fn answer(&mut self, status: u16, body: &str, head_only: bool) -> io::Result<()> {
        let mut text = format!(
            "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if !head_only {
            text.push_str(body);
        }
        self.client.get_mut().write_all(text.as_bytes())?;
        self.client.get_mut().flush()
    }

    /// Ends the connection with a reset instead of in good order.
    fn reset(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
        // Linger has an effect only when the last copy of the socket is closed
        super::lock(&self.shared.open).remove(&self.number);
        Ok(())
    }

    fn pass_on(&mut self, head: &Head, body: Body, request: &mut Request) -> io::Result<()> {
        let (mut server, socket) = match self.server.take().filter(|(_, socket)| is_alive(socket)) {
            Some(server) => server,
            None => {
                let (stream, socket) = self.shared.tls.connect()?;
                self.shared.keep(self.number, &socket)?;
                (wire(stream), socket)
            }
        };
        head.write(server.get_mut())?;
        request.sent = copy_body(&mut self.client, server.get_mut(), body, u64::MAX)?;
        server.get_mut().flush()?;
        self.server = Some((server, socket));
        Ok(())
    }

    fn pass_back(&mut self, request: &mut Request, cut: bool) -> io::Result<KeepAlive> {
        let Some(server) = &mut self.server else { return Ok(false) };
        let to = self.client.get_mut();
        let keep_alive = pass_answer(self.shared, &mut server.0, to, request, cut)?;
        to.flush()?;
        Ok(keep_alive)
    }

    /// Reads the server's answer for nobody's use.
    fn lose_answer(&mut self, request: &Request) -> io::Result<()> {
        let Some((server, _)) = &mut self.server else { return Ok(()) };
        let head = Head::read(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        copy_body(server, &mut io::sink(), head.answer_body(&request.method)?, u64::MAX).map(drop)
    }
}

/// Forwards the server's answer, or the first half of it.
fn pass_answer(
    shared: &Shared,
    server: &mut Wire,
    to: &mut dyn Write,
    request: &mut Request,
    cut: bool,
) -> io::Result<KeepAlive> {
    let mut head = Head::read(server)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = head.answer_body(&request.method)?;
    if shared.options.upload_id_header
        && let Some(id) = upload_id(&head)
    {
        head.headers.push(("X-GUploader-UploadID".to_owned(), id.into_bytes()));
    }
    request.status = head.status()?;
    head.write(to)?;
    let limit = match body {
        _ if !cut => u64::MAX,
        Body::Length(size) => size / 2,
        Body::Chunked | Body::Open => 1,
    };
    request.received = copy_body(server, to, body, limit)?;
    Ok(!cut && body != Body::Open && !head.says("connection", "close"))
}

/// Returns whether the server has kept an idle connection. Anything that arrives unrequested is its end.
fn is_alive(socket: &TcpStream) -> bool {
    let peek = || {
        socket.set_nonblocking(true)?;
        let found = socket.peek(&mut [0]);
        socket.set_nonblocking(false)?;
        found
    };
    peek().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Returns the id of a resumable upload in an answer's `Location`.
fn upload_id(head: &Head) -> Option<String> {
    let (_, query) = head.header("location")?.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("upload_id=")).map(str::to_owned)
}
