//! Collects what successive records say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use repo_format::pg::PgVersion;
use repo_format::pg::wal::{PgTime, Record, RelFile, WalEvent, Xact};
use repo_format::wal_name::{Lsn, TimelineId};

use crate::Result;

/// Transactions in progress that created files or recorded a TRUNCATE. More are not remembered.
const OPEN_MAX: usize = 1 << 16;
/// Files and relations of one event that are kept. Their number is always known.
const LISTED_MAX: usize = 1000;
/// Memory for all events of a scan, in bytes.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// Something that happened at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalFact {
    /// Where its record begins. A recovery to this position that excludes it ends right before.
    pub lsn: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
    /// When; for a record without a time, `None`.
    pub time: Option<PgTime>,
    /// The last commit before it, among the records that were read with it.
    pub after: Option<PgTime>,
    /// What happened.
    pub kind: WalFactKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalFactKind {
    /// A named restore point was created.
    RestorePoint(String),
    /// The timeline began after this one.
    TimelineBegin(TimelineId),
    /// A transaction removed files of relations.
    Removed(Box<Removed>),
    /// A file became empty: a vacuum found no rows at all, or a transaction truncated a relation that it had created.
    Emptied(RelFile),
    /// The database with this oid was dropped.
    DatabaseDropped(u32),
}

/// Files of relations that a transaction removed when it was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The transaction.
    pub xid: u32,
    /// The oid of its database, if the record says so.
    pub database: Option<u32>,
    /// The files, at most a thousand.
    pub files: Vec<RelFile>,
    /// How many there are.
    pub file_total: usize,
    /// The oids of the relations that were dropped, at most a thousand; `None` if the version does not record them.
    pub dropped: Option<Vec<u32>>,
    /// The oids of the tables that were truncated, if `wal_level` was `logical`; at most a thousand.
    pub truncated: Vec<u32>,
    /// The oids of the relations whose definition changed, at most a thousand.
    pub changed: Vec<u32>,
    /// How many files the transaction created, as far as its records were read.
    pub created: u32,
    /// The numbers of its subtransactions, until what they did is added.
    pub(super) subtransactions: Vec<u32>,
}

/// What a removal of files was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovedBy {
    /// Relations were dropped.
    Drop,
    /// Tables were truncated.
    Truncate,
    /// Relations got new files: `TRUNCATE`, or a command that rewrites them, such as `VACUUM FULL`, `CLUSTER`,
    /// `REINDEX` and some forms of `ALTER TABLE`. WAL does not tell these apart unless `wal_level` is `logical`.
    TruncateOrRewrite,
}

impl RemovedBy {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            RemovedBy::Drop => "drop",
            RemovedBy::Truncate => "truncate",
            RemovedBy::TruncateOrRewrite => "truncate-or-rewrite",
        }
    }
}

impl Removed {
    /// What it was.
    pub fn by(&self) -> RemovedBy {
        match &self.dropped {
            Some(dropped) if !dropped.is_empty() => RemovedBy::Drop,
            _ if !self.truncated.is_empty() => RemovedBy::Truncate,
            // Before PostgreSQL 15 only new files tell that relations still exist
            None if self.created == 0 => RemovedBy::Drop,
            _ => RemovedBy::TruncateOrRewrite,
        }
    }
}

/// The transactions of one segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitTimes {
    /// How many were committed.
    pub commits: u64,
    /// The earliest time of a commit.
    pub first: Option<PgTime>,
    /// The latest time of a commit.
    pub last: Option<PgTime>,
}

impl CommitTimes {
    /// Adds those of another segment.
    pub(in crate::recovery_points) fn add(&mut self, other: CommitTimes) {
        self.commits += other.commits;
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
    }

    fn commit(&mut self, time: PgTime) {
        self.add(CommitTimes { commits: 1, first: Some(time), last: Some(time) });
    }
}

/// What a transaction in progress did.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenXact {
    pub(super) created: u32,
    pub(super) truncated: Vec<u32>,
}

/// Memory that is left for events.
pub(super) struct EventBudget {
    used: AtomicUsize,
    omitted: AtomicUsize,
}

impl EventBudget {
    pub(super) fn new() -> Self {
        EventBudget { used: AtomicUsize::new(0), omitted: AtomicUsize::new(0) }
    }

    /// Takes memory for an event. Counts it as omitted if there is none.
    fn take(&self, bytes: usize) -> bool {
        let has_room = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= EVENT_BYTES_MAX;
        if !has_room {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.omitted.fetch_add(1, Ordering::Relaxed);
        }
        has_room
    }

    /// How many events had no room.
    pub(super) fn omitted(&self) -> usize {
        self.omitted.load(Ordering::Relaxed)
    }
}

