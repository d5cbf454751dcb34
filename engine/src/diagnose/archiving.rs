//! What archives the WAL of a primary, and whether it keeps up.

use super::{Chart, DiagnoseRequest, Severity};
use crate::Result;
use crate::pg::PgSession;
use crate::pg::archiving::command_problem;
use crate::session::Session;

/// So many segments that wait are more than a burst.
const READY_MAX: i64 = 32;
/// A segment that waits longer than this, in seconds, shows that archiving does not keep up.
const READY_AGE_MAX_S: i64 = 300;

/// The settings and state of the archiver.
struct Archiver {
    mode: String,
    command: String,
    library: String,
    /// The file that could not be archived, if that was the last attempt.
    failing: Option<String>,
    /// Segments that wait, and the age of the oldest in seconds if the server tells it.
    ready: Option<(i64, i64)>,
}

/// Looks at the settings of archiving and at its queue.
pub(super) fn examine(request: &DiagnoseRequest, session: &Session, server: &mut PgSession, chart: &mut Chart) {
    let subject = format!("pg{}", server.host().key());
    if request.check.archive.is_none() {
        let added = chart.add(Severity::Warning, "archive-settings", &subject, "archive-check is off");
        added.advise("backups may lack the WAL that makes them consistent.");
        return;
    }
    match query(server) {
        Ok(archiver) => judge(request, session.stanza().as_str(), &subject, &archiver, chart),
        Err(error) => {
            chart.failed("archive-settings", &subject, &error);
        }
    }
}

fn query(server: &mut PgSession) -> Result<Archiver> {
    let (mode, command) = (server.archive_mode().to_owned(), server.archive_command().to_owned());
    let library = server.setting("archive_library")?.unwrap_or_default();
    let failing = server.archive_failing()?;
    let ready = server.archive_ready()?;
    Ok(Archiver { mode, command, library, failing, ready })
}

fn judge(request: &DiagnoseRequest, stanza: &str, subject: &str, archiver: &Archiver, chart: &mut Chart) {
    let good = format!("archive_command = '{} --stanza={stanza} archive-push %p'", request.program);
    let set = format!("set {good} in postgresql.conf and reload the server");
    let mode_check = request.check.archive.is_some_and(|archive| archive.mode_check);
    let topic = "archive-settings";
    let Archiver { mode, command, library, .. } = archiver;
    if mode == "off" {
        chart
            .add(Severity::Error, topic, subject, "archive_mode is off: no WAL is archived")
            .advise(format!("set archive_mode = on and {good} in postgresql.conf, then restart the server."));
        return;
    }
    if mode == "always" && mode_check {
        chart
            .add(Severity::Error, topic, subject, "archive_mode is always: a standby would push the same WAL again")
            .advise("set archive_mode = on and restart the server.");
    }
    if !library.is_empty() {
        let text = format!("archive_library is '{library}', so that archive_command is not used");
        let advice = format!("set archive_library = '' and {good}, and reload the server.");
        chart.add(Severity::Error, topic, subject, text).advise(advice);
        return;
    }
    if let Some(text) = command_problem(command, stanza) {
        chart.add(Severity::Error, topic, subject, text).advise(format!("{set}."));
        return;
    }
    chart.ok(topic, subject, format!("archive_command is '{command}'"));
    judge_queue(subject, archiver, chart);
}

