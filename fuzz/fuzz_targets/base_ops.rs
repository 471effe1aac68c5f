//! See `bowline_fuzzing::base_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::base_ops(bytes));
