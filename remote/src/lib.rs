//! Sessions with a process of pgBackRest on another host, over any pair of streams.
//!
//! Whoever starts SSH or TLS owns the streams, their time limits and the end of the process behind them. A stream that
//! fails with one of our own errors, such as the exit status of the process, gives its number to the call that waits.
//!
//! * [`Client`]: one connection. It checks the greeting and carries out requests.
//! * [`Reading`], [`Writing`], [`Database`]: sessions in a connection. Several can be open at the same time.
//!
//! A server answers in the order of the requests, so a client need not wait for one answer before it sends the next
//! request ([`Client::send`]). The answers of other sessions that come first are kept for them.

mod client;
mod link;

pub use client::{Client, Database, Reading, Ticket, Writing};
