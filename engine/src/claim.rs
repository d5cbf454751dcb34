//! Claims, which keep two hosts from working on the backups of one stanza at the same time.
//!
//! Lock files ([`crate::lock`]) do that for the processes of one host. Pods and cluster nodes share a repository but no
//! lock path, so the repository itself has to show who is working in it:
//!
//! * A command writes a claim `backup/<stanza>/backup.claim.<id>` and then looks for claims of others. Each command
//!   writes before it looks, so at least one of two sees the other. A command that sees another's claim removes its
//!   own. This requires only that a listing shows what was written before it.
//! * The command renews its claim every [`Timing::interval`]. No clocks are compared: others check whether the content
//!   changes.
//! * A claim whose process is known to be dead (same boot, same namespace of process ids) no longer counts. Any other
//!   claim is watched: if it changes, its holder is alive. If it does not change for [`Timing::patience`], it is
//!   removed.
//! * The directory of the backup gets a claim of its own, written once. pgBackRest does not know claims. When it
//!   resumes or removes the directory, it also removes this file, and the backup fails instead of writing a manifest
//!   that names missing files.
//! * Before a change, a claim that was not renewed recently is confirmed ([`Claim::guard`]): if it still exists, it is
//!   written again, and then nobody else may have a claim.

mod guard;
mod holder;
mod lease;
#[cfg(test)]
mod tests;
pub(crate) mod unclaimed;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use protocol::message::NoSpace;
use repo_format::cipher;
use repo_format::claim::{self as format, Holder};
use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};

use self::guard::GuardedStorage;
use self::holder::Fate;
use self::lease::{ClaimPlace, Lease};
use crate::repo::info_files;
use crate::storage::full::no_space;
use crate::storage::{self, Entry};
use crate::system_text;
use crate::{CancelToken, Error, ErrorCode, Repo, Result};

/// How often a claim is retried if another claim exists at the same time that is removed too.
const TRIES_MAX: u64 = 8;

/// How often claims are renewed and how long others wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// The time between two renewals.
    pub interval: Duration,
    /// How long a claim must not change until its holder counts as dead.
    pub patience: Duration,
    /// How long a claim is trusted after it was seen. Much shorter than others wait.
    pub trusted: Duration,
    /// The time between two checks of another's claim.
    pub look: Duration,
}

impl Timing {
    /// The timing of all hosts.
    pub const DEFAULT: Self = Timing {
        interval: Duration::from_secs(20),
        patience: Duration::from_secs(120),
        trusted: Duration::from_secs(40),
        look: Duration::from_secs(2),
    };
}

/// The identity of the process that claims.
#[derive(Clone, Debug)]
pub struct Claimant {
    exec_id: String,
    holder: Holder,
    timing: Timing,
}

impl Claimant {
    /// Creates the identity of the calling process, with the id that it shares with the processes that it starts.
    pub fn this_process(exec_id: &str) -> Self {
        // The id becomes part of a name, and may come from the command line
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
        Claimant {
            exec_id: exec_id.chars().map(safe).collect(),
            holder: holder::this_process(),
            timing: Timing::DEFAULT,
        }
    }
}

#[cfg(test)]
impl Claimant {
    /// Creates the identity of a process on a host of its own.
    pub(crate) fn on_host(host: &str, timing: Timing) -> Self {
        let holder = Holder {
            boot: format!("boot of {host}"),
            host: host.to_owned(),
            process_id: 77,
            process_namespace: "pid:[1]".into(),
            process_start: 5,
        };
        Claimant { exec_id: format!("77-{host}"), holder, timing }
    }
}

/// A claim on a stanza in one repository. Dropping it removes the claim.
pub struct Claim {
    lease: Arc<Lease>,
    beat: Option<Beat>,
    /// Another part of this process holds it.
    joined: bool,
    /// The directory of the stanza's backups, listed while the claim was held.
    listing: Vec<Entry>,
}

