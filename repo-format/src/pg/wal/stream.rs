//! Finds the records of successive pages. Records go on over pages and segments.

use super::check_version;
use super::page::{LongHeader, PageHeader};
use super::record::{Body, RECORD_HEADER_BYTES, Record, RecordHeader};
use crate::pg::{PgVersion, u32_at};
use crate::wal_name::{Lsn, TimelineId, WalSegment};
use crate::{Error, ErrorCode, Result};

/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;
/// Bytes of a record that are kept in memory if it goes on over pages. A commit that drops 50,000 tables has half of them.
const BODY_KEPT_MAX: usize = 16 << 20;

/// Where a stream begins, from the first page of its first segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The version that wrote it.
    pub version: PgVersion,
    /// The segment.
    pub segment: WalSegment,
    /// What the page says.
    pub long: LongHeader,
}

impl StreamStart {
    /// Reads the first page of a segment, or its beginning.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it is not the first page of a segment of this version; [`ErrorCode::VersionNotSupported`]
    /// for versions whose records are not known.
    pub fn parse(page: &[u8], segment: WalSegment, version: PgVersion) -> Result<Self> {
        check_version(version)?;
        let header = PageHeader::parse(page, version)?;
        let long = header.long.ok_or_else(|| {
            Error::new(ErrorCode::Format, format!("WAL segment {segment} begins without a long header"))
        })?;
        long.check()?;
        Ok(StreamStart { version, segment, long })
    }

    /// The position of the first page.
    pub fn lsn(&self) -> Lsn {
        self.segment.start_lsn(self.long.segment_bytes)
    }
}

/// Finds the records of successive pages.
#[derive(Debug)]
pub struct RecordStream {
    start: StreamStart,
    /// Pages may be of this timeline or of earlier ones.
    timeline: TimelineId,
    /// Records that begin here or later are not read.
    end: Lsn,
    next_page: Lsn,
    state: State,
    /// Where the record before began.
    previous: Option<Lsn>,
    records: u64,
    /// Where the record that was read last ends.
    last_end: Lsn,
}

#[derive(Debug)]
enum State {
    /// Before the first page.
    Begin,
    /// A record began before the first page. So many bytes of it follow.
    Skip(u32),
    /// A record may begin.
    Between,
    /// The rest of the segment is unused.
    Switched,
    /// A record is not complete yet.
    Record(Box<Pending>),
    /// The end was reached.
    Done,
}

/// A record that goes on on the next page.
#[derive(Debug)]
struct Pending {
    lsn: Lsn,
    size: u32,
    /// Bytes that were read, with the header.
    got: u32,
    header_bytes: [u8; RECORD_HEADER_BYTES],
    header: Option<RecordHeader>,
    crc: u32,
    body: Vec<u8>,
}

/// Where reading a page stands.
struct Cursor<'p> {
    page: &'p [u8],
    offset: usize,
}

impl<'p> Cursor<'p> {
    fn rest(&self) -> &'p [u8] {
        self.page.get(self.offset..).unwrap_or_default()
    }

    /// Takes up to so many bytes.
    fn take(&mut self, len: usize) -> &'p [u8] {
        let rest = self.rest();
        let taken = rest.get(..len).unwrap_or(rest);
        self.offset += taken.len();
        taken
    }

    fn align(&mut self) {
        self.offset = self.offset.next_multiple_of(ALIGNMENT).min(self.page.len());
    }
}

impl RecordStream {
    /// Reads from a segment on, up to this position.
    pub fn new(start: StreamStart, end: Lsn) -> Self {
        RecordStream {
            start,
            timeline: start.segment.timeline,
            end,
            next_page: start.lsn(),
            state: State::Begin,
            previous: None,
            records: 0,
            last_end: start.lsn(),
        }
    }

    /// The position of the page that is read next. After a record that ends its segment, this is the next segment.
    pub fn next_page(&self) -> Lsn {
        self.next_page
    }

    /// Returns whether all records were read that begin before the end.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Returns where a record begins that goes on on the next page.
    pub fn pending(&self) -> Option<Lsn> {
        match &self.state {
            State::Record(pending) => Some(pending.lsn),
            _ => None,
        }
    }

    /// Returns where the record that was read last ends, or where the first segment begins. A recovery gets so far if the
    /// stream ends with an error.
    pub fn last_record_end(&self) -> Lsn {
        self.last_end
    }

