//! See `bowline_fuzzing::announce`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::announce(bytes));