impl Claim {
    /// Claims the stanza for a command.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if another process is working on it, and errors of listing and writing.
    pub fn acquire(repo: &Repo, stanza: &Stanza, who: &Claimant, command: &str, cancel: &CancelToken) -> Result<Self> {
        let listing = list(repo, stanza)?;
        Self::acquire_after(listing, Others { repo, stanza, who, cancel }, command)
    }

    /// Like [`Claim::acquire`], with the first listing of the stanza's directory.
    fn acquire_after(mut listing: Option<Vec<Entry>>, others: Others<'_>, command: &str) -> Result<Self> {
        let Others { repo, stanza, who, cancel } = others;
        for attempt in 1..=TRIES_MAX {
            match &listing {
                Some(listing) => others.settle(listing)?,
                // Do not create a directory for a stanza that does not exist
                None => drop(info_files::load_backup_info(repo, stanza)?),
            }
            let lease = Arc::new(new_lease(repo, stanza, who, command)?);
            if let Err(error) = lease.put() {
                // The claim may have been written despite the error
                drop(lease.remove());
                return Err(error);
            }
            let mut claim = Claim { lease, beat: None, joined: false, listing: Vec::new() };
            claim.listing = list(repo, stanza)?.unwrap_or_default();
            if !has_other(&claim.listing, &who.exec_id) {
                claim.beat = Some(Beat::start(&claim.lease, who.timing.interval)?);
                return Ok(claim);
            }
            // Both came at the same time. Each withdraws and retries after a random time
            drop(claim);
            cancel.sleep(pause(who.timing.look, attempt)?)?;
            listing = list(repo, stanza)?;
        }
        Err(Error::new(ErrorCode::LockAcquire, format!("unable to claim stanza '{stanza}' on {}", repo.name()))
            .hint("do many processes start at the same time?"))
    }

    /// Like [`Claim::acquire`], for a command that frees space. On a full disk the command continues without a claim if
    /// nobody else has one.
    ///
    /// # Errors
    /// The same as [`Claim::acquire`].
    pub fn acquire_to_remove(
        repo: &Repo,
        stanza: &Stanza,
        who: &Claimant,
        command: &str,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let listing = list(repo, stanza)?;
        Self::acquire_to_remove_after(listing, Others { repo, stanza, who, cancel }, command)
    }

    fn acquire_to_remove_after(listing: Option<Vec<Entry>>, others: Others<'_>, command: &str) -> Result<Self> {
        let Others { repo, stanza, who, cancel } = others;
        let mut result = Self::acquire_after(listing, others, command);
        if result.as_ref().err().and_then(no_space) == Some(NoSpace::Possible) {
            // Some servers have one status for everything. Another reason may have passed in the meantime
            cancel.sleep(who.timing.look)?;
            result = Self::acquire_after(list(repo, stanza)?, others, command);
        }
        match result {
            Err(error) if no_space(&error).is_some() => {
                let listing = others.settled_listing()?;
                crate::warn!("unable to claim stanza '{stanza}' on {}, go on without a claim: {error}", repo.name());
                let lease = new_lease(repo, stanza, who, command)?.unclaimed();
                Ok(Claim { lease: Arc::new(lease), beat: None, joined: true, listing })
            }
            result => result,
        }
    }

    /// Like [`Claim::acquire_to_remove`], but joins the claim that this process already has, if any. It must be one that is
    /// renewed: the joined claim is not.
    ///
    /// # Errors
    /// The same as [`Claim::acquire`].
    pub fn join(repo: &Repo, stanza: &Stanza, who: &Claimant, command: &str, cancel: &CancelToken) -> Result<Self> {
        let listing = list(repo, stanza)?;
        let own = format::stanza_claim(stanza, &who.exec_id)?;
        match listing {
            Some(listing) if listing.iter().any(|entry| entry.name == own.file_name()) => {
                let lease = Arc::new(new_lease(repo, stanza, who, command)?);
                Ok(Claim { lease, beat: None, joined: true, listing })
            }
            listing => Self::acquire_to_remove_after(listing, Others { repo, stanza, who, cancel }, command),
        }
    }

