//! The one asynchronous runtime, shared by all object stores and SFTP servers of a process. It starts when the first is
//! opened.
//!
//! Everything else is synchronous work on threads. Only requests on the network are asynchronous, and this runtime
//! drives them. A local repository never starts it.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Error, ErrorCode, Result};

/// Threads that drive all requests. TLS and copying need little time compared with hashing and compression, which have
/// their own threads.
const NETWORK_THREADS: usize = 2;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// Returns the runtime's handle, and starts the runtime with the first call.
///
/// # Errors
/// [`ErrorCode::Kernel`] if its threads can't be started.
pub fn handle() -> Result<Handle> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime.handle().clone());
    }
    let failed = |error| Error::from_io(ErrorCode::Kernel, "unable to start network threads", error);
    check_threads().map_err(failed)?;
    let build =
        || Builder::new_multi_thread().worker_threads(NETWORK_THREADS).thread_name("rbr-network").enable_all().build();
    let runtime = std::panic::catch_unwind(build)
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::WouldBlock)))
        .map_err(failed)?;
    // If two threads race, the loser's runtime is dropped here, outside of any asynchronous context
    Ok(RUNTIME.get_or_init(|| runtime).handle().clone())
}

/// Checks that the system provides the threads that the runtime needs, and one for resolving names. The runtime panics
/// if it can't start one.
fn check_threads() -> io::Result<()> {
    let gate = Mutex::new(());
    std::thread::scope(|scope| {
        // Held until all threads have started
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..=NETWORK_THREADS {
            let wait = || drop(gate.lock());
            std::thread::Builder::new().spawn_scoped(scope, wait)?;
        }
        Ok(())
    })
}

/// The methods that requests are counted by.
const METHODS: [&str; 6] = ["DELETE", "GET", "HEAD", "POST", "PUT", SFTP];
/// Requests of any type to SFTP servers.
const SFTP: &str = "SFTP";

static REQUESTS: [AtomicU64; METHODS.len()] = [const { AtomicU64::new(0) }; METHODS.len()];

/// Returns how many requests this process has sent, by method, including retries. Methods without requests are omitted.
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
