//! What a turn says and does when checks are not believed, and when too few servers are usable.

use super::*;
use crate::config::model::{self, OnError};
use crate::live::{CheckReport, CheckStatus, WorkerToken};
use crate::state::test_config::{backend, config, origin, server};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A backend `b` whose servers end their sessions when they go down.
struct Turns {
    snapshot: Arc<Snapshot>,
    servers: ServerIndex,
    token: WorkerToken,
    begun: Instant,
}

impl Turns {
    fn new(count: usize, change: impl FnOnce(&mut model::Backend)) -> Self {
        let servers = (1..=count).map(|number| model::Server {
            shutdown_sessions_on_down: true,
            ..server(&format!("s{number}"))
        });
        let mut spec = backend("b", servers.collect());
        change(&mut spec);
        let begun = Instant::now();
        let snapshot = Snapshot::initial(&config(vec![spec]), &origin(begun));
        Self {
            begun,
            servers: ServerIndex::of(&snapshot, &CancellationToken::new()),
            snapshot: Arc::new(snapshot),
            token: WorkerToken::new(0),
        }
    }

    fn uids(&self) -> Vec<u64> {
        let backend = self.snapshot.backends[0].as_ref().expect("it stays");
        backend.servers.iter().map(|one| one.live.uid).collect()
    }

    /// One turn in which the health of these servers is forced. The lines about the backend, and the positions of the
    /// servers whose sessions end.
    fn force(&mut self, of: &[usize], to: Forced) -> (Vec<String>, Vec<usize>) {
        let uids = self.uids();
        let base = Arc::clone(&self.snapshot);
        let mut batch = Batch::new(base, &self.servers, &self.token, Instant::now());
        for index in of {
            assert!(batch.force(uids[*index], to, Interface::Cli));
        }
        let (next, outcome) = batch.finish();
        self.snapshot = Arc::new(next.expect("a change"));
        let lines = outcome.lines.into_iter().map(|line| line.text);
        let lines = lines.filter(|text| !text.contains("Server b/"));
        let place = |uid: &u64| uids.iter().position(|one| one == uid).expect("one of them");
        (lines.collect(), outcome.down.iter().map(place).collect())
    }

    fn times_down(&self) -> u64 {
        let backend = self.snapshot.backends[0].as_ref().expect("it stays");
        backend.live.traffic.sum(|traffic| &traffic.chkdown)
    }
}

#[test]
fn checks_that_are_not_believed_end_no_session() {
    let mut turns = Turns::new(4, |spec| spec.fail_open_below = 50);
    assert_eq!(turns.force(&[0], Forced::Down), (vec![], vec![0]));
    let begins = "backend b fails open: 1 of 4 servers are up, less than 50 %. Checks are not \
                  believed, all are used.";
    let (lines, ended) = turns.force(&[1, 2], Forced::Down);
    assert_eq!((lines, ended), (vec![begins.to_owned()], vec![]));
    assert_eq!(turns.force(&[3], Forced::Down), (vec![], vec![]));
    assert_eq!(turns.force(&[0], Forced::Up), (vec![], vec![]));
    // Sessions that have begun meanwhile work, and a server that has left maintenance may be down again at once.
    let ends = "backend b fails open no longer: 2 of 4 servers are up.";
    let (lines, ended) = turns.force(&[3], Forced::Up);
    assert_eq!((lines, ended), (vec![ends.to_owned()], vec![]));
    assert_eq!(turns.times_down(), 0);
    // All at once: it never had none.
    let mut turns = Turns::new(3, |spec| spec.fail_open_below = 1);
    let (lines, ended) = turns.force(&[0, 1, 2], Forced::Down);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((ended, turns.times_down()), (vec![], 0));
}

#[test]
fn too_few_servers_are_told_of() {
    let mut turns = Turns::new(3, |spec| spec.min_servers = 2);
    let (lines, ended) = turns.force(&[0, 1], Forced::Down);
    let down = "backend b has no server available! 1 usable, min-servers 2.";
    assert_eq!((lines, ended), (vec![down.to_owned()], vec![0, 1]));
    assert_eq!(turns.times_down(), 1);
    let up = "backend b is UP again: 2 servers usable, min-servers 2.";
    assert_eq!(turns.force(&[1], Forced::Up), (vec![up.to_owned()], vec![]));
}

