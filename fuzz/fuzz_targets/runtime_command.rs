//! Any bytes as a line to the runtime socket: nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    rlb::admin::runtime::exercise_line(bytes);
});
