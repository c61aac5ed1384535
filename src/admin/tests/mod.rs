//! The stats listener over real sockets.

mod actions;
mod lines;

use super::*;
use crate::control::reload::ReloadHandle;
use crate::live::LogEntry;
use crate::state::{ControlHandle, ToControl};
use crate::stats::test_snapshot::{config, snapshot};
use crate::worker::ListenerId;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Longest time that a test waits for anything.
const LONG: Duration = Duration::from_secs(20);

/// Time for a request's head.
const HEAD: Duration = Duration::from_secs(3);
/// Time for a byte to move.
const STALL: Duration = Duration::from_secs(4);
/// Time for the first request after a stop.
const FIRST: Duration = Duration::from_secs(2);

struct Running {
    address: SocketAddr,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: mpsc::Sender<ListenerChange>,
    handle: Handle,
    /// What is sent to the log.
    lines: Receiver<LogEntry>,
    /// What is asked of the control task.
    requests: mpsc::Receiver<ToControl>,
}

fn start(servers: u32, maxconn: u32) -> Running {
    start_with(servers, |stats| stats.maxconn = maxconn)
}

fn start_with(servers: u32, change: impl FnOnce(&mut crate::config::model::Stats)) -> Running {
    let mut config = config(servers);
    change(config.stats.as_mut().unwrap());
    let snapshot = Arc::new(ArcSwap::from_pointee(snapshot(&config)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let reserve = Arc::new(DescriptorReserve::new().unwrap());
    let timeouts = Timeouts {
        head: HEAD,
        stall: STALL,
        first: FIRST,
    };
    listener.set_nonblocking(true).unwrap();
    let id = ListenerId(0);
    let (sender, changes) = mpsc::channel(1);
    let listeners = AdminListenerSet {
        open: vec![admin_listener(id, listener)],
        changes,
        runtime: None,
    };
    let (log, lines) = LogQueue::new(Arc::clone(&snapshot.load().global));
    let (control, requests) = ControlHandle::new();
    let actions = Actions::new(Some((control, ReloadHandle::unattended())));
    let handle = launch(
        listeners,
        (Arc::clone(&snapshot), log),
        reserve,
        (actions, timeouts),
    )
    .unwrap();
    Running {
        address,
        snapshot,
        changes: sender,
        handle,
        lines,
        requests,
    }
}

/// A listener of the statistics' first page.
fn admin_listener(id: ListenerId, listener: TcpListener) -> AdminListener {
    let bind = crate::config::model::Bind::default();
    AdminListener { id, bind, listener }
}

fn connect(running: &Running) -> TcpStream {
    let stream = TcpStream::connect(running.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// The whole answer to `request`, until the connection ends.
fn ask(running: &Running, request: &str) -> String {
    let mut stream = connect(running);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(running: &Running, target: &str) -> String {
    ask(
        running,
        &format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn pages_and_statuses() {
    let running = start(3, 200);
    let health = get(&running, "/healthz");
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
    assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
    assert!(health.contains("cache-control: no-cache\r\n"), "{health}");
    // Fault 19: no browser takes plain text for HTML.
    for target in ["/healthz", "/;csv", "/", "/metrics", "/readyz"] {
        let answer = get(&running, target);
        assert!(
            answer.contains("x-content-type-options: nosniff\r\n"),
            "{answer}"
        );
    }
    let csv = get(&running, "/;csv;norefresh");
    assert!(csv.contains("content-type: text/plain\r\n"), "{csv}");
    assert!(csv.contains("transfer-encoding: chunked\r\n"), "{csv}");
    assert!(csv.contains("\r\n# pxname,svname,"), "{csv}");
    assert!(csv.contains("\npostgres,node3,"), "{csv}");
    let page = get(&running, "/nosuch");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(
        page.contains("content-type: text/html; charset=utf-8\r\n"),
        "{page}"
    );
    assert!(
        page.contains("id=\"postgres/node3\"") && page.contains("</html>"),
        "{page}"
    );
    let json = get(&running, "/;json");
    assert!(
        json.contains("content-type: application/json\r\n"),
        "{json}"
    );
    let metrics = get(&running, "/metrics");
    assert!(
        metrics.contains("content-type: text/plain; version=0.0.4\r\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("\nhaproxy_server_status{proxy="),
        "{metrics}"
    );
    assert!(get(&running, "*").starts_with("HTTP/1.1 4"));
    let refused = ask(
        &running,
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    );
    assert!(refused.starts_with("HTTP/1.1 303 "), "{refused}");
    assert!(refused.contains("location: /;st=DENY\r\n"), "{refused}");
    for head in ["PUT /", "POST /healthz", "POST /metrics"] {
        let refused = ask(
            &running,
            &format!(
                "{head} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            ),
        );
        assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
        assert!(refused.contains("allow: GET, HEAD\r\n"), "{refused}");
    }
    assert!(running.handle.stop(LONG));
}

#[test]
fn head_has_no_body() {
    let running = start(3, 200);
    for target in ["/;csv", "/healthz"] {
        let head = format!("HEAD {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = ask(&running, &head);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    assert!(running.handle.stop(LONG));
}

#[test]
fn junk_and_giants_are_refused() {
    let running = start(1, 200);
    assert!(ask(&running, "\x16\x03\x01junk\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let giant = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(9 * 1024));
    let mut stream = connect(&running);
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(giant.as_bytes());
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
    let live = Arc::clone(&running.snapshot.load().stats_live);
    eventually("both are request errors", || {
        live.traffic.sum(|traffic| &traffic.ereq) == 2
    });
    assert!(running.handle.stop(LONG));
}

#[test]
fn the_stats_row_is_true() {
    let running = start(1, 200);
    let mut stream = connect(&running);
    for _ in 0..2 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok\n") {
            let mut buffer = [0; 512];
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "kept alive");
            answer.extend_from_slice(&buffer[..length]);
        }
    }
    let csv = get(&running, "/;csv");
    let row = csv
        .lines()
        .find(|line| line.starts_with("stats,FRONTEND,"))
        .unwrap();
    let fields: Vec<&str> = row.split(',').collect();
    assert_eq!(
        (fields[4], fields[5], fields[7]),
        ("2", "2", "2"),
        "scur, smax, stot: {row}"
    );
    assert_eq!(
        (fields[40], fields[79], fields[80]),
        ("3", "2", "3"),
        "hrsp_2xx, conn_tot: {row}"
    );
    assert!(fields[8].parse::<u64>().unwrap() > 60, "bin: {row}");
    assert!(fields[9].parse::<u64>().unwrap() > 60, "bout: {row}");
    drop(stream);
    let live = Arc::clone(&running.snapshot.load().stats_live);
    eventually("all places come back", || live.active.get() == 0);
    assert!(running.handle.stop(LONG));
}

/// Fault 24: for silent clients, for clients that have sent part of a request, and for idle clients that were
/// answered.
#[test]
fn fault_24_a_page_comes_at_once_although_all_slots_are_taken() {
    for sent in ["", "GET / HT", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let running = start(20, 200);
        let mut idle: Vec<TcpStream> = (0..200).map(|_| connect(&running)).collect();
        for stream in &mut idle {
            stream.write_all(sent.as_bytes()).unwrap();
        }
        let live = Arc::clone(&running.snapshot.load().stats_live);
        eventually("all are being served", || live.active.get() == 200);
        // More wait in the kernel's queue.
        let queued: Vec<TcpStream> = (0..50).map(|_| connect(&running)).collect();
        let begun = Instant::now();
        let page = get(&running, "/");
        let took = begun.elapsed();
        assert!(page.contains("</html>"), "{page}");
        assert!(took < Duration::from_millis(500), "{took:?} after {sent:?}");
        assert_eq!(
            live.traffic.max(|traffic| &traffic.smax),
            200,
            "and the limit held"
        );
        drop((idle, queued));
        assert!(running.handle.stop(LONG));
    }
}

/// The whole answer to `request` when its client sends FIN after it.
fn ask_and_half_close(running: &Running, request: &str) -> String {
    let mut stream = connect(running);
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Fault 42.
#[test]
fn fault_42_a_client_that_half_closes_gets_the_whole_answer() {
    let running = start(5_000, 200);
    for target in ["/metrics", "/", "/;csv", "/;json"] {
        for keep in ["close", "keep-alive"] {
            let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: {keep}\r\n\r\n");
            let answer = ask_and_half_close(&running, &request);
            assert!(answer.len() > 500_000, "{target} {keep}: {}", answer.len());
            assert!(answer.ends_with("\r\n0\r\n\r\n"), "{target} {keep}");
        }
    }
    for _ in 0..200 {
        for rest in ["", "connection: close\r\n"] {
            let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{rest}\r\n");
            let answer = ask_and_half_close(&running, &request);
            assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
        }
        let answer = ask_and_half_close(&running, "GET /healthz HTTP/1.0\r\n\r\n");
        assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    }
    assert!(running.handle.stop(LONG));
}

/// Fault 42's kind: bytes that a client sends after its last request are read before the close. Otherwise the
/// kernel would reset the connection and discard what has not arrived of the answer.
#[test]
fn fault_42_bytes_after_the_last_request_do_not_destroy_its_answer() {
    let running = start(100, 200);
    let body = "x".repeat(100_000);
    for _ in 0..20 {
        let request = format!(
            "POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = ask_and_half_close(&running, &request);
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert!(answer.ends_with("method not allowed\n"), "{answer}");
    }
    assert!(running.handle.stop(LONG));
}

/// Fault 40.
#[test]
fn fault_40_metrics_of_a_scope_that_there_is_not_are_refused() {
    let running = start(1, 200);
    assert!(get(&running, "/metrics?scope=bogus").starts_with("HTTP/1.1 400 "));
    let servers = get(&running, "/metrics?scope=server");
    assert!(servers.contains("haproxy_server_status{"), "{servers}");
    assert!(running.handle.stop(LONG));
}

#[test]
fn a_head_that_comes_slowly_is_cut_in_time() {
    let running = start(1, 200);
    let mut stream = connect(&running);
    let begun = Instant::now();
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nx: ").unwrap();
    let mut buffer = [0; 512];
    loop {
        assert!(begun.elapsed() < LONG, "still open");
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stream.write_all(b"y").is_err() {
                    break;
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    assert!(begun.elapsed() > HEAD / 2);
    assert!(running.handle.stop(LONG));
}

/// A client that was accepted just before the end of the process (of the old one, at an upgrade) was reset.
#[test]
fn a_client_whose_request_comes_after_the_stop_is_answered() {
    let running = start(1, 200);
    let mut fresh = connect(&running);
    let live = Arc::clone(&running.snapshot.load().stats_live);
    eventually("it is being served", || live.active.get() == 1);
    let Running {
        address, handle, ..
    } = running;
    let stop = std::thread::spawn(move || handle.stop(LONG));
    // The listener is closed once the stop is known there.
    eventually("the stop", || TcpStream::connect(address).is_err());
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    fresh.write_all(request).unwrap();
    let mut answer = String::new();
    fresh.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    drop(fresh);
    assert!(stop.join().unwrap());
}

#[test]
fn a_stop_ends_idle_connections_and_frees_the_port() {
    let running = start(1, 200);
    let mut fresh = connect(&running);
    let mut used = connect(&running);
    used.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut buffer = [0; 16];
    used.read_exact(&mut buffer).unwrap();
    let live = Arc::clone(&running.snapshot.load().stats_live);
    eventually("both are being served", || live.active.get() == 2);
    let begun = Instant::now();
    assert!(running.handle.stop(LONG));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "did not wait for its limit"
    );
    let mut rest = vec![];
    used.read_to_end(&mut rest).unwrap();
    assert_eq!(fresh.read(&mut buffer).unwrap_or(0), 0);
    assert!(TcpStream::connect(running.address).is_err());
    assert_eq!(live.active.get(), 0);
}

#[test]
fn a_page_that_nobody_takes_is_cut_and_holds_up_nobody() {
    let running = start(20_000, 200);
    let mut slow = connect(&running);
    slow.write_all(b"GET /;csv HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let live = Arc::clone(&running.snapshot.load().stats_live);
    eventually("the page has begun", || {
        live.traffic.sum(|traffic| &traffic.bout) > 100_000
    });
    assert!(get(&running, "/healthz").ends_with("ok\n"));
    eventually("it is cut", || live.active.get() == 0);
    // It was never written as a whole: only what the socket buffers took was sent.
    let mut taken = Vec::new();
    let _ = slow.read_to_end(&mut taken);
    assert!(!taken.ends_with(b"0\r\n\r\n"));
    assert!(running.handle.stop(LONG));
}

#[test]
fn a_page_that_nobody_takes_is_cut_and_not_made_further() {
    for target in ["/", "/metrics", "/;json"] {
        let running = start(5_000, 200);
        let mut slow = connect(&running);
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        slow.write_all(request.as_bytes()).unwrap();
        let live = Arc::clone(&running.snapshot.load().stats_live);
        let sent = || live.traffic.sum(|traffic| &traffic.bout);
        eventually("it has begun", || sent() > 100_000);
        assert!(get(&running, "/healthz").ends_with("ok\n"));
        eventually("it is cut", || live.active.get() == 0);
        let mut taken = Vec::new();
        let _ = slow.read_to_end(&mut taken);
        assert!(!taken.ends_with(b"0\r\n\r\n"), "{target}");
        assert!(running.handle.stop(LONG));
    }
}

#[test]
fn a_password_guards_all_but_health_and_readiness() {
    let running = start_with(1, |stats| {
        stats.page.auth = vec![crate::config::model::Credentials("admin:secret".into())];
        stats.page.realm = "LB Statistics".into();
        stats.page.refresh = Some(Duration::from_secs(10));
    });
    for target in ["/", "/;csv", "/metrics", "/;json-schema"] {
        let refused = get(&running, target);
        assert!(
            refused.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
            "{refused}"
        );
        assert!(
            refused.contains("www-authenticate: Basic realm=\"LB Statistics\"\r\n"),
            "{refused}"
        );
        assert!(
            !refused.contains("postgres") && !refused.contains("refresh:"),
            "{refused}"
        );
    }
    let with = |target: &str| {
        ask(
            &running,
            &format!(
                "GET {target} HTTP/1.1\r\nhost: x\r\nauthorization: Basic YWRtaW46c2VjcmV0\r\n\
                 connection: close\r\n\r\n"
            ),
        )
    };
    // Fault 19: answers behind a password must not be cached, others may be.
    assert!(get(&running, "/").contains("cache-control: no-store\r\n"));
    assert!(with("/;csv").contains("cache-control: no-store\r\n"));
    assert!(get(&running, "/healthz").contains("cache-control: no-cache\r\n"));
    let page = with("/");
    assert!(
        page.contains("postgres") && page.contains("refresh: 10\r\n"),
        "{page}"
    );
    assert!(with("/;csv").contains("refresh: 10\r\n"));
    assert!(!with("/;csv;norefresh").contains("refresh:"));
    assert!(!with("/metrics").contains("refresh:"));
    assert!(get(&running, "/healthz").ends_with("ok\n"));
    assert!(running.handle.stop(LONG));
}

#[test]
fn each_page_is_served_at_its_own_addresses() {
    use crate::config::model::{Bind, BindAddress, Credentials, FurtherPage, StatsPage};
    let at = |port: u16| Bind {
        address: BindAddress::Tcp(([127, 0, 0, 1], port).into()),
        ..Bind::default()
    };
    let mut running = start_with(1, |stats| {
        stats.page.uri = "/a".into();
        stats.binds = vec![Bind::default(), at(1)];
        stats.further.push(FurtherPage {
            binds: 1..2,
            page: StatsPage {
                uri: "/b".into(),
                auth: vec![Credentials("admin:secret".into())],
                description: Some("the second".into()),
                ..StatsPage::default()
            },
        });
    });
    let secret = "authorization: Basic YWRtaW46c2VjcmV0\r\n";
    let with = |running: &Running, target: &str| {
        ask(
            running,
            &format!("GET {target} HTTP/1.1\r\nhost: x\r\n{secret}connection: close\r\n\r\n"),
        )
    };
    let open = |bind: Bind, id: u64| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, id) = (listener.local_addr().unwrap(), ListenerId(id));
        let opened = AdminListener { id, bind, listener };
        (address, opened)
    };
    let (second, opened) = open(at(1), 1);
    let (gone, removed) = open(at(2), 2);
    change(&running, vec![opened, removed], vec![]);
    assert!(get(&running, "/a").starts_with("HTTP/1.1 200"));
    assert!(get(&running, "/b").starts_with("HTTP/1.1 404"));
    running.address = second;
    assert!(get(&running, "/b").starts_with("HTTP/1.1 401"));
    assert!(get(&running, "/metrics").starts_with("HTTP/1.1 401"));
    let page = with(&running, "/b");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("the second"));
    assert!(with(&running, "/a").starts_with("HTTP/1.1 404"));
    assert!(get(&running, "/healthz").ends_with("ok\n"));
    // Its bind is in no page any more.
    running.address = gone;
    for target in ["/a", "/b", "/metrics"] {
        assert!(
            get(&running, target).starts_with("HTTP/1.1 404"),
            "{target}"
        );
    }
    assert!(get(&running, "/healthz").ends_with("ok\n"));
    assert!(running.handle.stop(LONG));
}

fn change(running: &Running, open: Vec<AdminListener>, close: Vec<ListenerId>) {
    let change = ListenerChange { open, close };
    running.changes.blocking_send(change).unwrap();
}

/// One answer on a connection that stays open: its head.
fn ask_once(stream: &mut TcpStream, target: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n") || !answer.windows(4).any(|it| it == b"\r\n\r\n") {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the answer is whole");
        answer.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn a_listener_that_closes_finishes_the_answer_in_progress() {
    let mut running = start(1, 200);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (second, id) = (listener.local_addr().unwrap(), ListenerId(1));
    let first = running.address;
    change(&running, vec![admin_listener(id, listener)], vec![]);
    let mut idle = connect(&running);
    assert!(ask_once(&mut idle, "/healthz").ends_with("ok\n"));
    running.address = second;
    let mut other = connect(&running);
    assert!(ask_once(&mut other, "/healthz").ends_with("ok\n"));
    running.address = first;
    let mut begun = connect(&running);
    begun.write_all(b"GET /healthz HT").unwrap();
    let live = Arc::clone(&running.snapshot.load().stats_live);
    eventually("what is sent has been seen", || live.active.get() == 3);
    change(&running, vec![], vec![ListenerId(0)]);
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "an idle connection ends");
    begun.write_all(b"TP/1.1\r\nhost: x\r\n\r\n").unwrap();
    begun.read_to_string(&mut rest).unwrap();
    assert!(
        rest.ends_with("ok\n") && rest.contains("connection: close\r\n"),
        "{rest}"
    );
    eventually("nobody listens there", || {
        TcpStream::connect(first).is_err()
    });
    assert!(
        ask_once(&mut other, "/healthz").ends_with("ok\n"),
        "the other goes on"
    );
    assert!(running.handle.stop(LONG));
}

#[test]
fn clients_queued_at_a_listener_that_closes_are_served() {
    // One slot, which is taken: the next connection is accepted and waits, the third is in the kernel's queue.
    let running = start(1, 1);
    let mut holder = connect(&running);
    assert!(ask_once(&mut holder, "/healthz").ends_with("ok\n"));
    let mut waiting: Vec<TcpStream> = (0..3).map(|_| connect(&running)).collect();
    for stream in &mut waiting {
        let ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(ask).unwrap();
    }
    change(&running, vec![], vec![ListenerId(0)]);
    drop(holder);
    for stream in &mut waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");
    }
    assert!(running.handle.stop(LONG));
}

#[test]
fn without_statistics_clients_that_are_still_connected_get_404() {
    let running = start_with(1, |stats| {
        let credentials = crate::config::model::Credentials("admin:secret".into());
        stats.page.auth = vec![credentials];
    });
    let mut stream = connect(&running);
    assert!(ask_once(&mut stream, "/healthz").ends_with("ok\n"));
    let mut config = config(1);
    config.stats = None;
    running.snapshot.store(Arc::new(snapshot(&config)));
    for target in ["/", "/;csv", "/metrics"] {
        let answer = ask_once(&mut stream, target);
        assert!(answer.starts_with("HTTP/1.1 404 "), "{target}: {answer}");
    }
    assert!(ask_once(&mut stream, "/healthz").ends_with("ok\n"));
    assert!(running.handle.stop(LONG));
}

#[test]
fn readiness_follows_the_phases() {
    let running = start_with(2, |stats| {
        stats.readiness.require = vec![("postgres".into(), 2)];
    });
    let starting = get(&running, "/readyz");
    assert!(starting.starts_with("HTTP/1.1 503 "), "{starting}");
    assert!(starting.ends_with("\r\n\r\nstarting\n"), "{starting}");
    running.handle.enter(Phase::Ready);
    assert!(get(&running, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(&running, "/metrics").contains("\nrlb_running 1\n"));
    running.handle.enter(Phase::Stopping);
    assert!(get(&running, "/readyz").ends_with("\r\n\r\nstopping\n"));
    assert!(get(&running, "/healthz").ends_with("ok\n"));
    assert!(running.handle.stop(LONG));
}

#[test]
fn seeds_of_the_fuzz_target_do_not_panic() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/stats_request");
    let mut count = 0;
    for seed in std::fs::read_dir(folder).expect("the seeds") {
        let bytes = std::fs::read(seed.expect("an entry").path()).expect("a seed");
        super::exercise_target(&String::from_utf8_lossy(&bytes));
        count += 1;
    }
    assert!(count > 0);
}
