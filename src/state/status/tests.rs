//! The documented sequences, and the counter against the same rules as a table.

use super::*;
use proptest::prelude::*;

const RULES: Rules = Rules::DEFAULT;

fn fresh(now: Instant) -> ServerStatus {
    ServerStatus::initial(AdminState::READY, RULES, now)
}

fn label(status: &ServerStatus) -> String {
    status.label(Some(RULES)).into_owned()
}

/// Applies `checks` (`+` passed, `-` failed) and gives the label after each.
fn labels(status: &mut ServerStatus, checks: &str, now: Instant) -> Vec<String> {
    checks
        .chars()
        .map(|check| {
            match check {
                '+' => status.check_passed(RULES, now),
                _ => status.check_failed(RULES, now),
            };
            label(status)
        })
        .collect()
}

#[test]
fn the_documented_walk_down_and_up() {
    let now = Instant::now();
    let mut status = fresh(now);
    assert_eq!(
        labels(&mut status, "+---++", now),
        ["UP", "UP 2/3", "UP 1/3", "DOWN", "DOWN 1/2", "UP"]
    );
}

#[test]
fn at_the_start_one_failure_is_enough() {
    let now = Instant::now();
    let mut status = fresh(now);
    assert_eq!(label(&status), "UP 1/3", "below full until the first pass");
    assert_eq!(labels(&mut status, "-", now), ["DOWN"]);
}

#[test]
fn one_pass_fills_the_counter_and_one_failure_on_the_way_up_falls_back() {
    let now = Instant::now();
    let mut status = fresh(now);
    assert_eq!(
        labels(&mut status, "+--+", now),
        ["UP", "UP 2/3", "UP 1/3", "UP"]
    );
    assert_eq!(labels(&mut status, "---+-", now)[3..], ["DOWN 1/2", "DOWN"]);
}

#[test]
fn a_check_returns_whether_the_counter_changed() {
    let now = Instant::now();
    let mut status = fresh(now);
    assert!(status.check_passed(RULES, now));
    assert!(!status.check_passed(RULES, now), "full");
    let moved: Vec<bool> = (0..4).map(|_| status.check_failed(RULES, now)).collect();
    assert_eq!(
        moved,
        [true, true, true, false],
        "chkfail stands while down"
    );
}

/// Gives the label after each time, of a server with a full counter.
fn observed(on_error: OnError, times: usize) -> Vec<String> {
    let now = Instant::now();
    let mut status = fresh(now);
    status.check_passed(RULES, now);
    let mut once = || {
        let moved = status.observed(on_error, RULES, now);
        format!("{} {moved}", label(&status))
    };
    (0..times).map(|_| once()).collect()
}

#[test]
fn failed_connects_are_what_on_error_says() {
    assert_eq!(observed(OnError::FastInter, 1), ["UP false"]);
    let steps = ["UP 2/3 true", "UP 1/3 true", "DOWN true", "DOWN false"];
    assert_eq!(observed(OnError::FailCheck, 4), steps);
    assert_eq!(observed(OnError::SuddenDeath, 3), steps[1..]);
    assert_eq!(
        observed(OnError::MarkDown, 2),
        ["DOWN true", "DOWN true"],
        "as in HAProxy it counts as a failed check where it is down too"
    );
}

#[test]
fn a_server_is_ejected_until_a_check_or_an_operator_decides() {
    let now = Instant::now();
    let mut ejected = fresh(now);
    ejected.observed(OnError::FailCheck, RULES, now);
    assert!(ejected.ejected);
    ejected.observed(OnError::MarkDown, RULES, now);
    assert!(ejected.ejected, "errors of sessions that were there before");
    ejected.check_passed(RULES, now);
    assert!(ejected.ejected, "on its way up");
    let after = |change: fn(&mut ServerStatus, Instant)| {
        let mut status = ejected.clone();
        change(&mut status, now);
        status.ejected
    };
    let passed = |it: &mut ServerStatus, now| assert!(it.check_passed(RULES, now));
    assert!(!after(passed), "UP");
    let failed = |it: &mut ServerStatus, now| assert!(it.check_failed(RULES, now));
    assert!(!after(failed));
    assert!(!after(|it, now| it.force(Forced::Down, RULES, now)));
    assert!(!after(|it, now| it.set_admin(
        AdminState::FMAINT,
        RULES,
        now
    )));
    let mut down = fresh(now);
    down.check_failed(RULES, now);
    down.observed(OnError::MarkDown, RULES, now);
    assert!(!down.ejected, "a check had taken it down");
}

