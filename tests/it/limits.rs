//! Limits: maxconn of the process and of a frontend, and the descriptor limit.

use crate::harness::client::{TIMEOUT, connect, echo, hear, http_get};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, steadily};
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start};
use crate::harness::runtime;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Connections above the limit wait in the backlog, are not refused, and are served later.
fn excess_waits(config: Config, at_once: u64, event: &str) {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&config.server_with(peer.address(), "check = false"));
    let mut served: Vec<TcpStream> = (0..at_once).map(|_| connect(rlb.address())).collect();
    for stream in &mut served {
        echo(stream, b"served");
    }
    let mut waiting: Vec<TcpStream> = (0..3).map(|_| connect(rlb.address())).collect();
    for stream in &mut waiting {
        stream.write_all(b"waited").expect("the kernel takes it");
        stream.set_nonblocking(true).expect("non-blocking");
    }
    steadily(
        Duration::from_millis(300),
        "no more than maxconn sessions",
        || {
            rlb.number("FRONTEND", "scur") == at_once
                && peer.accepted() as u64 == at_once
                && waiting.iter_mut().all(|it| it.read(&mut [0]).is_err())
        },
    );
    drop(served);
    for stream in &mut waiting {
        stream.set_nonblocking(false).expect("blocking");
        let mut answer = [0; 6];
        stream.read_exact(&mut answer).expect("served in the end");
        assert_eq!(&answer, b"waited");
    }
    eventually_eq(STOP_WITHIN, &(at_once + 3), || {
        rlb.number("FRONTEND", "stot")
    });
    // Fault 25: one event names the limit that makes clients wait.
    let events = rlb.events().all();
    let told: Vec<&String> = events.iter().filter(|it| it.contains(event)).collect();
    assert_eq!(told.len(), 1, "{events:#?}");
    rlb.stop_after(waiting);
}

#[test]
fn above_the_frontends_maxconn_clients_wait() {
    let event = "\"maxconn of frontend reached\",\"frontend\":\"fe\",\"maxconn\":4,";
    excess_waits(Config::new().frontend("maxconn = 4"), 4, event);
}

#[test]
fn above_the_process_maxconn_clients_wait() {
    let event = "\"maxconn of process reached\",\"maxconn\":4,";
    excess_waits(Config::new().global("maxconn = 4"), 4, event);
}

#[test]
fn statistics_do_not_count_against_maxconn() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .global("maxconn = 1")
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    let mut only = connect(rlb.address());
    echo(&mut only, b"the one session");
    assert_eq!(rlb.number("FRONTEND", "scur"), 1);
    rlb.stop_after(only);
}

/// Fault 25: why a session got no server is a label of a metric, and in one event a second.
#[test]
fn fault_25_causes_of_failed_sessions_can_be_told_apart() {
    if !needs::root() {
        return;
    }
    let netns = Netns::loopback();
    netns.ip(&["route", "add", "unreachable", "192.0.2.1"]);
    netns.ip(&["route", "add", "prohibit", "192.0.2.2"]);
    netns.enter(causes_can_be_told_apart);
}

/// Sessions that fail by each cause.
const FAILED: u64 = 20;

fn causes_can_be_told_apart() {
    let (refuses, dark) = (Refuses::start(), Unanswering::start());
    let server = |address: String, keys: &str| {
        let config = Config::new()
            .backend("retries = 0")
            .server_with(address, keys);
        config.timeout("connect = \"1500ms\"")
    };
    let refusing = refuses.address().to_string();
    let causes = [
        ("refused", server(refusing.clone(), "check = false")),
        ("no_server", server(refusing, "disabled = true")),
        (
            "timeout",
            server(dark.address().to_string(), "check = false"),
        ),
        (
            "unreachable",
            server("192.0.2.1:80".into(), "check = false"),
        ),
        (
            "connect_error",
            server("192.0.2.2:80".into(), "check = false"),
        ),
    ];
    let mut rlb = Rlb::start(&causes[0].1);
    for (number, (cause, config)) in causes.iter().enumerate() {
        if number > 0 {
            rlb.reload(config);
        }
        let (begun, address) = (Instant::now(), rlb.address());
        let clients: Vec<_> = (0..FAILED)
            .map(|_| std::thread::spawn(move || hear(address).0))
            .collect();
        for client in clients {
            assert_eq!(client.join().expect("a client"), "", "{cause}");
        }
        eventually_eq(STOP_WITHIN, &FAILED, || rlb.failed_sessions(cause));
        let told = rlb.events().with("\"session without a server\"");
        let cause = format!("\"cause\":\"{cause}\"");
        let times = told.iter().filter(|it| it.contains(&cause)).count() as u64;
        let most = begun.elapsed().as_secs() + 2;
        assert!((1..=most).contains(&times), "{told:#?}");
    }
    for (cause, _) in causes {
        assert_eq!(rlb.failed_sessions(cause), FAILED, "{cause}");
    }
    rlb.stop();
}

