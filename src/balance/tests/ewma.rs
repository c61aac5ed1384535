//! `ewma`, simulated: what servers get that are slow, come back, are new, idle, or have weights.

use super::*;
use crate::balance::ewma::Ewma;
use crate::live::ServerLive;
use crate::live::connect_time::Tick;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Servers whose connects take so long, in milliseconds.
struct Simulation {
    ewma: Ewma,
    servers: Vec<Arc<ServerLive>>,
    connect: Vec<u64>,
    loads: Vec<u32>,
    random: fastrand::Rng,
    now: u64,
    /// When something happens at which server: it answers a connect that was begun then, or a session ends (`None`).
    events: BinaryHeap<Reverse<(u64, usize, Option<u64>)>>,
}

impl Simulation {
    fn new(weights: &[u32], connect: &[u64]) -> Self {
        let new = || Arc::new(ServerLive::new(&Arc::default(), 1));
        let servers: Vec<_> = weights.iter().map(|_| new()).collect();
        let all = candidates(weights);
        Self {
            ewma: Ewma::new(&all, |it| Arc::clone(&servers[it.index as usize])),
            loads: vec![0; weights.len()],
            connect: connect.to_vec(),
            servers,
            random: fastrand::Rng::with_seed(7),
            now: 0,
            events: BinaryHeap::new(),
        }
    }

    fn tick(&self) -> Tick {
        let begun = std::time::Instant::now();
        Tick::of(begun + Duration::from_millis(self.now), begun)
    }

    /// Until then a session comes every `every` milliseconds and stays for `stay`. How many each server has got.
    fn run(&mut self, until: u64, (every, stay): (u64, u64)) -> Vec<u32> {
        let mut counts = vec![0; self.servers.len()];
        while self.now < until {
            while let Some(&Reverse((at, index, connected))) = self.events.peek()
                && at <= self.now
            {
                self.events.pop();
                match connected {
                    Some(begun) => {
                        let took = Duration::from_millis(at - begun);
                        let tick = self.tick();
                        self.servers[index].connect_time.learn(took, tick);
                    }
                    None => self.loads[index] -= 1,
                }
            }
            let tick = self.tick();
            let random = &mut self.random;
            let load = |index: u32| self.loads[index as usize];
            let found = self.ewma.pick(tick, || random.u32(..), load, |_| true);
            let index = found.expect("a server") as usize;
            self.servers[index].connect_time.ask(tick);
            self.loads[index] += 1;
            counts[index] += 1;
            let answered = self.now + self.connect[index];
            self.events.push(Reverse((answered, index, Some(self.now))));
            self.events.push(Reverse((answered + stay, index, None)));
            self.now += every;
        }
        counts
    }
}

#[test]
fn a_slow_server_gets_less_and_one_that_recovers_comes_back() {
    let mut all = Simulation::new(&[1, 1, 1], &[1, 20, 1]);
    let counts = all.run(60_000, (1, 5));
    assert!((1..1_500).contains(&counts[1]), "{counts:?} of 60,000");
    all.connect[1] = 1;
    all.run(120_000, (1, 5));
    let counts = all.run(150_000, (1, 5));
    assert!(
        counts.iter().all(|count| *count > 6_000),
        "{counts:?} of 30,000"
    );
}

#[test]
fn of_two_servers_the_slow_one_gets_hardly_any_session() {
    let mut all = Simulation::new(&[1, 1], &[1, 50]);
    let counts = all.run(60_000, (1, 5));
    assert!((1..1_200).contains(&counts[1]), "{counts:?} of 60,000");
}

#[test]
fn a_new_server_is_not_flooded_before_it_has_answered() {
    let mut all = Simulation::new(&[1, 1, 1, 1], &[1, 1, 1, 800]);
    let counts = all.run(800, (1, 5));
    assert_eq!(counts[3], 1, "{counts:?}");
    let counts = all.run(5_000, (1, 5));
    assert!(counts[3] < 20, "{counts:?}");
}