#[test]
fn failed_connects_change_nothing_in_maintenance() {
    let now = Instant::now();
    let mut status = ServerStatus::initial(AdminState::FMAINT, RULES, now);
    let before = status.clone();
    assert!(!status.observed(OnError::MarkDown, RULES, now));
    assert_eq!(status, before);
}

#[test]
fn rise_and_fall_of_one() {
    let now = Instant::now();
    let rules = Rules {
        rise: 1,
        fall: 1,
        ..RULES
    };
    let mut status = ServerStatus::initial(AdminState::READY, rules, now);
    assert_eq!(status.label(Some(rules)), "UP");
    status.check_failed(rules, now);
    assert_eq!(status.label(Some(rules)), "DOWN");
    status.check_passed(rules, now);
    assert_eq!(status.label(Some(rules)), "UP");
}

#[test]
fn maintenance_stops_hides_and_starts_over() {
    let now = Instant::now();
    let mut status = fresh(now);
    status.check_passed(RULES, now);
    status.set_admin(AdminState::FMAINT, RULES, now);
    assert_eq!((label(&status).as_str(), status.health), ("MAINT", 0));
    assert!(!status.is_usable(1));
    assert!(!status.check_passed(RULES, now), "checks are paused");
    assert_eq!(status.oper, OperState::Stopped);
    status.set_admin(AdminState::FMAINT.with(AdminState::RMAINT), RULES, now);
    assert_eq!(label(&status), "MAINT (resolution)");
    status.set_admin(AdminState::FMAINT, RULES, now);
    assert_eq!(
        label(&status),
        "MAINT",
        "a name that resolves lifts no order"
    );
    status.set_admin(AdminState::READY, RULES, now);
    assert_eq!(label(&status), "UP 1/3");
    assert!(status.is_usable(1));
}

#[test]
fn a_disabled_server_is_enabled_by_clearing_fmaint() {
    let now = Instant::now();
    let disabled = AdminState::CMAINT.with(AdminState::FMAINT);
    let mut status = ServerStatus::initial(disabled, RULES, now);
    assert_eq!(label(&status), "MAINT");
    status.set_admin(disabled.without(AdminState::FMAINT), RULES, now);
    assert!(status.is_usable(1));
}

#[test]
fn drain_takes_nothing_new_and_goes_on_being_checked() {
    let now = Instant::now();
    let mut status = fresh(now);
    status.check_passed(RULES, now);
    status.set_admin(AdminState::FDRAIN, RULES, now);
    assert_eq!(label(&status), "DRAIN");
    assert!(!status.is_usable(1));
    assert_eq!(
        labels(&mut status, "---", now),
        ["DRAIN 2/3", "DRAIN 1/3", "DOWN"]
    );
}

#[test]
fn the_labels_of_unchecked_and_forced_servers() {
    let now = Instant::now();
    let mut status = fresh(now);
    assert_eq!(status.label(None), "no check");
    status.set_admin(AdminState::FDRAIN, RULES, now);
    assert_eq!(status.label(None), "DRAIN");
    status.set_admin(AdminState::READY, RULES, now);
    status.force(Forced::Stopping, RULES, now);
    assert_eq!(
        (status.label(None).as_ref(), label(&status).as_str()),
        ("NOLB", "NOLB")
    );
    assert!(!status.is_usable(1));
    assert_eq!(labels(&mut status, "-", now), ["NOLB 2/3"]);
    assert_eq!(
        labels(&mut status, "+", now),
        ["UP"],
        "a passed check lifts it"
    );
    status.force(Forced::Down, RULES, now);
    assert_eq!(
        (status.label(None).as_ref(), label(&status).as_str()),
        ("DOWN", "DOWN")
    );
    status.force(Forced::Up, RULES, now);
    assert_eq!(label(&status), "UP");
}

