//! The alert rules and the dashboard in `contrib/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex_lite::Regex;
use serde_json::Value;

const EXPORTER: &str = include_str!("../fixtures/metrics/exporter.txt");

fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(path)
}

/// Every metric that rbr has.
fn known() -> BTreeSet<String> {
    let exporter = EXPORTER.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let own = monitor::metrics::ALL.iter().map(|metric| metric.name);
    exporter.chain(own).chain([monitor::http::AGE.name]).map(str::to_owned).collect()
}

fn used(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\b(?:rbr|pgbackrest)_[a-z0-9_]+\b").unwrap();
    name.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

/// Runs promtool, if it is installed.
fn promtool(arguments: &[&str]) {
    let run = Command::new("promtool").args(arguments).current_dir(contrib("prometheus")).output();
    match run {
        Err(_) => println!("promtool is not installed"),
        Ok(run) => assert!(
            run.status.success(),
            "{}{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr)
        ),
    }
}

#[test]
fn alert_rules_use_metrics_that_exist_and_are_valid() {
    let rules = fs::read_to_string(contrib("prometheus/rbr-rules.yml")).unwrap();
    let expressions: String = rules.lines().filter(|line| line.trim_start().starts_with("expr:")).collect();
    let used = used(&expressions);
    assert!(used.len() > 12, "{used:?}");
    assert!(used.is_subset(&known()), "{used:?}");
    assert_eq!(rules.matches("- alert: ").count(), rules.matches("expr: ").count());
    assert_eq!(rules.matches("- alert: ").count(), rules.matches("severity: ").count());
    promtool(&["check", "rules", "rbr-rules.yml"]);
    promtool(&["test", "rules", "rbr-rules-test.yml"]);
}

#[test]
fn dashboard_uses_metrics_that_exist_and_panels_do_not_overlap() {
    let dashboard: Value = serde_json::from_slice(&fs::read(contrib("grafana/rbr.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            let used = used(expression);
            assert!(!used.is_empty() && used.is_subset(&known()), "{expression}");
            assert_eq!(expression.matches(['(', '{']).count(), expression.matches([')', '}']).count(), "{expression}");
        }
        let number = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(x < 24 && places.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
    assert!(panels.len() > 15);
}

#[test]
fn documentation_names_every_metric_of_rbr_and_no_other() {
    let text = fs::read_to_string(contrib("../docs/monitoring.md")).unwrap();
    let own = |names: BTreeSet<String>| -> BTreeSet<String> {
        names.into_iter().filter(|name| name.starts_with("rbr_")).collect()
    };
    assert_eq!(own(used(&text)), own(known()));
}
