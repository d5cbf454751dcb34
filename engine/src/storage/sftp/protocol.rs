//! The packets of the SSH file transfer protocol, version 3, which servers use.
//!
//! Source: draft-ietf-secsh-filexfer-02, and OpenSSH's `PROTOCOL` for the extensions. Handles are opaque bytes, not
//! text. Everything read from a server is bounded by its packet, and a packet by [`PACKET_SIZE_MAX_BYTES`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version that both sides must speak.
pub(super) const VERSION: u32 = 3;
/// The maximum packet size accepted from a server. OpenSSH sends no larger ones.
pub(super) const PACKET_SIZE_MAX_BYTES: usize = 256 * 1024;

/// Request and response types.
pub(super) mod kind {
    pub(crate) const INIT: u8 = 1;
    pub(crate) const VERSION: u8 = 2;
    pub(crate) const OPEN: u8 = 3;
    pub(crate) const CLOSE: u8 = 4;
    pub(crate) const READ: u8 = 5;
    pub(crate) const WRITE: u8 = 6;
    pub(crate) const LSTAT: u8 = 7;
    pub(crate) const OPENDIR: u8 = 11;
    pub(crate) const READDIR: u8 = 12;
    pub(crate) const REMOVE: u8 = 13;
    pub(crate) const MKDIR: u8 = 14;
    pub(crate) const RMDIR: u8 = 15;
    pub(crate) const STAT: u8 = 17;
    pub(crate) const RENAME: u8 = 18;
    pub(crate) const READLINK: u8 = 19;
    pub(crate) const STATUS: u8 = 101;
    pub(crate) const HANDLE: u8 = 102;
    pub(crate) const DATA: u8 = 103;
    pub(crate) const NAME: u8 = 104;
    pub(crate) const ATTRS: u8 = 105;
    pub(crate) const EXTENDED: u8 = 200;
    pub(crate) const EXTENDED_REPLY: u8 = 201;
}

/// Flags of an open request.
pub(super) mod open {
    pub(crate) const READ: u32 = 0x01;
    pub(crate) const WRITE: u32 = 0x02;
    pub(crate) const CREATE: u32 = 0x08;
    pub(crate) const TRUNCATE: u32 = 0x10;
    pub(crate) const EXCLUSIVE: u32 = 0x20;
}

/// Status codes with a special meaning here.
pub(super) mod status {
    pub(crate) const OK: u32 = 0;
    pub(crate) const EOF: u32 = 1;
    pub(crate) const NO_SUCH_FILE: u32 = 2;
    pub(crate) const FAILURE: u32 = 4;
    pub(crate) const NO_SUCH_PATH: u32 = 10;
    pub(crate) const FILE_ALREADY_EXISTS: u32 = 11;
    pub(crate) const NO_SPACE: u32 = 14;
    pub(crate) const QUOTA_EXCEEDED: u32 = 15;
}

/// Returns the name of a status as in pgBackRest's messages. Those from 9 on belong to later versions of the protocol,
/// but some servers send them anyway.
pub(super) fn status_name(code: u32) -> &'static str {
    match code {
        1 => "eof",
        2 => "no such file",
        3 => "permission denied",
        4 => "failure",
        5 => "bad message",
        6 => "no connection",
        7 => "connection lost",
        8 => "operation unsupported",
        9 => "invalid handle",
        10 => "no such path",
        11 => "file already exists",
        12 => "write protect",
        13 => "no media",
        14 => "no space on filesystem",
        15 => "quota exceeded",
        16 => "unknown principal",
        17 => "lock conflict",
        18 => "directory not empty",
        19 => "not a directory",
        20 => "invalid filename",
        21 => "link loop",
        _ => "unknown error",
    }
}

/// A server's information about a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SftpAttributes {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Type and permissions as in `st_mode`.
    pub(super) mode: Option<u32>,
    /// Modification time, seconds since the epoch.
    pub(super) modified: Option<u32>,
}

impl SftpAttributes {
    /// Returns whether it is a directory, as far as the server says.
    pub(super) fn is_directory(&self) -> bool {
        self.is_kind(MODE_PATH)
    }

    /// Returns whether it is a symbolic link, as far as the server says.
    pub(super) fn is_link(&self) -> bool {
        self.is_kind(MODE_LINK)
    }

    fn is_kind(&self, kind: u32) -> bool {
        self.mode.is_some_and(|mode| mode & MODE_TYPE == kind)
    }
}

/// The part of a mode that contains the type.
pub(super) const MODE_TYPE: u32 = 0o170_000;
/// A regular file.
pub(super) const MODE_FILE: u32 = 0o100_000;
/// A directory.
pub(super) const MODE_PATH: u32 = 0o040_000;
/// A symbolic link.
pub(super) const MODE_LINK: u32 = 0o120_000;

const ATTR_SIZE: u32 = 0x01;
const ATTR_OWNER: u32 = 0x02;
const ATTR_PERMISSIONS: u32 = 0x04;
const ATTR_TIMES: u32 = 0x08;
const ATTR_EXTENDED: u32 = 0x8000_0000;

