//! Saves the manifest beside the copy, so that nobody waits for the repository meanwhile.

use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::Scope;

use crate::Result;
use crate::ending::{self, UnderWay};
use crate::repo::manifest_store::CopyProgress;
use crate::work::thread::Helper;

/// What a saved manifest contains at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SavePoint {
    /// Bytes copied so far.
    pub(super) bytes: u64,
    pub(super) progress: CopyProgress,
}

impl SavePoint {
    /// The manifest that is saved before the copy begins.
    const BEGIN: SavePoint = SavePoint { bytes: 0, progress: CopyProgress::Runs };
}

/// Saves the manifest, one save after the other, on a thread of its own.
pub(super) struct Saver<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    save: &'env SaveNow<'env>,
    /// Started with the first save.
    thread: Option<SaverThread<'scope>>,
    /// Saves in progress or waiting.
    open: usize,
    /// Bytes copied when a save was last requested.
    requested: u64,
    /// Whether no further save is worth it, because one failed or the last one was requested.
    ended: bool,
    saved: SavePoint,
}

/// Saves the manifest as it is now.
pub(super) type SaveNow<'a> = dyn Fn(CopyProgress) -> Result<()> + Sync + 'a;

struct SaverThread<'scope> {
    requests: Sender<Request>,
    results: Receiver<(SavePoint, Result<()>)>,
    helper: Helper<'scope, ()>,
}

struct Request {
    point: SavePoint,
    /// If the process is told to end, it waits for this save.
    _kept: UnderWay,
}

