use super::*;
use crate::config::tests::resolved_with;

const STANZA: &str =
    "[global]\nrepo1-path=/repo\nrepo1-retention-full=2\n[demo]\npg1-path=/pg\n[other]\npg1-path=/pg2\n";

fn schedules(args: &str, sections: &str) -> Result<Vec<ScheduleSection>> {
    resolved_with(&format!("{STANZA}{sections}"), args).schedules()
}

fn one(sections: &str) -> ScheduleSection {
    let mut found = schedules("daemon", sections).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn error(section: &str) -> String {
    let text = format!("[demo:schedule:a]\n{section}");
    schedules("daemon", &text).err().unwrap_or_else(|| panic!("{section}")).to_string()
}

#[test]
fn section_has_options_of_the_command_and_of_the_daemon() {
    let section = one(
        "[global:daemon]\nretry=5\njitter=10\n[demo:daemon]\njitter=20\n[demo:schedule:nightly]\nschedule=0 3 * * *\n\
         command=backup\ntype=full\nrepo1-retention-full=7\nstart-fast=y\nexclude=a\nexclude=b\ntime-limit=2h\n",
    );
    assert_eq!((section.stanza.as_str(), section.name.as_str()), ("demo", "nightly"));
    assert_eq!(section.schedule, "0 3 * * *");
    assert_eq!(section.command.find(opt::TYPE), Some("full"));
    assert_eq!(section.command.find_at(opt::REPO_RETENTION_FULL, 1), Some(7));
    assert_eq!(section.command.find_at(opt::PG_PATH, 1), Some("/pg"));
    assert_eq!(section.daemon.find(opt::RETRY), Some(5));
    assert_eq!(section.daemon.find(opt::JITTER).map(|jitter| jitter.as_secs()), Some(20));
    assert_eq!(section.daemon.find(opt::TIME_LIMIT).map(|limit| limit.as_secs()), Some(7200));
    assert_eq!(
        section.arguments,
        [
            "--stanza=demo",
            "--type=full",
            "--repo1-retention-full=7",
            "--start-fast=y",
            "--exclude=a",
            "--exclude=b",
            "backup"
        ]
    );
}

#[test]
fn command_line_of_the_daemon_is_that_of_its_commands_unless_the_section_differs() {
    let sections = "[demo:schedule:a]\nschedule=@daily\ncommand=check\nlog-level-console=detail\n";
    let found = schedules("--log-level-console=info --log-level-file=off --retry=1 daemon", sections).unwrap();
    assert_eq!(found[0].arguments, ["--log-level-file=off", "--stanza=demo", "--log-level-console=detail", "check"]);
    assert_eq!(found[0].daemon.find(opt::RETRY), Some(1));
}

#[test]
fn output_of_the_schedule_command_is_not_that_of_its_commands() {
    let sections = "[demo:schedule:a]\nschedule=@daily\ncommand=verify\n\
                    [demo:schedule:b]\nschedule=@daily\ncommand=verify\noutput=text\n";
    let found = schedules("--output=json --exec-id=1-2 schedule", sections).unwrap();
    assert_eq!(found[0].arguments, ["--stanza=demo", "verify"]);
    assert_eq!(found[1].arguments, ["--stanza=demo", "--output=text", "verify"]);
}

#[test]
fn secret_is_passed_in_the_environment_and_never_shown() {
    let section = one(
        "[demo:schedule:a]\nschedule=@daily\ncommand=expire\nrepo1-type=s3\nrepo1-s3-bucket=b\nrepo1-s3-endpoint=e\n\
         repo1-s3-region=r\nrepo1-s3-key=KEY\nrepo1-s3-key-secret=SECRET\nwebhook-url=http://h/TOKEN\n",
    );
    let environment = |name: &str, value: &str| (format!("PGBACKREST_REPO1_S3_KEY{name}"), value.to_owned());
    let mut found = section.environment.clone();
    found.sort();
    assert_eq!(found, [environment("", "KEY"), environment("_SECRET", "SECRET")]);
    let shown = format!("{:?} {:?}", section.shown, section.arguments);
    for secret in ["KEY", "SECRET", "TOKEN"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn stanza_of_the_command_line_limits_the_schedules() {
    let sections =
        "[demo:schedule:a]\nschedule=@daily\ncommand=check\n[other:schedule:b]\nschedule=@daily\ncommand=check\n";
    let names = |args: &str| -> Vec<String> {
        schedules(args, sections).unwrap().into_iter().map(|section| section.stanza + "/" + &section.name).collect()
    };
    assert_eq!(names("daemon"), ["demo/a", "other/b"]);
    assert_eq!(names("--stanza=other daemon"), ["other/b"]);
    assert_eq!(names("--stanza=third schedule"), Vec::<String>::new());
}

#[test]
fn mistake_in_a_section_is_an_error_that_names_the_section() {
    let good = "schedule=@daily\ncommand=backup\n";
    for (section, problem) in [
        ("command=backup\n", "keys 'schedule' and 'command' are required"),
        ("schedule=@daily\n", "keys 'schedule' and 'command' are required"),
        ("schedule=@daily\nschedule=@daily\ncommand=backup\n", "key 'schedule' cannot be set multiple times"),
        ("schedule=@daily\ncommand=restore\n", "'restore' is not allowed for key 'command'"),
        ("schedule=@daily\ncommand=back\n", "'back' is not allowed for key 'command'"),
        (&format!("{good}nonsense=1\n"), "there is no option 'nonsense'"),
        (&format!("{good}typ=full\n"), "there is no option 'typ'"),
        (&format!("{good}no-start-fast=y\n"), "option 'no-start-fast' cannot be negated or reset in a section"),
        (&format!("{good}delta=maybe\n"), "boolean option 'delta' must be 'y' or 'n'"),
        (&format!("{good}type=huge\n"), "'huge' is not allowed for 'type' option"),
        (&format!("{good}type=\n"), "section 'demo:schedule:a', key 'type' must have a value"),
        (&format!("{good}set=x\n"), "option 'set' is not valid in a schedule of command 'backup'"),
        (&format!("{good}stanza=x\n"), "option 'stanza' is not valid in a schedule of command 'backup'"),
        (&format!("{good}config=/x\n"), "option 'config' is not valid in a schedule of command 'backup'"),
        (&format!("{good}job-file=/x\n"), "option 'job-file' is not valid in a schedule of command 'backup'"),
        (&format!("{good}repair=y\n"), "option 'repair' is not valid in a schedule of command 'backup'"),
        (&format!("{good}state-path=/x\n"), "option 'state-path' is for all schedules"),
        (&format!("{good}job-max=3\n"), "option 'job-max' is for all schedules"),
        (&format!("{good}retry=21\n"), "'21' is out of range for 'retry' option"),
        (&format!("{good}repo=4\n"), "key '4' is not valid for 'repo' option"),
        (
            &format!("{good}repo1-retention-full=1\nrepo1-retention-full=2\n"),
            "option 'repo1-retention-full' cannot be set multiple times",
        ),
    ] {
        let error = error(section);
        assert!(error.starts_with(&format!("section '[demo:schedule:a]': {problem}")), "{section}: {error}");
    }
    let global = schedules("daemon", "[global:schedule:a]\nschedule=@daily\ncommand=check\n").err().unwrap();
    assert!(global.to_string().contains("a schedule belongs to a stanza"), "{global}");
}

#[test]
fn options_of_the_daemon_are_refused_outside_of_its_sections() {
    // Without the hint
    let warnings = |config: &str| -> Vec<String> {
        let warnings = crate::config::tests::warnings_of(config, "--stanza=demo backup");
        warnings.iter().filter_map(|warning| warning.lines().next()).map(str::to_owned).collect()
    };
    let word = "configuration file contains invalid option 'retry'";
    assert_eq!(warnings(&format!("{STANZA}[demo:backup]\nretry=1\n")), [word]);
    assert_eq!(warnings(&format!("{STANZA}[global:backup]\nretry=1\n")), [word]);
    // No other command reads the sections of the daemon
    assert_eq!(warnings(&format!("{STANZA}[global:daemon]\nretry=1\nnonsense=1\n")), Vec::<String>::new());
    assert_eq!(warnings(&format!("{STANZA}[demo:schedule:a]\nnonsense=1\n")), Vec::<String>::new());
}

#[test]
fn backup_is_completed_by_expire_with_the_same_options() {
    let section = "[demo:schedule:a]\nschedule=@daily\ncommand=backup\ntype=full\nrepo1-retention-full=7\n";
    let completion = one(section).completion.unwrap();
    assert_eq!(completion.command, "expire");
    assert_eq!(completion.arguments.last().unwrap(), "expire");
    assert!(completion.arguments.contains(&"--stanza=demo".to_owned()), "{completion:?}");
    assert!(completion.arguments.contains(&"--repo1-retention-full=7".to_owned()), "{completion:?}");
    assert!(!completion.arguments.iter().any(|argument| argument.starts_with("--type")), "{completion:?}");
}

#[test]
fn expire_with_other_rules_than_within_the_backup_completes_nothing() {
    let section = "[demo:schedule:a]\nschedule=@daily\ncommand=backup\n";
    // The rules of the backup apply
    for other in ["[global:backup]\nrepo1-retention-full=30\n", "[demo:backup]\nrepo1-retention-full=30\n"] {
        let arguments = one(&format!("{other}{section}")).completion.unwrap().arguments;
        assert!(arguments.contains(&"--repo1-retention-full=30".to_owned()), "{other} {arguments:?}");
        // Within a backup its own option counts
        assert!(arguments.contains(&"--checksum-page-error=n".to_owned()), "{other} {arguments:?}");
    }
    assert_eq!(one(&format!("[demo:expire]\nrepo1-retention-diff=1\n{section}")).completion, None);
    assert_eq!(one(&format!("{section}expire-auto=n\n")).completion, None);
    assert_eq!(one("[demo:schedule:a]\nschedule=@daily\ncommand=check\n").completion, None);
    assert!(one(section).completion.is_some());
}
