//! JSON as the repository's files have it.
//!
//! Writing is byte-exact: no whitespace, object keys in ascending byte order and without escapes, in strings only `"`, `\` and
//! the five short control escapes are escaped and every other byte is written as it is. Reading walks forward only, as
//! pgBackRest does: looking for a key skips the smaller ones before it and stops at the first greater one, so an object whose
//! keys are out of order loses them in the same way (source: pgBackRest `src/common/type/json.c`). Numbers are integers only.

mod read;
mod write;

pub use read::{Reader, validate};
pub use write::{ArrayWriter, ObjectWriter, check_key, write_string};

/// How deep arrays and objects may nest, as in pgBackRest. Its files need three levels; without a limit a hostile file could
/// exhaust memory.
pub const DEPTH_MAX: usize = 32;

/// The longest object key in bytes that pgBackRest can write again (it stops with an assert error on a longer one).
pub const KEY_SIZE_MAX: usize = 66;
