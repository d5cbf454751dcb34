//! Threads that end with the work that needs them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crate::log::Inherited;
use crate::system_text;
use crate::{Error, ErrorCode, Result};

/// Work on a thread of its own.
#[derive(Debug)]
pub struct Helper<'scope, R>(ScopedJoinHandle<'scope, Result<R>>);

impl<'scope, R: Send + 'scope> Helper<'scope, R> {
    /// Starts the work. Returns `None` if the system starts no more threads; the work is dropped then.
    pub fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        work: impl FnOnce() -> Result<R> + Send + 'scope,
    ) -> Option<Self> {
        start(scope, "helper", work)
            .inspect_err(|error| crate::debug!("unable to start a thread: {}", system_text(error)))
            .ok()
            .map(Helper)
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// The error of the work, or [`ErrorCode::Assert`] if it panicked.
    pub fn join(self) -> Result<R> {
        self.0.join().unwrap_or_else(|panic| Err(panicked(&*panic)))
    }
}

/// Starts a thread, whose warnings count among those of the calling thread. Unlike [`Scope::spawn`], this does not panic
/// if the system starts no more.
pub(crate) fn start<'scope, 'env, R: Send + 'scope>(
    scope: &'scope Scope<'scope, 'env>,
    name: &str,
    work: impl FnOnce() -> R + Send + 'scope,
) -> std::io::Result<ScopedJoinHandle<'scope, R>> {
    #[cfg(test)]
    limit::take()?;
    let inherited = Inherited::from_this_thread();
    Builder::new().name(name.to_owned()).spawn_scoped(scope, move || inherited.during(work))
}

/// Runs the work. A panic is an error ([`ErrorCode::Assert`]).
pub(crate) fn caught<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown panic".to_owned());
    Error::new(ErrorCode::Assert, format!("worker failed: {text}"))
}

/// A system that starts only a few more threads.
#[cfg(test)]
pub(crate) mod limit {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        /// Threads that this thread may start.
        static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Runs the work where this thread can start only `count` more threads.
    pub(crate) fn with<R>(count: usize, work: impl FnOnce() -> R) -> R {
        LEFT.set(count);
        let result = work();
        LEFT.set(usize::MAX);
        result
    }

    pub(super) fn take() -> io::Result<()> {
        let left = LEFT.get().checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?;
        LEFT.set(left);
        Ok(())
    }
}
