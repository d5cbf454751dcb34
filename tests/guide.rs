//! The user guide: every command that it shows is run, and prints what it shows.
//!
//! A page is run on a system of its own: the paths of the guide lead into a temporary folder, and `systemctl` starts
//! and stops the cluster there.

mod links;
mod page;
mod programs;
mod servers;
mod system;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use self::page::{Kind, matches, parse};
use self::system::System;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/guide")
}

/// Runs the blocks of a page in their order. With `RBR_GUIDE_UPDATE=1`, an output that is not what the page shows is
/// written into the page instead of failing the test.
fn run(name: &str) {
    let path = folder().join(name);
    let page = fs::read_to_string(&path).unwrap();
    let (blocks, needs) = parse(&page);
    let Some(system) = System::start(&needs) else { return };
    let update = std::env::var_os("RBR_GUIDE_UPDATE").is_some();
    let (mut last, mut updated) = (String::new(), page.clone());
    for block in &blocks {
        let place = format!("docs/guide/{name}:{}", block.line);
        match block.kind {
            Kind::Commands => last = system.shell(&block.text, &place),
            Kind::Output => {
                let output = std::mem::take(&mut last);
                if update && !matches(&block.text, &output) {
                    let (shown, output) = (format!("\n{}```", block.text), format!("\n{}\n```", output.trim_end()));
                    updated = updated.replacen(&shown, &output, 1);
                    continue;
                }
                assert!(matches(&block.text, &output), "{place} shows\n{}\nbut the output is\n{output}", block.text);
            }
            Kind::File => system.write(&block.text, &place),
            Kind::Shown => {}
        }
    }
    if updated != page {
        fs::write(path, updated).unwrap();
    }
}

/// One test for each page.
macro_rules! pages {
    ($($name:ident => $file:literal,)*) => {
        $(#[test]
        fn $name() {
            run($file);
        })*

        #[test]
        fn every_page_is_run() {
            let tested = BTreeSet::from([$($file.to_owned()),*]);
            let names = folder().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let pages: BTreeSet<String> = names.filter(|name| name.ends_with(".md")).collect();
            assert_eq!(pages, tested);
        }
    };
}

pages! {
    introduction => "introduction.md",
    quick_start => "quick-start.md",
    install => "install.md",
    first_backup => "first-backup.md",
    point_in_time => "point-in-time.md",
    encryption => "encryption.md",
    s3 => "s3.md",
    azure => "azure.md",
    gcs => "gcs.md",
    sftp => "sftp.md",
    other_hosts_ssh => "other-hosts-ssh.md",
    other_hosts_tls => "other-hosts-tls.md",
    several_repositories => "several-repositories.md",
    retention => "retention.md",
    schedules => "schedules.md",
    monitoring => "monitoring.md",
    copies => "copies.md",
    proof => "proof.md",
    performance => "performance.md",
    troubleshooting => "troubleshooting.md",
    from_pgbackrest => "from-pgbackrest.md",
    from_wal_g => "from-wal-g.md",
    from_barman => "from-barman.md",
    kubernetes => "kubernetes.md",
}
