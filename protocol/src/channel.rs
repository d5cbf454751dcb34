//! Several connections over one pair of streams, between two programs that both have
//! [`Capability::Channels`](crate::Capability::Channels).
//!
//! A client sends its first requests at once, before it knows whether the server agrees. So it says in the first `noop` how many
//! requests follow ([`Offer::following`](crate::Offer::following)), and sends nothing else until it has all their answers.
//! These requests and answers are no frames, and belong to channel 0. A server does not agree if more than [`FOLLOWING_MAX`]
//! would follow.
//!
//! After that, both sides send frames: a header and, in some, data. The connection that has agreed on
//! it goes on as channel 0, with all that the first requests have set up. The client opens further ones with growing numbers. Each
//! is a connection of its own that begins with first requests of its own: the server greets, and serves what it serves on channel 0,
//! without its locks. A server that can't serve one more ends it before it greets.
//!
//! A client sends no more on a channel than the server has room for: at first [`WINDOW_BYTES`], then what the server gives back. So
//! the server may read every frame although one channel is at work for long. The other direction needs no such limit, because a
//! server answers requests, which a client makes as it has room.
//!
//! | header | bytes |
//! | --- | --- |
//! | kind | 1 |
//! | number of the channel | 4, little-endian |
//! | value | 4, little-endian |
//!
//! | kind | from | value |
//! | --- | --- | --- |
//! | 1 open | client | 0 |
//! | 2 data | both | bytes that follow, 1 to [`FRAME_BYTES_MAX`] |
//! | 3 room | server | bytes that the client may send in addition |
//! | 4 end | both | 0; no more data follows |
//! | 5 abort | client | 0; the server stops what it does for the channel |

use crate::format_error;
use repo_format::Result;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 9;
/// The most data of a frame, in bytes. Frames of other channels come between.
pub const FRAME_BYTES_MAX: usize = 128 << 10;
/// What a client may send on a channel before the server gives anything back, in bytes.
pub const WINDOW_BYTES: u32 = 4 << 20;
/// The most channels of a connection at a time, with channel 0. Each is as much work for the server as a process of its own, so a
/// client that needs many more has several connections.
pub const CHANNELS_MAX: usize = 16;

/// The most requests that follow the one in which a client offers channels before there are frames.
pub const FOLLOWING_MAX: u32 = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A new channel.
    Open,
    /// So many bytes follow.
    Data(usize),
    /// The client may send so many bytes more.
    Room(u32),
    /// The last frame of a channel in this direction.
    End,
    /// The last frame of a channel whose client waits for nothing more.
    Abort,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it is.
    pub kind: FrameKind,
    /// The number of the channel.
    pub channel: u32,
}

impl FrameHeader {
    /// Returns the bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (kind, value) = match self.kind {
            FrameKind::Open => (1, 0),
            FrameKind::Data(size) => (2, u32::try_from(size).unwrap_or(u32::MAX)),
            FrameKind::Room(bytes) => (3, bytes),
            FrameKind::End => (4, 0),
            FrameKind::Abort => (5, 0),
        };
        let mut header = [kind; HEADER_BYTES];
        header[1..5].copy_from_slice(&self.channel.to_le_bytes());
        header[5..].copy_from_slice(&value.to_le_bytes());
        header
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] for a kind that does not exist, and for a size out of range.
    pub fn decode(header: [u8; HEADER_BYTES]) -> Result<Self> {
        let [kind, c0, c1, c2, c3, v0, v1, v2, v3] = header;
        let (channel, value) = (u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([v0, v1, v2, v3]));
        let kind = match (kind, value) {
            (1, 0) => FrameKind::Open,
            (2, 1..) if value as usize <= FRAME_BYTES_MAX => FrameKind::Data(value as usize),
            (3, 1..=WINDOW_BYTES) => FrameKind::Room(value),
            (4, 0) => FrameKind::End,
            (5, 0) => FrameKind::Abort,
            _ => return Err(format_error(format!("frame of kind {kind} with value {value} is not valid"))),
        };
        Ok(FrameHeader { kind, channel })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip_and_others_are_refused() {
        let kinds = [
            FrameKind::Open,
            FrameKind::Data(1),
            FrameKind::Data(FRAME_BYTES_MAX),
            FrameKind::Room(WINDOW_BYTES),
            FrameKind::End,
            FrameKind::Abort,
        ];
        for kind in kinds {
            let header = FrameHeader { kind, channel: 0x0102_0304 };
            assert_eq!(FrameHeader::decode(header.encode()).unwrap(), header);
        }
        assert_eq!(FrameHeader { kind: FrameKind::Data(258), channel: 7 }.encode(), [2, 7, 0, 0, 0, 2, 1, 0, 0]);
        let too_large = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        for (kind, value) in
            [(0, 0), (6, 0), (1, 1), (2, 0), (2, too_large), (3, 0), (3, WINDOW_BYTES + 1), (4, 1), (5, 1)]
        {
            let mut header = [kind, 0, 0, 0, 0, 0, 0, 0, 0];
            header[5..].copy_from_slice(&u32::to_le_bytes(value));
            assert!(FrameHeader::decode(header).is_err(), "kind {kind} value {value}");
        }
    }
}
