//! Renders `docs/compatibility.md`: what is supported, and where rbr differs from pgBackRest.

use std::fmt::Write as _;

use crate::command;
use crate::config::decl::{COMMANDS, Role, Support};
use crate::config::options::ALL;

const HEAD: &str = "# Compatibility with pgBackRest

This page is generated from the option table by `rbr docs compatibility`. A test compares the two.

rbr reads and writes repositories of pgBackRest 2.60 (formats 5 and 6). It accepts pgBackRest's commands, options, configuration files
and environment variables. Some options are accepted although there is nothing that they could apply to; the table gives the reason.
";

const DIFFERENCES_HEAD: &str = "
## Deliberate differences

rbr deliberately differs from pgBackRest in the following. The repository format stays the same. Numbers in brackets are error
codes.

| command | difference |
| --- | --- |
";

/// Deliberate differences from pgBackRest: the commands, and what differs.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "restore",
        "Quotes, backslashes and line breaks in recovery settings are escaped, so that PostgreSQL reads the value that was given.",
    ),
    (
        "restore",
        "A line break in the value of `recovery-option` is refused [032], because it would start another setting.",
    ),
    (
        "restore",
        "Each word of `restore_command` is quoted for the shell if it needs quotes, and `%` is doubled. pgBackRest quotes only blanks. A program that was called by a relative path is written with its absolute path.",
    ),
    (
        "restore",
        "A time target without a zone is written to `recovery_target_time` with this host's offset, so that the instant that chooses the backup set also ends recovery. A comma before the fraction becomes a point.",
    ),
    (
        "restore",
        "Targets that PostgreSQL would refuse are refused before anything changes, also with `--set`: times [029], positions, transactions and names [032].",
    ),
    (
        "restore",
        "A manifest with two entries that restore to the same path is refused [029] before anything changes. Files that an unfinished restore left in the cluster are neither backed up nor restored.",
    ),
    (
        "restore",
        "A file with more than one name (hard links, as created by `pg_upgrade --link` and `cp -al`) is replaced and not overwritten, so that its other names keep their content. pgBackRest overwrites the content of all names.",
    ),
    (
        "restore",
        "With `--delta --force`, a file that begins with zeros is compared by checksum. A selective restore leaves zeros with the size and time of the file, which pgBackRest takes for the file.",
    ),
    (
        "restore",
        "A file whose mode does not allow the user of the restore to write is replaced. pgBackRest fails [041].",
    ),
    (
        "restore",
        "A directory whose mode does not allow its owner to write gets this mode after its files are restored. pgBackRest fails [041].",
    ),
    (
        "restore",
        "`--delta` refuses [040] before anything changes if it would have to remove a mount point. pgBackRest removes the files on it and fails [061].",
    ),
    ("restore", "`restore` writes and removes nothing through a link that appears in a target while it runs."),
    (
        "restore",
        "A relative link is restored to where it leads, even if the data directory or a directory above the link is itself a link. pgBackRest creates the destination elsewhere and fails [055].",
    ),
    (
        "restore",
        "If `restore` runs as root, it warns about an owner that this host does not have. pgBackRest gives such files to root without a warning.",
    ),
    (
        "restore",
        "If `restore` runs as root, the directories that it creates above a target belong to the owner of the target, and a data directory that is a link gets its owner. pgBackRest leaves them to root, and the server cannot start.",
    ),
    (
        "restore",
        "Invalid page checksums are an error [026], or a warning, also for files that `--delta` finds in place.",
    ),
    ("restore", "A file whose size differs from the manifest is an error [026] even if its checksum matches."),
    (
        "restore",
        "`--delta` cleans the destination of a link or tablespace only if the cluster's own link led there before. Otherwise the destination must be empty [040, 093].",
    ),
    (
        "restore",
        "A destination that contains the data directory or a repository, spool, lock or log path, or is in the data directory of another cluster, is refused [070]. So are a data directory among the backups or the archive of a repository [040] and a restore that would remove another cluster [040]. Links are resolved first.",
    ),
    ("restore", "`--delta` does not overwrite a cluster that never belonged to the stanza [051]. `--force` allows it."),
    (
        "restore",
        "A backup that does not fit on its file systems is refused [064] before anything changes. On file systems that may compress data it is a warning.",
    ),
    ("restore", "The `backup.manifest` that is in the data directory during a restore contains no passphrase."),
    (
        "check, backup",
        "`archive_command` must contain `pgbackrest` or the word `rbr`. pgBackRest requires its own name.",
    ),
    (
        "backup",
        "A file name that contains a line break or is not UTF-8 is refused [029] before anything is copied, because the manifest could not be read again.",
    ),
    (
        "backup",
        "A standby of another cluster (version or system identifier) is refused, not only one that lags behind.",
    ),
    (
        "backup",
        "For object stores, a file is refused [029] before anything is copied if its name makes an object name of more than 1024 bytes or contains characters that the store refuses (control characters for Azure, line breaks for GCS), unless it goes into a bundle.",
    ),
    ("backup", "The directory of the bundles is synced too."),
    (
        "backup",
        "A signal does not interrupt the last steps that complete a backup. pgBackRest ends at once, and a nearly complete backup has to be repeated.",
    ),
    ("backup, restore", "Failure to write progress to the lock file is a warning. pgBackRest ends the command."),
    (
        "backup, expire, restore",
        "A lock is retried briefly, because another command may only be reading it. pgBackRest fails at once [050].",
    ),
    ("stop", "`--force` leaves alone the processes of a stanza whose name only begins the same."),
    (
        "repo-ls",
        "`--filter` refuses back references, and expressions whose compiled form exceeds 512 KiB. Every match takes linear time.",
    ),
    ("all", "A value that is not UTF-8 is refused [032] if the command uses the option."),
    (
        "backup, archive-push",
        "Up to level 6 a zst stream consists of frames of 2 MiB, which every reader accepts as one stream. pgBackRest writes a single frame.",
    ),
    (
        "backup, restore",
        "Where kernel and file system report failed writes that way, one sync of the file system replaces the syncs of its many files.",
    ),
    (
        "annotate",
        "The `backup.info` of each repository is saved to the repository it was loaded from. Keys that would make it unreadable are refused [032].",
    ),
    (
        "archive-get",
        "A file is written to a temporary name and then renamed. A segment is compared with the checksum in its stored name before that.",
    ),
    (
        "archive-push",
        "With `archive-async`, a worker that ended without a result, for example because it was killed, is replaced after 2 seconds.",
    ),
    (
        "archive-get",
        "With `archive-async`, a segment is fetched directly if no worker can be started. pgBackRest fails, even if the segment is in the spool.",
    ),
    (
        "archive-get",
        "With `archive-async`, a spool that fails, an error of the worker, or a worker that takes longer than `archive-timeout` does not decide the result: the repository is asked directly. PostgreSQL would take the error for the end of the WAL.",
    ),
    (
        "archive-get",
        "A stored segment that decodes to more than the size of a segment is refused before it fills the disk.",
    ),
    (
        "archive-get",
        "With `archive-async`, segments in the spool that belong to another cluster, or were fetched before a restart of the machine, are fetched again.",
    ),
    (
        "archive-get",
        "An empty history file is an error [042]. PostgreSQL would take it for a history without earlier timelines.",
    ),
    (
        "archive-push",
        "A WAL file that changes while it is read is an error [042] and is not stored. A call that outlives its server may read a file that the next server recycles.",
    ),
    (
        "archive-push",
        "With `archive-async`, a state in the spool that is older than the last change of its WAL file does not count. It is about an earlier file of that name. A state that is damaged, or has a time in the future, does not count either.",
    ),
    (
        "archive-push",
        "A segment that a file system already has is read before the push succeeds, and is stored again if it is damaged or cannot be read. An object store is asked for the size of the object, and an empty object is stored again.",
    ),
    (
        "archive-push",
        "On file systems and SFTP servers the archive is listed again after a segment was stored. If two clusters push different content at the same time, at least one fails [045].",
    ),
    (
        "archive-push",
        "`archive-push-queue-max` counts segments by the size of the first segment and other files by their own size. pgBackRest counts all files by the size of the first.",
    ),
    ("archive-push", "With `archive-async`, the worker pushes the file that PostgreSQL waits for before all others."),
    (
        "archive-push, archive-get",
        "With `archive-async`, an error that an earlier worker left does not count until the file has been tried once more.",
    ),
    ("archive-push, archive-get", "A signal ends them at once, with the same exit status but without a log line."),
    ("info", "A wrong passphrase is a CryptoError [095]."),
    (
        "all",
        "A file of a format that is not known is not replaced by its copy, and a command that saves info files does not replace a damaged one by a copy of an older format, which lacks keys. Nor does it replace archive.info if that can't be read, or backup.info, unless this system reports twice that it can't read backup.info for a reason that lasts, such as permissions or a bad sector: then it warns, and writes backup.info anew. pgBackRest tries the copy after any error.",
    ),
    (
        "all",
        "Cipher keys that derive with another digest than SHA-1 or SHA-256, or without a digest, are refused [029].",
    ),
    (
        "stanza-upgrade",
        "If archive.info or backup.info and its copy differ in format, the newer one counts and replaces the other. pgBackRest uses the file.",
    ),
    (
        "backup, expire, stanza-upgrade",
        "No cipher key of the stored archive.info or of its copy is lost when archive.info is saved, and archive.info of format 5 does not replace one that was upgraded meanwhile [028].",
    ),
    (
        "expire",
        "A rotation of the archive key of which only archive.info or only its copy was written is completed. No key is added while an unfinished backup without a claim may be running on another host, nor without a claim on a full disk. If the copy can't be read for good, no key is added, and the command fails.",
    ),
    (
        "stanza-upgrade",
        "Before another format, unfinished backups without a claim are watched for a minute each. If one changes, the command fails [050].",
    ),
    (
        "archive-get, backup, recovery-points, restore, verify",
        "If an archived file names a cipher key that is not known, archive.info is loaded once more, because the key may have been added meanwhile.",
    ),
    ("archive-push, backup", "An info file without a cipher key in an encrypted repository is refused [029]."),
    (
        "backup, expire, check, annotate, stanza-create",
        "All four info files must have the same format, except for stanza-upgrade, which repairs them. Otherwise the command fails [028] before it changes anything. pgBackRest compares two of them, and not in all of these commands.",
    ),
    ("info", "`--set=latest` shows the newest backup of each repository. pgBackRest shows none."),
    (
        "check, info, manifest, repo-ls",
        "Control characters in JSON are escaped, since JSON would be invalid otherwise. Text and log lines show them as `\\x1b`. pgBackRest prints them.",
    ),
    (
        "all",
        "Messages about damaged info files, manifests and configuration files do not quote content that was encrypted or may be a passphrase.",
    ),
    (
        "all",
        "A line of a configuration file whose value holds `repo1-cipher-pass=` or the name of another secret option is refused [032], as two lines without a line feed between them. pgBackRest takes it for the value and shows it in its log. `check --report` shows the name of the option instead of such a value.",
    ),
    (
        "manifest",
        "`--set=latest` is the newest backup of `backup.info` if the repository has no link `latest`, as in object stores. pgBackRest fails [055].",
    ),
    (
        "manifest",
        "The block map of the file of `--filter` is checked as by a restore. A file that is stored as a whole although it has a block size, and an empty file in the data directory of `--pg`, are no errors.",
    ),
    (
        "verify",
        "A backup is also invalid if a bundle or file of an earlier backup that it needs is damaged. pgBackRest detects that only for files that are not in bundles.",
    ),
    (
        "verify",
        "An info file or manifest of which either the file or the copy is damaged causes a warning, and `--repair` repairs it. pgBackRest does not have this option.",
    ),
    (
        "check",
        "`--diagnose` looks for what usually goes wrong in PostgreSQL, the repositories and on the host, and says how to mend it. pgBackRest does not have this option.",
    ),
    (
        "all",
        "A mistyped option or command is an error with pgBackRest's number and text, and a hint with the name that was probably meant.",
    ),
    (
        "help",
        "After pgBackRest's text, help for an option says where its value was set, when to change it, and how to write it.",
    ),
    (
        "verify",
        "`--verify-exit-code` exits with status 104 if anything is invalid. pgBackRest does not have this option and always succeeds.",
    ),
    (
        "verify",
        "A file of a local repository that may not be read is tried only once, and the first such errors are warnings. pgBackRest retries it for each file of a bundle and logs it at log level info.",
    ),
    (
        "all",
        "The error about an encrypted info file asks for the passphrase or the cipher type if one of them is wrong, and contains none of its bytes. The error about a line of a configuration file names the file. pgBackRest does neither.",
    ),
    (
        "restore",
        "The error about a damaged file names the file in the repository. rbr reads damaged files of a local repository a second time, but does not wait before it does.",
    ),
    (
        "verify",
        "An unreadable first WAL segment, or a name with another compression, is an ordinary fault. pgBackRest ends without a report.",
    ),
    (
        "verify",
        "A backup is invalid if a WAL segment between its start and its stop is missing. pgBackRest does not check it.",
    ),
    ("verify", "`--set` checks WAL of the backup's own cluster only."),
    (
        "verify",
        "An unfinished backup, which `backup.info` does not list and whose `backup.manifest.copy` is from before all files were copied, is skipped as one in progress, also if there are newer backups, unless one of them needs its files. pgBackRest skips only the newest one, and reports files of an older one as missing. A backup that has lost `backup.manifest` is read by the copy, and is a fault if `backup.history` shows that it was complete, also if it is the newest one, which pgBackRest skips.",
    ),
    (
        "expire, restore",
        "A repository on a host that is out of reach does not keep the command from using the others. pgBackRest ends with its error.",
    ),
    (
        "restore",
        "After an unfinished restore, `--delta` reads existing files from disk and not from memory, and compares checksums even with `--force`.",
    ),
    ("backup", "Files of an interrupted backup are read from disk and not from memory before they count."),
    ("backup", "A pipe, a device or anything else that replaces a file during the backup is an error [041]."),
    (
        "backup, check",
        "If a WAL segment does not arrive, further hints say that the repository may be full (only if it is a file system of the host where the command runs), or (`check`) that PostgreSQL's last try to archive has failed.",
    ),
    (
        "expire, repo-rm, stanza-delete",
        "A link is removed itself, never its destination. pgBackRest empties a directory behind a link and then fails.",
    ),
    (
        "all",
        "`tls-cipher-12` and `tls-cipher-13` are lists of cipher suite names. For TLS 1.2 these are the suites with ECDHE and GCM or ChaCha20. OpenSSL's classes and operators are refused.",
    ),
    (
        "all",
        "`repo-target-time` is refused for file systems and SFTP, which keep no old versions. pgBackRest reads the current content instead, or fails with an assertion if they are on a repository host.",
    ),
    ("all", "Listings of more than a thousand old versions in S3 are read completely. pgBackRest stops with an error."),
    (
        "all",
        "S3 credentials that live for less than five minutes are used for ten seconds before they are requested again, not for one request only.",
    ),
    (
        "backup, expire, annotate, stanza-upgrade, stanza-delete, repo-rm",
        "They, and `verify --repair`, claim the stanza in the repository (`backup/<stanza>/backup.claim.<id>`, renewed every 20 seconds) and fail [050] while another host has a claim. A lock file does not show another host. A dead process is detected at once on its own host. Another host removes its claim after 120 seconds without a renewal and continues 40 seconds later. pgBackRest ignores these files. `annotate` and `stanza-upgrade` need no claim in a repository in which they change nothing. On a full disk `expire`, `stanza-delete` and `repo-rm` go on without a claim if nobody else has one.",
    ),
    (
        "backup",
        "An unfinished backup is resumed or removed only if no process is making it. pgBackRest has no claims, so rbr fails [050] if PostgreSQL has a session for a backup, or if the directory changes within 60 seconds. Processes of pgBackRest outlive a killed main process until their current file is stored, and a backup that waits for its last WAL may be completed later. So rbr resumes or removes a backup that pgBackRest began only if it has not changed for an hour, or for a day if PostgreSQL has stopped it or it is offline; otherwise it leaves it alone, with a warning, and begins a new one. pgBackRest takes every unfinished backup for an interrupted one.",
    ),
    (
        "backup",
        "While a backup runs, the version in `backup.manifest.copy` ends with `+running`. pgBackRest resumes only a backup of its own version, so pgBackRest on another host never writes into a directory while rbr writes into it. A killed backup (`kill -9`, power loss) leaves this version behind. The next pgBackRest backup then warns once that it cannot resume the backup, removes it and starts from the beginning. rbr resumes it. After a signal such as SIGTERM both can resume it.",
    ),
    (
        "backup",
        "Before the manifest is written, the directory is listed. Each file that the manifest names must be there with its size, and each backup that it refers to must be complete [055]. If PostgreSQL has a session for another backup, the directory is listed again 3 seconds after the manifest is written.",
    ),
    (
        "backup",
        "The label is never a second in which another backup of the same cluster may have begun, according to PostgreSQL's sessions. The backup waits up to 11 seconds for another label. So two backups that begin at the same time on two hosts never write into one directory.",
    ),
    (
        "backup",
        "With `repo-hardlink`, files that an earlier backup of the chain stores in bundles or blocks are referenced. pgBackRest fails.",
    ),
    (
        "expire",
        "An unfinished backup without a claim, such as one of pgBackRest, stays until it has not changed for a day, together with the backups that it may be based on. pgBackRest keeps only the newest one. The log tells until when it stays if it is not the newest, and which unfinished backup keeps WAL or a backup from being expired. Unreadable files are an error before anything is removed.",
    ),
    (
        "all",
        "A backup is removed from `backup.info` only if its manifest was looked up and not found. An empty listing of the directory from which `backup.info` was just read is an error [073].",
    ),
    (
        "all",
        "On file systems and SFTP servers, every writer uses a temporary name of its own (`<file>.<writer>.pgbackrest.tmp`) and checks the stored file. A later run removes what a killed process left.",
    ),
    (
        "all",
        "Known hosts of SFTP: patterns, negated patterns and `@revoked *` mean what they mean to ssh. libssh2, which pgBackRest uses, does not know them.",
    ),
    (
        "backup, check, stanza-create, stanza-upgrade",
        "The session turns off `idle_session_timeout` and similar timeouts for itself, so that a setting of the role or the database does not end a backup.",
    ),
    (
        "backup, check, stanza-create, stanza-upgrade",
        "Unsupported variables of PostgreSQL's client library (`PGREQUIREAUTH`, `PGREQUIREPEER`, `PGLOADBALANCEHOSTS` and others that change where a session connects or how it is protected) are refused [056], also in a service of `PGSERVICE`. Client keys with a passphrase are not supported. Channel binding is not used if the certificate of the server is signed by a method without a hash, such as Ed25519. A list in `PGSSLCRL` or `PGSSLCRLDIR` that cannot be read is an error.",
    ),
    (
        "backup",
        "A backup can begin directly after a standby was promoted. pgBackRest fails [058] until PostgreSQL has made its next checkpoint.",
    ),
    (
        "backup",
        "A tablespace that is created or dropped while the data directory is listed does not end the backup. The server is asked again.",
    ),
    (
        "backup",
        "With `archive-copy`, a segment whose content does not match the checksum in its name ends the backup [026].",
    ),
    (
        "all",
        "An answer of an object store counts only if the store can have given it: the kind and the prefix of a listing, status, ETag and checksum of what was stored, each object of a removal. pgBackRest checks only the parts of an answer that it reads.",
    ),
    (
        "all",
        "Objects with names that are not paths (`a//b`, `./x`) cause a warning and are ignored. No path of a repository has such a name.",
    ),
    ("restore", "`--plan` and, with it, `--output` show what the restore would do. pgBackRest does not have them."),
    (
        "annotate, backup, check, expire, restore, stanza-create, stanza-delete, stanza-upgrade, verify",
        "`--output=json` prints a summary, also after an error. It is an option of the command line only. pgBackRest refuses it [031, for `verify` 032].",
    ),
    (
        "archive-get, backup, restore, test-restore, verify",
        "`--max-rate`, `--max-rate-file`, `--max-load` and `--max-replica-lag` limit the rate. pgBackRest does not have them.",
    ),
    (
        "info",
        "Shows the rate and the time left of a backup or restore of rbr that runs (`rbr-rate` and `rbr-seconds-left` in the JSON).",
    ),
    ("all", "`--log-format=json` writes log lines as JSON. pgBackRest does not have the option."),
    (
        "attest, recovery-points, test-restore",
        "pgBackRest does not have these commands. Only their full names are accepted.",
    ),
    (
        "info, expire, stanza-delete",
        "Proofs of recovery, which `test-restore` keeps in the directory `proof` of the repository, are shown (`rbr-proof` in the JSON) and removed with their backups. pgBackRest ignores the directory.",
    ),
    ("all", "`repo-storage-ca-file` and `repo-storage-ca-path` without a certificate are an error [095]."),
    (
        "all",
        "`repo-storage-verify-tls=n` applies to the storage only. Certificates of token services are checked. pgBackRest also skips that check for the token service of GCS.",
    ),
    (
        "all",
        "Errors of object stores show the request, its id at the store and the store's message. They show neither the headers of the request nor any secret that the store sends back.",
    ),
    ("all", "Errors of the system include their cause (`[28] No space left on device`)."),
    (
        "all",
        "Workers are threads. Processes of the role `local` are refused [067]. pgBackRest starts them with its own program \
            only, whatever `cmd` says, so its commands never ask rbr for one, unless its program is replaced while they run.",
    ),
    (
        "remote",
        "A client reaches only the repository, without the directories of other stanzas if it has one, or the data \
            directory, which it can't change. It asks only for the options that pgBackRest asks for, and sends only \
            statements that consist of the words of pgBackRest's. So `repo-rm` and `repo-ls` of another stanza are refused [105]. \
            pgBackRest opens any file.",
    ),
    ("remote", "Files are written with pgBackRest's modes only."),
    ("all", "For repositories on local file systems, connection options (`io-timeout` and similar) have no effect."),
    (
        "backup",
        "For a cluster on another host (`pg-host`), requests for lists and files are sent before they are needed. Size and checksum of what arrives are compared with what the host read. A process of a worker that ends is started again when its job is retried; pgBackRest fails.",
    ),
    (
        "server",
        "A client may run the role `remote` only, and may not name other places of the host than its configuration does (`repo-path` and other options of where a repository is, `pg-path`, `config`, `lock-path`, `log-path`): access is denied [105]. A client that names no configuration gets that of the server, not the default file. In pgBackRest, a client with access to one stanza can read all files of the server's user.",
    ),
    (
        "server",
        "The server listens on all addresses of `tls-server-address`; pgBackRest listens on the first. A port in use is an error at once. `SIGHUP` logs what has changed, and a configuration or certificate that can't be used leaves the previous one in place; pgBackRest ends. A client has 30 seconds to say who it is; at most 100 such clients of one address, 400 sessions of one client and 1000 in all are served at a time, fewer if the hard limit of open files is below 5336.",
    ),
    (
        "server",
        "Errors of clients and of their processes are in the log of the server. When a client is gone, its process ends after ten seconds at most, also while it waits for PostgreSQL.",
    ),
    (
        "server-ping",
        "With `log-level-console=info` it shows until when the server's certificate is valid. It warns if the certificate has expired, is not valid yet or will expire soon.",
    ),
    (
        "server",
        "A certificate that has expired, is not valid yet or will expire within two weeks (or in the last third of its time, if that is shorter) causes a warning at the start and after SIGHUP. It is used in any case, as in pgBackRest.",
    ),
    (
        "all, server",
        "If a server of rbr has too many sessions, a command of rbr tries again until `io-timeout` has passed. The error says which limit it is and what raises it. A process that serves a client tells it of the signal that ends the process, also if it is working on a request.",
    ),
    (
        "all, server",
        "Connections by TLS have keep-alive probes after 60 seconds without data, so that a host that was switched off leaves no process that holds a lock. `tcp-keep-alive-idle`, `-interval` and `-count` change that. pgBackRest uses the system's setting, which is two hours, and waits for `protocol-timeout`.",
    ),
    (
        "all",
        "With `repo-host-type=tls`, a server that does not speak TLS, or that refuses this host, is an error at once. pgBackRest tries again until `io-timeout` has passed. `io-timeout` also limits the TLS handshake with a silent server. Options with blanks reach the server as they are. pgBackRest adds quotes, which its server takes for a part of the value.",
    ),
];

