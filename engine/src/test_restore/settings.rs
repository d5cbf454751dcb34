//! The configuration of the scratch server, as pure functions.
//!
//! The server gets a configuration of its own. The original files may contain or include what does not exist on this
//! host. Of the original settings, only the preloaded libraries are taken over, because extensions need them.

use std::collections::BTreeMap;

use super::machine::Memory;

/// Settings of the primary that the server needs at least, as `pg_controldata` shows them.
const AT_LEAST: [(&str, u64); 4] =
    [("max_connections", 20), ("max_wal_senders", 0), ("max_prepared_xacts", 0), ("max_locks_per_xact", 64)];

/// Libraries that start jobs or connections of their own. They change data or reach other hosts, and are not needed to
/// read anything.
const JOB_LIBRARIES: [&str; 8] =
    ["bdr", "pg_cron", "pg_failover_slots", "pg_net", "pg_partman_bgw", "pglogical", "repmgr", "repmgrd"];

/// What the configuration depends on.
#[derive(Clone, Debug)]
pub struct ServerSettings<'a> {
    /// PostgreSQL's major version.
    pub version_major: u32,
    /// The output of `pg_controldata`.
    pub control: &'a BTreeMap<String, String>,
    /// Libraries to preload, which exist.
    pub libraries: &'a [String],
    /// Memory of this host.
    pub memory: Memory,
    /// The directory of the socket.
    pub socket: &'a str,
    /// The file of authentication rules.
    pub hba_file: &'a str,
    /// The file of user name maps.
    pub ident_file: &'a str,
}

/// Returns the text of `postgresql.conf`. `postgresql.auto.conf` contains only the recovery settings.
pub fn server_configuration(settings: &ServerSettings<'_>) -> String {
    let mut values: Vec<(&str, String)> = Vec::new();
    let mut set = |name, value: &str| values.push((name, value.to_owned()));
    // Reachable by this user only
    set("listen_addresses", "");
    set("unix_socket_directories", settings.socket);
    set("unix_socket_permissions", "0700");
    set("port", "5432");
    set("hba_file", settings.hba_file);
    set("ident_file", settings.ident_file);
    set("ssl", "off");
    // Nothing runs by itself, and nothing reaches another host
    set("archive_mode", "off");
    set("autovacuum", "off");
    // Extensions start jobs in background workers. The primary's number is needed with hot_standby only
    set("max_worker_processes", "0");
    set("max_parallel_workers", "0");
    set("max_logical_replication_workers", "0");
    // Recovery fails if there are fewer than the cluster has used
    set("max_replication_slots", "1000");
    set("primary_conninfo", "");
    set("hot_standby", "off");
    set("wal_level", "replica");
    set("jit", "off");
    set("shared_preload_libraries", &settings.libraries.join(","));
    set("session_preload_libraries", "");
    set("local_preload_libraries", "");
    if settings.version_major >= 17 {
        set("event_triggers", "off");
        set("sync_replication_slots", "off");
    }
    if settings.version_major >= 18 {
        set("max_active_replication_origins", "1000");
    }
    // Files that disappear with the directory, even if the server is killed
    set("dynamic_shared_memory_type", "mmap");
    set("huge_pages", "off");
    set("shared_buffers", &format!("{}MB", settings.memory.shared_buffers_mib()));
    set("maintenance_work_mem", &format!("{}MB", settings.memory.maintenance_mib()));
    set("max_wal_size", "1GB");
    set("logging_collector", "off");
    set("log_destination", "stderr");
    set("log_min_messages", "warning");
    set("log_line_prefix", "");
    set("lc_messages", "C");
    set("cluster_name", "rbr-test-restore");
    set("zero_damaged_pages", "off");
    set("ignore_checksum_failure", "off");
    set("data_sync_retry", "off");
    for (name, at_least) in AT_LEAST {
        let primary = settings.control.get(&format!("{name} setting")).and_then(|text| text.parse().ok());
        let value = primary.unwrap_or(0).max(at_least);
        let name = match name {
            "max_prepared_xacts" => "max_prepared_transactions",
            "max_locks_per_xact" => "max_locks_per_transaction",
            same => same,
        };
        set(name, &value.to_string());
    }
    values
        .iter()
        .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")))
        .collect()
}

/// The authentication rules: the socket is in a directory that only this user can open.
pub const HBA: &str = "local all all trust\n";

/// Returns the values of `pg_controldata` by name. In the names of settings, the word `current` at the beginning is
/// omitted.
pub fn control_values(output: &str) -> BTreeMap<String, String> {
    let pairs = output.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.trim().trim_start_matches("current ").to_owned(), value.trim().to_owned()))
        .collect()
}

/// The preloaded libraries of the original cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    /// Those that the server preloads.
    pub kept: Vec<String>,
    /// What was dropped, for the report.
    pub notes: Vec<String>,
}

