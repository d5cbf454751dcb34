//! The combinations.

use super::{Case, From, HostProtocol, Stored, cycle};
use crate::env::{Tool, run_part};

const PROGRAMS: [(Tool, Tool); 3] =
    [(Tool::Rbr, Tool::Rbr), (Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)];
const WAYS: [HostProtocol; 2] = [HostProtocol::Ssh, HostProtocol::Tls];
const FROM: [From; 3] = [From::Cluster, From::Repository, From::Standby];
const COMPRESS: [&str; 5] = ["none", "gz", "bz2", "lz4", "zst"];
const STORED: [Stored; 3] = [Stored::Plain, Stored::Bundles, Stored::Blocks];
const VERSIONS: [u32; 4] = [13, 15, 17, 18];

macro_rules! cases {
    ($($name:ident: $here:ident $there:ident $way:ident $from:ident, $compress:literal $cipher:literal $stored:ident
       $version:literal $asynchronous:literal;)+) => {
        const CHOSEN: &[Case] = &[$(Case {
            programs: (Tool::$here, Tool::$there),
            way: HostProtocol::$way,
            from: From::$from,
            compress: $compress,
            cipher: $cipher,
            stored: Stored::$stored,
            version: $version,
            asynchronous: $asynchronous,
        },)+];
        cases!(@tests 0, $($name)+);
    };
    (@tests $index:expr, $name:ident $($rest:ident)*) => {
        #[test]
        fn $name() {
            cycle(CHOSEN[$index]);
        }
        cases!(@tests $index + 1, $($rest)*);
    };
    (@tests $index:expr,) => {};
}

// The program on the host of PostgreSQL, that on the repository's host, the way between them, where backups start;
// compression, cipher, form, version, whether archiving is asynchronous
cases! {
    rbr_uses_a_repository_of_rbr_by_ssh: Rbr Rbr Ssh Cluster, "zst" false Bundles 17 true;
    rbr_backs_up_a_cluster_of_rbr_by_ssh: Rbr Rbr Ssh Repository, "bz2" true Plain 18 true;
    rbr_backs_up_a_cluster_of_rbr_by_tls: Rbr Rbr Tls Repository, "bz2" false Blocks 15 false;
    rbr_backs_up_a_standby_of_rbr_by_tls: Rbr Rbr Tls Standby, "zst" true Bundles 13 false;
    rbr_uses_a_plain_repository_of_pgbackrest_by_ssh: Rbr PgBackRest Ssh Cluster, "gz" true Plain 17 false;
    rbr_uses_bundles_of_pgbackrest_by_ssh: Rbr PgBackRest Ssh Cluster, "lz4" true Bundles 13 false;
    pgbackrest_backs_up_a_cluster_of_rbr_by_tls: Rbr PgBackRest Tls Repository, "lz4" false Blocks 18 false;
    pgbackrest_backs_up_a_standby_of_rbr_by_tls: Rbr PgBackRest Tls Standby, "gz" false Plain 15 true;
    rbr_backs_up_a_cluster_of_pgbackrest_by_ssh: PgBackRest Rbr Ssh Repository, "gz" false Bundles 13 true;
    rbr_backs_up_a_standby_of_pgbackrest_by_ssh: PgBackRest Rbr Ssh Standby, "none" true Blocks 15 true;
    pgbackrest_uses_a_repository_of_rbr_by_tls: PgBackRest Rbr Tls Cluster, "none" false Blocks 18 false;
    rbr_backs_up_a_cluster_of_pgbackrest_by_tls: PgBackRest Rbr Tls Repository, "lz4" true Plain 17 true;
}

/// The values of a case, as indexes: programs, way, from, compression, cipher, form, version, asynchronous.
fn values(case: &Case) -> [usize; 8] {
    fn index<T: PartialEq>(all: &[T], value: &T) -> usize {
        all.iter().position(|known| known == value).expect("a known value")
    }
    [
        PROGRAMS.iter().position(|known| *known == case.programs).expect("known programs"),
        index(&WAYS, &case.way),
        index(&FROM, &case.from),
        index(&COMPRESS, &case.compress),
        case.cipher.into(),
        index(&STORED, &case.stored),
        index(&VERSIONS, &case.version),
        case.asynchronous.into(),
    ]
}

#[test]
fn chosen_cases_hold_every_pair_of_properties() {
    let counts = [PROGRAMS.len(), WAYS.len(), FROM.len(), COMPRESS.len(), 2, STORED.len(), VERSIONS.len(), 2];
    let chosen: Vec<_> = CHOSEN.iter().map(values).collect();
    for first in 0..counts.len() {
        for second in first + 1..counts.len() {
            let pairs = counts[first] * counts[second];
            // Only the complete matrix has all others
            if pairs > 10 && (first, second) != (0, 6) {
                continue;
            }
            let mut found: Vec<_> = chosen.iter().map(|values| (values[first], values[second])).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), pairs, "properties {first} and {second}: {found:?}");
        }
    }
}

/// Runs the combinations of hosts with all compressions and versions. Every one of up to four parts holds all pairs of
/// what is combined, because the sum of the indexes decides about the part.
fn all_between(programs: (Tool, Tool)) {
    let mut cases = Vec::new();
    for (way_index, way) in WAYS.into_iter().enumerate() {
        for (from_index, from) in FROM.into_iter().enumerate() {
            for (compress_index, compress) in COMPRESS.into_iter().enumerate() {
                for (version_index, version) in VERSIONS.into_iter().enumerate() {
                    // The other properties follow no order, so that they occur with everything else
                    let mixed = spread(cases.len());
                    let case = Case {
                        programs,
                        way,
                        from,
                        compress,
                        cipher: mixed & 1 == 0,
                        stored: STORED[(mixed >> 2) % STORED.len()],
                        version,
                        asynchronous: mixed & 2 == 0,
                    };
                    cases.push((way_index + from_index + compress_index + version_index, case));
                }
            }
        }
    }
    run_part(cases, cycle);
}

/// A number that looks random, the same one in every run.
fn spread(number: usize) -> usize {
    (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

#[test]
fn complete_matrix_combines_the_other_properties_with_everything() {
    let mut pairs: Vec<_> = (0..120).map(|number| (number % 4, spread(number) & 3)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), 16, "versions with ciphers and asynchronous archiving");
    let mut pairs: Vec<_> = (0..120).map(|number| (number / 4 % 5, (spread(number) >> 2) % 3)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), 15, "compressions with forms");
}

#[test]
fn full_matrix_of_rbr_on_both_hosts() {
    all_between((Tool::Rbr, Tool::Rbr));
}

#[test]
fn full_matrix_of_rbr_on_the_host_of_postgresql() {
    all_between((Tool::Rbr, Tool::PgBackRest));
}

#[test]
fn full_matrix_of_rbr_on_the_host_of_the_repository() {
    all_between((Tool::PgBackRest, Tool::Rbr));
}
