//! `disable`, `enable` and `shutdown frontend`, `publish` and `unpublish backend`, and `set rate-limit`: the answers of
//! HAProxy 3.5 and what they do.

use crate::harness::client::{End, TIMEOUT, connect, echo, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_eq, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN, command};
use crate::harness::runtime::{Fixture, ask};
use crate::upgrade::Next;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn echoing() -> (Fixture, Peer) {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    (Fixture::new(config, "admin"), peer)
}

#[track_caller]
fn asked(fixture: &Fixture, all: &[(&str, &str)]) {
    for (line, answer) in all {
        assert_eq!(fixture.ask(line), *answer, "{line}");
    }
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

fn status(rlb: &Rlb) -> String {
    rlb.csv().row("fe", "FRONTEND").text("status").to_owned()
}

#[track_caller]
fn is_served(address: SocketAddr) {
    let mut stream = connect(address);
    echo(&mut stream, b"served");
}

#[test]
fn a_disabled_frontend_refuses_clients_until_it_is_enabled() {
    let (fixture, _peer) = echoing();
    let address = fixture.rlb.address();
    let mut before = connect(address);
    echo(&mut before, b"before");
    asked(
        &fixture,
        &[
            ("disable frontend", "A frontend name is expected.\n\n"),
            ("enable frontend", "A frontend name is expected.\n\n"),
            ("shutdown frontend", "A frontend name is expected.\n\n"),
            ("disable frontend be", "No such frontend.\n\n"),
            ("enable frontend nope", "No such frontend.\n\n"),
            ("operator;disable frontend fe", "\nPermission denied\n\n"),
            ("enable frontend fe", "All sockets are already enabled.\n\n"),
            ("disable frontend fe", "\n"),
        ],
    );
    // The answer comes when it is done.
    assert!(is_refused(address) && is_refused(address));
    assert_eq!(status(&fixture.rlb), "PAUSED");
    echo(&mut before, b"the session goes on");
    asked(
        &fixture,
        &[
            (
                "disable frontend fe",
                "All sockets are already disabled.\n\n",
            ),
            (
                "show overrides",
                "# object setting file now\nfrontend fe state open paused\n\n",
            ),
            ("enable frontend fe", "\n"),
        ],
    );
    is_served(address);
    assert_eq!(status(&fixture.rlb), "OPEN");
    for round in 0..10 {
        assert_eq!(fixture.ask("disable frontend fe"), "\n", "{round}");
        assert!(is_refused(address));
        assert_eq!(fixture.ask("enable frontend fe"), "\n", "{round}");
        is_served(address);
    }
    let events = fixture.rlb.events();
    for (text, count) in [("Paused frontend fe.", 11), ("Resumed frontend fe.", 11)] {
        eventually_eq(STOP_WITHIN, &count, || events.with(text).len());
    }
    fixture.rlb.stop_after(before);
}

#[test]
fn a_frontend_that_was_shut_down_cannot_be_enabled() {
    let (fixture, _peer) = echoing();
    let address = fixture.rlb.address();
    let mut before = connect(address);
    echo(&mut before, b"before");
    asked(
        &fixture,
        &[
            ("shutdown frontend fe", "\n"),
            (
                "shutdown frontend fe",
                "Frontend was already shut down.\n\n",
            ),
            (
                "enable frontend fe",
                "Frontend was previously shut down, cannot enable.\n\n",
            ),
            (
                "disable frontend fe",
                "Frontend was previously shut down, cannot disable.\n\n",
            ),
        ],
    );
    assert!(is_refused(address));
    assert_eq!(status(&fixture.rlb), "STOP");
    let metrics = fixture.rlb.http_get("/metrics").expect("served").1;
    let down = "haproxy_frontend_status{proxy=\"fe\",state=\"DOWN\"} 1";
    assert!(metrics.contains(down));
    echo(&mut before, b"the session goes on");
    fixture.rlb.stop_after(before);
}

/// A reload keeps it, also where the same sockets get another length of their queue; an upgrade keeps it; to drop the
/// overrides opens it.
#[test]
fn reloads_and_upgrades_keep_a_disabled_frontend() {
    let peer = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let config = Config::new()
        .bind(address)
        .server_with(peer.address(), "check = false");
    let mut fixture = Fixture::new(config, "admin");
    let config = fixture.config.clone();
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    assert_eq!(
        fixture.ask("unpublish backend be"),
        "Backend unpublished.\n\n"
    );
    assert_eq!(fixture.ask("set maxconn frontend fe 77"), "\n");
    assert_eq!(fixture.ask("set rate-limit sessions global 500"), "\n");
    // A socket that is added does not listen for a moment.
    let added = ports::free();
    let more = Refused::begin(added);
    let next = config.clone().frontend("backlog = 7").bind(added);
    fixture.rlb.reload(&next);
    assert!(is_refused(address));
    more.end();
    assert_eq!(status(&fixture.rlb), "PAUSED");
    assert_eq!(fixture.ask("enable frontend fe"), "\n");
    assert_eq!(hear(address).0, "", "the backend is not published");
    assert_eq!(fixture.ask("publish backend be"), "Backend published.\n\n");
    is_served(address);
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    assert_eq!(
        fixture.ask("unpublish backend be"),
        "Backend unpublished.\n\n"
    );
    let clients = Refused::begin(address);
    let next = upgrade(&fixture, 1);
    let socket = fixture.socket();
    let overrides = "# object setting file now\nglobal sessions-rate none 500\n\
                     frontend fe maxconn none 77\nfrontend fe state open paused\n\
                     backend be state published unpublished\n\n";
    assert_eq!(ask(&socket, "show overrides"), overrides);
    assert!(is_refused(address));
    clients.end();
    let closed = fixture.rlb.events().with("inherited socket closed");
    assert_eq!(closed, Vec::<String>::new());
    let path = fixture.rlb.config_path();
    let path = path.to_str().expect("UTF-8");
    let output = command(&["reload", "--config", path, "--reset-overrides"]);
    assert!(output.status.success(), "{output:?}");
    eventually_true(STOP_WITHIN, "it listens", || !is_refused(address));
    is_served(address);
    let none = "# object setting file now\n\n";
    assert_eq!(ask(&socket, "show overrides"), none);
    next.stop();
    let status = fixture.rlb.process.wait(STOP_WITHIN);
    assert_eq!(status.code(), Some(0));
}

/// Two upgrades with more threads than sockets: the threads share the sockets, and each of them notices when they listen
/// again.
#[test]
fn upgrades_keep_a_frontend_that_was_shut_down_and_a_rate_limit() {
    let peer = Peer::start(Behaviour::Echo);
    let (address, other) = (ports::free(), ports::free());
    let second =
        format!("[[frontend]]\nname = \"other\"\nbind = [\"{other}\"]\ndefault-backend = \"be\"");
    let config = Config::new()
        .bind(address)
        .server_with(peer.address(), "check = false")
        .table(&second);
    let mut fixture = Fixture::new(config, "admin");
    asked(
        &fixture,
        &[
            ("shutdown frontend fe", "\n"),
            ("disable frontend other", "\n"),
            ("set rate-limit connections global 4", "\n"),
        ],
    );
    let clients = [address, other].map(Refused::begin);
    let text = fixture.config.to_string();
    assert!(text.contains("threads = 2"), "{text}");
    fixture
        .rlb
        .rewrite(&text.replace("threads = 2", "threads = 4"));
    let between = upgrade(&fixture, 1);
    fixture
        .rlb
        .rewrite(&text.replace("threads = 2", "threads = 3"));
    let next = upgrade(&fixture, 2);
    eventually_true(STOP_WITHIN, "the process between ends", || !between.lives());
    let overrides = "# object setting file now\nglobal connections-rate none 4\n\
                     frontend fe state open stop\nfrontend other state open paused\n\n";
    asked(
        &fixture,
        &[
            ("show overrides", overrides),
            (
                "enable frontend fe",
                "Frontend was previously shut down, cannot enable.\n\n",
            ),
        ],
    );
    for clients in clients {
        clients.end();
    }
    let closed = fixture.rlb.events().with("inherited socket closed");
    assert_eq!(closed, Vec::<String>::new());
    assert_eq!(fixture.ask("enable frontend other"), "\n");
    // Five at once and the others one after the other, and one of each worker beyond.
    let begun = Instant::now();
    let streams: Vec<TcpStream> = (0..12).map(|_| connect(other)).collect();
    for mut stream in streams {
        echo(&mut stream, b"served");
    }
    let elapsed = begun.elapsed();
    assert!(elapsed > Duration::from_millis(900), "{elapsed:?}");
    assert!(is_refused(address));
    next.stop();
    let status = fixture.rlb.process.wait(STOP_WITHIN);
    assert_eq!(status.code(), Some(0));
}

/// Upgrades, and returns the new process once it answers.
pub(crate) fn upgrade(fixture: &Fixture, count: usize) -> Next {
    let path = fixture.rlb.config_path();
    let path = path.to_str().expect("UTF-8");
    let output = command(&["upgrade", "--config", path]);
    assert!(output.status.success(), "{output:?}");
    let next = Next::logged(&fixture.rlb, count);
    let socket = fixture.socket();
    eventually_true(STOP_WITHIN, "the new process answers", || {
        ask(&socket, "show info").contains(&format!("\nPid: {}\n", next.pid()))
    });
    next
}

/// A client that connects again and again, and is to be refused each time.
struct Refused {
    ends: Arc<AtomicBool>,
    client: JoinHandle<(u32, u32)>,
}

impl Refused {
    /// It has connected once when this returns.
    fn begin(address: SocketAddr) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ends);
        let (begun, begins) = mpsc::sync_channel(1);
        let client = std::thread::spawn(move || {
            let (mut refused, mut others) = (0, 0);
            while !over.load(Relaxed) {
                if is_refused(address) {
                    refused += 1;
                } else {
                    others += 1;
                }
                // Nobody takes all but the first.
                let _ = begun.try_send(());
            }
            (refused, others)
        });
        begins.recv().expect("it connects");
        Self { ends, client }
    }

    #[track_caller]
    fn end(self) {
        self.ends.store(true, Relaxed);
        let (refused, others) = self.client.join().expect("the client's counts");
        assert!(
            refused > 0 && others == 0,
            "{refused} refused, {others} not"
        );
    }
}

