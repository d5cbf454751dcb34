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
pub(super) struct PgEnvironment {
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

impl PgEnvironment {
    /// Reads the variables of this process.
    ///
    /// # Errors
    /// [`ErrorCode::DbConnect`] for a value that is invalid or not built.
    pub(super) fn read() -> Result<Self> {
        Self::from(|name| env::var(name).ok(), || Users::new().current_home())
    }

    pub(super) fn from(variable: impl Fn(&str) -> Option<String>, home: impl Fn() -> Option<PathBuf>) -> Result<Self> {
        let variables = Variables::find(&variable, home)?;
        variables.check_refused()?;
        let set = |name: &str| variables.get(name);
        let file = |name: &str, usual_name: &str| set(name).map(PathBuf::from).or_else(|| variables.usual(usual_name));
        let (hosts, addresses) = variables.hosts()?;
        let ssl_mode = variables.ssl_mode()?;
        let channel_binding = variables.channel_binding()?;
        let session = match set("PGTARGETSESSIONATTRS") {
            None => SessionKind::Any,
            Some(word) => SessionKind::parse(&word).ok_or_else(|| invalid("target_session_attrs", &word))?,
        };
        let direct = variables.is_direct(ssl_mode)?;
        let version_min = variables.tls_version("PGSSLMINPROTOCOLVERSION")?;
        let version_max = variables.tls_version("PGSSLMAXPROTOCOLVERSION")?;
        if version_max == Some(11) || version_max < version_min && version_max.is_some() {
            return Err(refused("PGSSLMAXPROTOCOLVERSION allows no version of TLS that can be used"));
        }
        Ok(PgEnvironment {
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

fn refused(text: impl Into<String>) -> Error {
    Error::new(ErrorCode::DbConnect, text)
}

fn invalid(keyword: &str, value: &str) -> Error {
    refused(format!("invalid {keyword} value: \"{value}\""))
}

/// The variables of a process, and the service that takes precedence over them.
struct Variables<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    home: Option<PathBuf>,
    service: Service,
}

impl<'a> Variables<'a> {
    fn find(variable: &'a dyn Fn(&str) -> Option<String>, home: impl Fn() -> Option<PathBuf>) -> Result<Self> {
        let mut variables = Variables { variable, home: None, service: Service::new() };
        // HOME first, then the passwd entry, because servers started by a service manager have no HOME
        variables.home = variables.own("HOME").map(PathBuf::from).or_else(home);
        if let Some(name) = variables.own("PGSERVICE") {
            let files = ServiceFiles {
                chosen: variables.own("PGSERVICEFILE").map(PathBuf::from),
                usual: variables.usual(".pg_service.conf"),
                system_directory: variables.own("PGSYSCONFDIR").map(PathBuf::from),
            };
            variables.service = files.find(&name)?;
        }
        Ok(variables)
    }

    /// A variable of the process. libpq also ignores an empty variable that has a default.
    fn own(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// The setting of the service, or the variable.
    fn get(&self, name: &str) -> Option<String> {
        self.service.get(name).filter(|value| !value.is_empty()).cloned().or_else(|| self.own(name))
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).map(|value| value.split(',').map(|part| part.trim().to_owned()).collect()).unwrap_or_default()
    }

    /// The file of this name in the home directory.
    fn usual(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }

    fn check_refused(&self) -> Result<()> {
        for (name, harmless) in REFUSED {
            if let Some(value) = self.get(name).filter(|value| !harmless.contains(&value.as_str())) {
                let is_of_service = self.service.contains_key(name);
                let place = if is_of_service { "by the service of PGSERVICE" } else { "in the environment" };
                return Err(refused(format!("{name} is set to '{value}' {place}, which is not supported"))
                    .hint(format!("unset {name} for this command.")));
            }
        }
        Ok(())
    }

    fn hosts(&self) -> Result<(Vec<String>, Vec<IpAddr>)> {
        let addresses = self
            .list("PGHOSTADDR")
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<Vec<IpAddr>, std::net::AddrParseError>>()
            .map_err(|error| refused(format!("PGHOSTADDR is not a list of network addresses: {error}")))?;
        let hosts = self.list("PGHOST");
        if !addresses.is_empty() && !hosts.is_empty() && addresses.len() != hosts.len() {
            let (hosts, addresses) = (hosts.len(), addresses.len());
            return Err(refused(format!("could not match {hosts} host names to {addresses} hostaddr values")));
        }
        Ok((hosts, addresses))
    }

    fn ssl_mode(&self) -> Result<SslMode> {
        Ok(match self.get("PGSSLMODE").as_deref() {
            None if self.get("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) => SslMode::Require,
            None | Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(other) => return Err(refused(format!("invalid sslmode value: \"{other}\" (PGSSLMODE)"))),
        })
    }

    fn channel_binding(&self) -> Result<ChannelBinding> {
        match self.get("PGCHANNELBINDING").as_deref() {
            None | Some("prefer") => Ok(ChannelBinding::Prefer),
            Some("disable") => Ok(ChannelBinding::Disable),
            Some("require") => Ok(ChannelBinding::Require),
            Some(other) => Err(invalid("channel_binding", other)),
        }
    }

    /// Whether a connection begins with TLS at once.
    fn is_direct(&self, ssl_mode: SslMode) -> Result<bool> {
        match self.get("PGSSLNEGOTIATION").as_deref() {
            None | Some("postgres") => Ok(false),
            Some("direct") if ssl_mode < SslMode::Require => Err(refused(
                "a weak sslmode may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \
                 \"verify-full\")",
            )),
            Some("direct") => Ok(true),
            Some(other) => Err(invalid("sslnegotiation", other)),
        }
    }

    /// A version of TLS, as ten times its number.
    fn tls_version(&self, name: &str) -> Result<Option<u8>> {
        match self.get(name).as_deref() {
            None => Ok(None),
            Some("TLSv1" | "TLSv1.1") => Ok(Some(11)),
            Some("TLSv1.2") => Ok(Some(12)),
            Some("TLSv1.3") => Ok(Some(13)),
            Some(other) => Err(refused(format!("invalid {name} value: \"{other}\""))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<PgEnvironment> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        PgEnvironment::from(find, || Some(PathBuf::from("/passwd")))
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
