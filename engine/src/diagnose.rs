//! Finds what usually goes wrong with a stanza, and says how to mend it.
//!
//! pgBackRest's `check` stops at the first problem. A diagnosis continues, looks at more, and distinguishes what keeps
//! backups or archiving from working ([`Severity::Error`]) from what will cause trouble later ([`Severity::Warning`]) and
//! from advice. It changes nothing, except that it writes and removes a small file in each repository.

mod archiving;
mod host;
mod postgres;
mod repository;
mod request;
#[cfg(test)]
mod tests;

pub use self::request::{DiagnoseRequest, DiagnoseSummary, Diagnosis, HostPaths, Severity};
use crate::repo::Repo;
use crate::session::Session;
use crate::{Error, Result, log};

/// A difference between clocks above this, in seconds, is reported.
const CLOCK_SKEW_MAX_S: i64 = 5;

/// Collects what was found.
#[derive(Default)]
struct Chart(Vec<Diagnosis>);

impl Chart {
    fn add(
        &mut self,
        severity: Severity,
        topic: &'static str,
        subject: &str,
        text: impl Into<String>,
    ) -> &mut Diagnosis {
        self.0.push(Diagnosis { severity, topic, subject: subject.to_owned(), text: text.into(), advice: Vec::new() });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    fn ok(&mut self, topic: &'static str, subject: &str, text: impl Into<String>) {
        self.add(Severity::Ok, topic, subject, text);
    }

    /// Adds an error with its hints as advice.
    fn failed(&mut self, topic: &'static str, subject: &str, error: &Error) -> &mut Diagnosis {
        let text = format!("[{:03}] {}", error.code.number(), error.message);
        let added = self.add(Severity::Error, topic, subject, text);
        added.advice.extend(error.hints.iter().cloned());
        added
    }

    /// Adds the difference between this host's clock and another one.
    fn clock(&mut self, subject: &str, skew_s: i64, effect: &str) {
        if skew_s.abs() <= CLOCK_SKEW_MAX_S {
            self.ok("clock", subject, "the clocks agree");
            return;
        }
        let direction = if skew_s > 0 { "ahead of" } else { "behind" };
        let text = format!("the clock is {} second(s) {direction} that of this host", skew_s.abs());
        self.add(Severity::Warning, "clock", subject, text)
            .advise(format!("synchronize both clocks, for example with chrony or systemd-timesyncd: {effect}."));
    }

    fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnosis| diagnosis.severity == Severity::Error)
    }
}

/// Looks at PostgreSQL, at every repository and at this host. If nothing is wrong, it makes the check that archives a
/// WAL segment.
pub(crate) fn run(request: &DiagnoseRequest, session: &Session, repos: &[Repo]) -> Result<DiagnoseSummary> {
    let (found, warnings, duration) = log::observe(|| examine(request, session, repos))?;
    Ok(DiagnoseSummary { found, warnings, duration })
}

fn examine(request: &DiagnoseRequest, session: &Session, repos: &[Repo]) -> Result<Vec<Diagnosis>> {
    let cancel = session.cancel_token();
    let mut chart = Chart::default();
    host::examine(request, session, &mut chart);
    let mut control = None;
    for host in &request.check.pg {
        cancel.check()?;
        control = postgres::examine(request, session, host, &mut chart).or(control);
    }
    for repo in repos {
        cancel.check()?;
        repository::examine(request, session, repo, control.as_ref(), &mut chart);
    }
    cancel.check()?;
    if !chart.has_errors() {
        match crate::check::run(&request.check, session, repos) {
            Ok(checked) => {
                for archived in checked.archived {
                    let text = format!("a WAL segment that was just completed arrived: '{}'", archived.path);
                    chart.ok("archiving", &format!("repo{}", archived.repo_key), text);
                }
            }
            Err(error) => {
                cancel.check()?;
                chart.failed("archiving", "check", &error);
            }
        }
    }
    Ok(chart.0)
}
