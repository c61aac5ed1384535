//! Which servers are in use: tiers and their shares, backups, fail-open, the least number of servers.

use super::*;
use crate::balance::tiers::in_use;
use crate::config::model::HashType;
use crate::live::ServerLive;
use std::collections::BTreeSet;

/// Servers by their priorities and weights.
fn servers(of: &[(u8, u32)]) -> Vec<Candidate> {
    let weights: Vec<u32> = of.iter().map(|(_, weight)| *weight).collect();
    let mut all = candidates(&weights);
    for (server, (priority, _)) in all.iter_mut().zip(of) {
        server.priority = *priority;
    }
    all
}

fn spill(below: u32) -> Tiers {
    Tiers {
        spill_below: below,
        ..TIERS
    }
}

fn used(all: &[Candidate], tiers: Tiers) -> Vec<u32> {
    in_use(all, tiers).iter().map(|one| one.index).collect()
}

/// It is down, and the checks are not believed.
fn not_believed(all: &mut [Candidate], down: &[usize]) {
    for index in down {
        all[*index].down = true;
    }
}

#[test]
fn the_next_tier_is_used_when_nothing_of_the_one_before_is_usable() {
    let mut all = servers(&[(0, 1), (0, 1), (5, 1), (9, 1), (5, 1)]);
    assert_eq!(used(&all, TIERS), [0, 1]);
    all[0].usable = false;
    assert_eq!(used(&all, TIERS), [1]);
    all[1].usable = false;
    assert_eq!(used(&all, TIERS), [2, 4], "the others of its priority");
    all[2].usable = false;
    all[4].usable = false;
    assert_eq!(used(&all, TIERS), [3]);
    all[4].usable = true;
    assert_eq!(used(&all, TIERS), [4]);
    all[1].usable = true;
    assert_eq!(used(&all, TIERS), [1], "the first tier is back");
}

#[test]
fn it_is_used_as_well_while_too_little_weight_is_usable() {
    let mut all = servers(&[(0, 3), (0, 3), (0, 4), (1, 1), (2, 1)]);
    assert_eq!(used(&all, spill(70)), [0, 1, 2]);
    all[0].usable = false;
    assert_eq!(used(&all, spill(70)), [1, 2], "7 of 10");
    assert_eq!(used(&all, spill(71)), [1, 2, 3]);
    all[0].usable = true;
    all[2].usable = false;
    assert_eq!(used(&all, spill(70)), [0, 1, 3], "6 of 10");
    all[3].usable = false;
    assert_eq!(
        used(&all, spill(70)),
        [0, 1, 4],
        "nothing of the second tier"
    );
    all[4].usable = false;
    assert_eq!(used(&all, spill(70)), [0, 1], "there is no other");
}

#[test]
fn a_server_that_an_operator_has_drained_is_missing() {
    let mut all = servers(&[(0, 3), (0, 3), (1, 1)]);
    all[0].weight = 0;
    all[0].eweight = 0;
    assert_eq!(used(&all, spill(50)), [1]);
    assert_eq!(used(&all, spill(51)), [1, 2], "3 of the 6 that are written");
    // One that the file gives no weight is no part of it.
    all[0].written = 0;
    assert_eq!(used(&all, spill(100)), [1]);
    all[1].weight = 0;
    all[1].eweight = 0;
    assert_eq!(used(&all, TIERS), [2]);
}

#[test]
fn a_slow_start_counts_with_the_weight_in_force() {
    let mut all = servers(&[(0, 10), (0, 10), (1, 10)]);
    all[0].eweight = 10;
    assert_eq!(used(&all, spill(54)), [0, 1, 2], "17 of 32 parts are 53 %");
    all[0].eweight = 20;
    assert_eq!(used(&all, spill(54)), [0, 1], "18 of 32 are 56 %");
    all[1].usable = false;
    all[0].eweight = 10;
    assert_eq!(used(&all, TIERS), [0], "little, but not nothing");
}

#[test]
fn backups_come_after_all_tiers() {
    let mut all = servers(&[(0, 1), (3, 1), (0, 1), (0, 1)]);
    all[2].backup = true;
    all[3].backup = true;
    assert_eq!(used(&all, spill(100)), [0]);
    all[0].usable = false;
    assert_eq!(used(&all, spill(100)), [1]);
    all[1].usable = false;
    assert_eq!(used(&all, spill(100)), [2]);
    let allbackups = Tiers {
        allbackups: true,
        ..TIERS
    };
    assert_eq!(used(&all, allbackups), [2, 3]);
}

#[test]
fn with_fewer_than_the_least_number_none_is_used() {
    let least = |min_servers| Tiers {
        min_servers,
        ..TIERS
    };
    let mut all = servers(&[(0, 1), (0, 1), (1, 1), (0, 1)]);
    all[3].backup = true;
    assert_eq!(used(&all, least(4)), [0, 1]);
    all[0].usable = false;
    assert!(used(&all, least(4)).is_empty());
    assert_eq!(
        used(&all, least(3)),
        [1],
        "those of all tiers count, and backups"
    );
    all[2].weight = 0;
    assert!(used(&all, least(3)).is_empty());
    assert_eq!(used(&all, least(2)), [1]);
}

