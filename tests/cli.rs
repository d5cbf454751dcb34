//! The command line as programs and people see it.

mod version;
