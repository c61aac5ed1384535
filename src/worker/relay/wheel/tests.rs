//! The wheel against a list that is searched.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Act {
    Schedule(u32, u64),
    Cancel(u32),
    Advance(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0u32..40, prop_oneof![0u64..10, 0u64..500, 0u64..300_000, 0u64..40_000_000])
            .prop_map(|(key, ahead)| Act::Schedule(key, ahead)),
        1 => (0u32..40).prop_map(Act::Cancel),
        3 => prop_oneof![0u64..4, 0u64..200, 0u64..20_000].prop_map(Act::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn fires_the_same_as_a_list_that_is_searched(acts in prop::collection::vec(act(), 1..60)) {
        let mut wheel = Wheel::new();
        let mut list: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = 0;
        for act in acts {
            match act {
                Act::Schedule(key, ahead) => {
                    wheel.schedule(key, now + ahead);
                    list.insert(key, (now + ahead).max(now + 1));
                }
                Act::Cancel(key) => {
                    wheel.cancel(key);
                    list.remove(&key);
                }
                Act::Advance(by) => {
                    now += by;
                    let mut fired = Vec::new();
                    wheel.advance(now, &mut fired);
                    fired.sort_unstable();
                    let due: Vec<u32> =
                        list.iter().filter(|&(_, tick)| *tick <= now).map(|(key, _)| *key).collect();
                    list.retain(|_, tick| *tick > now);
                    prop_assert_eq!(fired, due);
                }
            }
            for (key, tick) in &list {
                prop_assert_eq!(wheel.tick_of(*key), Some(*tick));
            }
        }
    }
}

#[test]
fn a_tick_beyond_the_last_level_waits_for_its_time() {
    let mut wheel = Wheel::new();
    let far = span(LEVELS) + 70;
    wheel.schedule(0, far);
    let mut fired = Vec::new();
    wheel.advance(far - 1, &mut fired);
    assert!(fired.is_empty());
    wheel.advance(far, &mut fired);
    assert_eq!(fired, [0]);
}

/// Fault 22: a month without a key that fires was walked through tick by tick.
#[test]
fn fault_22_a_month_is_passed_over_at_once() {
    const MONTH: u64 = 30 * 24 * 3600 * 10;
    let mut wheel = Wheel::new();
    let mut fired = Vec::new();
    wheel.schedule(1, 400 * MONTH);
    let begun = std::time::Instant::now();
    for month in 1..400 {
        wheel.advance(month * MONTH, &mut fired);
    }
    assert!(fired.is_empty());
    // Tick by tick this takes a minute.
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    wheel.advance(400 * MONTH, &mut fired);
    assert_eq!(fired, [1]);
}

#[test]
fn fault_23_memory_of_many_keys_is_freed() {
    let mut wheel = Wheel::new();
    for key in 0..10_000 {
        wheel.schedule(key, 100);
    }
    for key in 100..10_000 {
        wheel.cancel(key);
    }
    wheel.truncate(100);
    assert!(wheel.links.capacity() < 1000);
    let mut fired = Vec::new();
    wheel.schedule(5000, 100);
    wheel.advance(100, &mut fired);
    assert_eq!(fired.len(), 101);
}