/// A renamed frontend is another one: its sockets, which the old one has left, listen again.
#[test]
fn a_frontend_that_takes_over_the_sockets_of_a_disabled_one_listens() {
    let peer = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let config = Config::new()
        .bind(address)
        .server_with(peer.address(), "check = false");
    let mut fixture = Fixture::new(config, "admin");
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    assert!(is_refused(address));
    let config = fixture.config.to_string().replace("\"fe\"", "\"other\"");
    fixture.rlb.reload(&config);
    is_served(address);
    fixture.rlb.stop();
}

/// It was shown as open after `reload reset-overrides`, and nobody could enable it; the log said that it was resumed.
#[test]
fn a_frontend_whose_address_is_taken_meanwhile_stays_disabled() {
    let (fixture, _peer) = echoing();
    let address = fixture.rlb.address();
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    let other = TcpListener::bind(address).expect("the address may be taken");
    let reset = fixture.ask("reload reset-overrides");
    assert!(
        reset.contains(
            "\nfrontend fe cannot listen again and stays disabled\noverrides dropped: 0\n"
        ),
        "{reset}"
    );
    assert_eq!(status(&fixture.rlb), "PAUSED");
    let failed = "Failed to resume frontend, check logs for precise cause (port conflict?).\n\n";
    assert_eq!(fixture.ask("enable frontend fe"), failed);
    assert_eq!(status(&fixture.rlb), "PAUSED");
    eventually_true(STOP_WITHIN, "the log says why", || {
        let events = fixture.rlb.events();
        !events
            .with("listening socket cannot listen again")
            .is_empty()
    });
    drop(other);
    assert_eq!(fixture.ask("enable frontend fe"), "\n");
    is_served(address);
    let events = fixture.rlb.events();
    let resumed = || events.with("Resumed frontend fe.").len();
    eventually_eq(STOP_WITHIN, &1, resumed);
    let busy = format!(
        "Port {} busy while trying to enable frontend fe.",
        address.port()
    );
    assert_eq!(events.with(&busy).len(), 2, "one for each attempt");
    // The other way: a frontend that was shut down can be enabled then.
    assert_eq!(fixture.ask("shutdown frontend fe"), "\n");
    let other = TcpListener::bind(address).expect("the address may be taken");
    fixture.ask("reload reset-overrides");
    assert_eq!(status(&fixture.rlb), "PAUSED");
    drop(other);
    let reset = fixture.ask("reload reset-overrides");
    assert!(reset.ends_with("\noverrides dropped: 1\n\n"), "{reset}");
    is_served(address);
    eventually_eq(STOP_WITHIN, &2, resumed);
    fixture.rlb.stop();
}

