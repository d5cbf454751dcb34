//! rbr backs up and both programs read: compress type x bundle x cipher x PostgreSQL version.
//!
//! `make test` runs a selection in which every pair of properties occurs. [`full_matrix`] runs the rest.

use crate::env::{Scenario, ScenarioOptions, Tool, Tree, restored_matches, run_part};

#[derive(Clone, Copy, Debug)]
struct Case {
    version: u32,
    compress: &'static str,
    bundle: bool,
    cipher: bool,
}

impl Case {
    fn global(&self) -> Vec<String> {
        let mut lines = vec![format!("compress-type={}", self.compress)];
        if self.bundle {
            lines.push("repo1-bundle=y".into());
        }
        if self.cipher {
            lines.push("repo1-cipher-type=aes-256-cbc".into());
            lines.push("repo1-cipher-pass=a passphrase".into());
        }
        lines
    }
}

fn cycle(case: Case) {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: case.version,
        global: case.global(),
        tablespace: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    scenario.rbr(&["backup", "--type=full"]).success().says("new backup label").never_says("WARN");
    let dump = scenario.cluster.dump();
    // The segment of the checkpoint, which the restored server needs
    scenario.cluster.switch_wal();

    // pgBackRest finds no error, and both programs report the same
    let verify = scenario.pgbackrest(&["verify", "--verbose", "--output=text", "--log-level-console=warn"]).success();
    assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
    verify.never_says("WARN").never_says("ERROR");
    for output in ["--output=json", "--output=text"] {
        let arguments = ["info", output, "--log-level-console=warn"];
        assert_eq!(scenario.rbr(&arguments).success().stdout, scenario.pgbackrest(&arguments).success().stdout);
    }

    // Both programs restore the same files, and a server on them is valid
    scenario.restore(Tool::PgBackRest, "by-pgbackrest", &["--type=none"]);
    scenario.restore(Tool::Rbr, "by-rbr", &["--type=none"]);
    Tree::read_restored(&scenario.space.path("by-pgbackrest"))
        .assert_same(&Tree::read_restored(&scenario.space.path("by-rbr")));
    for (tool, name) in [(Tool::Rbr, "server-rbr"), (Tool::PgBackRest, "server-pgbackrest")] {
        let mut restored = scenario.restore(tool, name, &[]);
        restored_matches(&mut restored, &dump);
    }
}

macro_rules! cases {
    ($($name:ident: $version:literal $compress:literal $bundle:literal $cipher:literal),+ $(,)?) => {
        const CHOSEN: &[Case] = &[$(
            Case { version: $version, compress: $compress, bundle: $bundle, cipher: $cipher },
        )+];
        $(
            #[test]
            fn $name() {
                cycle(Case { version: $version, compress: $compress, bundle: $bundle, cipher: $cipher });
            }
        )+
    };
}

cases! {
    pg13_none_plain_cipher: 13 "none" false true,
    pg15_none_bundle: 15 "none" true false,
    pg17_gz_plain: 17 "gz" false false,
    pg18_gz_bundle_cipher: 18 "gz" true true,
    pg13_bz2_bundle: 13 "bz2" true false,
    pg18_bz2_plain_cipher: 18 "bz2" false true,
    pg15_lz4_plain: 15 "lz4" false false,
    pg17_lz4_bundle_cipher: 17 "lz4" true true,
    pg15_zst_plain_cipher: 15 "zst" false true,
    pg18_zst_bundle: 18 "zst" true false,
}

#[test]
fn chosen_cases_hold_every_pair_of_repository_properties() {
    for compress in ["none", "gz", "bz2", "lz4", "zst"] {
        for flag in [false, true] {
            assert!(CHOSEN.iter().any(|case| case.compress == compress && case.bundle == flag));
            assert!(CHOSEN.iter().any(|case| case.compress == compress && case.cipher == flag));
        }
    }
    for (bundle, cipher) in [(false, false), (false, true), (true, false), (true, true)] {
        assert!(CHOSEN.iter().any(|case| (case.bundle, case.cipher) == (bundle, cipher)));
    }
    for version in [13, 15, 17, 18] {
        for flag in [false, true] {
            assert!(CHOSEN.iter().any(|case| case.version == version && case.bundle == flag));
            assert!(CHOSEN.iter().any(|case| case.version == version && case.cipher == flag));
        }
    }
}

#[test]
fn full_matrix() {
    let mut cases = Vec::new();
    for (version_index, version) in [13, 15, 17, 18].into_iter().enumerate() {
        for (compress_index, compress) in ["none", "gz", "bz2", "lz4", "zst"].into_iter().enumerate() {
            for (form_index, (bundle, cipher)) in
                [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
            {
                // Parts of the matrix hold all versions, compressions and forms
                let number = version_index + compress_index + form_index;
                cases.push((number, Case { version, compress, bundle, cipher }));
            }
        }
    }
    run_part(cases, cycle);
}
