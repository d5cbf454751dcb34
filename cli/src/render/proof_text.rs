//! The text form of a proof.

use std::fmt::Write as _;

use engine::proof::{AttestedProof, ProofReport, RecoveryFacts};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use repo_format::size::format_size;

use super::control::visible_text;

/// Returns the report as text for people.
pub fn render(report: &ProofReport, time_zone: &TimeZone) -> String {
    let time = |seconds: i64| local(seconds, time_zone);
    let backup = &report.backup;
    let mut out =
        format!("backup {} of stanza {} in repo{}: {}\n", backup.label, report.stanza, report.repo, report.verdict());
    // Writing into a String can't fail
    let _ = writeln!(
        out,
        "    tested {} to {} on {} with PostgreSQL {}",
        time(report.start),
        time(report.stop),
        report.host,
        report.versions.postgresql
    );
    let _ = writeln!(
        out,
        "    backup stopped {}, {} in {} file(s), manifest SHA-256 {}",
        time(backup.stop),
        format_size(backup.size),
        backup.files,
        backup.manifest_sha256
    );
    let _ = writeln!(out, "    {}", recovery_line(&report.recovery));
    let phases = &report.phases;
    let _ = writeln!(
        out,
        "    plan {}, restore {}, recovery {}, checks {}; recovery time {}",
        seconds(phases.plan_ms),
        seconds(phases.restore_ms),
        seconds(phases.recovery_ms),
        seconds(phases.checks_ms),
        if report.recovery.reached.is_some() { seconds(report.rto_ms) } else { "unknown".to_owned() }
    );
    for check in &report.checks {
        let detail = check.detail.replace('\n', "\n            ");
        let _ = writeln!(
            out,
            "    check {}: {} ({}) - {detail}",
            check.name,
            check.result.word(),
            seconds(check.duration_ms)
        );
    }
    for note in &report.notes {
        let _ = writeln!(out, "    note: {note}");
    }
    visible_text(&out).into_owned()
}

fn recovery_line(recovery: &RecoveryFacts) -> String {
    let target = match &recovery.target {
        Some(target) => format!("{} '{target}'", recovery.target_type),
        None => recovery.target_type.clone(),
    };
    let reached = match &recovery.reached {
        Some(end) => {
            let time = end.time.as_deref().map_or_else(String::new, |time| format!(", last transaction {time}"));
            format!("reached {} on timeline {}{time}", end.lsn, end.timeline)
        }
        None => "not reached".to_owned(),
    };
    let newest = recovery.wal_newest.as_deref().map_or_else(String::new, |wal| format!(", newest archived WAL {wal}"));
    format!("target {target}: {reached}{newest}")
}

/// Returns verified proofs as text, one line each.
pub fn attested_text(proofs: &[AttestedProof], is_signature_checked: bool, time_zone: &TimeZone) -> String {
    let mut out = String::new();
    for attested in proofs {
        let result = match (&attested.proof, &attested.error) {
            (Some(proof), _) => {
                let report = &proof.report;
                format!("{} {}", local(report.stop, time_zone), report.verdict())
            }
            (None, error) => error.clone().unwrap_or_default(),
        };
        // Writing into a String can't fail
        let _ = writeln!(out, "{}: {result}: {}", attested.place.label, attested.standing.word());
    }
    if proofs.is_empty() {
        out += "No proofs exist in the repository.\n";
    } else if !is_signature_checked {
        out += "Signatures were not checked: --public-key-file is not set.\n";
    }
    visible_text(&out).into_owned()
}

/// Returns verified proofs as JSON.
pub fn attested_json(proofs: &[AttestedProof]) -> String {
    let one = |attested: &AttestedProof| {
        let proof = attested.proof.as_ref();
        serde_json::json!({
            "label": attested.place.label.as_str(),
            "name": attested.place.name,
            "standing": attested.standing.word(),
            "error": attested.error,
            "proven": attested.is_proven(),
            "result": proof.map(|proof| proof.report.result.word()),
            "without": proof.map(|proof| proof.report.without()),
            "timestamp": proof.map(|proof| proof.report.stop),
            "key-id": proof.and_then(|proof| Some(proof.signature.as_ref()?.key_id.clone())),
        })
    };
    serde_json::Value::from(proofs.iter().map(one).collect::<Vec<_>>()).to_string()
}

fn local(seconds: i64, time_zone: &TimeZone) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(time_zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string(),
        Err(_) => seconds.to_string(),
    }
}

/// Formats milliseconds as seconds.
fn seconds(milliseconds: u64) -> String {
    format!("{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100)
}