#[test]
fn an_idle_server_is_not_starved() {
    let mut all = Simulation::new(&[1, 1, 1], &[1, 2, 3]);
    let counts = all.run(30_000_000, (10_000, 5));
    assert!(
        counts.iter().all(|count| *count > 300),
        "{counts:?} of 3,000"
    );
}

#[test]
fn equal_servers_get_sessions_by_their_weights() {
    let mut all = Simulation::new(&[1, 2, 3], &[1, 1, 1]);
    all.run(10_000, (3, 1_000));
    let counts = all.run(40_000, (3, 1_000));
    for (count, weight) in counts.iter().zip([1, 2, 3]) {
        let due = 10_000 * weight / 6;
        assert!((due * 8 / 10..due * 12 / 10).contains(count), "{counts:?}");
    }
}

#[test]
fn load_makes_up_for_the_time_of_a_connect() {
    let mut all = Simulation::new(&[1, 1], &[2, 4]);
    all.run(10_000, (2, 1_000));
    assert!(
        all.loads[0] > all.loads[1] && all.loads[1] > 80,
        "{:?}",
        all.loads
    );
}

#[test]
fn who_refuses_is_not_chosen() {
    let all = Simulation::new(&[1, 256, 1], &[1, 1, 1]);
    let tick = Tick::numbered(0);
    for number in (0..u32::MAX).step_by(1 << 24) {
        for only in 0..3 {
            let chosen = all.ewma.pick(tick, || number, idle, |index| index == only);
            assert_eq!(chosen, Some(only));
        }
        assert_eq!(all.ewma.pick(tick, || number, idle, |_| false), None);
    }
    let one = Simulation::new(&[7], &[1]);
    assert_eq!(one.ewma.pick(tick, || u32::MAX, idle, |_| true), Some(0));
    let none = Simulation::new(&[], &[]);
    assert_eq!(none.ewma.pick(tick, || 7, idle, |_| true), None);
}

/// The next one in the file got the share of those that are full: it got half of the sessions here.
#[test]
fn the_share_of_full_servers_goes_to_the_others_by_their_weights() {
    let weights = [1, 1, 1, 1, 1, 1, 1, 1, 4, 2, 1, 1];
    let all = Simulation::new(&weights, &[1; 12]);
    let mut random = fastrand::Rng::with_seed(7);
    let has_room = |index: u32| index >= 8;
    let mut counts = [0_u32; 12];
    for _ in 0..16_000 {
        // With this load the costs of all are the same, and the first of the two is taken.
        let load = |index: u32| 16 * weights[index as usize] - 1;
        let pick = all
            .ewma
            .pick(Tick::numbered(0), || random.u32(..), load, has_room);
        counts[pick.expect("one with room") as usize] += 1;
    }
    assert!(counts[..8].iter().all(|count| *count == 0), "{counts:?}");
    for (index, weight) in (8..).zip([4, 2, 1, 1]) {
        let due = 2_000 * weight;
        let range = due * 9 / 10..due * 11 / 10;
        assert!(range.contains(&counts[index]), "{counts:?}");
    }
}

proptest! {
    /// Each server is drawn as often as its weight says, and not twice for one session.
    #[test]
    fn two_are_drawn_by_weight(weights in prop::collection::vec(1u32..=256, 2..12), seed: u64) {
        let all = Simulation::new(&weights, &vec![1; weights.len()]);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut first = vec![0_u32; weights.len()];
        for _ in 0..4_000 {
            let mut asked = Vec::new();
            all.ewma.pick(Tick::numbered(0), || random.u32(..), idle, |index| {
                asked.push(index);
                true
            });
            prop_assert!(asked[0] != asked[asked.len() - 1]);
            first[asked[0] as usize] += 1;
        }
        let sum: u32 = weights.iter().sum();
        for (count, weight) in first.iter().zip(&weights) {
            let due = 4_000 * weight / sum;
            prop_assert!(count.abs_diff(due) < 220, "{} instead of {}", count, due);
        }
    }
}
