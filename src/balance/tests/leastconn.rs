//! `leastconn`: HAProxy's choices, recorded.

use super::steps::{Step, step};
use super::*;
use crate::live::slot::Slot;
use crate::live::{ServerLive, WorkerToken};

/// The choices of HAProxy that `tests/it/balance_leastconn.rs` has recorded: a line for each backend. Its words are the
/// weights of the servers, and the positions of those that the clients of the [`step`]s got, a digit each.
const RECORDED: &str = include_str!("leastconn.txt");

const LEAST: Choice = Choice {
    balance: Balance::LeastConn,
    ..ROUND_ROBIN
};

struct Backend {
    all: Vec<Candidate>,
    lives: Vec<Arc<ServerLive>>,
    picker: Picker,
    slots: Vec<Slot>,
}

impl Backend {
    fn new(weights: &[u32]) -> Self {
        let all = candidates(weights);
        let live = |_: &Candidate| Arc::new(ServerLive::new(&Arc::default(), 1));
        let mut backend = Self {
            lives: all.iter().map(live).collect(),
            picker: picker(&[], LEAST),
            slots: Vec::new(),
            all,
        };
        backend.renew();
        backend
    }

    /// Makes the picker anew, as [`crate::state`] does.
    fn renew(&mut self) {
        let live = |it: &Candidate| &self.lives[it.index as usize];
        let order = |chosen: &[Candidate]| {
            let places = chosen.iter().map(|it| (&live(it).order, it.eweight));
            let load = |position: usize| live(&chosen[position]).load();
            LoadOrder::of(&places.collect::<Vec<_>>(), load)
        };
        self.picker = Picker::new(&self.all, LEAST, order, |it| Arc::clone(live(it)));
        for (index, live) in (0..).zip(&self.lives) {
            if !self.picker.orders(index) {
                live.order.leave();
            }
        }
    }

    fn pick(&self, accept: impl FnMut(u32) -> bool) -> Option<u32> {
        let load = |index: u32| self.lives[index as usize].load();
        self.picker.pick(&at(0), load, accept)
    }

    fn come(&mut self) -> u32 {
        let chosen = self.pick(|_| true).expect("a server");
        let live = &self.lives[chosen as usize];
        self.slots.push(Slot::take(live, &WorkerToken::new(0)));
        chosen
    }

    fn take(&mut self, step: Step) -> Option<u32> {
        let servers = self.all.len();
        match step {
            Step::Come => return Some(self.come()),
            Step::Leave(_) if self.slots.is_empty() => {}
            Step::Leave(which) => drop(self.slots.swap_remove(which % self.slots.len())),
            Step::Toggle(which) => {
                let server = &mut self.all[1 + which % (servers - 1)];
                server.usable = !server.usable;
                self.renew();
            }
            Step::Weigh(which, weight) => {
                let server = &mut self.all[which % servers];
                (server.weight, server.eweight) = (weight, 16 * weight);
                self.renew();
            }
        }
        None
    }
}

#[test]
fn every_client_goes_to_the_server_of_haproxys() {
    let mut backends = 0;
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let (weights, chosen) = line.split_once(' ').expect("two words");
        let weights = weights.split(',').map(|it| it.parse().expect("a weight"));
        let mut backend = Backend::new(&weights.collect::<Vec<_>>());
        let mut found = String::new();
        for number in 0.. {
            if found.len() == chosen.len() {
                break;
            }
            let choice = backend.take(step(number));
            found.extend(choice.and_then(|it| char::from_digit(it, 10)));
        }
        assert_eq!(found, chosen, "{line}");
        backends += 1;
    }
    assert!(backends >= 5, "{backends}");
}

#[test]
fn the_least_busy_server_is_found_by_its_index() {
    let mut backend = Backend::new(&[1, 1, 1, 1]);
    backend.all[1].usable = false;
    backend.renew();
    let chosen: Vec<u32> = (0..4).map(|_| backend.come()).collect();
    assert_eq!(chosen, [0, 2, 3, 0]);
    assert_eq!(backend.pick(|index| index != 2), Some(3));
    backend.slots.remove(3);
    assert_eq!(backend.come(), 2);
    let ordered = (0..4).filter(|&index| backend.picker.orders(index));
    assert_eq!(ordered.collect::<Vec<_>>(), [0, 2, 3]);
}
