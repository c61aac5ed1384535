//! Servers with `maxconn`: sessions that wait in queues. HAProxy and rlb under its name run the same file, see the same
//! clients, and must tell the same.

use crate::harness::beside::{self, Beside, WITHIN};
use crate::harness::client::{End, connect, read_to_end, reset};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_eq;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer, Unanswering};
use crate::harness::rlb::{PROGRAM, Rlb};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;

const WORDS: [&str; 3] = ["0", "1", "2"];
/// The columns that are compared.
const COLUMNS: [&str; 12] = [
    "qcur", "qmax", "scur", "smax", "slim", "stot", "econ", "wretr", "wredis", "qlimit", "lbtot",
    "cli_abrt",
];

/// One of the two programs with a service `fe` of these lines.
struct Balancer {
    beside: Beside,
    _peers: [Peer; 3],
    /// What was seen of it.
    seen: Vec<String>,
}

/// A client, and what its server has said.
struct Client {
    stream: TcpStream,
}

impl Balancer {
    fn start(program: &Path, lines: &str, servers: &[&str]) -> Self {
        let netns = Netns::loopback();
        let peers = WORDS.map(|word| netns.enter(|| Peer::start(Behaviour::SpeaksFirst(word))));
        let mut service = lines.to_owned();
        for ((index, words), peer) in servers.iter().enumerate().zip(&peers) {
            let _ = writeln!(service, "  server s{index} {} {words}", peer.address());
        }
        Self {
            beside: Beside::start(program, netns, ("  option tcplog\n", &service)),
            _peers: peers,
            seen: Vec::new(),
        }
    }

    fn number(&self, row: &str, column: &str) -> u64 {
        self.beside.stat().row("fe", row).number(column)
    }

    /// Waits until a column of a row has this value.
    #[track_caller]
    fn wait(&self, row: &str, column: &str, value: u64) {
        eventually_eq(WITHIN, &value, || self.number(row, column));
    }

    /// A client that does not speak.
    fn client(&self) -> Client {
        let stream = self.beside.connect();
        Client { stream }
    }

    /// Notes what the statistics say.
    fn note(&mut self, of: &str) {
        let csv = self.beside.stat();
        for row in csv.rows().filter(|row| row.text("pxname") == "fe") {
            let name = row.text("svname");
            if name != "FRONTEND" {
                let values = COLUMNS.map(|column| format!("{column}={}", row.text(column)));
                self.seen.push(format!("{of}: {name} {}", values.join(" ")));
            }
        }
    }

    /// Notes the line of the session that ends next, without its times; and whether it has waited.
    fn note_line(&mut self) {
        let line = self.beside.log.next_with(" fe ");
        let line = line.split(" fe ").nth(1).expect("a session's line");
        let fields: Vec<&str> = line.split_whitespace().collect();
        let times: Vec<i64> = fields[1]
            .split('/')
            .map(|time| time.parse().expect("a time"))
            .collect();
        let waited = match (times[0], fields[3]) {
            (..0, _) => "not queued",
            (300.., "sQ") => "for 300 ms",
            // On a busy machine a slot that is free takes its time.
            _ => "in time",
        };
        let connected = times[1] >= 0;
        self.seen.push(format!(
            "{} {waited} connected={connected} {}",
            fields[0],
            fields[2..].join(" ")
        ));
    }

    fn stop(self) -> Vec<String> {
        self.beside.stop();
        self.seen
    }
}

impl Client {
    /// The number of the server that it has.
    fn server(&mut self) -> String {
        let mut word = [0];
        self.stream
            .read_exact(&mut word)
            .expect("its server speaks");
        char::from(word[0]).to_string()
    }

