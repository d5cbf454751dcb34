//! The server of metrics and the status page, as the configuration of the daemon asks for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::monitor::http::{self, Access, Rules, Server};
use daemon::collector::CollectPlan;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};

/// The value of `monitor-address` that serves nothing.
const OFF: &str = "off";
/// The directory of what was collected, below that of the daemon's state. No stanza has a name that begins with a dot.
const DIRECTORY: &str = ".monitor";
/// How old a collection may be, besides three intervals, until the health check fails.
const AGE_SLACK: Duration = Duration::from_secs(120);

/// What the configuration asks for.
struct Wanted {
    address: SocketAddr,
    directory: PathBuf,
    age_max: Duration,
    token: Option<PathBuf>,
    tls: Option<TlsFiles>,
    /// Who may ask, once the files could be read.
    rules: Option<Rules>,
}

/// The files of TLS.
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    ca: Option<PathBuf>,
}

/// See the module documentation.
#[derive(Default)]
pub(crate) struct MonitorServer {
    wanted: Option<Wanted>,
    /// The server, and the address for which it was started.
    running: Option<(SocketAddr, Server)>,
    /// The failure that was told.
    told: Option<String>,
}

/// Returns the directory of what the daemon collects.
pub(crate) fn directory(state_path: &Path) -> PathBuf {
    state_path.join(DIRECTORY)
}

/// Returns what is to be collected; `None` if nobody reads it.
///
/// # Errors
/// [`ErrorCode::Assert`] if the command is not the daemon.
pub(crate) fn collect_plan(config: &Config, directory: &Path) -> Result<Option<CollectPlan>> {
    if config.get(opt::MONITOR_ADDRESS)? == OFF && config.find(opt::METRICS_FILE).is_none() {
        return Ok(None);
    }
    let interval = config.get(opt::MONITOR_INTERVAL)?;
    Ok(Some(CollectPlan { arguments: config.collector_arguments(directory), interval }))
}

impl MonitorServer {
    /// Reads what a configuration asks for. The server changes with the next [`MonitorServer::serve`].
    ///
    /// # Errors
    /// The configuration is not valid, or would let anybody read the page.
    pub(crate) fn load(&mut self, config: &Config, directory: &Path) -> Result<()> {
        self.wanted = wanted(config, directory)?;
        Ok(())
    }

    /// Starts, changes or ends the server. A failure is told once, and the next call tries again. Returns what is wrong.
    ///
    /// Jobs go on without the page. So files that can't be read, which may be mended at any time, are a failure of the
    /// page and not of the configuration.
    pub(crate) fn serve(&mut self) -> Option<&str> {
        self.try_serve();
        self.told.as_deref()
    }

    fn try_serve(&mut self) {
        let Some(wanted) = &mut self.wanted else {
            self.told = None;
            if self.running.take().is_some() {
                engine::info!("metrics and the status page are not served any more");
            }
            return;
        };
        if wanted.rules.is_none()
            && let Err(error) = wanted.read_files()
        {
            // Whoever has the old token may be the reason for a new one
            self.running = None;
            return self.tell(&error);
        }
        let Some(rules) = wanted.rules.clone() else { return };
        let (address, is_plain) = (wanted.address, rules.access.is_plain(wanted.address));
        if let Some((old, server)) = &self.running {
            if *old == address {
                server.set_rules(rules);
                self.told = None;
                return;
            }
            // Whoever may not ask any more may not, wherever the server is, and rules for loopback are for loopback only
            match rules.access.check(server.address()) {
                Ok(()) => server.set_rules(rules.clone()),
                Err(_) => self.running = None,
            }
        }
        match self.start(address, &rules) {
            Ok(server) => {
                engine::info!("metrics and the status page are at {}", server.address());
                if is_plain {
                    engine::warn!(
                        "metrics and the status page are served without TLS, so their token crosses the network in plain \
                         text\nHINT: set monitor-tls-cert-file and monitor-tls-key-file."
                    );
                }
                self.told = None;
                self.running = Some((address, server));
            }
            Err(error) => self.tell(&error),
        }
    }

    /// Starts a server. The old one ends if it is in its way.
    fn start(&mut self, address: SocketAddr, rules: &Rules) -> Result<Server> {
        match (Server::start(address, rules.clone()), self.running.take()) {
            // The old one has the port of the new one, as 127.0.0.1 has that of 0.0.0.0
            (Err(_), Some((old, server))) if old.port() == address.port() => {
                drop(server);
                Server::start(address, rules.clone())
            }
            (Err(error), Some(old)) => {
                self.running = Some(old);
                Err(error)
            }
            (started, _) => started,
        }
    }

    fn tell(&mut self, error: &Error) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            let rest = match &self.running {
                Some((_, server)) => format!(" there; they stay at {}", server.address()),
                None => String::new(),
            };
            engine::warn!(
                "metrics and the status page are not served{rest}: {text}\nNOTE: the schedules run, and the daemon tries \
                 again every few seconds."
            );
            self.told = Some(text);
        }
    }
}

impl Wanted {
    /// Reads the files that say who may ask.
    ///
    /// # Errors
    /// A file can't be read, or its content is not valid.
    fn read_files(&mut self) -> Result<()> {
        let mut access = Access::default();
        if let Some(token) = &self.token {
            access = access.with_token_file(token)?;
        }
        if let Some(TlsFiles { certificate, key, ca }) = &self.tls {
            let settings = engine::tls::web_server(certificate, key, ca.as_deref())?;
            access = access.with_tls(settings, ca.is_some());
        }
        access.check(self.address)?;
        self.rules = Some(Rules { access, directory: self.directory.clone(), age_max: self.age_max });
        Ok(())
    }
}

/// Returns what the configuration asks for, without reading the files that it names.
fn wanted(config: &Config, directory: &Path) -> Result<Option<Wanted>> {
    let address = config.get(opt::MONITOR_ADDRESS)?;
    if address == OFF {
        return Ok(None);
    }
    let path = |option| config.find(option).map(PathBuf::from);
    let (token, ca) = (path(opt::MONITOR_TOKEN_FILE), path(opt::MONITOR_TLS_CA_FILE));
    let is_protected = token.is_some() || ca.is_some();
    let tls = match (path(opt::MONITOR_TLS_CERT_FILE), path(opt::MONITOR_TLS_KEY_FILE)) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key, ca }),
        (None, None) if ca.is_none() => None,
        _ => {
            let text = "options 'monitor-tls-cert-file' and 'monitor-tls-key-file' are required together, and for \
                        'monitor-tls-ca-file'";
            return Err(Error::new(ErrorCode::OptionInvalid, text));
        }
    };
    let address = http::address(address)?;
    http::check_protected(address, is_protected)?;
    let age_max = config.get(opt::MONITOR_INTERVAL)? * 3 + AGE_SLACK;
    Ok(Some(Wanted { address, directory: directory.to_owned(), age_max, token, tls, rules: None }))
}
