#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| vmrepl_wire::fuzzing::languages(input));
