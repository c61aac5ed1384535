//! Fail-open and the least number of servers, over the changes of snapshots.

use crate::balance::PickInput;
use crate::config::model;
use crate::state::builder::{BackendChange, SnapshotBuilder};
use crate::state::test_config::{backend, config, origin, server};
use crate::state::{AdminState, Backend, BackendId, CarryOver, Forced, Server, Snapshot};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

const B: BackendId = BackendId::first(0);

/// A backend in some steps.
struct Steps {
    snapshot: Arc<Snapshot>,
    now: Instant,
}

impl Steps {
    fn new(count: u32, change: impl FnOnce(&mut model::Backend)) -> Self {
        let servers = (1..=count).map(|id| model::Server {
            id,
            ..server(&format!("s{id}"))
        });
        let mut spec = backend("b", servers.collect());
        change(&mut spec);
        let now = Instant::now();
        let snapshot = Snapshot::initial(&config(vec![spec]), &origin(now));
        Self {
            snapshot: Arc::new(snapshot),
            now,
        }
    }

    fn backend(&self) -> &Arc<Backend> {
        self.snapshot.backend(B).expect("it stays")
    }

    fn take(&mut self, index: usize, step: impl FnOnce(&mut Server, Instant)) -> BackendChange {
        self.now += Duration::from_secs(1);
        let mut builder = SnapshotBuilder::new(Arc::clone(&self.snapshot));
        let mut server = Server::clone(builder.server(B, index).expect("it is there"));
        step(&mut server, self.now);
        let change = builder.replace(B, index, server, self.now);
        assert_eq!(builder.fails_open(B), builder.servers(B)[0].fail_open);
        self.snapshot = Arc::new(builder.finish().expect("a change"));
        change
    }

    fn force(&mut self, index: usize, to: Forced) -> BackendChange {
        self.take(index, |server, now| {
            let rules = server.rules();
            server.status.force(to, rules, now);
        })
    }

    fn admin(&mut self, index: usize, admin: AdminState) -> BackendChange {
        self.take(index, |server, now| {
            let rules = server.rules();
            server.status.set_admin(admin, rules, now);
        })
    }

    fn reload(&mut self, change: impl FnOnce(&mut model::Backend)) {
        let mut spec = model::Backend::clone(&self.backend().spec);
        change(&mut spec);
        let carry = CarryOver {
            maxconn: 100,
            shards: 1,
            addresses: &HashMap::new(),
            now: self.now,
        };
        let next = self.snapshot.next_snapshot(&config(vec![spec]), &carry);
        self.snapshot = Arc::new(next);
    }

    /// The servers that sessions get, one after another.
    fn chosen(&self) -> Vec<u32> {
        let backend = self.backend();
        let mut seen = BTreeSet::new();
        let turn = PickInput::take(&backend.live.cursor);
        backend.picker.pick(
            &turn,
            |_| 0,
            |index| {
                seen.insert(index);
                false
            },
        );
        assert_eq!(seen.is_empty(), backend.picker.is_empty());
        let in_use: BTreeSet<u32> = backend.in_use().iter().map(|one| one.index).collect();
        assert_eq!(in_use, seen);
        for server in &backend.servers {
            assert_eq!(server.fail_open, backend.status.fail_open);
        }
        if !backend.servers.is_empty() {
            assert_eq!(backend.status.up, !seen.is_empty());
        }
        seen.into_iter().collect()
    }

    fn renewed_since(&self, generation: u64) -> Vec<u32> {
        let renewed = self.backend().renewed_since(generation);
        let mut ids: Vec<u32> = renewed.map(|server| server.spec.id).collect();
        ids.sort_unstable();
        ids
    }
}

