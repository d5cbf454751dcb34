//! The one asynchronous runtime, shared by all object stores and SFTP servers of a process and started when the first is opened.
//!
//! Everything else is straight-line work on threads; only requests on the network are asynchronous, and they are driven
//! here. A local repository never starts it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Error, ErrorCode, Result, slots};

/// Threads that drive all requests. TLS and copying cost little beside hashing and compression, which have threads of
/// their own.
const NETWORK_THREADS: usize = 2;

/// How long a request that waits takes at most to see that the process is to end.
pub(crate) const STOP_POLL: Duration = Duration::from_millis(200);

/// Whether the process is to end.
static STOPPING: AtomicBool = AtomicBool::new(false);

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime's handle, starting it if this is the first call.
///
/// # Errors
/// [`ErrorCode::Kernel`] when its threads can't be started.
pub fn handle() -> Result<Handle> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .thread_name("rbr-network")
        .enable_all()
        .build()
        .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to start network threads", error))?;
    // Where two threads race, the loser's runtime is dropped here, outside of any asynchronous context
    Ok(RUNTIME.get_or_init(|| runtime).handle().clone())
}

/// Waits for something on the network, without keeping others from computing.
pub(crate) fn wait<R>(runtime: &Handle, request: impl Future<Output = R>) -> R {
    slots::waiting(|| runtime.block_on(request))
}

/// Ends requests to object stores that wait for a server, now that the process is to end, and has no more of them tried again. What
/// makes progress goes on, and so do short requests, by which a command cleans up.
pub fn stop() {
    STOPPING.store(true, Ordering::Relaxed);
}

/// Whether [`stop`] was called.
pub(crate) fn is_stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Waits until a time, or until the process is to end.
pub(crate) async fn pause_until(end: Instant) {
    while !is_stopping() && Instant::now() < end {
        tokio::time::sleep_until(end.min(Instant::now() + STOP_POLL).into()).await;
    }
}

/// The methods that requests are counted by.
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "POST", "PUT", SFTP];
/// Requests to SFTP servers, of whatever kind.
const SFTP: &str = "SFTP";

static REQUESTS: [AtomicU64; METHODS.len()] = [const { AtomicU64::new(0) }; METHODS.len()];

/// How many requests this process has sent, by method; retries are counted too. Methods without any are left out.
pub fn request_counts() -> Vec<(&'static str, u64)> {
    let counts = REQUESTS.iter().map(|count| count.load(Ordering::Relaxed));
    METHODS.into_iter().zip(counts).filter(|&(_, count)| count > 0).collect()
}

/// Counts one request.
pub(crate) fn count(method: &str) {
    if let Some(at) = METHODS.iter().position(|known| *known == method) {
        REQUESTS[at].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one request to an SFTP server.
pub(crate) fn count_sftp_request() {
    count(SFTP);
}
