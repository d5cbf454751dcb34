//! PostgreSQL's on-disk structures, as far as backup and restore read them.

pub mod version;

pub use version::PgVersion;
