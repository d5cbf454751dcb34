//! Restores a backup: chooses the set, prepares the target directories, copies files in parallel, writes the recovery
//! settings and creates `pg_control` last.
//!
//! Source of the order of steps and of messages: pgBackRest `src/command/restore/restore.c`.

mod ahead;
pub(crate) mod backup_set;
mod build;
mod clean;
mod copy;
mod destinations;
mod file;
#[cfg(test)]
mod file_tests;
mod finish;
#[cfg(test)]
mod fixture;
mod handle;
mod names;
mod open_files;
mod ownership;
mod places;
mod plan;
mod present_cluster;
mod queue;
mod real_path;
pub(crate) mod recovery_conf;
mod recovery_write;
mod remap;
mod request;
mod select_db;
pub(crate) mod set_select;
mod space;
#[cfg(test)]
mod swap_tests;
mod sync;
mod target_dir;
pub mod target_time;
pub(crate) mod timeline;

use std::fs;
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use repo_format::backup_info::PgHistory;
use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::label::BackupLabel;
use repo_format::layout::Stanza;
use repo_format::manifest::{Manifest, PG_DATA};
use repo_format::pg::PgVersion;
use repo_format::size::format_size;
use repo_format::wal_name::WalSegment;
use rustix::fs::{Mode, OFlags};

pub use self::destinations::KeepOut;
pub(crate) use self::plan::plan;
pub use self::plan::{MissingPiece, PlannedWal, RestorePlan, SampleRate};
pub use self::recovery_conf::{RecoverySettings, RecoveryType, TargetAction};
pub use self::remap::MapSettings;
pub use self::request::{RestoreRequest, RestoreSummary};

use self::backup_set::BackupSet;
use self::clean::{BACKUP_MANIFEST, CleanSettings, metadata};
use self::copy::{CopyTotals, Display};
use self::file::FileContext;
use self::ownership::{Owner, Ownership};
use self::places::Places;
use self::present_cluster::Present;
use self::select_db::{DatabaseName, ZeroFilter};
use self::sync::SyncSet;
use self::target_dir::TargetDir;
use crate::host_locks::HeldLocks;
use crate::session::Session;
use crate::storage::RepoStorage;
use crate::users::Users;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, detail, info, log, warn};

/// Restores a backup from the first of `repos` that has a suitable one. The caller holds the lock of restores.
///
/// # Errors
/// See [`Session::restore`].
pub(crate) fn run(
    request: &RestoreRequest,
    session: &Session,
    repos: &[Repo],
    lock: &mut dyn HeldLocks,
) -> Result<RestoreSummary> {
    let started = Instant::now();
    let (restored, warnings) = log::collect_warnings(|| restore(request, session, repos, lock));
    let Restored { repo_key, label, wal, files, copied } = restored?;
    Ok(RestoreSummary {
        repo_key,
        label,
        size: copied.bytes,
        files,
        files_kept: copied.kept,
        page_errors: copied.page_errors,
        wal,
        warnings,
        duration: started.elapsed(),
    })
}

/// A complete restore.
struct Restored {
    repo_key: u32,
    label: BackupLabel,
    wal: Option<(WalSegment, WalSegment)>,
    files: usize,
    copied: CopyTotals,
}

fn restore(request: &RestoreRequest, session: &Session, repos: &[Repo], lock: &mut dyn HeldLocks) -> Result<Restored> {
    let (pg_path, stanza) = (request.pg_path.as_str(), session.stanza());
    check_not_running(pg_path)?;
    let decided = Decided::new(request, stanza, repos)?;
    let present = decided.check_target(request, &mut Err)?;
    let delta_by_time = decided.delta_by_time(present);
    let Decided { set, existing, tablespace_dir, ownership, zero, cipher, is_continued, .. } = decided;
    let BackupSet { repo, mut manifest, recovery, .. } = set;
    let version = manifest.data.pg_version;
    let clean = clean_settings(pg_path, existing, &recovery, (version, &tablespace_dir));
    open_files::allow(manifest.targets.len())?;
    // Somebody may have started the server while the manifest was loaded
    check_not_running(pg_path)?;

    // Nothing was changed up to here
    remove_spool(request, stanza)?;
    let places = prepare(&mut manifest, &ownership, &clean)?;
    let file_systems = SyncSet::open(&manifest, &places, pg_path)?;
    if is_continued {
        detail!("an earlier restore did not finish: existing files are read from disk and compared by checksum");
    }
    let compressing = compressing_reads(repo, &manifest, &cipher);
    let context = FileContext {
        manifest: &manifest,
        storage: compressing.as_deref().unwrap_or(&*repo.storage),
        stanza,
        pg_path,
        places: &places,
        file_systems: Some(&file_systems),
        ownership: &ownership,
        zero: zero.as_ref(),
        delta: existing.is_compared(),
        delta_by_time,
        page_cache: is_continued.then(|| file_systems.write_back()),
        cipher,
        looks_only: false,
    };
    let display = Display { progress: session.progress(), lock, repo_key: repo.key };
    let copied = copy::run(&context, request, display, session.cancel_token())?;

    complete(request, &recovery, &context, &file_systems, session.cancel_token())?;
    let files = manifest.files.len();
    info!("restore size = {}, file total = {files}", format_size(copied.bytes));
    let wal = manifest.data.archive_start.zip(manifest.data.archive_stop);
    Ok(Restored { repo_key: repo.key, label: manifest.data.label, wal, files, copied })
}

