//! The command line as programs and people see it.

mod errors;
mod help;
mod log;
mod options;
mod version;
