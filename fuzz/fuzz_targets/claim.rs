#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rbr_fuzz::run("claim", data));
