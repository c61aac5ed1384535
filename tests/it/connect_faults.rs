//! Regression tests of connecting to servers: clients that waited in vain, were ended in different ways, or
//! were not served although they could have been. Each is named for its fault.

use crate::harness::client::{self, End, connect, half_close, hear, read_to_end, timed};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, pace_until, steadily};
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The limit for noticing something while connecting; [`LOADED`] is added for a loaded machine.
const SOON: Duration = Duration::from_millis(200);
const LOADED: Duration = Duration::from_millis(300);

/// Checks that detect a server that does not answer within 0.3 s.
const QUICK: &str = "check = { interval = \"100ms\", timeout = \"100ms\", fall = 2, rise = 1 }";

/// Fault 1: of two servers one does not answer, the other answers a second later (its first SYN is lost): the
/// client is served with any `retries`.
#[test]
fn fault_1_a_slow_server_beside_a_dark_one_serves_with_any_retries() {
    std::thread::scope(|scope| {
        for retries in 0..=5 {
            scope.spawn(move || {
                let (dark, late) = (Unanswering::start(), Unanswering::start());
                let config = Config::new()
                    .backend(&format!("retries = {retries}"))
                    .server_with(dark.address(), "check = false")
                    .server_with(late.address(), "check = false");
                let rlb = Rlb::start(&config);
                let client = connect(rlb.address());
                eventually_eq(STOP_WITHIN, &2, || rlb.number("BACKEND", "connect"));
                let _answering = late.answers("late");
                let (heard, took) = timed(|| read_to_end(&mut &client));
                assert_eq!(heard, (b"late".to_vec(), End::Eof), "retries {retries}");
                assert!(took < Duration::from_secs(3), "retries {retries}: {took:?}");
                rlb.stop_after(client);
            });
        }
    });
}

/// Fault 5: no server of a new process answers. Its first client is rejected when the last one is DOWN, not
/// after the whole `timeout connect`.
#[test]
fn fault_5_the_first_client_is_told_when_the_last_server_is_down() {
    let dark = [Unanswering::start(), Unanswering::start()];
    let config = dark
        .iter()
        .fold(Config::new(), |config, it| {
            config.server_with(it.address(), QUICK)
        })
        .timeout("connect = \"60s\"");
    let rlb = Rlb::start(&config);
    let mut client = connect(rlb.address());
    let told = std::thread::spawn(move || (read_to_end(&mut client), Instant::now()));
    rlb.wait_status("BACKEND", "DOWN");
    let down = Instant::now();
    let (heard, ended) = told.join().expect("the client ends");
    assert_eq!(heard, (Vec::new(), End::Eof));
    let late = ended.saturating_duration_since(down);
    assert!(late < SOON + LOADED, "{late:?} after the last DOWN");
    rlb.stop();
}

/// Fault 5: a client that waits for a server that does not answer is served by the first server that comes UP.
#[test]
fn fault_5_a_waiting_client_is_served_by_the_first_server_that_comes_up() {
    let dark = Unanswering::start();
    let refuses = Refuses::start();
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .server_with(refuses.address(), QUICK)
        .timeout("connect = \"60s\"");
    let rlb = Rlb::start(&config);
    rlb.wait_status("s2", "DOWN");
    let mut client = connect(rlb.address());
    eventually_eq(STOP_WITHIN, &1, || rlb.number("s1", "connect"));
    let served = std::thread::spawn(move || (read_to_end(&mut client), Instant::now()));
    let _peer = Peer::start_on(refuses, Behaviour::Says("up"));
    rlb.wait_status("s2", "UP");
    let up = Instant::now();
    let (heard, ended) = served.join().expect("the client ends");
    assert_eq!(heard, (b"up".to_vec(), End::Eof));
    let late = ended.saturating_duration_since(up);
    assert!(late < SOON + LOADED, "{late:?} after the first UP");
    rlb.stop();
}

/// A client whose session connects to a server that does not answer, for up to a minute.
fn waiting_for_a_dark_server(log: &Syslog, dark: &Unanswering) -> Rlb {
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .timeout("connect = \"60s\"")
        .log(format!("udp:{}", log.address()), "raw");
    Rlb::start(&config)
}

