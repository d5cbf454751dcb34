//! Chooses the cluster.

use std::path::Path;
use std::time::Duration;

use engine::pg::discover::{DiscoverRequest, FoundCluster, measure};
use engine::{Error, ErrorCode, Result};
use repo_format::size::format_size;

use super::Asked;
use crate::config::{Config, opt};
use crate::render::control::visible_value;

/// How long the files of all clusters are counted.
const MEASURE_MAX: Duration = Duration::from_secs(3);

/// Finds the cluster to configure and shows it.
///
/// # Errors
/// There is none, it is not clear which, or it belongs to another user.
pub(super) fn cluster(config: &Config, asked: &mut Asked) -> Result<FoundCluster> {
    let request = DiscoverRequest::of_host();
    let mut found = match config.find_at(opt::PG_PATH, 1) {
        Some(path) => vec![at(&request, Path::new(path))?],
        None => request.find(),
    };
    if found.is_empty() {
        return Err(Error::new(ErrorCode::FileMissing, "no PostgreSQL cluster was found")
            .hint("run init as root or as the user that runs PostgreSQL, since others can't see the cluster.")
            .hint("name the data directory with --pg1-path."));
    }
    let limit = MEASURE_MAX / u32::try_from(found.len()).unwrap_or(1);
    let lines = found.iter().enumerate().map(|(index, cluster)| describe(index + 1, cluster, limit));
    crate::print(&format!("Clusters on this host\n\n{}\n", lines.collect::<String>()))?;
    let asked_one = asked.is_some();
    let index = match (found.len(), asked) {
        (1, _) => 0,
        (count, Some(asked)) => number(&asked.ask("Which cluster?", "1")?, count)?,
        (_, None) => {
            return Err(Error::new(ErrorCode::OptionRequired, "several clusters were found: init needs --pg1-path"));
        }
    };
    let cluster = found.swap_remove(index);
    let user = rustix::process::geteuid();
    // Anybody can make something that looks like a cluster, whose owner gets the configuration and its secrets
    let is_chosen = asked_one || config.find_at(opt::PG_PATH, 1).is_some();
    if user.is_root() && !is_chosen && !request.is_usual(&cluster.data) {
        let text = format!(
            "'{}' is no usual place of a cluster: init needs --pg1-path",
            visible_value(&cluster.data.to_string_lossy())
        );
        return Err(Error::new(ErrorCode::OptionRequired, text));
    }
    if !user.is_root() && user.as_raw() != cluster.owner.uid {
        let text = format!("the cluster belongs to the user '{}'", cluster.owner.name);
        return Err(Error::new(ErrorCode::Access, text).hint("run init as this user or as root."));
    }
    Ok(cluster)
}

/// Returns the cluster at a path.
///
/// # Errors
/// [`ErrorCode::FileMissing`] if there is none that this user can read.
pub(super) fn at(request: &DiscoverRequest, path: &Path) -> Result<FoundCluster> {
    request.at(path).ok_or_else(|| {
        Error::new(ErrorCode::FileMissing, format!("'{}' is no data directory that this user can read", path.display()))
    })
}

fn number(answer: &str, count: usize) -> Result<usize> {
    let chosen: Option<usize> = answer.parse().ok();
    chosen
        .filter(|chosen| (1..=count).contains(chosen))
        .map(|chosen| chosen - 1)
        .ok_or_else(|| Error::new(ErrorCode::OptionInvalidValue, format!("'{answer}' is no number of a cluster")))
}

fn describe(number: usize, cluster: &FoundCluster, limit: Duration) -> String {
    let size = measure(&cluster.data, limit);
    let at_least = if size.complete { "" } else { "more than " };
    let server = match &cluster.running {
        None => "not running".to_owned(),
        Some(server) => {
            let socket =
                server.socket_dir.as_ref().map(|dir| format!(", socket in {}", visible_value(&dir.to_string_lossy())));
            format!("running, port {}{}", server.port, socket.unwrap_or_default())
        }
    };
    format!(
        "    {number}. {}\n       PostgreSQL {}, {at_least}{}, owner {}, {server}\n",
        visible_value(&cluster.data.to_string_lossy()),
        cluster.version,
        format_size(size.bytes),
        cluster.owner.name
    )
}
