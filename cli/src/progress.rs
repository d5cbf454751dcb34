//! The live line of a long copy, on a terminal only.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log;

/// How often the line is redrawn without news, so that the remaining time is updated.
const TICK: Duration = Duration::from_millis(500);
const TEMPLATE: &str = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} eta {eta} ({msg})";

/// Bytes, rate and remaining time on one terminal line. Shows nothing if standard output is not a terminal or shows a
/// line per file.
pub struct LiveProgress {
    what: &'static str,
    bar: Mutex<Option<(ProgressBar, u64, u64)>>,
}

impl LiveProgress {
    /// A line that begins with `what`, e.g. `backup`.
    pub fn of(what: &'static str) -> Arc<dyn Progress> {
        Arc::new(LiveProgress { what, bar: Mutex::new(None) })
    }

    fn with_bar(&self, change: impl FnOnce(&mut Option<(ProgressBar, u64, u64)>)) {
        change(&mut self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

impl Progress for LiveProgress {
    fn start(&self, files: u64, bytes: u64) {
        if !std::io::stdout().is_terminal() || log::console_is_busy() {
            return;
        }
        let Ok(style) = ProgressStyle::with_template(TEMPLATE) else { return };
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stdout());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(self.what);
        bar.set_message(format!("0/{files} files"));
        // The bar starts a thread for it, and panics where it can't
        if std::thread::Builder::new().spawn(|| ()).is_ok_and(|thread| thread.join().is_ok()) {
            bar.enable_steady_tick(TICK);
        }
        log::set_live(Some(bar.clone()));
        self.with_bar(|slot| *slot = Some((bar, 0, files)));
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.with_bar(|slot| {
            if let Some((bar, done, total)) = slot {
                *done += files;
                bar.inc(bytes);
                if files > 0 {
                    bar.set_message(format!("{done}/{total} files"));
                }
            }
        });
    }

    fn finish(&self) {
        log::set_live(None);
        self.with_bar(|slot| {
            if let Some((bar, ..)) = slot.take() {
                bar.finish_and_clear();
            }
        });
    }
}

impl Drop for LiveProgress {
    fn drop(&mut self) {
        self.finish();
    }
}
