//! See [`fuzz::data_dir`].

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::data_dir(bytes));
