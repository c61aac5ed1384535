//! Regression tests of connecting to servers: clients that waited in vain, were ended in different ways, or
//! were not served although they could have been. Each is named for its fault.

use crate::harness::client::{self, End, connect, half_close, hear, read_to_end, timed};
use crate::harness::config::Config;
use crate::harness::eventually::{
    eventually, eventually_eq, eventually_true, in_some_try, median, pace_until, steadily,
};
use crate::harness::needs;
use crate::harness::netns::Lab;
use crate::harness::peer::{Behaviour, Peer, Refuses, Unanswering};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The bound for what has to be noticed while connecting.
const SOON: Duration = Duration::from_millis(200);

/// Checks that detect a server that does not answer within 0.3 s.
const QUICK: &str = "check = { interval = \"100ms\", timeout = \"100ms\", fall = 2, rise = 1 }";

/// Fault 1: of two servers one is dark, the other answers 0.7 s and 1.3 s after it was asked: served,
/// whatever `retries` is, and whichever is asked first.
#[test]
fn fault_1_a_slow_server_beside_a_dark_one_serves_with_any_retries() {
    if !needs::root() {
        return;
    }
    let mut lab = Lab::new();
    lab.power_on(0);
    let late = SocketAddr::from(([10, 240, 0, 37], 9000));
    let dark = SocketAddr::from(([10, 240, 0, 39], 9000));
    let _peer = lab
        .node(0)
        .enter(|| Peer::start_at(late, Behaviour::Says("late")));
    // Frames for it are dropped by the bridge's last port.
    let nobody = [
        "neigh",
        "replace",
        "10.240.0.39",
        "lladdr",
        "02:00:00:00:00:99",
    ];
    lab.lb.ip(&[&nobody[..], &["dev", "eth0"]].concat());
    // The late one tells nobody where it is, but knows where rlb is.
    lab.node(0).ip(&["link", "set", "eth0", "arp", "off"]);
    let known = [
        "neigh",
        "replace",
        "10.240.0.10",
        "lladdr",
        "02:00:0a:f0:00:0a",
    ];
    lab.node(0).ip(&[&known[..], &["dev", "eth0"]].concat());
    for delay in [700, 1300].map(Duration::from_millis) {
        lab.lb.enter(|| served_after(&lab, delay, [dark, late]));
    }
}

/// Clients of twelve balancers over both servers, of which the second answers after `delay`: what is sent
/// there waits in the kernel until the neighbour is known.
fn served_after(lab: &Lab, delay: Duration, [dark, late]: [SocketAddr; 2]) {
    let balancers: Vec<(u32, Rlb)> = (0..=5)
        .flat_map(|retries| [(retries, [dark, late]), (retries, [late, dark])])
        .map(|(retries, servers)| {
            let config = Config::new().backend(&format!("retries = {retries}"));
            let config = servers.iter().fold(config, |config, server| {
                config.server_with(server, "check = false")
            });
            (retries, Rlb::start(&config))
        })
        .collect();
    let clients: Vec<TcpStream> = balancers.iter().map(|it| connect(it.1.address())).collect();
    let asked = Instant::now();
    pace_until(asked + delay);
    let neighbour = [
        "neigh",
        "replace",
        "10.240.0.37",
        "lladdr",
        "02:00:0a:f0:00:25",
    ];
    lab.lb.ip(&[&neighbour[..], &["dev", "eth0"]].concat());
    for (mut client, (retries, rlb)) in clients.into_iter().zip(balancers) {
        let heard = read_to_end(&mut client);
        assert_eq!(heard, (b"late".to_vec(), End::Eof), "{delay:?}, {retries}");
        assert!(
            asked.elapsed() < delay + Duration::from_secs(2),
            "{delay:?}"
        );
        rlb.stop_after(client);
    }
    lab.lb.ip(&["neigh", "del", "10.240.0.37", "dev", "eth0"]);
}

/// Fault 5: no server of a new process answers. Its first client is rejected when the last one is DOWN, not
/// after the whole `timeout connect`.
#[test]
fn fault_5_the_first_client_is_told_when_the_last_server_is_down() {
    in_some_try(SOON, "told after the last DOWN", || {
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
        rlb.stop();
        ended.saturating_duration_since(down)
    });
}

/// Fault 5: a client that waits for a server that does not answer is served by the first server that comes UP.
#[test]
fn fault_5_a_waiting_client_is_served_by_the_first_server_that_comes_up() {
    in_some_try(SOON, "served after the first UP", || {
        let dark = Unanswering::start();
        let config = Config::new().server_with(dark.address(), "check = false");
        served_by_the_server_that_comes_up(config, QUICK)
    });
}

