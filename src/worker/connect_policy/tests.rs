//! One test for each rule in the module's head, on simulated time.

use super::*;

const LIMITS: Limits = Limits {
    retries: 3,
    budget: Duration::from_secs(5),
    attempt: Duration::from_millis(300),
    by_usual: true,
    queue: Duration::from_secs(2),
    hold: Duration::ZERO,
};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A policy over servers 1 to `servers`, and the instant at which it began.
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

    fn with_retries(servers: u64, retries: u32) -> Self {
        let mut fixture = Self::new(servers);
        let limits = Limits { retries, ..LIMITS };
        fixture.policy = ConnectPolicy::new(limits, fixture.begun);
        fixture
    }

    fn held(servers: u64, hold: u64) -> Self {
        let mut fixture = Self::new(servers);
        let limits = Limits {
            hold: ms(hold),
            ..LIMITS
        };
        fixture.policy = ConnectPolicy::new(limits, fixture.begun);
        fixture
    }

    fn at(&self, offset: u64) -> Instant {
        self.begun + ms(offset)
    }

    /// Steps at `offset` ms; starts the lowest accepted server where the policy asks for one.
    fn go(&mut self, offset: u64) -> (Step, Option<u64>) {
        let now = self.at(offset);
        let step = self.policy.step(now);
        let Step::Start(slot) = step else {
            return (step, None);
        };
        if let Some(server) = (1..=self.servers).find(|&server| self.policy.accepts(server)) {
            self.policy.started(slot, (server, 0), Duration::ZERO, now);
            (step, Some(server))
        } else {
            self.policy.exhausted(self.servers == 0);
            self.go(offset)
        }
    }

    /// From `offset` on all servers refuse, until the session ends. When that is.
    fn refuses_from(&mut self, mut offset: u64) -> u64 {
        loop {
            match self.go(offset) {
                (Step::Start(slot), Some(_)) => self.policy.refused(slot, self.at(offset)),
                (Step::Wait(until), _) => {
                    offset = u64::try_from((until - self.begun).as_millis()).unwrap();
                }
                (end, _) => {
                    assert_eq!(end, Step::GiveUp(ConnectFailure::Refused));
                    return offset;
                }
            }
        }
    }
}

#[test]
fn a_refusal_moves_on_at_once_and_none_is_asked_twice_before_all_were() {
    let mut fixture = Fixture::new(3);
    for server in 1..=3 {
        assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(server)));
        fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    }
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(20)));
}

/// Fault 6: a server that restarts is tried again, with growing pauses, for as long as HAProxy's `retries` and
/// its turn-around of a second last.
#[test]
fn fault_6_a_refusing_server_is_asked_again_until_the_retries_are_over() {
    for retries in 0..=5 {
        let mut fixture = Fixture::with_retries(1, retries);
        let mut offset = 0;
        let mut asked = Vec::new();
        loop {
            match fixture.go(offset) {
                (Step::Start(slot), Some(1)) => {
                    fixture.policy.refused(slot, fixture.at(offset));
                    asked.push(offset);
                }
                (Step::Wait(until), None) => {
                    offset = u64::try_from((until - fixture.begun).as_millis()).unwrap();
                }
                (end, _) => {
                    // Also where the time to connect is over before the retries are.
                    assert_eq!(end, Step::GiveUp(ConnectFailure::Refused));
                    break;
                }
            }
        }
        let last = u64::from(retries) * 1_000;
        let pauses: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.is_sorted(), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= 250), "{pauses:?}");
        assert!(asked.last() <= Some(&last), "{asked:?}");
        assert!(
            last.saturating_sub(250) <= *asked.last().unwrap(),
            "{asked:?}"
        );
    }
}

#[test]
fn no_server_at_all_ends_at_once() {
    let none = Step::GiveUp(ConnectFailure::NoServer);
    assert_eq!(Fixture::new(0).go(0).0, none);
}

/// The time without a usable server is no part of the connect timeout, and has a limit of its own over all of them.
#[test]
fn a_held_session_waits_for_a_usable_server() {
    let mut fixture = Fixture::held(0, 10_000);
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(10_000)));
    assert_eq!(fixture.policy.deadline(), fixture.at(10_000));
    // Nothing that helps has changed.
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(2_000).0, Step::Wait(fixture.at(10_000)));
    fixture.servers = 1;
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(6_000).1, Some(1));
    assert_eq!(fixture.policy.deadline(), fixture.at(11_000));
    // It refuses and is down. 6 s are used up.
    fixture.policy.refused(AttemptSlot::A, fixture.at(6_000));
    fixture.servers = 0;
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(7_000).0, Step::Wait(fixture.at(11_000)));
    let end = Step::GiveUp(ConnectFailure::NoServer);
    assert_eq!(fixture.go(11_000).0, end);
}