#[test]
fn with_too_few_servers_up_all_are_used_until_enough_are_up() {
    let mut steps = Steps::new(4, |spec| spec.fail_open_below = 50);
    steps.force(0, Forced::Down);
    steps.force(1, Forced::Down);
    assert_eq!(steps.chosen(), [2, 3], "half of them are enough");
    let before = steps.backend().generation;
    assert_eq!(steps.force(2, Forced::Down), BackendChange::None);
    assert!(steps.backend().status.fail_open);
    assert_eq!(steps.chosen(), [0, 1, 2, 3]);
    assert_eq!(steps.backend().usable().active, 1, "as the checks say");
    let hopeless = |steps: &Steps| {
        let servers = steps.backend().servers.iter();
        servers
            .map(|server| server.is_hopeless())
            .collect::<Vec<_>>()
    };
    assert_eq!(hopeless(&steps), [false; 4], "connects to it go on");
    // Sessions that wait or have been refused try them: the one that has just gone down was in use all the while.
    assert_eq!(steps.renewed_since(before), [1, 2]);
    assert_eq!(steps.force(3, Forced::Down), BackendChange::None);
    assert_eq!(steps.chosen(), [0, 1, 2, 3]);
    assert!(steps.backend().status.up);
    let before = steps.backend().generation;
    steps.force(1, Forced::Up);
    assert_eq!(steps.chosen(), [0, 1, 2, 3]);
    assert_eq!(steps.renewed_since(before), [2], "it is better than before");
    steps.force(3, Forced::Up);
    assert!(!steps.backend().status.fail_open);
    assert_eq!(steps.chosen(), [1, 3]);
    assert_eq!(hopeless(&steps), [true, false, true, false]);
}

#[test]
fn what_an_operator_has_taken_out_is_not_used_and_does_not_count() {
    let mut steps = Steps::new(6, |spec| spec.fail_open_below = 50);
    steps.admin(0, AdminState::FMAINT);
    steps.admin(1, AdminState::FDRAIN);
    steps.take(2, |server, _| server.weight = 0);
    steps.force(3, Forced::Stopping);
    assert!(!steps.backend().status.fail_open, "both others are up");
    assert_eq!(steps.chosen(), [4, 5]);
    steps.force(4, Forced::Down);
    assert_eq!(steps.chosen(), [5], "one of two");
    steps.force(5, Forced::Down);
    assert_eq!(steps.chosen(), [4, 5]);
    assert_eq!(steps.admin(4, AdminState::FMAINT), BackendChange::None);
    assert_eq!(steps.chosen(), [5]);
    assert_eq!(steps.admin(5, AdminState::FMAINT), BackendChange::Down);
    assert!(
        !steps.backend().status.fail_open,
        "there is nobody to believe it of"
    );
    assert!(steps.chosen().is_empty());
}

#[test]
fn a_tier_or_a_backup_that_is_well_is_used_instead() {
    let mut steps = Steps::new(5, |spec| {
        spec.fail_open_below = 60;
        spec.servers[2].priority = 1;
        spec.servers[3].priority = 1;
        spec.servers[4].backup = true;
    });
    for index in 0..2 {
        steps.force(index, Forced::Down);
    }
    assert_eq!(steps.chosen(), [2, 3], "the second tier");
    for index in 2..4 {
        steps.force(index, Forced::Down);
    }
    assert!(!steps.backend().status.fail_open);
    assert_eq!(steps.chosen(), [4], "the backup");
    steps.force(4, Forced::Down);
    assert_eq!(steps.chosen(), [0, 1, 2, 3, 4], "no server is up");
    steps.force(2, Forced::Up);
    assert_eq!(steps.chosen(), [0, 1, 2, 3], "one of two of its tier");
    steps.force(3, Forced::Up);
    assert_eq!(steps.chosen(), [2, 3]);
}

#[test]
fn with_fewer_than_the_least_number_the_backend_is_down() {
    let mut steps = Steps::new(3, |spec| spec.min_servers = 2);
    assert_eq!(steps.force(0, Forced::Down), BackendChange::None);
    assert_eq!(steps.force(1, Forced::Down), BackendChange::Down);
    assert!(steps.chosen().is_empty());
    assert_eq!(steps.backend().usable().active, 1);
    assert_eq!(steps.force(2, Forced::Down), BackendChange::None);
    assert_eq!(steps.force(2, Forced::Up), BackendChange::None);
    let downtime = steps.backend().status.downtime(steps.now);
    assert_eq!(downtime, Duration::from_secs(2));
    assert_eq!(steps.admin(0, AdminState::FMAINT), BackendChange::None);
    assert_eq!(steps.admin(0, AdminState::READY), BackendChange::Up);
    assert_eq!(steps.chosen(), [0, 2]);
}

