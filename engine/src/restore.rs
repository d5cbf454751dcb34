//! Restores a backup: chooses the set, prepares the target directories, copies files in parallel, writes the recovery
//! settings and creates `pg_control` last.
//!
//! Source of the order of steps and of messages: pgBackRest `src/command/restore/restore.c`.

mod ahead;
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
mod present_cluster;
mod queue;
mod real_path;
pub mod recovery_conf;
mod recovery_write;
mod remap;
mod select_db;
mod set_select;
mod space;
#[cfg(test)]
mod swap_tests;
mod sync;
mod target_dir;
pub mod target_time;
mod timeline;

use std::fs;
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use jiff::Timestamp;
use repo_format::backup_info::PgHistory;
use repo_format::cipher::Cipher;
use repo_format::hash::Sha1;
use repo_format::label::BackupLabel;
use repo_format::layout::{ArchiveId, Stanza};
use repo_format::manifest::{Manifest, PG_DATA};
use repo_format::pg::PgVersion;
use repo_format::size::format_size;
use repo_format::wal_name::Lsn;
use rustix::fs::{Mode, OFlags};

pub use self::destinations::KeepOut;
pub use self::recovery_conf::{RecoverySettings, RecoveryType, TargetAction};
pub use self::remap::MapSettings;

use self::clean::{BACKUP_MANIFEST, CleanSettings, metadata};
use self::ownership::{Owner, Ownership};
use self::places::Places;
use self::present_cluster::Present;
use self::select_db::DatabaseName;
use self::set_select::{Choice, SetFacts, Wanted};
use self::sync::SyncSet;
use self::target_dir::TargetDir;
use self::target_time::TargetTime;
use self::timeline::{ArchivePlace, BackupPosition};
use crate::lock::Lock;
use crate::progress::Progress;
use crate::repo::{info_files, manifest_store};
use crate::users::Users;
use crate::work::crew::CrewSettings;
use crate::{CancelToken, Error, ErrorCode, Repo, Result, detail, info, warn};

/// What to restore, where and how.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// The stanza.
    pub stanza: Stanza,
    /// The data directory, absolute.
    pub pg_path: String,
    /// The spool path of asynchronous archiving. What it contains for the old cluster is removed.
    pub spool_path: Option<PathBuf>,
    /// The label of the set to restore; otherwise one is selected.
    pub set: Option<String>,
    /// Keep files that already match.
    pub delta: bool,
    /// Overwrite existing files. With `delta`, trust their size and time.
    pub force: bool,
    /// New paths of tablespaces and links.
    pub map: MapSettings,
    /// Paths to which no link or tablespace may lead.
    pub keep_out: Vec<KeepOut>,
    /// Databases to restore, by name or oid. All others except the system databases are zeroed.
    pub db_include: Vec<String>,
    /// Databases to zero, by name or oid.
    pub db_exclude: Vec<String>,
    /// How far to recover, and with which settings.
    pub recovery: RecoverySettings,
    /// Whether the recovery type is the default. An offline backup then recovers nothing.
    pub recovery_is_default: bool,
    /// Fail if a file was backed up with invalid page checksums. Otherwise this is a warning.
    pub checksum_page_error: bool,
    /// Read the control file as this version, regardless of its content.
    pub pg_version_force: Option<PgVersion>,
    /// Workers and retries.
    pub crew: CrewSettings,
}