/// Returns the repository's storage for a backup that is neither compressed nor encrypted.
fn compressing_reads<'a>(repo: &'a Repo, manifest: &Manifest, cipher: &Cipher) -> Option<Box<dyn RepoStorage + 'a>> {
    let is_plain = manifest.data.options.compress_type == CompressType::None && cipher.is_none();
    if is_plain { repo.storage.compressing_reads() } else { None }
}

/// What is decided before anything is changed. A restore and its plan have it in common.
struct Decided<'a> {
    set: BackupSet<'a>,
    /// What the request says about existing files.
    wanted: Existing,
    /// What happens to them.
    existing: Existing,
    tablespace_dir: String,
    ownership: Ownership,
    zero: Option<ZeroFilter>,
    cipher: Cipher,
    is_continued: bool,
}

impl<'a> Decided<'a> {
    /// Chooses the set, and maps and checks the names of its manifest.
    fn new(request: &RestoreRequest, stanza: &Stanza, repos: &'a [Repo]) -> Result<Self> {
        let pg_path = request.pg_path.as_str();
        let wanted = Existing::of(request);
        let existing = wanted.unless_unproven(pg_path)?;
        let mut set = backup_set::find(request, stanza, repos)?;
        let manifest = &mut set.manifest;
        let tablespace_dir = manifest.data.pg_version.tablespace_dir(manifest.data.pg_catalog_version);
        remap(request, manifest, &tablespace_dir)?;
        let ownership = ownership(manifest, pg_path)?;
        let zero = zero_filter(request, manifest, &tablespace_dir)?;
        // The passphrase of the backup must not be stored in the data directory
        let cipher = Cipher::from_passphrase(manifest.cipher_pass.take().as_ref());
        let is_continued = existing.is_compared() && is_unfinished(pg_path)?;
        Ok(Decided { set, wanted, existing, tablespace_dir, ownership, zero, cipher, is_continued })
    }

    /// Checks the target directories, the cluster in them and the space. `refuse` gets each reason to refuse the
    /// restore, and decides with its result whether the checks go on.
    fn check_target(&self, request: &RestoreRequest, refuse: &mut dyn FnMut(Error) -> Result<()>) -> Result<Present> {
        let BackupSet { manifest, recovery, history, .. } = &self.set;
        let version = manifest.data.pg_version;
        let clean = clean_settings(&request.pg_path, self.existing, recovery, (version, &self.tablespace_dir));
        if let Err(error) = check_destinations(request, manifest, &self.ownership, &clean) {
            let has_delta = self.existing == self.wanted;
            refuse(if has_delta { error } else { clean::hint_without_delta(error) })?;
        }
        let present = match check_present(request, self.existing, history) {
            Ok(present) => present,
            Err(error) => {
                refuse(error)?;
                Present::Foreign
            }
        };
        if let Err(error) = space::check(manifest, &clean, self.zero.as_ref()) {
            refuse(error)?;
        }
        Ok(present)
    }

    /// Returns whether size and time prove that a file matches. For another cluster they prove nothing. Nor do they after
    /// an unfinished restore, which makes files durable only at its end.
    fn delta_by_time(&self, present: Present) -> bool {
        self.existing == Existing::KeepByTime && !self.is_continued && present == Present::Own
    }
}

