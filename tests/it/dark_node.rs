//! Measures what a node that dies dark costs the clients that connect meanwhile: 500 a second through three nodes, of which
//! one answers nothing any more after half of the time.
//!
//! `cargo test --release --test it -- --ignored --nocapture dark_node`. Needs root.

use crate::harness::client::hear;
use crate::harness::config::Config;
use crate::harness::eventually::pace_until;
use crate::harness::needs;
use crate::harness::netns::{LB_ADDRESS, Lab, NODES};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::Rlb;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const RATE: u32 = 500;
const SECONDS: u32 = 20;
const CLIENTS: u32 = 16;
const PORT: u16 = 9000;

/// How long sessions took that began in one half, sorted.
fn half(all: &[(Duration, Duration)], first: bool) -> Vec<Duration> {
    let dies = Duration::from_secs(u64::from(SECONDS / 2));
    let of_half = all.iter().filter(|(begun, _)| (*begun < dies) == first);
    let mut times: Vec<Duration> = of_half.map(|(_, took)| *took).collect();
    times.sort_unstable();
    times
}

fn told(what: &str, times: &[Duration]) -> String {
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    format!(
        "{what}: {} sessions, median {:?}, 99 % {:?}, 99.9 % {:?}, longest {:?}",
        times.len(),
        at(500),
        at(990),
        at(999),
        at(1000)
    )
}

#[test]
#[ignore = "a measurement"]
fn a_node_dies_dark_under_five_hundred_sessions_a_second() {
    if !needs::root() {
        return;
    }
    let mut lab = Lab::new();
    let mut config = Config::new()
        .bind(SocketAddr::from((
            LB_ADDRESS.parse::<IpAddr>().expect("an address"),
            PORT,
        )))
        .backend("check = true");
    let mut peers = Vec::new();
    for (node, (_, address)) in NODES.into_iter().enumerate() {
        lab.power_on(node);
        let address = SocketAddr::new(address.parse().expect("an address"), PORT);
        let says = || Peer::start_at(address, Behaviour::Says("served"));
        peers.push(lab.node(node).enter(says));
        config = config.server(address);
    }
    let rlb = lab.lb.enter(|| Rlb::start(&config));
    let address = rlb.address();
    let took = Mutex::new(Vec::new());
    let begun = Instant::now();
    let one = |client: u32| {
        let mut mine = Vec::new();
        for turn in 0..RATE * SECONDS / CLIENTS {
            pace_until(begun + Duration::from_secs(1) * (turn * CLIENTS + client) / RATE);
            let start = Instant::now();
            let served = hear(address).0 == "served";
            mine.push((start - begun, start.elapsed(), served));
        }
        took.lock().expect("no panic").extend(mine);
    };
    let clients = &lab.client;
    let before = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let one = &one;
            scope.spawn(move || clients.enter(|| one(client)));
        }
        pace_until(begun + Duration::from_secs(u64::from(SECONDS / 2)));
        let before = lab.lb.enter(|| rlb.number("BACKEND", "connect"));
        lab.link(0, false);
        before
    });
    let took = took.into_inner().expect("no panic");
    let failed = took.iter().filter(|(_, _, served)| !served).count();
    let times: Vec<_> = took.iter().map(|&(begun, took, _)| (begun, took)).collect();
    println!("{}", told("all nodes answer", &half(&times, true)));
    println!("{}", told("one is dark", &half(&times, false)));
    println!(
        "{before} attempts for {} sessions before; {failed} failed",
        half(&times, true).len()
    );
    assert_eq!(failed, 0);
    lab.lb.enter(|| rlb.stop());
}