/// How long a client may wait for a server or for its end.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Many clients at once, each of which says a word. Each is served or told within [`TOLD_WITHIN`], some
/// are told, and those that are served stay; how many were served.
fn served_or_told(connect: impl Fn(u8) -> TcpStream + Sync) -> Vec<TcpStream> {
    let one = |number: u8| {
        let begun = Instant::now();
        let mut stream = connect(number);
        stream.write_all(b"waited").expect("the kernel takes it");
        let mut answer = [0; 6];
        let read = stream.read(&mut answer);
        let took = begun.elapsed();
        assert!(
            took < TOLD_WITHIN,
            "client {number} after {took:?}: {read:?}"
        );
        let served = read.expect("an orderly end") > 0;
        assert!(!served || &answer == b"waited");
        served.then_some(stream)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (1..=60)
            .map(|number| scope.spawn(move || one(number)))
            .collect();
        let ends: Vec<_> = clients
            .into_iter()
            .map(|it| it.join().expect("a client"))
            .collect();
        assert!(
            ends.iter().any(Option::is_none),
            "no shortage: the test tests nothing"
        );
        ends.into_iter().flatten().collect()
    })
}

/// Nothing is held a second after the clients have left; `end` ends the shortage, and from there on all is
/// good: 50 of 50 within 1.5 s.
fn good_again(rlb: &Rlb, streams: Vec<TcpStream>, end: impl FnOnce()) {
    drop(streams);
    let freed = || rlb.number("FRONTEND", "scur") == 0;
    eventually_true(Duration::from_secs(1), "nothing is held", freed);
    end();
    let over = Instant::now();
    for _ in 0..50 {
        echo(&mut connect(rlb.address()), b"good again");
    }
    assert!(over.elapsed() < Duration::from_millis(1_500));
}

/// The statistics answer within half a second, and the server is not blamed, as long as the shortage lasts.
fn goes_on(rlb: &Rlb) {
    let failed = rlb.number("s1", "chkfail");
    steadily(Duration::from_secs(2), "the rest goes on", || {
        let asked = Instant::now();
        let (status, _) = http_get(rlb.addresses("stats")[0], "/healthz").expect("answers");
        status == 200
            && asked.elapsed() < Duration::from_millis(500)
            && rlb.status("s1").starts_with("UP")
    });
    assert_eq!(rlb.number("s1", "chkfail"), failed, "no check failed by it");
}

/// A server with checks, towards which one session has been, and `timeout connect` of a minute.
fn before_a_shortage() -> (Peer, Rlb) {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .timeout("connect = \"60s\"")
        .backend("check = { type = \"tcp\", interval = \"200ms\" }")
        .server(peer.address());
    let rlb = Rlb::start(&config);
    rlb.wait_status("s1", "UP");
    echo(&mut connect(rlb.address()), b"warm");
    eventually_true(STOP_WITHIN, "the first session ends", || {
        rlb.number("FRONTEND", "scur") == 0
    });
    (peer, rlb)
}

