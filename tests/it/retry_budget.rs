//! `retry-budget`: how often the sessions of a backend that is dead ask its servers.

use crate::harness::client::{TIMEOUT, connect, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_eq;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::rlb::{Rlb, Start};
use crate::harness::syslog::Syslog;

/// Clients that come at once.
const CLIENTS: u64 = 60;
/// Retries that are allowed in ten seconds without a first attempt.
const LEAST: u64 = 100;
const DENIED: &str = "rlb_backend_retries_denied_total{proxy=\"be\"}";

/// Two servers that refuse, which nothing checks.
fn dead(servers: &[Refuses; 2], budget: &str) -> Config {
    let config = Config::new().backend("retries = 1").backend(budget);
    servers.iter().fold(config, |config, server| {
        config.server_with(server.address(), "check = false")
    })
}

/// All clients connect, and wait for their end.
fn all_end(rlb: &Rlb) {
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(rlb.address())).collect();
    for mut client in clients {
        assert!(read_to_end(&mut client).0.is_empty());
    }
}

/// Connects that were refused in the namespace of this thread, as the kernel has counted them.
fn refused_connects() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("it is readable");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).expect("two lines");
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs
        .find(|(name, _)| *name == "AttemptFails")
        .expect("the kernel has it");
    value.parse().expect("a number")
}

#[test]
fn a_dead_backend_is_not_hammered() {
    if !needs::root() {
        return;
    }
    let netns = Netns::loopback();
    netns.enter(|| {
        let servers = [Refuses::start(), Refuses::start()];
        let log = Syslog::udp();
        let config = |budget: &str| {
            let config = dead(&servers, budget);
            config.log(format!("udp:{}", log.address()), "raw")
        };
        let mut rlb = Start::new(&config("retry-budget = 20"))
            .netns(&netns)
            .ready();
        all_end(&rlb);
        eventually_eq(TIMEOUT, &CLIENTS, || rlb.number("BACKEND", "econ"));
        let (asked, refused) = (rlb.number("BACKEND", "connect"), refused_connects());
        assert_eq!(asked, refused);
        let most = CLIENTS + LEAST + CLIENTS / 5;
        assert!(asked > CLIENTS && asked <= most, "{asked} of {most}");
        let denied = rlb.metric(DENIED);
        assert!(denied > 0 && denied <= CLIENTS, "{denied}");
        let event = rlb.events().wait_for("no retry: retry-budget used up");
        assert!(event.contains("\"retry_budget\":20"), "{event}");
        for _ in 0..CLIENTS {
            let line = log.next_with(" fe be/");
            assert!(line.contains(" SC "), "{line}");
        }
        let (_, page) = rlb.http_get("/").expect("answered");
        let tip = format!("Not made because of retry-budget: {denied}");
        assert!(page.contains(&tip));

        // 0 takes it away.
        rlb.reload(&config("retry-budget = 0"));
        all_end(&rlb);
        eventually_eq(TIMEOUT, &(2 * CLIENTS), || rlb.number("BACKEND", "econ"));
        let more = refused_connects() - refused;
        assert!(more > most, "{more}: the test tests nothing");
        let (_, text) = rlb.http_get("/metrics").expect("answered");
        assert!(!text.contains(DENIED), "only where there is one");
        rlb.stop();
    });
}

/// One of two servers refuses: the budget is for each session that has to leave it.
#[test]
fn clients_are_served_within_the_budget() {
    let refuses = Refuses::start();
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new()
        .backend("retry-budget = 1")
        .server_with(refuses.address(), "check = false")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    for _ in 0..50 {
        assert_eq!(read_to_end(&mut connect(rlb.address())).0, b"hello");
    }
    assert_eq!(rlb.metric(DENIED), 0);
    rlb.stop();
}
