//! Properties of the rotation: fairness, smoothness, stability.

mod clients;
mod ewma;
mod hash_on;
mod leastconn;
mod maglev;
mod source;
mod steps;
mod tiers;

use super::map::Map;
use super::rotation::{Rotation, SLOTS_MAX};
use super::*;
use crate::config::model::{HashFunction, HashKey};
use proptest::prelude::*;

const TIERS: Tiers = Tiers {
    allbackups: false,
    spill_below: 0,
    min_servers: 1,
};

const ROUND_ROBIN: Choice = Choice {
    balance: Balance::RoundRobin,
    hash_type: HashType {
        consistent: false,
        function: HashFunction::Sdbm,
        avalanche: false,
    },
    hash_on: HashOn::SOURCE,
    hash_balance_factor: 0,
    preserve_affinity: PreserveAffinity::Always,
    table_size: 65_537,
    draws: 2,
    tiers: TIERS,
};

fn picker(candidates: &[Candidate], choice: Choice) -> Picker {
    let live = |_: &Candidate| Arc::new(ServerLive::new(&Arc::default(), 1));
    Picker::new(candidates, choice, |_| LoadOrder::of(&[], |_| 0), live)
}

fn now() -> Instant {
    Instant::now()
}

fn idle(_: u32) -> u32 {
    0
}

fn choice(allbackups: bool) -> Choice {
    Choice {
        tiers: Tiers {
            allbackups,
            ..TIERS
        },
        ..ROUND_ROBIN
    }
}

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    (0..)
        .zip(weights)
        .map(|(index, &weight)| Candidate {
            index,
            id: index + 1,
            key: hash::of_server(HashKey::Id, index + 1, None),
            name: super::maglev::of_name(&format!("app-{index}")),
            weight,
            eweight: 16 * weight,
            written: weight,
            priority: 0,
            backup: false,
            usable: true,
            down: false,
        })
        .collect()
}

fn at(position: usize) -> PickInput {
    PickInput {
        cursor: RotationCursor(position),
        hash: None,
        sessions: 0,
        began: Tick::default(),
    }
}

fn picks(picker: &Picker, cursor: &AtomicUsize, count: usize) -> Vec<u32> {
    (0..count)
        .map(|_| {
            picker
                .pick(&PickInput::take(cursor), idle, |_| true)
                .expect("there is a server")
        })
        .collect()
}

#[test]
fn three_one_one_is_never_three_in_a_row() {
    assert_eq!(
        Rotation::new(&candidates(&[3, 1, 1])).slots(),
        [0, 1, 0, 2, 0]
    );
}

#[test]
fn equal_weights_rotate_in_order_and_divide_by_their_common_divisor() {
    assert_eq!(
        Rotation::new(&candidates(&[100, 100, 100])).slots(),
        [0, 1, 2]
    );
}

#[test]
fn three_hundred_turns_over_three_equal_servers_are_a_hundred_each() {
    let picker = picker(&candidates(&[1, 1, 1]), ROUND_ROBIN);
    let cursor = AtomicUsize::new(usize::MAX - 100);
    let mut counts = [0; 3];
    for index in picks(&picker, &cursor, 102) {
        counts[index as usize] += 1;
    }
    assert!(counts.iter().all(|n| (33..=35).contains(n)), "{counts:?}");
}