#[test]
fn a_backend_that_fails_open_uses_all_tiers_and_backups_as_the_checks_say() {
    let mut all = servers(&[(0, 1), (1, 1), (0, 1), (0, 1), (0, 1)]);
    all[3].backup = true;
    all[4].backup = true;
    not_believed(&mut all, &[0, 3, 4]);
    assert_eq!(used(&all, TIERS), [0, 1, 2]);
    // In maintenance.
    all[2].usable = false;
    assert_eq!(used(&all, TIERS), [0, 1]);
    not_believed(&mut all, &[1]);
    assert_eq!(used(&all, TIERS), [0, 1, 3], "no other is up");
    all[4].down = false;
    assert_eq!(used(&all, TIERS), [0, 1, 4], "the backup that is up");
    let allbackups = Tiers {
        allbackups: true,
        ..TIERS
    };
    assert_eq!(used(&all, allbackups), [0, 1, 3, 4]);
}

const ALL: [Balance; 9] = [
    Balance::RoundRobin,
    Balance::StaticRr,
    Balance::First,
    Balance::Random,
    Balance::LeastConn,
    Balance::Source,
    Balance::Hash,
    Balance::Maglev,
    Balance::Ewma,
];

/// The servers that the picker asks, as many as there are.
fn asked(all: &[Candidate], choice: Choice) -> Vec<u32> {
    let lives: Vec<_> = all
        .iter()
        .map(|_| Arc::new(ServerLive::new(&Arc::default(), 1)))
        .collect();
    let live = |it: &Candidate| &lives[it.index as usize];
    let order = |chosen: &[Candidate]| {
        let places = chosen.iter().map(|it| (&live(it).order, it.eweight));
        LoadOrder::of(&places.collect::<Vec<_>>(), |_| 0)
    };
    let picker = Picker::new(all, choice, order, |it| Arc::clone(live(it)));
    let mut seen = BTreeSet::new();
    let none = picker.pick(&at(0), idle, |index| {
        seen.insert(index);
        false
    });
    assert_eq!(none, None);
    assert_eq!(picker.is_empty(), seen.is_empty());
    for index in 0..u32::try_from(all.len()).expect("few") {
        let ordered = choice.balance == Balance::LeastConn && seen.contains(&index);
        assert_eq!(picker.orders(index), ordered);
    }
    seen.into_iter().collect()
}

#[test]
fn every_algorithm_chooses_among_those_in_use() {
    let mut all = servers(&[(1, 2), (0, 1), (2, 1), (0, 3), (1, 1)]);
    for down in [&[][..], &[3], &[1, 3], &[0, 1, 3, 4], &[0, 1, 2, 3, 4]] {
        for server in &mut all {
            server.usable = !down.contains(&server.index);
        }
        for balance in ALL {
            for consistent in [false, true] {
                let choice = Choice {
                    balance,
                    hash_type: HashType {
                        consistent,
                        ..ROUND_ROBIN.hash_type
                    },
                    tiers: spill(60),
                    ..ROUND_ROBIN
                };
                let due = used(&all, choice.tiers);
                assert_eq!(asked(&all, choice), due, "{balance:?}");
            }
        }
    }
}

/// The server of each hash.
fn places(all: &[Candidate], balance: Balance, tiers: Tiers) -> Vec<u32> {
    let choice = Choice {
        balance,
        hash_type: HashType {
            consistent: true,
            ..ROUND_ROBIN.hash_type
        },
        tiers,
        ..ROUND_ROBIN
    };
    let picker = picker(all, choice);
    let hashes = (0..2_000_u32).map(|number| number.wrapping_mul(0x9e37_79b9));
    hashes
        .map(|hash| {
            let input = PickInput {
                hash: Some(hash),
                ..at(0)
            };
            picker.pick(&input, idle, |_| true).expect("a server")
        })
        .collect()
}

/// Clients that change their server, and those of them that go from one server of `stays` to another.
fn moved(before: &[u32], after: &[u32], stays: impl Fn(u32) -> bool) -> (usize, usize) {
    let moved = before.iter().zip(after).filter(|(one, other)| one != other);
    let among = moved
        .clone()
        .filter(|(one, other)| stays(**one) && stays(**other));
    (moved.count(), among.count())
}

