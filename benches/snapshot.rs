//! What a connection pays to read the newest snapshot, and what a change of one server costs.
//!
//! `cargo bench --bench snapshot`

use arc_swap::{ArcSwap, Cache};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rlb::config::model::Balance;
use rlb::state::{AdminState, BackendId, Server, Snapshot, SnapshotBuilder};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

mod fixture;

fn load(criterion: &mut Criterion) {
    let published = Arc::new(ArcSwap::from_pointee(fixture::snapshot(
        1,
        10,
        Balance::RoundRobin,
    )));
    let mut cache = Cache::new(Arc::clone(&published));
    criterion.bench_function("snapshot/load", |bencher| {
        bencher.iter(|| black_box(cache.load().maxconn));
    });
}

/// One server of the last backend enters or leaves drain, and the snapshot is published.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot/publish");
    // Many backends of ten servers each, then one backend of as many servers.
    for (backends, servers) in [(1, 10), (100, 10), (1_000, 10), (1, 1_000), (1, 10_000)] {
        let published =
            ArcSwap::from_pointee(fixture::snapshot(backends, servers, Balance::RoundRobin));
        let last = BackendId::first(backends - 1);
        let id = BenchmarkId::from_parameter(format!("{backends}x{servers}"));
        group.bench_function(id, |bencher| {
            bencher.iter(|| published.store(Arc::new(turn_one(published.load_full(), last))));
        });
    }
    group.finish();
}

fn turn_one(base: Arc<Snapshot>, id: BackendId) -> Snapshot {
    let now = Instant::now();
    let mut builder = SnapshotBuilder::new(base);
    let mut server = Server::clone(builder.server(id, 0).expect("every backend has servers"));
    let admin = if server.status.admin.is_drain() {
        AdminState::READY
    } else {
        AdminState::FDRAIN
    };
    let rules = server.rules();
    server.status.set_admin(admin, rules, now);
    builder.replace(id, 0, server, now);
    builder.finish().expect("a server was replaced")
}

criterion_group!(benches, load, publish);
criterion_main!(benches);