/// Decides which libraries to preload. `files` are configuration files in the order in which PostgreSQL reads them,
/// `exists` tells whether a library is installed.
pub fn libraries(files: &[&str], exists: impl Fn(&str) -> bool) -> Libraries {
    let names = files.iter().filter_map(|file| last_value(file, "shared_preload_libraries")).next_back();
    let mut found = Libraries::default();
    for name in names.unwrap_or_default().split(',') {
        let name = name.trim().trim_matches('"');
        if name.is_empty() {
            continue;
        }
        let base = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".so");
        if JOB_LIBRARIES.contains(&base) {
            found.notes.push(format!("library '{name}' is not preloaded because it runs jobs"));
        } else if exists(name) {
            found.kept.push(name.to_owned());
        } else {
            found.notes.push(format!("library '{name}' is not preloaded because it is not installed"));
        }
    }
    found
}

/// Returns the last value of a setting in a configuration file. Included files are not read.
fn last_value(file: &str, wanted: &str) -> Option<String> {
    let value = |line: &str| {
        let line = line.trim_start();
        let end = line.find(|char: char| !(char.is_ascii_alphanumeric() || char == '_' || char == '.'))?;
        let (name, rest) = line.split_at(end);
        if !name.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        Some(match rest.strip_prefix('\'') {
            Some(quoted) => unquoted(quoted),
            None => rest.split(['#', ' ', '\t']).next().unwrap_or("").to_owned(),
        })
    };
    file.lines().filter_map(value).next_back()
}

/// Reads a value up to its closing quote.
fn unquoted(text: &str) -> String {
    let (mut value, mut chars) = (String::new(), text.chars().peekable());
    while let Some(char) = chars.next() {
        match char {
            '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
            '\'' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    value
}

/// Splits `postgresql.auto.conf` of a restored cluster into what the original had and what the restore appended.
pub fn split_auto_conf(text: &str) -> (&str, &str) {
    const MARK: &str = "# Recovery settings generated by pgBackRest restore on ";
    match text.rfind(MARK) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(control: &str, version_major: u32) -> String {
        let settings = ServerSettings {
            version_major,
            control: &control_values(control),
            libraries: &["pg_stat_statements".to_owned(), "it's".to_owned()],
            memory: Memory { available_mib: 8192 },
            socket: "/scratch/socket",
            hba_file: "/scratch/hba",
            ident_file: "/scratch/ident",
        };
        server_configuration(&settings)
    }

    #[track_caller]
    fn says(text: &str, line: &str) {
        assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
    }

    #[test]
    fn server_is_isolated_and_runs_no_jobs() {
        let text = configuration("", 17);
        for line in [
            "listen_addresses = ''",
            "archive_mode = 'off'",
            "autovacuum = 'off'",
            "primary_conninfo = ''",
            "max_logical_replication_workers = '0'",
            "event_triggers = 'off'",
            "shared_preload_libraries = 'pg_stat_statements,it''s'",
        ] {
            says(&text, line);
        }
        assert!(!configuration("", 16).contains("event_triggers"), "version 16 does not know it");
    }

    #[test]
    fn limits_are_at_least_those_of_the_primary() {
        let control = "pg_control version number:            1300\n\
                       max_connections setting:              500\n\
                       max_worker_processes setting:         2\n\
                       max_prepared_xacts setting:           7\n\
                       max_locks_per_xact setting:           1024\n";
        let text = configuration(control, 15);
        for line in [
            "max_connections = '500'",
            "max_worker_processes = '0'",
            "max_wal_senders = '0'",
            "max_prepared_transactions = '7'",
            "max_locks_per_transaction = '1024'",
        ] {
            says(&text, line);
        }
    }

    #[test]
    fn libraries_that_are_missing_or_run_jobs_are_dropped_and_named() {
        let conf = "#shared_preload_libraries = 'commented'\nshared_preload_libraries = 'old' # comment\n\
                    shared_preload_libraries='a, \"B\" , pg_cron,gone,$libdir/repmgr'\n";
        let found = libraries(&[conf, ""], |name| name != "gone");
        assert_eq!(found.kept, ["a", "B"]);
        assert_eq!(found.notes.len(), 3);
        assert!(found.notes.iter().any(|note| note.contains("'gone'") && note.contains("not installed")));
    }

    #[test]
    fn later_file_replaces_the_libraries_of_the_earlier_one() {
        let found = libraries(&["shared_preload_libraries = 'a'", "shared_preload_libraries = ''"], |_| true);
        assert_eq!(found, Libraries::default());
        let found = libraries(&["SHARED_PRELOAD_LIBRARIES a # x"], |_| true);
        assert_eq!(found.kept, ["a"]);
        assert_eq!(libraries(&["shared_preload_libraries_x = 'a'"], |_| true), Libraries::default());
    }

    #[test]
    fn auto_conf_keeps_only_what_the_restore_wrote() {
        let text = "port = '1'\n# Recovery settings generated by pgBackRest restore on 2020\nold = '1'\n\
                    # Recovery settings generated by pgBackRest restore on 2026\nrestore_command = 'x'\n";
        let (before, after) = split_auto_conf(text);
        assert!(before.contains("port") && before.contains("old"));
        assert!(after.ends_with("restore_command = 'x'\n") && !after.contains("old"));
        assert_eq!(split_auto_conf("port = '1'"), ("port = '1'", ""));
    }
}
