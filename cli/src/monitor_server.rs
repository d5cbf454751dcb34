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
#[derive(Clone)]
struct Wanted {
    address: SocketAddr,
    rules: Rules,
    /// Whether a token crosses the network in plain text.
    is_plain: bool,
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

    /// Starts, changes or ends the server. A failure is told once, and the next call tries again.
    pub(crate) fn serve(&mut self) {
        let Some(wanted) = &self.wanted else {
            if self.running.take().is_some() {
                engine::info!("metrics and the status page are not served any more");
            }
            return;
        };
        if let Some((address, server)) = &self.running {
            if *address == wanted.address {
                server.set_rules(wanted.rules.clone());
                return;
            }
            // Whoever may not ask any more may not, wherever the server is, and rules for loopback are for loopback only
            match wanted.rules.access.check(server.address()) {
                Ok(()) => server.set_rules(wanted.rules.clone()),
                Err(_) => self.running = None,
            }
        }
        let started = Server::start(wanted.address, wanted.rules.clone());
        let started = match (started, self.running.take()) {
            // The old one has the port of the new one, as 127.0.0.1 has that of 0.0.0.0
            (Err(_), Some((old, server))) if old.port() == wanted.address.port() => {
                drop(server);
                Server::start(wanted.address, wanted.rules.clone())
            }
            (Err(error), Some(old)) => {
                self.running = Some(old);
                Err(error)
            }
            (started, _) => started,
        };
        match started {
            Ok(server) => {
                engine::info!("metrics and the status page are at {}", server.address());
                if wanted.is_plain {
                    engine::warn!(
                        "metrics and the status page are served without TLS, so their token crosses the network in plain \
                         text\nHINT: set monitor-tls-cert-file and monitor-tls-key-file."
                    );
                }
                self.told = None;
                self.running = Some((wanted.address, server));
            }
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&mut self, error: &Error) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            let rest = match &self.running {
                Some((_, server)) => format!("; they stay at {}", server.address()),
                None => String::new(),
            };
            engine::warn!("metrics and the status page are not served there{rest}: {text}");
            self.told = Some(text);
        }
    }
}

fn wanted(config: &Config, directory: &Path) -> Result<Option<Wanted>> {
    let address = config.get(opt::MONITOR_ADDRESS)?;
    if address == OFF {
        return Ok(None);
    }
    let path = |option| config.find(option).map(Path::new);
    let mut access = Access::default();
    if let Some(token) = path(opt::MONITOR_TOKEN_FILE) {
        access = access.with_token_file(token)?;
    }
    let ca = path(opt::MONITOR_TLS_CA_FILE);
    match (path(opt::MONITOR_TLS_CERT_FILE), path(opt::MONITOR_TLS_KEY_FILE)) {
        (Some(certificate), Some(key)) => {
            access = access.with_tls(engine::tls::web_server(certificate, key, ca)?, ca.is_some());
        }
        (None, None) if ca.is_none() => (),
        _ => {
            let text = "options 'monitor-tls-cert-file' and 'monitor-tls-key-file' are required together, and for \
                        'monitor-tls-ca-file'";
            return Err(Error::new(ErrorCode::OptionInvalid, text));
        }
    }
    let address = http::address(address)?;
    access.check(address)?;
    let is_plain = access.is_plain(address);
    let age_max = config.get(opt::MONITOR_INTERVAL)? * 3 + AGE_SLACK;
    let rules = Rules { access, directory: directory.to_owned(), age_max };
    Ok(Some(Wanted { address, rules, is_plain }))
}
