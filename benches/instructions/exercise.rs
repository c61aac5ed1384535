//! Hot functions of the library, each in a loop. The guard runs them in its own process.

use crate::{check, fixture};
use rlb::balance::PickInput;
use rlb::live::{Shards, Traffic, WorkerToken};
use rlb::state::BackendId;
use std::hint::black_box;

/// Runs the operation `name` `times` times; `false` when there is no such operation.
pub(crate) fn run(name: &str, times: u64) -> bool {
    match name {
        "pick-3" => pick(3, times),
        "pick-100" => pick(100, times),
        "pick-1000" => pick(1_000, times),
        "pick-10000" => pick(10_000, times),
        "counter-add" => add(times),
        "check" => check::run(times).expect("the checks pass and tell nobody"),
        _ => return false,
    }
    true
}

/// Chooses among servers that are all usable.
fn pick(servers: u32, times: u64) {
    let snapshot = fixture::snapshot(1, servers);
    let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
    for _ in 0..times {
        let turn = &PickInput::take(&backend.live.cursor);
        let trusted = |index: u32| !backend.servers[index as usize].live.is_suspect();
        black_box(backend.picker.pick(turn, None, trusted));
    }
}

/// Adds to a counter of one shard.
fn add(times: u64) {
    let shards: Shards<Traffic> = Shards::new(3);
    let token = WorkerToken::new(1);
    for bytes in 0..times {
        black_box(&shards).mine(&token).bin.add(black_box(bytes));
    }
}