/// What is queued is accepted as far as there is room, and reset beyond: neither the command nor a stop waits for it.
#[test]
fn clients_that_wait_for_a_disabled_frontend_are_told() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .frontend("maxconn = 1\nbacklog = 20")
        .server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let address = fixture.rlb.address();
    let mut served = connect(address);
    echo(&mut served, b"served");
    let waiting: Vec<TcpStream> = (0..5).map(|_| connect(address)).collect();
    let begun = Instant::now();
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert!(is_refused(address));
    for mut stream in waiting {
        let (bytes, _) = read_to_end(&mut stream);
        assert!(bytes.is_empty());
    }
    echo(&mut served, b"it goes on");
    fixture.rlb.stop_after(served);
}

/// A unix socket cannot stop listening: its clients wait, as with HAProxy.
#[test]
fn clients_of_a_disabled_unix_frontend_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fe.sock");
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .bind(format!("unix:{}", path.display()))
        .server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    let mut stream = UnixStream::connect(&path).expect("queued");
    stream.write_all(b"waits").expect("sent");
    stream.set_nonblocking(true).expect("non-blocking");
    assert_eq!(fixture.rlb.csv().row("fe", "FRONTEND").number("stot"), 0);
    assert!(stream.read(&mut [0]).is_err());
    assert_eq!(fixture.ask("enable frontend fe"), "\n");
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).expect("served");
    assert_eq!(&echoed, b"waits");
    drop(stream);
    fixture.rlb.stop();
}

