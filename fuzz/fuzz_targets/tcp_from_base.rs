//! See `bowline_fuzzing::tcp_from_base`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::tcp_from_base(bytes));
