//! What errors of a connection say beyond pgBackRest's numbers and texts: which process on which host, and what to look at.

use super::{RemoteSettings, SshSettings, Way};
use crate::tls::ClientSettings;
use crate::{Error, ErrorCode};

/// The exit status of an SSH client that has no session with the host.
const SSH_FAILED: i32 = 255;
/// The exit statuses of a shell that can't run the program: it may not, or there is none.
const NOT_RUN: [i32; 2] = [126, 127];

/// The process on the other host, in errors.
#[derive(Clone, Debug)]
pub(super) struct FarEnd {
    /// Such as `remote-0 ssh protocol on 'HOST'`.
    pub(super) name: String,
    /// Such as `backup:remote`.
    command: String,
    is_by_ssh: bool,
}

impl FarEnd {
    pub(super) fn new(name: &str, settings: &RemoteSettings) -> Self {
        let (arguments, is_by_ssh) = match &settings.way {
            Way::Ssh(ssh) => (&ssh.arguments, true),
            Way::Tls { arguments, .. } => (arguments, false),
        };
        let last = arguments.last().map_or("", String::as_str);
        let command = last.rsplit(' ').next().unwrap_or_default().to_owned();
        FarEnd { name: name.to_owned(), command, is_by_ssh }
    }

    /// Says whose greeting it was that has an error.
    pub(super) fn in_greeting(&self, error: Error) -> Error {
        let is_other_text = matches!(error.code, ErrorCode::JsonFormat | ErrorCode::FileRead);
        let error = self.locate(error, "greeting");
        if is_other_text && self.is_by_ssh {
            error.hint("does a login script or the SSH server of the host print something before the command starts?")
        } else {
            error
        }
    }

    /// Says whose answer it was that has an error.
    pub(super) fn in_answer(&self, error: Error) -> Error {
        self.locate(error, "answer")
    }

    fn locate(&self, mut error: Error, what: &str) -> Error {
        let FarEnd { name, command, .. } = self;
        // The server's own errors have it in front
        if !error.message.contains(name) {
            let command = if command.is_empty() { String::new() } else { format!("{command}, ") };
            error.message = format!("{} ({what} of {command}{name})", error.message);
        }
        error
    }
}

/// Adds what may help after an SSH client has ended with this status, before or after the process there has greeted.
pub(super) fn with_status_hint(error: Error, status: i32, settings: &SshSettings, has_greeted: bool) -> Error {
    // The arguments end with the destination and the command line
    let mut last = settings.arguments.iter().rev();
    let program = last.next().and_then(|line| line.split(' ').next()).unwrap_or_default();
    let destination = last.next().map_or("", String::as_str);
    match status {
        // The client has this status also if a signal ends the process there
        SSH_FAILED if has_greeted => error.hint(
            "the connection was lost, or the process on that host was killed, for example because the memory there was used up",
        ),
        SSH_FAILED => error.hint(format!(
            "does '{} {destination}' log in without asking for anything, as the user who runs this command?",
            settings.program
        )),
        status if NOT_RUN.contains(&status) && !has_greeted => error.hint(format!(
            "is '{program}' a program that '{destination}' may run? The options repo-host-cmd and pg-host-cmd set it."
        )),
        0 if !has_greeted => error.hint(format!("does '{destination}' run the command that the SSH client sends?")),
        _ => error,
    }
}

/// Adds what may help after there was no session with a server.
pub(super) fn with_session_hint(error: Error, client: &ClientSettings) -> Error {
    let ClientSettings { host, port, .. } = client;
    match error.code {
        ErrorCode::HostConnect if error.message.starts_with("unable to connect") => error.hint(format!(
            "does a server of pgBackRest or rbr listen on port {port} of '{host}', and do firewalls let it through?"
        )),
        ErrorCode::Crypto if error.message.starts_with("unable to verify certificate") => {
            let trusted = match (&client.ca_file, &client.ca_path) {
                (None, None) => "the system's authorities".to_owned(),
                (file, path) => {
                    let shown: Vec<_> = file.iter().chain(path).map(|path| format!("'{}'", path.display())).collect();
                    shown.join(" or ")
                }
            };
            error.hint(format!(
                "does {trusted} contain the authority of the server's certificate, and is that valid now?"
            ))
        }
        ErrorCode::Service if error.message.contains("received fatal alert") => error.hint(format!(
            "does tls-server-ca-file of '{host}' contain the authority of '{}', and is that certificate valid now?",
            client.certificate.display()
        )),
        _ => error,
    }
}

