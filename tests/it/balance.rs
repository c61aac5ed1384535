//! Which server gets a connection: rotation over all workers, weights, weight 0.

use crate::harness::client::{End, connect, connect_from, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_eq;
use crate::harness::peer::{Behaviour, Peer, Unanswering};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use std::net::Ipv4Addr;

fn three() -> [Peer; 3] {
    ["s1", "s2", "s3"].map(|name| Peer::start(Behaviour::Says(name)))
}

fn sequence(rlb: &Rlb, length: usize) -> Vec<String> {
    (0..length)
        .map(|_| {
            let (name, end) = hear(rlb.address());
            assert_eq!(end, End::Eof);
            name
        })
        .collect()
}

#[test]
fn one_after_the_other_is_an_exact_rotation_across_workers() {
    let peers = three();
    let config = peers.iter().fold(Config::new(), |config, peer| {
        config.server_with(peer.address(), "check = false")
    });
    let rlb = Rlb::start(&config);
    let names = sequence(&rlb, 300);
    for (index, name) in names.iter().enumerate() {
        assert_eq!(*name, names[index % 3], "connection {index} of {names:?}");
    }
    for name in ["s1", "s2", "s3"] {
        assert_eq!(names.iter().filter(|it| *it == name).count(), 100, "{name}");
        eventually_eq(STOP_WITHIN, &(100, 100), || {
            (rlb.number(name, "stot"), rlb.number(name, "lbtot"))
        });
    }
    assert_eq!(peers.each_ref().map(Peer::accepted), [100, 100, 100]);
    rlb.stop();
}

#[test]
fn many_at_once_still_share_exactly() {
    let peers = three();
    let config = peers.iter().fold(Config::new(), |config, peer| {
        config.server_with(peer.address(), "check = false")
    });
    let rlb = Rlb::start(&config);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| sequence(&rlb, 30));
        }
    });
    assert_eq!(peers.each_ref().map(Peer::accepted), [100, 100, 100]);
    rlb.stop();
}

#[test]
fn weights_interleave_smoothly() {
    let peers = three();
    let config = Config::new()
        .server_with(peers[0].address(), "check = false, weight = 3")
        .server_with(peers[1].address(), "check = false")
        .server_with(peers[2].address(), "check = false");
    let rlb = Rlb::start(&config);
    let names = sequence(&rlb, 100);
    assert_eq!(peers.each_ref().map(Peer::accepted), [60, 20, 20]);
    let three_in_a_row = names
        .windows(3)
        .any(|window| window.iter().all(|name| name == "s1"));
    assert!(!three_in_a_row, "{names:?}");
    // In every window as long as the sum of the weights, each server appears as often as its weight.
    for window in names.windows(5) {
        assert_eq!(
            window.iter().filter(|name| *name == "s1").count(),
            3,
            "{names:?}"
        );
    }
    assert_eq!(rlb.csv().row("be", "s1").number("weight"), 3);
    assert_eq!(rlb.csv().row("be", "BACKEND").number("weight"), 5);
    rlb.stop();
}

#[test]
fn weight_0_gets_nothing_and_stays_up() {
    let peers = three();
    let config = Config::new()
        .server_with(peers[0].address(), "check = false, weight = 0")
        .server_with(peers[1].address(), "check = false")
        .server_with(
            peers[2].address(),
            "check = { interval = \"200ms\" }, weight = 0",
        );
    let rlb = Rlb::start(&config);
    assert!(sequence(&rlb, 20).iter().all(|name| name == "s2"));
    // DRAIN is a state; a weight of 0 is not (as HAProxy shows it).
    rlb.wait_status("s3", "UP");
    assert_eq!(peers[0].accepted(), 0);
    rlb.stop();
}

/// What 100 clients with different addresses hear.
fn heard_by_clients(rlb: &Rlb) -> Vec<String> {
    let hear = |number| {
        let client = Ipv4Addr::new(127, 1, number, 7 * (number % 30) + 1);
        let (said, end) = read_to_end(&mut connect_from(client, rlb.address()));
        assert_eq!(end, End::Eof);
        String::from_utf8(said).expect("a name")
    };
    (0..100).map(hear).collect()
}

/// Two balancers that list the same servers in another order, and with other numbers, serve each client by the same one,
/// also when servers go.
#[test]
fn two_balancers_with_maglev_choose_alike() {
    let peers = three();
    let names = ["s1", "s2", "s3"];
    let config = |order: &[usize]| {
        let config = Config::new().backend("balance = \"maglev\"");
        order.iter().fold(config, |config, &at| {
            config.server_named(names[at], peers[at].address(), "check = false")
        })
    };
    let mut one = Rlb::start(&config(&[0, 1, 2]));
    let mut other = Rlb::start(&config(&[2, 0, 1]));
    let all = heard_by_clients(&one);
    assert_eq!(all, heard_by_clients(&other));
    for name in names {
        let served = all.iter().filter(|it| *it == name).count();
        assert!((20..=47).contains(&served), "{name} {served}");
    }
    one.reload(&config(&[0, 2]));
    other.reload(&config(&[2, 0]));
    let left = heard_by_clients(&one);
    assert_eq!(left, heard_by_clients(&other));
    let before_and_after = || all.iter().zip(&left);
    assert!(before_and_after().all(|(before, after)| before == "s2" || before == after));
    assert!(!left.contains(&"s2".to_owned()));
    one.reload(&config(&[1, 2, 0]));
    assert_eq!(all, heard_by_clients(&one));
    one.stop();
    other.stop();
}

/// With round robin it delays as many as make a suspect of it.
#[test]
fn a_server_that_does_not_answer_delays_one_session_with_ewma() {
    let dark = Unanswering::start();
    let quick = Peer::start(Behaviour::Says("quick"));
    let config = Config::new()
        .backend("balance = \"ewma\"")
        .timeout("connect-attempt = \"200ms\"")
        .server_with(dark.address(), "check = false")
        .server_with(quick.address(), "check = false, weight = 2");
    let rlb = Rlb::start(&config);
    assert!(sequence(&rlb, 40).iter().all(|name| name == "quick"));
    // Another one if a connect to the quick one took as long.
    let delayed = rlb.number("s1", "wredis");
    assert!((1..=2).contains(&delayed), "{delayed}");
    eventually_eq(STOP_WITHIN, &40, || rlb.number("s2", "lbtot"));
    rlb.stop();
}

#[test]
fn ewma_spreads_sessions_that_stay() {
    let stay = ["s1", "s2", "s3"].map(|name| Peer::start(Behaviour::SpeaksFirst(name)));
    let config = stay.iter().fold(
        Config::new().backend("balance = \"ewma\""),
        |config, peer| config.server_with(peer.address(), "check = false, maxconn = 20"),
    );
    let rlb = Rlb::start(&config);
    let clients: Vec<_> = (0..60).map(|_| connect(rlb.address())).collect();
    // As many as there is room for: nobody waits.
    for name in ["s1", "s2", "s3"] {
        eventually_eq(STOP_WITHIN, &20, || rlb.number(name, "scur"));
    }
    assert_eq!(rlb.number("BACKEND", "qmax"), 0);
    rlb.stop_after(clients);
}
