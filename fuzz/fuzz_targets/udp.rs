//! See `bowline_fuzzing::udp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bowline_fuzzing::udp(bytes));