/// Servers that go down again and again.
impl Turns {
    /// One turn `after` the beginning. The lines about servers that are held down.
    fn turn(&mut self, after: Duration, act: impl FnOnce(&mut Batch<'_>)) -> Vec<String> {
        let (base, now) = (Arc::clone(&self.snapshot), self.begun + after);
        let mut batch = Batch::new(base, &self.servers, &self.token, now);
        act(&mut batch);
        let (next, outcome) = batch.finish();
        self.snapshot = next.map_or_else(|| Arc::clone(&self.snapshot), Arc::new);
        let lines = outcome.lines.into_iter().map(|line| line.text);
        lines.filter(|text| text.contains("held down")).collect()
    }

    /// The same in which the checks of a server have passed or failed so often.
    fn check(&mut self, index: usize, passed: bool, times: u32, after: Duration) -> Vec<String> {
        let uid = self.uids()[index];
        let report = CheckReport {
            status: if passed {
                CheckStatus::L4Ok
            } else {
                CheckStatus::L4Con
            },
            ..CheckReport::default()
        };
        self.turn(after, |batch| {
            for _ in 0..times {
                batch.checked(uid, &report);
            }
        })
    }

    fn labels(&self) -> Vec<String> {
        let backend = self.snapshot.backends[0].as_ref().expect("it stays");
        let label = |server: &Arc<Server>| server.status_label().into_owned();
        backend.servers.iter().map(label).collect()
    }

    /// A server goes down for the second time, ten seconds after the beginning. The lines of it.
    fn flap(&mut self, index: usize) -> Vec<String> {
        assert!(self.check(index, false, 3, secs(1)).is_empty());
        assert!(self.check(index, true, 2, secs(2)).is_empty());
        self.check(index, false, 3, secs(10))
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn hold_down(spec: &mut model::Backend) {
    let keys = Arc::new(model::HoldDown {
        base: secs(20),
        max: secs(60),
        window: secs(60),
    });
    for server in &mut spec.servers {
        server.hold_down = Some(Arc::clone(&keys));
    }
}

#[test]
fn a_server_that_flaps_is_held_down_and_the_log_says_so() {
    let mut turns = Turns::new(2, hold_down);
    let line = "Server b/s1 is held down for 20s: it has gone down 2 times.";
    assert_eq!(turns.flap(0), [line]);
    assert!(turns.check(0, true, 5, secs(29)).is_empty());
    assert_eq!(turns.labels(), ["DOWN 1/2", "UP 1/3"]);
    assert!(turns.check(0, true, 1, secs(30)).is_empty());
    assert_eq!(turns.labels(), ["UP", "UP 1/3"]);
}

/// `state ready` does it, also of a server that is drained.
#[test]
fn an_operator_ends_that_a_server_is_held_down() {
    for drained in [false, true] {
        let mut turns = Turns::new(2, hold_down);
        turns.flap(0);
        let uid = turns.uids()[0];
        let orders = [AdminRequest::Drain, AdminRequest::Ready];
        let mut lines = Vec::new();
        for order in &orders[usize::from(!drained)..] {
            lines = turns.turn(secs(10), |batch| assert!(batch.set_admin(uid, *order)));
        }
        let line = "Server b/s1 is held down no longer, changed from CLI.";
        assert_eq!(lines, [line]);
        turns.check(0, true, 2, secs(11));
        assert_eq!(turns.labels(), ["UP", "UP 1/3"]);
        assert!(turns.check(0, false, 3, secs(12)).is_empty(), "forgotten");
    }
}

/// A server is not held down while the others are not enough, or all are used whatever their checks say.
#[test]
fn the_last_server_is_not_held_down() {
    let few: fn(&mut model::Backend) = |spec| spec.min_servers = 2;
    let open: fn(&mut model::Backend) = |spec| spec.fail_open_below = 60;
    for keys in [few, open] {
        let mut turns = Turns::new(2, |spec| {
            hold_down(spec);
            keys(spec);
        });
        assert_eq!(turns.flap(0).len(), 1);
        let line = "Server b/s1 is held down no longer: the other servers are not enough.";
        assert_eq!(turns.check(0, true, 1, secs(11)), [line]);
        assert!(turns.check(0, true, 1, secs(12)).is_empty());
        assert_eq!(turns.labels(), ["UP", "UP 1/3"]);
        let lines = turns.check(0, false, 3, secs(13));
        let line = "Server b/s1 is held down for 40s: it has gone down 3 times.";
        assert_eq!(lines, [line], "it is not forgotten");
    }
}

/// Those that are held down count for `max-ejected`, beside those that `observe` takes down.
#[test]
fn no_more_servers_are_held_down_than_may_be_out() {
    let mut turns = Turns::new(4, |spec| {
        hold_down(spec);
        spec.max_ejected = 50;
        for server in &mut spec.servers {
            server.observe = true;
            server.on_error = OnError::MarkDown;
        }
    });
    assert_eq!(turns.flap(0).len(), 1);
    assert_eq!(turns.flap(1).len(), 1);
    assert!(turns.flap(2).is_empty());
    turns.check(2, true, 2, secs(11));
    let uid = turns.uids()[3];
    turns.turn(secs(12), |batch| batch.observed(uid, 10));
    assert_eq!(turns.labels(), ["DOWN", "DOWN", "UP", "UP 1/3"]);
}
