//! What is resident after the start. That is said of the release build: `tests/run` runs this with its path in
//! `RLB_RELEASE`.

use crate::harness::config::Config;
use crate::harness::eventually::eventually_true;
use crate::harness::rlb::{STOP_WITHIN, Start, release};

/// docs/containers.md has the figure of the static program; this one is linked with shared libraries.
const RESIDENT_MAX: u64 = 8_000;

#[test]
#[ignore = "needs a release build"]
fn little_of_what_the_start_needs_stays_resident() {
    let config = Config::new().server_with("127.0.0.1:9", "check = false");
    let rlb = Start::new(&config).program(release()).ready();
    let is_little = || rlb.process.memory_kb("VmRSS") <= RESIDENT_MAX;
    eventually_true(STOP_WITHIN, "at most 8 MB", is_little);
    rlb.stop();
}
