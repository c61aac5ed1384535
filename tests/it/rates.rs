//! Limits of rates, beside HAProxy: both read the same file, and as many clients are served at the same times.

use crate::harness::client::{connect, echo, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_true, steadily};
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Connections a second.
const LIMIT: u32 = 20;
/// Clients: the first second's worth, and that of a window after it.
const CLIENTS: u32 = 2 * LIMIT;
/// How much later than by the clock a client of a busy machine may be served and be seen.
const LATE_MAX: Duration = Duration::from_millis(250);
/// How late the first client may be seen, and so how early the others.
const EARLY_MAX: Duration = Duration::from_millis(60);
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);

/// When each of the clients was served, since the first, in order.
fn served(program: &Path, file: &str) -> Vec<Duration> {
    let netns = Netns::alone("rates");
    let peer = netns.enter(|| Peer::start(Behaviour::Says("x")));
    let folder = tempfile::tempdir().expect("a folder");
    let text = file.replace("SERVER", &peer.address().to_string());
    fs::write(folder.path().join("haproxy.cfg"), text).expect("written");
    // Under this name rlb reads HAProxy's file.
    let name = folder.path().join("haproxy");
    std::os::unix::fs::symlink(program, &name).expect("a link");
    let mut command = Command::new(name);
    command
        .args(["-db", "-f", "haproxy.cfg"])
        .current_dir(&folder);
    let mut process = Process::start(command, Some(&netns), false);
    let times = netns.enter(|| {
        eventually_true(STOP_WITHIN, "it listens", || {
            // Not a client: it is no connection of the limited frontend, which may listen later.
            ports::is_listened_on(ADDRESS)
                && TcpStream::connect((Ipv4Addr::LOCALHOST, 7001)).is_ok()
        });
        let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(ADDRESS)).collect();
        std::thread::scope(|scope| {
            let time = |mut client: TcpStream| {
                let (said, _) = read_to_end(&mut client);
                assert_eq!(said, b"x");
                Instant::now()
            };
            let threads: Vec<_> = clients
                .into_iter()
                .map(|client| scope.spawn(move || time(client)))
                .collect();
            let times = threads.into_iter().map(|it| it.join().expect("it ends"));
            times.collect::<Vec<_>>()
        })
    });
    process.signal(Signal::SIGTERM);
    process.wait(STOP_WITHIN);
    let first = *times.iter().min().expect("clients");
    let mut times: Vec<Duration> = times.into_iter().map(|time| time - first).collect();
    times.sort_unstable();
    times
}

/// The same clients are served at the same times by rlb and by HAProxy: a second's worth at once, none in the rest
/// of the second, then one by one.
fn as_in_haproxy(global: &str, frontend: &str) {
    if !needs::root() {
        return;
    }
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    // The other frontend tells when it serves; it counts for the limits of the process too.
    let file = format!(
        "global\n  nbthread 2\n{global}\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
         timeout client 1m\n  timeout server 1m\nfrontend other\n  bind 127.0.0.1:7001\n  \
         default_backend none\nbackend none\nlisten l\n  bind 127.0.0.1:7000\n{frontend}\n  \
         server s SERVER\n"
    );
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| served(&haproxy, &file));
        let ours = served(Path::new(PROGRAM), &file);
        (ours, theirs.join().expect("it ends"))
    });
    for (who, times) in [("rlb", &ours), ("HAProxy", &theirs)] {
        let at_once = times.iter().filter(|at| **at < Duration::from_millis(800));
        // The one that has asked whether it listens counts too, and may be accepted before the others or after them.
        let (least, early) = if global.is_empty() {
            (LIMIT, EARLY_MAX)
        } else {
            (LIMIT - 1, EARLY_MAX + Duration::from_millis(50))
        };
        let count = u32::try_from(at_once.count()).expect("few");
        assert!(
            count >= least && (count <= LIMIT || who != "rlb"),
            "{who}: {count} at once: {times:?}"
        );
        for (number, at) in (0..).zip(times).skip(LIMIT as usize) {
            let due = Duration::from_millis(1000 + u64::from(number - LIMIT) * 50);
            assert!(
                *at + early >= due || who != "rlb",
                "{who}: {number} early: {times:?}"
            );
            assert!(
                *at < due + LATE_MAX + early,
                "{who}: {number} late: {times:?}"
            );
        }
    }
}