#[test]
fn servers_that_are_not_believed_to_be_down_count_for_the_least_number() {
    let mut steps = Steps::new(4, |spec| {
        spec.min_servers = 3;
        spec.fail_open_below = 50;
    });
    steps.force(0, Forced::Down);
    assert_eq!(steps.force(1, Forced::Down), BackendChange::Down);
    assert_eq!(steps.force(2, Forced::Down), BackendChange::Up);
    assert_eq!(steps.chosen(), [0, 1, 2, 3]);
    assert_eq!(steps.admin(0, AdminState::FMAINT), BackendChange::None);
    assert_eq!(steps.chosen(), [1, 2, 3]);
    assert_eq!(steps.admin(1, AdminState::FMAINT), BackendChange::Down);
}

#[test]
fn a_reload_changes_the_keys_and_keeps_what_is_known() {
    let mut steps = Steps::new(3, |_| {});
    steps.force(0, Forced::Down);
    steps.force(1, Forced::Down);
    let known = |steps: &Steps| -> Vec<_> {
        let servers = steps.backend().servers.iter();
        servers
            .map(|one| (one.live.uid, one.status.clone()))
            .collect()
    };
    let before = known(&steps);
    let generation = steps.backend().generation;
    steps.reload(|spec| spec.fail_open_below = 34);
    assert_eq!(steps.chosen(), [0, 1, 2]);
    assert_eq!(steps.renewed_since(generation), [1, 2]);
    steps.reload(|spec| spec.servers[2].priority = 1);
    assert_eq!(steps.chosen(), [2], "it is well, and the others are not");
    steps.reload(|spec| spec.min_servers = 2);
    assert!(steps.chosen().is_empty());
    steps.reload(|spec| (spec.min_servers, spec.fail_open_below) = (1, 0));
    assert_eq!(steps.chosen(), [2]);
    steps.force(0, Forced::Up);
    assert_eq!(steps.chosen(), [0]);
    steps.reload(|spec| spec.spill_below = 60);
    assert_eq!(steps.chosen(), [0, 2]);
    steps.force(0, Forced::Down);
    assert_eq!(known(&steps)[1..], before[1..]);
    assert_eq!(known(&steps)[0].0, before[0].0);
}

/// The weight of one that is down decides about its tier too.
#[test]
fn a_weight_that_is_set_moves_the_share_of_its_tier() {
    let mut steps = Steps::new(3, |spec| {
        spec.spill_below = 50;
        spec.servers[2].priority = 1;
    });
    steps.force(0, Forced::Down);
    assert_eq!(steps.chosen(), [1]);
    steps.take(0, |server, _| server.weight = 2);
    assert_eq!(steps.chosen(), [1, 2]);
    steps.take(1, |server, _| server.weight = 2);
    assert_eq!(steps.chosen(), [1]);
}

/// With a slow start the next tier helps until enough of the weight is in force.
#[test]
fn a_slow_start_lets_go_of_the_next_tier_late() {
    let mut steps = Steps::new(2, |spec| {
        spec.spill_below = 50;
        spec.servers[0].slowstart = Duration::from_secs(10);
        spec.servers[1].priority = 1;
    });
    steps.force(0, Forced::Down);
    assert_eq!(steps.chosen(), [1]);
    steps.force(0, Forced::Up);
    let step = |server: &mut Server, now: Instant| {
        let rules = server.rules();
        server.status.step(rules, now);
    };
    let mut seconds = 0;
    while steps.chosen() == [0, 1] {
        steps.take(0, step);
        seconds += 1;
    }
    assert_eq!((seconds, steps.chosen()), (5, vec![0]));
}

/// A session that waits for a slot is served by a tier that comes into use.
#[test]
fn the_queues_follow_the_tiers() {
    let mut steps = Steps::new(2, |spec| {
        for server in &mut spec.servers {
            server.maxconn = 1;
        }
        spec.servers[1].priority = 1;
    });
    steps.snapshot.begin_queues();
    let queue = Arc::clone(&steps.backend().live.queue);
    let token = crate::live::WorkerToken::new(0);
    let live = Arc::clone(&steps.backend().servers[0].live);
    let _held = crate::live::slot::Slot::take(&live, &token);
    let any = crate::live::queue::Wanted::AnyBut(Box::default());
    let (mut ticket, _) = queue.join(any, None).expect("no limit");
    let mut granted = || {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match ticket.poll(&mut context) {
            std::task::Poll::Ready(Some(granted)) => Some(granted.index),
            _ => None,
        }
    };
    assert_eq!(granted(), None);
    let base = Arc::clone(&steps.snapshot);
    steps.force(0, Forced::Down);
    steps.snapshot.update_queues(&base);
    assert_eq!(granted(), Some(1));
}
