use std::collections::VecDeque;

use engine::pg::discover::{FoundCluster, Owner, RunningServer};

use super::*;
use crate::config::tests::resolved;

/// Gives these answers and records the questions.
#[derive(Default)]
struct Script {
    answers: VecDeque<&'static str>,
    questions: Vec<String>,
}

impl Script {
    fn of(answers: &[&'static str]) -> Self {
        Script { answers: answers.iter().copied().collect(), questions: Vec::new() }
    }
}

impl Ask for Script {
    fn ask(&mut self, question: &str, default: &str) -> Result<String> {
        self.questions.push(question.to_owned());
        let answer = self.answers.pop_front().unwrap_or_default();
        Ok(if answer.is_empty() { default } else { answer }.to_owned())
    }

    fn secret(&mut self, question: &str) -> Result<String> {
        self.questions.push(format!("{question} (secret)"));
        Ok(self.answers.pop_front().unwrap_or_default().to_owned())
    }
}

fn cluster(port: u16, socket: &str) -> FoundCluster {
    FoundCluster {
        data: "/data".into(),
        version: "17".to_owned(),
        owner: Owner { uid: 1, gid: 1, name: "postgres".to_owned() },
        running: Some(RunningServer { pid: 5, port, socket_dir: Some(socket.into()) }),
    }
}

/// The draft of a command line with these answers.
fn draft(line: &str, script: Option<&mut Script>) -> Draft {
    let config = resolved(line);
    let mut draft = Draft::of(&config).unwrap();
    draft.add_cluster(&cluster(5432, "/var/run/postgresql")).unwrap();
    if let Some(script) = script {
        draft::ask(&mut draft, &config, script).unwrap();
    }
    draft.add_defaults(&config).unwrap();
    add_passphrases(&mut draft, &config).unwrap();
    draft
}

fn without_process_max(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("process-max=")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn configuration_without_options_has_what_a_new_user_wants() {
    let draft = draft("init", None);
    draft.check("main", "/c.conf").unwrap();
    assert_eq!(
        without_process_max(&draft.text("main", Reveal::All)),
        "[global]\nrepo1-path=/var/lib/pgbackrest\nrepo1-block=y\nrepo1-bundle=y\nrepo1-retention-full=2\n\
         compress-type=zst\nstart-fast=y\n\n[main]\npg1-path=/data\n"
    );
}

#[test]
fn options_are_written_and_replace_defaults() {
    let line = "init --repo1-path=/r --repo2-path=/s --repo2-retention-full=9 --no-repo2-bundle --compress-type=lz4 \
                --pg1-path=/data --pg1-port=5444 --log-level-console=info --process-max=3";
    let text = draft(line, None).text("main", Reveal::All);
    for wanted in ["repo1-path=/r\n", "repo2-retention-full=9\n", "repo2-bundle=n\n", "compress-type=lz4\n"] {
        assert!(text.contains(wanted), "{text}");
    }
    assert!(text.contains("process-max=3\n") && text.contains("[main]\npg1-path=/data\npg1-port=5444\n"), "{text}");
    assert!(!text.contains("repo2-block") && !text.contains("log-level"), "{text}");
}

#[test]
fn cluster_at_an_unusual_place_has_its_options() {
    let mut draft = Draft::default();
    draft.add_cluster(&cluster(5433, "/tmp")).unwrap();
    let text = draft.text("main", Reveal::All);
    assert_eq!(text, "[main]\npg1-path=/data\npg1-port=5433\npg1-socket-path=/tmp\n");
}

#[test]
fn answers_describe_a_bucket() {
    let mut script = Script::of(&["s3", "backups", "s3.example.com", "eu-1", "KEY", "SECRET", "", "7"]);
    let draft = draft("init", Some(&mut script));
    draft.check("main", "/c.conf").unwrap();
    let text = draft.text("main", Reveal::All);
    for wanted in [
        "repo1-type=s3\nrepo1-path=/pgbackrest\n",
        "repo1-s3-bucket=backups\n",
        "repo1-s3-key=KEY\n",
        "repo1-s3-key-secret=SECRET\n",
        "repo1-cipher-type=aes-256-cbc\n",
        "repo1-retention-full=7\n",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    assert!(script.questions.contains(&"Secret access key (secret)".to_owned()), "{:?}", script.questions);

    // A generated passphrase is shown, because it must be kept. The others are known
    let shown = draft.text("main", Reveal::Generated);
    let pass = draft.value("repo1-cipher-pass").unwrap();
    assert!(
        pass.len() == 64 && shown.contains(pass) && !shown.contains("SECRET") && !shown.contains("=KEY"),
        "{shown}"
    );
    let hidden = draft.text("main", Reveal::Nothing);
    assert!(!hidden.contains(pass) && hidden.contains("repo1-cipher-pass=<secret>\n"), "{hidden}");
}

#[test]
fn keys_that_a_machine_has_are_not_asked_for() {
    for (line, unwanted) in [
        ("init --repo1-type=s3 --repo1-s3-key-type=auto", "ccess key"),
        ("init --repo1-type=azure --repo1-azure-key-type=auto", "Key of"),
        ("init --repo1-type=gcs --repo1-gcs-key-type=auto", "key"),
    ] {
        let mut script = Script::of(&["a", "b", "c"]);
        draft(line, Some(&mut script));
        assert!(!script.questions.iter().any(|question| question.contains(unwanted)), "{:?}", script.questions);
    }
}

#[test]
fn incomplete_configuration_is_refused_in_the_words_of_the_commands() {
    let error = draft("init --repo1-type=s3 --repo1-s3-bucket=b", None).check("main", "/c.conf").unwrap_err();
    assert_eq!(error.code, ErrorCode::OptionRequired);
    assert!(error.message.contains("requires option: repo1-s3-"), "{error}");
}

#[test]
fn value_that_would_be_another_line_is_refused() {
    for value in ["a\nrepo1-path=/x", " a", ""] {
        let error = Draft::default().add_secret("repo1-s3-key", value).unwrap_err();
        assert_eq!(error.code, ErrorCode::OptionInvalidValue);
        assert!(!error.message.contains("/x"), "{error}");
    }
}

#[test]
fn lines_that_a_file_has_are_not_offered() {
    let missing = draft("init", None).lacking(|key| key == "compress-type" || key == "pg1-path");
    let text = missing.text("main", Reveal::All);
    assert!(!text.contains("compress-type") && text.contains("pg1-path=/data"), "{text}");
    // For all stanzas it could remove backups of others
    assert!(text.contains("retention-full=2") && !text.contains("[global]"), "{text}");
}
