//! The environment variables of PostgreSQL's client library, which pgBackRest follows because it uses that library.
//!
//! A variable that is not built, but would change where a session connects or how it is protected, is refused. It must
//! never be ignored.

use std::env;
use std::net::IpAddr;
use std::path::PathBuf;

use tokio_postgres::config::ChannelBinding;

use super::service::{Service, ServiceFiles};
use super::session_kind::SessionKind;
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// When a session is encrypted and what is checked about the server (`PGSSLMODE`), from weak to strong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Files and versions for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SslFiles {
    /// `PGSSLROOTCERT`, or the usual file. The word `system` means the system's authorities.
    pub root: Option<PathBuf>,
    /// The root was asked for and not only looked for.
    pub root_is_set: bool,
    /// `PGSSLCRL`, or the usual file.
    pub revoked: Option<PathBuf>,
    /// Whether the list of revoked certificates was requested explicitly.
    pub revoked_is_set: bool,
    /// `PGSSLCRLDIR`
    pub revoked_directory: Option<PathBuf>,
    /// Do not send a certificate (`PGSSLCERTMODE`).
    pub without_certificate: bool,
    /// Start with TLS without asking whether the server supports it (`PGSSLNEGOTIATION`).
    pub direct: bool,
    /// `PGSSLCERT`, or the usual file.
    pub certificate: Option<PathBuf>,
    /// `PGSSLKEY`, or the usual file.
    pub key: Option<PathBuf>,
    /// At least TLS 1.3 (`PGSSLMINPROTOCOLVERSION`).
    pub version_min_13: bool,
    /// At most TLS 1.2 (`PGSSLMAXPROTOCOLVERSION`).
    pub version_max_12: bool,
}

/// The values of the variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Environment {
    /// `PGHOST`, as a list.
    pub hosts: Vec<String>,
    /// `PGHOSTADDR`, one for each host.
    pub addresses: Vec<IpAddr>,
    /// `PGUSER`
    pub user: Option<String>,
    /// `PGPASSWORD`
    pub password: Option<String>,
    /// `PGPASSFILE`, or the usual file.
    pub passfile: Option<PathBuf>,
    /// `PGOPTIONS`
    pub options: Option<String>,
    /// `PGTARGETSESSIONATTRS`
    pub session: SessionKind,
    /// `PGCHANNELBINDING`
    pub channel_binding: ChannelBinding,
    /// `PGSSLMODE`
    pub ssl_mode: SslMode,
    /// The files that TLS takes.
    pub ssl: SslFiles,
}

/// Settings that are not built. Each is accepted if it has one of these values, which change nothing.
const REFUSED: &[(&str, &[&str])] = &[
    ("PGSSLCERTMODE", &["allow", "disable"]),
    ("PGREQUIREAUTH", &[]),
    ("PGREQUIREPEER", &[]),
    ("PGGSSENCMODE", &["prefer", "disable"]),
    ("PGLOADBALANCEHOSTS", &["disable"]),
    ("PGMINPROTOCOLVERSION", &["3.0"]),
];

impl Environment {
    /// Reads the variables of this process.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`] for a value that is invalid or not built.
    pub(super) fn read() -> Result<Self> {
        Self::from(|name| env::var(name).ok(), || Users::new().current_home())
    }

