//! The command line as programs and people see it.

mod configuration;
mod diagnose;
mod errors;
mod help;
mod log;
mod options;
mod programs;
mod report;
mod threads;
mod version;
