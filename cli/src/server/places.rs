//! Places of this host that a client may name: those of the host's own configuration.
//!
//! A client sends all options that it knows, also `pg1-path` and sometimes `repo1-path`. An authorized client of
//! pgBackRest's server can read any file of the server's user that way.

use engine::{Error, ErrorCode, Result};

use super::command_line::resolve;
use crate::config::decl::{IndexGroup, OptionDecl};
use crate::config::{Config, opt};

/// Options that lead to files of this host.
const FILES: [&str; 6] = ["config", "config-include-path", "config-path", "lock-path", "log-path", "spool-path"];
/// Beginnings of repository options that say nothing about a place.
const NO_PLACES: [&str; 7] = [
    "repo-retention",
    "repo-bundle",
    "repo-block",
    "repo-hardlink",
    "repo-symlink",
    "repo-target-time",
    "repo-cipher-type",
];

/// Checks that a client's options name the same places as this host's configuration.
///
/// # Errors
/// [`ErrorCode::Access`] if they do not, and errors of this host's options.
pub(super) fn check(config: &Config, program: &str, config_options: &[String]) -> Result<()> {
    let asks_for_data = config.find(opt::REMOTE_TYPE) == Some("pg");
    let named: Vec<(&OptionDecl, u32)> = config
        .each_slot()
        .filter(|(decl, _, slot)| slot.is_from_command_line() && is_place(decl, asks_for_data))
        .map(|(decl, key, _)| (decl, key))
        .collect();
    if named.is_empty() && !asks_for_data {
        return Ok(());
    }
    let own = own(config, program, config_options, asks_for_data)?;
    let (of_cluster, others): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|(decl, _)| decl.group == Some(IndexGroup::Pg));
    for (decl, key) in others {
        if own.display(decl, key) != config.display(decl, key) {
            return Err(refused(config, decl, key));
        }
    }
    check_cluster(config, &own, &of_cluster)
}

/// Checks that the options of the cluster are those of one of this host's clusters. The number that the client has for it is
/// not sent.
fn check_cluster(config: &Config, own: &Config, named: &[(&OptionDecl, u32)]) -> Result<()> {
    let mismatch = |own_key: u32| {
        named.iter().find(|(decl, key)| {
            let wanted = config.display(decl, *key);
            match own.display(decl, own_key) == wanted {
                true => false,
                // The client decides what this host's configuration leaves open
                false if is_connection(decl) && !is_set(own, decl, own_key) => {
                    // Without one of these at its start, it would be another host
                    decl.name == opt::PG_SOCKET_PATH.decl().name
                        && !wanted.is_some_and(|wanted| wanted.starts_with(['/', '@']))
                }
                false => true,
            }
        })
    };
    // The most telling reason is that of the cluster with the right path
    let path = opt::PG_PATH.decl();
    let mismatches = own.pg_keys().iter().map(|&key| mismatch(key)).collect::<Option<Vec<_>>>();
    let Some(mismatches) = mismatches else { return Ok(()) };
    let best = mismatches.iter().find(|(decl, _)| decl.name != path.name).or(mismatches.first());
    best.map_or(Ok(()), |(decl, key)| Err(refused(config, decl, *key)))
}

fn is_set(config: &Config, decl: &OptionDecl, key: u32) -> bool {
    config.each_slot().any(|(other, number, slot)| other.name == decl.name && number == key && !slot.is_default())
}

fn refused(config: &Config, decl: &OptionDecl, key: u32) -> Error {
    let (name, wanted) = (decl.indexed_name(key), config.display(decl, key));
    let text = format!("access denied: '{}' is not the '{name}' of this host", wanted.as_deref().unwrap_or_default());
    Error::new(ErrorCode::Access, text)
        .hint(format!("the configuration of the host that serves must have the same '{name}', or the client none."))
}