/// A hold takes nothing of the retries, wherever it comes: what was refused before it is tried again after it for as long
/// as without it.
#[test]
fn the_time_in_a_hold_is_no_part_of_the_retries() {
    for held in [0, 6_000] {
        let mut fixture = Fixture::held(1, 30_000);
        assert_eq!(fixture.go(0).1, Some(1));
        fixture.policy.refused(AttemptSlot::A, fixture.at(0));
        if held > 0 {
            fixture.servers = 0;
            fixture.policy.servers_changed();
            assert_eq!(fixture.go(10).0, Step::Wait(fixture.at(30_010)));
            fixture.servers = 1;
            fixture.policy.renewed(1);
        }
        let last = fixture.refuses_from(10 + held);
        assert!((2_750 + held..=3_000 + held).contains(&last), "{last}");
        let told = fixture.policy.left_hold(fixture.at(last));
        assert_eq!(told, ms(held));
    }
}

/// The same of a shortage on this machine.
#[test]
fn the_time_in_a_hold_is_no_part_of_a_shortage() {
    let mut fixture = Fixture::held(1, 30_000);
    assert_eq!(fixture.go(0).1, Some(1));
    fixture.policy.local_error(AttemptSlot::A, fixture.at(0));
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(50)));
    fixture.servers = 0;
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(50).0, Step::Wait(fixture.at(30_050)));
    fixture.servers = 1;
    fixture.policy.renewed(1);
    assert_eq!(fixture.go(6_000).1, Some(1));
    fixture
        .policy
        .local_error(AttemptSlot::A, fixture.at(6_000));
    assert_eq!(fixture.go(6_000).0, Step::Wait(fixture.at(6_050)));
}

/// What is told of holds is the sum of those that have ended since the last time.
#[test]
fn the_time_in_holds_is_told_once() {
    let mut fixture = Fixture::held(0, 10_000);
    fixture.go(0);
    fixture.servers = 1;
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(1_000).1, Some(1));
    fixture.policy.withdrawn(AttemptSlot::A);
    fixture.servers = 0;
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(3_000).0, Step::Wait(fixture.at(12_000)));
    assert_eq!(fixture.policy.left_hold(fixture.at(3_500)), ms(1_500));
    assert_eq!(fixture.policy.left_hold(fixture.at(4_000)), ms(0));
}

/// The time in a queue is no part of the retries either, but while it lasts servers are not tried again for longer.
#[test]
fn the_time_in_a_queue_is_no_part_of_the_retries() {
    let mut fixture = Fixture::new(2);
    let limits = Limits {
        queue: ms(60_000),
        ..LIMITS
    };
    fixture.policy = ConnectPolicy::new(limits, fixture.begun);
    assert_eq!(fixture.go(0).1, Some(1));
    fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    // The second is full.
    let (mut offset, mut passes) = (0, 0);
    fixture.policy.queued(fixture.at(0));
    loop {
        match fixture.policy.step(fixture.at(offset)) {
            Step::Wait(until) if until == fixture.at(60_000) => break,
            Step::Wait(until) => {
                offset = u64::try_from((until - fixture.begun).as_millis()).unwrap();
            }
            Step::Start(_) => {
                passes += 1;
                fixture.policy.left_queue(fixture.at(offset));
                fixture.policy.queued(fixture.at(offset));
            }
            end => panic!("{end:?}"),
        }
    }
    assert!((2_500..=3_000).contains(&offset), "{offset}");
    assert!(passes > 10, "{passes}");
    // It gets a slot there, and that one refuses too.
    let now = fixture.at(20_000);
    fixture.policy.left_queue(now);
    fixture
        .policy
        .started(AttemptSlot::A, (2, 0), Duration::ZERO, now);
    fixture.policy.refused(AttemptSlot::A, now);
    let last = fixture.refuses_from(20_000);
    assert!((22_500..=23_000).contains(&last), "{last}");
}