impl<'scope, 'env> Saver<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, save: &'env SaveNow<'env>) -> Self {
        Saver { scope, save, thread: None, open: 0, requested: 0, ended: false, saved: SavePoint::BEGIN }
    }

    /// Returns the bytes that were copied since a save was last requested; `None` while a save is in progress, or if no
    /// more should follow.
    pub(super) fn unsaved(&self, bytes: u64) -> Option<u64> {
        (self.open == 0 && !self.ended).then(|| bytes.saturating_sub(self.requested))
    }

    /// Requests a save, which begins when the one in progress has ended.
    ///
    /// # Errors
    /// Those of the save, if it has to be done at once because the system provides no more threads.
    pub(super) fn request(&mut self, bytes: u64, progress: CopyProgress) -> Result<()> {
        let point = SavePoint { bytes, progress };
        self.requested = bytes;
        self.ended |= progress == CopyProgress::Ended;
        if self.thread.is_none() {
            self.thread = self.start();
        }
        let request = Request { point, _kept: ending::saving() };
        if self.thread.as_ref().is_some_and(|thread| thread.requests.send(request).is_ok()) {
            self.open += 1;
            return Ok(());
        }
        let result = (self.save)(progress);
        self.take(point, result)
    }

    fn start(&self) -> Option<SaverThread<'scope>> {
        let (requests, to_save) = mpsc::channel::<Request>();
        let (done, results) = mpsc::channel();
        let save = self.save;
        let work = move || {
            for request in to_save {
                let result = save(request.point.progress);
                // Nobody listens after a panic of the main thread
                let _ = done.send((request.point, result));
            }
            Ok(())
        };
        Some(SaverThread { requests, results, helper: Helper::start(self.scope, work)? })
    }

    /// Takes the result of a save that has ended.
    ///
    /// # Errors
    /// The error of the save.
    pub(super) fn poll(&mut self) -> Result<()> {
        let Some(SaverThread { results, .. }) = &self.thread else { return Ok(()) };
        match results.try_recv() {
            Ok((point, result)) => {
                self.open -= 1;
                self.take(point, result)
            }
            Err(TryRecvError::Empty) => Ok(()),
            // The thread panicked
            Err(TryRecvError::Disconnected) => self.wait(),
        }
    }

    /// Waits for the saves in progress. Returns what the last one contains.
    ///
    /// # Errors
    /// The first error of a save.
    pub(super) fn close(mut self) -> (SavePoint, Result<()>) {
        let result = self.wait();
        (self.saved, result)
    }

    fn wait(&mut self) -> Result<()> {
        let Some(SaverThread { requests, results, helper }) = self.thread.take() else { return Ok(()) };
        drop(requests);
        let mut first = Ok(());
        for (point, result) in results {
            first = first.and(self.take(point, result));
        }
        self.open = 0;
        first.and(helper.join())
    }

    fn take(&mut self, point: SavePoint, result: Result<()>) -> Result<()> {
        match (result, point.progress) {
            (Ok(()), _) => self.saved = point,
            // It is retried at the end
            (Err(_), CopyProgress::Ended) => {}
            (Err(error), CopyProgress::Runs) => {
                self.ended = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Error, ErrorCode};

    /// Runs `work` with a saver whose saves are recorded. Each waits for a result from the channel.
    fn with_saver<R>(
        results: Receiver<Result<()>>,
        work: impl for<'s, 'e> FnOnce(Saver<'s, 'e>, &Mutex<Vec<CopyProgress>>) -> R,
    ) -> R {
        let (results, begun) = (Mutex::new(results), Mutex::new(Vec::new()));
        let save = |progress| {
            // Two saves at the same time would find it locked
            let results = results.try_lock().unwrap();
            begun.lock().unwrap().push(progress);
            results.recv().unwrap()
        };
        std::thread::scope(|scope| work(Saver::new(scope, &save), &begun))
    }

    fn failure() -> Result<()> {
        Err(Error::new(ErrorCode::FileWrite, "no space"))
    }

    #[test]
    fn last_save_follows_the_one_in_progress_and_nobody_waits_for_either() {
        let (result, results) = mpsc::channel();
        with_saver(results, |mut saver, begun| {
            assert_eq!(saver.unsaved(7), Some(7));
            saver.request(7, CopyProgress::Runs).unwrap();
            assert_eq!(saver.unsaved(100), None, "one at a time");
            saver.request(9, CopyProgress::Ended).unwrap();
            saver.poll().unwrap();
            result.send(Ok(())).unwrap();
            result.send(Ok(())).unwrap();
            let (saved, result) = saver.close();
            result.unwrap();
            assert_eq!(saved, SavePoint { bytes: 9, progress: CopyProgress::Ended });
            assert_eq!(*begun.lock().unwrap(), [CopyProgress::Runs, CopyProgress::Ended]);
        });
    }

    #[test]
    fn nothing_is_saved_after_the_last_save() {
        let (result, results) = mpsc::channel();
        with_saver(results, |mut saver, _| {
            result.send(Ok(())).unwrap();
            saver.request(9, CopyProgress::Ended).unwrap();
            while saver.open > 0 {
                saver.poll().unwrap();
            }
            assert_eq!(saver.unsaved(100), None);
        });
    }

    #[test]
    fn failed_save_is_an_error_unless_it_is_the_last_which_is_retried() {
        let (result, results) = mpsc::channel();
        with_saver(results, |mut saver, _| {
            result.send(failure()).unwrap();
            saver.request(5, CopyProgress::Runs).unwrap();
            let error = loop {
                if let Err(error) = saver.poll() {
                    break error;
                }
            };
            assert_eq!(error.code, ErrorCode::FileWrite);
            assert_eq!(saver.unsaved(7), None);
            result.send(failure()).unwrap();
            saver.request(7, CopyProgress::Ended).unwrap();
            let (saved, result) = saver.close();
            result.unwrap();
            assert_eq!(saved, SavePoint::BEGIN);
        });
    }

    #[test]
    fn save_that_fails_while_the_saver_closes_is_an_error() {
        let (result, results) = mpsc::channel();
        with_saver(results, |mut saver, _| {
            saver.request(5, CopyProgress::Runs).unwrap();
            result.send(failure()).unwrap();
            assert_eq!(saver.close().1.unwrap_err().code, ErrorCode::FileWrite);
        });
    }

    #[test]
    fn panic_of_a_save_is_an_error() {
        for closes in [false, true] {
            let (result, results) = mpsc::channel();
            drop(result);
            with_saver(results, |mut saver, _| {
                saver.request(5, CopyProgress::Runs).unwrap();
                let mut result = Ok(());
                while !closes && result.is_ok() {
                    result = saver.poll();
                }
                assert_eq!(result.and(saver.close().1).unwrap_err().code, ErrorCode::Assert);
            });
        }
    }
}
