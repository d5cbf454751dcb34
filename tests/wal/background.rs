//! Less usual cases of the background workers, compared with those of the real pgBackRest.

use std::fs;

use crate::env::{Scenario, ScenarioOptions, Tool};

const TOOLS: [Tool; 2] = [Tool::PgBackRest, Tool::Rbr];

/// A cluster whose segments wait to be archived, with asynchronous archiving.
struct Queue {
    scenario: Scenario,
    segment: String,
    got: String,
}

impl Queue {
    fn make(global: &[&str]) -> Option<Self> {
        let mut all = vec!["archive-async=y".to_owned(), "archive-get-queue-max=64MiB".to_owned()];
        all.extend(global.iter().map(|&line| line.to_owned()));
        let scenario = Scenario::start(ScenarioOptions {
            global: all,
            settings: vec!["archive_command = 'false'".to_owned()],
            ..ScenarioOptions::default()
        })?;
        scenario.rbr(&["stanza-create"]).success();
        scenario.space.folder("wal");
        let segment = scenario.cluster.switch_wal();
        let got = scenario.space.text("wal/got");
        Some(Self { scenario, segment, got })
    }

    /// The path of the segment that PostgreSQL wants archived.
    fn ready(&self) -> String {
        format!("{}/pg_wal/{}", self.scenario.cluster.data_text(), self.segment)
    }

    /// Archives the segment under another name, at once.
    fn archive_as(&self, name: &str) {
        let file = format!("wal/{name}");
        self.scenario.space.write(&file, fs::read(self.ready()).expect("segment"));
        self.scenario.rbr(&["--no-archive-async", "archive-push", &self.scenario.space.text(&file)]).success();
    }

    /// Gets a file and waits for the worker. The result must be the segment.
    #[track_caller]
    fn get(&self, tool: Tool, options: &[&str], name: &str, code: i32) {
        let mut all = options.to_vec();
        all.extend(["archive-get", name, &self.got]);
        let run = self.scenario.run(tool, &all).fails(code);
        self.scenario.worker_ends();
        if code == 0 {
            run.says(&format!("found {name} in the archive asynchronously"));
            assert!(fs::read(&self.got).expect("got") == fs::read(self.ready()).expect("segment"), "{name}");
        }
    }

    /// Returns the content of a spool queue, without marks.
    fn spool(&self, queue: &str) -> Vec<String> {
        let folder = self.scenario.space.path(&format!("spool/archive/demo/{queue}"));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
        names.retain(|name| !name.starts_with("boot."));
        names.sort_unstable();
        names
    }

    /// A new start for the other program.
    fn clear(&self) {
        for folder in ["spool/archive", "repo/archive/demo/15-1"] {
            let path = self.scenario.space.path(folder);
            if path.exists() {
                fs::remove_dir_all(path).expect("remove");
            }
        }
    }

    /// Returns the segment's name on another timeline, the given number of segments later.
    fn name(&self, timeline: u32, later: u32) -> String {
        let number = u32::from_str_radix(&self.segment[16..], 16).expect("number") + later;
        format!("{timeline:08X}{}{number:08X}", &self.segment[8..16])
    }
}

#[test]
fn queue_above_its_maximum_is_dropped_by_the_worker_with_a_warning() {
    let Some(queue) = Queue::make(&["archive-push-queue-max=1MB"]) else { return };
    let warning = format!("dropped WAL file '{}' because archive queue exceeded 1MB", queue.segment);
    let mut states = Vec::new();
    for tool in TOOLS {
        queue.scenario.run(tool, &["archive-push", &queue.ready()]).success().says("WARN").says(&warning);
        queue.scenario.worker_ends();
        let content = |name: &String| {
            fs::read_to_string(queue.scenario.space.path(&format!("spool/archive/demo/out/{name}"))).expect("state")
        };
        states.push(queue.spool("out").iter().map(|name| (name.clone(), content(name))).collect::<Vec<_>>());
        assert!(!queue.scenario.space.path("repo/archive/demo/15-1").exists());
        queue.clear();
    }
    assert_eq!(states[0], states[1]);
    assert!(!states[0].is_empty());
}

