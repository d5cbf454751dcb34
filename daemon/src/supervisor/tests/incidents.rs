//! Random days with incidents.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::Value;

use super::super::*;
use super::simulation::{Course, Purpose, Running, Script, Simulation};
use crate::cron::Cron;
use crate::job::Webhook;
use crate::testing::job;

/// What happens at a time of a random day.
#[derive(Clone, Copy, Debug)]
enum Incident {
    KillDaemon { kills_jobs: bool, seconds: i64 },
    StopDaemon { seconds: i64 },
    KillJob,
}

fn incident() -> impl Strategy<Value = Incident> {
    prop_oneof![
        (any::<bool>(), 0..20_000_i64).prop_map(|(kills_jobs, seconds)| Incident::KillDaemon { kills_jobs, seconds }),
        (0..20_000_i64).prop_map(|seconds| Incident::StopDaemon { seconds }),
        Just(Incident::KillJob),
    ]
}

fn busy_day() -> Vec<Job> {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let of = |stanza, name, schedule, retry| {
        let mut job = job(stanza, name, schedule);
        (job.retry, job.webhook, job.zone) = (retry, Webhook::Results, zone.clone());
        job.jitter = Duration::from_secs(if name == "full" { 300 } else { 0 });
        job.hooks.after = (name == "often").then(|| "after".to_owned());
        job
    };
    vec![
        of("a", "full", "30 2 * * *", 2),
        of("a", "often", "*/20 * * * *", 0),
        of("a", "check", "0 2-6 * * *", 1),
        of("b", "hourly", "0 * * * *", 3),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Days on which the clock changes, with failures, kills and stops.
    #[test]
    fn every_run_is_accounted_for_on_a_day_with_incidents(
        begin in prop_oneof![
            Just("2026-03-28T12:00:10Z"), Just("2026-10-24T12:00:10Z"), Just("2026-06-01T12:00:10Z")
        ],
        incidents in prop::collection::btree_map(0..120_000_i64, incident(), 0..6),
        courses in prop::collection::vec((1..3000_i64, prop_oneof![3 => Just(0_u8), 1 => Just(25)]), 20),
    ) {
        let script: Script = Box::new(move |purpose, count, _| {
            let (seconds, status) = courses[usize::try_from(count).unwrap() % courses.len()];
            match purpose {
                Purpose::Command(_) => Course::of(seconds, status),
                // The webhook fails, too
                _ => Course::of(seconds % 20, status),
            }
        });
        let mut simulation = Simulation::new(begin, busy_day, script);
        let begin: Timestamp = begin.parse().unwrap();
        let down = |simulation: &mut Simulation, seconds| {
            simulation.run_for(seconds);
            simulation.start_daemon();
        };
        for (second, incident) in incidents {
            simulation.run_until(begin + SignedDuration::from_secs(second));
            match incident {
                Incident::KillDaemon { kills_jobs, seconds } => {
                    simulation.kill_daemon(kills_jobs);
                    down(&mut simulation, seconds);
                }
                Incident::StopDaemon { seconds } => {
                    simulation.supervisor.as_mut().unwrap().stop();
                    simulation.end_processes();
                    while !simulation.supervisor.as_ref().unwrap().is_idle() {
                        simulation.run_for(1);
                    }
                    simulation.supervisor = None;
                    down(&mut simulation, seconds);
                }
                Incident::KillJob => {
                    let mut world = simulation.world.borrow_mut();
                    let now = world.now;
                    let command = |running: &&mut Running| matches!(running.purpose, Purpose::Command(_));
                    if let Some(running) = world.running.iter_mut().find(command) {
                        (running.ends, running.status) = (now, Err(9));
                    }
                }
            }
        }
        // Everything ends, and is told
        let now = simulation.world.borrow().now;
        simulation.run_until(now.max(begin + SignedDuration::from_secs(120_000)));
        let end = simulation.world.borrow().now;
        simulation.jobs = || busy_day().into_iter().map(|mut job| {
            job.cron = Cron::parse("0 0 1 1 *").unwrap();
            job
        }).collect();
        simulation.run_for(50_000);
        let told = simulation.told();
        for job in busy_day() {
            let is_of = |body: &&Value| {
                body["stanza"] == job.key.stanza.as_str() && body["name"] == job.key.name.as_str()
                    && body["due"].as_str().is_some_and(|due| due.parse::<Timestamp>().unwrap() <= end)
            };
            let of: Vec<&Value> = told.iter().filter(is_of).collect();
            // Each run of the command that succeeded is one time of the schedule
            let succeeded: Vec<&Value> = of.iter().filter(|body| body["result"] == "success").map(|body| &body["due"]).collect();
            let mut distinct: Vec<String> = succeeded.iter().map(|due| due.to_string()).collect();
            distinct.sort();
            distinct.dedup();
            let runs = simulation.commands(&job.key.name);
            let runs_of_day = runs.iter().filter(|(began, status)| *status == Ok(0) && began.parse::<Timestamp>().unwrap() <= end).count();
            prop_assert!(runs_of_day >= distinct.len().saturating_sub(1), "{} {:?}", job.key, runs);
            // The webhook may get a result twice, but no time has two runs that succeeded
            let successes: std::collections::BTreeSet<(String, String)> = of.iter().filter(|body| body["result"] == "success").map(|body| (body["due"].to_string(), body["started"].to_string())).collect();
            prop_assert_eq!(successes.len(), distinct.len(), "{}: a time has two runs", job.key);
            // Every time of the schedule has a result or was told as missed
            let mut results: BTreeMap<Timestamp, (bool, u64)> = BTreeMap::new();
            for body in &of {
                let due: Timestamp = body["due"].as_str().unwrap().parse().unwrap();
                let entry = results.entry(due).or_default();
                entry.0 |= body["result"] != "stopped";
                entry.1 = body["missed"].as_u64().unwrap();
            }
            let last = results.iter().rfind(|(_, (is_final, _))| *is_final).map(|(due, _)| *due);
            let Some(last) = last else { continue };
            let mut due = 0;
            let mut at = begin;
            while let Some(time) = job.cron.next(at, &job.zone).filter(|time| *time <= last) {
                (due, at) = (due + 1, time);
            }
            let accounted: u64 = results.iter().filter(|(time, (is_final, _))| *is_final && **time <= last).map(|(_, (_, missed))| 1 + missed).sum();
            prop_assert_eq!(accounted, due, "{}: {:?}", job.key, results);
        }
    }
}
