//! Several threads compress a file that is larger than a worker's share of all data, and no reader can tell.

use crate::env::{Scenario, ScenarioOptions, Tool, restored_matches};

#[test]
fn large_file_compressed_by_threads_is_read_by_both() {
    let Some(scenario) = Scenario::start(ScenarioOptions { version: 17, ..ScenarioOptions::default() }) else { return };
    // Three quarters of the cluster
    scenario.cluster.sql(
        "create table large as
             select g, md5(g::text) || repeat(chr(65 + g % 26), 400) as body from generate_series(1, 200000) g",
    );
    scenario.rbr(&["stanza-create"]).success();
    for (compress, tool) in [("gz", Tool::PgBackRest), ("lz4", Tool::Rbr), ("zst", Tool::PgBackRest)] {
        scenario.configure(&[format!("compress-type={compress}")]);
        let backup = scenario.rbr(&["backup", "--type=full", "--log-level-console=debug"]).success();
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
            backup.says("2 threads compress 'pg_data/base/");
        }
        let dump = scenario.cluster.dump();
        scenario.cluster.switch_wal();
        restored_matches(&mut scenario.restore(tool, &format!("restored-{compress}"), &[]), &dump);
    }
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let verify = ["verify", "--output=text", "--verbose", "--log-level-console=off"];
        scenario.run(tool, &verify).success().says("status: ok");
    }
}
