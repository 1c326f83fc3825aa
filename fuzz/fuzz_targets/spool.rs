#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rvh_trace_fuzz::spool(data));
