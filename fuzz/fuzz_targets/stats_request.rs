//! Any text as the target of a request to the stats listener: nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    rlb::admin::exercise_target(&String::from_utf8_lossy(bytes));
});