#[test]
fn fault_5_without_descriptors_clients_are_served_or_told_and_the_rest_goes_on() {
    let (_peer, rlb) = before_a_shortage();
    let before = set_descriptor_limit(&rlb, rlb.process.descriptors() as u64 + 12);
    let events_before = rlb.events().all().len();
    let cpu_before = rlb.process.cpu_time();
    let start = Instant::now();
    // Far more than 12 descriptors can carry; two are needed for each session.
    let streams = served_or_told(|_| connect(rlb.address()));
    goes_on(&rlb);
    let events = rlb.events().all().len() - events_before;
    assert!(
        events as u64 <= start.elapsed().as_secs() + 2,
        "at most one line a second: {:#?}",
        &rlb.events().all()[events_before..]
    );
    let cpu = rlb.process.cpu_time().saturating_sub(cpu_before);
    assert!(
        cpu < Duration::from_millis(1500),
        "a busy loop: {cpu:?} in {:?}",
        start.elapsed()
    );
    // Fault 25: what was missing, and for what.
    let missing = "rlb_shortages_total{step=\"accept\",cause=\"descriptors\"}";
    assert!(rlb.metric(missing) >= 1);
    let told =
        |line: &String| line.contains("\"no free descriptors") && line.contains("LimitNOFILE");
    assert!(rlb.events().all().iter().any(told));
    good_again(&rlb, streams, || {
        set_descriptor_limit(&rlb, before);
    });
    rlb.stop();
}

/// Fault 5: the same of source ports, of which there are twenty towards the server.
#[test]
fn fault_5_without_source_ports_clients_are_served_or_told_and_the_rest_goes_on() {
    if !needs::root() {
        return;
    }
    let netns = Netns::loopback();
    netns.enter(|| {
        let (_peer, rlb) = before_a_shortage();
        let wide = "32768 60999";
        netns.sysctl("ipv4/ip_local_port_range", "40000 40019");
        let begun = Instant::now();
        let streams = served_or_told(|number| {
            // Each from an address of its own, where it has all ports.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let own = SocketAddr::from(([127, 0, 1, number], 0));
            socket.bind(&own.into()).expect("an address");
            socket.connect(&rlb.address().into()).expect("connected");
            socket.set_read_timeout(Some(TIMEOUT)).expect("an option");
            socket.into()
        });
        assert!((10..=20).contains(&streams.len()), "{}", streams.len());
        goes_on(&rlb);
        // Fault 25.
        assert!(rlb.failed_sessions("source_ports") >= 40);
        let told = rlb.events().with("no free source ports towards 127.0.0.1:");
        let most = begun.elapsed().as_secs() + 2;
        assert!((1..=most).contains(&(told.len() as u64)), "{told:#?}");
        assert!(told[0].contains("ip_local_port_range"), "{told:#?}");
        good_again(&rlb, streams, || {
            netns.sysctl("ipv4/ip_local_port_range", wide);
        });
        rlb.stop();
    });
}

/// Faults 35 and 36: under any descriptor limit rlb either reports in one sentence that it is too low and exits
/// with 1, or serves as many sessions as it reports, with checks, page and runtime socket.
#[test]
fn fault_35_what_maxconn_promises_is_kept_under_any_descriptor_limit() {
    raise_own_limit();
    let sizes = [(1, 1), (2, 40), (10, 40)];
    for nofile in [16, 32, 48, 64, 96, 128, 1024, 4096] {
        for (threads, binds) in sizes {
            let promised = promise_is_kept(nofile, threads, binds);
            if nofile <= 64 {
                assert_eq!(promised, None, "{nofile} descriptors are too few");
            }
            if nofile == 4096 || (nofile >= 128 && threads == 1) {
                assert!(promised.is_some_and(|it| it > 4), "{nofile}: {promised:?}");
            }
        }
    }
}