    /// Returns the names in the directory of the stanza's backups when the claim was acquired. As long as the claim is
    /// held, only pgBackRest changes them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.listing.iter().map(|entry| entry.name.as_str())
    }

    /// Returns whether the repository has the claim. It has none if a full disk did not allow one.
    pub(crate) fn is_held(&self) -> bool {
        self.lease.is_claimed()
    }

    /// Marks the directory of a backup as created under this claim.
    ///
    /// # Errors
    /// The mark can't be written.
    pub fn mark(&self, label: &BackupLabel) -> Result<()> {
        self.lease.mark(label)
    }

    /// Removes the mark when the backup is complete.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn unmark(&self) -> Result<()> {
        self.lease.unmark()
    }

    /// Returns when the claim was last renewed, by the clock of the store. This is not later than now. Returns 0
    /// without a claim.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if the claim is lost, and errors of checking.
    pub fn renewed_at(&self) -> Result<i64> {
        self.lease.renewed_at()
    }

    /// Returns when the claim was acquired, by the clock of the store. Returns 0 without a claim.
    ///
    /// # Errors
    /// The same as [`Claim::renewed_at`].
    pub fn acquired_at(&self) -> Result<i64> {
        let own = self.listing.iter().find(|entry| entry.name == self.lease.file_name());
        own.map_or_else(|| self.lease.renewed_at(), |own| Ok(own.modified))
    }

    /// Checks that the claim and the mark exist.
    ///
    /// # Errors
    /// [`ErrorCode::LockAcquire`] if they do not, and errors of checking.
    pub fn check(&self) -> Result<()> {
        self.lease.check()
    }

    /// Fails if the claim is known to be lost. Asks the repository only if that takes no time.
    ///
    /// # Errors
    /// The same as [`Claim::check`].
    pub fn glance(&self, repo: &Repo) -> Result<()> {
        match repo.storage.concurrency().waits() {
            true if self.lease.is_lost() => Err(self.lease.lost()),
            true => Ok(()),
            false => self.check(),
        }
    }

    /// Returns a repository that refuses changes once the claim is lost.
    pub fn guard(&self, repo: &Repo) -> Repo {
        let storage = GuardedStorage::new(Arc::clone(&repo.storage), Arc::clone(&self.lease));
        Repo { storage: Arc::new(storage), ..repo.clone() }
    }

    /// Removes a file even if the claim may be lost, because the file must not stay.
    ///
    /// # Errors
    /// It can't be removed.
    pub fn withdraw(&self, path: &RepoPath) -> Result<()> {
        self.lease.storage().remove(path)
    }

    /// Keeps the claim in the repository, because it is removed together with everything else.
    pub fn leave(mut self) {
        self.beat = None;
        self.joined = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Stop renewing before the removal, or the claim would come back
        self.beat = None;
        if !self.joined
            && let Err(error) = self.lease.remove()
        {
            crate::warn!("unable to remove the claim on the stanza: {error}");
        }
    }
}

