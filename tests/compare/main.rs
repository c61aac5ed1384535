//! The cluster's faults with rlb and with Debian's HAProxy and the seed's own file, for the table in
//! `docs/failures.md`. They take minutes, so they are run by hand:
//!
//! ```text
//! cargo test --profile testing --test compare -- haproxy stop off reload split pinned
//! cargo test --profile testing --test compare -- rlb
//! ```

#![allow(
    dead_code,
    reason = "shares the harness of tests/it and uses a part of it"
)]
#![allow(
    clippy::print_stdout,
    reason = "a program without a test harness: its figures are its output"
)]

#[path = "../it/harness/mod.rs"]
mod harness;
#[path = "../it/lab/mod.rs"]
mod lab;

use lab::balancer::Kind;
use lab::reloads::{ReloadOptions, reloads};
use lab::scenarios::{pinned_clients, power_off, service_stops, split};
use std::time::Duration;

/// Longer than the kernel retransmits (`tcp_retries2`: about 15 minutes).
const PINNED_TIMEOUT: Duration = Duration::from_secs(1000);

/// Longer than any balancer makes a client wait.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(130);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |word: &str| arguments.iter().any(|it| it == word);
    let all = !["stop", "off", "reload", "split", "pinned"]
        .iter()
        .any(|word| asked(word));
    if !harness::needs::root() {
        return;
    }
    for (name, kind) in [("haproxy", Kind::Haproxy), ("rlb", Kind::Rlb)] {
        if !asked(name) && (asked("haproxy") || asked("rlb")) {
            continue;
        }
        if all || asked("stop") {
            println!("{name}: service stopped: {}", service_stops(kind));
        }
        if all || asked("off") {
            let result = power_off(kind);
            println!("{name}: node switched off: {}", result.off);
            println!("{name}: node returned: {}", result.on);
            println!(
                "{name}: node serves again after {:?}",
                result.serves_again_after
            );
        }
        if all || asked("reload") {
            for (dark, nodes) in [(false, "all nodes serve"), (true, "a node is off")] {
                let options = ReloadOptions {
                    reloads: 50,
                    dark,
                    timeout: RELOAD_TIMEOUT,
                };
                println!(
                    "{name}: 50 reloads while {nodes}: {}",
                    reloads(kind, options)
                );
            }
        }
        if all || asked("split") {
            println!("{name}: did not survive a split of 12 s: {:?}", split(kind));
        }
        if all || asked("pinned") {
            for (pinned, after, end) in pinned_clients(kind, PINNED_TIMEOUT) {
                println!(
                    "{name}: pinned, {pinned:?}: {end:?} after {:.0} s",
                    after.as_secs_f64()
                );
            }
        }
    }
}
