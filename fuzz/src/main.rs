//! Runs the target named by `RBR_FUZZ_TARGET` under libFuzzer. `scripts/fuzz` builds and runs this program.

#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<String> =
    LazyLock::new(|| std::env::var("RBR_FUZZ_TARGET").expect("RBR_FUZZ_TARGET names a target"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbr_fuzz::run(&TARGET, data));
