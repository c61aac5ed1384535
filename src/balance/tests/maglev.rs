//! `maglev`: vectors of another implementation; evenness, least movement, the same choice whatever the order of servers.

use super::clients::client;
use super::source::from;
use super::*;
use crate::balance::maglev::{Maglev, fnv, of_name};
use std::fmt::Write as _;

/// Written by the script that it begins with.
const VECTORS: &str = include_str!("maglev.txt");

const SIZE: u32 = 65_537;

const MAGLEV: Choice = Choice {
    balance: Balance::Maglev,
    table_size: SIZE,
    ..ROUND_ROBIN
};

fn named(servers: &[(String, u32)]) -> Vec<Candidate> {
    let weights: Vec<u32> = servers.iter().map(|it| it.1).collect();
    let mut all = candidates(&weights);
    for (candidate, (name, _)) in all.iter_mut().zip(servers) {
        candidate.name = of_name(name);
    }
    all
}

/// So many slots has each of the servers.
fn counts(table: &Maglev, servers: usize) -> Vec<usize> {
    let mut counts = vec![0; servers];
    for index in table.slots() {
        counts[*index as usize] += 1;
    }
    counts
}

#[test]
fn the_tables_are_those_of_another_implementation() {
    let mut tables = 0;
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let [size, servers, check, clients] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("four words: {line}");
        };
        let servers: Vec<(String, u32)> = if servers == "large" {
            let names = (0..1_000).map(|it| (format!("server-{it}"), 1 + it % 4));
            names.collect()
        } else {
            let split = |it: &str| {
                let (name, weight) = it.split_once('*').expect("a pair");
                (name.to_owned(), weight.parse().expect("a weight"))
            };
            servers.split(',').map(split).collect()
        };
        let size = size.parse().expect("a size");
        let choice = Choice {
            table_size: size,
            ..MAGLEV
        };
        let all = named(&servers);
        let table = Maglev::new(&all, size);
        let index = |it: &u32| u16::try_from(*it).expect("few").to_le_bytes();
        let bytes: Vec<u8> = table.slots().iter().flat_map(index).collect();
        assert_eq!(format!("{:016x}", fnv(&bytes)), check, "{line}");
        if clients != "-" {
            let picker = picker(&all, choice);
            let mut found = String::new();
            for number in 0..200 {
                let chosen = picker.pick(&from(&picker, client(number)), idle, |_| true);
                let _ = write!(found, "{}", chosen.expect("a server"));
            }
            assert_eq!(found, clients, "{line}");
        }
        tables += 1;
    }
    assert!(tables >= 14, "{tables}");
}

#[test]
fn the_table_follows_from_the_names_whatever_the_order_and_the_numbers_are() {
    let servers: Vec<(String, u32)> = (0..20).map(|it| (format!("s{it}"), 1 + it % 3)).collect();
    let table = Maglev::new(&named(&servers), SIZE);
    let mut other = servers.clone();
    other.reverse();
    other.swap(3, 11);
    let permuted = Maglev::new(&named(&other), SIZE);
    for (one, two) in table.slots().iter().zip(permuted.slots()) {
        assert_eq!(servers[*one as usize], other[*two as usize]);
    }
}

#[test]
fn a_server_that_goes_moves_few_clients_of_others() {
    for count in [2_u32, 3, 10, 100, 1_000] {
        let mut all = candidates(&vec![1; count as usize]);
        let before = Maglev::new(&all, SIZE);
        let gone = count / 2;
        all.remove(gone as usize);
        let after = Maglev::new(&all, SIZE);
        let slots = before.slots().iter().zip(after.slots());
        let moved = slots.filter(|(before, after)| before != after).count();
        // One n-th of all and one percent.
        let most = SIZE / count + SIZE / 100 + 1;
        assert!(moved <= most as usize, "{count} servers: {moved} of {SIZE}");
    }
}

#[test]
fn a_server_in_a_slow_start_takes_its_share_from_all() {
    let mut all = candidates(&[2, 2, 2]);
    all[1].eweight = 2;
    let table = Maglev::new(&all, SIZE);
    let counts = counts(&table, 3);
    assert!((1_980..1_990).contains(&counts[1]), "{counts:?}");
    assert!(counts[0].abs_diff(counts[2]) <= 1, "{counts:?}");
}

#[test]
fn who_refuses_is_passed_over_and_each_is_asked() {
    let all = candidates(&[1, 256, 1, 1]);
    let picker = picker(&all, MAGLEV);
    for number in 0..200 {
        let input = from(&picker, client(number));
        for only in 0..4 {
            assert_eq!(picker.pick(&input, idle, |it| it == only), Some(only));
            assert_eq!(picker.pick_before(&input, |it| it == only), Some(only));
        }
        let mut asked = 0;
        assert_eq!(
            picker.pick(&input, idle, |_| {
                asked += 1;
                false
            }),
            None
        );
        assert!(asked < 70, "{asked}");
    }
    let none: &[Candidate] = &[];
    assert!(super::picker(none, MAGLEV).is_empty());
    assert_eq!(
        super::picker(none, MAGLEV).pick(&at(7), idle, |_| true),
        None
    );
}

#[test]
fn what_has_no_value_takes_turns() {
    let picker = picker(&candidates(&[1, 1, 2]), MAGLEV);
    let mut counts = [0_u32; 3];
    for index in picks(&picker, &AtomicUsize::new(0), SIZE as usize) {
        counts[index as usize] += 1;
    }
    assert!(
        counts[0].abs_diff(16_384) <= 2 && counts[2].abs_diff(32_768) <= 2,
        "{counts:?}"
    );
}

#[test]
fn nobody_has_much_more_than_the_share() {
    let choice = Choice {
        hash_balance_factor: 110,
        ..MAGLEV
    };
    let most = |choice| {
        let picker = picker(&candidates(&[1; 10]), choice);
        let mut loads = [0_u32; 10];
        for (number, sessions) in (0..).zip(1..).take(2_000) {
            let mut input = from(&picker, client(number % 40));
            input.sessions = sessions;
            let load = |it: u32| loads[it as usize];
            let found = picker.pick(&input, load, |_| true).expect("a server");
            loads[found as usize] += 1;
        }
        loads.into_iter().max()
    };
    assert!(most(choice) <= Some(221) && most(MAGLEV) >= Some(300));
}

proptest! {
    // Each makes a table or two.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_server_has_its_share_of_the_table(weights in prop::collection::vec(1u32..=256, 1..12)) {
        let all = candidates(&weights);
        let counts = counts(&Maglev::new(&all, SIZE), all.len());
        let sum: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let due = f64::from(SIZE) * f64::from(*weight) / f64::from(sum);
            let count = f64::from(u32::try_from(*count).expect("few"));
            prop_assert!((count - due).abs() <= 13.0, "{count} instead of {due}");
        }
    }

    /// Whatever happens to one server, the others keep nearly all of their clients.
    #[test]
    fn any_server_may_go(weights in prop::collection::vec(1u32..=8, 2..12), gone in 0usize..12) {
        let mut all = candidates(&weights);
        let gone = gone % all.len();
        let before = Maglev::new(&all, SIZE);
        all.remove(gone);
        let after = Maglev::new(&all, SIZE);
        let gone = u32::try_from(gone).expect("few");
        let slots = before.slots().iter().zip(after.slots());
        let moved = slots.filter(|(before, after)| **before != gone && before != after).count();
        prop_assert!(moved <= SIZE as usize / 100, "{moved} of {SIZE}");
    }
}
