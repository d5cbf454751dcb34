//! bz2: a bzip2 stream; there is no raw form.

use bzip2::{Action, Compress, Compression as Level, Decompress, Status};

use super::{Progress, reserve_output};
use crate::{Error, ErrorCode, Result};

/// A bzip2 encoder. The library's state serves one stream only, so each stream has a new one.
pub(super) struct Encoder {
    level: u32,
    state: Option<Compress>,
}

impl Encoder {
    pub(super) fn new(level: i32) -> Self {
        // The level was checked to be 1 to 9.
        Encoder { level: level.unsigned_abs(), state: None }
    }

    fn state(&mut self) -> &mut Compress {
        self.state.get_or_insert_with(|| Compress::new(Level::new(self.level), 0))
    }

    pub(super) fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let state = self.state();
        while !data.is_empty() {
            reserve_output(out);
            let before = state.total_in();
            state.compress_vec(data, out, Action::Run).map_err(bz2_error)?;
            // The state can't take more than it was given, so the difference fits.
            data = &data[(state.total_in() - before) as usize..];
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let state = self.state();
        loop {
            reserve_output(out);
            if state.compress_vec(&[], out, Action::Finish).map_err(bz2_error)? == Status::StreamEnd {
                break;
            }
        }
        self.reset();
        Ok(())
    }

    pub(super) fn reset(&mut self) {
        self.state = None;
    }
}

/// pgBackRest's message and code for a library error.
fn bz2_error(error: bzip2::Error) -> Error {
    let (code, text) = match error {
        bzip2::Error::Data => (ErrorCode::Format, "[-4] data error"),
        bzip2::Error::DataMagic => (ErrorCode::Format, "[-5] data error magic"),
        bzip2::Error::Sequence => (ErrorCode::Assert, "[-1] sequence error"),
        bzip2::Error::Param => (ErrorCode::Assert, "[-2] parameter error"),
    };
    Error::new(code, format!("bz2 error: {text}")).cause(error)
}

/// A bzip2 decoder.
pub(super) struct Decoder {
    state: Decompress,
    used: bool,
    done: bool,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder { state: Decompress::new(false), used: false, done: false }
    }

    pub(super) fn reset(&mut self) {
        // The library can't reset a state.
        if self.used {
            *self = Self::new();
        }
    }

    /// Whether the stream's end was seen. What follows it is not read, as in pgBackRest.
    pub(super) fn done(&self) -> bool {
        self.done
    }

    pub(super) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress> {
        self.used = true;
        let (total_in, total_out) = (self.state.total_in(), self.state.total_out());
        self.done = self.state.decompress(input, output).map_err(bz2_error)? == Status::StreamEnd;
        Ok(Progress {
            consumed: (self.state.total_in() - total_in) as usize,
            produced: (self.state.total_out() - total_out) as usize,
        })
    }
}
