//! See `media_worker::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_worker::fuzzing::data_message(data));
