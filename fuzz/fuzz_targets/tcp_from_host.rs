//! See `bowline_fuzzing::tcp_from_host`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::tcp_from_host(bytes));
