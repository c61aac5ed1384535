//! Many seeds, and what must hold at the end of each.

use super::*;
use crate::live::retry_budget::LEAST;
use crate::state::OperState;
use std::cell::Cell;

impl Simulation {
    fn labels(&self) -> Vec<String> {
        let backend = self.backend();
        let label = |server: &Arc<Server>| server.status_label().into_owned();
        backend.servers.iter().map(label).collect()
    }

    /// When the faults are over every server is up again within `rise` checks and slack.
    fn must_recover(&mut self) {
        let Check {
            interval,
            rise,
            timeout,
            ..
        } = self.check;
        // A check that was under way fails yet; each start may be late by its jitter.
        let slack = timeout + (interval / 20) * rise + ms(10);
        // A connect from before may be given up, and blamed, until then.
        let observed = self.backend().servers[0].spec.observe;
        let slack = if observed {
            slack + ms(5_000) + HELD_MAX
        } else {
            slack
        };
        self.run(self.start + FAULTS + interval * rise + slack);
        let labels = self.labels();
        assert!(labels.iter().all(|label| label == "UP"), "{labels:?}");
        let backend = self.backend();
        assert!(backend.status.up);
    }

    /// When all sessions have ended nothing is counted and nobody suspected any more.
    fn must_be_empty(&mut self) {
        self.run(self.start + ARRIVALS + Duration::from_secs(10));
        let backend = self.backend();
        assert!(self.sessions.iter().all(Option::is_none));
        assert_eq!(backend.live.active.get(), 0);
        // Not at once: an attempt from before may be given up, and blamed, after the node is back.
        assert!(backend.servers.iter().all(|s| !s.live.is_suspect()));
        assert!(backend.servers.iter().all(|s| s.live.active.get() == 0));
    }
}