/// Claims the stanzas at this path of a repository, whose content is about to be removed. Claims themselves can always
/// be removed.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if another process is working on them, and errors of checking.
pub fn claim_path(repo: &Repo, path: &RepoPath, who: &Claimant, cancel: &CancelToken) -> Result<Vec<Claim>> {
    if format::claimant(path.file_name()).is_some() {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = path.as_str().split('/').collect();
    let top = RepoPath::new(layout::BACKUP)?;
    let (only, label) = match parts.as_slice() {
        [""] | [layout::BACKUP | layout::ARCHIVE] => (None, None),
        [layout::ARCHIVE, stanza, ..] | [layout::BACKUP, stanza] => (Some(*stanza), None),
        [layout::BACKUP, stanza, label, ..] => (Some(*stanza), label.parse::<BackupLabel>().ok()),
        _ => return Ok(Vec::new()),
    };
    let mut seen: Vec<Stanza> = Vec::new();
    // Listed anew for each, because stanzas may be created while another's claim is watched
    let next = |seen: &[Stanza]| -> Result<Option<Stanza>> {
        let names = only.map_or_else(|| repo.storage.names(&top), |only| Ok(Some(vec![only.to_owned()])))?;
        let mut stanzas = names.iter().flatten().filter_map(|name| name.parse::<Stanza>().ok());
        Ok(stanzas.find(|stanza| !seen.contains(stanza)))
    };
    let mut claims = Vec::new();
    // Only a path that contains a backup's directory, or is inside one, can affect a backup without a claim
    let above = parts.len() < 3 && parts[0] != layout::ARCHIVE;
    while let Some(stanza) = next(&seen)? {
        if repo.storage.names(&layout::backup_stanza(&stanza))?.is_some() {
            claims.push(Claim::acquire_to_remove(repo, &stanza, who, "repo-rm", cancel)?);
        }
        if above || label.is_some() {
            unclaimed::watch_all(repo, &stanza, label.as_ref(), cancel)?;
        }
        seen.push(stanza);
    }
    if above {
        // The claims are removed with everything else, and must not come back. What the caller can't remove goes with them
        claims.iter_mut().for_each(|claim| claim.beat = None);
    }
    Ok(claims)
}

fn new_lease(repo: &Repo, stanza: &Stanza, who: &Claimant, command: &str) -> Result<Lease> {
    let claim = format::ClaimFile {
        beat: 0,
        command: command.to_owned(),
        holder: who.holder.clone(),
        since: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    };
    let path = format::stanza_claim(stanza, &who.exec_id)?;
    let place =
        ClaimPlace { storage: Arc::clone(&repo.storage), cipher: repo.cipher.clone(), stanza: stanza.clone(), path };
    Ok(Lease::new(place, who.exec_id.clone(), claim, who.timing))
}

/// Returns a random time up to a few checks, longer with each attempt.
fn pause(look: Duration, attempt: u64) -> Result<Duration> {
    let mut random = [0; 2];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {}", system_text(&e))))?;
    Ok(look.mul_f64(f64::from(u16::from_be_bytes(random)) / f64::from(u16::MAX) * attempt as f64))
}

/// The thread that renews a claim.
struct Beat {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Beat {
    fn start(lease: &Arc<Lease>, interval: Duration) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (lease, stopped) = (Arc::clone(lease), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("claim".to_owned()).spawn(move || {
            let (flag, changed) = &*stopped;
            loop {
                let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
                let wait = changed.wait_timeout_while(guard, interval, |stop| !*stop);
                if *wait.unwrap_or_else(PoisonError::into_inner).0 {
                    return;
                }
                // A failed renewal may succeed the next time. Commands check the claim before changes
                if let Err(error) = lease.renew() {
                    crate::debug!("unable to renew claim: {error}");
                }
            }
        });
        let thread = thread.map_err(|e| Error::from_io(ErrorCode::Kernel, "unable to start a thread", e))?;
        Ok(Beat { stop, thread: Some(thread) })
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        let (flag, changed) = &*self.stop;
        *flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        // A thread that panicked renews nothing any more, which is all that counts
        self.thread.take().map(JoinHandle::join);
    }
}

/// Lists the directory of a stanza's backups, which contains the claims. Returns `None` if there is none.
fn list(repo: &Repo, stanza: &Stanza) -> Result<Option<Vec<Entry>>> {
    repo.storage.list(&layout::backup_stanza(stanza))
}

/// Returns the names of other processes' claims in a listing.
fn others<'a>(listing: &'a [Entry], exec_id: &str) -> impl Iterator<Item = &'a str> {
    let is_other = move |name: &&str| format::claimant(name).is_some_and(|id| id != exec_id);
    listing.iter().map(|entry| entry.name.as_str()).filter(is_other)
}

/// Returns whether a listing contains the claim of another process.
fn has_other(listing: &[Entry], exec_id: &str) -> bool {
    others(listing, exec_id).next().is_some()
}

