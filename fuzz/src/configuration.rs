//! Targets for user input.

use cli::config::{CommandLine, Config, ConfigFiles, Environment};

/// A configuration file and nothing else.
struct OneFile<'a>(&'a str);

impl ConfigFiles for OneFile<'_> {
    fn read(&self, path: &str) -> engine::Result<Option<String>> {
        Ok((path == "/etc/pgbackrest/pgbackrest.conf").then(|| self.0.to_owned()))
    }

    fn list(&self, _path: &str) -> engine::Result<Option<Vec<String>>> {
        Ok(None)
    }
}

/// Option values in configuration files, on the command line and in the environment. Lines before the first section are
/// arguments if they begin with `--`, and variables otherwise.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (head, file) = text.split_at(text.find('[').unwrap_or(text.len()));
    for command in ["backup", "restore", "archive-push", "info"] {
        let mut args = vec!["rbr".to_owned(), command.to_owned(), "--stanza=demo".to_owned()];
        let mut environment = Environment::default();
        for line in head.lines() {
            match line.split_once('=') {
                _ if line.starts_with("--") => args.push(line.to_owned()),
                Some((name, value)) => environment.0.push((format!("PGBACKREST_{name}"), value.to_owned())),
                None => {}
            }
        }
        let Ok(line) = CommandLine::parse(args) else { continue };
        let Ok(config) = Config::resolve(line, environment, &OneFile(file), &mut |_| ()) else { continue };
        // The arguments of a child process must yield the same values
        let _ = config.with_stanza("other");
    }
}