#[test]
fn the_rate_of_a_frontend_is_that_of_haproxy() {
    as_in_haproxy("", &format!("  rate-limit sessions {LIMIT}"));
}

#[test]
fn the_rate_of_connections_of_the_process_is_that_of_haproxy() {
    as_in_haproxy(&format!("  maxconnrate {LIMIT}\n  maxsessrate 1000"), "");
}

#[test]
fn the_rate_of_sessions_of_the_process_is_that_of_haproxy() {
    as_in_haproxy(&format!("  maxsessrate {LIMIT}"), "");
}

/// Clients wait in the queue of the kernel, no one else waits with them, and another limit holds at once.
#[test]
fn clients_above_a_rate_wait_and_a_reload_lets_them_in() {
    let peer = Peer::start(Behaviour::Echo);
    let with = |limit: u32| {
        Config::new()
            .global("maxconnrate = 500\nmaxsessrate = 700")
            .frontend(&format!("rate-limit-sessions = {limit}"))
            .server_with(peer.address(), "check = false")
            .table(
                "[[listen]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\n\
                 servers = [{ name = \"s\", address = \"PEER\" }]"
                    .replace("PEER", &peer.address().to_string())
                    .as_str(),
            )
    };
    let mut fixture = Fixture::new(with(1), "admin");
    let address = fixture.rlb.address();
    let mut first = connect(address);
    echo(&mut first, b"served");
    let mut waiting: Vec<TcpStream> = (0..8).map(|_| connect(address)).collect();
    for stream in &mut waiting {
        stream.write_all(b"waited").expect("the kernel takes it");
        stream.set_nonblocking(true).expect("non-blocking");
    }
    let accepted = |fixture: &Fixture| fixture.rlb.csv().row("fe", "FRONTEND").number("conn_tot");
    steadily(Duration::from_millis(700), "they wait", || {
        accepted(&fixture) == 1 && waiting.iter_mut().all(|it| it.read(&mut [0]).is_err())
    });
    let other = fixture.rlb.addresses("other")[0];
    echo(&mut connect(other), b"another frontend");
    let row = |fixture: &Fixture| fixture.rlb.csv().row("fe", "FRONTEND").number("rate_lim");
    assert_eq!(row(&fixture), 1);
    let info = fixture.ask("show info");
    for line in [
        "ConnRateLimit: 500",
        "SessRateLimit: 700",
        "MaxconnReached: 0",
    ] {
        assert!(info.contains(&format!("\n{line}\n")), "{line}: {info}");
    }
    let text = fixture.config.to_string();
    let text = text.replace("rate-limit-sessions = 1", "rate-limit-sessions = 1000");
    assert_eq!(fixture.ask("set rate-limit connections global 600"), "\n");
    fixture.rlb.reload(&text);
    let begun = Instant::now();
    for stream in &mut waiting {
        stream.set_nonblocking(false).expect("blocking");
        stream.read_exact(&mut [0; 6]).expect("served");
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!((row(&fixture), accepted(&fixture)), (1000, 9));
    // What an operator has set stays until the file says something else.
    let overrides = "# object setting file now\nglobal connections-rate 500 600\n\n";
    assert_eq!(fixture.ask("show overrides"), overrides);
    let text = text.replace("maxconnrate = 500", "maxconnrate = 300");
    fixture.rlb.reload(&text);
    assert!(fixture.ask("show info").contains("\nConnRateLimit: 300\n"));
    drop((first, waiting));
    fixture.rlb.stop();
}
