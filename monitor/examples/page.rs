//! Prints the status page of a snapshot: `rbr --output=json metrics | cargo run -p rbr-monitor --example page`.

use std::io::Read;

use monitor::page;
use monitor::snapshot::Snapshot;

fn main() -> engine::Result<()> {
    let mut text = String::new();
    if std::io::stdin().read_to_string(&mut text).is_err() {
        text.clear();
    }
    print!("{}", page::render(&Snapshot::parse(&text)?, engine::time_zone::local()));
    Ok(())
}
