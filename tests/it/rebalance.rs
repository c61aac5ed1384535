//! `rebalance`: sessions come back to a server that has returned.

use crate::harness::client::{connect, echo, read_some};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, pace_until};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use crate::upgrade::{Next, upgrade};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(90);
const BEGINS: &str = "backend be rebalances: ";
const REBALANCED: &str = "backend be has rebalanced: ";

/// A server that says hello and answers everything but questions.
fn server() -> Peer {
    Peer::start(Behaviour::script(|mut stream: TcpStream| {
        let mut buffer = [0; 64];
        let mut said = stream.write_all(b"h").is_ok();
        while said {
            said = match read_some(&mut stream, &mut buffer) {
                Ok(length @ 1..) if buffer[0] != b'?' => {
                    stream.write_all(&buffer[..length]).is_ok()
                }
                other => other.is_ok_and(|length| length > 0),
            };
        }
    }))
}

fn greeted(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.read_exact(&mut [0]).expect("the greeting");
    stream
}

/// Clients that are silent, and connect again when their sessions end.
struct Clients {
    address: SocketAddr,
    streams: Vec<TcpStream>,
    /// When sessions have ended.
    ended: Vec<Instant>,
}

impl Clients {
    fn new(address: SocketAddr, count: usize) -> Self {
        Self {
            address,
            streams: (0..count).map(|_| Self::begin(address)).collect(),
            ended: Vec::new(),
        }
    }

    fn begin(address: SocketAddr) -> TcpStream {
        let stream = greeted(address);
        stream.set_nonblocking(true).expect("non-blocking");
        stream
    }

    /// Those whose sessions have ended connect again.
    fn follow(&mut self) {
        for stream in &mut self.streams {
            match read_some(stream, &mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) => {
                    self.ended.push(Instant::now());
                    *stream = Self::begin(self.address);
                }
                other => panic!("no orderly end: {other:?}"),
            }
        }
    }

    /// How many have ended in so much time at most.
    fn most_within(&self, time: Duration) -> usize {
        let from = |first: &Instant| {
            let within = self.ended.iter().filter(|at| **at >= *first);
            within.filter(|at| **at < *first + time).count()
        };
        self.ended.iter().map(from).max().unwrap_or(0)
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        eventually_true(WITHIN, what, || {
            self.follow();
            done(self)
        });
    }
}

fn has_logged(rlb: &Rlb, text: &str) -> bool {
    !rlb.events().with(text).is_empty()
}

fn rebalanced(rlb: &Rlb) -> u64 {
    rlb.metric("rlb_backend_rebalanced_sessions_total{proxy=\"be\"}")
}

/// Clients that are never silent, and those that wait for an answer.
struct Others {
    busy: Vec<TcpStream>,
    waiting: Vec<TcpStream>,
}

impl Others {
    fn new(address: SocketAddr) -> Self {
        let some = || (0..10).map(|_| greeted(address)).collect::<Vec<_>>();
        let mut waiting = some();
        for stream in &mut waiting {
            stream.write_all(b"?").expect("sent");
        }
        Self {
            busy: some(),
            waiting,
        }
    }

