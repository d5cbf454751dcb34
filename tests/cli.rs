//! The command line as programs and people see it.

mod log;
mod options;
mod version;