/// Fault 5: a client that resets, or sends FIN and no byte, while its session connects has gone: `CC`, and no
/// server is suspected.
#[test]
fn fault_5_a_client_that_goes_while_its_session_connects_is_noticed() {
    let (log, dark) = (Syslog::udp(), Unanswering::start());
    let rlb = waiting_for_a_dark_server(&log, &dark);
    let mut quickest = Duration::MAX;
    for round in 0..10 {
        let client = connect(rlb.address());
        eventually_eq(STOP_WITHIN, &1, || rlb.number("FRONTEND", "scur"));
        let gone = Instant::now();
        if round % 2 == 0 {
            client::reset(client);
        } else {
            drop(client);
        }
        let line = log.next_with(" fe be/s1 ");
        quickest = quickest.min(gone.elapsed());
        assert!(line.contains(" CC "), "{line}");
    }
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
    // As in HAProxy a reset counts as an abort, FIN does not.
    eventually_eq(STOP_WITHIN, &(0, 0, 5), || {
        let csv = rlb.csv();
        let backend = csv.row("be", "BACKEND");
        let number = |column| backend.number(column);
        (number("scur"), number("econ"), number("cli_abrt"))
    });
    assert_eq!(rlb.number("s1", "econ"), 0);
    rlb.stop();
}

/// A client that has sent a request and FIN waits for the answer.
#[test]
fn a_client_that_half_closes_behind_its_request_is_served() {
    let dark = Unanswering::start();
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .timeout("connect = \"60s\"");
    let rlb = Rlb::start(&config);
    let mut client = connect(rlb.address());
    client.write_all(b"request").expect("sent");
    half_close(&client);
    steadily(Duration::from_millis(300), "the session connects", || {
        rlb.number("FRONTEND", "scur") == 1
    });
    let _answering = dark.answers("answer");
    assert_eq!(read_to_end(&mut client).0, b"answer");
    rlb.stop_after(client);
}

/// Fault 6: a backend whose only server refuses for a second, as during a restart, loses no client, and no
/// client waits much longer than the restart.
#[test]
fn fault_6_a_server_that_restarts_loses_no_client() {
    let refuses = Refuses::start();
    let config = Config::new().server_with(refuses.address(), "check = false");
    let rlb = Rlb::start(&config);
    let address = rlb.address();
    let begun = Instant::now();
    let clients: Vec<_> = (0..75)
        .map(|number| {
            std::thread::spawn(move || {
                pace_until(begun + Duration::from_millis(20) * number);
                timed(|| hear(address))
            })
        })
        .collect();
    pace_until(begun + Duration::from_secs(1));
    let _peer = Peer::start_on(refuses, Behaviour::Says("hello"));
    let restart = begun.elapsed();
    for client in clients {
        let (heard, took) = client.join().expect("a client");
        assert_eq!(heard.0, "hello");
        assert!(took < restart + LOADED + SOON, "{took:?}");
    }
    eventually_eq(STOP_WITHIN, &0, || rlb.number("BACKEND", "econ"));
    rlb.stop();
}

/// The end of a connection after its client has sent `bytes` bytes.
fn end_after_sending(address: SocketAddr, bytes: usize) -> End {
    let mut stream = connect(address);
    // Fails when the end has come first.
    let _ = stream.write_all(&vec![b'x'; bytes]);
    read_to_end(&mut stream).1
}

