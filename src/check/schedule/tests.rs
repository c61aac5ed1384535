//! The arithmetic of starts, on simulated time.

use super::*;
use crate::state::test_config::check;
use crate::state::{AdminState, Forced};
use proptest::prelude::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn first_checks_are_spread_over_200_ms_or_2000_a_second() {
    for total in [1, 3, 12, 500] {
        let starts: Vec<Duration> = (0..total).map(|i| first_start(i, total)).collect();
        assert_eq!(starts[0], Duration::ZERO);
        assert!(starts.is_sorted() && *starts.last().unwrap() < SPREAD);
    }
    assert_eq!(first_start(6, 12), ms(100));
    assert_eq!(first_start(10_000, 10_001), Duration::from_secs(5));
}

#[test]
fn checks_end_with_reset_beyond_a_thousand_a_second() {
    let checks = vec![check(); 2_000];
    assert!(!ends_with_reset(checks.iter()));
    assert!(ends_with_reset(checks.iter().chain([&check()])));
}

#[test]
fn each_state_has_its_interval() {
    let now = Instant::now();
    let rules = Rules::DEFAULT;
    let check = Check {
        fast_interval: ms(500),
        down_interval: ms(5_000),
        ..check()
    };
    let mut status = ServerStatus::initial(AdminState::READY, rules, now);
    let interval = |status: &ServerStatus| IntervalKind::of(status, rules).interval(&check);
    assert_eq!(interval(&status), Some(ms(500)), "not sure yet");
    status.check_passed(rules, now);
    assert_eq!(interval(&status), Some(ms(2_000)));
    status.check_failed(rules, now);
    assert_eq!(interval(&status), Some(ms(500)), "going down");
    status.force(Forced::Down, rules, now);
    assert_eq!(interval(&status), Some(ms(5_000)));
    status.check_passed(rules, now);
    assert_eq!(interval(&status), Some(ms(500)), "coming up");
    status.set_admin(AdminState::FMAINT, rules, now);
    assert_eq!(interval(&status), None);
    status.set_admin(AdminState::FDRAIN, rules, now);
    assert_eq!(
        interval(&status),
        Some(ms(500)),
        "drained servers are checked"
    );
}

/// [`super::super::task::CheckHandle::passed_again`] relies on this.
#[test]
fn at_the_normal_interval_a_passed_check_changes_nothing() {
    let now = Instant::now();
    let rules = Rules::DEFAULT;
    let (mut normal, mut held) = (0, 0);
    for admin in 0..0x40 {
        for oper in [
            OperState::Stopped,
            OperState::Starting,
            OperState::Running,
            OperState::Stopping,
        ] {
            for health in 0..=rules.full() {
                let before = ServerStatus {
                    oper,
                    health,
                    ..ServerStatus::initial(AdminState(admin), rules, now)
                };
                let mut after = before.clone();
                after.check_passed(rules, now);
                match IntervalKind::of(&before, rules) {
                    IntervalKind::Normal => {
                        normal += 1;
                        assert_eq!(after, before);
                    }
                    IntervalKind::Held => {
                        held += 1;
                        assert_ne!(after, before);
                    }
                    IntervalKind::Fast | IntervalKind::Down | IntervalKind::Paused => {}
                }
            }
        }
    }
    assert!(normal > 0 && held > 0);
}

#[test]
fn a_changed_interval_counts_from_the_last_start() {
    let first = Instant::now();
    let mut grid = Grid::new(first, first, 1);
    grid.start(grid.due(ms(2_000), first));
    let soon = first + ms(10);
    let fast = grid.due(ms(500), soon).at - first;
    assert!(fast >= ms(500) && fast < ms(525), "{fast:?}");
    let late = grid.due(ms(500), first + ms(1_700));
    assert_eq!(late.at - first, ms(1_700), "its time has passed already");
    grid.start(late);
    let next = grid.due(ms(500), first + ms(1_700)).at - first;
    assert!(
        next >= ms(2_000) && next < ms(2_025),
        "back on the grid: {next:?}"
    );
}

#[test]
fn servers_that_began_apart_start_together() {
    let origin = Instant::now();
    let mut wakes = std::collections::BTreeSet::new();
    for server in 0..1_000 {
        let first = origin + Duration::from_micros(200 * server);
        let mut grid = Grid::new(origin, first, server);
        grid.start(grid.due(ms(2_000), first));
        wakes.insert(grid.due(ms(2_000), first).at);
    }
    // 200 ms of points and 100 ms of jitter.
    assert!(wakes.len() <= 31, "{}", wakes.len());
}

proptest! {
    #[test]
    fn starts_stay_on_the_grid_however_long_checks_take(
        seed: u64, took in prop::collection::vec(0u64..4_000, 1..60), interval in 10u64..3_000,
    ) {
        let first = Instant::now();
        let interval = ms(interval);
        let mut grid = Grid::new(first, first, seed);
        let mut now = first;
        let mut last = None;
        for took in took {
            let due = grid.due(interval, now);
            prop_assert_eq!(due, grid.due(interval, now), "asking again changes nothing");
            prop_assert!(due.at >= now, "never before the check before has ended");
            let off = (due.at - first).as_nanos() % interval.as_nanos();
            let at_once = due.at == now;
            prop_assert!(at_once || off <= (interval / JITTER_PART).as_nanos(), "late by {off} ns");
            if let Some((at, took)) = last {
                let wait = due.at.duration_since(at).max(took);
                let slack = interval / JITTER_PART;
                prop_assert!(wait <= took.max(interval) + slack, "no point is left out: {wait:?}");
            }
            last = Some((due.at, ms(took)));
            grid.start(due);
            now = due.at + ms(took);
        }
    }
}
