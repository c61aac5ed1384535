//! What choosing a server costs, by the number of servers.
//!
//! `cargo bench --bench pick`

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rlb::balance::PickInput;
use rlb::config::model::Balance;
use rlb::live::WorkerToken;
use rlb::live::slot::Slot;
use rlb::state::BackendId;
use std::collections::VecDeque;
use std::hint::black_box;

mod fixture;

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for servers in [3, 100, 1_000, 10_000] {
        let snapshot = fixture::snapshot(1, servers, Balance::RoundRobin);
        let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
        group.bench_function(BenchmarkId::new("first", servers), |bencher| {
            bencher.iter(|| {
                let turn = &PickInput::take(&backend.live.cursor);
                let trusted = |index: u32| !backend.servers[index as usize].live.is_suspect();
                black_box(backend.picker.pick(turn, |_| 0, trusted))
            });
        });
    }
    // The worst case: every other server has been tried.
    for servers in [3, 100, 1_000, 10_000] {
        let snapshot = fixture::snapshot(1, servers, Balance::RoundRobin);
        let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
        group.bench_function(BenchmarkId::new("last", servers), |bencher| {
            bencher.iter(|| {
                let turn = &PickInput::take(&backend.live.cursor);
                black_box(
                    backend
                        .picker
                        .pick(turn, |_| 0, |index| index == servers - 1),
                )
            });
        });
    }
    // A session comes and the oldest one leaves; each server has one or two.
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        Balance::LeastConn,
        Balance::Ewma,
    ] {
        for servers in [3, 100, 1_000, 10_000] {
            let snapshot = fixture::snapshot(1, servers, balance);
            let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
            let token = WorkerToken::new(0);
            let come = || {
                let turn = &PickInput::take(&backend.live.cursor);
                let live = |index: u32| &backend.servers[index as usize].live;
                let trusted = |index: u32| !live(index).is_suspect();
                let load = |index: u32| live(index).load();
                let chosen = backend.picker.pick(turn, load, trusted);
                Slot::take(live(chosen.expect("a server")), &token)
            };
            let mut slots: VecDeque<Slot> = (0..servers * 3 / 2).map(|_| come()).collect();
            group.bench_function(BenchmarkId::new(balance.name(), servers), |bencher| {
                bencher.iter(|| {
                    slots.push_back(come());
                    slots.pop_front()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