    fn from(variable: impl Fn(&str) -> Option<String>, home: impl Fn() -> Option<PathBuf>) -> Result<Self> {
        // libpq also ignores an empty variable that has a default
        let own = |name: &str| variable(name).filter(|value| !value.is_empty());
        // HOME first, then the passwd entry, because servers started by a service manager have no HOME
        let home = own("HOME").map(PathBuf::from).or_else(home);
        let usual = |name: &str| home.as_ref().map(|home| home.join(name));
        let service = match own("PGSERVICE") {
            Some(name) => ServiceFiles {
                chosen: own("PGSERVICEFILE").map(PathBuf::from),
                usual: usual(".pg_service.conf"),
                system_directory: own("PGSYSCONFDIR").map(PathBuf::from),
            }
            .find(&name)?,
            None => Service::new(),
        };
        // The service takes precedence over the other variables
        let set = |name: &str| service.get(name).filter(|value| !value.is_empty()).cloned().or_else(|| own(name));
        let refuse = |text: String| Error::new(ErrorCode::DbConnect, text);
        for (name, harmless) in REFUSED {
            if let Some(value) = set(name).filter(|value| !harmless.contains(&value.as_str())) {
                let place =
                    if service.contains_key(name) { "by the service of PGSERVICE" } else { "in the environment" };
                return Err(refuse(format!("{name} is set to '{value}' {place}, which is not supported"))
                    .hint(format!("unset {name} for this command.")));
            }
        }
        let file = |name: &str, usual_name: &str| set(name).map(PathBuf::from).or_else(|| usual(usual_name));
        let list = |name: &str| -> Vec<String> {
            set(name).map(|value| value.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
        };
        let addresses = list("PGHOSTADDR")
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<Vec<IpAddr>, std::net::AddrParseError>>()
            .map_err(|error| refuse(format!("PGHOSTADDR is not a list of network addresses: {error}")))?;
        let hosts = list("PGHOST");
        if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
            let (hosts, addresses) = (hosts.len(), addresses.len());
            return Err(refuse(format!("could not match {hosts} host names to {addresses} hostaddr values")));
        }
        let ssl_mode = match set("PGSSLMODE").as_deref() {
            None if set("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) => SslMode::Require,
            None | Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => return Err(refuse(format!("invalid sslmode value: \"{other}\" (PGSSLMODE)"))),
        };
        let invalid = |keyword: &str, value: &str| refuse(format!("invalid {keyword} value: \"{value}\""));
        let channel_binding = match set("PGCHANNELBINDING").as_deref() {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(other) => return Err(invalid("channel_binding", other)),
        };
        let session = match set("PGTARGETSESSIONATTRS") {
            None => SessionKind::Any,
            Some(word) => SessionKind::parse(&word).ok_or_else(|| invalid("target_session_attrs", &word))?,
        };
        let direct = match set("PGSSLNEGOTIATION").as_deref() {
            None | Some("postgres") => false,
            Some("direct") if ssl_mode < SslMode::Require => {
                return Err(refuse(
                    "a weak sslmode may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \
                     \"verify-full\")"
                        .to_owned(),
                ));
            }
            Some("direct") => true,
            Some(other) => return Err(invalid("sslnegotiation", other)),
        };
        let version = |name: &str| match set(name).as_deref() {
            None => Ok(None),
            Some("TLSv1" | "TLSv1.1") => Ok(Some(11)),
            Some("TLSv1.2") => Ok(Some(12)),
            Some("TLSv1.3") => Ok(Some(13)),
            Some(other) => Err(refuse(format!("invalid {name} value: \"{other}\""))),
        };
        let (version_min, version_max) = (version("PGSSLMINPROTOCOLVERSION")?, version("PGSSLMAXPROTOCOLVERSION")?);
        if version_max == Some(11) || version_max < version_min && version_max.is_some() {
            return Err(refuse("PGSSLMAXPROTOCOLVERSION allows no version of TLS that can be used".to_owned()));
        }
        Ok(Environment {
            hosts,
            addresses,
            user: set("PGUSER"),
            password: set("PGPASSWORD"),
            passfile: file("PGPASSFILE", ".pgpass"),
            options: set("PGOPTIONS"),
            session,
            channel_binding,
            ssl_mode,
            ssl: SslFiles {
                root: file("PGSSLROOTCERT", ".postgresql/root.crt"),
                root_is_set: set("PGSSLROOTCERT").is_some(),
                revoked: file("PGSSLCRL", ".postgresql/root.crl"),
                revoked_is_set: set("PGSSLCRL").is_some(),
                revoked_directory: set("PGSSLCRLDIR").map(PathBuf::from),
                without_certificate: set("PGSSLCERTMODE").as_deref() == Some("disable"),
                direct,
                certificate: file("PGSSLCERT", ".postgresql/postgresql.crt"),
                key: file("PGSSLKEY", ".postgresql/postgresql.key"),
                version_min_13: version_min == Some(13),
                version_max_12: version_max == Some(12),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Environment::from(find, || Some(PathBuf::from("/passwd")))
    }

    #[test]
    fn empty_variables_count_as_none() {
        let names = ["PGHOST", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSSLMODE", "PGOPTIONS", "PGSERVICE", "HOME"];
        let found = read(&names.map(|name| (name, ""))).unwrap();
        assert_eq!(found, read(&[]).unwrap());
        assert_eq!((found.password, found.ssl_mode), (None, SslMode::Prefer));
        assert_eq!(found.passfile, Some(PathBuf::from("/passwd/.pgpass")));
    }

    #[test]
    fn home_of_the_environment_comes_before_that_of_the_user() {
        let found = read(&[("HOME", "/home/x")]).unwrap();
        assert_eq!(found.passfile, Some(PathBuf::from("/home/x/.pgpass")));
        assert_eq!(found.ssl.root, Some(PathBuf::from("/home/x/.postgresql/root.crt")));
        assert_eq!(read(&[("PGPASSFILE", "/p")]).unwrap().passfile, Some(PathBuf::from("/p")));
    }

    #[test]
    fn settings_that_are_not_built_are_refused() {
        for (name, _) in REFUSED {
            let error = read(&[(name, "something")]).unwrap_err();
            assert_eq!(error.code, ErrorCode::DbConnect);
            assert!(error.message.contains(name), "{error}");
        }
        assert!(read(&[("PGSSLCERTMODE", "allow"), ("PGLOADBALANCEHOSTS", "disable")]).is_ok());
    }

    #[test]
    fn words_that_libpq_does_not_know_are_errors() {
        for (name, word) in [
            ("PGTARGETSESSIONATTRS", "read-write"),
            ("PGTARGETSESSIONATTRS", "prefer-standby"),
            ("PGCHANNELBINDING", "require"),
            ("PGSSLNEGOTIATION", "postgres"),
        ] {
            assert!(read(&[(name, word)]).is_ok(), "{name}");
            let error = read(&[(name, "something")]).unwrap_err();
            assert!(error.message.contains("value: \"something\""), "{error}");
        }
        assert!(read(&[("PGSSLNEGOTIATION", "direct"), ("PGSSLMODE", "require")]).unwrap().ssl.direct);
        let error = read(&[("PGSSLNEGOTIATION", "direct")]).unwrap_err();
        assert!(error.message.contains("sslnegotiation=direct"), "{error}");
    }

    #[test]
    fn lists_of_hosts_and_addresses_have_the_same_length() {
        let found = read(&[("PGHOST", "a, /b"), ("PGHOSTADDR", "127.0.0.1,::1")]).unwrap();
        assert_eq!(found.hosts, ["a", "/b"]);
        assert_eq!(found.addresses.len(), 2);
        assert!(read(&[("PGHOST", "a,b"), ("PGHOSTADDR", "127.0.0.1")]).is_err());
        assert!(read(&[("PGHOSTADDR", "name")]).is_err());
    }

    #[test]
    fn ssl_modes_and_versions_are_read_or_refused() {
        assert_eq!(read(&[("PGSSLMODE", "verify-full")]).unwrap().ssl_mode, SslMode::VerifyFull);
        assert_eq!(read(&[("PGREQUIRESSL", "1")]).unwrap().ssl_mode, SslMode::Require);
        assert!(read(&[("PGSSLMODE", "required")]).is_err());
        assert!(read(&[("PGSSLMINPROTOCOLVERSION", "TLSv1.3")]).unwrap().ssl.version_min_13);
        assert!(read(&[("PGSSLMAXPROTOCOLVERSION", "TLSv1.2")]).unwrap().ssl.version_max_12);
        assert!(read(&[("PGSSLMAXPROTOCOLVERSION", "TLSv1.1")]).is_err());
        let both = [("PGSSLMINPROTOCOLVERSION", "TLSv1.3"), ("PGSSLMAXPROTOCOLVERSION", "TLSv1.2")];
        assert!(read(&both).is_err());
    }

    #[test]
    fn service_takes_precedence_over_other_variables_and_is_refused_like_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("services");
        let text = "[main]\nhost=db\nuser=backup\nsslmode=verify-full\n[standby]\nrequire_auth=none\n";
        std::fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let found = read(&[
            ("PGSERVICE", "main"),
            ("PGSERVICEFILE", file),
            ("PGHOST", "other"),
            ("PGSSLMODE", "disable"),
            ("PGPASSWORD", "secret"),
        ]);
        let found = found.unwrap();
        assert_eq!((found.hosts, found.ssl_mode), (vec!["db".to_owned()], SslMode::VerifyFull));
        assert_eq!((found.user.as_deref(), found.password.as_deref()), (Some("backup"), Some("secret")));
        let error = read(&[("PGSERVICE", "standby"), ("PGSERVICEFILE", file)]).unwrap_err();
        assert!(error.message.contains("PGREQUIREAUTH is set to 'none' by the service"), "{error}");
        assert!(read(&[("PGSERVICE", "none"), ("PGSERVICEFILE", file)]).is_err());
    }
}
