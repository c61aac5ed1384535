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
struct Bench {
    plan: Plan,
    begun: Instant,
    servers: u64,
}

impl Bench {
    fn new(servers: u64) -> Self {
        let begun = Instant::now();
        Self {
            plan: Plan::new(LIMITS, begun),
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
        let step = self.plan.step(now);
        let Step::Start(lane) = step else {
            return (step, None);
        };
        if let Some(server) = (1..=self.servers).find(|&server| self.plan.accepts(server)) {
            self.plan.started(lane, server, Duration::ZERO, now);
            (step, Some(server))
        } else {
            self.plan.exhausted();
            self.go(offset)
        }
    }
}

#[test]
fn a_refusal_moves_on_at_once_and_all_refused_ends_at_once() {
    let mut bench = Bench::new(3);
    for server in 1..=3 {
        assert_eq!(bench.go(0), (Step::Start(Lane::A), Some(server)));
        bench.plan.refused(Lane::A, bench.at(0));
    }
    assert_eq!(bench.go(0).0, Step::GiveUp(Defeat::Refused));
}

#[test]
fn no_server_at_all_ends_at_once() {
    assert_eq!(Bench::new(0).go(0).0, Step::GiveUp(Defeat::NoServer));
}

#[test]
fn retries_bound_the_attempts() {
    let mut bench = Bench::new(10);
    for server in 1..=4 {
        assert_eq!(bench.go(0).1, Some(server));
        bench.plan.refused(Lane::A, bench.at(0));
    }
    assert_eq!(bench.go(0).0, Step::GiveUp(Defeat::Refused));
    assert_eq!(bench.plan.retries(), 3);
}

#[test]
fn silence_asks_the_next_server_while_the_first_stays_open() {
    let mut bench = Bench::new(3);
    assert_eq!(bench.go(0), (Step::Start(Lane::A), Some(1)));
    assert_eq!(bench.go(0).0, Step::Wait(bench.at(300)));
    assert_eq!(bench.go(300), (Step::Start(Lane::B), Some(2)));
    // Silent as well: it makes room for the third, the first stays.
    assert_eq!(bench.go(600), (Step::Start(Lane::B), Some(3)));
    // All were tried, none has refused: the two in flight may take the whole budget.
    assert_eq!(bench.go(900).0, Step::Wait(bench.at(5000)));
    assert_eq!(bench.go(5000).0, Step::GiveUp(Defeat::Timeout));
}

#[test]
fn the_oldest_stays_even_when_it_sits_in_the_second_lane() {
    let mut bench = Bench::new(4);
    assert_eq!(bench.go(0), (Step::Start(Lane::A), Some(1)));
    assert_eq!(bench.go(300), (Step::Start(Lane::B), Some(2)));
    bench.plan.refused(Lane::A, bench.at(310));
    assert_eq!(bench.go(310).0, Step::Wait(bench.at(600)));
    assert_eq!(bench.go(600), (Step::Start(Lane::A), Some(3)));
    assert_eq!(
        bench.go(900),
        (Step::Start(Lane::A), Some(4)),
        "server 2 in lane B is the oldest"
    );
}

#[test]
fn a_refusal_beside_a_silent_server_moves_on_at_once_and_may_be_repeated_after_a_turn_around() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.go(0).1, Some(1));
    assert_eq!(bench.go(300), (Step::Start(Lane::B), Some(2)));
    bench.plan.refused(Lane::B, bench.at(301));
    assert_eq!(
        bench.go(301).0,
        Step::Wait(bench.at(1301)),
        "both were tried"
    );
    assert_eq!(
        bench.go(1301),
        (Step::Start(Lane::B), Some(2)),
        "the one that is not in flight"
    );
    bench.plan.refused(Lane::B, bench.at(1302));
    assert_eq!(bench.go(2302), (Step::Start(Lane::B), Some(2)));
    bench.plan.refused(Lane::B, bench.at(2303));
    assert_eq!(
        bench.go(2303).0,
        Step::Wait(bench.at(5000)),
        "three retries are spent"
    );
}

#[test]
fn patience_is_never_below_three_times_the_usual() {
    let mut bench = Bench::new(2);
    let Step::Start(lane) = bench.plan.step(bench.begun) else {
        panic!("nothing to start")
    };
    bench.plan.started(lane, 1, ms(200), bench.begun);
    assert_eq!(bench.go(300).0, Step::Wait(bench.at(600)));
    assert_eq!(bench.go(600).1, Some(2));
}

#[test]
fn a_shortage_of_our_own_pauses_and_costs_no_retry() {
    let mut bench = Bench::new(2);
    for round in 0..20 {
        let offset = round * 50;
        assert_eq!(
            bench.go(offset),
            (Step::Start(Lane::A), Some(1)),
            "round {round}"
        );
        bench.plan.fell_short(Lane::A, bench.at(offset));
        assert_eq!(
            bench.go(offset).1,
            Some(2),
            "ports may be left towards the other"
        );
        bench.plan.fell_short(Lane::A, bench.at(offset));
        assert_eq!(bench.go(offset).0, Step::Wait(bench.at(offset + 50)));
    }
    assert_eq!(bench.plan.retries(), 0);
    assert_eq!(bench.go(5000).0, Step::GiveUp(Defeat::Shortage));
}

#[test]
fn a_retry_on_the_same_server_is_told_from_a_redispatch() {
    let mut bench = Bench::new(1);
    let now = bench.begun;
    let Step::Start(lane) = bench.plan.step(now) else {
        panic!("nothing to start")
    };
    assert!(!bench.plan.started(lane, 1, Duration::ZERO, now));
    assert!(bench.plan.started(Lane::B, 1, Duration::ZERO, now));
}
