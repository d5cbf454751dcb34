//! `docs/compatibility.md`: what exists and what does not.

use std::fmt::Write as _;

use crate::command;
use crate::config::decl::{COMMANDS, Role, Support};
use crate::config::options::ALL;

const HEAD: &str = "# Compatibility with pgBackRest

This page is made from the option table (`rbr docs compatibility`); a test compares it.

rbr reads and writes repositories of pgBackRest 2.60 (format 5) and takes its commands, options, configuration files and
environment variables. What is not built yet is refused with error 67 when it is asked for. Options that are accepted although
there is nothing that they could apply to yet are listed with the reason.
";

const DIFFERENCES_HEAD: &str = "
## Deliberate differences

Where rbr behaves otherwise than pgBackRest on purpose. Repositories stay the same.

| command | difference |
| --- | --- |
";

/// Where the program behaves otherwise than pgBackRest on purpose: commands, and what differs.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "restore",
        "Quotes, backslashes and line breaks in recovery settings are escaped, so that PostgreSQL reads the value that was given.",
    ),
    ("restore", "A line break in the value of `recovery-option` is refused [032]; it would begin another setting."),
    (
        "restore",
        "Every word of `restore_command` is quoted for the shell where it needs it, and `%` is doubled; pgBackRest quotes blanks alone. A program that was called by a relative path has its absolute one.",
    ),
    (
        "restore",
        "A time target without a zone is written to `recovery_target_time` with this host's offset, so that the instant that chooses the set also ends recovery. A comma before the fraction becomes a point.",
    ),
    (
        "restore",
        "Targets that PostgreSQL would refuse are refused before anything is changed, also with `--set`: times [029], positions, transactions and names [032].",
    ),
    (
        "restore",
        "A manifest with two entries that restore to one path is refused [029] before anything is changed; files that an unfinished restore left in the cluster are neither backed up nor restored.",
    ),
    (
        "restore",
        "Invalid page checksums are an error [026], or a warning, for files that `--delta` finds there already too.",
    ),
    ("restore", "A file of another size than the manifest says is an error [026] even if its checksum fits."),
    (
        "restore",
        "A file with more than one name (hard links, as `pg_upgrade --link` and `cp -al` leave them) is replaced and not overwritten, so that its other names keep their content. pgBackRest writes through all of them.",
    ),
    (
        "restore",
        "With `--delta --force`, a file that begins with zeros is compared by checksum: a selective restore leaves zeros with the size and time of the file, which pgBackRest takes for the file.",
    ),
    (
        "restore",
        "A file that the user of the restore may not write to because of its mode is replaced; pgBackRest fails [041].",
    ),
    (
        "restore",
        "Directories whose mode does not let their owner write get that mode after the files are restored; pgBackRest fails [041].",
    ),
    ("restore", "Nothing is written or removed through a link that appears in a target during the restore."),
    (
        "restore",
        "As root, directories above a new target get the owner of the target, and a data directory that is a link gets its owner; pgBackRest leaves directories of root in which the server cannot start.",
    ),
    (
        "restore",
        "The destination of a link or tablespace is cleaned with `--delta` only if the cluster's own link led there before; otherwise it must be empty [040, 093].",
    ),
    (
        "restore",
        "Destinations that contain the data directory or a repository, spool, lock or log path are refused [070], and so is what would remove another cluster [040]. Links are resolved first.",
    ),
    (
        "restore",
        "With `--delta`, a cluster that was never one of the stanza is not overwritten [051]; `--force` allows it.",
    ),
    (
        "restore",
        "A backup that does not fit on its file systems is refused [064] before anything is changed; on file systems that may compress it is warned about.",
    ),
    ("restore", "The `backup.manifest` that stands in the data directory meanwhile holds no passphrase."),
    (
        "check, backup",
        "`archive_command` must contain `pgbackrest` or the word `rbr`; pgBackRest asks for its own name alone.",
    ),
    (
        "backup",
        "A file name with a line break or that is not UTF-8 is refused [029] before anything is copied: the manifest could not be read again.",
    ),
    ("backup", "A standby of another cluster (version or system identifier) is refused, not only one that is behind."),
    (
        "backup",
        "For object stores, a file whose name has control characters or makes a name of more than 1024 bytes is refused [029] before \
         anything is copied, unless it goes into a bundle.",
    ),
    ("backup", "The directory of the bundles is synced too."),
    (
        "backup",
        "A signal does not cut short what makes the backup complete; pgBackRest ends at once, and a backup that was all but done is made again.",
    ),
    ("backup, restore", "Progress that cannot be written to the lock file is a warning; pgBackRest ends the command."),
    (
        "backup, expire, restore",
        "A lock is tried again for a moment where another command may only be reading it; pgBackRest fails at once [050].",
    ),
    ("stop", "With `--force`, processes of a stanza whose name only begins the same are left alone."),
    (
        "repo-ls",
        "Back references in `--filter` are refused, and expressions whose compiled form takes more than 512 KiB; every match takes linear time.",
    ),
    ("all", "A value that is not UTF-8 is refused [032] where the command uses the option."),
    (
        "backup, archive-push",
        "A zst stream is several frames of 2 MiB up to level 6, which every reader takes for one; pgBackRest writes one without end.",
    ),
    (
        "backup, restore",
        "Where kernel and file system report failed writes that way, one sync of the file system stands for the syncs of its many files.",
    ),
    (
        "annotate",
        "Each repository's `backup.info` is saved to the repository it was loaded from; keys that would make it unreadable are refused [032].",
    ),
    (
        "archive-get",
        "A file is written under a temporary name, a segment compared with the checksum in its stored name, and then renamed.",
    ),
    (
        "archive-push",
        "With `archive-async`, a worker that went without a word, such as one that was killed, is replaced after 2 seconds.",
    ),
    (
        "archive-get",
        "With `archive-async`, a segment is got directly when no worker can be started; pgBackRest fails, also when the spool had it.",
    ),
    (
        "archive-get",
        "With `archive-async`, a spool that fails, an error of the worker or one that takes longer than `archive-timeout` is no answer: the repository is asked directly. PostgreSQL would take the error for the end of the WAL.",
    ),
    ("archive-get", "A stored segment that decodes to more than a segment's size is refused before it fills the disk."),
    (
        "archive-push",
        "With `archive-async`, a state in the spool that is older than the last change of its WAL file does not count: it is about an earlier file of that name.",
    ),
    (
        "archive-push",
        "A segment that a file system already has is read before it is acknowledged, and stored again if it is damaged.",
    ),
    (
        "archive-push",
        "On file systems and SFTP servers the archive is listed again after a segment was stored: of two clusters that push different content at the same time, at least one fails [045].",
    ),
    (
        "archive-push",
        "`archive-push-queue-max` counts segments by the size of the first segment and other files by their own; pgBackRest takes all files to be as large as the first.",
    ),
    ("archive-push", "With `archive-async`, the worker pushes the file that PostgreSQL asks for before all others."),
    (
        "archive-push, archive-get",
        "With `archive-async`, an error that an earlier worker left is no answer before the file was tried once more.",
    ),
    ("archive-push, archive-get", "A signal ends them at once with the same exit status but without a log line."),
    ("info", "A wrong passphrase is a CryptoError [095]."),
    (
        "all",
        "Format 6, which pgBackRest 2.60 can make, is refused [029]. The copy of an info file or manifest is not taken in place of a file of another format.",
    ),
    (
        "backup, expire, check, annotate, stanza-create, stanza-upgrade",
        "All four info files must have one format, or the command fails [028] before it changes anything; pgBackRest compares two of them, and not in all of these commands.",
    ),
    ("info", "`--set=latest` shows the newest backup of each repository; pgBackRest shows none."),
    (
        "info, repo-ls",
        "Control characters in JSON are escaped, without which it is no JSON. Text shows them as `\\x1b`, as do log lines; pgBackRest prints them.",
    ),
    (
        "all",
        "Messages about damaged info files, manifests and configuration files do not quote what was encrypted or may be a passphrase.",
    ),
    (
        "verify",
        "A backup is invalid too when a bundle or file is damaged that it needs of an earlier backup; pgBackRest finds only files that are stored alone again.",
    ),
    (
        "verify",
        "An info file or manifest of which only one of file and copy is whole is warned about, and `--repair` makes both whole. pgBackRest does not have this option.",
    ),
    (
        "verify",
        "`--verify-exit-code` gives exit status 104 for what is not valid. pgBackRest does not have this option and always succeeds.",
    ),
    (
        "verify",
        "A first WAL segment that can't be read, or a name of another compression, is a fault like others; pgBackRest ends without a report.",
    ),
    ("verify", "With `--set`, WAL of the backup's own cluster is checked and none of other clusters."),
    (
        "restore",
        "After a restore that did not finish, `--delta` reads existing files from disk and not from memory, and with `--force` too compares checksums.",
    ),
    ("backup", "Files of an interrupted backup are read from disk and not from memory before they count."),
    (
        "backup",
        "Something else than a file (a pipe, a device) that takes a file's place during the backup is an error [041].",
    ),
    (
        "expire, repo-rm, stanza-delete",
        "A link is removed itself, never what it leads to; pgBackRest empties a directory behind a link and then fails.",
    ),
    (
        "all",
        "`tls-cipher-12` and `tls-cipher-13` are lists of names of single suites, of which TLS 1.2 has those with ECDHE and GCM or ChaCha20. OpenSSL's classes and operators are refused.",
    ),
    (
        "all",
        "`repo-target-time` is refused for file systems and SFTP, which keep no old versions: pgBackRest then reads the present.",
    ),
    (
        "all",
        "Listings of more than a thousand old versions in S3 are read to their end; pgBackRest stops with an error.",
    ),
    (
        "all",
        "Credentials of S3 that live for less than five minutes are used for ten seconds before they are asked for again, not for one request.",
    ),
    (
        "backup, expire, stanza-delete",
        "They claim the stanza in the repository (`backup/<stanza>/backup.claim.<id>`, renewed every 20 seconds) and fail [050] while another host has a claim, which a lock file does not show. A process that is gone is known at once on its own host, and on another after 120 seconds without a renewal. pgBackRest takes no notice of these files.",
    ),
    (
        "backup",
        "An unfinished backup is resumed or removed only if nobody makes it any more. pgBackRest has no claims: a session for a backup with PostgreSQL, or a change while the directory is watched for 60 seconds, is an error [050]. pgBackRest takes every unfinished backup for an interrupted one.",
    ),
    (
        "backup",
        "While it runs, the version in `backup.manifest.copy` ends with `+running`, so that pgBackRest on another host does not write into the same directory. It says that the backup cannot be resumed, and makes a new one. The same holds after a backup was killed.",
    ),
    (
        "backup",
        "Before the manifest is written, the directory is listed: each file that the manifest names must be there with its size, and each backup that it refers to must be complete [055].",
    ),
    (
        "backup",
        "With `repo-hardlink`, files that an earlier backup of the chain keeps in bundles or blocks are referred to; pgBackRest fails.",
    ),
    (
        "expire",
        "An unfinished backup without a claim stays, with the backups that it may be based on, until it has not changed for a day. What can't be read fails before anything is removed.",
    ),
    (
        "all",
        "A backup leaves `backup.info` only if its manifest is looked for and not found. An empty listing of the directory from which `backup.info` was just read is an error [073].",
    ),
    ("repo-rm", "What a backup of another host works on is not removed [050]."),
    (
        "all",
        "Every writer has a temporary name of its own (`<file>.<writer>.pgbackrest.tmp`) on file systems and SFTP, and looks at the stored file once more. A later run removes what a killed process left.",
    ),
    (
        "all",
        "Known hosts of SFTP: patterns, negated ones and `@revoked *` mean what they mean to ssh. libssh2, which pgBackRest uses, does not know them.",
    ),
    (
        "backup, check, stanza-create, stanza-upgrade",
        "The session turns off `idle_session_timeout` and its like for itself, so that a setting of the role or the database does not end a backup.",
    ),
    (
        "backup, check, stanza-create, stanza-upgrade",
        "Variables of PostgreSQL's client library that are not supported (`PGSERVICE`, `PGTARGETSESSIONATTRS` and others that change where a session leads or how it is protected) are refused [056]. A key of the client that needs a passphrase, lists of revoked certificates and channel binding are not supported.",
    ),
    (
        "backup",
        "A tablespace that is made or dropped while the data directory is listed does not end the backup: the server is asked again.",
    ),
    (
        "backup",
        "With `archive-copy`, a segment whose content does not match the checksum in its name ends the backup [026].",
    ),
    (
        "all",
        "An answer of an object store is believed only if the store can have given it: the kind and the prefix of a listing, status, \
         ETag and checksum of what was stored, each object of a removal. pgBackRest looks only at the parts of an answer that it reads.",
    ),
    (
        "all",
        "Objects whose names no path leads to (`a//b`, `./x`) are passed over with a warning; no path of a repository has such names.",
    ),
    ("all", "`repo-storage-ca-file` and `repo-storage-ca-path` without a certificate in them are an error [095]."),
    (
        "all",
        "`repo-storage-verify-tls=n` holds for the storage alone: the certificates of token services are checked. pgBackRest leaves \
         out that check for the token service of GCS, too.",
    ),
    (
        "all",
        "Errors of object stores show the request, what identifies it to the store and the store's message, but not the headers of the \
         request, and no secret that the store sends back.",
    ),
    ("all", "Errors of the system name their cause (`[28] No space left on device`)."),
    ("all", "Workers are threads: there are no processes of the roles `local` and `remote`."),
    (
        "all",
        "For repositories on local file systems, options of connections (`io-timeout` and its like) have nothing to act on.",
    ),
    ("all", "The TLS server and remote hosts (`pg-host`, `repo-host`) are not built and are refused."),
];

