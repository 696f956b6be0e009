//! See `common::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| common::fuzzing::token(data));
