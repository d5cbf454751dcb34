//! Configuration files compared with pgBackRest: the same files yield the same output and exit status.

use std::fs;

use super::options::run;
use crate::env::{Space, oracles};

/// Contents of the files. Without an earlier error, each command ends because the data directory does not exist.
const FILES: &[&[u8]] = &[
    // Bytes that are not UTF-8 where no used value has them
    b"# caf\xe9\n",
    b"[other]\npg1-path=/\xff\n",
    b"[global:restore]\ndb-exclude=\xff\n",
    b"[glo\xffbal]\nprocess-max=2\n",
    // Syntax
    b"process-max=2\n",
    b"[global\nprocess-max=2\n",
    b"[]\n",
    b"[global]\nprocess-max\n",
    b"[global]\n=2\n",
    b"[global]\nprocess-max=\n",
    b"[global]\n\t process-max\t=\t2 \r\n",
    b"[global]\n;process-max=2\n",
    b"[global]\nprocess-max=2 # two\n",
    // Precedence and position
    b"[global]\nprocess-max=2\n[global:backup]\nprocess-max=3\n[s]\nprocess-max=4\n[s:backup]\nprocess-max=5\n",
    b"[global]\nprocess-max=2\nprocess-max=3\n",
    b"[global]\nrepo1-path=/y\nrepo-path=/x\n",
    b"[global]\npg1-port=1\n",
    b"[global]\nstanza=x\n",
    b"[global]\nno-start-fast=y\n",
    b"[global]\nreset-start-fast=y\n",
    b"[global:backup]\ndb-include=x\n",
    b"[global:bogus]\nprocess-max=2\n",
    b"[global]\nrepo0-path=/x\n",
    b"[global]\nrepo257-path=/x\n",
    b"[global]\nrepo2-path=/var/lib/pgbackrest/\n",
    // Options of other versions and of other repository types
    b"[global]\nrepo1-format=6\n",
    b"[global]\nrepo1-cipher-rotate=1d\n",
    b"[global]\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=x\nrepo1-cipher-rotate=1d\n",
    b"[global]\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=x\nrepo1-cipher-rotate=20d\n",
    b"[global]\ncipher-pass=x\n",
    b"[global]\nthread-max=2\n",
];

#[test]
fn configuration_files_are_read_as_by_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    if !rustix::process::getuid().is_root() {
        // A command that passes the parser would run
        return;
    }
    let space = Space::new();
    let path = space.text("pgbackrest.conf");
    let arguments = |more: &[&str]| -> Vec<String> {
        let given =
            ["backup", "--stanza=s", "--pg1-path=/nonexistent", "--log-level-console=info", "--log-level-file=off"];
        given.iter().chain(more).map(|&text| text.to_owned()).chain([format!("--config={path}")]).collect()
    };
    for content in FILES {
        fs::write(&path, content).expect("write");
        let arguments = arguments(&[]);
        let expected = run(oracles.pgbackrest.to_str().expect("UTF-8"), &arguments, &[]);
        let found = run(&space.text("bin/rbr"), &arguments, &[]);
        let content = String::from_utf8_lossy(content);
        if found.0 == Some(29) {
            // pgBackRest quotes the line, which may contain a passphrase
            assert_eq!(found.0, expected.0, "{content}");
            // It does not name the file
            let found_text = found.1.replace(&format!("configuration file '{path}': "), "");
            assert!(expected.1.starts_with(found_text.trim_end()), "{content}\n{found:?}\n{expected:?}");
        } else if found.1.contains("invalid option '...'") {
            // An invalid name is not quoted either, because it may be the rest of a passphrase
            assert_eq!(found.0, expected.0, "{content}");
        } else {
            assert_eq!(found, expected, "{content}");
        }
    }
}
