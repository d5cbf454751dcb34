//! Where and as whom to connect, by the rules of libpq.

use std::net::{IpAddr, SocketAddr};

use tokio_postgres::Config;
use tokio_postgres::config::{SslMode as DriverSslMode, SslNegotiation};

use super::environment::{PgEnvironment, SslMode};
use super::passfile;
use super::settings::PgSettings;
use crate::users::Users;

/// The default socket directory.
const SOCKET_PATH_DEFAULT: &str = "/var/run/postgresql";

/// The encryption of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Never,
    IfOffered,
    Always,
}

/// Where and as whom to connect, after libpq's defaults.
pub(super) struct Target {
    /// A socket directory, or a host name if it does not begin with a slash.
    host: String,
    /// The address of the host, instead of what its name resolves to.
    address: Option<IpAddr>,
    port: u16,
    user: String,
}

impl Target {
    /// All of them, to be tried one after the other.
    pub(super) fn all(settings: &PgSettings, environment: &PgEnvironment) -> Vec<Self> {
        let hosts = match &settings.socket_path {
            Some(path) => vec![path.to_string_lossy().into_owned()],
            None if environment.hosts.is_empty() => match environment.addresses.as_slice() {
                [] => vec![SOCKET_PATH_DEFAULT.to_owned()],
                addresses => addresses.iter().map(IpAddr::to_string).collect(),
            },
            // An empty one in a list is the usual place
            None => environment
                .hosts
                .iter()
                .map(|host| if host.is_empty() { SOCKET_PATH_DEFAULT } else { host }.to_owned())
                .collect(),
        };
        let user = settings
            .user
            .clone()
            .or_else(|| environment.user.clone())
            .or_else(|| Users::new().current_user())
            // Without a name, use the number; the server then reports that there is no such role
            .unwrap_or_else(|| rustix::process::geteuid().as_raw().to_string());
        // A configured socket determines the server, whatever the environment says
        let addresses = if settings.socket_path.is_some() { &[][..] } else { &environment.addresses[..] };
        let target = |(index, host)| Target {
            host,
            address: addresses.get(index).copied(),
            port: settings.port,
            user: user.clone(),
        };
        hosts.into_iter().enumerate().map(target).collect()
    }

    /// The directory of the socket. An @ begins the name of an abstract one, which has no file.
    fn socket_directory(&self) -> String {
        match self.host.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => self.host.clone(),
        }
    }

    fn is_socket(&self) -> bool {
        self.address.is_none() && self.host.starts_with(['/', '@'])
    }

    /// Returns the encryptions to try, in order.
    pub(super) fn encryptions(&self, mode: SslMode) -> &'static [Encryption] {
        match mode {
            // libpq never encrypts local sockets
            _ if self.is_socket() => &[Encryption::Never],
            SslMode::Disable => &[Encryption::Never],
            SslMode::Allow => &[Encryption::Never, Encryption::Always],
            SslMode::Prefer => &[Encryption::IfOffered, Encryption::Never],
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Encryption::Always],
        }
    }

    pub(super) fn config(&self, settings: &PgSettings, environment: &PgEnvironment, encryption: Encryption) -> Config {
        let mut config = Config::new();
        if self.is_socket() {
            config.host_path(self.socket_directory());
        } else {
            config.host(&self.host);
        }
        if let Some(address) = self.address {
            config.hostaddr(address);
        }
        config.port(self.port).user(&self.user).dbname(&settings.database);
        config.ssl_mode(match encryption {
            Encryption::Never => DriverSslMode::Disable,
            Encryption::IfOffered => DriverSslMode::Prefer,
            Encryption::Always => DriverSslMode::Require,
        });
        config.channel_binding(environment.channel_binding);
        if environment.ssl.direct && encryption == Encryption::Always {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        if let Some(options) = &environment.options {
            config.options(options);
        }
        // Sent only if the server asks for it
        if let Some(password) = self.password(settings, environment) {
            config.password(password);
        }
        config
    }

    fn password(&self, settings: &PgSettings, environment: &PgEnvironment) -> Option<String> {
        if let Some(password) = &environment.password {
            return Some(password.clone());
        }
        let path = environment.passfile.as_ref()?;
        let host = if self.host == SOCKET_PATH_DEFAULT { "localhost" } else { &self.host };
        let target = passfile::PasswordTarget { host, port: self.port, database: &settings.database, user: &self.user };
        passfile::lookup(path, target)
    }

    /// The places at which the server may be, to be tried one after the other. The error is a text.
    pub(super) async fn places(&self) -> Result<Vec<Place>, String> {
        if self.is_socket() {
            return Ok(vec![Place::Socket(self.socket_directory())]);
        }
        if let Some(address) = self.address {
            return Ok(vec![Place::Network(SocketAddr::new(address, self.port))]);
        }
        match tokio::net::lookup_host((self.host.as_str(), self.port)).await {
            Ok(found) => Ok(found.map(Place::Network).collect()),
            Err(error) => {
                let text = error.to_string();
                let text = text.rsplit(": ").next().unwrap_or_default();
                Err(format!("could not translate host name \"{}\" to address: {text}", self.host))
            }
        }
    }

    /// The failure at a place, as far as libpq names it.
    pub(super) fn failure_at(&self, place: &Place) -> String {
        let Target { host, port, .. } = self;
        match place {
            Place::Socket(_) => format!("connection to server on socket \"{host}/.s.PGSQL.{port}\" failed"),
            Place::Network(at) if at.ip().to_string() == *host => {
                format!("connection to server at \"{host}\", port {port} failed")
            }
            Place::Network(at) => format!("connection to server at \"{host}\" ({}), port {port} failed", at.ip()),
        }
    }

    /// The host name that the server's certificate has to be for.
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// One of the places at which a server may be.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A socket in this directory.
    Socket(String),
    /// An address.
    Network(SocketAddr),
}