/// Collects the events of successive records.
pub(super) struct Collector<'a> {
    version: PgVersion,
    timeline: TimelineId,
    budget: &'a EventBudget,
    pub(super) facts: Vec<WalFact>,
    /// The transactions of the segment that is being read.
    pub(super) times: CommitTimes,
    pub(super) open: HashMap<u32, OpenXact>,
    last_commit: Option<PgTime>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(version: PgVersion, timeline: TimelineId, budget: &'a EventBudget) -> Self {
        Collector {
            version,
            timeline,
            budget,
            facts: Vec::new(),
            times: CommitTimes::default(),
            open: HashMap::new(),
            last_commit: None,
        }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// The record is damaged.
    pub(super) fn take(&mut self, record: &Record<'_>) -> Result<()> {
        let Some(event) = WalEvent::decode(record, self.version)? else { return Ok(()) };
        match event {
            WalEvent::Commit(xact) => {
                self.times.commit(xact.time);
                self.last_commit = Some(xact.time);
                self.commit(record.lsn, &xact);
            }
            WalEvent::Abort(xact) => drop(self.close(&xact)),
            WalEvent::FileCreated { xid, .. } => {
                if let Some(open) = self.open(xid) {
                    open.created = open.created.saturating_add(1);
                }
            }
            WalEvent::Truncate { xid, tables, .. } => {
                if let Some(open) = self.open(xid) {
                    let room = LISTED_MAX.saturating_sub(open.truncated.len());
                    open.truncated.extend(tables.iter().take(room));
                }
            }
            WalEvent::RestorePoint { time, name } => {
                let name = String::from_utf8_lossy(name).into_owned();
                self.add(record.lsn, Some(time), name.len(), WalFactKind::RestorePoint(name));
            }
            WalEvent::EndOfRecovery { time, previous, .. } => {
                self.add(record.lsn, Some(time), 0, WalFactKind::TimelineBegin(previous));
            }
            WalEvent::Checkpoint { timeline, previous, seconds, .. } if timeline != previous => {
                let time = PgTime::from_unix_micros(seconds.saturating_mul(1_000_000));
                self.add(record.lsn, Some(time), 0, WalFactKind::TimelineBegin(previous));
            }
            WalEvent::FileShortened { file, blocks: 0 } => self.add(record.lsn, None, 0, WalFactKind::Emptied(file)),
            WalEvent::DatabaseDropped { database } => {
                self.add(record.lsn, None, 0, WalFactKind::DatabaseDropped(database));
            }
            WalEvent::Checkpoint { .. } | WalEvent::FileShortened { .. } | WalEvent::Switch => {}
        }
        Ok(())
    }

    fn commit(&mut self, lsn: Lsn, xact: &Xact<'_>) {
        let open = self.close(xact);
        let file_total = xact.removed_files().len();
        if file_total == 0 {
            return;
        }
        let removed = Removed {
            xid: xact.xid,
            database: xact.database,
            files: xact.removed_files().take(LISTED_MAX).collect(),
            file_total,
            dropped: xact.dropped_relations().map(listed),
            truncated: open.truncated,
            changed: listed(xact.changed_relations()),
            created: open.created,
            subtransactions: xact.subtransactions().collect(),
        };
        let oids = removed.dropped.as_ref().map_or(0, Vec::len) + removed.truncated.len() + removed.changed.len();
        let bytes = removed.files.len() * size_of::<RelFile>() + (oids + removed.subtransactions.len()) * 4;
        self.add(lsn, Some(xact.time), size_of::<Removed>() + bytes, WalFactKind::Removed(Box::new(removed)));
    }

    fn add(&mut self, lsn: Lsn, time: Option<PgTime>, bytes: usize, kind: WalFactKind) {
        if self.budget.take(size_of::<WalFact>() + bytes) {
            let timeline = self.timeline;
            self.facts.push(WalFact { lsn, timeline, time, after: self.last_commit, kind });
        }
    }

    fn open(&mut self, xid: u32) -> Option<&mut OpenXact> {
        if self.open.len() >= OPEN_MAX && !self.open.contains_key(&xid) {
            return None;
        }
        Some(self.open.entry(xid).or_default())
    }

    /// Returns what a transaction and its subtransactions did.
    fn close(&mut self, xact: &Xact<'_>) -> OpenXact {
        if self.open.is_empty() {
            return OpenXact::default();
        }
        close(&mut self.open, std::iter::once(xact.xid).chain(xact.subtransactions()))
    }
}

/// Removes transactions, and returns what they did together.
pub(super) fn close(open: &mut HashMap<u32, OpenXact>, xids: impl Iterator<Item = u32>) -> OpenXact {
    let mut all = OpenXact::default();
    for one in xids.filter_map(|xid| open.remove(&xid)) {
        all.created = all.created.saturating_add(one.created);
        let room = LISTED_MAX.saturating_sub(all.truncated.len());
        all.truncated.extend(one.truncated.into_iter().take(room));
    }
    all
}

/// Returns the oids in order, each once.
fn listed(oids: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut oids: Vec<u32> = oids.take(LISTED_MAX * 8).collect();
    oids.sort_unstable();
    oids.dedup();
    oids.truncate(LISTED_MAX);
    oids
}
