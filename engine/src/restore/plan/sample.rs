//! Measures how fast stored files can be read and decoded, by reading some of them.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use super::super::copy;
use super::super::file::FileContext;
use super::super::queue;
use super::super::request::RestoreRequest;
use crate::pipeline::restore::RestorePipeline;
use crate::work::crew::{Crew, Event};
use crate::{CancelToken, Error, ErrorCode, Result};

/// Stored bytes of the sample for each worker.
const SAMPLE_BYTES: u64 = 32 << 20;
/// Decoded bytes of one file of the sample.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How long the sample is read at most.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(5);

/// How fast a sample was read and decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRate {
    /// Stored bytes of the sample.
    pub bytes: u64,
    /// How long it took, with so many workers.
    pub duration: Duration,
    /// The number of workers.
    pub workers: u32,
}

impl SampleRate {
    /// Stored bytes per second.
    pub fn bytes_per_second(&self) -> u64 {
        let rate = self.bytes as f64 / self.duration.as_secs_f64().max(1e-6);
        rate as u64
    }

    /// How long it takes to read and decode so many stored bytes.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_second().max(1) as f64)
    }
}

/// Reads files of the backup, spread over all of them, into memory. Returns `None` if there are none to read. Files that
/// can't be read are left out: the restore will report them.
///
/// # Errors
/// The command is cancelled; the system has no memory for files.
pub(super) fn measure(
    context: &FileContext<'_>,
    request: &RestoreRequest,
    cancel: &CancelToken,
) -> Result<Option<SampleRate>> {
    let jobs: Vec<u32> = copy::interleave(queue::queues(context.manifest)?.queues).flat_map(|job| job.files).collect();
    let files =
        jobs.into_iter().filter(|&index| context.manifest.files.get(index as usize).is_some_and(|file| file.size > 0));
    let files: Vec<u32> = files.collect();
    let crew = copy::crew(context, request);
    let wanted = SAMPLE_BYTES.saturating_mul(u64::from(crew.workers));
    let order = spread(&files);
    let (read, started) = (AtomicU64::new(0), Instant::now());
    let mut next = order.into_iter();
    Crew { settings: &crew, cancel }.run(
        |_| {
            let is_enough = read.load(Ordering::Relaxed) >= wanted || started.elapsed() >= SAMPLE_TIME_MAX;
            Ok(if is_enough { None } else { next.next() })
        },
        |_, turn| {
            let compress_type = context.manifest.data.options.compress_type;
            let pipeline = RestorePipeline::new(context.cipher.clone(), compress_type, turn);
            let memory = memfd_create("sample", MemfdFlags::CLOEXEC).map_err(|error| {
                Error::from_io(ErrorCode::Memory, "unable to create a file in memory", error.into())
            })?;
            Ok((pipeline, File::from(memory)))
        },
        |(pipeline, memory), &index, cancel| {
            match context.read_sample(pipeline, (index, FILE_BYTES_MAX), memory, cancel) {
                Ok(bytes) => drop(read.fetch_add(bytes, Ordering::Relaxed)),
                Err(error) => crate::detail!("a file of the sample can't be read: {error}"),
            }
            Ok(())
        },
        |event: Event<u32, ()>| match event {
            Event::Done { result, .. } => result,
            _ => Ok(()),
        },
    )?;
    let (bytes, duration) = (read.into_inner(), started.elapsed());
    Ok((bytes > 0).then_some(SampleRate { bytes, duration, workers: crew.workers }))
}

/// Puts items in an order whose beginnings are spread over all of them, the first one first.
fn spread(items: &[u32]) -> Vec<u32> {
    let mut order = Vec::with_capacity(items.len());
    let mut step = items.len().next_power_of_two().max(1);
    let mut is_first = true;
    while step > 0 {
        // The multiples of this step that are no multiples of the step before
        let (begin, by) = if is_first { (0, step) } else { (step, step * 2) };
        order.extend(items.iter().skip(begin).step_by(by));
        (is_first, step) = (false, step / 2);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_spread_over_all_files_and_has_each_once() {
        let items: Vec<u32> = (0..10).collect();
        let order = spread(&items);
        assert_eq!(&order[..4], [0, 8, 4, 2]);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, items);
        assert!(spread(&[]).is_empty());
        assert_eq!(spread(&[7]), [7]);
    }

    #[test]
    fn expected_time_follows_the_rate_of_the_sample() {
        let rate = SampleRate { bytes: 10 << 20, duration: Duration::from_millis(500), workers: 2 };
        assert_eq!(rate.bytes_per_second(), 20 << 20);
        assert_eq!(rate.time_for(100 << 20), Duration::from_secs(5));
    }
}
