//! See `media_worker::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: fuzz::tolerate_caught_panics(),
    |data: &[u8]| media_worker::fuzzing::sctp(data)
);
