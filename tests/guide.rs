//! The user guide: every command that it shows is run, and prints what it shows.
//!
//! A page is run on a system of its own: the paths of the guide lead into a temporary folder, and `systemctl` starts
//! and stops the cluster there.

mod page;
mod system;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use self::page::{Kind, matches, parse};
use self::system::System;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/guide")
}

/// Runs the blocks of a page in their order.
fn run(name: &str) {
    let (blocks, needs) = parse(&fs::read_to_string(folder().join(name)).unwrap());
    let Some(system) = System::start(&needs) else { return };
    let mut last = String::new();
    for block in &blocks {
        let place = format!("docs/guide/{name}:{}", block.line);
        match block.kind {
            Kind::Commands => last = system.shell(&block.text, &place),
            Kind::Output => {
                let output = std::mem::take(&mut last);
                assert!(matches(&block.text, &output), "{place} shows\n{}\nbut the output is\n{output}", block.text);
            }
            Kind::File => system.write(&block.text, &place),
            Kind::Shown => {}
        }
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
        fn every_page_is_in_the_contents_and_is_run() {
            let tested = BTreeSet::from([$($file.to_owned()),*]);
            let is_page = |name: &String| name.ends_with(".md") && name != "SUMMARY.md";
            let names = folder().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let pages: BTreeSet<String> = names.filter(is_page).collect();
            assert_eq!(pages, tested);
            let contents = fs::read_to_string(folder().join("SUMMARY.md")).unwrap();
            for page in pages {
                assert!(contents.contains(&format!("({page})")), "{page} is not in SUMMARY.md");
            }
        }
    };
}

pages! {
    introduction => "introduction.md",
    install => "install.md",
    first_backup => "first-backup.md",
    point_in_time => "point-in-time.md",
    encryption => "encryption.md",
    s3 => "s3.md",
    several_repositories => "several-repositories.md",
    retention => "retention.md",
    from_pgbackrest => "from-pgbackrest.md",
}
