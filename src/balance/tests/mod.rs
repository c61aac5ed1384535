//! Properties of the rotation: fairness, smoothness, stability.

mod clients;
mod source;

use super::rotation::{Rotation, SLOTS_MAX};
use super::*;
use proptest::prelude::*;

const ROUND_ROBIN: Choice = Choice {
    balance: Balance::RoundRobin,
    hash_type: HashType {
        consistent: false,
        avalanche: false,
    },
    allbackups: false,
};

fn choice(allbackups: bool) -> Choice {
    Choice {
        allbackups,
        ..ROUND_ROBIN
    }
}

fn candidates(weights: &[u32]) -> Vec<Candidate> {
    (0..)
        .zip(weights)
        .map(|(index, &weight)| Candidate {
            index,
            id: index + 1,
            weight,
            written: weight,
            backup: false,
            usable: true,
        })
        .collect()
}

fn at(position: usize) -> PickInput {
    PickInput {
        cursor: RotationCursor(position),
    }
}

fn picks(picker: &Picker, cursor: &AtomicUsize, count: usize) -> Vec<u32> {
    (0..count)
        .map(|_| {
            picker
                .pick(&PickInput::take(cursor), None, |_| true)
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
    let picker = Picker::new(&candidates(&[1, 1, 1]), ROUND_ROBIN);
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
        let mut seen = picks(&Picker::new(all, choice(allbackups)), &cursor, 20);
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
    assert!(Picker::new(&all, choice(true)).is_empty());
    assert!(
        Picker::new(&all, choice(true))
            .pick(&at(5), None, |_| true)
            .is_none()
    );
}

#[test]
fn a_refused_server_is_skipped_without_moving_the_rotation() {
    let picker = Picker::new(&candidates(&[1, 1, 1]), ROUND_ROBIN);
    let turn = &at(1);
    assert_eq!(picker.pick(turn, None, |_| true), Some(1));
    assert_eq!(picker.pick(turn, None, |index| index != 1), Some(2));
    assert_eq!(picker.pick(turn, None, |index| index == 0), Some(0));
    assert_eq!(picker.pick(turn, None, |_| false), None);
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
        let before = Picker::new(&all, ROUND_ROBIN);
        picks(&before, &cursor, offset % 97);
        let gone = gone % all.len();
        all[gone].usable = false;
        let during = Picker::new(&all, ROUND_ROBIN);
        let left: u32 = weights.iter().sum::<u32>() - weights[gone];
        let served = picks(&during, &cursor, left as usize * 3);
        for (index, weight) in (0..).zip(&weights) {
            let turns = served.iter().filter(|&&slot| slot == index).count();
            let due = if index as usize == gone { 0 } else { *weight as usize * 3 };
            prop_assert_eq!(turns, due);
        }
    }
}