/// One server of twelve fails: nobody goes to the next tier, and when the second fails, clients go to that tier and not to
/// and fro among the others.
#[test]
fn hashes_move_no_client_that_need_not_move() {
    let of: Vec<(u8, u32)> = (0..24).map(|index| (index / 12, 8)).collect();
    for (balance, most) in [(Balance::Source, 0), (Balance::Maglev, 60)] {
        let mut all = servers(&of);
        let tiers = spill(90);
        let whole = places(&all, balance, tiers);
        assert!(whole.iter().all(|index| *index < 12));
        all[3].usable = false;
        let one_down = places(&all, balance, tiers);
        let stays = |index: u32| index < 12 && index != 3;
        let (count, among) = moved(&whole, &one_down, stays);
        assert!(one_down.iter().all(|index| *index >= 12 || stays(*index)));
        // 11 of 12 are 91 %.
        assert!(one_down.iter().all(|index| *index < 12), "{balance:?}");
        assert!(
            (60..300).contains(&count) && among <= most,
            "{count} {among}"
        );
        all[4].usable = false;
        let spilt = places(&all, balance, tiers);
        let stays = |index: u32| index < 12 && index != 3 && index != 4;
        let (_, among) = moved(&one_down, &spilt, stays);
        assert!(among <= most, "{balance:?}: {among}");
        let new = spilt.iter().filter(|index| **index >= 12).count();
        assert!((900..1_300).contains(&new), "12 of 22 servers: {new}");
        (all[3].usable, all[4].usable) = (true, true);
        assert_eq!(places(&all, balance, tiers), whole, "as before");
    }
}

#[test]
fn turns_are_shared_out_by_the_weights_of_the_tiers_in_use() {
    let mut all = servers(&[(0, 4), (0, 4), (1, 2), (1, 6)]);
    all[1].usable = false;
    let choice = Choice {
        tiers: spill(51),
        ..ROUND_ROBIN
    };
    let mut counts = [0; 4];
    for index in picks(&picker(&all, choice), &AtomicUsize::new(0), 120) {
        counts[index as usize] += 1;
    }
    assert_eq!(counts, [40, 0, 20, 60]);
}

fn any_servers() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (
        0_u8..4,
        0_u32..5,
        0_u32..5,
        1_u32..=16,
        0_u8..8,
        any::<bool>(),
    );
    prop::collection::vec(one, 0..12).prop_map(|of| {
        let weights: Vec<u32> = of.iter().map(|one| one.1).collect();
        let mut all = candidates(&weights);
        for (server, (priority, _, written, shares, backup, usable)) in all.iter_mut().zip(of) {
            server.backup = backup == 0;
            server.priority = if server.backup { 0 } else { priority };
            server.written = written;
            server.eweight = server.weight * shares;
            server.usable = usable;
        }
        all
    })
}

proptest! {
    #[test]
    fn tiers_are_used_in_order_and_no_more_of_them_than_needed(
        all in any_servers(),
        below in 0_u32..=100,
        min_servers in 1_u32..4,
        allbackups: bool,
    ) {
        let tiers = Tiers { allbackups, spill_below: below, min_servers };
        let used = in_use(&all, tiers);
        let fit = |one: &&Candidate| one.usable && one.weight > 0;
        prop_assert!(used.is_sorted_by_key(|one| one.index));
        prop_assert!(used.iter().all(|one| fit(&one)));
        let count = all.iter().filter(fit).count();
        prop_assert_eq!(used.is_empty(), count < min_servers as usize);
        if used.is_empty() {
            return Ok(());
        }
        if used[0].backup {
            let active = all.iter().filter(|one| !one.backup);
            prop_assert_eq!(active.filter(fit).count(), 0);
            let backups = all.iter().filter(fit).count();
            prop_assert_eq!(used.len(), if allbackups { backups } else { 1 });
            return Ok(());
        }
        prop_assert!(used.iter().all(|one| !one.backup));
        let last = used.iter().map(|one| one.priority).max().expect("one");
        let due = all.iter().filter(fit).filter(|one| !one.backup && one.priority <= last);
        prop_assert_eq!(used.len(), due.count(), "all usable ones of these tiers");
        // Every tier before the last one is too weak, and the last one is not unless it is the last of all.
        let enough = |priority: u8| {
            let tier = || all.iter().filter(move |one| !one.backup && one.priority == priority);
            let whole = |one: &Candidate| if one.weight > 0 { one.weight } else { one.written };
            let whole: u32 = tier().map(whole).sum();
            let usable: u32 = tier().filter(fit).map(|one| one.eweight).sum();
            usable > 0 && usable * 100 >= 16 * whole * below
        };
        for priority in 0..last {
            prop_assert!(!enough(priority));
        }
        let usable = all.iter().filter(fit).filter(|one| !one.backup);
        let lowest = usable.map(|one| one.priority).max().expect("one");
        prop_assert!(enough(last) || last == lowest);
    }

    /// What comes back takes nothing from the tiers before it.
    #[test]
    fn a_server_that_goes_down_adds_tiers_and_takes_none_away(
        mut all in any_servers(),
        below in 0_u32..=100,
        which: prop::sample::Index,
    ) {
        let last = |all: &[Candidate]| {
            let used = in_use(all, spill(below)).into_iter();
            used.filter(|one| !one.backup).map(|one| one.priority).max()
        };
        prop_assume!(!all.is_empty());
        let before = last(&all);
        let index = which.index(all.len());
        all[index].usable = false;
        let after = last(&all);
        // The last of all may have gone, or no tier is left.
        let has_later = |all: &[Candidate]| {
            all.iter().any(|one| one.usable && one.weight > 0 && !one.backup && Some(one.priority) >= before)
        };
        prop_assert!(after >= before || !has_later(&all));
    }
}