impl RestoreSettings {
    /// Returns whether existing files are expected in the targets.
    fn is_delta(&self) -> bool {
        self.delta || self.force
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreSummary {
    /// The set.
    pub label: BackupLabel,
    /// Bytes of all files.
    pub size: u64,
    /// Number of files.
    pub files: usize,
}

/// Where the command shows its progress.
pub struct RestoreDisplay<'a> {
    /// The display.
    pub progress: &'a dyn Progress,
    /// The lock, which other processes read the progress from.
    pub lock: Option<&'a mut Lock>,
}

/// Restores a backup from the first of `repos` that has a suitable one.
///
/// # Errors
/// Many, each with pgBackRest's number: the target directories are unsuitable (38, 40, 53, 93), no set matches (75,
/// 29), the timeline can't be reached (58), mappings or databases do not exist (76, 78, 80, 81), stored files are
/// missing or damaged (26, 29, 55, 95), writing fails. After an error the cluster can't be started. A later restore
/// with delta continues.
pub fn run(
    settings: &RestoreSettings,
    repos: &[Repo],
    cancel: &CancelToken,
    display: RestoreDisplay<'_>,
) -> Result<RestoreSummary> {
    let mut settings = settings.clone();
    let wants_delta = settings.is_delta();
    check_pg_path(&mut settings)?;
    let delta_disabled = wants_delta && !settings.is_delta();

    let target_time = match &settings.recovery.kind {
        RecoveryType::Time(text) => Some(read_target_time(text)?),
        _ => None,
    };
    let ChosenSet { repo, label, cipher, history } = choose_set(&settings, repos, target_time.as_ref())?;
    if let Some(target) = target_time {
        if target.is_local {
            info!("target time is interpreted in the time zone of this host: '{}'", target.setting);
        }
        settings.recovery.kind = RecoveryType::Time(target.setting);
    }
    let mut manifest = manifest_store::load(repo, &settings.stanza, &label, &cipher)?;
    let data = manifest.data.clone();
    let version = data.pg_version;
    if data.options.online {
        verify_timeline(&settings, repo, &manifest)?;
    } else if settings.recovery_is_default {
        settings.recovery.kind = RecoveryType::None;
    }
    settings.recovery.check(version)?;
    manifest.validate(false)?;
    if let Some(file) = manifest.files.iter().find(|file| file.size == 0 && file.checksum != Some(Sha1::EMPTY)) {
        return Err(Error::new(
            ErrorCode::Checksum,
            format!("size 0 of file '{}' in the manifest does not match its checksum", file.name),
        ));
    }
    if manifest.files.is_empty() {
        return Err(Error::new(ErrorCode::Format, "manifest missing files"));
    }
    if data.label != label {
        return Err(Error::new(
            ErrorCode::Format,
            format!("requested backup '{label}' and manifest label '{}' do not match", data.label),
        )
        .hint("this indicates some sort of corruption (at the very least paths have been renamed)."));
    }
    let start = if data.options.online {
        format!(", recovery will start at {}", local_time(data.timestamp_start))
    } else {
        String::new()
    };
    info!("{}: restore backup set {label}{start}", repo.name());

    names::remove_own_files(&mut manifest);
    let tablespace_dir = version.tablespace_dir(data.pg_catalog_version);
    remap::remap(&mut manifest, &settings.pg_path, &settings.map)?;
    names::check_manifest(&manifest, &tablespace_dir)?;
    names::check_links(&manifest, &settings.pg_path)?;

    let users = Users::new();
    let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    let data_dir = metadata(&settings.pg_path)?.map(|metadata| Owner { uid: metadata.uid(), gid: metadata.gid() });
    let ownership = Ownership::new(&manifest, &users, current, data_dir);
    let databases: Vec<DatabaseName<'_>> =
        manifest.databases.iter().map(|database| DatabaseName { name: &database.name, id: database.id }).collect();
    let names = manifest.files.iter().map(|file| &*file.name);
    let zero = select_db::zero_filter(&settings.db_include, &settings.db_exclude, &databases, names, &tablespace_dir)?;

    // The passphrase of the backup must not be stored in the data directory
    let cipher = Cipher::from_passphrase(manifest.cipher_pass.take().as_ref());
    let is_continued = settings.delta && is_unfinished(&settings.pg_path)?;
    let keep = kept_files(&settings, version);
    let clean =
        CleanSettings { pg_path: &settings.pg_path, delta: settings.is_delta(), keep, tablespace_dir: &tablespace_dir };
    clean::check(&manifest, &ownership, &clean)
        .and_then(|()| destinations::check(&manifest, &clean, &settings.keep_out))
        .map_err(|error| if delta_disabled { clean::hint_without_delta(error) } else { error })?;
    let present = match clean.delta {
        true => present_cluster::check(clean.pg_path, &history, settings.pg_version_force, settings.force)?,
        false => Present::Own,
    };
    space::check(&manifest, &clean, zero.as_ref())?;
    open_files::allow(manifest.targets.len())?;
    // Somebody may have started the server while the manifest was loaded
    check_not_running(&settings.pg_path)?;
    // Nothing was changed up to here
    let places = prepare(&settings, &mut manifest, &ownership, &clean)?;
    let file_systems = SyncSet::open(&manifest, &places, &settings.pg_path)?;
    if is_continued {
        detail!("an earlier restore did not finish: existing files are read from disk and compared by checksum");
    }

    let queues = queue::queues(&manifest)?;
    let context = file::FileContext {
        manifest: &manifest,
        storage: &*repo.storage,
        stanza: &settings.stanza,
        pg_path: &settings.pg_path,
        places: &places,
        file_systems: Some(&file_systems),
        ownership: &ownership,
        zero: zero.as_ref(),
        delta: settings.delta,
        // For another cluster, size and time prove nothing. Nor do they after an unfinished restore, which makes files
        // durable only at its end
        delta_by_time: settings.delta && settings.force && !is_continued && present == Present::Own,
        page_cache: is_continued.then(|| file_systems.write_back()),
        cipher,
    };
    let size = copy::run(&context, queues, &settings, repo.key, cancel, display)?;

    recovery_write::write(&settings, &places, version, &ownership)?;
    places.data_dir()?.remove_if_there(BACKUP_MANIFEST)?;
    let global = format!("{}/global", settings.pg_path);
    file_systems.sync(&manifest, &places, &settings.pg_path, settings.crew.workers, &global)?;
    build::take_rights(&manifest, &places)?;
    cancel.check()?;
    finish::give_control_its_name(&settings, &places, &manifest)?;
    detail!("sync path '{global}'");
    let global = places.content("pg_data/global")?;
    global.dir.sync_dir(global.name)?;

    info!("restore size = {}, file total = {}", format_size(size), manifest.files.len());
    Ok(RestoreSummary { label, size, files: manifest.files.len() })
}

/// Checks that PostgreSQL is not running in the directory, and that a directory that would lose files looks like
/// PostgreSQL's.
fn check_pg_path(settings: &mut RestoreSettings) -> Result<()> {
    let pg_path = &settings.pg_path;
    check_not_running(pg_path)?;
    let exists = |name: &str| Ok::<_, Error>(metadata(&format!("{pg_path}/{name}"))?.is_some());
    if settings.is_delta() && !exists("PG_VERSION")? && !exists(BACKUP_MANIFEST)? {
        warn!(
            "--delta or --force specified but unable to find 'PG_VERSION' or '{BACKUP_MANIFEST}' in '{pg_path}' to confirm \
             that this is a valid $PGDATA directory. --delta and --force have been disabled and if any files exist in the \
             destination directories the restore will be aborted."
        );
        (settings.delta, settings.force) = (false, false);
    }
    Ok(())
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

/// The set that is restored.
struct ChosenSet<'a> {
    /// The first repository with a fitting one.
    repo: &'a Repo,
    label: BackupLabel,
    /// How its manifest is encrypted.
    cipher: Cipher,
    /// The clusters that the stanza had.
    history: Vec<PgHistory>,
}

/// Reads the target that selects the set and ends recovery. Both must be the same instant, and PostgreSQL must be able
/// to read it after hours of copying.
fn read_target_time(text: &str) -> Result<TargetTime> {
    target_time::read(text, crate::time_zone::local()).map_err(|_| {
        Error::new(
            ErrorCode::Format,
            format!("automatic backup set selection cannot be performed with provided time '{text}'"),
        )
        .hint(
            "time format must be YYYY-MM-DD HH:MM:SS with optional msec and optional timezone (+/- HH or HHMM or HH:MM) - if \
             timezone is omitted, local time is assumed (for UTC use +00)",
        )
    })
}

fn choose_set<'a>(
    settings: &RestoreSettings,
    repos: &'a [Repo],
    target_time: Option<&TargetTime>,
) -> Result<ChosenSet<'a>> {
    let mut target = "";
    let wanted = match (&settings.set, &settings.recovery.kind) {
        (Some(label), _) => Wanted::Label(label.clone()),
        (None, RecoveryType::Time(time)) => {
            target = time;
            Wanted::StoppedBefore(target_time.map(|target| target.seconds).unwrap_or_default())
        }
        (None, RecoveryType::Lsn(lsn)) => {
            target = lsn;
            Wanted::StoppedAt(lsn.parse()?)
        }
        (None, _) => Wanted::Newest,
    };
    let mut cipher_hints = Vec::new();
    for repo in repos {
        let name = repo.name();
        let info = match info_files::load_backup_info(repo, &settings.stanza) {
            Ok(info) => info,
            Err(error) => {
                warn!("{name}: [{}] {error}", error.code);
                cipher_hints.extend(info_files::cipher_option_hint(&error).map(ToOwned::to_owned));
                continue;
            }
        };
        if info.backups.is_empty() {
            warn!("{name}: [{}] no backup sets to restore", ErrorCode::BackupSetInvalid);
            continue;
        }
        let facts: Vec<SetFacts> = info
            .backups
            .iter()
            .map(|(label, backup)| SetFacts {
                label: label.clone(),
                stop_time: backup.timestamp_stop,
                stop_lsn: backup.lsn_stop.as_deref().and_then(|lsn| lsn.parse().ok()),
                history_id: backup.pg_id,
            })
            .collect();
        match set_select::choose(&wanted, &facts, info.current().id)? {
            Choice::Found(label) => {
                let cipher = Cipher::from_passphrase(info.cipher_pass.as_ref());
                return Ok(ChosenSet { repo, label, cipher, history: info.history });
            }
            Choice::Next => {}
            Choice::NoLsn => warn!(
                "{name} reached backup from prior version missing required LSN info before finding a match -- backup \
                 auto-select has been disabled for this repo\nHINT: you may specify a backup to restore using the --set option."
            ),
        }
    }
    Err(cipher_hints.into_iter().fold(set_select::not_found(&wanted, target), Error::hint))
}