fn judge_queue(subject: &str, archiver: &Archiver, chart: &mut Chart) {
    if let Some(file) = &archiver.failing {
        let text = format!("the last attempt to archive failed, with '{file}'");
        chart
            .add(Severity::Error, "archive-queue", subject, text)
            .advise("the server's log has the error of archive_command, or run it by hand as the server's user.");
        return;
    }
    match archiver.ready {
        None => {
            chart
                .add(Severity::Advice, "archive-queue", subject, "this role may not see how many segments wait")
                .advise("grant pg_monitor to the role of the commands.");
        }
        Some((count, age)) if count > READY_MAX || age > READY_AGE_MAX_S => {
            let text =
                format!("WAL piles up: {count} segment(s) wait to be archived, the oldest since {age} second(s)");
            chart
                .add(Severity::Warning, "archive-queue", subject, text)
                .advise("set archive-async=y with process-max above 1, or find out why pushes are slow: the server's log has \
                         the output of archive_command.")
                .advise("archive-push-queue-max limits the queue, at the price of a gap in the archive.");
        }
        Some((count, _)) => chart.ok("archive-queue", subject, format!("{count} segment(s) wait to be archived")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::check::CheckRequest;
    use crate::pg::PgSettings;

    fn judged(change: impl FnOnce(&mut Archiver)) -> Vec<(Severity, &'static str, String)> {
        let mut archiver = Archiver {
            mode: "on".to_owned(),
            command: "/usr/bin/pgbackrest --stanza=demo archive-push %p".to_owned(),
            library: String::new(),
            failing: None,
            ready: Some((0, 0)),
        };
        change(&mut archiver);
        let mut chart = Chart::default();
        let request = DiagnoseRequest::new(CheckRequest::new(PgSettings::new("/pg")));
        judge(&request, "demo", "pg1", &archiver, &mut chart);
        for diagnosis in chart.0.iter().filter(|diagnosis| diagnosis.severity > Severity::Ok) {
            assert!(!diagnosis.advice.is_empty(), "{diagnosis:?}");
        }
        chart.0.into_iter().map(|found| (found.severity, found.topic, found.text)).collect()
    }

    #[track_caller]
    fn is(found: Vec<(Severity, &'static str, String)>, severity: Severity, topic: &str, text: &str) {
        let worst = found.iter().max_by_key(|(severity, ..)| *severity).unwrap();
        assert_eq!((worst.0, worst.1), (severity, topic), "{found:?}");
        assert!(worst.2.contains(text), "{found:?}");
    }

    #[test]
    fn archiving_that_works_has_no_complaint() {
        assert!(judged(|_| ()).iter().all(|(severity, ..)| *severity == Severity::Ok));
        let quoted = judged(|found| found.command = "rbr \"--stanza=demo\" archive-push \"%p\"".to_owned());
        assert!(quoted.iter().all(|(severity, ..)| *severity == Severity::Ok), "{quoted:?}");
    }

    #[test]
    fn settings_that_archive_nothing_are_errors() {
        let topic = "archive-settings";
        is(judged(|found| found.mode = "off".to_owned()), Severity::Error, topic, "archive_mode is off");
        is(judged(|found| found.mode = "always".to_owned()), Severity::Error, topic, "always");
        is(judged(|found| found.library = "basic_archive".to_owned()), Severity::Error, topic, "basic_archive");
        for (command, text) in [
            ("", "not set"),
            ("(disabled)", "not set"),
            ("cp %p /archive/%f", "another tool"),
            ("wal-g wal-push %p", "another tool"),
            ("pgbackrest --stanza=demo check", "archive-push"),
            ("pgbackrest --stanza=demo archive-push", "%p"),
            ("pgbackrest --stanza=other archive-push %p", "'other'"),
        ] {
            is(judged(|found| found.command = command.to_owned()), Severity::Error, topic, text);
        }
    }

    #[test]
    fn wal_that_piles_up_is_a_warning_and_a_failure_is_an_error() {
        let topic = "archive-queue";
        is(judged(|found| found.ready = Some((READY_MAX + 1, 0))), Severity::Warning, topic, "piles up");
        is(judged(|found| found.ready = Some((1, READY_AGE_MAX_S + 1))), Severity::Warning, topic, "piles up");
        is(judged(|found| found.ready = None), Severity::Advice, topic, "may not see");
        let failing = judged(|found| found.failing = Some("000000010000000000000007".to_owned()));
        is(failing, Severity::Error, topic, "000000010000000000000007");
    }
}
