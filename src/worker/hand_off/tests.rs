//! Connections that arrive unevenly, and which workers have them in the end.

use super::*;
use crate::config::{Limits, Loader};
use crate::live::slot::ConnLimits;
use crate::live::{GlobalLive, WorkerToken};
use crate::state::Snapshot;
use crate::state::snapshot::Origin;
use proptest::prelude::*;
use std::time::Instant;

/// Workers, and the connections that they have.
struct Fixture {
    global: Arc<GlobalLive>,
    frontend: Arc<Frontend>,
    hand_offs: Vec<HandOff>,
    held: Vec<Vec<Accepted>>,
}

impl Fixture {
    fn of(workers: usize) -> Self {
        let loader = Loader {
            limits: Limits::unknown(),
            environment: &|_| None,
            disk: false,
        };
        let text = "[[listen]]\nname = 'l'\nbind = '127.0.0.1:0'\n\
                    servers = [{ name = 's', address = '127.0.0.1:1' }]\n";
        let (config, _) = loader.load_text("test", text).unwrap();
        let now = Instant::now();
        let global = Arc::new(GlobalLive::new(now, workers + 1));
        let origin = Origin {
            global: Arc::clone(&global),
            maxconn: 10,
            shards: workers + 1,
            now,
        };
        let snapshot = Snapshot::initial(&config, &origin);
        Self {
            global,
            frontend: Arc::clone(snapshot.frontends[0].as_ref().unwrap()),
            hand_offs: hand_offs(workers),
            held: (0..workers).map(|_| Vec::new()).collect(),
        }
    }

    /// A connection comes in at `worker`.
    fn comes_to(&mut self, worker: usize) {
        let limits = ConnLimits {
            global: u32::MAX,
            frontend: None,
        };
        let token = WorkerToken::new(worker);
        let slot =
            ConnSlot::take(&self.global, Arc::clone(&self.frontend), limits, &token).unwrap();
        let (client, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let accepted = Accepted {
            client: client.into(),
            kind: Kind::Unix,
            peer: None,
            slot,
            header: None,
        };
        let peers = &self.hand_offs[worker].peers;
        let kept = peers.hand_over(accepted, &self.global.load);
        self.held[worker].extend(kept);
    }

    fn take_over(&mut self) {
        for (hand_off, held) in self.hand_offs.iter_mut().zip(&mut self.held) {
            while let Ok(accepted) = hand_off.inbox.try_recv() {
                held.push(accepted);
            }
        }
    }

    fn held(&self) -> Vec<usize> {
        self.held.iter().map(Vec::len).collect()
    }
}

#[test]
fn a_burst_at_one_worker_is_not_handed_to_one_other() {
    let mut fixture = Fixture::of(4);
    for _ in 0..200 {
        fixture.comes_to(0);
    }
    // The others read their inboxes only now.
    fixture.take_over();
    let held = fixture.held();
    assert_eq!(held.iter().sum::<usize>(), 200);
    assert!(held.iter().all(|held| held.abs_diff(50) <= 6), "{held:?}");
}

#[test]
fn a_worker_alone_keeps_everything() {
    let mut fixture = Fixture::of(1);
    for _ in 0..10 {
        fixture.comes_to(0);
    }
    assert_eq!(fixture.held(), [10]);
}

#[test]
fn a_worker_that_has_stopped_taking_over_is_not_given_anything() {
    let mut fixture = Fixture::of(2);
    fixture.hand_offs[1].inbox.close();
    for _ in 0..10 {
        fixture.comes_to(0);
    }
    assert_eq!(fixture.held(), [10, 0]);
    assert_eq!(fixture.global.load.of(0).get(), 10);
    assert_eq!(fixture.global.load.of(1).get(), 0);
}

#[test]
fn an_inbox_that_is_full_takes_nothing_more() {
    let mut fixture = Fixture::of(2);
    for _ in 0..3 * HANDED_MAX {
        fixture.comes_to(0);
    }
    assert_eq!(fixture.held(), [2 * HANDED_MAX, 0]);
    fixture.take_over();
    assert_eq!(fixture.held(), [2 * HANDED_MAX, HANDED_MAX]);
}

proptest! {
    #[test]
    fn however_the_kernel_spreads_them_64_long_ones_are_even(
        acceptors in prop::collection::vec(0usize..2, 64)
    ) {
        let mut fixture = Fixture::of(2);
        for acceptor in acceptors {
            fixture.comes_to(acceptor);
            fixture.take_over();
        }
        let held = fixture.held();
        prop_assert_eq!(held.iter().sum::<usize>(), 64);
        // 20 % of 32 are 6.
        prop_assert!(held.iter().all(|held| held.abs_diff(32) <= 6), "{:?}", held);
    }
}
