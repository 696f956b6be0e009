//! See `rest_api::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rest_api::fuzzing::fragment(data));