fn open_descriptors(rlb: &Rlb) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", rlb.process.id()));
    all.expect("the process is there").count()
}

/// One that a worker has accepted before, because no slot was free, was disconnected.
#[test]
fn a_client_in_hand_of_a_disabled_unix_frontend_waits_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("fe.sock");
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .bind(format!("unix:{}", path.display()))
        .frontend("maxconn = 1")
        .server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let client = || {
        let mut stream = UnixStream::connect(&path).expect("queued");
        stream.write_all(b"waits").expect("sent");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream
    };
    let is_echoed = |stream: &mut UnixStream| {
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).expect("served");
        assert_eq!(&echoed, b"waits");
    };
    let mut served = client();
    is_echoed(&mut served);
    let before = open_descriptors(&fixture.rlb);
    let mut waits = client();
    eventually_true(STOP_WITHIN, "it is in hand", || {
        open_descriptors(&fixture.rlb) > before
    });
    assert_eq!(fixture.ask("disable frontend fe"), "\n");
    drop(served);
    let sessions = || fixture.rlb.csv().row("fe", "FRONTEND").number("scur");
    eventually_eq(STOP_WITHIN, &0, sessions);
    waits.set_nonblocking(true).expect("non-blocking");
    let error = waits.read(&mut [0]).expect_err("it waits");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    waits.set_nonblocking(false).expect("blocking");
    assert_eq!(fixture.ask("enable frontend fe"), "\n");
    is_echoed(&mut waits);
    drop(waits);
    fixture.rlb.stop();
}

