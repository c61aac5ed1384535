//! `slowstart` beside HAProxy: both read the same file, and their servers get the same weights in the same seconds.

use crate::harness::beside::{self, Beside, WITHIN};
use crate::harness::csv::Row;
use crate::harness::eventually::eventually_true;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::stalls::{Stalls, eventually_if_idle};
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

const WORDS: [&str; 2] = ["0", "1"];
/// Weight of the server that has a slow start.
const WEIGHT: u64 = 16;
/// How late a step may be on an idle machine.
const LATE_MAX: Duration = Duration::from_millis(500);

/// One of the two programs with a service `fe` that has two servers.
struct Balancer {
    beside: Beside,
    peers: Vec<Peer>,
}

impl Balancer {
    /// The first server has these words behind its address.
    fn start(program: &Path, balance: &str, words: &str) -> Self {
        let netns = Netns::loopback();
        let peers = WORDS.map(|word| netns.enter(|| Peer::start(Behaviour::SpeaksFirst(word))));
        let mut service = format!("  balance {balance}\n");
        for ((index, words), peer) in [words, ""].iter().enumerate().zip(&peers) {
            let address = peer.address();
            let _ = writeln!(
                service,
                "  server s{index} {address} weight {WEIGHT} {words}"
            );
        }
        Self {
            beside: Beside::start(program, netns, ("", &service)),
            peers: peers.into(),
        }
    }

    /// The values of these columns of a row.
    fn values(&self, row: &str, columns: &[&str]) -> Vec<String> {
        let csv = self.beside.stat();
        let row = csv.row("fe", row);
        columns
            .iter()
            .map(|column| row.text(column).to_owned())
            .collect()
    }

    /// Takes the first server down and waits until its check says so.
    fn take_down(&mut self) -> Refuses {
        let port = self.peers.remove(0).stop();
        eventually_if_idle(WITHIN, "DOWN", || {
            (self.values("s0", &["status"]) == ["DOWN"]).then_some(())
        });
        port
    }

    /// How many of so many clients get the first server.
    fn served_by_first(&self, clients: usize) -> usize {
        let served = (0..clients).map(|_| {
            let mut word = [0];
            self.beside
                .connect()
                .read_exact(&mut word)
                .expect("a server");
            word
        });
        served.filter(|word| word == b"0").count()
    }
}

/// Runs `script` with both.
fn both(balance: &str, words: &str, script: impl Fn(&mut Balancer) -> Vec<String>) {
    beside::both(|program| {
        let mut balancer = Balancer::start(program, balance, words);
        let seen = script(&mut balancer);
        balancer.beside.stop();
        seen
    });
}

/// HAProxy's weight and `throttle` once `over` of `all` seconds of a slow start are over.
fn step(over: u64, all: u64) -> (u64, u64) {
    let shares = 16 * over / all + 1;
    let eweight = WEIGHT * shares;
    (eweight.div_ceil(16), (100 * eweight + 15) / (16 * WEIGHT))
}

/// Whether a row is at the step of its second, or at the one before: when in the second the step is made, is not known.
fn is_in_step(row: Row<'_>, all: u64) -> bool {
    let over = row.number("lastchg").min(all - 1);
    let shown = (row.number("weight"), row.number("throttle"));
    (over.saturating_sub(1)..=over).any(|over| step(over, all) == shown)
}