/// Fault 5: the server that comes UP has refused the waiting client before, and the retries are used up.
#[test]
fn fault_5_a_waiting_client_is_served_by_a_server_that_has_refused_it() {
    in_some_try(SOON, "served after the first UP", || {
        let dark = Unanswering::start();
        let peer = Peer::start(Behaviour::Says("up"));
        let check = "check = { interval = \"500ms\", timeout = \"100ms\", fall = 3, rise = 1 }";
        let config = Config::new()
            .server_with(dark.address(), "check = false")
            .server_with(peer.address(), check)
            .backend("retries = 1")
            .timeout("connect = \"60s\"");
        let rlb = Rlb::start(&config);
        rlb.wait_status("s2", "UP");
        let refuses = peer.stop();
        let mut client = connect(rlb.address());
        eventually_eq(STOP_WITHIN, &(1, true), || {
            (rlb.number("s1", "connect"), rlb.number("s2", "connect") > 0)
        });
        let served = std::thread::spawn(move || (read_to_end(&mut client), Instant::now()));
        rlb.wait_status("s2", "DOWN");
        let _peer = Peer::start_on(refuses, Behaviour::Says("up"));
        rlb.wait_status("s2", "UP");
        let up = Instant::now();
        let (heard, ended) = served.join().expect("the client ends");
        assert_eq!(heard, (b"up".to_vec(), End::Eof));
        rlb.stop();
        ended.saturating_duration_since(up)
    });
}

/// Faults 2 and 5: a client that waits for a dark backup is served by the primary server that comes up,
/// which ends the sessions of the backups.
#[test]
fn fault_2_on_marked_up_serves_a_client_that_connects_to_a_backup() {
    in_some_try(SOON, "served after the first UP", || {
        let dark = Unanswering::start();
        let config = Config::new().server_with(dark.address(), "check = false, backup = true");
        let keys = format!("{QUICK}, on-marked-up = \"shutdown-backup-sessions\"");
        served_by_the_server_that_comes_up(config, &keys)
    });
}

/// How long after its UP the server `s2`, which has these keys, serves a client that has been waiting for
/// `s1`, which is dark.
fn served_by_the_server_that_comes_up(config: Config, keys: &str) -> Duration {
    let refuses = Refuses::start();
    let config = config
        .server_with(refuses.address(), keys)
        // Or a server that comes up sooner than that is asked only then.
        .timeout("connect = \"60s\", connect-attempt = \"50ms\"");
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
    rlb.stop();
    ended.saturating_duration_since(up)
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
    let mut times = [Vec::new(), Vec::new()];
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
        times[round % 2].push(gone.elapsed());
        assert!(line.contains(" CC "), "{line}");
    }
    let medians = times.map(median);
    let noticed = medians.iter().all(|it| *it < Duration::from_millis(50));
    assert!(noticed, "a reset and an end: {medians:?}");
    // As with HAProxy a reset counts as an abort, an end does not.
    eventually_eq(STOP_WITHIN, &(0, 0, 5), || {
        let csv = rlb.csv();
        let backend = csv.row("be", "BACKEND");
        let number = |column| backend.number(column);
        (number("scur"), number("econ"), number("cli_abrt"))
    });
    assert_eq!(rlb.number("s1", "econ"), 0);
    rlb.stop();
}

/// A server that does not answer, and a client that has sent a request and FIN and whose session connects to it.
fn with_a_half_closed_client() -> (Unanswering, Rlb, TcpStream) {
    let dark = Unanswering::start();
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .timeout("connect = \"60s\"");
    let rlb = Rlb::start(&config);
    let mut client = connect(rlb.address());
    client.write_all(b"request").expect("sent");
    half_close(&client);
    eventually_eq(STOP_WITHIN, &1, || rlb.number("FRONTEND", "scur"));
    (dark, rlb, client)
}

/// The session goes on to connect for so long.
fn goes_on_connecting(rlb: &Rlb, length: Duration) {
    steadily(length, "the session connects", || {
        rlb.number("FRONTEND", "scur") == 1
    });
}

/// A client that has sent a request and FIN waits for the answer.
#[test]
fn a_client_that_half_closes_behind_its_request_is_served() {
    let (dark, rlb, mut client) = with_a_half_closed_client();
    let before = rlb.process.cpu_time();
    let watched = Duration::from_millis(500);
    goes_on_connecting(&rlb, watched);
    let used = rlb.process.cpu_time().saturating_sub(before);
    assert!(used < watched / 2, "no worker is busy: {used:?}");
    let _answering = dark.answers("answer");
    assert_eq!(read_to_end(&mut client).0, b"answer");
    rlb.stop_after(client);
}

#[test]
fn a_client_that_half_closes_behind_its_request_and_resets_is_noticed() {
    let (_dark, rlb, client) = with_a_half_closed_client();
    // The FIN is seen before the reset comes.
    goes_on_connecting(&rlb, Duration::from_millis(200));
    client::reset(client);
    eventually_eq(Duration::from_secs(1), &0, || {
        rlb.number("FRONTEND", "scur")
    });
    assert_eq!(rlb.number("BACKEND", "cli_abrt"), 1);
    rlb.stop();
}

