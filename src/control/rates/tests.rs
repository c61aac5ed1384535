//! [`super::RateMaxima`] against a plain count of everything, and what an idle process is spared.

use super::*;
use crate::config::model::Config;
use crate::live::slot::{BackendSlot, ConnLimits, ConnSlot};
use crate::live::{GlobalLive, WorkerToken};
use crate::state::test_config::{backend, config, frontend, server};
use crate::state::{Backend, CarryOver, Origin};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

const LIMITS: ConnLimits = ConnLimits {
    global: 1000,
    frontend: None,
};

/// Two backends of two servers each behind one frontend.
fn snapshot() -> Snapshot {
    let servers = || vec![server("s1"), server("s2")];
    let spec = Config {
        frontends: vec![frontend("fe", 2)],
        ..config(vec![backend("b1", servers()), backend("b2", servers())])
    };
    let now = Instant::now();
    let origin = Origin {
        global: Arc::new(GlobalLive::new(now, 3)),
        maxconn: 1000,
        shards: 3,
        now,
    };
    Snapshot::initial(&spec, &origin)
}

fn backend_of(snapshot: &Snapshot, index: usize) -> &Arc<Backend> {
    snapshot.backends[index].as_ref().unwrap()
}

fn server_max(snapshot: &Snapshot, backend: usize, server: usize) -> u32 {
    let live = &backend_of(snapshot, backend).servers[server].live;
    live.rate_max.load(Relaxed)
}

/// A session as a worker counts it: first on the process, the frontend and the backend.
fn begin(
    snapshot: &Snapshot,
    backend: usize,
    token: &WorkerToken,
    second: u32,
) -> (ConnSlot<FrontendLive>, BackendSlot) {
    let frontend = &snapshot.frontends[0].as_ref().unwrap().live;
    let place = ConnSlot::take(&snapshot.global, Arc::clone(frontend), LIMITS, token).unwrap();
    snapshot.global.traffic.mine(token).conn_tot.add(1);
    frontend.traffic.mine(token).rate.count(second);
    frontend.traffic.mine(token).conn_rate.count(second);
    let live = &backend_of(snapshot, backend).live;
    live.traffic.mine(token).stot.add(1);
    live.traffic.mine(token).rate.count(second);
    (place, BackendSlot::take(live, token))
}

/// The server has answered.
fn reach(snapshot: &Snapshot, place: (usize, usize), token: &WorkerToken, second: u32) {
    let server = &backend_of(snapshot, place.0).servers[place.1];
    server.live.traffic.mine(token).rate.count(second);
}

#[test]
fn peaks_are_found_second_by_second() {
    let snapshot = snapshot();
    for (second, sessions) in [(0, 3), (1, 5), (2, 4)] {
        for token in [&WorkerToken::new(0), &WorkerToken::new(1)] {
            for _ in 0..sessions {
                drop(begin(&snapshot, 0, token, second));
                reach(&snapshot, (0, 0), token, second);
            }
        }
    }
    let mut maxima = RateMaxima::default();
    maxima.update(&snapshot, 1_010);
    assert_eq!(
        server_max(&snapshot, 0, 0),
        6,
        "the running second is not over"
    );
    maxima.update(&snapshot, 3_400);
    assert_eq!(
        server_max(&snapshot, 0, 0),
        10,
        "none is missed when a tick comes late"
    );
    let frontend = &snapshot.frontends[0].as_ref().unwrap().live;
    assert_eq!(frontend.conn_rate_max.load(Relaxed), 10);
}

/// A server's count that no session stands behind, which cannot be, shows whether it is read.
#[test]
fn what_is_idle_is_not_read() {
    let snapshot = snapshot();
    let token = WorkerToken::new(0);
    let mut maxima = RateMaxima::default();
    let mut second = 0;
    let mut read = |session: bool| {
        second += 1;
        let held = session.then(|| begin(&snapshot, 0, &token, second));
        for backend in [0, 1] {
            reach(&snapshot, (backend, 0), &token, second);
        }
        drop(held);
        maxima.update(&snapshot, u64::from(second + 1) * 1000);
        [0, 1].map(|backend| {
            let live = &backend_of(&snapshot, backend).servers[0].live;
            live.rate_max.swap(0, Relaxed) == 1
        })
    };
    // The first look is at two seconds at once, as one that comes late.
    for _ in 0..LINGER {
        assert_eq!(read(false), [true, true]);
    }
    assert_eq!(read(false), [false, false], "nobody is there");
    assert_eq!(read(true), [true, false], "one backend has a session");
    assert_eq!(read(false), [true, false]);
    assert_eq!(read(false), [true, false]);
    assert_eq!(read(false), [false, false], "nobody is there any more");
}