#[test]
fn a_conditional_pass_takes_new_sessions_away_and_counts_as_a_pass() {
    let now = Instant::now();
    let mut status = fresh(now);
    assert!(status.check_passed_conditionally(RULES, now));
    assert_eq!(
        (label(&status), status.oper),
        ("NOLB".into(), OperState::Stopping)
    );
    assert!(!status.is_usable(1));
    assert!(
        !status.check_passed_conditionally(RULES, now),
        "the counter is full"
    );
    status.check_failed(RULES, now);
    assert_eq!(label(&status), "NOLB 2/3");
    status.check_passed(RULES, now);
    assert_eq!(
        (label(&status), status.oper),
        ("UP".into(), OperState::Running)
    );
    assert_eq!(labels(&mut status, "---", now).last().unwrap(), "DOWN");
    status.check_passed_conditionally(RULES, now);
    assert_eq!(label(&status), "DOWN 1/2", "it has to come up first");
    status.check_passed_conditionally(RULES, now);
    assert_eq!(label(&status), "NOLB");
    status.set_admin(AdminState::FMAINT, RULES, now);
    assert!(!status.check_passed_conditionally(RULES, now));
    assert_eq!(label(&status), "MAINT");
}

#[test]
fn weight_zero_is_shown_up_but_not_used() {
    let now = Instant::now();
    let mut status = fresh(now);
    status.check_passed(RULES, now);
    assert_eq!(label(&status), "UP");
    assert!(!status.is_usable(0));
}

#[test]
fn downtime_adds_up_and_runs_on_while_down() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut status = fresh(start);
    status.check_failed(RULES, at(10));
    assert_eq!(status.since, at(10));
    assert_eq!(status.downtime(at(15)), Duration::from_secs(5));
    status.check_passed(RULES, at(20));
    assert_eq!(status.downtime(at(20)), Duration::from_secs(10), "DOWN 1/2");
    status.check_passed(RULES, at(25));
    assert_eq!(status.since, at(25));
    assert_eq!(status.downtime(at(99)), Duration::from_secs(15));
    status.set_admin(AdminState::FMAINT, RULES, at(100));
    assert_eq!(
        status.downtime(at(101)),
        Duration::from_secs(16),
        "maintenance is down"
    );
}

/// The documented rules again, as a table over states instead of a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Model {
    /// Up; this many more failures take it down.
    Up {
        failures_left: u32,
    },
    /// Down, after this many passes in a row.
    Down {
        passes: u32,
    },
    /// Up by an operator's command, but closed to new connections.
    Closed {
        failures_left: u32,
    },
    Maint,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Pass,
    Fail,
    Set(u8),
    Force(Forced),
}

#[derive(Debug)]
struct Plain {
    state: Model,
    admin: u8,
    down_ms: u64,
}

impl Plain {
    fn step(&mut self, event: Event, rules: Rules) {
        let Rules { rise, fall, .. } = rules;
        match event {
            Event::Set(flags) => {
                let maint = flags & 0b10_0011 != 0;
                self.admin = flags;
                if maint {
                    self.state = Model::Maint;
                } else if self.state == Model::Maint {
                    self.state = Model::Up { failures_left: 1 };
                }
            }
            Event::Force(_) if self.state == Model::Maint => {}
            Event::Force(Forced::Up) => {
                self.state = Model::Up {
                    failures_left: fall,
                }
            }
            Event::Force(Forced::Stopping) => {
                self.state = Model::Closed {
                    failures_left: fall,
                };
            }
            Event::Force(Forced::Down) => self.state = Model::Down { passes: 0 },
            Event::Pass => match &mut self.state {
                Model::Maint => {}
                Model::Down { passes } if *passes + 1 < rise => *passes += 1,
                _ => {
                    self.state = Model::Up {
                        failures_left: fall,
                    }
                }
            },
            Event::Fail => match &mut self.state {
                Model::Maint => {}
                Model::Down { passes } => *passes = 0,
                Model::Up { failures_left } | Model::Closed { failures_left } => {
                    *failures_left -= 1;
                    if *failures_left == 0 {
                        self.state = Model::Down { passes: 0 };
                    }
                }
            },
        }
    }