/// Fault 6: a backend whose one server restarts for a second under 50 connections a second loses nobody,
/// and nobody waits much longer than the restart, whether the server is checked or not.
#[test]
fn fault_6_a_server_that_restarts_loses_no_client() {
    for keys in ["check = false", ""] {
        let slowest = Duration::from_millis(300);
        in_some_try(slowest, "the slowest client, beyond the restart", || {
            let peer = Peer::start(Behaviour::Says("hello"));
            let config = Config::new().server_with(peer.address(), keys);
            let rlb = Rlb::start(&config);
            assert_eq!(hear(rlb.address()).0, "hello");
            let beyond = over_a_restart(&rlb, peer);
            rlb.stop();
            beyond
        });
    }
}

/// How much longer than the restart the slowest client waited.
fn over_a_restart(rlb: &Rlb, peer: Peer) -> Duration {
    let refuses = peer.stop();
    let address = rlb.address();
    let begun = Instant::now();
    let clients: Vec<_> = (0..100)
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
    let mut slowest = Duration::ZERO;
    for client in clients {
        let (heard, took) = client.join().expect("a client");
        assert_eq!(heard.0, "hello");
        slowest = slowest.max(took);
    }
    assert_eq!(rlb.number("BACKEND", "econ"), 0);
    slowest.saturating_sub(restart)
}

/// What a client that has sent `bytes` bytes sees.
fn end_after_sending(address: SocketAddr, bytes: usize) -> (Vec<u8>, End) {
    let mut stream = connect(address);
    // Fails when the end has come first.
    let _ = stream.write_all(&vec![b'x'; bytes]);
    read_to_end(&mut stream)
}

/// Clients for each cause and each number of bytes: together 1,000 a cause.
const CLIENTS: usize = 340;

/// Fault 47: a client that no server serves gets FIN, whatever it has sent and whatever the reason.
#[test]
fn fault_47_a_client_that_nobody_serves_gets_an_orderly_end() {
    let (refuses, dark) = (Refuses::start(), Unanswering::start());
    let refusing = Config::new()
        .backend("retries = 0")
        .server_with(refuses.address(), "check = false");
    let down = Config::new().server_with(refuses.address(), QUICK);
    let disabled = Config::new().server_with(refuses.address(), "disabled = true");
    let timed_out = Config::new()
        .timeout("connect = \"300ms\"")
        .server_with(dark.address(), "check = false");
    for (cause, config) in [
        ("refused", refusing),
        ("no_server", down),
        ("no_server", disabled),
        ("timeout", timed_out),
    ] {
        let rlb = Rlb::start(&config);
        eventually_true(STOP_WITHIN, "as it is to be", || {
            (rlb.status("BACKEND") == "DOWN") == (cause == "no_server")
        });
        for bytes in [0, 1, 70_000] {
            let address = rlb.address();
            let threads: Vec<_> = (0..CLIENTS / 10)
                .map(|_| {
                    std::thread::spawn(move || {
                        let ends = (0..10).map(|_| end_after_sending(address, bytes));
                        ends.collect::<Vec<_>>()
                    })
                })
                .collect();
            for thread in threads {
                for end in thread.join().expect("clients") {
                    assert_eq!(end, (Vec::new(), End::Eof), "{cause}, {bytes} bytes");
                }
            }
        }
        eventually_eq(STOP_WITHIN, &(3 * CLIENTS as u64), || {
            rlb.failed_sessions(cause)
        });
        rlb.stop();
    }
}

/// Fault 2: an operator who ends a session, or a server's sessions, ends those too that connect to it.
#[test]
fn fault_2_sessions_that_connect_are_ended_by_order() {
    let dark = Unanswering::start();
    let config = Config::new()
        .server_with(dark.address(), "check = false")
        .timeout("connect = \"60s\"");
    let fixture = Fixture::new(config, "admin");
    for all in [false, true] {
        in_some_try(SOON, "ended while it connects", || {
            let mut client = connect(fixture.rlb.address());
            let id = eventually(STOP_WITHIN, "it connects", || {
                let list = fixture.ask("show sess");
                let line = list.lines().find(|line| line.contains("srv=s1"))?;
                line.split(':').next().map(str::to_owned)
            });
            let begun = Instant::now();
            let order = if all {
                "shutdown sessions server be/s1".to_owned()
            } else {
                format!("shutdown session {id}")
            };
            fixture.ask(&order);
            assert_eq!(read_to_end(&mut client), (Vec::new(), End::Eof));
            begun.elapsed()
        });
    }
    fixture.rlb.stop();
}

/// Fault 2: an order ends a session that waits until it asks a server again that has refused.
#[test]
fn fault_2_an_order_ends_a_session_between_two_attempts() {
    let refuses = Refuses::start();
    let config = Config::new()
        .server_with(refuses.address(), "check = false")
        .backend("retries = 50")
        .timeout("connect = \"60s\"");
    let fixture = Fixture::new(config, "admin");
    in_some_try(SOON, "ended between two attempts", || {
        let mut client = connect(fixture.rlb.address());
        eventually_true(STOP_WITHIN, "refused", || {
            fixture.rlb.number("s1", "wretr") > 0
        });
        let begun = Instant::now();
        fixture.ask("shutdown sessions server be/s1");
        assert_eq!(read_to_end(&mut client), (Vec::new(), End::Eof));
        begun.elapsed()
    });
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