/// The answers of HAProxy 3.5.
#[test]
fn servers_of_a_listen_that_was_shut_down_are_not_changed() {
    let peer = Peer::start(Behaviour::Echo);
    let listen = format!(
        "[[listen]]\nname = \"lst\"\nbind = [\"127.0.0.1:0\"]\n\
         servers = [{{ name = \"a\", address = \"{}\", check = false }}]",
        peer.address()
    );
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .table(&listen);
    let fixture = Fixture::new(config, "admin");
    let disabled = "Proxy is disabled.\n\n";
    asked(
        &fixture,
        &[
            ("shutdown frontend lst", "\n"),
            ("disable server lst/a", disabled),
            ("set server lst/a state maint", disabled),
            ("set weight lst/a 5", disabled),
            ("disable health lst/a", disabled),
            ("clear counters server lst/a", disabled),
            ("get weight lst/a", "1 (initial 1)\n\n"),
            ("shutdown frontend fe", "\n"),
            ("disable server be/s1", "\n"),
            ("show fd foo", "Invalid FD type\n\n"),
        ],
    );
    fixture.rlb.stop();
}

#[test]
fn an_unpublished_backend_gets_no_sessions() {
    let (one, two) = (Peer::start(Behaviour::Echo), Peer::start(Behaviour::Echo));
    let listen = format!(
        "[[listen]]\nname = \"lst\"\nbind = [\"127.0.0.1:0\"]\n\
         servers = [{{ name = \"a\", address = \"{}\", check = false }}]",
        two.address()
    );
    let config = Config::new()
        .server_with(one.address(), "check = false")
        .table(&listen);
    let fixture = Fixture::new(config, "admin");
    asked(
        &fixture,
        &[
            ("publish backend", "No such backend.\n\n"),
            ("unpublish backend", "No such backend.\n\n"),
            ("unpublish backend fe", "No such backend.\n\n"),
            ("operator;unpublish backend be", "\nPermission denied\n\n"),
            ("unpublish backend be", "Backend unpublished.\n\n"),
            ("unpublish backend be", "Backend unpublished.\n\n"),
            ("unpublish backend lst", "Backend unpublished.\n\n"),
            (
                "set severity-output number;publish backend lst;unpublish backend lst",
                "\n[6]: Backend published.\n\n[6]: Backend unpublished.\n\n",
            ),
        ],
    );
    assert_eq!(hear(fixture.rlb.address()), (String::new(), End::Eof));
    // A `listen` uses its own backend all the same.
    is_served(fixture.rlb.addresses("lst")[0]);
    let csv = fixture.rlb.csv();
    let backend = csv.row("be", "BACKEND");
    assert_eq!(
        (backend.text("status"), backend.number("stot")),
        ("UP (UNPUB)", 0)
    );
    assert_eq!(csv.row("fe", "FRONTEND").number("stot"), 1);
    assert_eq!(fixture.ask("publish backend be"), "Backend published.\n\n");
    is_served(fixture.rlb.address());
    assert_eq!(fixture.rlb.csv().row("be", "BACKEND").text("status"), "UP");
    fixture.rlb.stop();
}

