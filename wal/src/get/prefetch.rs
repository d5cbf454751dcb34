//! Fetches segments in the background before PostgreSQL asks for them.
//!
//! The worker is told what to fetch. It stores each segment in the spool. Its last step is to write a status for the
//! first missing segment.

use engine::work::crew::{Crew, CrewSettings, Event};
use engine::work::turn::Turn;
use engine::{CancelToken, Error, Result};

use super::claim::DestinationClaim;
use super::find::{self, FoundFile, WalCluster};
use super::segment::{self, Decode, FetchFailure};
use crate::background::crew_for;
use crate::origin::SpoolOrigin;
use crate::repos::Repos;
use crate::spool::Spool;

/// A background worker that fetches segments.
#[derive(Clone, Copy)]
pub struct Prefetch<'a> {
    /// The repositories.
    pub repos: &'a Repos,
    /// The cluster that asks for the segments.
    pub cluster: &'a WalCluster,
    /// The spool.
    pub spool: &'a Spool,
    /// How to run in parallel.
    pub workers: &'a CrewSettings,
}

impl Prefetch<'_> {
    /// Fetches the segments up to the first missing one, several in parallel. A failure that concerns all of them is also
    /// written to the spool.
    ///
    /// # Errors
    /// The failure that concerns all segments. Problems with single segments are in the spool.
    pub fn run(&self, segments: &[String], cancel: &CancelToken) -> Result<()> {
        self.fetch_all(segments, cancel).inspect_err(|error| self.spool.tell_all(error))
    }

    fn fetch_all(&self, segments: &[String], cancel: &CancelToken) -> Result<()> {
        let Prefetch { repos, cluster, spool, workers } = *self;
        if let Some(first) = segments.first() {
            let last = if segments.len() > 1 { segments.last() } else { None };
            let last = last.map_or_else(String::new, |last| format!("...{last}"));
            engine::info!("get {} WAL file(s) from archive: {first}{last}", segments.len());
        }
        let findings = find::find(repos, cluster, segments)?;
        let needs_sync = SpoolOrigin::of(findings.system_id).needs_sync();
        let fetch = |turn: &mut Turn, answer: &&FoundFile<'_>, _: &CancelToken| {
            let mut claim = DestinationClaim::new(&spool.file(&answer.request));
            match segment::fetch(answer, &mut claim, Decode::On(turn)) {
                // A spool that cannot be written is no better a moment later
                Err(FetchFailure::Destination(error)) => Ok(Err(error)),
                Err(FetchFailure::Stored(error)) => Err(error),
                Ok((index, warnings)) => Ok(Ok((index, warnings, claim))),
            }
        };
        let crew = CrewSettings { goes_on: true, ..crew_for(findings.answers.len(), repos, workers) };
        let mut answers = findings.answers.iter();
        Crew { settings: &crew, cancel }.run(
            |_| Ok(answers.next()),
            |_, turn| Ok(turn.clone()),
            fetch,
            |event| match event {
                Event::Done { worker, job, result } => self.report(worker, job, result, needs_sync),
                Event::Idle | Event::Stopping => Ok(()),
            },
        )?;
        // Everything that could be fetched was fetched before this is reported
        if let Some(failure) = &findings.failure {
            engine::warn!("[{}] {}", failure.error.code, failure.error);
            return spool.write_error(failure.request.as_deref(), &with_lines(&failure.error, &failure.warnings));
        }
        if let Some(missing) = segments.get(findings.answers.len()) {
            engine::detail!("unable to find {missing} in the archive");
            spool.write_ok(missing, &findings.warnings)?;
        }
        Ok(())
    }

    /// Reports a fetched segment. With `needs_sync` it gets its name when it is durable.
    fn report(&self, process: u32, answer: &FoundFile<'_>, result: Result<Fetched>, needs_sync: bool) -> Result<()> {
        let segment = &answer.request;
        let mut warnings = answer.warnings.clone();
        match result {
            Ok(Err(error)) => Err(error),
            Ok(Ok((index, more, claim))) => {
                for warning in &more {
                    engine::warn!(process: process, "{warning}");
                }
                warnings.extend(more);
                // Written before the segment appears, so that whoever finds the segment finds the warnings too
                if !warnings.is_empty() {
                    self.spool.write_ok(segment, &warnings)?;
                }
                let candidate = &answer.candidates[index];
                engine::detail!(
                    process: process,
                    "found {segment} in the repo{}: {} archive",
                    candidate.repo.key,
                    candidate.archive_id
                );
                if needs_sync {
                    claim.sync()?;
                }
                claim.finish()
            }
            Err(error) => {
                engine::warn!(process: process, "[{}] {error}", error.code);
                self.spool.write_error(Some(segment), &with_lines(&error, &warnings))
            }
        }
    }
}

/// The index of the stored file, warnings, and the written file. An inner error is about the spool.
type Fetched = Result<(usize, Vec<String>, DestinationClaim)>;

/// An error with more lines below its message.
fn with_lines(error: &Error, lines: &[String]) -> Error {
    let mut text = error.to_string();
    for line in lines {
        text.push('\n');
        text.push_str(line);
    }
    Error::new(error.code, text)
}
