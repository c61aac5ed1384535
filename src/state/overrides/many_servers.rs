//! What overrides of many servers of one backend cost: it grows with their number, not with its square.

use super::{apply, ended, list, write};
use crate::config::model::{Config, Server as Spec, ServerAddress, ServerPort};
use crate::state::test_config::{backend, config, origin, server};
use crate::state::{BackendId, Endpoint, Server, Snapshot, SnapshotBuilder, dynamic};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Eight times as many may cost so many times as much; the square would be 64 times.
const RATIO_MAX: u32 = 28;

/// Processor time of this thread.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap(), nanos.unwrap())
}

fn file(count: u32) -> Config {
    let servers = (1..=count).map(|id| Spec {
        id,
        ..server(&format!("s{id}"))
    });
    config(vec![backend("b", servers.collect())])
}

fn start(config: &Config, now: Instant) -> Arc<Snapshot> {
    Arc::new(Snapshot::initial(config, &origin(now)))
}

/// Every server has another address and weight; a fifth are removed, and as many added.
fn touched(first: &Arc<Snapshot>, now: Instant) -> Arc<Snapshot> {
    let id = BackendId::first(0);
    let mut builder = SnapshotBuilder::new(Arc::clone(first));
    let elsewhere = ServerAddress::Ip([127, 0, 0, 2].into(), ServerPort::Fixed(9));
    let endpoint = Endpoint::of(&elsewhere).unwrap();
    for (index, server) in first.backend(id).unwrap().servers.iter().enumerate() {
        let mut server = Server::clone(server);
        server.set_address(elsewhere.clone(), endpoint.clone(), now);
        server.weight = 7;
        builder.replace(id, index, server, now);
    }
    let next = builder.finish().unwrap();
    let backend = next.backend(id).unwrap();
    let mut servers = backend.servers.clone();
    let count = servers.len() / 5;
    servers.truncate(servers.len() - count);
    for number in 0..count {
        let spec = Arc::new(server(&format!("n{number}")));
        servers.push(Arc::new(dynamic::added(
            &spec,
            &backend.live.queue,
            (1, now),
        )));
    }
    let next = dynamic::replaced(&next, vec![backend.with_servers(servers, now)]);
    Arc::new(next)
}

/// What each step costs with so many servers.
fn costs(count: u32) -> [(&'static str, Duration); 5] {
    let now = Instant::now();
    let file = file(count);
    let first = start(&file, now);
    let set = touched(&first, now);
    let text = write(&set);
    let time = |what, step: &dyn Fn() -> usize| {
        let once = || {
            let before = cpu();
            assert!(step() > 0, "{what}");
            cpu().saturating_sub(before)
        };
        let least = (0..3).map(|_| once()).min();
        (what, least.unwrap())
    };
    [
        time("list", &|| list(&set).len()),
        time("write", &|| write(&set).len()),
        time("ended", &|| ended(&set, &first).len()),
        time("apply", &|| {
            let next = apply(&first, &text, (1, now)).unwrap();
            next.backends.len()
        }),
        time("as_written", &|| {
            let next = dynamic::as_written(&set, (1, now)).unwrap();
            next.backends.len()
        }),
    ]
}

/// `reload reset-overrides` took 4 s with 16,000 servers, and an upgrade more than 10 s with 60,000.
#[test]
fn costs_grow_with_the_number_of_servers() {
    let (few, many) = (costs(1000), costs(8000));
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(many < few * RATIO_MAX, "{what}: {few:?}, {many:?}");
    }
}
