//! Schedules of rbr: when jobs run, and the supervisor that runs them.
//!
//! The parts are pure or get what they need through small traits ([`world`]), so that tests run days of schedules in
//! milliseconds:
//!
//! * [`cron`]: expressions and their times.
//! * [`job`], [`state`]: a job as configured, and what is known about its runs.
//! * [`plan`]: what a job does next, as a function of its state and the time.
//! * [`verdict`]: on which of several hosts a job runs.
//! * [`supervisor`]: runs the jobs. [`collector`]: runs the process that collects metrics.
//!
//! The rest is what they need of this host: [`process`], [`store`], [`trace`], [`wakeup`], and [`service`], which acts on
//! signals and reloads the configuration.

pub mod collector;
pub mod cron;
pub mod job;
pub mod plan;
pub mod process;
pub mod service;
pub mod state;
pub mod store;
pub mod supervisor;
#[cfg(test)]
mod testing;
pub mod trace;
pub mod verdict;
pub mod wakeup;
pub mod world;