#[test]
fn backups_serve_only_when_no_active_server_can() {
    let mut all = candidates(&[1, 1, 1, 1]);
    all[2].backup = true;
    all[3].backup = true;
    let cursor = AtomicUsize::new(0);
    let served = |all: &[Candidate], allbackups| {
        let mut seen = picks(&picker(all, choice(allbackups)), &cursor, 20);
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(served(&all, false), [0, 1]);
    all[0].usable = false;
    assert_eq!(served(&all, false), [1]);
    all[1].weight = 0;
    assert_eq!(served(&all, false), [2], "the first backup alone");
    assert_eq!(served(&all, true), [2, 3]);
    all[2].usable = false;
    assert_eq!(served(&all, false), [3]);
    all[3].usable = false;
    assert!(picker(&all, choice(true)).is_empty());
    assert!(
        picker(&all, choice(true))
            .pick(&at(5), idle, |_| true)
            .is_none()
    );
}

#[test]
fn a_refused_server_is_skipped_without_moving_the_rotation() {
    let picker = picker(&candidates(&[1, 1, 1]), ROUND_ROBIN);
    let turn = &at(1);
    assert_eq!(picker.pick(turn, idle, |_| true), Some(1));
    assert_eq!(picker.pick(turn, idle, |index| index != 1), Some(2));
    assert_eq!(picker.pick(turn, idle, |index| index == 0), Some(0));
    assert_eq!(picker.pick(turn, idle, |_| false), None);
}

#[test]
fn huge_sums_are_scaled_and_each_server_keeps_a_slot() {
    let weights: Vec<u32> = (0..1000).map(|i| 1 + (i * 7919) % 256).collect();
    let rotation = Rotation::new(&candidates(&weights));
    assert!(rotation.slots().len() <= SLOTS_MAX + weights.len());
    let mut seen = vec![false; weights.len()];
    for &index in rotation.slots() {
        seen[index as usize] = true;
    }
    assert!(seen.into_iter().all(|seen| seen));
}

#[test]
fn the_first_by_number_is_chosen_until_it_is_gone() {
    let mut all = candidates(&[1, 1, 1]);
    all[0].id = 9;
    let first = Choice {
        balance: Balance::First,
        ..ROUND_ROBIN
    };
    let cursor = AtomicUsize::new(0);
    assert_eq!(picks(&picker(&all, first), &cursor, 3), [1, 1, 1]);
    all[1].usable = false;
    assert_eq!(picks(&picker(&all, first), &cursor, 2), [2, 2]);
    let left = picker(&all, first);
    assert_eq!(left.pick(&at(0), idle, |it| it != 2), Some(0));
}

fn random(draws: u32) -> Choice {
    Choice {
        balance: Balance::Random,
        draws,
        ..ROUND_ROBIN
    }
}

#[test]
fn one_draw_follows_the_weights() {
    let weights = [10, 30, 60];
    let one = picker(&candidates(&weights), random(1));
    let mut counts = [0_u32; 3];
    for index in picks(&one, &AtomicUsize::new(0), 30_000) {
        counts[index as usize] += 1;
    }
    // The places on the ring are random numbers themselves: 160 of them have a standard deviation of 8 %.
    for (count, weight) in counts.iter().zip(weights) {
        let due = weight * 300;
        assert!((due * 7 / 10..due * 13 / 10).contains(count), "{counts:?}");
    }
}

#[test]
fn of_those_that_are_drawn_the_least_busy_for_its_weight_is_taken() {
    let all = picker(&candidates(&[1, 2, 2]), random(100));
    let busy = |index: u32| [5, 8, 9][index as usize];
    let chosen = (0..200).filter(|_| all.pick(&at(0), busy, |_| true) == Some(1));
    assert_eq!(
        chosen.count(),
        200,
        "8 for 2 is less than 5 for 1 and 9 for 2"
    );
    let other = all.pick(&at(0), busy, |index| index != 1);
    assert_eq!(other, Some(2), "9 for 2 is less than 5 for 1");
    assert_eq!(all.pick(&at(0), busy, |_| false), None);
}

/// docs/differences.md says what HAProxy does.
#[test]
fn of_two_with_the_same_load_the_one_that_is_drawn_last_is_taken() {
    let all = candidates(&[1, 1]);
    let leads_to = |number| Random::new(&all, 1).pick(|| number, idle, |_| true);
    let mut numbers = (0..u32::MAX).step_by(1 << 20);
    let mut number = |index| numbers.find(|number| leads_to(*number) == Some(index));
    let [one, other] = [0, 1].map(|index| number(index).expect("each has places"));
    let two = Random::new(&all, 2);
    for (order, last) in [([one, other], 1), ([other, one], 0)] {
        let mut numbers = order.into_iter();
        let drawn = two.pick(|| numbers.next().expect("two draws"), |_| 7, |_| true);
        assert_eq!(drawn, Some(last));
    }
}

/// A weight that an upgrade brings along may be below the divisor of the written ones.
#[test]
fn a_small_weight_has_a_slot_in_the_map() {
    let mut all = candidates(&[10, 20]);
    all[0].weight = 3;
    let map = Map::new(&all, &all);
    let slots = |index| map.slots().iter().filter(|it| **it == index).count();
    assert_eq!([slots(0), slots(1)], [1, 2]);
}

#[test]
fn two_draws_keep_the_busiest_near_the_others() {
    let most = |draws| {
        let all = picker(&candidates(&[1; 50]), random(draws));
        let mut loads = [0_u32; 50];
        for _ in 0..5_000 {
            let chosen = all.pick(&at(0), |it| loads[it as usize], |_| true);
            loads[chosen.expect("a server") as usize] += 1;
        }
        loads.into_iter().max()
    };
    // With one draw it is above 150 in every one of 1,000 runs.
    let (one, two) = (most(1), most(2));
    assert!(two < Some(130) && one > Some(130), "{one:?} {two:?}");
}

proptest! {
    #[test]
    fn each_server_gets_exactly_its_weight_in_a_rotation(
        weights in prop::collection::vec(1u32..=256, 1..12)
    ) {
        let rotation = Rotation::new(&candidates(&weights));
        let sum: u32 = weights.iter().sum();
        let unit = sum as usize / rotation.slots().len();
        prop_assert_eq!(unit * rotation.slots().len(), sum as usize);
        for (index, weight) in (0..).zip(weights) {
            let turns = rotation.slots().iter().filter(|&&slot| slot == index).count();
            prop_assert_eq!(turns * unit, weight as usize);
        }
    }

    #[test]
    fn no_server_is_ever_a_whole_turn_from_its_share(
        weights in prop::collection::vec(1u32..=64, 1..12)
    ) {
        let rotation = Rotation::new(&candidates(&weights));
        let sum: u32 = weights.iter().sum();
        let mut counts = vec![0u32; weights.len()];
        for (turn, &index) in (1..).zip(rotation.slots()) {
            counts[index as usize] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let share = f64::from(turn) * f64::from(*weight) / f64::from(sum);
                prop_assert!((f64::from(*count) - share).abs() <= 1.0, "turn {}", turn);
            }
        }
    }

    #[test]
    fn servers_that_come_and_go_do_not_change_the_shares_of_others(
        weights in prop::collection::vec(1u32..=16, 2..8), gone in 0usize..8, offset in 0usize..1000
    ) {
        let mut all = candidates(&weights);
        let cursor = AtomicUsize::new(offset);
        let before = picker(&all, ROUND_ROBIN);
        picks(&before, &cursor, offset % 97);
        let gone = gone % all.len();
        all[gone].usable = false;
        let during = picker(&all, ROUND_ROBIN);
        let left: u32 = weights.iter().sum::<u32>() - weights[gone];
        let served = picks(&during, &cursor, left as usize * 3);
        for (index, weight) in (0..).zip(&weights) {
            let turns = served.iter().filter(|&&slot| slot == index).count();
            let due = if index as usize == gone { 0 } else { *weight as usize * 3 };
            prop_assert_eq!(turns, due);
        }
    }
}

/// During a slow start a server has some sixteenths of its weight, with the algorithms that follow weights in HAProxy.
#[test]
fn a_slow_start_takes_turns_and_places_away() {
    let mut all = candidates(&[1, 1]);
    all[1].eweight = 4;
    let share = |balance, hash_type| {
        let choice = Choice {
            balance,
            hash_type,
            ..ROUND_ROBIN
        };
        let picker = picker(&all, choice);
        let picks = (0..20_000_u32).filter(|number| {
            let input = PickInput {
                hash: Some(hash::avalanche(*number)),
                ..at(*number as usize)
            };
            picker.pick(&input, idle, |_| true) == Some(1)
        });
        picks.count() / 200
    };
    let consistent = HashType {
        consistent: true,
        ..HashType::default()
    };
    let map = HashType::default();
    assert_eq!(share(Balance::RoundRobin, map), 20);
    assert_eq!(share(Balance::StaticRr, map), 50);
    let by_map = share(Balance::Source, map);
    assert!((48..=52).contains(&by_map), "{by_map}");
    // A ring of 20 places is rough.
    let by_ring = share(Balance::Source, consistent);
    assert!((2..40).contains(&by_ring), "{by_ring}");
}