/// Where another server is usable, a session whose retries are used up ends as one that was refused: it is not held, and
/// its client gets no reset.
#[test]
fn a_session_without_retries_is_not_held_while_a_server_is_usable() {
    let mut fixture = Fixture::new(2);
    let limits = Limits {
        retries: 0,
        hold: ms(10_000),
        ..LIMITS
    };
    fixture.policy = ConnectPolicy::new(limits, fixture.begun);
    assert_eq!(fixture.go(0).1, Some(1));
    assert_eq!(fixture.go(300).1, Some(2));
    fixture.policy.refused(AttemptSlot::B, fixture.at(300));
    assert_eq!(fixture.go(310).0, Step::Wait(fixture.at(5_000)));
    fixture.policy.set_hopeless(AttemptSlot::A, true);
    fixture.policy.servers_changed();
    let refused = Step::GiveUp(ConnectFailure::Refused);
    assert_eq!(fixture.go(600).0, refused);
}

/// Fault 5: a session that waits for a server that has refused ends at once when the last usable server goes
/// DOWN.
#[test]
fn fault_5_the_last_usable_server_going_down_ends_the_wait() {
    let mut fixture = Fixture::new(1);
    assert_eq!(fixture.go(0).1, Some(1));
    fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    assert_eq!(fixture.go(5).0, Step::Wait(fixture.at(20)));
    fixture.servers = 0;
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(6).0, Step::GiveUp(ConnectFailure::NoServer));
}

/// Fault 5: an attempt at a server that is DOWN is waited for only while another attempt is in flight.
#[test]
fn fault_5_silent_attempts_at_servers_that_are_down_are_not_waited_for() {
    let mut fixture = Fixture::new(2);
    assert_eq!(fixture.go(0).1, Some(1));
    assert_eq!(fixture.go(300).1, Some(2));
    fixture.policy.set_hopeless(AttemptSlot::A, true);
    fixture.policy.servers_changed();
    assert_eq!(fixture.go(700).0, Step::Wait(fixture.at(5000)));
    fixture.policy.set_hopeless(AttemptSlot::B, true);
    fixture.policy.servers_changed();
    fixture.servers = 0;
    assert_eq!(fixture.go(800).0, Step::GiveUp(ConnectFailure::NoServer));
}

/// Fault 5: a server that has come UP is tried at once, whatever was tried before.
#[test]
fn fault_5_a_server_that_comes_up_is_asked_at_once() {
    for retries in 0..=3 {
        let mut fixture = Fixture::with_retries(2, retries);
        assert_eq!(fixture.go(0).1, Some(1));
        assert_eq!(fixture.go(300).1, Some(2));
        assert_eq!(fixture.go(700).0, Step::Wait(fixture.at(5000)));
        fixture.policy.renewed(1);
        assert_eq!(fixture.go(701), (Step::Start(AttemptSlot::A), Some(1)));
    }
}

/// Fault 1: an attempt that may still be answered is closed only for another server.
#[test]
fn fault_1_a_slow_server_beside_a_dark_one_is_waited_for_with_any_retries() {
    for retries in 0..=5 {
        let mut fixture = Fixture::with_retries(2, retries);
        assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(1)));
        assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
        for offset in [600, 601, 900, 1_300, 2_000, 4_999] {
            assert_eq!(fixture.go(offset).0, Step::Wait(fixture.at(5000)));
            assert!(fixture.policy.is_in_flight(AttemptSlot::A));
            assert!(fixture.policy.is_in_flight(AttemptSlot::B));
        }
    }
}

#[test]
fn retries_bound_the_servers_that_are_tried_in_a_row() {
    let mut fixture = Fixture::new(10);
    for server in 1..=4 {
        assert_eq!(fixture.go(0).1, Some(server));
        fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    }
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(20)));
    assert_eq!(fixture.policy.retries(), 3);
    assert_eq!(fixture.go(20).1, Some(5), "those that were not tried first");
}

#[test]
fn silence_asks_the_next_server_while_the_first_stays_open() {
    let mut fixture = Fixture::new(3);
    assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(1)));
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(300)));
    assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
    // It gets no answer either: it is closed for the third, and the first stays.
    assert_eq!(fixture.go(600), (Step::Start(AttemptSlot::B), Some(3)));
    // All were tried and none has refused: the two in flight may take the whole timeout.
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
fn a_refusal_beside_a_silent_server_is_repeated_after_pauses() {
    let mut fixture = Fixture::new(2);
    assert_eq!(fixture.go(0).1, Some(1));
    assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
    fixture.policy.refused(AttemptSlot::B, fixture.at(301));
    assert_eq!(fixture.go(301).0, Step::Wait(fixture.at(321)));
    let again = (Step::Start(AttemptSlot::B), Some(2));
    assert_eq!(fixture.go(321), again, "the one that is not in flight");
    fixture.policy.refused(AttemptSlot::B, fixture.at(322));
    assert_eq!(fixture.go(322).0, Step::Wait(fixture.at(362)));
    assert_eq!(fixture.go(362), again);
    fixture.policy.refused(AttemptSlot::B, fixture.at(3_300));
    let end = fixture.at(5000);
    assert_eq!(
        fixture.go(3_400).0,
        Step::Wait(end),
        "three turn-arounds are over"
    );
}