/// `version` comes with its directory in a tablespace.
fn clean_settings<'a>(
    pg_path: &'a str,
    existing: Existing,
    recovery: &RecoverySettings,
    version: (PgVersion, &'a str),
) -> CleanSettings<'a> {
    let (version, tablespace_dir) = version;
    let keep = kept_files(recovery, version);
    CleanSettings { pg_path, delta: existing.is_expected(), keep, tablespace_dir }
}

/// Makes a cluster that can be started of what was copied: recovery settings, durable files, and `pg_control` last.
fn complete(
    request: &RestoreRequest,
    recovery: &RecoverySettings,
    context: &FileContext<'_>,
    file_systems: &SyncSet<'_>,
    cancel: &CancelToken,
) -> Result<()> {
    let FileContext { manifest, places, ownership, pg_path, .. } = *context;
    recovery_write::write(recovery, pg_path, places, manifest.data.pg_version, ownership)?;
    places.data_dir()?.remove_if_there(BACKUP_MANIFEST)?;
    let global = format!("{pg_path}/global");
    file_systems.sync(request.process_max, &global)?;
    build::take_rights(manifest, places)?;
    cancel.check()?;
    finish::give_control_its_name(request, places, manifest)?;
    detail!("sync path '{global}'");
    let global = places.content("pg_data/global")?;
    global.dir.sync_dir(global.name)
}

/// What happens to files that exist in the target directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    /// There must be none.
    Refuse,
    /// They are overwritten or removed.
    Overwrite,
    /// Those that match by checksum stay, the others are overwritten or removed.
    KeepByChecksum,
    /// The same for those that match by size and time.
    KeepByTime,
}

impl Existing {
    fn of(request: &RestoreRequest) -> Self {
        match (request.delta, request.force) {
            (false, false) => Existing::Refuse,
            (false, true) => Existing::Overwrite,
            (true, false) => Existing::KeepByChecksum,
            (true, true) => Existing::KeepByTime,
        }
    }

    /// Returns the same, but refuses existing files if the directory does not look like PostgreSQL's.
    fn unless_unproven(self, pg_path: &str) -> Result<Self> {
        let exists = |name: &str| Ok::<_, Error>(metadata(&format!("{pg_path}/{name}"))?.is_some());
        if !self.is_expected() || exists("PG_VERSION")? || exists(BACKUP_MANIFEST)? {
            return Ok(self);
        }
        warn!(
            "--delta or --force specified but unable to find 'PG_VERSION' or '{BACKUP_MANIFEST}' in '{pg_path}' to confirm \
             that this is a valid $PGDATA directory. --delta and --force have been disabled and if any files exist in the \
             destination directories the restore will be aborted."
        );
        Ok(Existing::Refuse)
    }

    fn is_expected(self) -> bool {
        self != Existing::Refuse
    }

    fn is_compared(self) -> bool {
        matches!(self, Existing::KeepByChecksum | Existing::KeepByTime)
    }
}

/// Maps tablespaces and links, and checks that nothing leads out of the target.
fn remap(request: &RestoreRequest, manifest: &mut Manifest, tablespace_dir: &str) -> Result<()> {
    names::remove_own_files(manifest);
    remap::remap(manifest, &request.pg_path, &request.map)?;
    names::check_manifest(manifest, tablespace_dir)?;
    names::check_links(manifest, &request.pg_path)
}

fn ownership(manifest: &Manifest, pg_path: &str) -> Result<Ownership> {
    let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let data_dir = metadata(pg_path)?.map(|metadata| Owner { uid: metadata.uid(), gid: metadata.gid() });
    Ok(Ownership::new(manifest, &Users::new(), current, data_dir))
}

fn zero_filter(request: &RestoreRequest, manifest: &Manifest, tablespace_dir: &str) -> Result<Option<ZeroFilter>> {
    let databases: Vec<DatabaseName<'_>> =
        manifest.databases.iter().map(|database| DatabaseName { name: &database.name, id: database.id }).collect();
    let names = manifest.files.iter().map(|file| &*file.name);
    select_db::zero_filter(&request.db_include, &request.db_exclude, &databases, names, tablespace_dir)
}

fn check_destinations(
    request: &RestoreRequest,
    manifest: &Manifest,
    ownership: &Ownership,
    clean: &CleanSettings<'_>,
) -> Result<()> {
    clean::check(manifest, ownership, clean)?;
    destinations::check(manifest, clean, &request.keep_out)
}