    fn label(&self, rules: Rules) -> String {
        let Rules { rise, fall, .. } = rules;
        let with = |word: &str, left: u32| {
            if left == fall {
                word.to_owned()
            } else {
                format!("{word} {left}/{fall}")
            }
        };
        match self.state {
            Model::Maint if self.admin & 0x20 != 0 => "MAINT (resolution)".into(),
            Model::Maint => "MAINT".into(),
            Model::Down { passes: 0 } => "DOWN".into(),
            Model::Down { passes } => format!("DOWN {passes}/{rise}"),
            Model::Closed { failures_left } => with("NOLB", failures_left),
            Model::Up { failures_left } if self.admin & 0x18 != 0 => with("DRAIN", failures_left),
            Model::Up { failures_left } => with("UP", failures_left),
        }
    }

    fn is_usable(&self) -> bool {
        matches!(self.state, Model::Up { .. }) && self.admin & 0x18 == 0
    }
}

fn events() -> impl Strategy<Value = Vec<(Event, u64)>> {
    let event = prop_oneof![
        6 => Just(Event::Pass),
        6 => Just(Event::Fail),
        2 => (0u8..0x40).prop_map(Event::Set),
        2 => Just(Event::Set(0)),
        1 => prop_oneof![Just(Forced::Up), Just(Forced::Stopping), Just(Forced::Down)]
            .prop_map(Event::Force),
    ];
    prop::collection::vec((event, 0u64..5_000), 1..80)
}

proptest! {
    #[test]
    fn the_counter_and_the_plain_rules_agree(
        events in events(), rise in 1u32..6, fall in 1u32..6, slowstart in 0u32..10,
    ) {
        let rules = Rules { rise, fall, slowstart, ..RULES };
        let start = Instant::now();
        let mut now = start;
        let mut status = ServerStatus::initial(AdminState::READY, rules, start);
        let mut plain = Plain {
            state: Model::Up { failures_left: 1 }, admin: 0, down_ms: 0,
        };
        for (event, wait) in events {
            if matches!(plain.state, Model::Down { .. } | Model::Maint) {
                plain.down_ms += wait;
            }
            now += Duration::from_millis(wait);
            status.step(rules, now);
            match event {
                Event::Pass => { status.check_passed(rules, now); }
                Event::Fail => { status.check_failed(rules, now); }
                Event::Set(flags) => status.set_admin(AdminState(flags), rules, now),
                Event::Force(to) => status.force(to, rules, now),
            }
            plain.step(event, rules);
            prop_assert_eq!(status.label(Some(rules)).into_owned(), plain.label(rules));
            prop_assert_eq!(status.is_usable(1), plain.is_usable());
            prop_assert!(status.health <= rules.full());
            prop_assert!((1..=SHARES).contains(&status.shares(rules)));
            prop_assert!(status.oper == OperState::Starting || status.shares(rules) == SHARES);
            prop_assert_eq!(status.downtime(now), Duration::from_millis(plain.down_ms));
        }
    }
}

const SLOW: Rules = Rules {
    slowstart: 20,
    ..RULES
};

