//! See `bowline_fuzzing::peer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::peer(bytes));
