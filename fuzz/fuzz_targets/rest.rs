//! See `fuzz::rest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rest(data));
