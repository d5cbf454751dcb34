//! JSON as used in the repository's files.
//!
//! The writer is byte-exact: no whitespace, object keys in ascending byte order and without escapes. In strings it
//! escapes only `"`, `\` and the five short control escapes. The reader only moves forward, like pgBackRest's: looking
//! for a key skips smaller keys and stops at the first greater one, so an object whose keys are out of order loses them
//! in the same way (source: pgBackRest `src/common/type/json.c`). Numbers are integers.

mod read;
mod write;

pub use read::{Reader, validate};
pub use write::{ArrayWriter, ObjectWriter, check_key, write_string};

/// How deep arrays and objects may nest, as in pgBackRest. Its files need three levels. Without a limit, a hostile file
/// could exhaust memory.
pub const DEPTH_MAX: usize = 32;

/// The longest object key in bytes that pgBackRest can write back (a longer one ends it with an assert error).
pub const KEY_SIZE_MAX: usize = 66;
