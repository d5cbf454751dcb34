//! Questions to the user.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use engine::{Error, ErrorCode, Result};

/// Answers questions.
pub(crate) trait Ask {
    /// Asks a question. An empty answer is the default.
    ///
    /// # Errors
    /// There is no answer.
    fn ask(&mut self, question: &str, default: &str) -> Result<String>;

    /// Asks for a secret, which is not shown.
    ///
    /// # Errors
    /// There is no answer, or it would be shown.
    fn secret(&mut self, question: &str) -> Result<String>;
}

/// The user's terminal.
pub(super) struct Terminal(());

impl Terminal {
    /// Returns the terminal if input and output are one.
    pub(super) fn open() -> Option<Self> {
        (std::io::stdin().is_terminal() && std::io::stdout().is_terminal()).then_some(Terminal(()))
    }
}

impl Ask for Terminal {
    fn ask(&mut self, question: &str, default: &str) -> Result<String> {
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        crate::print(&format!("{question}{shown} "))?;
        let answer = read_line()?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    fn secret(&mut self, question: &str) -> Result<String> {
        crate::print(&format!("{question} (not shown) "))?;
        let hidden = Hidden::new()?;
        let answer = read_line();
        drop(hidden);
        crate::print("\n")?;
        answer
    }
}

/// While it exists, the terminal does not show what is typed.
struct Hidden(());

impl Hidden {
    fn new() -> Result<Self> {
        match stty("-echo") {
            true => Ok(Hidden(())),
            false => Err(Error::new(ErrorCode::Execute, "unable to hide what is typed: 'stty -echo' failed")
                .hint("set secrets in the environment instead, e.g. PGBACKREST_REPO1_S3_KEY.")),
        }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(argument: &str) -> bool {
    Command::new("stty").arg(argument).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn read_line() -> Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let bytes = read.map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read the answer", error))?;
    if bytes == 0 {
        // The next line of output begins at the left
        let _ = std::io::stdout().write_all(b"\n");
        return Err(Error::new(ErrorCode::FileRead, "the input ended before the answer"));
    }
    Ok(line.trim().to_owned())
}

/// Returns whether an answer agrees.
pub(super) fn is_yes(answer: &str) -> bool {
    matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes")
}
