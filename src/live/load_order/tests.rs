//! The order against a scan of all servers; two threads; what a new order keeps.

use super::*;
use crate::live::slot::Slot;
use crate::live::{ServerLive, WorkerToken};
use proptest::prelude::*;
use std::collections::VecDeque;

fn lives(count: usize) -> Vec<Arc<ServerLive>> {
    (0..count)
        .map(|_| Arc::new(ServerLive::new(&Arc::default(), 4)))
        .collect()
}

fn order_of(lives: &[Arc<ServerLive>], weights: &[u32]) -> Arc<LoadOrder> {
    let servers = lives.iter().map(|live| &live.order);
    let servers = servers.zip(weights.iter().map(|weight| 16 * weight));
    LoadOrder::of(&servers.collect::<Vec<_>>(), |it| lives[it].load())
}

fn pick(order: &LoadOrder, lives: &[Arc<ServerLive>]) -> usize {
    let load = |position: usize| lives[position].load();
    order.pick(load, |_| true).unwrap()
}

#[test]
fn idle_servers_take_turns_whatever_their_weights_are() {
    let lives = lives(3);
    let order = order_of(&lives, &[1, 200, 7]);
    let token = WorkerToken::new(0);
    let chosen: Vec<usize> = (0..7)
        .map(|_| {
            let chosen = pick(&order, &lives);
            drop(Slot::take(&lives[chosen], &token));
            chosen
        })
        .collect();
    assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn sessions_are_shared_by_weight() {
    let lives = lives(3);
    let order = order_of(&lives, &[1, 2, 4]);
    let token = WorkerToken::new(0);
    let slots: Vec<Slot> = (0..700)
        .map(|_| Slot::take(&lives[pick(&order, &lives)], &token))
        .collect();
    let loads: Vec<u32> = lives.iter().map(|live| live.load()).collect();
    assert_eq!(loads, [100, 200, 400]);
    drop(slots);
    assert!(lives.iter().all(|live| live.load() == 0));
}

#[test]
fn those_that_are_not_accepted_are_passed_over_in_order() {
    let lives = lives(5);
    let order = order_of(&lives, &[1; 5]);
    let token = WorkerToken::new(0);
    let _slots = [0, 1, 1, 3].map(|it: usize| Slot::take(&lives[it], &token));
    let load = |position: usize| lives[position].load();
    let mut asked = Vec::new();
    let none = order.pick(load, |position| {
        asked.push(position);
        false
    });
    assert_eq!(none, None);
    assert_eq!(asked, [2, 4, 0, 3, 1]);
    assert_eq!(order.pick(load, |it| it == 3), Some(3));
}

#[test]
fn an_order_that_is_not_used_any_more_still_spreads() {
    let lives = lives(4);
    let old = order_of(&lives, &[1; 4]);
    let _new = order_of(&lives, &[1; 4]);
    let token = WorkerToken::new(0);
    let mut slots = Vec::new();
    for _ in 0..8 {
        slots.push(Slot::take(&lives[pick(&old, &lives)], &token));
    }
    assert!(lives.iter().all(|live| live.load() == 2), "{lives:?}");
}

#[test]
fn a_new_order_keeps_the_turns_of_those_that_stay() {
    let lives = lives(4);
    let token = WorkerToken::new(0);
    let order = order_of(&lives, &[1; 4]);
    for _ in 0..2 {
        drop(Slot::take(&lives[pick(&order, &lives)], &token));
    }
    // It is the turn of 2, 3, 0 and 1. Another weight, or an absence, puts a server behind them.
    lives[3].order.leave();
    let order = order_of(&lives, &[1, 1, 5, 1]);
    let turns: Vec<usize> = (0..4)
        .map(|_| {
            let chosen = pick(&order, &lives);
            drop(Slot::take(&lives[chosen], &token));
            chosen
        })
        .collect();
    assert_eq!(turns, [0, 1, 2, 3]);
}

#[test]
fn a_server_that_has_left_changes_no_order() {
    let lives = lives(2);
    let order = order_of(&lives, &[1; 2]);
    lives[0].order.leave();
    let _slot = Slot::take(&lives[0], &WorkerToken::new(0));
    assert_eq!(order.age(0), 2, "its key is the one of the start");
}

#[test]
fn an_order_of_none_chooses_none() {
    let order = LoadOrder::of(&[], |_| 0);
    assert!(order.is_empty());
    assert_eq!(order.pick(|_| 0, |_| true), None);
}

#[test]
fn the_numbers_of_changes_begin_again() {
    let lives = lives(3);
    let order = order_of(&lives, &[1; 3]);
    let token = WorkerToken::new(0);
    for turn in 0..(1 << CHANGE_BITS) {
        let chosen = pick(&order, &lives);
        assert_eq!(chosen, turn % 3);
        drop(Slot::take(&lives[chosen], &token));
    }
}

/// The order as it must be once no change is under way.
fn assert_exact(order: &LoadOrder, lives: &[Arc<ServerLive>]) {
    let leaves = order.nodes.len() / 2;
    for (position, live) in lives.iter().enumerate() {
        let key = order.key(position, live.load());
        assert_eq!(order.node(leaves + position).key(), key, "{position}");
    }
    for node in 1..leaves {
        let least = order.node(2 * node).first(order.node(2 * node + 1));
        assert_eq!(order.node(node), least, "{node}");
    }
}

#[test]
fn threads_leave_an_exact_order() {
    for servers in [2, 3, 9, 64] {
        let lives = lives(servers);
        let order = order_of(&lives, &vec![3; servers]);
        for round in 0..20 {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (order, lives) = (&order, &lives);
                    scope.spawn(move || {
                        // The token of its own shard: no other thread counts there.
                        let token = WorkerToken::new(thread);
                        let mut random = fastrand::Rng::with_seed(round * 4 + thread as u64);
                        let mut slots = Vec::new();
                        for _ in 0..2_000 {
                            if slots.is_empty() || random.bool() {
                                slots.push(Slot::take(&lives[pick(order, lives)], &token));
                            } else {
                                slots.swap_remove(random.usize(..slots.len()));
                            }
                        }
                    });
                }
            });
            assert_exact(&order, &lives);
        }
    }
}

proptest! {
    #[test]
    fn the_order_is_that_of_a_scan(
        weights in prop::collection::vec(1u32..=256, 1..40),
        steps in prop::collection::vec((any::<bool>(), any::<u16>()), 1..200),
    ) {
        let lives = lives(weights.len());
        let order = order_of(&lives, &weights);
        let token = WorkerToken::new(0);
        let mut slots: Vec<(usize, Slot)> = Vec::new();
        // The servers in the order in which they got their keys.
        let mut turns: VecDeque<usize> = (0..weights.len()).collect();
        let key = |server: usize| match u64::from(lives[server].load()) {
            0 => 0,
            load => (load + 1) * 4096 / (16 * u64::from(weights[server])),
        };
        for (come, number) in steps {
            let server = if come || slots.is_empty() {
                let due = turns.iter().copied().min_by_key(|&server| key(server)).unwrap();
                let chosen = pick(&order, &lives);
                prop_assert_eq!(chosen, due);
                let before = key(chosen);
                slots.push((chosen, Slot::take(&lives[chosen], &token)));
                (chosen, before)
            } else {
                let leaving = usize::from(number) % slots.len();
                let before = key(slots[leaving].0);
                (slots.swap_remove(leaving).0, before)
            };
            if key(server.0) != server.1 {
                turns.retain(|it| *it != server.0);
                turns.push_back(server.0);
            }
            assert_exact(&order, &lives);
        }
    }
}
