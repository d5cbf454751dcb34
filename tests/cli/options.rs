//! The command line compared with pgBackRest: the same arguments, variables and files yield the same output and exit
//! status.
//!
//! A fixed sequence of pseudo-random numbers generates the cases from the option table, so a failure can be repeated.
//! If the tests run as root, each case runs as root without allow-root, so a command that passes the parser is refused
//! before it does anything. As another user, the cases end because the stanza does not exist.

use std::fs;
use std::process::{Command, Stdio};

use cli::config::decl::{COMMANDS, OptionDecl, Role, ValueKind};
use cli::config::options::ALL;

use crate::env::{Space, oracles};

const CASES: usize = 400;

/// A small generator of pseudo-random numbers (xorshift) that is the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("small")
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn value(&mut self, decl: &OptionDecl) -> String {
        let words: Vec<&str> = COMMANDS.iter().flat_map(|command| decl.allow_for(command.command)).copied().collect();
        if !words.is_empty() && self.chance(80) {
            return self.pick(&words).to_owned();
        }
        let values: &[&str] = match decl.kind {
            ValueKind::Boolean => &["y", "n", "y", "n", "x", ""],
            ValueKind::Integer => &["1", "5", "0", "-1", "22", "256", "abc", "99999999", "", "1.5", "+3"],
            ValueKind::Size => &["1MiB", "1m", "0", "5kb", "20MB", "1PiB", "9999PiB", "x", "1.5k", "64KiB", "4GiB", ""],
            ValueKind::Time => &["1s", "100ms", "1m", "1d", "7d", "60", "0", "99w", "x", "ms", "1h"],
            ValueKind::Path => &["/a", "/a/", "a", "/a//b", "/", "/a/b", ""],
            ValueKind::Hash => &["a=b", "a=c", "a", "x=1:y=2", "a=b c"],
            ValueKind::List => &["a", "b c", "a:b"],
            ValueKind::String | ValueKind::StringId => &["v", "some text", "", "latest", "x=y"],
        };
        self.pick(values).to_owned()
    }

    fn name(&mut self, decl: &OptionDecl) -> String {
        if !decl.deprecated.is_empty() && self.chance(30) {
            return self.pick(decl.deprecated).replace('?', "2");
        }
        if decl.group.is_some() && self.chance(4) {
            return decl.name.to_owned();
        }
        let key = [1, 1, 1, 1, 2, 2, 3, 256, 257, 0][self.below(10)];
        decl.indexed_name(key)
    }

    /// Returns an option, usually of the command.
    fn option(&mut self, command: cli::Command) -> &'static OptionDecl {
        loop {
            let decl = ALL[self.below(ALL.len())];
            // Root would be accepted, more would be logged than both programs share, and pgBackRest does not know our
            // own options
            let unwanted = decl.name == "allow-root" || decl.name.starts_with("log-level") || decl.own;
            // Summaries are our own
            let prints_summary = decl.own_commands.has(command) || command == cli::Command::Verify;
            let unwanted = unwanted || decl.name == "output" && prints_summary;
            // Only a repair has it, which is our own
            let unwanted = unwanted || decl.name == "lock-path" && command == cli::Command::Verify;
            if !unwanted && (decl.commands.has(command) || self.chance(1)) {
                return decl;
            }
        }
    }

    fn argument(&mut self, decl: &OptionDecl) -> String {
        let mut name = self.name(decl);
        match self.below(100) {
            0..8 => return format!("--no-{name}"),
            8..14 => return format!("--reset-{name}"),
            14..20 => name.truncate(2 + self.below(name.len() - 1)),
            _ => (),
        }
        if decl.kind == ValueKind::Boolean && self.chance(60) {
            format!("--{name}")
        } else {
            format!("--{name}={}", self.value(decl))
        }
    }
}

/// Runs a command and returns exit status and output, without times and program names.
pub(super) fn run(program: &str, arguments: &[String], environment: &[(String, String)]) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/bin").stdin(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.output().expect("run");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut words = String::new();
    // Only rbr suggests names
    for line in text.lines().filter(|line| !line.contains("HINT: did you mean")) {
        // "2026-11-22 07:02:21.494 P00" and the indent of the lines that follow
        let line = match line.get(..24) {
            Some(time) if time.starts_with("20") && time.ends_with(' ') => &line[24..],
            _ => line.trim_start(),
        };
        words += line;
        words.push('\n');
    }
    (output.status.code(), words.replace(program, "PROGRAM"))
}

#[test]
fn random_options_end_as_with_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    if !rustix::process::getuid().is_root() {
        // A command that passes the parser would run
        return;
    }
    let space = Space::new();
    let (real, ours) = (oracles.pgbackrest.to_str().expect("UTF-8"), space.text("bin/rbr"));
    let mut random = Random(0x5eed_0fca_11ab_1e55);
    let mut refused_as_root = 0;
    for case in 0..CASES {
        let shared: Vec<_> = COMMANDS.iter().filter(|decl| !decl.own).collect();
        let decl = shared[random.below(shared.len())];
        let command = decl.command;
        let has = |name: &str| ALL.iter().any(|option| option.name == name && option.is_valid(command, Role::Main));
        if matches!(decl.name, "help" | "version") {
            continue;
        }
        let mut arguments = vec![decl.name.to_owned()];
        if has("stanza") && random.chance(90) {
            arguments.push("--stanza=s".to_owned());
        }
        if has("pg-path") && random.chance(90) {
            arguments.push("--pg1-path=/p".to_owned());
        }
        if decl.name == "restore" {
            arguments.push("--no-allow-root".to_owned());
        }
        for _ in 0..random.below(4) {
            let option = random.option(command);
            let at = random.below(arguments.len() + 1);
            arguments.insert(at, random.argument(option));
        }
        let mut environment = Vec::new();
        for _ in 0..random.below(3) {
            let option = random.option(command);
            let name = random.name(option).to_uppercase().replace('-', "_");
            environment.push((format!("PGBACKREST_{name}"), random.value(option)));
        }
        let mut file = String::new();
        for section in
            ["global".to_owned(), "s".to_owned(), format!("global:{}", decl.name), format!("s:{}", decl.name)]
        {
            if random.chance(40) {
                file += &format!("[{section}]\n");
                for _ in 0..random.below(4) {
                    let option = random.option(command);
                    file += &format!("{} = {}\n", random.name(option), random.value(option));
                }
            }
        }
        let path = space.text("pgbackrest.conf");
        fs::write(&path, &file).expect("write");
        arguments.push(format!("--config={path}"));

        let expected = run(real, &arguments, &environment);
        let found = run(&ours, &arguments, &environment);
        assert_eq!(found, expected, "case {case}: {arguments:?} {environment:?}\n{file}");
        refused_as_root += usize::from(expected.1.contains("must not be run as the root user"));
    }
    // Otherwise the cases would test only the form of errors
    assert!(refused_as_root > CASES / 20, "{refused_as_root}");
}
