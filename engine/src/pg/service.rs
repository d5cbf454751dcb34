//! Services of PostgreSQL's client library (`PGSERVICE`): named groups of connection settings in `pg_service.conf`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::system_text;
use crate::{Error, ErrorCode, Result};

/// The settings of a service, by the environment variable that each one replaces.
pub(super) type Service = BTreeMap<&'static str, String>;

/// Keywords of the file, and the variables they stand for.
const KEYWORDS: [(&str, &str); 24] = [
    ("channel_binding", "PGCHANNELBINDING"),
    ("gssencmode", "PGGSSENCMODE"),
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    ("min_protocol_version", "PGMINPROTOCOLVERSION"),
    ("options", "PGOPTIONS"),
    ("passfile", "PGPASSFILE"),
    ("password", "PGPASSWORD"),
    ("require_auth", "PGREQUIREAUTH"),
    ("requirepeer", "PGREQUIREPEER"),
    ("requiressl", "PGREQUIRESSL"),
    ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    ("sslcert", "PGSSLCERT"),
    ("sslcertmode", "PGSSLCERTMODE"),
    ("sslcrl", "PGSSLCRL"),
    ("sslcrldir", "PGSSLCRLDIR"),
    ("sslkey", "PGSSLKEY"),
    ("sslmode", "PGSSLMODE"),
    ("sslnegotiation", "PGSSLNEGOTIATION"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("user", "PGUSER"),
];

/// Keywords that change neither where a session connects nor how it is protected. The port and the database are options of the
/// command, which take precedence.
const WITHOUT_EFFECT: [&str; 16] = [
    "application_name",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "port",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
];

/// Directories of the system's service file, as Debian's and Red Hat's client libraries have them compiled in.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/// Where service files are.
#[derive(Debug)]
pub(super) struct ServiceFiles {
    /// `PGSERVICEFILE`, which must exist.
    pub chosen: Option<PathBuf>,
    /// `~/.pg_service.conf`
    pub usual: Option<PathBuf>,
    /// `PGSYSCONFDIR`
    pub system_directory: Option<PathBuf>,
}

impl ServiceFiles {
    /// Finds the service in the first file that has it.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`] if no file has it, or if it has a line that is invalid or not supported.
    pub(super) fn find(&self, name: &str) -> Result<Service> {
        let existing = |file: &Option<PathBuf>| file.clone().filter(|file| file.exists());
        let user = self.chosen.clone().or_else(|| existing(&self.usual));
        let directories = match &self.system_directory {
            Some(directory) => vec![directory.clone()],
            None => SYSTEM_DIRECTORIES.map(PathBuf::from).to_vec(),
        };
        let system =
            directories.into_iter().map(|directory| directory.join("pg_service.conf")).find(|file| file.exists());
        for file in user.into_iter().chain(system) {
            let text = fs::read_to_string(&file).map_err(|error| {
                refuse(format!("service file \"{}\" cannot be read: {}", file.display(), system_text(&error)))
            })?;
            if let Some(service) = parse(&text, name, &file)? {
                return Ok(service);
            }
        }
        Err(refuse(format!("definition of service \"{name}\" not found")).hint("PGSERVICE names the service."))
    }
}

fn refuse(text: String) -> Error {
    Error::new(ErrorCode::DbConnect, text)
}

/// Reads one service; `None` if the file does not have it.
fn parse(text: &str, name: &str, file: &Path) -> Result<Option<Service>> {
    let mut found = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(group) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let is_wanted = group.strip_prefix(name).is_some_and(|rest| rest.starts_with(']'));
            found = is_wanted.then(Service::new);
            continue;
        }
        let Some(service) = &mut found else { continue };
        let place = || format!("service file \"{}\", line {}", file.display(), index + 1);
        let Some((keyword, value)) = line.split_once('=') else {
            return Err(refuse(format!("syntax error in {}", place())));
        };
        if let Ok(at) = KEYWORDS.binary_search_by_key(&keyword, |(known, _)| known) {
            // The first of several counts
            service.entry(KEYWORDS[at].1).or_insert_with(|| value.to_owned());
        } else if !WITHOUT_EFFECT.contains(&keyword) {
            return Err(refuse(format!("'{keyword}' is not supported in {}", place())));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\n[other]\nhost=elsewhere\n\n[main]\n  host=db1,db2\nport=1\nuser=backup \nuser=second\n\
                        sslmode=verify-full\n[broken]\nnonsense\n[unknown]\nsslpassword=x\n[main]\nhost=late\n";

    fn files(dir: &Path) -> ServiceFiles {
        ServiceFiles { chosen: None, usual: Some(dir.join("user")), system_directory: Some(dir.join("system")) }
    }

    #[test]
    fn keywords_are_sorted() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn service_has_the_lines_of_its_first_group() {
        let service = parse(TEXT, "main", Path::new("x")).unwrap().unwrap();
        let expected = [("PGHOST", "db1,db2"), ("PGSSLMODE", "verify-full"), ("PGUSER", "backup")];
        assert_eq!(service, expected.map(|(name, value)| (name, value.to_owned())).into());
        assert_eq!(parse(TEXT, "mai", Path::new("x")).unwrap(), None);
    }

    #[test]
    fn line_that_is_no_setting_or_not_supported_is_refused_with_its_place() {
        for (name, text) in [("broken", "syntax error"), ("unknown", "'sslpassword' is not supported")] {
            let error = parse(TEXT, name, Path::new("/x")).unwrap_err();
            assert_eq!(error.code, ErrorCode::DbConnect);
            assert!(error.message.contains(text) && error.message.contains("\"/x\", line 1"), "{error}");
        }
    }

    #[test]
    fn service_is_looked_for_in_the_users_file_and_then_in_that_of_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        assert!(files.find("main").unwrap_err().message.contains("definition of service \"main\" not found"));
        fs::create_dir(dir.path().join("system")).unwrap();
        fs::write(dir.path().join("system/pg_service.conf"), "[main]\nhost=system\n[more]\nhost=more\n").unwrap();
        assert_eq!(files.find("main").unwrap()["PGHOST"], "system");
        fs::write(dir.path().join("user"), "[main]\nhost=user\n").unwrap();
        assert_eq!(files.find("main").unwrap()["PGHOST"], "user");
        assert_eq!(files.find("more").unwrap()["PGHOST"], "more");
        let missing = ServiceFiles { chosen: Some(dir.path().join("none")), ..files };
        assert!(missing.find("main").unwrap_err().message.contains("cannot be read"));
    }
}
