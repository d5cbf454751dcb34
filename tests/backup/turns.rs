//! Chains in which rbr and the real pgBackRest take turns: who begins x compress type x form of storage x cipher x
//! PostgreSQL version.
//!
//! `make test` runs a selection in which every pair of properties occurs. The full matrix runs the rest.

use super::chain::Chain;
use crate::env::{Scenario, ScenarioOptions, Tool, run_part};

/// How files are stored in the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Bundle,
    Block,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    version: u32,
    compress: &'static str,
    form: Form,
    cipher: bool,
    first: Tool,
}

const COMPRESS_TYPES: [&str; 5] = ["none", "gz", "lz4", "zst", "bz2"];
const FORMS: [Form; 3] = [Form::Plain, Form::Bundle, Form::Block];
const TOOLS: [Tool; 2] = [Tool::Rbr, Tool::PgBackRest];
const VERSIONS: [u32; 4] = [13, 15, 17, 18];

impl Case {
    fn global(&self) -> Vec<String> {
        let compress = format!("compress-type={}", self.compress);
        let mut lines = vec![compress.as_str()];
        match self.form {
            Form::Plain => {}
            Form::Bundle => lines.extend(["repo1-bundle=y"]),
            // Small bundles, so that a block map refers to many of them
            Form::Block => lines.extend(["repo1-bundle=y", "repo1-block=y", "repo1-bundle-limit=64KiB"]),
        }
        if self.cipher {
            lines.extend(["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"]);
        }
        lines.into_iter().map(str::to_owned).collect()
    }
}

fn take_turns(case: Case, kinds: &[&str]) {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: case.version,
        global: case.global(),
        tablespace: true,
        archive_with: case.first,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.run(case.first, &["stanza-create"]).success();
    let mut chain = Chain::new(scenario);
    let second = if case.first == Tool::Rbr { Tool::PgBackRest } else { Tool::Rbr };
    for (kind, tool) in kinds.iter().zip([case.first, second].into_iter().cycle()) {
        chain.add(tool, kind, &[]);
    }
    chain.check();
}

macro_rules! cases {
    ($($name:ident: $version:literal $compress:literal $form:ident $cipher:literal $first:ident),+ $(,)?) => {
        const CHOSEN: &[Case] = &[$(
            Case {
                version: $version, compress: $compress, form: Form::$form, cipher: $cipher, first: Tool::$first,
            },
        )+];
        $(
            #[test]
            fn $name() {
                let case = Case {
                    version: $version, compress: $compress, form: Form::$form, cipher: $cipher, first: Tool::$first,
                };
                take_turns(case, &["full", "diff", "incr", "incr"]);
            }
        )+
    };
}

cases! {
    pg13_gz_plain_begun_by_rbr: 13 "gz" Plain false Rbr,
    pg13_gz_block_cipher_begun_by_pgbackrest: 13 "gz" Block true PgBackRest,
    pg15_none_bundle_cipher_begun_by_pgbackrest: 15 "none" Bundle true PgBackRest,
    pg15_bz2_bundle_begun_by_rbr: 15 "bz2" Bundle false Rbr,
    pg17_zst_block_cipher_begun_by_rbr: 17 "zst" Block true Rbr,
    pg17_zst_bundle_begun_by_pgbackrest: 17 "zst" Bundle false PgBackRest,
    pg17_lz4_plain_cipher_begun_by_rbr: 17 "lz4" Plain true Rbr,
    pg18_lz4_block_begun_by_pgbackrest: 18 "lz4" Block false PgBackRest,
    pg18_none_plain_begun_by_rbr: 18 "none" Plain false Rbr,
    pg18_bz2_plain_cipher_begun_by_pgbackrest: 18 "bz2" Plain true PgBackRest,
}

#[test]
fn chosen_chains_hold_the_pairs_of_properties() {
    let has = |wanted: &dyn Fn(&Case) -> bool| CHOSEN.iter().any(wanted);
    for first in TOOLS {
        assert!(COMPRESS_TYPES.iter().all(|compress| has(&|case| case.first == first && case.compress == *compress)));
        assert!(FORMS.iter().all(|form| has(&|case| case.first == first && case.form == *form)));
        assert!(VERSIONS.iter().all(|version| has(&|case| case.first == first && case.version == *version)));
    }
    for cipher in [false, true] {
        assert!(COMPRESS_TYPES.iter().all(|compress| has(&|case| case.cipher == cipher && case.compress == *compress)));
        assert!(FORMS.iter().all(|form| has(&|case| case.cipher == cipher && case.form == *form)));
        assert!(VERSIONS.iter().all(|version| has(&|case| case.cipher == cipher && case.version == *version)));
        assert!(TOOLS.iter().all(|first| has(&|case| case.cipher == cipher && case.first == *first)));
    }
}

/// Everything with one compress type. Each case has one version of PostgreSQL; all combinations of first program and
/// cipher occur with each version.
fn all_with(compress: &'static str) {
    let turn = COMPRESS_TYPES.iter().position(|known| *known == compress).unwrap_or_default();
    let mut cases = Vec::new();
    for (form_turn, form) in FORMS.into_iter().enumerate() {
        let mut versions = VERSIONS.into_iter().cycle().skip(turn + form_turn);
        for cipher in [false, true] {
            for first in TOOLS {
                let version = versions.next().unwrap_or_default();
                cases.push((turn + cases.len(), Case { version, compress, form, cipher, first }));
            }
        }
    }
    run_part(cases, |case| take_turns(case, &["full", "diff", "incr", "incr", "diff", "incr"]));
}

#[test]
fn full_matrix_of_turns_none() {
    all_with("none");
}

#[test]
fn full_matrix_of_turns_gz() {
    all_with("gz");
}

#[test]
fn full_matrix_of_turns_lz4() {
    all_with("lz4");
}

#[test]
fn full_matrix_of_turns_zst() {
    all_with("zst");
}

#[test]
fn full_matrix_of_turns_bz2() {
    all_with("bz2");
}