/// A response without its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Response {
    /// The outcome of a request.
    Status { code: u32, message: String },
    /// An open file or directory.
    Handle(Bytes),
    /// Data that was read.
    Data(Bytes),
    /// Names in a directory, or of a link's destination.
    Names(Vec<(Bytes, SftpAttributes)>),
    /// Attributes of a file.
    Attributes(SftpAttributes),
    /// An extension's own answer.
    Extended(Bytes),
}

/// A request under construction.
pub(super) struct Request(BytesMut);

impl Request {
    /// Creates a request of this type. Its number is filled in when it is sent.
    pub(super) fn new(kind: u8) -> Self {
        let mut bytes = BytesMut::with_capacity(64);
        bytes.put_u32(0);
        bytes.put_u8(kind);
        bytes.put_u32(0);
        Request(bytes)
    }

    /// A request of an extension.
    pub(super) fn extended(name: &str) -> Self {
        Request::new(kind::EXTENDED).bytes(name.as_bytes())
    }

    /// Appends a number.
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.put_u32(value);
        self
    }

    /// Appends a large number.
    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.put_u64(value);
        self
    }

    /// Appends a string. Paths and chunks are far below 4 GiB, so the length fits.
    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.0.reserve(4 + value.len());
        self.0.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.put_slice(value);
        self
    }

    /// Appends attributes that say nothing, or only permissions.
    pub(super) fn attributes(self, mode: Option<u32>) -> Self {
        match mode {
            None => self.u32(0),
            Some(mode) => self.u32(ATTR_PERMISSIONS).u32(mode),
        }
    }

    /// The packet, with its number and its length.
    pub(super) fn packet(mut self, id: u32) -> Bytes {
        let size = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&size.to_be_bytes());
        self.0[5..9].copy_from_slice(&id.to_be_bytes());
        self.0.freeze()
    }
}

/// A packet that does not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

fn take_u32(packet: &mut Bytes) -> Result<u32, Malformed> {
    packet.try_get_u32().map_err(|_| Malformed)
}

fn take_u64(packet: &mut Bytes) -> Result<u64, Malformed> {
    packet.try_get_u64().map_err(|_| Malformed)
}

fn take_bytes(packet: &mut Bytes) -> Result<Bytes, Malformed> {
    let size = take_u32(packet)? as usize;
    if size > packet.len() {
        return Err(Malformed);
    }
    Ok(packet.split_to(size))
}

fn take_attributes(packet: &mut Bytes) -> Result<SftpAttributes, Malformed> {
    let flags = take_u32(packet)?;
    let mut attributes = SftpAttributes::default();
    if flags & ATTR_SIZE != 0 {
        attributes.size = Some(take_u64(packet)?);
    }
    if flags & ATTR_OWNER != 0 {
        take_u64(packet)?;
    }
    if flags & ATTR_PERMISSIONS != 0 {
        attributes.mode = Some(take_u32(packet)?);
    }
    if flags & ATTR_TIMES != 0 {
        take_u32(packet)?;
        attributes.modified = Some(take_u32(packet)?);
    }
    if flags & ATTR_EXTENDED != 0 {
        for _ in 0..take_u32(packet)? {
            take_bytes(packet)?;
            take_bytes(packet)?;
        }
    }
    Ok(attributes)
}

/// Parses a response: the number of its request, and the content. `packet` excludes its length.
pub(crate) fn response(mut packet: Bytes) -> Result<(u32, Response), Malformed> {
    let kind = packet.try_get_u8().map_err(|_| Malformed)?;
    let id = take_u32(&mut packet)?;
    let response = match kind {
        kind::STATUS => {
            let code = take_u32(&mut packet)?;
            // Old servers omit the text
            let message = take_bytes(&mut packet).unwrap_or_default();
            Response::Status { code, message: String::from_utf8_lossy(&message).into_owned() }
        }
        kind::HANDLE => Response::Handle(take_bytes(&mut packet)?),
        kind::DATA => Response::Data(take_bytes(&mut packet)?),
        kind::NAME => {
            let count = take_u32(&mut packet)?;
            let mut names = Vec::new();
            for _ in 0..count {
                let name = take_bytes(&mut packet)?;
                // The line that `ls -l` would print
                take_bytes(&mut packet)?;
                names.push((name, take_attributes(&mut packet)?));
            }
            Response::Names(names)
        }
        kind::ATTRS => Response::Attributes(take_attributes(&mut packet)?),
        kind::EXTENDED_REPLY => Response::Extended(packet),
        _ => return Err(Malformed),
    };
    Ok((id, response))
}

/// Parses the answer of `statvfs@openssh.com`: whether the file system has no block left for others than root, or no room
/// for another file.
pub(crate) fn is_exhausted(mut answer: Bytes) -> Result<bool, Malformed> {
    // Sizes of blocks and fragments, blocks, free blocks, those for others than root, files, free ones, those for others
    let mut numbers = [0; 8];
    for number in &mut numbers {
        *number = take_u64(&mut answer)?;
    }
    let [_, _, blocks, _, blocks_left, files, _, files_left] = numbers;
    // Some file systems have no limits, and 0 of all
    Ok(blocks > 0 && blocks_left == 0 || files > 0 && files_left == 0)
}

