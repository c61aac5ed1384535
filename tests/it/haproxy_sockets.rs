//! What becomes of the sockets that `-sf` takes over from HAProxy and from rlb.

use crate::haproxy_name::{Background, Haproxy, answers_at, loaded};
use crate::harness::client::{connect, echo};
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use nix::sys::signal::Signal;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// HAProxy, if it is installed, and rlb.
fn programs(haproxy: &Haproxy) -> Vec<PathBuf> {
    let theirs = needs::program("haproxy");
    theirs
        .into_iter()
        .chain([haproxy.path("haproxy")])
        .collect()
}

/// Starts `program` with these binds, in the place of the process `old`.
#[track_caller]
fn start(
    haproxy: &Haproxy,
    program: &Path,
    (binds, server): (&str, SocketAddr),
    old: Option<&Background>,
) -> Background {
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n\
         listen fe\n{binds}  server s0 {server}\n"
    );
    fs::write(haproxy.path("haproxy.cfg"), text).expect("written");
    let mut words = vec!["-D", "-f", "haproxy.cfg", "-p", "pid"];
    let pid = old.map(|old| old.0.to_string());
    words.extend(pid.iter().flat_map(|pid| ["-sf", pid]));
    let started = haproxy.command_of(program, &words).output();
    let started = started.expect("it starts");
    assert!(started.status.success(), "{started:?}");
    haproxy.background()
}

/// The pid file of a HAProxy with `-W` has the master, which has no sockets: a new process was refused.
#[test]
fn sf_takes_over_from_the_workers_of_a_master() {
    let Some(debian) = needs::program("haproxy") else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let (socket, other) = (haproxy.path("rt.sock"), haproxy.path("other"));
    let global = format!("  stats socket {} level admin\n", socket.display());
    haproxy.write(peer.address(), &global);
    let file = haproxy.path("haproxy.cfg");
    let text = fs::read_to_string(&file).expect("readable");
    fs::write(&file, format!("{text}  bind {}\n", other.display())).expect("written");
    let words = ["-D", "-W", "-f", "haproxy.cfg", "-p", "pid"];
    let theirs = haproxy.command_of(&debian, &words).output();
    let theirs = theirs.expect("it starts");
    assert!(theirs.status.success(), "{theirs:?}");
    let master = haproxy.background();
    eventually_true(WITHIN, "HAProxy's worker", || {
        TcpStream::connect(haproxy.address).is_ok()
    });
    loaded(&haproxy, || {
        let pid = master.0.to_string();
        let started = haproxy.output(&[&words[..], &["-sf", &pid]].concat());
        assert!(started.status.success(), "{started:?}");
    });
    // Its worker waits for the sessions that the load had.
    master.wait_end();
    let ours = haproxy.background();
    answers_at(&socket, &ours);
    std::os::unix::net::UnixStream::connect(&other).expect("the unix bind");
    ours.signal(Signal::SIGTERM);
    ours.wait_end();
}

/// A socket that refuses IPv4 was taken over by a bind that does not, which refused IPv4 from then on.
#[test]
fn sf_opens_a_socket_of_its_own_where_the_old_one_refuses_ipv4() {
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    for program in programs(&haproxy) {
        let port = ports::free().port();
        let (v4, v6) = (
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        );
        let only = format!("  bind :::{port} v6only\n");
        let old = start(&haproxy, &program, (&only, peer.address()), None);
        eventually_true(WITHIN, "the old process", || TcpStream::connect(v6).is_ok());
        assert!(TcpStream::connect(v4).is_err());
        let both = format!("  bind :::{port}\n");
        let ours = haproxy.path("haproxy");
        let new = start(&haproxy, &ours, (&both, peer.address()), Some(&old));
        old.wait_end();
        echo(&mut connect(v4), b"IPv4");
        echo(&mut connect(v6), b"IPv6");
        new.signal(Signal::SIGTERM);
        new.wait_end();
    }
}

/// The mode of the old file stayed.
#[test]
fn sf_takes_back_the_mode_of_a_unix_socket() {
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("s");
    let mode = || fs::metadata(&socket).map(|found| found.permissions().mode() & 0o7777);
    for program in programs(&haproxy) {
        let bind = format!("  bind {}", socket.display());
        let open = format!("{bind} mode 666\n");
        let old = start(&haproxy, &program, (&open, peer.address()), None);
        eventually_true(WITHIN, "the old process", || {
            mode().is_ok_and(|it| it == 0o666)
        });
        let ours = haproxy.path("haproxy");
        let plain = format!("{bind}\n");
        let new = start(&haproxy, &ours, (&plain, peer.address()), Some(&old));
        old.wait_end();
        let reference = haproxy.path("reference");
        drop(std::os::unix::net::UnixListener::bind(&reference).expect("a socket"));
        let usual = fs::metadata(&reference).expect("it is there");
        fs::remove_file(&reference).expect("removed");
        assert_eq!(mode().ok(), Some(usual.permissions().mode() & 0o7777));
        new.signal(Signal::SIGTERM);
        new.wait_end();
        // HAProxy does not remove it.
        let _ = fs::remove_file(&socket);
    }
}