/// Runs `seeds` worlds; a failure names its seed.
fn explore(seeds: std::ops::Range<u64>, faults: Faults, visit: impl Fn(&mut Simulation)) {
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| visit(&mut Simulation::new(seed, faults)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed} with {faults:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn whatever_fails_is_left_alone_and_comes_back() {
    let faults = Faults {
        nodes: true,
        shortages: true,
        limits: Limits::None,
        tiers: false,
        retry_budget: None,
        ejections: false,
    };
    explore(0..150, faults, |simulation| {
        simulation.run(simulation.start + FAULTS);
        assert!(simulation.served > 0);
        simulation.must_recover();
        simulation.must_be_empty();
    });
}

#[test]
fn nobody_waits_in_vain_for_dead_servers() {
    let faults = Faults {
        nodes: true,
        shortages: false,
        limits: Limits::None,
        tiers: false,
        retry_budget: None,
        ejections: false,
    };
    explore(1_000..1_150, faults, |simulation| {
        simulation.run(simulation.start + FAULTS);
        simulation.must_recover();
        simulation.must_be_empty();
    });
}

#[test]
fn shortages_of_our_own_are_held_against_nobody() {
    let faults = Faults {
        nodes: false,
        shortages: true,
        limits: Limits::None,
        tiers: false,
        retry_budget: None,
        ejections: false,
    };
    explore(2_000..2_050, faults, |simulation| {
        while simulation.now < simulation.start + FAULTS {
            simulation.run(simulation.now + ms(100));
            for server in &simulation.backend().servers {
                assert!(!server.live.is_suspect());
                assert!(server.status.health >= server.rules().rise);
                let traffic = &server.live.traffic;
                assert_eq!(traffic.sum(|t| &t.chkfail), 0);
            }
        }
        assert!(
            simulation.refused_here > 0,
            "nothing ran short: the test tests nothing"
        );
        simulation.must_recover();
        simulation.must_be_empty();
        assert_eq!(simulation.lost, 0, "a short shortage costs no session");
    });
}

/// Servers with `maxconn`, which fail and come back: no limit is exceeded, and after every event no session waits for a
/// server that has a slot for it.
#[test]
fn queues_use_every_slot_and_lose_none() {
    let (waited, late, slowed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    for (first, nodes, limits) in [
        (3_000, false, Limits::Maxconn),
        (3_100, true, Limits::Maxconn),
        (3_200, true, Limits::SlowStart),
    ] {
        let faults = Faults {
            nodes,
            shortages: nodes,
            limits,
            tiers: false,
            retry_budget: None,
            ejections: false,
        };
        explore(first..first + 25, faults, |simulation| {
            simulation.must_recover();
            simulation.must_be_empty();
            assert!(!simulation.backend().live.queue.is_waiting());
            waited.set(waited.get() + simulation.waited);
            late.set(late.get() + simulation.late);
            slowed.set(slowed.get() + simulation.slowed);
            let servers = &simulation.backend().servers;
            let oper = |server: &Arc<Server>| server.status.oper;
            assert!(servers.iter().all(|it| oper(it) == OperState::Running));
        });
    }
    let (waited, late) = (waited.get(), late.get());
    assert!(waited > 1_500, "{waited} have waited");
    assert!(late > 20, "{late} have waited for too long");
    let slowed = slowed.get();
    assert!(slowed > 50, "{slowed} seconds of slow starts");
}

/// Five hundred sessions a second over three nodes, and what `happens` to the first after ten seconds.
fn five_hundred_a_second(seed: u64, happens: Node) -> Simulation {
    let none = Faults {
        nodes: false,
        shortages: false,
        limits: Limits::None,
        tiers: false,
        retry_budget: None,
        ejections: false,
    };
    let mut simulation = (seed..seed + 100)
        .map(|seed| Simulation::new(seed, none))
        .find(|it| it.nodes.len() == 3 && it.backend().usable().active == 3)
        .expect("a third of the seeds have three nodes");
    simulation.load.pace = 1_000..3_000;
    simulation.at(simulation.start + ms(10_000), Event::Node(0, happens));
    simulation.run(simulation.start + ms(20_000));
    simulation.load.connect_times.sort_unstable();
    simulation
}

/// The time that all but a thousandth have connected within, and the longest.
fn longest(times: &[Duration]) -> (Duration, Duration) {
    let all_but_few = times.len() - 1 - times.len() / 1_000;
    (times[all_but_few], times[times.len() - 1])
}

/// A node that dies dark costs hardly anything: the next server is asked soon, and the dead one last.
#[test]
fn a_node_that_dies_dark_delays_few_clients_and_not_for_long() {
    for seed in 0..10 {
        let simulation = five_hundred_a_second(4_000 + 10 * seed, Node::Dark);
        assert_eq!(simulation.lost, 0);
        let (few, most) = longest(&simulation.load.connect_times);
        assert!(
            few <= ms(30) && most <= ms(100),
            "{seed}: {few:?}, {most:?}"
        );
    }
}

/// No server is asked in vain while all is well, nor when one of them becomes slow for good, which keeps its share.
#[test]
fn servers_that_answer_are_hardly_ever_asked_in_vain() {
    for seed in 0..5 {
        for slow in [1, 12, 60, 250] {
            let simulation = five_hundred_a_second(5_000 + 10 * seed, Node::Up(ms(slow)));
            let (dials, served) = (simulation.load.dials, simulation.served);
            assert!(served > 9_000, "{served}");
            let more = dials - served;
            let most = if slow == 1 { 10 } else { served / 100 };
            assert!(more <= most, "{slow} ms: {more} of {served} more than one");
            let backend = simulation.backend();
            let weights: u32 = backend.servers.iter().map(|it| it.weight).sum();
            let first = &backend.servers[0];
            let has = first.live.traffic.sum(|traffic| &traffic.connect);
            let share = u64::from(served) * u64::from(first.weight) / u64::from(weights);
            // Until a check has passed and its new time is known it is asked last: for less than one of the 20 seconds.
            assert!(has + share / 20 >= share, "{slow} ms: {has} of {share}");
        }
    }
}

/// Tiers, with and without `maxconn`: whatever becomes of the servers, sessions go to servers in use alone, use every slot
/// there, and are lost only when none is.
#[test]
fn tiers_are_left_and_come_back() {
    let (failed_open, too_few) = (Cell::new(0), Cell::new(0));
    for (first, limits) in [
        (4_000, Limits::None),
        (4_100, Limits::Maxconn),
        (4_200, Limits::SlowStart),
    ] {
        let faults = Faults {
            nodes: true,
            shortages: true,
            limits,
            tiers: true,
            retry_budget: None,
            ejections: false,
        };
        explore(first..first + 50, faults, |simulation| {
            simulation.must_recover();
            simulation.must_be_empty();
            assert!(simulation.served > 0);
            let backend = simulation.backend();
            assert!(!backend.live.queue.is_waiting() && !backend.status.fail_open);
            let first = backend.in_use();
            assert!(first.iter().all(|one| !one.backup && !one.down));
            failed_open.set(failed_open.get() + simulation.failed_open);
            too_few.set(too_few.get() + simulation.too_few);
        });
    }
    let (failed_open, too_few) = (failed_open.get(), too_few.get());
    assert!(failed_open > 100, "{failed_open} turns");
    assert!(too_few > 100, "{too_few} turns");
}

/// All nodes refuse for two seconds, or answer nothing: servers are asked by no more than the first attempts and the
/// budget, in every ten seconds, and all is well afterwards.
#[test]
fn a_dead_backend_is_asked_no_more_than_the_budget_says() {
    let denied = Cell::new(0);
    let percent = 20;
    for (first, node) in [(6_000, Node::Refusing), (6_100, Node::Dark)] {
        let faults = Faults {
            nodes: false,
            shortages: false,
            limits: Limits::None,
            tiers: false,
            retry_budget: Some(percent),
            ejections: false,
        };
        explore(first..first + 20, faults, |simulation| {
            simulation.load.pace = 1_000..3_000;
            let dead = simulation.start + ms(12_500);
            for index in 0..simulation.nodes.len() {
                simulation.at(dead, Event::Node(index, node));
                let back = dead + ms(2_000);
                simulation.at(back, Event::Node(index, Node::Up(ms(1))));
            }
            simulation.run(dead);
            let (dials, sessions) = (simulation.load.dials, simulation.sessions.len());
            simulation.run(dead + ms(5_000));
            let dials = u64::from(simulation.load.dials - dials);
            let begun = (simulation.sessions.len() - sessions) as u64;
            // The window has the ten seconds before, too, and the second that is under way.
            let all = simulation.sessions.len() as u64;
            let most = LEAST + all * u64::from(percent) / 100;
            // A session whose server goes DOWN unanswered tries another one in its place, and one that comes UP.
            let most = if node == Node::Dark {
                most + begun
            } else {
                most
            };
            let again = dials.saturating_sub(begun);
            assert!(again <= most, "{again} of {most}");
            denied.set(denied.get() + simulation.load.denied);
            simulation.must_recover();
            simulation.must_be_empty();
        });
    }
    let denied = denied.get();
    assert!(denied > 1_000, "{denied}");
}

/// Servers that sessions have found dead are out at once, some of them for longer; whatever becomes of them, sessions use
/// every slot of the others, and all come back.
#[test]
fn servers_are_ejected_and_come_back() {
    let (ejected, served) = (Cell::new(0), Cell::new(0));
    for (first, limits) in [
        (7_000, Limits::None),
        (7_100, Limits::Maxconn),
        (7_200, Limits::SlowStart),
    ] {
        let faults = Faults {
            nodes: true,
            shortages: true,
            limits,
            tiers: first == 7_200,
            retry_budget: None,
            ejections: true,
        };
        explore(first..first + 25, faults, |simulation| {
            simulation.must_recover();
            simulation.must_be_empty();
            assert!(!simulation.backend().live.queue.is_waiting());
            ejected.set(ejected.get() + simulation.ejected);
            served.set(served.get() + simulation.served);
        });
    }
    let (ejected, served) = (ejected.get(), served.get());
    assert!(ejected > 200, "{ejected} servers in all turns");
    assert!(served > 25_000, "{served}");
}