#[test]
fn the_rate_of_connections_is_limited() {
    let (fixture, _peer) = echoing();
    let usage = "'set rate-limit' only supports :\n   - 'connections global' to set the \
                 per-process maximum connection rate\n   - 'sessions global' to set the \
                 per-process maximum session rate\n\n";
    asked(
        &fixture,
        &[
            ("set rate-limit", usage),
            ("set rate-limit connections", usage),
            ("set rate-limit foo global 1", usage),
            (
                "set rate-limit connections global",
                "Expects an integer value.\n\n",
            ),
            (
                "set rate-limit sessions global -1",
                "Value out of range.\n\n",
            ),
            ("set rate-limit connections global foo", "\n"),
            (
                "operator;set rate-limit sessions global 1",
                "\nPermission denied\n\n",
            ),
            ("set rate-limit sessions global 9", "\n"),
            ("set rate-limit connections global 4", "\n"),
        ],
    );
    let info = fixture.ask("show info");
    assert!(info.contains("\nConnRateLimit: 4\n") && info.contains("\nSessRateLimit: 9\n"));
    // Four at once, and one of each worker beyond; the others one after the other.
    let begun = Instant::now();
    let streams: Vec<TcpStream> = (0..10).map(|_| connect(fixture.rlb.address())).collect();
    let mut times = Vec::new();
    for mut stream in streams {
        echo(&mut stream, b"served");
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    assert!(times[9] > Duration::from_millis(700), "{times:?}");
    // Without a limit nobody waits.
    let begun = Instant::now();
    assert_eq!(fixture.ask("set rate-limit connections global 1"), "\n");
    let mut waiting = connect(fixture.rlb.address());
    waiting.write_all(b"served").expect("sent");
    asked(
        &fixture,
        &[
            ("set rate-limit connections global 0", "\n"),
            ("set rate-limit sessions global 0", "\n"),
        ],
    );
    let served = eventually(TIMEOUT, "served", || {
        let mut echoed = [0; 6];
        waiting
            .read_exact(&mut echoed)
            .ok()
            .map(|()| begun.elapsed())
    });
    assert!(served < Duration::from_secs(1), "{served:?}");
    drop(waiting);
    fixture.rlb.stop();
}

/// The lines of an answer that begin with this.
fn lines<'a>(answer: &'a str, with: &str) -> Vec<&'a str> {
    answer
        .lines()
        .filter(|line| line.starts_with(with))
        .collect()
}

#[test]
fn the_process_is_looked_at() {
    let (fixture, _peer) = echoing();
    let mut stream = connect(fixture.rlb.address());
    echo(&mut stream, b"hello");
    let activity = fixture.ask("show activity");
    assert_eq!(lines(&activity, "accepted: 1 [ ").len(), 1, "{activity}");
    assert_eq!(lines(&activity, "curr_sess: 1 [ ").len(), 1, "{activity}");
    let threads = fixture.ask("show threads");
    for part in [
        " name=worker-0 ",
        " name=worker-1 ",
        " sess=1\n",
        "\n* Thread ",
    ] {
        assert!(threads.contains(part), "{part} in {threads}");
    }
    let all = fixture.ask("show fd");
    assert!(all.lines().count() > 10, "{all}");
    assert!(
        all.contains("socket:[") && all.contains("anon_inode:"),
        "{all}"
    );
    let first = all.lines().next().expect("a line");
    let number = first.split(':').next().expect("a number").trim();
    assert_eq!(
        fixture.ask(&format!("show fd {number}")),
        format!("{first}\n\n")
    );
    let logs = fixture.ask("show startup-logs");
    assert!(
        logs.starts_with("[NOTICE]   (") && logs.contains(") : rlb version is "),
        "{logs}"
    );
    asked(
        &fixture,
        &[
            ("show fd 99999", "\n"),
            ("show default-server", "\n"),
            ("show default-server be", "\n"),
            ("show default-server nope", "Can't find backend.\n\n"),
            ("user;show activity", "\nPermission denied\n\n"),
            ("user;show fd", "\nPermission denied\n\n"),
            ("user;show startup-logs", "\nPermission denied\n\n"),
        ],
    );
    fixture.rlb.stop_after(stream);
}