    /// The first talk until `over`. A session that ends fails the test.
    fn talk(&mut self, over: &AtomicBool) {
        let begun = Instant::now();
        for turn in 0.. {
            for stream in &mut self.busy {
                echo(stream, b"x");
            }
            if over.load(SeqCst) {
                break;
            }
            pace_until(begun + Duration::from_millis(300) * turn);
        }
        for stream in &self.waiting {
            stream.set_nonblocking(true).expect("non-blocking");
            let read = stream.peek(&mut [0]);
            assert!(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
        }
    }
}

/// 300 silent sessions on two servers, beside ten that move bytes and ten whose clients wait for an answer. The third server
/// comes up, and a reload switches rebalancing on: the third gets its share, spread over the time, and of the twenty none
/// ends.
#[test]
fn sessions_come_back_to_a_server_that_has_returned() {
    let peers = [server(), server(), server()];
    let log = Syslog::udp();
    let config = Config::new()
        .backend("balance = \"leastconn\"")
        .server_with(peers[0].address(), "check = false")
        .server_with(peers[1].address(), "check = false")
        .server_with(peers[2].address(), "check = false, disabled = true")
        .log(format!("udp:{}", log.address()), "raw")
        .stats_at(ports::free())
        .bind(ports::free());
    let mut fixture = Fixture::new(config, "admin");
    let address = fixture.rlb.address();
    let mut clients = Clients::new(address, 300);
    let mut others = Others::new(address);
    assert_eq!(fixture.ask("enable server be/s3"), "\n");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let talk = scope.spawn(|| others.talk(&over));
        let sessions = |rlb: &Rlb| {
            let csv = rlb.csv();
            ["s1", "s2", "s3"].map(|name| csv.row("be", name).number("scur"))
        };
        assert_eq!(sessions(&fixture.rlb), [160, 160, 0]);
        clients.follow();
        assert!(clients.ended.is_empty() && !has_logged(&fixture.rlb, BEGINS));
        let next = fixture.config.clone().backend("rebalance = 100");
        fixture.rlb.reload(&next);
        clients.until("it ends", |_| has_logged(&fixture.rlb, REBALANCED));
        over.store(true, SeqCst);
        talk.join().expect("none of them has ended");
        eventually_true(WITHIN, "all have their shares", || {
            let sessions = sessions(&fixture.rlb);
            let near = |it: &u64| (96..=117).contains(it);
            sessions.iter().sum::<u64>() == 320 && sessions.iter().all(near)
        });
    });
    clients.follow();
    let ended = clients.ended.len();
    // Without one there 107, within a tenth of that.
    assert!((96..=107).contains(&ended), "{ended}");
    // In three seconds those of five at most: 320 a minute, and the rest of a session.
    let burst = clients.most_within(Duration::from_secs(3));
    assert!(burst <= 5 * 320 / 60 + 2, "{burst} in three seconds");
    let rlb = &fixture.rlb;
    assert_eq!(rebalanced(rlb), ended as u64);
    let of = |server: &str| {
        format!("rlb_server_rebalanced_sessions_total{{proxy=\"be\",server=\"{server}\"}}")
    };
    let of_servers = ["s1", "s2", "s3"].map(|server| rlb.metric(&of(server)));
    assert_eq!(
        (of_servers[0] + of_servers[1], of_servers[2]),
        (ended as u64, 0)
    );
    for text in [BEGINS, REBALANCED] {
        assert_eq!(rlb.events().with(text).len(), 1, "{text}");
    }
    let begins = "server s3 has 0 sessions, its share of 320 is 106. Up to 100 % end in a minute.";
    assert!(has_logged(rlb, begins));
    let line = log.next_with(" fe be/s");
    assert!(line.contains(" PD "), "{line}");
    fixture.rlb.stop_after((clients, others));
}

/// A new process goes on with it: no session is ended too much, and none counts twice.
#[test]
fn it_goes_on_after_an_upgrade() {
    let peers = [server(), server()];
    let config = Config::new()
        .backend("balance = \"leastconn\"\nrebalance = 100")
        .server_with(peers[0].address(), "check = false, weight = 9")
        .server_with(peers[1].address(), "check = false, disabled = true")
        .stats_at(ports::free())
        .bind(ports::free());
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let mut clients = Clients::new(fixture.rlb.address(), 40);
    assert_eq!(fixture.ask("enable server be/s2"), "\n");
    clients.until("it has begun", |clients| !clients.ended.is_empty());
    assert!(upgrade(&socket).status.success());
    let mut rlb = fixture.rlb;
    let next = Next::logged(&rlb, 1);
    clients.until("it has gone on", |_| has_logged(&rlb, REBALANCED));
    clients.follow();
    eventually_eq(WITHIN, &[36, 4], || {
        let csv = rlb.csv();
        ["s1", "s2"].map(|name| csv.row("be", name).number("scur"))
    });
    // A client that came while sessions moved may have found the new process empty, and have come to the first again.
    let ended = clients.ended.len();
    assert!((4..=5).contains(&ended), "{ended}");
    eventually_eq(WITHIN, &(ended as u64), || rebalanced(&rlb));
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    drop(clients);
    next.stop();
}