fn is_place(decl: &OptionDecl, asks_for_data: bool) -> bool {
    match decl.group {
        Some(IndexGroup::Repo) => !NO_PLACES.iter().any(|harmless| decl.name.starts_with(harmless)),
        Some(IndexGroup::Pg) => asks_for_data && (decl.name == opt::PG_PATH.decl().name || is_connection(decl)),
        None => FILES.contains(&decl.name),
    }
}

/// Returns whether the option tells to which server to connect, and as whom.
fn is_connection(decl: &OptionDecl) -> bool {
    ["pg-database", "pg-port", "pg-socket-path", "pg-user"].contains(&decl.name)
}

/// Resolves the options that this host has for the client's command.
fn own(config: &Config, program: &str, config_options: &[String], asks_for_data: bool) -> Result<Config> {
    let mut arguments = config_options.to_vec();
    arguments.extend(config.find(opt::STANZA).map(|stanza| format!("--stanza={stanza}")));
    arguments.extend(config.find(opt::REPO).map(|repo| format!("--repo={repo}")));
    if !asks_for_data {
        // A repository's host need not know the cluster, but some commands require its path
        let path = |key| Some(format!("--pg{key}-path={}", config.find_at(opt::PG_PATH, key)?));
        arguments.extend(config.pg_keys().iter().filter_map(|&key| path(key)));
    }
    arguments.push(config.command().role_name(config.role()));
    resolve(program, &arguments).map_err(|error| {
        error.context("access denied: the configuration of the host that serves does not have what the client asks for")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what a client asks for at a host with this configuration.
    fn check_at(host: &str, client: &[&str]) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.conf");
        std::fs::write(&file, format!("[demo]\n{host}\n")).unwrap();
        let own = vec![format!("--config={}", file.display())];
        let mut all = own.clone();
        all.extend(client.iter().map(ToString::to_string));
        all.extend(["--stanza=demo", "--remote-type=pg", "backup:remote"].map(str::to_owned));
        check(&resolve("rbr", &all)?, "rbr", &own)
    }

    fn code(result: Result<()>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn client_can_not_make_the_database_host_connect_elsewhere() {
        let host = "pg1-path=/pg";
        for socket in ["evil.example.com", "/run", "@name"] {
            let expected = (socket == "evil.example.com").then_some(ErrorCode::Access);
            let socket = format!("--pg1-socket-path={socket}");
            assert_eq!(code(check_at(host, &["--pg1-path=/pg", &socket])), expected, "{socket}");
        }
        // The host's own choice
        let host = "pg1-path=/pg\npg1-socket-path=db.example.com\npg1-user=backup\npg1-database=db\npg1-port=5433";
        let same = ["--pg1-path=/pg", "--pg1-socket-path=db.example.com", "--pg1-user=backup", "--pg1-port=5433"];
        assert_eq!(code(check_at(host, &same)), None);
        for other in ["--pg1-socket-path=/run", "--pg1-user=postgres", "--pg1-database=other", "--pg1-port=5432"] {
            let error = check_at(host, &["--pg1-path=/pg", other]).unwrap_err();
            assert_eq!(error.code, ErrorCode::Access, "{other}");
            assert!(error.message.contains(&other[2..other.find('=').unwrap()]), "{error}");
        }
    }

    #[test]
    fn client_decides_what_the_host_leaves_open_for_any_of_its_clusters() {
        let host = "pg1-path=/pg\npg1-port=5433\npg2-path=/pg2\npg2-port=5434";
        let client = ["--pg1-path=/pg2", "--pg1-port=5434", "--pg1-user=backup", "--pg1-database=db"];
        assert_eq!(code(check_at(host, &client)), None);
        assert_eq!(code(check_at(host, &["--pg1-path=/pg2", "--pg1-port=5433"])), Some(ErrorCode::Access));
        assert_eq!(code(check_at(host, &["--pg1-path=/elsewhere"])), Some(ErrorCode::Access));
    }
}
