//! The text format of metrics, which Prometheus and OpenMetrics share.
//!
//! All metrics are gauges. A gauge looks the same in both formats, and the end mark of OpenMetrics is a comment in the
//! other, so one text serves both.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The end of a complete text.
pub const END: &str = "# EOF\n";

/// Label names and values, in the order of names.
type Labels = Vec<(&'static str, String)>;

/// The values of one metric.
#[derive(Debug)]
struct Family {
    help: &'static str,
    series: BTreeMap<Labels, f64>,
}

/// A metric: its name and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// Metrics and their values, sorted by name and labels.
#[derive(Debug, Default)]
pub struct Metrics {
    families: BTreeMap<&'static str, Family>,
}

impl Metrics {
    /// Sets a value. A later value of the same labels replaces an earlier one.
    pub fn set<const N: usize>(&mut self, metric: Metric, labels: [(&'static str, &str); N], value: f64) {
        let family =
            self.families.entry(metric.name).or_insert_with(|| Family { help: metric.help, series: BTreeMap::new() });
        let mut labels: Labels = labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        labels.sort_unstable();
        family.series.insert(labels, value);
    }

    /// Returns the text without its end mark, so that more metrics can follow.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.families {
            // Writing to a string never fails
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} gauge", family.help);
            for (labels, value) in &family.series {
                text += name;
                if !labels.is_empty() {
                    let list: Vec<String> =
                        labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
                    let _ = write!(text, "{{{}}}", list.join(","));
                }
                let _ = writeln!(text, " {value}");
            }
        }
        text
    }
}

/// Escapes the value of a label.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: Metric = Metric { name: "rbr_test", help: "A test." };

    #[test]
    fn metrics_are_sorted_and_the_last_value_of_a_series_counts() {
        let mut metrics = Metrics::default();
        metrics.set(Metric { name: "rbr_z", help: "Last." }, [], 0.5);
        metrics.set(METRIC, [("b", "2"), ("a", "1")], 1.0);
        metrics.set(METRIC, [("a", "1"), ("b", "2")], 1e15);
        metrics.set(METRIC, [("a", "0"), ("b", "2")], -3.0);
        let wanted = "# HELP rbr_test A test.\n# TYPE rbr_test gauge\nrbr_test{a=\"0\",b=\"2\"} -3\n\
                      rbr_test{a=\"1\",b=\"2\"} 1000000000000000\n# HELP rbr_z Last.\n# TYPE rbr_z gauge\nrbr_z 0.5\n";
        assert_eq!(metrics.render(), wanted);
    }

    #[test]
    fn value_of_a_label_can_not_end_the_label() {
        let mut metrics = Metrics::default();
        metrics.set(METRIC, [("a", "x\"} 1\n\\")], 1.0);
        assert_eq!(metrics.render().lines().last(), Some("rbr_test{a=\"x\\\"} 1\\n\\\\\"} 1"));
    }
}
