//! Single segments through both programs, in both directions.

use std::fs;
use std::path::PathBuf;

use crate::env::{Scenario, ScenarioOptions, Tool};

/// A cluster that archives nothing by itself, its stanza, and the path of a finished segment.
struct Archive {
    scenario: Scenario,
    segment: String,
    path: PathBuf,
}

impl Archive {
    fn make(version: u32, global: &[&str]) -> Option<Self> {
        let scenario = Scenario::start(ScenarioOptions {
            version,
            global: global.iter().map(|&line| line.to_owned()).collect(),
            settings: vec!["archive_command = 'true'".into(), "wal_keep_size = '1GB'".into()],
            ..ScenarioOptions::default()
        })?;
        scenario.rbr(&["stanza-create"]).success();
        let segment = scenario.cluster.switch_wal();
        let path = scenario.cluster.data().join("pg_wal").join(&segment);
        Some(Self { scenario, segment, path })
    }

    fn push(&self, tool: Tool) -> crate::env::Run {
        self.scenario.run(tool, &["archive-push", self.path.to_str().expect("UTF-8")])
    }

    /// Fetches the segment and returns its content.
    fn get(&self, tool: Tool) -> Vec<u8> {
        let target = self.scenario.space.path("fetched");
        let _ = fs::remove_file(&target);
        self.scenario.run(tool, &["archive-get", &self.segment, target.to_str().expect("UTF-8")]).success();
        fs::read(target).expect("fetched segment")
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.path).expect("segment")
    }
}

fn goes_both_ways(version: u32, global: &[&str]) {
    let Some(archive) = Archive::make(version, global) else { return };
    let content = archive.content();
    archive.push(Tool::Rbr).success();
    assert_eq!(archive.get(Tool::PgBackRest), content, "pushed by rbr");
    assert_eq!(archive.get(Tool::Rbr), content, "pushed and fetched by rbr");

    let next = archive.scenario.cluster.switch_wal();
    let path = archive.scenario.cluster.data().join("pg_wal").join(&next);
    let archive = Archive { segment: next, path, ..archive };
    archive.push(Tool::PgBackRest).success();
    assert_eq!(archive.get(Tool::Rbr), archive.content(), "pushed by pgBackRest");
}

#[test]
fn segments_go_both_ways_uncompressed_pg13() {
    goes_both_ways(13, &["compress-type=none"]);
}

#[test]
fn segments_go_both_ways_gz_cipher_pg15() {
    goes_both_ways(15, &["compress-type=gz", "repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=x y"]);
}

#[test]
fn segments_go_both_ways_bz2_pg18() {
    goes_both_ways(18, &["compress-type=bz2"]);
}

#[test]
fn segments_go_both_ways_lz4_pg17() {
    goes_both_ways(17, &["compress-type=lz4"]);
}

#[test]
fn segments_go_both_ways_zst_cipher_pg18() {
    goes_both_ways(18, &["compress-type=zst", "repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=x"]);
}

#[test]
fn same_segment_again_is_taken_with_a_warning() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    archive.push(Tool::Rbr).success();
    archive.push(Tool::Rbr).success().says("WARN").says("already exists in the repo1 archive with the same checksum");
    archive.push(Tool::PgBackRest).success().says("with the same checksum");
}

#[test]
fn other_content_under_the_same_name_is_refused_and_the_first_is_kept() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    archive.push(Tool::Rbr).success();
    let mut content = archive.content();
    let last = content.len() - 1;
    content[last] ^= 1;
    let other = archive.scenario.space.write(&archive.segment, content);
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        archive.scenario.run(tool, &["archive-push", other.to_str().expect("UTF-8")]).fails(45);
    }
    assert_eq!(archive.get(Tool::PgBackRest), archive.content());
}

#[test]
fn segment_of_another_cluster_is_refused() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    let mut content = archive.content();
    content[24] ^= 1; // system identifier in the long page header
    let other = archive.scenario.space.write(&archive.segment, content);
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        archive.scenario.run(tool, &["archive-push", other.to_str().expect("UTF-8")]).fails(44);
    }
}

#[test]
fn segment_that_is_not_there_gives_status_1_and_no_file() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    let target = archive.scenario.space.path("fetched");
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let arguments = ["archive-get", "0000000100000099000000AA", target.to_str().expect("UTF-8")];
        archive.scenario.run(tool, &arguments).fails(1).says("unable to find 0000000100000099000000AA in the archive");
        let arguments = ["archive-get", "0000000A.history", target.to_str().expect("UTF-8")];
        archive.scenario.run(tool, &arguments).fails(1);
    }
    assert!(!target.exists());
}

#[test]
fn history_file_goes_both_ways() {
    let Some(archive) = Archive::make(15, &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=x"]) else { return };
    let text = "1\t0/3000028\tno recovery target specified\n";
    let scenario = &archive.scenario;
    let target = scenario.space.path("fetched");
    for (name, writer, reader) in
        [("00000002.history", Tool::Rbr, Tool::PgBackRest), ("00000003.history", Tool::PgBackRest, Tool::Rbr)]
    {
        let file = scenario.space.write(name, text);
        scenario.run(writer, &["archive-push", file.to_str().expect("UTF-8")]).success();
        scenario.run(reader, &["archive-get", name, target.to_str().expect("UTF-8")]).success();
        assert_eq!(fs::read_to_string(&target).expect("fetched"), text);
        fs::remove_file(&target).expect("remove");
    }
}

#[test]
fn push_while_stopped_is_refused() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    archive.scenario.rbr(&["stop"]).success();
    archive.push(Tool::Rbr).fails(62);
    archive.push(Tool::PgBackRest).fails(62);
    archive.scenario.rbr(&["start"]).success();
    archive.push(Tool::Rbr).success();
}

#[test]
fn push_to_two_repositories_of_which_one_is_broken_fails_until_it_is_mended() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    let scenario = &archive.scenario;
    scenario.configure(&[format!("repo2-path={}", scenario.space.folder("repo2").display())]);
    archive.push(Tool::Rbr).fails(104).says("repo2: ");
    scenario.rbr(&["stanza-create"]).success();
    archive.push(Tool::Rbr).success();
    for repo in ["--repo=1", "--repo=2"] {
        let target = scenario.space.text("fetched");
        scenario.pgbackrest(&[repo, "archive-get", &archive.segment, &target]).success();
        assert_eq!(fs::read(&target).expect("fetched"), archive.content(), "{repo}");
    }
}

#[test]
fn repository_that_cannot_be_opened_does_not_keep_the_other_from_being_used() {
    let Some(archive) = Archive::make(15, &[]) else { return };
    let scenario = &archive.scenario;
    let key = format!("repo2-gcs-key={}", scenario.space.text("nowhere.json"));
    let options = ["repo2-type=gcs", "repo2-path=/demo", "repo2-gcs-bucket=none", &key];
    scenario.configure(&options.map(str::to_owned));
    archive.push(Tool::Rbr).fails(104).says("repo2: [FileMissingError]");
    let target = scenario.space.text("fetched");
    let get = ["archive-get", &archive.segment, &target];
    scenario.rbr(&get).success().says("repo2: [FileMissingError]");
    assert_eq!(fs::read(&target).expect("fetched"), archive.content());
}
