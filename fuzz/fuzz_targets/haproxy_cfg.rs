//! Runs `targets::haproxy_cfg` under libFuzzer.
#![no_main]

#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::haproxy_cfg(bytes));
