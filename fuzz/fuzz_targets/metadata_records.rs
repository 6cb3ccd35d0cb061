#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vltava_fuzz::metadata_records::run(data));
