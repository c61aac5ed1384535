//! What choosing a server costs, by the number of servers.
//!
//! `cargo bench --bench pick`

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rlb::balance::PickInput;
use rlb::state::BackendId;
use std::hint::black_box;

mod fixture;

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for servers in [3, 100, 1_000, 10_000] {
        let snapshot = fixture::snapshot(1, servers);
        let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
        group.bench_function(BenchmarkId::new("first", servers), |bencher| {
            bencher.iter(|| {
                let turn = &PickInput::take(&backend.live.cursor);
                let trusted = |index: u32| !backend.servers[index as usize].live.is_suspect();
                black_box(backend.picker.pick(turn, None, trusted))
            });
        });
    }
    // The worst case: every other server has been tried.
    for servers in [3, 100, 1_000, 10_000] {
        let snapshot = fixture::snapshot(1, servers);
        let backend = snapshot.backend(BackendId::first(0)).expect("there is one");
        group.bench_function(BenchmarkId::new("last", servers), |bencher| {
            bencher.iter(|| {
                let turn = &PickInput::take(&backend.live.cursor);
                black_box(
                    backend
                        .picker
                        .pick(turn, None, |index| index == servers - 1),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