#[test]
fn segment_once_missing_is_looked_for_again_unless_that_is_off() {
    let Some(queue) = Queue::make(&[]) else { return };
    for tool in TOOLS {
        let names: Vec<_> = (0..3).map(|later| queue.name(1, later)).collect();
        queue.archive_as(&names[0]);
        queue.get(tool, &[], &names[0], 0);
        // The worker found the next segment missing, which is outdated now
        assert_eq!(queue.spool("in"), [format!("{}.ok", names[1])], "{tool:?}");
        queue.archive_as(&names[1]);
        queue.get(tool, &["--no-archive-missing-retry"], &names[1], 1);
        queue.get(tool, &["--no-archive-missing-retry"], &names[1], 0);
        assert_eq!(queue.spool("in"), [format!("{}.ok", names[2])], "{tool:?}");
        queue.archive_as(&names[2]);
        queue.get(tool, &[], &names[2], 0);
        queue.clear();
    }
}

#[test]
fn switch_of_the_timeline_leaves_nothing_of_the_old_one_in_the_spool() {
    let Some(queue) = Queue::make(&[]) else { return };
    for tool in TOOLS {
        let (first, next, switched, after) = (queue.name(1, 0), queue.name(1, 1), queue.name(2, 1), queue.name(2, 2));
        for name in [&first, &next, &switched, &after, &format!("{next}.partial")] {
            queue.archive_as(name);
        }
        queue.get(tool, &[], &first, 0);
        assert_eq!(queue.spool("in"), [next.clone(), format!("{}.ok", queue.name(1, 2))], "{tool:?}");
        queue.get(tool, &[], &switched, 0);
        assert_eq!(queue.spool("in"), [after, format!("{}.ok", queue.name(2, 3))], "{tool:?}");
        queue.clear();
    }
}

/// pgBackRest's worker looks for the complete segment instead and finds none. PostgreSQL never asks for partial
/// segments by itself.
#[test]
fn partial_segment_is_fetched_by_a_worker_too() {
    let Some(queue) = Queue::make(&[]) else { return };
    let partial = format!("{}.partial", queue.segment);
    queue.archive_as(&partial);
    queue.get(Tool::Rbr, &[], &partial, 0);
}

#[test]
fn repository_that_fails_is_told_of_by_the_worker_while_the_other_gets_the_segment() {
    let Some(queue) = Queue::make(&[]) else { return };
    let scenario = &queue.scenario;
    let mut global = scenario.options.global.clone();
    global.extend([format!("repo2-path={}", scenario.space.folder("repo2").display()), "job-retry=0".to_owned()]);
    scenario.configure(&global);
    scenario.rbr(&["stanza-create"]).success();
    for file in ["archive.info", "archive.info.copy"] {
        fs::remove_file(scenario.space.path(&format!("repo2/archive/demo/{file}"))).expect("remove");
    }
    let mut errors = Vec::new();
    for tool in TOOLS {
        let run = scenario.run(tool, &["archive-push", &queue.ready()]).fails(104).says("repo2: [FileMissingError]");
        scenario.worker_ends();
        // pgBackRest has processes where rbr has threads
        errors.push(run.error().replace("raised from local-1 protocol: ", ""));
        let folder = scenario.space.path(&format!("repo/archive/demo/15-1/{}", &queue.segment[..16]));
        let stored: Vec<_> = fs::read_dir(folder).expect("folder").flatten().map(|entry| entry.file_name()).collect();
        assert!(stored.iter().any(|name| name.to_string_lossy().starts_with(&queue.segment)), "{tool:?}: {stored:?}");
        queue.clear();
    }
    assert_eq!(errors[0], errors[1]);
}