    /// Whether it waits still.
    fn waits(&self) -> bool {
        self.stream.set_nonblocking(true).expect("non-blocking");
        let read = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("blocking");
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    fn end(mut self) -> End {
        read_to_end(&mut self.stream).1
    }
}

/// Runs `script` with both. Returns what was seen.
fn both(lines: &str, servers: &[&str], script: impl Fn(&mut Balancer)) -> Vec<String> {
    beside::both(|program| {
        let mut balancer = Balancer::start(program, lines, servers);
        script(&mut balancer);
        balancer.stop()
    })
}

#[test]
fn clients_wait_in_the_order_in_which_they_came_and_the_lines_say_so() {
    // With `roundrobin` HAProxy 3.5 lets the second client wait now and then although a server is free.
    let seen = both(
        "  balance static-rr\n  timeout queue 10s\n",
        &["maxconn 1", "maxconn 1"],
        |balancer| {
            let mut one = balancer.client();
            let mut servers = vec![one.server()];
            let mut two = balancer.client();
            servers.push(two.server());
            let mut waiting = Vec::new();
            for count in 1..=4 {
                waiting.push(balancer.client());
                balancer.wait("BACKEND", "qcur", count);
            }
            balancer.note("full");
            drop(one);
            let mut three = waiting.remove(0);
            assert_eq!(three.server(), servers[0]);
            balancer.wait("BACKEND", "qcur", 3);
            assert!(waiting.iter().all(Client::waits));
            balancer.note_line();
            drop(two);
            let mut four = waiting.remove(0);
            assert_eq!(four.server(), servers[1]);
            balancer.note_line();
            drop(three);
            assert_eq!(waiting[0].server(), servers[0]);
            balancer.note_line();
            drop(waiting.remove(0));
            assert_eq!(waiting[0].server(), servers[0]);
            balancer.note_line();
            drop(waiting);
            balancer.note_line();
            drop(four);
            balancer.note_line();
            balancer.wait("BACKEND", "scur", 0);
            balancer.note("empty");
        },
    );
    if !seen.is_empty() {
        let lines: Vec<&str> = seen.iter().map(|line| &**line).collect();
        assert!(
            lines.contains(&"fe/s0 in time connected=true 1 -- 4/4/3/0/0 0/1"),
            "{lines:#?}"
        );
    }
}

#[test]
fn clients_that_wait_for_too_long_or_leave_are_told_and_counted() {
    let seen = both("  timeout queue 300ms\n", &["maxconn 1"], |balancer| {
        let mut first = balancer.client();
        first.server();
        let late = balancer.client();
        balancer.wait("BACKEND", "qcur", 1);
        assert_eq!(late.end(), End::Eof);
        balancer.note_line();
        let gone = balancer.client();
        balancer.wait("BACKEND", "qcur", 1);
        drop(gone);
        balancer.note_line();
        let gone = balancer.client();
        balancer.wait("BACKEND", "qcur", 1);
        reset(gone.stream);
        balancer.note_line();
        // HAProxy tells a reset from a FIN by its second letter.
        let line = balancer.seen.last_mut().expect("just noted");
        *line = line.replace(" CD ", " CQ ");
        balancer.wait("BACKEND", "qcur", 0);
        balancer.note("they have gone");
        drop(first);
        balancer.note_line();
    });
    if !seen.is_empty() {
        assert!(
            seen[0].starts_with("fe/<NOSRV> for 300 ms connected=false 0 sQ "),
            "{seen:#?}"
        );
        assert!(seen[1].contains(" CQ "), "{seen:#?}");
    }
}

#[test]
fn a_request_waits_although_its_client_sends_no_more_unless_abortonclose_says_so() {
    for (option, served) in [("", true), ("  option abortonclose\n", false)] {
        both(option, &["maxconn 1"], |balancer| {
            let mut first = balancer.client();
            first.server();
            let mut second = balancer.client();
            second.stream.write_all(b"x").expect("sent");
            second.stream.shutdown(Shutdown::Write).expect("a FIN");
            if served {
                balancer.wait("BACKEND", "qcur", 1);
                drop(first);
                assert_eq!(second.server(), "0");
                assert_eq!(read_to_end(&mut second.stream), (b"x".into(), End::Eof));
                balancer.note_line();
            } else {
                assert_eq!(second.end(), End::Eof);
                drop(first);
            }
            balancer.note_line();
        });
    }
}

#[test]
fn a_server_by_hash_has_a_queue_of_its_own() {
    let seen = both(
        "  balance source\n  timeout queue 10s\n",
        &["maxconn 1 maxqueue 1", "maxconn 1 maxqueue 1"],
        |balancer| {
            let mut first = balancer.client();
            let server = format!("s{}", first.server());
            let mut second = balancer.client();
            balancer.wait(&server, "qcur", 1);
            balancer.note("one waits");
            assert_eq!(balancer.client().end(), End::Eof);
            balancer.note_line();
            drop(first);
            second.server();
            balancer.note_line();
            balancer.note("none waits");
            drop(second);
            balancer.note_line();
        },
    );
    if !seen.is_empty() {
        assert!(seen.iter().any(|line| line.contains(" SQ ")), "{seen:#?}");
    }
}

/// A client with an address of its own, of which a ring of servers makes a choice.
fn from_address(balancer: &Balancer, number: u8) -> Client {
    let client = Ipv4Addr::new(127, 0, 7 * number, 13 * number + 1);
    let stream = balancer.beside.connect_from(client);
    Client { stream }
}

/// Runs `script` with both in a backend by hash with this word, whose servers may have a session each. Its first three
/// clients are at them.
fn preserving_affinity(word: &str, script: impl Fn(&mut Balancer, [Client; 3])) -> Vec<String> {
    let lines = format!(
        "  balance source\n  hash-type consistent\n  hash-preserve-affinity {word}\n  timeout queue 1s\n"
    );
    beside::both_since((3, 2), |program| {
        let mut balancer = Balancer::start(program, &lines, &["maxconn 1 maxqueue 2"; 3]);
        let mut first = [0, 1, 2].map(|number| from_address(&balancer, number));
        let servers = first.each_mut().map(Client::server);
        balancer.seen.push(format!("first: {servers:?}"));
        script(&mut balancer, first);
        balancer.stop()
    })
}

#[test]
fn a_hash_passes_over_servers_that_are_full() {
    let seen = preserving_affinity("maxconn", |balancer, [one, two, _three]| {
        balancer.note("full");
        // The place before its own is also HAProxy's for a client whose hash passes over all.
        let late = from_address(balancer, 6);
        balancer.wait("s1", "qcur", 1);
        balancer.note("one waits");
        assert_eq!(late.end(), End::Eof);
        balancer.note_line();
        for (leaves, comes) in [(one, 3), (two, 5)] {
            drop(leaves);
            balancer.note_line();
            let mut client = from_address(balancer, comes);
            let server = client.server();
            balancer.seen.push(format!("{comes} is at {server}"));
            drop(client);
            balancer.note_line();
        }
        balancer.note("all have left");
    });
    if !seen.is_empty() {
        assert_eq!(seen[0], r#"first: ["1", "0", "2"]"#);
        assert!(seen.iter().any(|line| line.contains(" sQ ")), "{seen:#?}");
    }
}

#[test]
fn a_hash_passes_over_servers_whose_queues_are_full() {
    let seen = preserving_affinity("maxqueue", |balancer, _first| {
        // The servers that the clients wait for, as HAProxy 3.5 chooses them.
        let mut waiting = Vec::new();
        for (number, server, count) in [
            (3, "s1", 1),
            (4, "s0", 1),
            (5, "s1", 2),
            (6, "s0", 2),
            (7, "s2", 1),
            (8, "s2", 2),
        ] {
            waiting.push(from_address(balancer, number));
            balancer.wait(server, "qcur", count);
        }
        balancer.note("as many wait as may");
        let late = from_address(balancer, 6);
        assert_eq!(late.end(), End::Eof);
        balancer.note_line();
        drop(waiting);
    });
    if !seen.is_empty() {
        assert!(seen.iter().any(|line| line.contains(" SQ ")), "{seen:#?}");
    }
}

/// Where HAProxy 3.5 has all of them wait for one server, whatever their hashes are: docs/differences.md.
#[test]
fn clients_whose_hashes_pass_over_all_wait_for_several_servers() {
    if !needs::root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("haproxy");
    std::os::unix::fs::symlink(PROGRAM, &program).expect("a link");
    let lines = "  balance source\n  hash-type consistent\n  hash-preserve-affinity maxconn\n";
    let balancer = Balancer::start(&program, lines, &["maxconn 1"; 3]);
    let clients: Vec<Client> = (0..19).map(|it| from_address(&balancer, it)).collect();
    balancer.wait("BACKEND", "scur", 19);
    let waiting = ["s0", "s1", "s2"].map(|server| balancer.number(server, "qcur"));
    assert_eq!(waiting.iter().sum::<u64>(), 16);
    assert!(waiting.iter().all(|&count| count >= 3), "{waiting:?}");
    drop(clients);
    balancer.stop();
}

/// A backend in which whoever waits for a server that leaves goes to another one.
fn by_source() -> String {
    // HAProxy 2.6 does so with this option alone, 3.5 only without it.
    let old = needs::haproxy().is_some_and(|haproxy| needs::version(&haproxy) < (3, 0));
    let option = if old { "  option redispatch\n" } else { "" };
    format!("  balance source\n{option}  timeout queue 10s\n")
}

#[test]
fn an_order_to_end_the_sessions_of_a_server_leaves_those_that_have_waited_for_it() {
    both(&by_source(), &["maxconn 1", "maxconn 1"], |balancer| {
        let mut first = balancer.client();
        let server = first.server();
        let mut waiting = Vec::new();
        for count in 1..=2 {
            waiting.push(balancer.client());
            balancer.wait(&format!("s{server}"), "qcur", count);
        }
        balancer
            .beside
            .ask(&format!("set server fe/s{server} state maint"));
        let other = waiting[0].server();
        balancer.wait(&format!("s{other}"), "qcur", 1);
        balancer
            .beside
            .ask(&format!("shutdown sessions server fe/s{server}"));
        first.end();
        drop(waiting.remove(0));
        assert_eq!(waiting[0].server(), other);
    });
}

#[test]
fn who_waits_for_a_server_that_leaves_is_served_by_another() {
    both(&by_source(), &["maxconn 1", "maxconn 1"], |balancer| {
        let mut first = balancer.client();
        let server = first.server();
        let mut second = balancer.client();
        balancer.wait(&format!("s{server}"), "qcur", 1);
        balancer
            .beside
            .ask(&format!("set server fe/s{server} state maint"));
        let other = second.server();
        assert_ne!(other, server);
        balancer.note("it has left");
        drop(second);
        balancer.note_line();
        drop(first);
        balancer.note_line();
    });
}

#[test]
fn an_operator_sets_the_limit_and_the_first_in_the_queue_get_the_slots() {
    both("  timeout queue 10s\n", &["maxconn 1"], |balancer| {
        let mut first = balancer.client();
        first.server();
        let mut waiting: Vec<Client> = Vec::new();
        for count in 1..=3 {
            waiting.push(balancer.client());
            balancer.wait("BACKEND", "qcur", count);
        }
        assert_eq!(balancer.beside.ask("set maxconn server fe/s0 3").trim(), "");
        // Three have slots now: with HAProxy the second one that waits gets its slot when another one ends.
        waiting[0].server();
        balancer.beside.ask("set maxconn server fe/s0 4");
        waiting[1].server();
        for wrong in ["fe/s0 x", "fe/s0 5x", "fe/s0", "fe/s9 1", "nowhere/s0 1"] {
            let answer = balancer.beside.ask(&format!("set maxconn server {wrong}"));
            balancer.seen.push(answer.trim().to_owned());
        }
        drop(first);
        waiting[2].server();
        balancer.wait("BACKEND", "scur", 3);
        balancer.note("none waits");
        balancer.beside.ask("set maxconn server fe/s0 0");
        balancer.note("no limit");
    });
}

#[test]
fn a_dynamic_limit_grows_with_the_sessions_of_the_backend() {
    both(
        "  fullconn 10\n  timeout queue 10s\n",
        &["minconn 1 maxconn 5"],
        |balancer| {
            // 5 of 10: half of maxconn is 2.
            let mut clients: Vec<Client> = Vec::new();
            for _ in 1..=5 {
                clients.push(balancer.client());
            }
            balancer.wait("BACKEND", "scur", 5);
            let mut first = clients.remove(0);
            first.server();
            drop(first);
            balancer.wait("s0", "scur", 2);
            balancer.wait("BACKEND", "qcur", 2);
            balancer.note("two of four");
            // HAProxy lets the last one pass those that wait, or has it wait although there is a slot.
            for line in &mut balancer.seen {
                let fields = line.split(' ');
                let same = |it: &&str| !it.starts_with("lbtot") && !it.starts_with("qmax");
                *line = fields.filter(same).collect::<Vec<_>>().join(" ");
            }
        },
    );
}

/// A backend whose server may have so many sessions.
fn limited(peer: &Peer, maxconn: u32) -> Config {
    let limit = format!("maxconn = {maxconn}");
    let config = Config::new().timeout("queue = \"20s\"");
    config.server_with(peer.address(), &limit)
}

#[test]
fn a_reload_that_raises_the_limit_serves_those_that_wait_and_one_that_lowers_it_ends_nobody() {
    let peer = Peer::start(Behaviour::SpeaksFirst("x"));
    let mut rlb = Rlb::start(&limited(&peer, 1));
    let speaks = |stream: &mut TcpStream| stream.read_exact(&mut [0]).expect("its server speaks");
    let mut first = connect(rlb.address());
    speaks(&mut first);
    let mut waiting: Vec<TcpStream> = Vec::new();
    for count in 1..=3 {
        waiting.push(connect(rlb.address()));
        eventually_eq(WITHIN, &count, || rlb.number("BACKEND", "qcur"));
    }
    rlb.reload(&limited(&peer, 3));
    speaks(&mut waiting[0]);
    speaks(&mut waiting[1]);
    assert_eq!(rlb.number("BACKEND", "qcur"), 1);
    // Fewer than there are: nobody gets a slot before there are fewer sessions.
    rlb.reload(&limited(&peer, 2));
    drop(first);
    eventually_eq(WITHIN, &2, || rlb.number("s1", "scur"));
    assert_eq!(rlb.number("BACKEND", "qcur"), 1);
    drop(waiting.remove(0));
    speaks(&mut waiting[1]);
    // Without a limit nobody waits.
    let late: Vec<TcpStream> = (0..3).map(|_| connect(rlb.address())).collect();
    eventually_eq(WITHIN, &3, || rlb.number("BACKEND", "qcur"));
    rlb.reload(&limited(&peer, 0));
    for mut stream in late {
        speaks(&mut stream);
    }
    drop(waiting);
    eventually_eq(WITHIN, &0, || rlb.number("BACKEND", "scur"));
    assert_eq!(rlb.number("s1", "scur"), 0);
    rlb.stop();
}

/// A thousand sessions, forty at once, over four slots: each is served, none twice, and nothing is left behind.
#[test]
fn a_thousand_sessions_over_four_slots_are_all_served() {
    let peers = WORDS.map(|word| Peer::start(Behaviour::Says(word)));
    let mut config = Config::new().timeout("queue = \"60s\"");
    for (peer, maxconn) in peers.iter().zip([1, 2, 1]) {
        config = config.server_with(peer.address(), &format!("maxconn = {maxconn}"));
    }
    let rlb = Rlb::start(&config);
    let address = rlb.address();
    let client = move || {
        let answers = (0..25).map(|_| read_to_end(&mut connect(address)).0);
        answers.filter(|said| said.len() == 1).count()
    };
    let clients: Vec<_> = (0..40).map(|_| std::thread::spawn(client)).collect();
    let served = clients.into_iter().map(|it| it.join().expect("it ends"));
    let served: usize = served.sum();
    assert_eq!(served, 1_000);
    let servers = ["s1", "s2", "s3"];
    let sessions = servers.map(|server| rlb.number(server, "stot"));
    assert_eq!(sessions.iter().sum::<u64>(), 1_000);
    // A connect that takes longer than usual is made twice.
    let attempts = rlb.number("BACKEND", "connect");
    assert!((1_000..1_050).contains(&attempts), "{attempts}");
    let accepted = peers.iter().map(|peer| peer.accepted() as u64).sum();
    assert!((1_000..=attempts).contains(&accepted), "{accepted}");
    let most = servers.map(|server| rlb.number(server, "smax"));
    assert_eq!(most, [1, 2, 1]);
    assert!(rlb.number("BACKEND", "qmax") > 4);
    eventually_eq(WITHIN, &0, || rlb.number("BACKEND", "scur"));
    assert_eq!(rlb.number("BACKEND", "qcur"), 0);
    rlb.stop();
}

/// One server leaves clients without an answer, and the other is full: they wait for its slots, also after the connect
/// timeout has ended their attempts.
#[test]
fn clients_of_a_server_that_does_not_answer_wait_for_the_slots_of_another() {
    let (dark, peer) = (
        Unanswering::start(),
        Peer::start(Behaviour::SpeaksFirst("x")),
    );
    let config = Config::new()
        .timeout("connect = \"1s\", queue = \"20s\"")
        .server_with(dark.address(), "check = false, maxconn = 4")
        .server_with(peer.address(), "check = false, maxconn = 2");
    let rlb = Rlb::start(&config);
    let speaks = |stream: &mut TcpStream| stream.read_exact(&mut [0]).expect("its server speaks");
    let mut served = [(); 2].map(|()| connect(rlb.address()));
    served.iter_mut().for_each(speaks);
    let mut waiting = [(); 2].map(|()| connect(rlb.address()));
    eventually_eq(WITHIN, &2, || rlb.number("BACKEND", "qcur"));
    eventually_eq(WITHIN, &0, || rlb.number("s1", "scur"));
    assert_eq!(rlb.number("BACKEND", "qcur"), 2);
    drop(served);
    waiting.iter_mut().for_each(speaks);
    drop(waiting);
    assert_eq!(rlb.number("BACKEND", "econ"), 0);
    rlb.stop();
}