/// Parses the answer to the first packet: the version and the names of the extensions.
pub(crate) fn version(mut packet: Bytes) -> Result<(u32, Vec<String>), Malformed> {
    if packet.try_get_u8() != Ok(kind::VERSION) {
        return Err(Malformed);
    }
    let version = take_u32(&mut packet)?;
    let mut extensions = Vec::new();
    while packet.has_remaining() {
        let name = take_bytes(&mut packet)?;
        take_bytes(&mut packet)?;
        extensions.push(String::from_utf8_lossy(&name).into_owned());
    }
    Ok((version, extensions))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn request_packet_has_length_type_number_and_fields() {
        let packet = Request::new(kind::OPEN).bytes(b"/a").u32(open::READ).attributes(None).packet(7);
        assert_eq!(&packet[..], b"\0\0\0\x13\x03\0\0\0\x07\0\0\0\x02/a\0\0\0\x01\0\0\0\0");
    }

    #[test]
    fn names_with_every_attribute_are_read() {
        let mut packet = BytesMut::new();
        packet.put_u8(kind::NAME);
        packet.put_u32(9);
        packet.put_u32(1);
        for text in ["file", "-rw-r----- file"] {
            packet.put_u32(text.len() as u32);
            packet.put_slice(text.as_bytes());
        }
        packet.put_u32(ATTR_SIZE | ATTR_OWNER | ATTR_PERMISSIONS | ATTR_TIMES | ATTR_EXTENDED);
        packet.put_u64(1 << 40);
        packet.put_u64(0);
        packet.put_u32(0o100640);
        packet.put_u32(1);
        packet.put_u32(2);
        packet.put_u32(1);
        packet.put_u64(0);
        let expected = SftpAttributes { size: Some(1 << 40), mode: Some(0o100640), modified: Some(2) };
        let names = vec![(Bytes::from_static(b"file"), expected)];
        assert_eq!(response(packet.freeze()), Ok((9, Response::Names(names))));
    }

    #[test]
    fn file_system_without_blocks_or_files_left_is_exhausted() {
        let answer = |numbers: [u64; 8]| {
            let mut bytes = BytesMut::new();
            numbers.into_iter().chain([0, 0, 255]).for_each(|number| bytes.put_u64(number));
            is_exhausted(bytes.freeze())
        };
        assert_eq!(answer([4096, 4096, 100, 20, 10, 50, 9, 9]), Ok(false));
        assert_eq!(answer([4096, 4096, 100, 20, 0, 50, 9, 9]), Ok(true));
        assert_eq!(answer([4096, 4096, 100, 20, 10, 50, 9, 0]), Ok(true));
        assert_eq!(answer([4096, 4096, 100, 20, 10, 0, 0, 0]), Ok(false));
        assert_eq!(answer([4096, 4096, 0, 0, 0, 0, 0, 0]), Ok(false));
        assert_eq!(is_exhausted(Bytes::from_static(&[0; 63])), Err(Malformed));
    }

    #[test]
    fn status_without_text_is_read() {
        let packet = Bytes::from_static(b"\x65\0\0\0\x01\0\0\0\x02");
        assert_eq!(response(packet), Ok((1, Response::Status { code: 2, message: String::new() })));
    }

    #[test]
    fn length_beyond_the_packet_is_malformed() {
        assert_eq!(response(Bytes::from_static(b"\x67\0\0\0\x01\xff\xff\xff\xffx")), Err(Malformed));
        assert_eq!(response(Bytes::from_static(b"\x68\0\0\0\x01\xff\xff\xff\xff")), Err(Malformed));
        assert_eq!(version(Bytes::from_static(b"\x02\0\0\0\x03\0\0\0\x09x")), Err(Malformed));
    }

    #[test]
    fn extensions_of_the_version_are_read() {
        let packet = Bytes::from_static(b"\x02\0\0\0\x03\0\0\0\x05a@b.c\0\0\0\x011");
        assert_eq!(version(packet), Ok((3, vec!["a@b.c".to_owned()])));
    }

    proptest! {
        #[test]
        fn data_response_is_what_was_sent(id: u32, data: Vec<u8>) {
            let packet = Request::new(kind::DATA).bytes(&data).packet(id);
            prop_assert_eq!(response(packet.slice(4..)), Ok((id, Response::Data(data.into()))));
        }

        #[test]
        fn any_bytes_are_read_without_panic(kind in 100u8..202, rest: Vec<u8>) {
            let mut packet = vec![kind];
            packet.extend(rest);
            let _ = version(packet.clone().into());
            if let Ok((_, Response::Names(names))) = response(packet.clone().into()) {
                prop_assert!(names.len() <= packet.len());
            }
        }
    }
}
