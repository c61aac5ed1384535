//! Any bytes as a configuration: nothing panics, and every problem can be drawn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rlb::config::{Limits, Loader};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let limits = Limits { nofile: Some(20_000), somaxconn: Some(4096), cores: 2 };
    let loader = Loader { limits, environment: &|_| None, disk: false };
    let found = match loader.load_text("fuzz.toml", text) {
        Ok((_, warnings)) => warnings,
        Err(found) => found,
    };
    for diagnostic in found {
        let _ = (diagnostic.render(false), diagnostic.to_json());
    }
});