    /// Bytes of a page.
    pub fn page_bytes(&self) -> usize {
        self.start.long.page_bytes as usize
    }

    /// How many records were read.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Pages of the next segment may be of this timeline.
    pub fn follow(&mut self, timeline: TimelineId) {
        self.timeline = timeline;
    }

    /// Reads a page. Calls `on_event` for each record that ends on it and may be an event
    /// ([`RecordHeader::is_event`]).
    ///
    /// # Errors
    /// [`ErrorCode::Format`], with the position, where the page or a record is not what PostgreSQL can have written. A
    /// recovery ends there, and so does the stream. Also the errors of `on_event`.
    pub fn page(&mut self, page: &[u8], on_event: &mut dyn FnMut(&Record<'_>) -> Result<()>) -> Result<()> {
        let lsn = self.next_page;
        if self.is_done() {
            return Ok(());
        }
        let header = PageHeader::parse(page, self.start.version)
            .and_then(|header| self.check(&header, page).map(|()| header))
            .map_err(|error| fault(lsn, &error.message))?;
        self.next_page = Lsn(lsn.0.saturating_add(page.len() as u64));
        let mut cursor = Cursor { page, offset: header.size };
        self.go_on(&header, lsn)?;
        if let State::Skip(left) = self.state {
            let taken = cursor.take(left as usize).len();
            self.state = match left.saturating_sub(taken as u32) {
                0 => State::Between,
                left => State::Skip(left),
            };
            cursor.align();
        }
        if matches!(self.state, State::Record(_)) {
            self.continue_record(&mut cursor, on_event)?;
        }
        while matches!(self.state, State::Between) && cursor.offset < page.len() {
            let record_lsn = Lsn(lsn.0.saturating_add(cursor.offset as u64));
            if record_lsn >= self.end {
                self.state = State::Done;
                break;
            }
            self.begin_record(record_lsn, &mut cursor, on_event)?;
        }
        if self.next_page >= self.end && matches!(self.state, State::Between | State::Switched | State::Skip(_)) {
            self.state = State::Done;
        }
        Ok(())
    }

    /// Checks the header of a page.
    fn check(&self, header: &PageHeader, page: &[u8]) -> Result<()> {
        let long = &self.start.long;
        let bad = |text: String| Err(Error::new(ErrorCode::Format, text));
        if page.len() != long.page_bytes as usize {
            return bad(format!("WAL page has {} bytes but should have {}", page.len(), long.page_bytes));
        }
        if header.lsn != self.next_page {
            return bad(format!("WAL page says that it is at {}", header.lsn));
        }
        if header.timeline > self.timeline {
            return bad(format!("WAL page is of timeline {}, which is after {}", header.timeline, self.timeline));
        }
        let is_first = header.lsn.0.is_multiple_of(u64::from(long.segment_bytes));
        if header.long.is_some() != is_first {
            return bad("only the first page of a segment has a long header".to_owned());
        }
        match header.long {
            Some(other) if other != *long => bad("WAL page is of another cluster or has other sizes".to_owned()),
            _ => Ok(()),
        }
    }

    /// Compares what the page before left incomplete with what this page says.
    fn go_on(&mut self, header: &PageHeader, lsn: Lsn) -> Result<()> {
        let left = match &self.state {
            State::Begin => header.continued_bytes,
            State::Skip(left) => *left,
            State::Record(pending) => pending.size.saturating_sub(pending.got),
            State::Between | State::Switched | State::Done => 0,
        };
        if left != 0 && header.is_overwritten && header.continued_bytes == 0 {
            // The server crashed in the middle of a record. It never counted.
            self.state = State::Between;
            return Ok(());
        }
        if header.continued_bytes != left {
            let text = format!("{left} bytes of a record should follow, not {}", header.continued_bytes);
            return Err(fault(lsn, &text));
        }
        if matches!(self.state, State::Begin | State::Switched) {
            self.state = if left == 0 { State::Between } else { State::Skip(left) };
        }
        Ok(())
    }

    fn begin_record(
        &mut self,
        lsn: Lsn,
        cursor: &mut Cursor<'_>,
        on_event: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let rest = cursor.rest();
        if let Some(bytes) = rest.first_chunk::<RECORD_HEADER_BYTES>() {
            let header = self.header(bytes, lsn)?;
            if let Some(body) = rest.get(RECORD_HEADER_BYTES..header.size as usize) {
                cursor.offset += header.size as usize;
                cursor.align();
                if !header.has_crc(crc32c::crc32c(body)) {
                    return Err(fault(lsn, "the record does not match its CRC"));
                }
                let body = if header.is_event() { Body::Whole(body) } else { Body::Unneeded };
                return self.finish(lsn, self.lsn_at(cursor), &header, body, on_event);
            }
        }
        // A record begins at a multiple of 8 bytes, so its size is complete
        let size = u32_at(rest, 0).unwrap_or(0);
        if (size as usize) < RECORD_HEADER_BYTES {
            return Err(fault(lsn, &format!("a record of {size} bytes is impossible")));
        }
        self.state = State::Record(Box::new(Pending {
            lsn,
            size,
            got: 0,
            header_bytes: [0; RECORD_HEADER_BYTES],
            header: None,
            crc: 0,
            body: Vec::new(),
        }));
        self.continue_record(cursor, on_event)
    }

    /// Takes what the page has of the pending record.
    fn continue_record(
        &mut self,
        cursor: &mut Cursor<'_>,
        on_event: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let State::Record(mut pending) = std::mem::replace(&mut self.state, State::Between) else { return Ok(()) };
        let got = pending.got as usize;
        if let Some(missing) = pending.header_bytes.get_mut(got..).filter(|missing| !missing.is_empty()) {
            let bytes = cursor.take(missing.len());
            missing[..bytes.len()].copy_from_slice(bytes);
            pending.got += bytes.len() as u32;
            if pending.got as usize == RECORD_HEADER_BYTES {
                pending.header = Some(self.header(&pending.header_bytes, pending.lsn)?);
            }
        }
        let Some(header) = pending.header else {
            self.state = State::Record(pending);
            return Ok(());
        };
        let bytes = cursor.take((pending.size - pending.got) as usize);
        pending.crc = crc32c::crc32c_append(pending.crc, bytes);
        pending.got += bytes.len() as u32;
        if header.is_event() && pending.body.len() + bytes.len() <= BODY_KEPT_MAX {
            pending.body.extend_from_slice(bytes);
        }
        if pending.got < pending.size {
            self.state = State::Record(pending);
            return Ok(());
        }
        cursor.align();
        if !header.has_crc(pending.crc) {
            return Err(fault(pending.lsn, "the record does not match its CRC"));
        }
        let body = match (header.is_event(), pending.body.len() == header.body_bytes() as usize) {
            (false, _) => Body::Unneeded,
            (true, true) => Body::Whole(&pending.body),
            (true, false) => Body::TooLarge,
        };
        self.finish(pending.lsn, self.lsn_at(cursor), &header, body, on_event)
    }

    /// Parses and checks a header.
    fn header(&self, bytes: &[u8; RECORD_HEADER_BYTES], lsn: Lsn) -> Result<RecordHeader> {
        let header = RecordHeader::parse(bytes).ok_or_else(|| fault(lsn, "no record begins here"))?;
        let is_right = match self.previous {
            Some(previous) => header.previous == previous,
            None => header.previous < lsn,
        };
        match is_right {
            true => Ok(header),
            false => Err(fault(lsn, &format!("the record says that {} is before it", header.previous))),
        }
    }

    /// Returns the position of a cursor on the page that was read last.
    fn lsn_at(&self, cursor: &Cursor<'_>) -> Lsn {
        Lsn(self.next_page.0.saturating_sub((cursor.page.len() - cursor.offset) as u64))
    }

    fn finish(
        &mut self,
        lsn: Lsn,
        end: Lsn,
        header: &RecordHeader,
        body: Body<'_>,
        on_event: &mut dyn FnMut(&Record<'_>) -> Result<()>,
    ) -> Result<()> {
        self.previous = Some(lsn);
        self.records += 1;
        self.state = State::Between;
        let mut end = end;
        if header.is_switch() {
            let next_segment = end.0.checked_next_multiple_of(u64::from(self.start.long.segment_bytes));
            end = Lsn(next_segment.unwrap_or(u64::MAX));
            self.next_page = end;
            self.state = State::Switched;
        }
        self.last_end = end;
        match header.is_event() {
            true => on_event(&Record { lsn, end, header, body }),
            false => Ok(()),
        }
    }
}

fn fault(lsn: Lsn, text: &str) -> Error {
    Error::new(ErrorCode::Format, format!("WAL at {lsn}: {text}"))
}