/// Fault 47: a client that no server serves gets FIN, whatever it has sent and whatever the reason.
#[test]
fn fault_47_a_client_that_nobody_serves_gets_an_orderly_end() {
    let (refuses, dark) = (Refuses::start(), Unanswering::start());
    let refusing = Config::new()
        .backend("retries = 0")
        .server_with(refuses.address(), "check = false");
    let disabled = Config::new().server_with(refuses.address(), "disabled = true");
    let timed_out = Config::new()
        .timeout("connect = \"300ms\"")
        .server_with(dark.address(), "check = false");
    for (cause, clients, config) in [
        ("refused", 340, refusing),
        ("maintenance", 340, disabled),
        ("timeout", 40, timed_out),
    ] {
        let rlb = Rlb::start(&config);
        let address = rlb.address();
        for bytes in [0, 1, 70_000] {
            let threads: Vec<_> = (0..clients / 20)
                .map(|_| {
                    std::thread::spawn(move || {
                        (0..20)
                            .map(|_| end_after_sending(address, bytes))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in threads {
                let ends = thread.join().expect("clients");
                let orderly = ends.iter().all(|end| *end == End::Eof);
                assert!(orderly, "{cause}, {bytes} bytes: {ends:?}");
            }
        }
        rlb.stop();
    }
}

/// Fault 2: when an operator ends a server's sessions, those that are connecting to it end, too.
#[test]
fn fault_2_sessions_that_connect_are_ended_with_their_servers() {
    let dark = Unanswering::start();
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .timeout("connect = \"60s\"");
    let fixture = Fixture::new(config, "admin");
    let mut client = connect(fixture.rlb.address());
    eventually_eq(STOP_WITHIN, &1, || fixture.rlb.number("s1", "connect"));
    fixture.ask("shutdown sessions server be/s1");
    let (heard, took) = timed(|| read_to_end(&mut client));
    assert_eq!(heard, (Vec::new(), End::Eof));
    assert!(took < SOON + LOADED, "{took:?}");
    fixture.rlb.stop();
}

/// Fault 2: when a server goes down and ends its sessions, those that are connecting to it go on to another
/// server.
#[test]
fn fault_2_on_marked_down_sends_connecting_sessions_to_another_server() {
    let (dark, late) = (Unanswering::start(), Unanswering::start());
    let down = format!("{QUICK}, on-marked-down = \"shutdown-sessions\"");
    let config = Config::new()
        .server_with(dark.address(), &down)
        .server_with(late.address(), "check = false")
        .timeout("connect = \"60s\"");
    let rlb = Rlb::start(&config);
    let mut client: TcpStream = connect(rlb.address());
    rlb.wait_status("s1", "DOWN");
    let _answering = late.answers("late");
    assert_eq!(read_to_end(&mut client).0, b"late");
    rlb.stop_after(client);
}

/// Faults 3 and 4: reloads that rename and remove services lose no client of a service that still exists,
/// including those that wait because of `maxconn`.
#[test]
fn fault_3_and_4_renamed_services_lose_nobody() {
    let peer = Peer::start(Behaviour::Echo);
    let named = |name: &str, bind: &str| {
        format!(
            "[global]\nthreads = 2\n[stats]\nbind = [\"127.0.0.1:0\"]\n[[listen]]\nname = \"{name}\"\n\
             bind = \"{bind}\"\nmaxconn = 4\nservers = [{{ name = \"s1\", address = \"{}\", check = false }}]\n",
            peer.address()
        )
    };
    let port = Refuses::start();
    let bind = port.address().to_string();
    drop(port);
    let mut rlb = Rlb::start(&named("n0", &bind));
    let address = rlb.addresses("n0")[0];
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let mut stream = connect(address);
                        if stream.write_all(b"ping").is_err() {
                            failed.push("not sent".to_owned());
                            continue;
                        }
                        half_close(&stream);
                        let heard = read_to_end(&mut stream);
                        if heard != (b"ping".to_vec(), End::Eof) {
                            failed.push(format!("{heard:?}"));
                        }
                    }
                    failed
                })
            })
            .collect();
        for round in 1..=50 {
            rlb.reload(&named(&format!("n{round}"), &bind));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for client in clients {
            let failed = client.join().expect("a client");
            assert!(failed.is_empty(), "{} failed: {failed:?}", failed.len());
        }
    });
    rlb.stop();
}

/// Fault 3: clients that wait at `maxconn` are served when a reload renames their service.
#[test]
fn fault_3_clients_that_wait_at_maxconn_are_served_under_the_new_name() {
    let peer = Peer::start(Behaviour::Echo);
    let port = Refuses::start();
    let bind = port.address();
    drop(port);
    let named = |name: &str| {
        format!(
            "[global]\nthreads = 2\n[stats]\nbind = [\"127.0.0.1:0\"]\n[[listen]]\nname = \"{name}\"\n\
             bind = \"{bind}\"\nmaxconn = 1\nbacklog = 64\nservers = [{{ name = \"s1\", address = \"{}\", check = false }}]\n",
            peer.address()
        )
    };
    let mut rlb = Rlb::start(&named("before"));
    let mut first = connect(bind);
    client::echo(&mut first, b"first");
    let mut waiting: Vec<TcpStream> = (0..6).map(|_| connect(bind)).collect();
    for stream in &mut waiting {
        stream.write_all(b"waited").expect("the kernel takes it");
        half_close(stream);
    }
    rlb.reload(&named("after"));
    for stream in &mut waiting {
        assert_eq!(read_to_end(stream), (b"waited".to_vec(), End::Eof));
    }
    client::echo(&mut first, b"still there");
    eventually_eq(STOP_WITHIN, &7, || peer.accepted());
    eventually_true(STOP_WITHIN, "counted under the new name", || {
        rlb.csv().row("after", "FRONTEND").number("stot") >= 5
    });
    rlb.stop_after((first, waiting));
}