/// The page.
pub(super) fn render() -> String {
    let mut text = HEAD.to_owned();

    text += "\n## Commands\n\n| command | main process | other roles |\n| --- | --- | --- |\n";
    for decl in &COMMANDS {
        let main = if command::handler(decl.command, Role::Main).is_some() { "yes" } else { "not yet" };
        let others: Vec<&str> = Role::ALL
            .into_iter()
            .filter(|&role| decl.roles.has(role) && command::handler(decl.command, role).is_some())
            .filter_map(Role::name)
            .collect();
        let others = if others.is_empty() { "-".to_owned() } else { others.join(", ") };
        let _ = writeln!(text, "| {} | {main} | {others} |", decl.name);
    }

    let count = ALL.iter().filter(|decl| decl.support == Support::Full).count();
    let _ = write!(text, "\n## Options\n\n{count} of {} options are supported. The others:\n\n", ALL.len());
    text += "| option | state |\n| --- | --- |\n";
    for decl in &ALL {
        match decl.support {
            Support::Full => (),
            Support::Moot(reason) => {
                let _ = writeln!(text, "| {} | accepted, has no effect yet: {reason} |", decl.name);
            }
            Support::NotYet(feature) => {
                let _ = writeln!(text, "| {} | not yet: needs {feature} |", decl.name);
            }
        }
    }

    text += "\n## Values\n\nValues of supported options that are refused:\n\n| option | value | state |\n| --- | --- | --- |\n";
    for decl in &ALL {
        for (value, feature) in decl.not_yet {
            let _ = writeln!(text, "| {} | {value} | not yet: needs {feature} |", decl.name);
        }
        for special in decl.overrides {
            for (value, feature) in special.not_yet {
                let name = special.command.name();
                let _ = writeln!(text, "| {} ({name}) | {value} | not yet: needs {feature} |", decl.name);
            }
        }
    }

    text += DIFFERENCES_HEAD;
    for (commands, difference) in DIFFERENCES {
        let _ = writeln!(text, "| {commands} | {difference} |");
    }
    text
}