/// The next server is asked after four times what a connect usually takes, within bounds.
#[test]
fn an_attempt_has_the_time_that_is_usual_for_its_server() {
    let time = |by_usual, usual| {
        let limits = Limits { by_usual, ..LIMITS };
        limits.answer_within(Duration::from_micros(usual))
    };
    for (usual, soon) in [
        (0, 300),
        (1, 5),
        (1_250, 5),
        (2_000, 8),
        (75_000, 300),
        (90_000, 300),
        (200_000, 600),
    ] {
        assert_eq!(time(true, usual), ms(soon), "{usual} µs");
    }
    for (usual, late) in [(0, 300), (1, 300), (75_000, 300), (200_000, 600)] {
        assert_eq!(time(false, usual), ms(late), "{usual} µs");
    }
    let short = Limits {
        attempt: ms(2),
        ..LIMITS
    };
    assert_eq!(
        short.answer_within(Duration::from_micros(10)),
        ms(2),
        "the file bounds it"
    );
}

#[test]
fn an_attempt_has_at_least_three_times_the_usual_connect_time() {
    let mut fixture = Fixture::new(2);
    let Step::Start(slot) = fixture.policy.step(fixture.begun) else {
        panic!("nothing to start")
    };
    fixture.policy.started(slot, (1, 0), ms(200), fixture.begun);
    assert_eq!(fixture.go(300).0, Step::Wait(fixture.at(600)));
    assert_eq!(fixture.go(600).1, Some(2));
}

/// Fault 5: a shortage costs no retry, and the session waits for its end for a bounded time.
#[test]
fn fault_5_a_shortage_of_our_own_pauses_costs_no_retry_and_is_told() {
    let mut fixture = Fixture::new(2);
    for round in 0..30 {
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
    let told = Step::GiveUp(ConnectFailure::Shortage);
    assert_eq!(fixture.go(1_500).0, told);
}

#[test]
fn the_time_in_queues_has_its_own_limit_and_is_no_part_of_the_connect_timeout() {
    let mut fixture = Fixture::new(1);
    assert_eq!(
        fixture.policy.step(fixture.begun),
        Step::Start(AttemptSlot::A)
    );
    fixture.policy.queued(fixture.begun);
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(2_000)));
    let waited = fixture.policy.left_queue(fixture.at(1_500));
    assert_eq!(waited, ms(1_500));
    assert_eq!(fixture.go(1_500).1, Some(1));
    assert_eq!(fixture.policy.deadline(), fixture.at(6_500));
    fixture.policy.refused(AttemptSlot::A, fixture.at(1_500));
    // It waits once more: half a second is left.
    fixture.policy.queued(fixture.at(1_500));
    assert_eq!(fixture.policy.deadline(), fixture.at(2_000));
    let late = Step::GiveUp(ConnectFailure::QueueTimeout);
    assert_eq!(fixture.go(2_000).0, late);
}

/// What refuses is tried again while the others are full, with growing pauses.
#[test]
fn a_server_that_refuses_is_tried_again_while_the_session_waits() {
    let mut fixture = Fixture::new(1);
    assert_eq!(fixture.go(0).1, Some(1));
    fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    fixture.policy.queued(fixture.at(0));
    assert_eq!(fixture.policy.refused_servers(), [1].into());
    assert_eq!(fixture.go(0).0, Step::Wait(fixture.at(20)));
    let again = fixture.policy.step(fixture.at(20));
    assert_eq!(again, Step::Start(AttemptSlot::A));
    assert!(fixture.policy.refused_servers().is_empty());
    // It is full, too.
    fixture.policy.left_queue(fixture.at(20));
    fixture.policy.queued(fixture.at(20));
    assert_eq!(fixture.go(20).0, Step::Wait(fixture.at(60)));
}

