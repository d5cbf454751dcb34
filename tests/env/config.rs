//! The configuration file that both programs read.

use super::cluster::Cluster;

/// Returns the text of the file: `lines` in `[global]`, after those of `defaults` whose option they do not set, and the
/// stanza of a cluster.
pub fn config_text(defaults: &[String], lines: &[impl AsRef<str>], stanza: &str, cluster: &Cluster) -> String {
    let option = |line: &str| line.split('=').next().map(str::to_owned);
    let is_given = |default: &str| lines.iter().any(|line| option(line.as_ref()) == option(default));
    let mut all = vec!["[global]"];
    all.extend(defaults.iter().map(String::as_str).filter(|default| !is_given(default)));
    all.extend(lines.iter().map(AsRef::as_ref));
    let (global, data, socket) = (all.join("\n"), cluster.data_text(), cluster.socket());
    format!("{global}\n[{stanza}]\npg1-path={data}\npg1-socket-path={socket}\npg1-user=postgres\n")
}
