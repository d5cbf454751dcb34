//! A cluster: the connection, the data directory, the clock, and what archives its WAL.

use std::sync::Arc;

use jiff::Timestamp;
use repo_format::pg::control::PgControl;

use super::{Chart, DiagnoseRequest, Severity, archiving};
use crate::pg::{PgHost, PgSession, cluster};
use crate::session::Session;
use crate::{Error, ErrorCode};

/// Looks at one cluster. Returns its identity if it could be read.
pub(super) fn examine(
    request: &DiagnoseRequest,
    session: &Session,
    host: &Arc<dyn PgHost>,
    chart: &mut Chart,
) -> Option<PgControl> {
    let subject = format!("pg{}", host.key());
    if let Err(error) = host.check_data_dir() {
        chart.failed("data-directory", &subject, &error).advise(format!(
            "run the command as the user that owns '{}', and check pg{}-path.",
            host.path().display(),
            host.key()
        ));
    }
    let mut server = match PgSession::connect(host, session.cancel_token()) {
        Ok(server) => server,
        Err(error) => {
            connection_failed(&error, &subject, host.key(), chart);
            return host.control().ok();
        }
    };
    let role = if server.is_standby() { "standby" } else { "primary" };
    chart.ok("connection", &subject, format!("connected to a {role}, PostgreSQL {}", server.version()));
    match cluster::check_config(&server, None) {
        Ok(()) => chart.ok("data-directory", &subject, "it is the server's"),
        Err(error) => {
            chart.failed("data-directory", &subject, &error);
        }
    }
    if !server.control().data_checksums {
        chart
            .add(Severity::Advice, "page-checksums", &subject, "the cluster has no page checksums")
            .advise("backups can't detect damaged pages. Shut the cluster down and run 'pg_checksums --enable'.");
    }
    let now = || Timestamp::now().as_millisecond();
    let before = now();
    match server.time_ms() {
        Ok(time) => {
            // What the question took says nothing about the clocks
            let skew = if time < before { time - before } else { (time - now()).max(0) };
            chart.clock(&subject, skew / 1000, "times of backups, retention and recovery targets depend on them");
        }
        Err(error) => {
            chart.failed("clock", &subject, &error);
        }
    }
    if !server.is_standby() {
        archiving::examine(request, session, &mut server, chart);
    }
    Some(*server.control())
}

fn connection_failed(error: &Error, subject: &str, key: u32, chart: &mut Chart) {
    let failed = chart.failed("connection", subject, error);
    if error.code == ErrorCode::DbConnect {
        failed.advise(format!(
            "check that the server is running, that pg{key}-port and pg{key}-socket-path are its, and that pg_hba.conf lets \
             this user in."
        ));
    }
}