/// The time in queues is over before the connect timeout: the attempt beside the queue goes on alone, and a second one is
/// made later.
#[test]
fn an_attempt_goes_on_when_the_time_in_the_queue_beside_it_is_over() {
    let mut fixture = Fixture::new(2);
    assert_eq!(fixture.go(0).1, Some(1));
    assert_eq!(
        fixture.policy.step(fixture.at(300)),
        Step::Start(AttemptSlot::B)
    );
    fixture.policy.queued(fixture.at(300));
    assert_eq!(fixture.go(300).0, Step::Wait(fixture.at(2_300)));
    assert_eq!(fixture.go(2_300).0, Step::LeaveQueue);
    fixture.policy.left_queue(fixture.at(2_300));
    assert!(!fixture.policy.may_queue());
    assert_eq!(fixture.policy.deadline(), fixture.at(5_000));
    let step = fixture.policy.step(fixture.at(2_300));
    assert_eq!(step, Step::Start(AttemptSlot::B));
    fixture.policy.postponed(fixture.at(2_300));
    assert_eq!(fixture.go(2_300).0, Step::Wait(fixture.at(2_600)));
}

/// A session whose only server has not answered, and has to leave it, tries the one that has come.
#[test]
fn who_is_ordered_away_tries_others_whatever_was_found_before() {
    let mut fixture = Fixture::new(1);
    assert_eq!(fixture.go(0).1, Some(1));
    let step = fixture.policy.step(fixture.at(300));
    assert_eq!(step, Step::Start(AttemptSlot::B));
    fixture.policy.exhausted(false);
    assert!(matches!(fixture.go(300).0, Step::Wait(_)));
    fixture.policy.ordered_away(AttemptSlot::A);
    let step = fixture.policy.step(fixture.at(400));
    assert_eq!(step, Step::Start(AttemptSlot::A));
}

/// A server that has not answered is not waited for either.
#[test]
fn no_slot_is_waited_for_at_a_server_that_is_asked() {
    let mut fixture = Fixture::new(1);
    assert_eq!(fixture.go(0).1, Some(1));
    fixture.policy.queued(fixture.at(300));
    assert_eq!(fixture.policy.refused_servers(), [1].into());
}

/// A second attempt that may not wait is made later: the first may be answered.
#[test]
fn a_second_attempt_that_finds_the_servers_full_is_made_later() {
    let mut fixture = Fixture::new(2);
    assert_eq!(fixture.go(0).1, Some(1));
    let step = fixture.policy.step(fixture.at(300));
    assert_eq!(step, Step::Start(AttemptSlot::B));
    fixture.policy.postponed(fixture.at(300));
    assert_eq!(fixture.go(300).0, Step::Wait(fixture.at(600)));
    assert_eq!(fixture.go(600), (Step::Start(AttemptSlot::B), Some(2)));
}

#[test]
fn without_a_budget_a_failed_attempt_is_the_last() {
    let mut fixture = Fixture::new(3);
    assert_eq!(fixture.go(0), (Step::Start(AttemptSlot::A), Some(1)));
    fixture.policy.refused(AttemptSlot::A, fixture.at(0));
    assert!(fixture.policy.retries_again(fixture.at(0)));
    fixture.policy.retry_denied();
    let end = Step::GiveUp(ConnectFailure::Refused);
    assert_eq!(fixture.go(0).0, end);
    let mut none = Fixture::with_retries(3, 0);
    none.go(0);
    none.policy.refused(AttemptSlot::A, none.at(0));
    assert!(!none.policy.retries_again(none.at(0)), "there is none");
    assert_eq!(none.go(0).0, end, "it is as without retries");
}

/// What is in flight may be answered yet, and a server that comes up is tried.
#[test]
fn without_a_budget_what_is_in_flight_goes_on() {
    let mut fixture = Fixture::new(3);
    fixture.go(0);
    assert_eq!(fixture.go(300), (Step::Start(AttemptSlot::B), Some(2)));
    fixture.policy.refused(AttemptSlot::B, fixture.at(301));
    assert!(fixture.policy.retries_again(fixture.at(301)));
    fixture.policy.retry_denied();
    assert_eq!(fixture.go(301).0, Step::Wait(fixture.at(5_000)));
    assert_eq!(fixture.go(4_000).0, Step::Wait(fixture.at(5_000)));
    fixture.policy.renewed(2);
    assert_eq!(fixture.go(4_001), (Step::Start(AttemptSlot::B), Some(2)));
}