/// Fault 23: a position in the table is given to another backend, whose count may be the same.
#[test]
fn fault_23_a_backend_in_the_position_of_a_removed_one_is_read() {
    let before = snapshot();
    let token = WorkerToken::new(0);
    let mut maxima = RateMaxima::default();
    drop(begin(&before, 0, &token, 0));
    for second in 1..10 {
        maxima.update(&before, second * 1000);
    }
    let spec = Config {
        frontends: vec![frontend("fe", 2)],
        ..config(vec![
            backend("b3", vec![server("s1")]),
            backend("b2", vec![server("s1"), server("s2")]),
        ])
    };
    let carry = CarryOver {
        maxconn: 1000,
        shards: 3,
        addresses: &HashMap::new(),
        now: Instant::now(),
    };
    let after = before.next_snapshot(&spec, &carry);
    assert_eq!(&*backend_of(&after, 0).spec.name, "b3");
    drop(begin(&after, 0, &token, 9));
    maxima.update(&after, 10_000);
    let live = &backend_of(&after, 0).live;
    assert_eq!(live.rate_max.load(Relaxed), 1);
}

/// What happens at a moment of a [`Session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Begin,
    Reached,
    End,
}

/// Moments in ms, and what it reaches.
#[derive(Debug, Clone, Copy)]
struct Session {
    begin: u64,
    wait: u64,
    life: u64,
    place: (usize, usize),
}

impl Session {
    fn steps(self) -> [(u64, Step); 3] {
        let reached = self.begin + self.wait;
        [
            (self.begin, Step::Begin),
            (reached, Step::Reached),
            (reached + self.life, Step::End),
        ]
    }
}

fn a_session() -> impl Strategy<Value = Session> {
    // Many at the edges of seconds.
    let begin = (
        0..20_u64,
        prop_oneof![0..20_u64, 980..1000_u64, 0..1000_u64],
    );
    let wait = prop_oneof![0..30_u64, 900..1100_u64, 0..5000_u64];
    let life = prop_oneof![0..30_u64, 0..3000_u64];
    (begin, wait, life, (0..2_usize, 0..2_usize)).prop_map(|((second, past), wait, life, place)| {
        Session {
            begin: second * 1000 + past,
            wait,
            life,
            place,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Few sessions with long pauses, looks that come late by up to two seconds.
    #[test]
    fn no_peak_is_missed(
        sessions in prop::collection::vec(a_session(), 1..8),
        lateness in prop::collection::vec(prop_oneof![0..20_u64, 0..20_u64, 0..2000_u64], 40),
    ) {
        let snapshot = snapshot();
        let token = WorkerToken::new(0);
        let mut steps: Vec<(u64, Step, usize)> = (0..).zip(&sessions)
            .flat_map(|(index, session)| session.steps().map(|(at, step)| (at, step, index)))
            .collect();
        steps.sort_unstable();
        let mut steps = steps.into_iter().peekable();
        let mut held = HashMap::new();
        let mut expected: HashMap<((usize, usize), u64), u32> = HashMap::new();
        let mut maxima = RateMaxima::default();
        let mut now = 0;
        for late in lateness {
            now = (now / 1000 + 1) * 1000 + late;
            while let Some((at, step, index)) = steps.next_if(|(at, ..)| *at <= now) {
                let second = u32::try_from(at / 1000).unwrap();
                let place = sessions[index].place;
                match step {
                    Step::Begin => {
                        held.insert(index, begin(&snapshot, place.0, &token, second));
                    }
                    Step::Reached => {
                        reach(&snapshot, place, &token, second);
                        *expected.entry((place, at / 1000)).or_default() += 1;
                    }
                    Step::End => drop(held.remove(&index)),
                }
            }
            maxima.update(&snapshot, now);
        }
        prop_assert!(steps.next().is_none(), "the looks go on until all is over");
        for place in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let most = expected.iter().filter(|((at, _), _)| *at == place);
            let most = most.map(|(_, events)| *events).max().unwrap_or(0);
            prop_assert_eq!(server_max(&snapshot, place.0, place.1), most, "{:?}", place);
        }
    }
}