/// Adds what may help after a server has ended a session early. By TLS 1.3 it refuses a certificate only then.
pub(super) fn with_refusal_hint(error: Error, settings: &RemoteSettings) -> Error {
    match &settings.way {
        Way::Tls { client, .. } if error.message.ends_with(": access denied") => error.hint(format!(
            "does tls-server-auth of '{}' list the common name of '{}' for this stanza?",
            settings.host,
            client.certificate.display()
        )),
        Way::Tls { client, .. } => with_session_hint(error, client),
        Way::Ssh(_) => error,
    }
}

/// Adds what may help after a write failed there without a reason: pgBackRest has none for a file system without space.
pub(super) fn with_write_hint(error: Error) -> Error {
    let is_bare = error.code == ErrorCode::FileWrite
        && error.message.ends_with('\'')
        && error.message.contains(": unable to write '")
        && !error.message.contains('\n');
    if is_bare { error.hint("is there space left for that file on that host?") } else { error }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ssh(line: &str) -> SshSettings {
        let arguments = ["-o", "LogLevel=error", "pgbackrest@far", line].map(str::to_owned).to_vec();
        SshSettings { program: "ssh".to_owned(), arguments }
    }

    fn far_end() -> FarEnd {
        let settings = RemoteSettings {
            host: "far".to_owned(),
            process: 0,
            way: Way::Ssh(ssh("/usr/bin/pgbackrest --config=\"/a b\" verify:remote")),
            timeout: Duration::from_secs(1),
            key: 1,
            asks_passphrase: false,
            target_time: None,
            network_level: None,
            cancel: crate::CancelToken::new(),
        };
        FarEnd::new("remote-0 ssh protocol on 'far'", &settings)
    }

    #[test]
    fn error_of_a_greeting_begins_as_in_pgbackrest_and_names_command_and_host() {
        let error = far_end().in_greeting(Error::new(ErrorCode::JsonFormat, "invalid type at: Welcome"));
        let of = "(greeting of verify:remote, remote-0 ssh protocol on 'far')";
        assert_eq!(error.message, format!("invalid type at: Welcome {of}"));
        assert!(error.hints[0].contains("login script"), "{error}");
        let error =
            far_end().in_greeting(Error::new(ErrorCode::Protocol, "unable to find greeting key 'name'").hint("x"));
        assert_eq!(error.to_string(), format!("unable to find greeting key 'name' {of}\nHINT: x"));
    }

    #[test]
    fn error_of_an_answer_is_located_once() {
        let error = far_end().in_answer(Error::new(ErrorCode::Format, "invalid tag type"));
        assert_eq!(error.message, "invalid tag type (answer of verify:remote, remote-0 ssh protocol on 'far')");
        let own = "raised from remote-0 ssh protocol on 'far': timeout";
        assert_eq!(far_end().in_answer(Error::new(ErrorCode::FileRead, own)).message, own);
    }

    #[test]
    fn write_that_fails_without_a_reason_has_a_hint_of_the_usual_one() {
        let hints =
            |text: &str| with_write_hint(Error::new(ErrorCode::FileWrite, format!("raised from x: {text}"))).hints;
        assert_eq!(hints("unable to write '/repo/a'"), ["is there space left for that file on that host?"]);
        assert!(hints("unable to write '/repo/a': [28] No space left on device").is_empty());
        assert!(hints("unable to open '/repo/a'").is_empty());
    }

    #[test]
    fn status_of_the_ssh_client_has_a_hint_of_what_to_try() {
        let ssh = ssh("/opt/pgbackrest verify:remote");
        let with_hint = |status, greeted| with_status_hint(Error::new(ErrorCode::Unknown, "x"), status, &ssh, greeted);
        let hints = |status| with_hint(status, false).hints.join(" ");
        assert!(hints(255).contains("'ssh pgbackrest@far'"));
        assert!(hints(127).contains("'/opt/pgbackrest'") && hints(127).contains("repo-host-cmd"));
        assert!(hints(0).contains("pgbackrest@far"));
        // The process has said what was wrong
        assert_eq!(hints(31), "");
        // There was a login
        assert!(with_hint(255, true).hints.join(" ").contains("was killed"));
        assert!(with_hint(0, true).hints.is_empty() && with_hint(127, true).hints.is_empty());
    }
}
