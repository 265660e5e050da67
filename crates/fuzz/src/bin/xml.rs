//! libFuzzer's way into `fuzz::xml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::xml::check(data));