fn check_present(request: &RestoreRequest, existing: Existing, history: &[PgHistory]) -> Result<Present> {
    if !existing.is_expected() {
        return Ok(Present::Own);
    }
    let force = matches!(existing, Existing::Overwrite | Existing::KeepByTime);
    present_cluster::check(&request.pg_path, history, request.pg_version_force, force)
}

fn check_not_running(pg_path: &str) -> Result<()> {
    if metadata(&format!("{pg_path}/postmaster.pid"))?.is_none() {
        return Ok(());
    }
    Err(Error::new(ErrorCode::PgRunning, "unable to restore while PostgreSQL is running")
        .hint(format!("presence of 'postmaster.pid' in '{pg_path}' indicates PostgreSQL is running."))
        .hint("remove 'postmaster.pid' only if PostgreSQL is not running."))
}

/// Returns whether an earlier restore into this directory did not finish, so that its files may not be on disk.
fn is_unfinished(pg_path: &str) -> Result<bool> {
    Ok(metadata(&format!("{pg_path}/{BACKUP_MANIFEST}"))?.is_some()
        || metadata(&format!("{pg_path}/global/pg_control"))?.is_none())
}

/// Returns the files of the data directory that stay unchanged.
fn kept_files(recovery: &RecoverySettings, version: PgVersion) -> &'static [&'static str] {
    match (recovery.kind == RecoveryType::Preserve, version >= recovery_conf::VERSION_RECOVERY_SETTINGS) {
        (false, _) => &[],
        (true, true) => &["postgresql.auto.conf", "recovery.signal", "standby.signal"],
        (true, false) => &["recovery.conf"],
    }
}

/// Removes the acknowledgements of the old cluster, which could make the new one skip WAL.
fn remove_spool(request: &RestoreRequest, stanza: &Stanza) -> Result<()> {
    match &request.spool_path {
        Some(spool) => remove_dir_all(&spool.join("archive").join(stanza.as_str())),
        None => Ok(()),
    }
}

/// Cleans and creates the target directories, with the manifest in the data directory. Removes files from the manifest
/// that must not be restored.
fn prepare(manifest: &mut Manifest, ownership: &Ownership, clean: &CleanSettings<'_>) -> Result<Places> {
    take_out_files(manifest, clean);
    let mut places = build::open_data_dir(manifest, ownership, clean)?;
    save_manifest(places.data_dir()?, manifest)?;
    build::build(manifest, ownership, clean, &mut places)?;
    Ok(places)
}

/// Removes files from the manifest that must not be restored.
fn take_out_files(manifest: &mut Manifest, clean: &CleanSettings<'_>) {
    let mut take_out = |file: &str, reason: &str| {
        let name = format!("{PG_DATA}/{file}");
        if let Ok(index) = manifest.files.binary_search_by(|file| (*file.name).cmp(&name)) {
            detail!("skip '{file}' -- {reason}");
            manifest.files.remove(index);
        }
    };
    // PostgreSQL would recreate the links at their old destinations
    take_out("tablespace_map", "tablespace links will be created based on mappings");
    if clean.keep.contains(&"postgresql.auto.conf") {
        take_out("postgresql.auto.conf", "recovery type is preserve");
    }
}

/// Leaves the manifest in the data directory until the restore is complete. It proves to a later restore with delta
/// that the directory belongs to a cluster.
fn save_manifest(data_dir: &TargetDir, manifest: &Manifest) -> Result<()> {
    let temp_name = format!("{BACKUP_MANIFEST}{}", repo_format::layout::TEMP_SUFFIX);
    let (path, temp) = (data_dir.shown(BACKUP_MANIFEST), data_dir.shown(&temp_name));
    let fail = |error| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{temp}'"), error);
    // Whatever has this name, a link or a pipe, must not be written to
    data_dir.remove_if_there(&temp_name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = data_dir.open_file(&temp_name, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
    let mut out = BufWriter::with_capacity(256 * 1024, file);
    manifest.write(&mut out)?;
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    file.sync_all().map_err(|error| {
        Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{temp}' after write"), error)
    })?;
    data_dir
        .rename(&temp_name, BACKUP_MANIFEST)
        .map_err(|error| Error::from_io(ErrorCode::FileMove, format!("unable to move '{temp}' to '{path}'"), error))?;
    data_dir.sync_dir("")
}

fn remove_dir_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from_io(ErrorCode::PathRemove, format!("unable to remove path '{}'", path.display()), error))
        }
        _ => Ok(()),
    }
}