/// The server refuses, answers again, and has its share after five seconds: in every second the weights of both programs are
/// those of HAProxy's formula, within one step.
#[test]
fn after_an_outage_the_weight_grows_as_in_haproxy() {
    let words = "check inter 100ms rise 1 fall 1 slowstart 5s";
    both("roundrobin", words, |balancer| {
        let port = balancer.take_down();
        let start = || Peer::start_on(port, Behaviour::SpeaksFirst("0"));
        let peer = balancer.beside.netns.enter(start);
        let begun = eventually_if_idle(WITHIN, "it comes up", || {
            let csv = balancer.beside.stat();
            let row = csv.row("fe", "s0");
            (row.text("status") == "UP").then(Instant::now)
        });
        let (mut weights, mut late) = (Vec::new(), None);
        let stalls = Stalls::begin();
        let took = eventually_if_idle(2 * WITHIN, "the end of the slow start", || {
            let csv = balancer.beside.stat();
            let row = csv.row("fe", "s0");
            if row.text("throttle").is_empty() {
                return Some(begun.elapsed());
            }
            assert_eq!((row.text("status"), row.number("uweight")), ("UP", WEIGHT));
            let weight = row.number("weight");
            let sum = csv.row("fe", "BACKEND").number("weight");
            assert_eq!(sum, WEIGHT + weight);
            // Where a second ends the step may come a moment later.
            if is_in_step(row, 5) {
                late = None;
            } else {
                let now = || (Instant::now(), Stalls::begin());
                let (since, stalls) = late.get_or_insert_with(now);
                let most = LATE_MAX + stalls.so_far();
                assert!(since.elapsed() < most, "{weights:?}, {weight}");
            }
            weights.push(weight);
            None
        });
        let stalled = stalls.so_far();
        let most = Duration::from_secs(7) + stalled;
        assert!(took >= Duration::from_secs(4) && took < most, "{took:?}");
        assert!(weights.is_sorted(), "{weights:?}");
        weights.dedup();
        // In a second without a processor the test sees no step.
        let unseen = usize::try_from(stalled.as_secs()).unwrap_or(0);
        assert!(weights.len() + unseen >= 4, "{weights:?}");
        let stalls = Stalls::begin();
        let columns = ["weight", "uweight", "throttle", "status"];
        let mut seen = vec![format!("{:?}", balancer.values("s0", &columns))];
        let last = &balancer.values("s0", &["lastchg"])[0];
        let most = 3 + stalls.so_far().as_secs();
        assert!(last.parse::<u64>().expect("seconds") < most, "{last}");
        // It is up for the second time.
        let texts = [" is DOWN", " is UP", " is UP"].map(|text| {
            let line = balancer.beside.log.next_with(text);
            let line = line.split("Server ").nth(1).expect("a server's line");
            // Versions have different texts for what the system says.
            let end = line.find(", info").or(line.find(", check duration"));
            line[..end.unwrap_or(line.len())].to_owned()
        });
        seen.extend(texts);
        drop(peer);
        seen
    });
}

/// The turns follow the weight, and so does `maxconn`; commands during a slow start are HAProxy's.
#[test]
fn after_maintenance_turns_and_maxconn_are_reduced_as_in_haproxy() {
    both("roundrobin", "slowstart 100s maxconn 90", |balancer| {
        let columns = ["weight", "uweight", "throttle", "status", "slim"];
        let mut seen = vec![format!("{:?}", balancer.values("s0", &columns))];
        for command in ["disable server fe/s0", "enable server fe/s0"] {
            seen.push(balancer.beside.ask(command));
        }
        let state = |balancer: &Balancer| {
            let text = balancer.beside.ask("show servers state fe");
            let line = text.lines().find(|line| line.contains(" s0 "));
            let line: Vec<&str> = line.expect("the server").split(' ').collect();
            // srv_op_state to srv_iweight.
            line[5..9].join(" ")
        };
        seen.push(format!("{:?}", balancer.values("s0", &columns)));
        seen.push(state(balancer));
        // A sixteenth of one server beside all of another.
        let turns = balancer.served_by_first(34);
        assert!((1..=3).contains(&turns), "{turns} of 34");
        for command in [
            "set server fe/s0 weight 256",
            "get weight fe/s0",
            "set server fe/s0 state drain",
            "set server fe/s0 weight 0",
            "set server fe/s0 weight 16",
        ] {
            seen.push(format!("{command}: {}", balancer.beside.ask(command)));
            seen.push(format!("{:?}", balancer.values("s0", &columns)));
        }
        seen.push(balancer.beside.ask("set server fe/s1 state maint"));
        seen.push(balancer.beside.ask("set server fe/s0 state maint"));
        seen.push(balancer.beside.ask("set server fe/s0 state ready"));
        seen.push(state(balancer));
        // One session, and one percent of 90 more is less than another one.
        let mut first = balancer.beside.connect();
        first.read_exact(&mut [0]).expect("a server");
        let others = [balancer.beside.connect(), balancer.beside.connect()];
        eventually_true(WITHIN, "two wait", || {
            balancer.values("BACKEND", &["qcur"]) == ["2"]
        });
        seen.push(format!("{:?}", balancer.values("s0", &["scur", "slim"])));
        drop((first, others));
        seen
    });
}

/// A map does not follow, and `throttle` says so; an added server has its slow start when it is enabled.
#[test]
fn static_algorithms_and_added_servers_are_as_in_haproxy() {
    let columns = ["weight", "uweight", "throttle", "status"];
    both("static-rr", "slowstart 100s", |balancer| {
        balancer.beside.ask("disable server fe/s0");
        balancer.beside.ask("enable server fe/s0");
        vec![format!("{:?}", balancer.values("s0", &columns))]
    });
    both("leastconn", "", |balancer| {
        let added = "add server fe/n 127.0.0.1:9 slowstart 100s weight 20";
        let mut seen = vec![balancer.beside.ask(added).trim().to_owned()];
        seen.push(format!("{:?}", balancer.values("n", &["status"])));
        seen.push(balancer.beside.ask("enable server fe/n"));
        seen.push(format!("{:?}", balancer.values("n", &columns)));
        seen
    });
}
