//! SeaweedFS, an S3 server that checks signatures, over TLS.

use super::cycle;
use crate::env::proxy::Proxy;
use crate::env::{Scenario, ScenarioOptions, Tool, Weed, restored_matches, weed};

#[test]
fn s3_repository_is_shared_with_pgbackrest() {
    let Some(weed) = Weed::start() else { return };
    let mut global = weed.options(weed.port());
    global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);
    scenario.rbr(&["repo-ls", "--log-level-console=debug"]).success().says("storage requests: GET");
}

#[test]
fn large_and_small_files_of_their_own_are_all_there() {
    let Some(weed) = Weed::start() else { return };
    let mut global = weed.options(weed.port());
    global.extend(["repo1-bundle=n", "compress-type=zst"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    // More long files than are copied in parallel, so that short ones come in between
    for number in 1..=8 {
        scenario.cluster.sql(&format!(
            "create table large_{number} as select g, md5(g::text) as note from generate_series(1, 100000) g"
        ));
    }
    // The server cannot show the first name in XML
    let odd = ["odd\u{1}name", "tab\t del\u{7f}+&%41"];
    for name in odd {
        scenario.space.write(&format!("{}/{name}", scenario.cluster.data_text()), name);
    }
    scenario.rbr(&["stanza-create"]).success();
    let full = ["backup", "--type=full"];
    scenario.rbr(&full).success();
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    for (tool, name) in [(Tool::Rbr, "by-rbr"), (Tool::PgBackRest, "by-pgbackrest")] {
        let verify = ["verify", "--output=text", "--verbose", "--log-level-console=off"];
        scenario.run(tool, &verify).success().says("status: ok");
        let mut restored = scenario.restore(tool, name, &[]);
        for name in odd {
            assert_eq!(std::fs::read_to_string(restored.data().join(name)).expect("restored file"), name);
        }
        restored_matches(&mut restored, &dump);
    }
    scenario.pgbackrest(&full).success();
    restored_matches(&mut scenario.restore(Tool::Rbr, "of-pgbackrest", &[]), &scenario.cluster.dump());
    scenario.rbr(&["expire", "--repo1-retention-full=1"]).success();
    let left = scenario.rbr(&["repo-ls", "--recurse", "backup", "--log-level-console=off"]).success().stdout;
    assert_eq!(left.lines().filter(|line| line.contains("odd")).count(), 1, "{left}");
}

/// The paths that were asked for since the last time.
fn paths(proxy: &Proxy) -> Vec<String> {
    let requests = proxy.requests();
    proxy.clear();
    requests.into_iter().map(|request| request.path).collect()
}

#[test]
fn bucket_is_found_as_a_host() {
    let Some(server) = Weed::start() else { return };
    let proxy = server.proxy();
    let styled = |style: &str| {
        let mut global = server.options(proxy.port());
        global.retain(|line| !line.starts_with("repo1-s3-endpoint=") && !line.starts_with("repo1-s3-uri-style="));
        // No name server knows the endpoint, so the configuration also sets the address to connect to
        global.push(format!("repo1-s3-endpoint={}", weed::DOMAIN));
        global.push("repo1-storage-host=127.0.0.1".to_owned());
        global.push(format!("repo1-s3-uri-style={style}"));
        global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
        global
    };
    let Some(scenario) = Scenario::start(ScenarioOptions { global: styled("host"), ..ScenarioOptions::default() })
    else {
        return;
    };
    cycle(&scenario);
    assert!(paths(&proxy).iter().all(|path| !path.starts_with(&format!("/{}", weed::BUCKET))));

    // Both styles lead to the same bucket, with either program
    let info = ["info", "--output=json", "--log-level-console=off"];
    let expected = scenario.rbr(&info).success().stdout;
    for (style, tool) in [("host", Tool::PgBackRest), ("path", Tool::Rbr), ("path", Tool::PgBackRest)] {
        scenario.configure(&styled(style));
        paths(&proxy);
        assert_eq!(scenario.run(tool, &info).success().stdout, expected, "{style} {tool:?}");
        let in_path = paths(&proxy).iter().all(|path| path.starts_with(&format!("/{}", weed::BUCKET)));
        assert_eq!(in_path, style == "path", "{style} {tool:?}");
    }

    // This server leaves markers of directories whose files were removed: pgBackRest lists them as files without names
    let list = ["repo-ls", "--recurse", "--log-level-console=off"];
    let [ours, theirs] = [Tool::Rbr, Tool::PgBackRest].map(|tool| scenario.run(tool, &list).success().stdout);
    assert!(theirs.lines().any(|name| name.ends_with("/bundle/")), "{theirs}");
    assert!(ours.contains("backup.info.copy") && !ours.contains("bundle/bundle"), "{ours}");
}
