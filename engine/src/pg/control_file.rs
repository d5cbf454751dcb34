//! Reads `global/pg_control` of a data directory whose server may be running.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use repo_format::pg::control::{CONTROL_DATA_SIZE, CONTROL_FILE_SIZE, PgControl};
use repo_format::pg::version::PgVersion;

use super::data_dir::open_file;
use crate::{Error, ErrorCode, Result};

/// The path of the file below the data directory.
pub(crate) const FILE_NAME: &str = "global/pg_control";

/// How long to wait for a write of the server to complete.
const SETTLE: Duration = Duration::from_millis(50);

/// Reads and checks `pg_control`.
///
/// # Errors
/// The file can't be read, or has the same damaged content twice in a row.
pub fn read(pg_path: &Path, force: Option<PgVersion>) -> Result<PgControl> {
    Ok(read_bytes(pg_path, force)?.0)
}

/// Reads and checks `pg_control`, and returns the complete file as it is stored: [`CONTROL_FILE_SIZE`] bytes, zero
/// after the data.
///
/// # Errors
/// The same as [`read`].
pub(crate) fn read_bytes(pg_path: &Path, force: Option<PgVersion>) -> Result<(PgControl, Vec<u8>)> {
    let path = pg_path.join(FILE_NAME);
    let mut open = || Ok(open_file(&path)?.map(|file| Box::new(file) as Box<dyn Read>));
    read_valid(&path, &mut open, force)
}

/// Reads the file until it is valid or does not change any more. On some file systems, a read that meets a write of the
/// server returns half of both. There is no time limit, because the server does not write forever.
///
/// `open` opens the file, and returns `None` if it is missing.
///
/// # Errors
/// The same as [`read`].
pub(crate) fn read_valid(
    path: &Path,
    open: &mut dyn FnMut() -> Result<Option<Box<dyn Read>>>,
    force: Option<PgVersion>,
) -> Result<(PgControl, Vec<u8>)> {
    let mut before: Option<Vec<u8>> = None;
    loop {
        let mut bytes = read_once(path, open()?)?;
        match PgControl::parse(&bytes, force) {
            Ok(control) => {
                bytes.resize(CONTROL_FILE_SIZE, 0);
                return Ok((control, bytes));
            }
            Err(error) if before.as_ref() == Some(&bytes) => return Err(error),
            Err(_) => before = Some(bytes),
        }
        std::thread::sleep(SETTLE);
    }
}

fn read_once(path: &Path, file: Option<Box<dyn Read>>) -> Result<Vec<u8>> {
    let name = path.display();
    let Some(file) = file else {
        return Err(Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{name}' for read")));
    };
    let mut bytes = Vec::with_capacity(CONTROL_DATA_SIZE);
    file.take(CONTROL_DATA_SIZE as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::from_io(ErrorCode::FileRead, format!("unable to read '{name}'"), e))?;
    if bytes.len() < CONTROL_DATA_SIZE {
        let text = format!("unable to read {CONTROL_DATA_SIZE} byte(s) from '{name}'");
        return Err(Error::new(ErrorCode::FileRead, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_file_missing_or_short_or_damaged_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), None).unwrap_err().code, ErrorCode::FileMissing);
        std::fs::create_dir(dir.path().join("global")).unwrap();
        std::fs::write(dir.path().join(FILE_NAME), [0; 100]).unwrap();
        assert_eq!(read(dir.path(), None).unwrap_err().code, ErrorCode::FileRead);
        std::fs::write(dir.path().join(FILE_NAME), [0; CONTROL_FILE_SIZE]).unwrap();
        assert_eq!(read(dir.path(), None).unwrap_err().code, ErrorCode::VersionNotSupported);
    }
}
