//! Time limits for requests that make no progress. A slow request that makes progress continues: an upload of many
//! megabytes over a slow line may take longer than any wait for an answer should.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpErrorKind, HttpRequestBody};
use tokio::time::{Instant, Sleep};

use super::failure::http_error;

/// Bytes of a body after which progress is noted.
const PIECE_SIZE_BYTES: usize = 64 << 10;

/// When a request last made progress.
#[derive(Debug)]
pub(super) struct BodyProgress {
    begun: Instant,
    /// Milliseconds since the beginning.
    last: AtomicU64,
}

impl BodyProgress {
    pub(super) fn begin() -> Arc<Self> {
        Arc::new(BodyProgress { begun: Instant::now(), last: AtomicU64::new(0) })
    }

    fn note(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// Completes when there was no progress for this long.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let end = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A request's body that is sent in pieces, each of which counts as progress.
pub(super) struct WatchedBody {
    body: HttpRequestBody,
    /// The rest of the part of the body that is being sent.
    current: Bytes,
    progress: Arc<BodyProgress>,
}

impl WatchedBody {
    pub(super) fn new(body: HttpRequestBody, progress: &Arc<BodyProgress>) -> Self {
        WatchedBody { body, current: Bytes::new(), progress: Arc::clone(progress) }
    }
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        this.progress.note();
        while this.current.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)).transpose()?.map(Frame::into_data) {
                None => return Poll::Ready(None),
                Some(data) => this.current = data.unwrap_or_default(),
            }
        }
        let size = this.current.len().min(PIECE_SIZE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(this.current.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.current.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint().exact().unwrap_or(0);
        SizeHint::with_exact(self.current.len() as u64 + rest)
    }
}

/// The error of a request or an answer that made no progress.
pub(super) fn timed_out(limit: Duration) -> HttpError {
    let text = format!("operation timed out: nothing was sent or received for {} second(s)", limit.as_secs_f64());
    HttpError::new(HttpErrorKind::Timeout, io::Error::new(io::ErrorKind::TimedOut, text))
}

/// An answer's body, each part of which must arrive in time. The time runs only while somebody waits for it.
pub(super) struct TimedBody {
    body: reqwest::Body,
    limit: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    pub(super) fn new(body: reqwest::Body, limit: Duration) -> Self {
        TimedBody { body, limit, end: None }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.end = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(http_error)));
        }
        let limit = this.limit;
        let end = this.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        end.as_mut().poll(context).map(|()| Some(Err(timed_out(limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::storage::http::HttpSettings;
    use crate::storage::http::service::Connector;
    use crate::storage::network;
    use object_store::client::{HttpRequest, HttpResponse};

    const LIMIT: Duration = Duration::from_secs(2);

    /// A server that does this with a connection.
    fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Otherwise the system buffers megabytes
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
        let address = format!("http://{}/key", listener.local_addr().unwrap());
        std::thread::spawn(move || serve(listener.accept().unwrap().0));
        address
    }

    async fn send(method: &str, address: &str, body: Vec<u8>) -> Result<HttpResponse, HttpError> {
        let settings = HttpSettings { host: None, verify_tls: true, ca_file: None, ca_path: None, io_timeout: LIMIT };
        let client = Connector::new(&settings).unwrap().client();
        let mut request = HttpRequest::new(body.into());
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = address.parse().unwrap();
        client.execute(request).await
    }

    fn read_head(connection: &mut TcpStream) {
        let mut last = [0; 4];
        while &last != b"\r\n\r\n" {
            last.rotate_left(1);
            connection.read_exact(&mut last[3..]).unwrap();
        }
    }

    #[test]
    fn slow_upload_may_take_longer_than_an_answer() {
        const SIZE: usize = 24 << 20;
        let address = server(|mut connection| {
            read_head(&mut connection);
            let mut part = vec![0; 256 << 10];
            for _ in 0..SIZE / part.len() {
                connection.read_exact(&mut part).unwrap();
                assert!(part.iter().all(|byte| *byte == 7));
                std::thread::sleep(Duration::from_millis(50));
            }
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        });
        let begin = Instant::now();
        let answer = network::handle().unwrap().block_on(send("PUT", &address, vec![7; SIZE]));
        assert!(answer.unwrap().status().is_success());
        assert!(begin.elapsed() > LIMIT * 2, "{:?}", begin.elapsed());
    }

    #[test]
    fn upload_that_stops_is_given_up() {
        let address = server(|mut connection| {
            read_head(&mut connection);
            connection.read_exact(&mut vec![0; 1 << 20]).unwrap();
            std::thread::sleep(LIMIT * 20);
        });
        let begin = Instant::now();
        let error = network::handle().unwrap().block_on(send("PUT", &address, vec![7; 24 << 20])).unwrap_err();
        assert_eq!(error.kind(), HttpErrorKind::Timeout);
        assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    }

    #[test]
    fn answer_that_stops_is_given_up() {
        let address = server(|mut connection| {
            read_head(&mut connection);
            connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
            std::thread::sleep(LIMIT * 20);
        });
        let begin = Instant::now();
        let body = network::handle().unwrap().block_on(async {
            let answer = send("GET", &address, Vec::new()).await.unwrap();
            // A slow reader has not waited
            tokio::time::sleep(LIMIT * 3 / 2).await;
            answer.into_body().bytes().await
        });
        assert_eq!(body.unwrap_err().kind(), HttpErrorKind::Timeout);
        assert!(begin.elapsed() >= LIMIT * 2, "{:?}", begin.elapsed());
    }
}
