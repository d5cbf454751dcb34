//! Ways to configure an S3 repository: only by the environment, by deprecated names, next to a local repository.

use crate::env::{Run, Scenario, ScenarioOptions, Tool, Weed, restored_matches};

/// Converts configuration lines to environment variables.
fn variables(lines: &[String]) -> Vec<(String, String)> {
    let variable = |line: &String| {
        let (option, value) = line.split_once('=').expect("option=value");
        (format!("PGBACKREST_{}", option.to_uppercase().replace('-', "_")), value.to_owned())
    };
    lines.iter().map(variable).collect()
}

/// Runs a command that is configured only by its environment.
fn run_with(scenario: &Scenario, tool: Tool, lines: &[String], arguments: &[&str]) -> Run {
    let mut command = scenario.space.command(scenario.program(tool));
    command.arg("--no-config").args(arguments).envs(variables(lines));
    Run::of(command)
}

/// Replaces the name or value of some lines. Lines without a value are removed.
fn replaced(lines: &[String], changes: &[(&str, &str)]) -> Vec<String> {
    let mut lines = lines.to_vec();
    for (option, with) in changes {
        lines.retain(|line| line.split('=').next() != Some(*option));
        if !with.is_empty() {
            lines.push((*with).to_owned());
        }
    }
    lines
}

#[test]
fn s3_repository_is_configured_by_the_environment_and_by_old_names() {
    let Some(weed) = Weed::start() else { return };
    let mut global = weed.options(weed.port());
    global.push("compress-type=lz4".to_owned());
    let Some(scenario) = Scenario::start(ScenarioOptions { global: global.clone(), ..ScenarioOptions::default() })
    else {
        return;
    };
    let space = &scenario.space;
    let mut lines = global;
    for (option, value) in [
        ("stanza", "demo".to_owned()),
        ("pg1-path", scenario.cluster.data_text()),
        ("pg1-socket-path", scenario.cluster.socket()),
        ("pg1-user", "postgres".to_owned()),
        ("log-level-file", "off".to_owned()),
        ("lock-path", space.text("lock")),
        ("spool-path", space.text("spool")),
        ("start-fast", "y".to_owned()),
        ("repo1-retention-full", "2".to_owned()),
    ] {
        lines.push(format!("{option}={value}"));
    }
    for arguments in [&["stanza-create"][..], &["check"], &["backup"]] {
        run_with(&scenario, Tool::Rbr, &lines, arguments).success().never_says("WARN: environment");
    }
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    // Everything is archived
    run_with(&scenario, Tool::Rbr, &lines, &["check"]).success();
    let info = ["info", "--output=json"];
    let expected = run_with(&scenario, Tool::PgBackRest, &lines, &info).success().stdout;
    assert_eq!(run_with(&scenario, Tool::Rbr, &lines, &info).success().stdout, expected);

    // A folder of authorities in the form of OpenSSL: files named by hash
    let authorities = space.folder("authorities");
    let authority = std::fs::read(weed.file("tls/ca.crt")).expect("authority");
    space.write("authorities/ca.pem", authority);
    space.run("openssl", &["rehash", &space.text("authorities")]).success();
    let (ca, port) = (weed.file("tls/ca.crt").display().to_string(), weed.port());
    let (ca_option, verify) = ("repo1-storage-ca-file", "repo1-storage-verify-tls");
    let elsewhere = ("repo1-s3-endpoint", "repo1-s3-endpoint=s3.example.com");
    let with = |option: &str, value: &str| format!("{option}={value}");
    let mut cases: Vec<Vec<String>> = Vec::new();
    for name in ["repo1-s3-ca-file", "repo-s3-ca-file"] {
        cases.push(replaced(&lines, &[(ca_option, &with(name, &ca))]));
    }
    for name in ["repo1-s3-ca-path", "repo-s3-ca-path", "repo1-storage-ca-path"] {
        cases.push(replaced(&lines, &[(ca_option, &with(name, &authorities.display().to_string()))]));
    }
    for name in ["repo1-s3-verify-tls", "repo1-s3-verify-ssl", "repo-s3-verify-ssl", "repo1-storage-verify-tls"] {
        cases.push(replaced(&lines, &[(ca_option, ""), (verify, &with(name, "n"))]));
    }
    // The server's certificate names the host, not the endpoint
    for name in ["repo1-s3-host", "repo-s3-host", "repo1-storage-host"] {
        cases.push(replaced(&lines, &[elsewhere, ("", &with(name, "127.0.0.1"))]));
        let url = with(name, &format!("https://127.0.0.1:{port}"));
        cases.push(replaced(&lines, &[elsewhere, ("repo1-storage-port", ""), ("", &url)]));
    }
    cases.push(replaced(&lines, &[("repo1-storage-port", &with("repo1-s3-port", &port.to_string()))]));
    let oldest: Vec<String> = ["type", "path", "s3-bucket", "s3-endpoint", "s3-region", "s3-key", "s3-key-secret"]
        .iter()
        .map(|option| lines.iter().find(|line| line.starts_with(&format!("repo1-{option}="))).expect("option"))
        .map(|line| line.replacen("repo1-", "repo-", 1))
        .collect();
    let names: Vec<String> = oldest.iter().map(|line| line.replacen("repo-", "repo1-", 1)).collect();
    let pairs: Vec<(&str, &str)> =
        names.iter().zip(&oldest).map(|(name, line)| (name.split('=').next().expect("name"), line.as_str())).collect();
    cases.push(replaced(&lines, &pairs));
    for case in &cases {
        for tool in [Tool::PgBackRest, Tool::Rbr] {
            let run = run_with(&scenario, tool, case, &info);
            assert_eq!(run.stdout, expected, "{}\n{}", case.join("\n"), run.describe());
        }
    }
    for option in ["--no-repo1-s3-verify-tls", "--no-repo1-s3-verify-ssl", "--repo1-s3-verify-tls=n"] {
        run_with(&scenario, Tool::Rbr, &replaced(&lines, &[(ca_option, "")]), &[option, "repo-ls"]).success();
    }

    let target = space.folder("by-environment").display().to_string();
    let restored = replaced(&lines, &[("pg1-path", &with("pg1-path", &target))]);
    // The server that is started here has no such environment
    let get = format!(
        "--recovery-option=restore_command={} --config={} --pg1-path={target} --stanza=demo archive-get %f \"%p\"",
        space.text("bin/rbr"),
        space.text("pgbackrest.conf")
    );
    run_with(&scenario, Tool::Rbr, &restored, &[&get, "restore"]).success();
    restored_matches(
        &mut crate::env::Cluster::existing(space, scenario.oracles, scenario.options.version, "by-environment"),
        &dump,
    );
}

