//! The rules of the module's head, one test each, on a clock of their own.

use super::*;

const LIMITS: Limits = Limits {
    retries: 3,
    budget: Duration::from_secs(5),
    attempt: Duration::from_millis(300),
};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A plan over servers 1 to `servers`, and the instant it began.
struct Fixture {
    policy: ConnectPolicy,
    begun: Instant,
    servers: u64,
}

impl Fixture {
    fn new(servers: u64) -> Self {
        let begun = Instant::now();
        Self {
            policy: ConnectPolicy::new(LIMITS, begun),
            begun,
            servers,
        }
    }

    fn at(&self, offset: u64) -> Instant {
        self.begun + ms(offset)
    }

    /// Steps at `offset` ms; starts the lowest accepted server where the plan asks for one.
    fn go(&mut self, offset: u64) -> (Step, Option<u64>) {
        let now = self.at(offset);
        let step = self.policy.step(now);
        let Step::Start(slot) = step else {
            return (step, None);
        };
        if let Some(server) = (1..=self.servers).find(|&server| self.policy.accepts(server)) {
            self.policy.started(slot, server, Duration::ZERO, now);
            (step, Some(server))
        } else {
            self.policy.exhausted();
            self.go(offset)
        }
    }
}

#[test]
fn a_refusal_moves_on_at_once_and_all_refused_ends_at_once() {
    let mut fixture = Fixture::new(3);
    for server in 1..=3 {
        assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(server)));
        fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    }
    assert_eq!(fixture.go(0).0, Step::GiveUp(ConnectFailure::Refused));
}

#[test]
fn no_server_at_all_ends_at_once() {
    assert_eq!(
        Fixture::new(0).go(0).0,
        Step::GiveUp(ConnectFailure::NoServer)
    );
}

#[test]
fn retries_bound_the_attempts() {
    let mut fixture = Fixture::new(10);
    for server in 1..=4 {
        assert_eq!(fixture.go(0).1, Some(server));
        fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    }
    assert_eq!(fixture.go(0).0, Step::GiveUp(ConnectFailure::Refused));
    assert_eq!(fixture.policy.retries(), 3);
}

#[test]
fn silence_asks_the_next_server_while_the_first_stays_open() {
    let mut fixture = Fixture::new(3);
    assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(1)));
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(300)));
    assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
    // Silent as well: it makes room for the third, the first stays.
    assert_eq!(fixture.go(600), (Step::Start(AttemptSlot::B), Some(3)));
    // All were tried, none has refused: the two in flight may take the whole budget.
    assert_eq!(fixture.go(900).0, Step::Wait(fixture.at(5000)));
    assert_eq!(fixture.go(5000).0, Step::GiveUp(ConnectFailure::Timeout));
}

#[test]
fn the_oldest_stays_even_when_it_sits_in_the_second_slot() {
    let mut fixture = Fixture::new(4);
    assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(1)));
    assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
    fixture.policy.refused(AttemptSlot::A, fixture.at(310));
    assert_eq!(fixture.go(310).0, Step::Wait(fixture.at(600)));
    assert_eq!(fixture.go(600), (Step::Start(AttemptSlot::A), Some(3)));
    assert_eq!(
        fixture.go(900),
        (Step::Start(AttemptSlot::A), Some(4)),
        "server 2 in slot B is the oldest"
    );
}

#[test]
fn a_refusal_beside_a_silent_server_moves_on_at_once_and_may_be_repeated_after_a_turn_around() {
    let mut fixture = Fixture::new(2);
    assert_eq!(fixture.go(0).1, Some(1));
    assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
    fixture.policy.refused(AttemptSlot::B, fixture.at(301));
    assert_eq!(
        fixture.go(301).0,
        Step::Wait(fixture.at(1301)),
        "both were tried"
    );
    assert_eq!(
        fixture.go(1301),
        (Step::Start(AttemptSlot::B), Some(2)),
        "the one that is not in flight"
    );
    fixture.policy.refused(AttemptSlot::B, fixture.at(1302));
    assert_eq!(fixture.go(2302), (Step::Start(AttemptSlot::B), Some(2)));
    fixture.policy.refused(AttemptSlot::B, fixture.at(2303));
    assert_eq!(
        fixture.go(2303).0,
        Step::Wait(fixture.at(5000)),
        "three retries are spent"
    );
}

#[test]
fn patience_is_never_below_three_times_the_usual() {
    let mut fixture = Fixture::new(2);
    let Step::Start(slot) = fixture.policy.step(fixture.begun) else {
        panic!("nothing to start")
    };
    fixture.policy.started(slot, 1, ms(200), fixture.begun);
    assert_eq!(fixture.go(300).0, Step::Wait(fixture.at(600)));
    assert_eq!(fixture.go(600).1, Some(2));
}

#[test]
fn a_shortage_of_our_own_pauses_and_costs_no_retry() {
    let mut fixture = Fixture::new(2);
    for round in 0..20 {
        let offset = round * 50;
        assert_eq!(
            fixture.go(offset),
            (Step::Start(AttemptSlot::A), Some(1)),
            "round {round}"
        );
        fixture
            .policy
            .local_error(AttemptSlot::A, fixture.at(offset));
        assert_eq!(
            fixture.go(offset).1,
            Some(2),
            "ports may be left towards the other"
        );
        fixture
            .policy
            .local_error(AttemptSlot::A, fixture.at(offset));
        assert_eq!(fixture.go(offset).0, Step::Wait(fixture.at(offset + 50)));
    }
    assert_eq!(fixture.policy.retries(), 0);
    assert_eq!(fixture.go(5000).0, Step::GiveUp(ConnectFailure::Shortage));
}

#[test]
fn a_retry_on_the_same_server_is_told_from_a_redispatch() {
    let mut fixture = Fixture::new(1);
    let now = fixture.begun;
    let Step::Start(slot) = fixture.policy.step(now) else {
        panic!("nothing to start")
    };
    assert!(!fixture.policy.started(slot, 1, Duration::ZERO, now));
    assert!(
        fixture
            .policy
            .started(AttemptSlot::B, 1, Duration::ZERO, now)
    );
}
