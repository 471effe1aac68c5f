//! See `bowline_fuzzing::host_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::host_ops(bytes));