/// Renders the page.
pub(super) fn render() -> String {
    let mut text = HEAD.to_owned();

    text += "\n## Commands\n\n| command | main process | other roles |\n| --- | --- | --- |\n";
    for decl in &COMMANDS {
        let main = match command::handler(decl.command, Role::Main) {
            Some(_) if decl.own => "yes, not in pgBackRest",
            Some(_) => "yes",
            None => "not yet",
        };
        let others: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|&role| decl.roles.has(role) && command::handler(decl.command, role).is_some())
            .filter_map(Role::name)
            .collect();
        let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
        let _ = writeln!(text, "| {} | {main} | {others} |", decl.name);
    }

    let count = ALL.iter().filter(|decl| decl.support == Support::Full).count();
    let _ = write!(text, "\n## Options\n\n{count} of {} options are supported. The others are:\n\n", ALL.len());
    text += "| option | state |\n| --- | --- |\n";
    for decl in &ALL {
        match decl.support {
            Support::Full => (),
            Support::Moot(reason) => {
                let _ = writeln!(text, "| {} | accepted, has no effect yet: {reason} |", decl.name);
            }
        }
    }

    text += DIFFERENCES_HEAD;
    for (commands, difference) in DIFFERENCES {
        let _ = writeln!(text, "| {commands} | {difference} |");
    }
    text
}