/// The claims of other processes on a stanza.
#[derive(Clone, Copy)]
struct Others<'a> {
    repo: &'a Repo,
    stanza: &'a Stanza,
    who: &'a Claimant,
    cancel: &'a CancelToken,
}

impl Others<'_> {
    /// Waits for the others, and lists the stanza's directory without them. That may take minutes, in which somebody else may
    /// come.
    fn settled_listing(&self) -> Result<Vec<Entry>> {
        let list = || Ok(list(self.repo, self.stanza)?.unwrap_or_default());
        let mut listing = list()?;
        for _ in 1..=TRIES_MAX {
            self.settle(&listing)?;
            listing = list()?;
            if !has_other(&listing, &self.who.exec_id) {
                return Ok(listing);
            }
        }
        let text = format!("unable to go on without a claim on stanza '{}' on {}", self.stanza, self.repo.name());
        Err(Error::new(ErrorCode::LockAcquire, text).hint("do many processes start at the same time?"))
    }

    /// Removes the claims in a listing whose processes are dead, and fails if a process is alive.
    fn settle(&self, listing: &[Entry]) -> Result<()> {
        let directory = layout::backup_stanza(self.stanza);
        others(listing, &self.who.exec_id).try_for_each(|name| self.settle_one(&directory.join(name)?))
    }

    fn settle_one(&self, path: &RepoPath) -> Result<()> {
        let Some(first) = self.content(path)? else { return Ok(()) };
        let claim = self.read(&first);
        let name = || self.repo.storage.display(path);
        match claim.as_ref().map_or(Fate::Unknown, |claim| holder::fate(&claim.holder, &self.who.holder)) {
            Fate::Runs => return Err(self.runs(path, claim.as_ref())),
            Fate::Gone => {
                crate::info!("remove claim '{}' of a process that no longer exists", name());
                return self.repo.storage.remove(path);
            }
            Fate::Unknown => {}
        }
        let patience = self.who.timing.patience;
        crate::info!(
            "watch claim '{}' for up to {}s to see whether {} is running",
            name(),
            patience.as_secs(),
            of(claim.as_ref())
        );
        let start = Instant::now();
        while start.elapsed() < patience {
            self.cancel.sleep(self.who.timing.look)?;
            match self.content(path)? {
                None => return Ok(()),
                Some(now) if now != first => return Err(self.runs(path, self.read(&now).as_ref())),
                Some(_) => {}
            }
        }
        crate::warn!(
            "claim '{}' was not renewed for {}s, its process counts as ended: {}",
            name(),
            patience.as_secs(),
            of(claim.as_ref())
        );
        self.repo.storage.remove(path)?;
        // If the claim was renewed just before its removal, its holder notices the loss within this time
        self.cancel.sleep(self.who.timing.trusted)
    }

    fn content(&self, path: &RepoPath) -> Result<Option<Vec<u8>>> {
        storage::get(&*self.repo.storage, path, format::SIZE_MAX)
    }

    fn read(&self, stored: &[u8]) -> Option<format::ClaimFile> {
        format::ClaimFile::parse(&cipher::decrypt(&self.repo.cipher, stored).ok()?).ok()
    }

    fn runs(&self, path: &RepoPath, claim: Option<&format::ClaimFile>) -> Error {
        let name = self.repo.storage.display(path);
        Error::new(
            ErrorCode::LockAcquire,
            format!("unable to claim stanza '{}' on {}: {} is running", self.stanza, self.repo.name(), of(claim)),
        )
        .hint("wait until it has ended, or end it where it runs.")
        .hint(format!(
            "claim '{name}' is renewed while the process is alive, and no longer counts {}s after that.",
            self.who.timing.patience.as_secs()
        ))
    }
}

/// Describes the process of a claim.
fn of(claim: Option<&format::ClaimFile>) -> String {
    let Some(claim) = claim else { return "an unknown process".to_owned() };
    let holder = &claim.holder;
    format!("{} on host '{}' (process {}, since {})", claim.command, holder.host, holder.process_id, claim.since)
}
