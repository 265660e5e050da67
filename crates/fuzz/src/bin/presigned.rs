//! libFuzzer's way into `fuzz::presigned`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::presigned::check(data));
