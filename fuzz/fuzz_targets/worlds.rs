//! See `bowline_fuzzing::worlds`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::worlds(bytes));
