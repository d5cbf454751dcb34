//! Files that are more than a worker's share of what is left: several threads compress them, and nobody who reads them can tell.

use crate::env::{Scenario, ScenarioOptions, Tool, restored_matches};

#[test]
fn large_file_compressed_by_threads_is_read_by_both() {
    let Some(scenario) = Scenario::start(ScenarioOptions { version: 17, ..ScenarioOptions::default() }) else { return };
    scenario.cluster.sql(
        "create table large as select g, md5(g::text) || repeat(chr(65 + g % 26), 200) as body from generate_series(1, 100000) g",
    );
    scenario.rbr(&["stanza-create"]).success();
    // With cipher and without; a level of zst with one frame by the library's threads
    for (number, (kind, level)) in [("gz", 6), ("bz2", 9), ("lz4", 1), ("zst", 3), ("zst", 8)].into_iter().enumerate() {
        scenario.configure(&[format!("compress-type={kind}"), format!("compress-level={level}")]);
        let backup = scenario.rbr(&["backup", "--type=full", "--log-level-console=debug"]).success();
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            backup.says("2 threads compress 'pg_data/base/");
        }
        let dump = scenario.cluster.dump();
        scenario.cluster.switch_wal();
        let tool = if number % 2 == 0 { Tool::PgBackRest } else { Tool::Rbr };
        restored_matches(&mut scenario.restore(tool, &format!("restored-{number}"), &[]), &dump);
    }
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let verify = ["verify", "--output=text", "--verbose", "--log-level-console=off"];
        scenario.run(tool, &verify).success().says("status: ok");
    }
}