fn second(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

/// A server that has just come up after an outage of a minute.
fn starting(now: Instant) -> ServerStatus {
    let before = now.checked_sub(Duration::from_secs(60)).unwrap();
    let mut status = ServerStatus::initial(AdminState::FMAINT, SLOW, before);
    status.set_admin(AdminState::READY, SLOW, now);
    status
}

#[test]
fn init_state_says_how_a_server_begins_and_comes_out_of_maintenance() {
    let now = Instant::now();
    let cases = [
        (InitState::None, OperState::Starting, 2),
        (InitState::FullyUp, OperState::Running, 4),
        (InitState::Up, OperState::Running, 2),
        (InitState::Down, OperState::Stopped, 1),
        (InitState::FullyDown, OperState::Stopped, 0),
    ];
    for (init, oper, health) in cases {
        let rules = Rules {
            init,
            slowstart_at_start: true,
            ..SLOW
        };
        let state = |status: &ServerStatus| (status.oper, status.health);
        let mut status = ServerStatus::initial(AdminState::READY, rules, now);
        assert_eq!(state(&status), (oper, health), "{init:?}");
        status.set_admin(AdminState::FMAINT, rules, now);
        assert_eq!(state(&status), (OperState::Stopped, 0), "{init:?}");
        status.set_admin(AdminState::READY, rules, now);
        assert_eq!(state(&status), (oper, health), "{init:?}");
        status.force(Forced::Down, rules, now);
        status.start_over(rules, now);
        assert_eq!(state(&status), (oper, health), "{init:?}");
        let disabled = ServerStatus::initial(AdminState::FMAINT, rules, now);
        assert_eq!(state(&disabled), (OperState::Stopped, 0), "{init:?}");
    }
}

/// The steps that HAProxy 3.5 shows with `slowstart 20s`.
#[test]
fn a_slow_start_goes_in_haproxys_steps() {
    let now = Instant::now();
    let mut status = starting(now);
    assert_eq!((status.oper, status.since), (OperState::Starting, now));
    let mut steps = Vec::new();
    let mut percents = Vec::new();
    for seconds in 0..20 {
        status.step(SLOW, second(now, seconds) + Duration::from_millis(999));
        assert!(status.is_usable(1));
        steps.push(status.shares(SLOW));
        percents.push(status.maxconn_percent(SLOW));
    }
    let expected = [
        1, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 9, 10, 11, 12, 13, 13, 14, 15, 16,
    ];
    assert_eq!(steps, expected);
    assert_eq!(percents, (0..20).map(|it| 5 * it).collect::<Vec<_>>());
    let end = second(now, 20);
    status.step(SLOW, end);
    assert_eq!((status.oper, status.since), (OperState::Running, end));
    assert_eq!(
        (status.shares(SLOW), status.maxconn_percent(SLOW)),
        (16, 100)
    );
    assert_eq!(status.downtime(end), Duration::from_secs(60));
}

#[test]
fn a_slow_start_begins_whenever_a_server_comes_up_and_not_at_the_start() {
    let now = Instant::now();
    let oper = |status: &ServerStatus| status.oper;
    assert_eq!(
        oper(&ServerStatus::initial(AdminState::READY, SLOW, now)),
        OperState::Running
    );
    let asked = Rules {
        slowstart_at_start: true,
        ..SLOW
    };
    let status = ServerStatus::initial(AdminState::READY, asked, now);
    assert_eq!(oper(&status), OperState::Starting);

    let mut status = ServerStatus::initial(AdminState::READY, SLOW, now);
    status.check_failed(SLOW, now);
    assert_eq!(oper(&status), OperState::Stopped);
    status.check_passed(SLOW, now);
    assert_eq!(oper(&status), OperState::Stopped);
    status.check_passed(SLOW, now);
    assert_eq!(
        (oper(&status), &*label(&status)),
        (OperState::Starting, "UP")
    );

    // It goes on whatever says that the server is up.
    let later = second(now, 10);
    status.step(SLOW, later);
    status.force(Forced::Up, SLOW, later);
    status.check_passed(SLOW, later);
    status.start_over(SLOW, later);
    assert_eq!((oper(&status), status.since), (OperState::Starting, now));
    assert_eq!(status.shares(SLOW), 9);
    // Drain does not touch it.
    status.set_admin(AdminState::FDRAIN, SLOW, later);
    status.set_admin(AdminState::READY, SLOW, later);
    assert_eq!(status.shares(SLOW), 9);
    // It begins anew after another outage, and after the server was stopping.
    for forced in [Forced::Down, Forced::Stopping] {
        status.force(forced, SLOW, later);
        assert_eq!(status.shares(SLOW), 16, "no slow start");
        status.force(Forced::Up, SLOW, second(later, 30));
        assert_eq!(
            (oper(&status), status.shares(SLOW)),
            (OperState::Starting, 1)
        );
    }
}

#[test]
fn another_time_of_a_slow_start_applies_to_the_one_under_way() {
    let now = Instant::now();
    let later = second(now, 10);
    for (slowstart, expected) in [(40, Some(5)), (11, Some(15)), (10, None), (0, None)] {
        let rules = Rules { slowstart, ..SLOW };
        let mut status = starting(now);
        status.step(SLOW, later);
        status.step(rules, later);
        let starting = status.oper == OperState::Starting;
        let shares = starting.then(|| status.shares(rules));
        assert_eq!(shares, expected, "{slowstart}");
    }
}

#[test]
fn the_time_of_a_slow_start_is_rounded_up_to_seconds() {
    for (millis, seconds) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2), (60_000, 60)] {
        let spec = model::Server {
            slowstart: Duration::from_millis(millis),
            ..model::Server::default()
        };
        assert_eq!(Rules::of(&spec).slowstart, seconds);
    }
}
