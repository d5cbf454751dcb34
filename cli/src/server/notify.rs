//! Messages to the service manager (`sd_notify`).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use engine::system_text;
use rustix::time::{ClockId, clock_gettime};

/// The server accepts connections.
pub(super) fn ready() {
    send("READY=1");
}

/// The server reads its configuration again. [`ready`] follows.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
}

/// The server ends.
pub(super) fn stopping() {
    send("STOPPING=1");
}

/// Sends a message if there is a service manager. One that does not listen is no reason to fail.
fn send(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(&socket, message) {
        engine::debug!("unable to notify the service manager: {}", system_text(&error));
    }
}

fn send_to(socket: &OsStr, message: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}