#[test]
fn local_and_s3_repositories_stand_in_for_each_other() {
    let Some(weed) = Weed::start() else { return };
    let mut global: Vec<String> =
        weed.options(weed.port()).iter().map(|line| line.replacen("repo1-", "repo2-", 1)).collect();
    global.extend(["repo2-bundle=y", "repo2-retention-full=9", "compress-type=zst"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global: global.clone(), ..ScenarioOptions::default() })
    else {
        return;
    };
    let space = &scenario.space;
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success().says("repo1").says("repo2");
    scenario.rbr(&["--repo=1", "backup"]).success();
    scenario.change(1);
    scenario.rbr(&["--repo=2", "backup"]).success();
    let dump = scenario.cluster.dump();
    let segment = scenario.cluster.switch_wal();
    scenario.rbr(&["check"]).success();
    let info = ["info", "--output=json", "--log-level-console=off"];
    let [ours, theirs] = [Tool::Rbr, Tool::PgBackRest].map(|tool| scenario.run(tool, &info).success());
    assert_eq!(ours.stdout, theirs.stdout);
    assert_eq!(ours.json()[0]["repo"].as_array().map(Vec::len), Some(2));

    // The second repository provides what the first lacks
    let wanted = space.text("segment");
    let get = ["archive-get", segment.trim(), wanted.as_str(), "--log-level-console=info"];
    scenario.rbr(&get).success().says("in the repo1");
    std::fs::rename(space.path("repo/archive"), space.path("archive-hidden")).expect("hide");
    scenario.rbr(&get).success().says("in the repo2");
    std::fs::rename(space.path("archive-hidden"), space.path("repo/archive")).expect("back");

    // One repository that can't be used, either the S3 server or the folder
    let refused: Vec<String> = replaced(&global, &[("repo2-s3-key-secret", "repo2-s3-key-secret=wrong")]);
    scenario.configure(&refused);
    for tool in [Tool::PgBackRest, Tool::Rbr] {
        scenario.run(tool, &["info"]).success().says("repo2: error (other)").says("repo1: ok").never_says("wrong");
    }
    restored_matches(&mut scenario.restore(Tool::Rbr, "from-repo1", &[]), &dump);
    scenario.configure(&global);
    std::fs::rename(space.path("repo"), space.path("repo-hidden")).expect("hide");
    restored_matches(&mut scenario.restore(Tool::Rbr, "from-repo2", &[]), &dump);
    std::fs::rename(space.path("repo-hidden"), space.path("repo")).expect("back");
}

#[test]
fn encrypted_s3_repository_is_archived_to_and_got_from_asynchronously_in_turns() {
    let Some(weed) = Weed::start() else { return };
    let mut global = weed.options(weed.port());
    global.extend(
        ["archive-async=y", "repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=topsecret", "repo1-bundle=y"]
            .map(str::to_owned),
    );
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup"]).success().never_says("topsecret");
    for (round, tool) in [(1, Tool::Rbr), (2, Tool::PgBackRest), (3, Tool::Rbr), (4, Tool::PgBackRest)] {
        let (program, config) = (scenario.program(tool), scenario.space.text("pgbackrest.conf"));
        scenario.cluster.sql(&format!(
            "alter system set archive_command = '{} --config={config} --stanza=demo archive-push %p'",
            program.display()
        ));
        scenario.cluster.sql("select pg_reload_conf()");
        scenario.change(round);
        scenario.cluster.switch_wal();
    }
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    scenario.rbr(&["check"]).success();
    for (tool, name) in [(Tool::Rbr, "by-rbr"), (Tool::PgBackRest, "by-pgbackrest")] {
        restored_matches(&mut scenario.restore(tool, name, &["--type=default"]), &dump);
    }
    scenario.pgbackrest(&["verify", "--log-level-console=error"]).success().never_says("ERROR");
}