fn verify_timeline(settings: &RestoreSettings, repo: &Repo, manifest: &Manifest) -> Result<()> {
    let data = &manifest.data;
    let missing = |key: &str| Error::new(ErrorCode::Format, format!("online backup has no '{key}' in its manifest"));
    let archive_start = data.archive_start.ok_or_else(|| missing("backup-archive-start"))?;
    let lsn_start: Lsn = data.lsn_start.as_deref().ok_or_else(|| missing("backup-lsn-start"))?.parse()?;
    let archive_info = info_files::load_archive_info(repo, &settings.stanza)?;
    let archive = ArchivePlace {
        repo,
        stanza: &settings.stanza,
        id: ArchiveId { version: data.pg_version, id: data.pg_id },
        cipher: Cipher::from_passphrase(archive_info.cipher_pass.as_ref()),
    };
    timeline::verify(
        &archive,
        settings.recovery.target_timeline.as_deref(),
        data.pg_version,
        settings.recovery.kind == RecoveryType::Immediate,
        BackupPosition { timeline: archive_start.timeline, lsn_start },
    )
}

/// Returns the files of the data directory that stay unchanged.
fn kept_files(settings: &RestoreSettings, version: PgVersion) -> &'static [&'static str] {
    match (settings.recovery.kind == RecoveryType::Preserve, version >= recovery_conf::VERSION_RECOVERY_SETTINGS) {
        (false, _) => &[],
        (true, true) => &["postgresql.auto.conf", "recovery.signal", "standby.signal"],
        (true, false) => &["recovery.conf"],
    }
}

/// Cleans and creates the target directories, with the manifest in the data directory. Removes files from the manifest
/// that must not be restored.
fn prepare(
    settings: &RestoreSettings,
    manifest: &mut Manifest,
    ownership: &Ownership,
    clean: &CleanSettings<'_>,
) -> Result<Places> {
    // Old acknowledgements could make the new cluster skip WAL
    if let Some(spool) = &settings.spool_path {
        remove_dir_all(&spool.join("archive").join(settings.stanza.as_str()))?;
    }
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
    let mut places = build::open_data_dir(manifest, ownership, clean)?;
    save_manifest(places.data_dir()?, manifest)?;
    build::build(manifest, ownership, clean, &mut places)?;
    Ok(places)
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

fn remove_dir_all(path: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from_io(ErrorCode::PathRemove, format!("unable to remove path '{}'", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// Formats a time as in messages and recovery settings: `YYYY-MM-DD HH:MM:SS` of this host.
fn local_time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(crate::time_zone::local().clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => seconds.to_string(),
    }
}
