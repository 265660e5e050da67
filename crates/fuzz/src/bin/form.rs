//! libFuzzer's way into `fuzz::form`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::form::check(data));
