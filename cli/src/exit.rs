//! How a process ends: exit status, the error line, signals.

use std::sync::OnceLock;
use std::time::Duration;

use engine::{CancelToken, Error, ErrorCode};

use crate::config::Config;
use crate::identity::Identity;
use crate::{lifecycle, log};

/// What a command returns when it does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// All went well.
    pub const SUCCESS: ExitStatus = ExitStatus(0);
    /// archive-get, repo-get: there is no such file.
    pub const NOT_FOUND: ExitStatus = ExitStatus(1);
}

/// How long a command may take to stop after a signal before the process just ends, which is safe at any time.
const GRACE: Duration = Duration::from_secs(10);

static CANCEL: OnceLock<CancelToken> = OnceLock::new();

/// The token that SIGHUP, SIGINT and SIGTERM cancel.
pub fn cancel_token() -> &'static CancelToken {
    CANCEL.get_or_init(CancelToken::new)
}

/// Starts to listen for signals: the first one cancels [`cancel_token`], a second one or the end of a grace period ends the
/// process.
///
/// # Errors
/// [`ErrorCode::Kernel`]: the handlers can't be installed.
pub(crate) fn catch_signals() -> engine::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let failed = |error| Error::from_io(ErrorCode::Kernel, "unable to catch signals", error);
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let listen = move || {
        let mut seen = 0;
        for signal in signals.forever() {
            seen += 1;
            if seen > 1 {
                std::process::exit(i32::from(ErrorCode::Term.number()));
            }
            let name = match signal {
                SIGHUP => "SIGHUP",
                SIGINT => "SIGINT",
                _ => "SIGTERM",
            };
            log::signal(name, lifecycle::is_quiet());
            cancel_token().cancel_by_signal(signal);
            engine::storage::network::stop();
            std::thread::spawn(|| {
                std::thread::sleep(GRACE);
                std::process::exit(i32::from(ErrorCode::Term.number()));
            });
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(listen).map(drop).map_err(failed)
}

/// Has SIGHUP, SIGINT and SIGTERM end the process at once with the status of a terminated command: for commands that are over
/// in a moment and can be cut short anywhere, and whose way must stay short, without a thread that listens.
///
/// # Errors
/// [`ErrorCode::Kernel`]: the handlers can't be installed.
pub(crate) fn end_on_signals() -> engine::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let always = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let status = i32::from(ErrorCode::Term.number());
        signal_hook::flag::register_conditional_shutdown(signal, status, always.clone())
            .map_err(|error| Error::from_io(ErrorCode::Kernel, "unable to catch signals", error))?;
    }
    Ok(())
}

/// Turns the outcome of a command into the exit status; logs the error and the end line. `config` is there once options were
/// resolved.
pub(crate) fn finish(outcome: engine::Result<ExitStatus>, config: Option<&Config>) -> u8 {
    if cancel_token().signal().is_some() {
        // The line about the signal has been written, and the error is only its consequence
        return ErrorCode::Term.number();
    }
    match outcome {
        Ok(status) => {
            lifecycle::end(None);
            status.0
        }
        Err(error) => {
            log::error(&error, || detail(&error, config));
            lifecycle::end(Some(error.code));
            error.code.number()
        }
    }
}

/// What helps to understand an error, for outputs that show debugging.
fn detail(error: &Error, config: Option<&Config>) -> String {
    let rule = "-".repeat(68);
    let (version, command, options) = match config {
        Some(config) => {
            (Identity::of(config.program()).title(), config.command().role_name(config.role()), config.begin_text())
        }
        None => (Identity::Rbr.title(), String::new(), String::new()),
    };
    let mut causes = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        causes += &format!("\n    {inner}");
        cause = inner.source();
    }
    format!(
        "{rule}\nIf SUBMITTING AN ISSUE please provide the following information:\n\nversion: {version}\n\
         command: {command}\noptions:{options}\n\ncauses:{causes}\n{rule}"
    )
}
