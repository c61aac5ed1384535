//! Hot functions of the library, each in a loop. The guard runs them in its own process.

use crate::{check, fixture};
use rlb::balance::PickInput;
use rlb::balance::hash::Value;
use rlb::config::model::Balance;
use rlb::live::slot::Slot;
use rlb::live::{Shards, Traffic, WorkerToken};
use rlb::state::BackendId;
use std::collections::VecDeque;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Runs the operation `name` `times` times; `false` when there is no such operation.
pub(crate) fn run(name: &str, times: u64) -> bool {
    match name {
        "pick-3" => pick(3, times),
        "pick-100" => pick(100, times),
        "pick-1000" => pick(1_000, times),
        "pick-10000" => pick(10_000, times),
        "pick-maglev-3" => pick_for_client(3, Balance::Maglev, times),
        "pick-maglev-1000" => pick_for_client(1_000, Balance::Maglev, times),
        "pick-ewma-3" => pick_for_client(3, Balance::Ewma, times),
        "pick-ewma-1000" => pick_for_client(1_000, Balance::Ewma, times),
        "leastconn-3" => sessions(3, Balance::LeastConn, times),
        "leastconn-100" => sessions(100, Balance::LeastConn, times),
        "leastconn-1000" => sessions(1_000, Balance::LeastConn, times),
        "counter-add" => add(times),
        "check" => check::run(times).expect("the checks pass and tell nobody"),
        _ => return false,
    }
    true
}

/// Chooses among servers that are all usable.
fn pick(servers: u32, times: u64) {
    let snapshot = fixture::snapshot(1, servers, Balance::RoundRobin);
    let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
    for _ in 0..times {
        let turn = &PickInput::take(&backend.live.cursor);
        let trusted = |index: u32| !backend.servers[index as usize].live.is_suspect();
        black_box(backend.picker.pick(turn, |_| 0, trusted));
    }
}

/// The same for an algorithm that looks at more than the turn: each client has another address, and the servers have
/// no sessions and known times.
fn pick_for_client(servers: u32, balance: Balance, times: u64) {
    let snapshot = fixture::snapshot(1, servers, balance);
    let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
    let now = Instant::now();
    let tick = backend.live.tick(now);
    for (took, server) in (100..).zip(&backend.servers) {
        let took = Duration::from_micros(took);
        server.live.connect_time.learn(took, tick);
    }
    for client in 0..times {
        let address = Ipv4Addr::from_bits(u32::try_from(client).unwrap_or_default());
        let sample = |_| Some(Value::Address(address.into()));
        let input = PickInput::new(&backend.live, &backend.picker, sample, now);
        let live = |index: u32| &backend.servers[index as usize].live;
        let trusted = |index: u32| !live(index).is_suspect();
        black_box(
            backend
                .picker
                .pick(&input, |index| live(index).load(), trusted),
        );
    }
}

/// Sessions that come to servers and leave them in the same order; each server has one or two.
fn sessions(servers: u32, balance: Balance, times: u64) {
    let snapshot = fixture::snapshot(1, servers, balance);
    let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
    let token = WorkerToken::new(0);
    let live = |index: u32| &backend.servers[index as usize].live;
    let come = || {
        let turn = &PickInput::take(&backend.live.cursor);
        let trusted = |index: u32| !live(index).is_suspect();
        let load = |index: u32| live(index).load();
        let chosen = backend.picker.pick(turn, load, trusted);
        Slot::take(live(chosen.expect("a server")), &token)
    };
    let mut slots: VecDeque<Slot> = (0..servers * 3 / 2).map(|_| come()).collect();
    for _ in 0..times {
        slots.push_back(come());
        black_box(slots.pop_front());
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
