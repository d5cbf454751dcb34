//! Reading from streams, which signals may interrupt.

use std::io::{self, ErrorKind, Read};

/// Reads up to the buffer's size. Returns the number of bytes, which is 0 at the end.
///
/// # Errors
/// The error of the read, except interruptions.
pub fn read_some(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until the buffer is full or the stream ends. Returns the number of bytes.
///
/// # Errors
/// The same as [`read_some`].
pub fn read_full(reader: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match read_some(reader, &mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one byte at a time, after an interruption each.
    struct Interrupted<'a>(&'a [u8], bool);

    impl Read for Interrupted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let size = buffer.len().min(1);
            self.0.read(&mut buffer[..size])
        }
    }

    #[test]
    fn interrupted_reads_are_repeated() {
        let mut buffer = [0; 4];
        assert_eq!(read_some(&mut Interrupted(b"abc", false), &mut buffer).unwrap(), 1);
        let mut stream = Interrupted(b"abcdef", false);
        assert_eq!(read_full(&mut stream, &mut buffer).unwrap(), 4);
        assert_eq!(&buffer, b"abcd");
        assert_eq!(read_full(&mut stream, &mut buffer).unwrap(), 2);
        assert_eq!(read_full(&mut stream, &mut buffer).unwrap(), 0);
    }
}