/// The sessions that rlb has reported and served; `None`: it did not start.
fn promise_is_kept(nofile: u64, threads: usize, binds: usize) -> Option<usize> {
    let peer = Peer::start(Behaviour::Echo);
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("rlb.sock");
    let config = (0..binds).fold(Config::new(), |config, _| config.bind("127.0.0.1:0"));
    let config = config
        .backend("check = { type = \"tcp\", interval = \"200ms\" }")
        .server(peer.address())
        .table(&format!("[runtime-api]\nsocket = \"{}\"", socket.display()))
        .to_string()
        .replace("threads = 2", &format!("threads = {threads}"));
    let rlb = match Start::new(&config).nofile(nofile).ready_or_ended() {
        Ok(rlb) => rlb,
        Err((status, events)) => {
            assert_eq!(status.code(), Some(1), "{events:#?}");
            assert_eq!(events.len(), 1, "one sentence: {events:#?}");
            assert!(events[0].contains("descriptors is too low"), "{events:#?}");
            return None;
        }
    };
    let ready = rlb.events().with("\"message\":\"ready\"");
    let (_, maxconn) = ready[0]
        .split_once("\"maxconn\":")
        .expect("it says how many");
    let digits = maxconn.trim_end_matches(|it: char| !it.is_ascii_digit());
    let maxconn: usize = digits.parse().expect("a number");
    rlb.wait_status("s1", "UP");
    let addresses = rlb.addresses("fe");
    let client = |number: usize| connect(addresses[number % addresses.len()]);
    let mut served: Vec<TcpStream> = (0..maxconn).map(client).collect();
    for stream in &mut served {
        echo(stream, b"served");
    }
    // Each accept queue holds as many as `maxconn`.
    let waiting: Vec<TcpStream> = (0..maxconn.min(3)).map(client).collect();
    let failed = rlb.number("s1", "chkfail");
    steadily(Duration::from_millis(400), "all goes on", || {
        let asked = Instant::now();
        let page = rlb.http_get("/").is_ok_and(|(status, _)| status == 200);
        let info = runtime::ask(&socket, "show info");
        page && info.contains("Maxconn: ")
            && asked.elapsed() < Duration::from_millis(500)
            && rlb.status("s1").starts_with("UP")
    });
    assert_eq!(rlb.number("s1", "chkfail"), failed);
    let short = rlb.events().with("no free descriptors");
    assert!(
        short.is_empty(),
        "{nofile}, {threads} × {binds}: {short:#?}"
    );
    rlb.stop_after((served, waiting));
    Some(maxconn)
}

/// No memory is kept for descriptors that nobody has opened yet.
#[test]
fn the_highest_descriptor_limit_costs_no_memory() {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").expect("the kernel has it");
    let most = most.trim();
    // Without CAP_SYS_RESOURCE the limit of this process is the highest.
    let raised = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -n {most} 2>&1")])
        .output();
    let own = rustix::process::getrlimit(Resource::Nofile).maximum;
    let highest = match raised {
        Ok(output) if output.status.success() => most.parse().expect("a number"),
        _ => own.expect("a hard limit"),
    };
    let config = Config::new().server_with("127.0.0.1:9", "check = false");
    let anonymous = |nofile: u64| {
        let rlb = Start::new(&config).nofile(nofile).ready();
        let page = rlb.http_get("/").is_ok_and(|(status, _)| status == 200);
        assert!(page, "{nofile}");
        let memory = rlb.process.memory_kb("RssAnon");
        rlb.stop();
        memory
    };
    let (few, many) = (anonymous(4096), anonymous(highest));
    // Two starts differ by a few pages.
    assert!(
        many <= few + few / 4,
        "{few} kB with 4096 descriptors, {many} kB with {highest}"
    );
}

/// Both ends of all sessions are in this process.
fn raise_own_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("up to the hard limit");
}

/// Sets the soft limit of open descriptors of a running rlb; the soft limit it had.
fn set_descriptor_limit(rlb: &Rlb, limit: u64) -> u64 {
    let id = i32::try_from(rlb.process.id()).expect("a process id is a pid_t");
    let pid = Pid::from_raw(id).expect("not 0");
    let text = std::fs::read_to_string(format!("/proc/{id}/limits")).expect("the process lives");
    let maximum = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    let new = Rlimit {
        current: Some(limit),
        maximum,
    };
    let old = prlimit(Some(pid), Resource::Nofile, new).expect("our own child");
    old.current.expect("a finite limit")
}
