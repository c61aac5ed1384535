//! As a service: sockets that the service manager passes and stores, and the watchdog.

use crate::harness::client::{TIMEOUT, connect, echo};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true, steadily};
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start};
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

/// The stored descriptors of the two shards of one address.
fn stored(rlb: &Rlb, address: SocketAddr) -> [OwnedFd; 2] {
    let name = format!("FDNAME=tcp-127.0.0.1_{}", address.port());
    [(); 2].map(|()| {
        let (text, mut fds) = rlb.wait_message("FDSTORE=1");
        assert_eq!(text.lines().nth(1), Some(name.as_str()));
        assert_eq!(fds.len(), 1);
        fds.remove(0)
    })
}

#[test]
fn a_crash_refuses_nobody() {
    let peer = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let config = Config::new()
        .bind(address)
        .server_with(peer.address(), "check = false");
    let mut first = Rlb::start(&config);
    let sockets = stored(&first, address);
    echo(&mut connect(address), b"before");
    first.process.kill();
    // No process runs now; both shards must take some connections.
    let waiting: Vec<TcpStream> = (0..16)
        .map(|_| TcpStream::connect_timeout(&address, TIMEOUT).expect("not refused"))
        .collect();
    let second = Start::new(&config).inherits(sockets).ready();
    for mut stream in waiting {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        echo(&mut stream, b"queued while nobody ran");
    }
    echo(&mut connect(address), b"after");
    second.stop();
}

#[test]
fn fewer_workers_accept_from_all_sockets_that_were_passed() {
    let peer = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let config = |threads: &str| {
        Config::default()
            .global(threads)
            .bind(address)
            .server_with(peer.address(), "check = false")
    };
    let mut first = Rlb::start(&config("threads = 2"));
    let sockets = stored(&first, address);
    first.process.kill();
    let mut second = Start::new(&config("threads = 1")).inherits(sockets).ready();
    for _ in 0..16 {
        echo(&mut connect(address), b"one worker, two sockets");
    }
    let elsewhere = config("threads = 1").bind(ports::free());
    second.reload(&elsewhere);
    second.stop();
}

#[test]
fn a_reload_stores_what_it_opens_and_forgets_what_it_closes() {
    let peer = Peer::start(Behaviour::Echo);
    let (before, after) = (ports::free(), ports::free());
    let config = |address| {
        Config::new()
            .bind(address)
            .server_with(peer.address(), "check = false")
    };
    let rlb = Rlb::start(&config(before));
    let sockets = stored(&rlb, before);
    rlb.rewrite(&config(after));
    rlb.signal(Signal::SIGHUP);
    let (text, _) = rlb.wait_message("FDSTOREREMOVE=1");
    let name = format!("FDNAME=tcp-127.0.0.1_{}", before.port());
    assert_eq!(text.lines().nth(1), Some(name.as_str()));
    let (text, fds) = rlb.wait_message("FDSTORE=1");
    let name = format!("FDNAME=tcp-127.0.0.1_{}", after.port());
    assert_eq!(text.lines().nth(1), Some(name.as_str()));
    assert_eq!(fds.len(), 2, "both shards");
    // The descriptors of the service manager, which are the last ones.
    drop(sockets);
    eventually_true(STOP_WITHIN, "the old port is closed", || {
        TcpStream::connect_timeout(&before, TIMEOUT).is_err()
    });
    echo(&mut connect(after), b"the new port");
    rlb.stop();
}

#[test]
fn sockets_of_the_statistics_are_stored_too() {
    let peer = Peer::start(Behaviour::Echo);
    let (before, after) = (ports::free(), ports::free());
    let config = |address: SocketAddr| {
        let config = Config::new().server_with(peer.address(), "check = false");
        let text = config.to_string();
        text.replacen(
            "[stats]\nbind = [\"127.0.0.1:0\"]",
            &format!("[stats]\nbind = \"{address}\""),
            1,
        )
    };
    let name = |address: SocketAddr| format!("FDNAME=tcp-127.0.0.1_{}", address.port());
    let rlb = Rlb::start(&config(before));
    let (text, socket) = rlb.wait_message("FDSTORE=1");
    assert_eq!(
        (text.lines().nth(1), socket.len()),
        (Some(&*name(before)), 1)
    );
    rlb.rewrite(&config(after));
    rlb.signal(Signal::SIGHUP);
    let (text, _) = rlb.wait_message("FDSTOREREMOVE=1");
    assert_eq!(text.lines().nth(1), Some(&*name(before)));
    let (text, fds) = rlb.wait_message("FDSTORE=1");
    assert_eq!((text.lines().nth(1), fds.len()), (Some(&*name(after)), 1));
    // The descriptor of the service manager, which is the last one.
    drop(socket);
    eventually_true(STOP_WITHIN, "the old port is closed", || {
        TcpStream::connect_timeout(&before, TIMEOUT).is_err()
    });
    rlb.stop();
}

#[test]
fn a_socket_that_is_configured_no_more_is_closed_and_forgotten() {
    let peer = Peer::start(Behaviour::Echo);
    let (address, gone) = (
        ports::free(),
        TcpListener::bind("127.0.0.1:0").expect("a port"),
    );
    let gone_address = gone.local_addr().expect("bound");
    let kept = TcpListener::bind(address).expect("free a moment ago");
    let config = Config::new()
        .bind(address)
        .server_with(peer.address(), "check = false");
    let rlb = Start::new(&config)
        .inherits([kept.into(), gone.into()])
        .ready();
    assert_eq!(rlb.events().with("not configured any more").len(), 1);
    assert!(TcpStream::connect_timeout(&gone_address, TIMEOUT).is_err());
    for _ in 0..4 {
        echo(&mut connect(address), b"socket activation");
    }
    rlb.stop();
}

#[test]
fn the_watchdog_hears_from_us_until_the_end() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .global("hard-stop-after = \"60s\"")
        .server_with(peer.address(), "check = false");
    let mut rlb = Start::new(&config).env("WATCHDOG_USEC", 400_000).ready();
    for _ in 0..3 {
        rlb.wait_message("WATCHDOG=1");
    }
    let mut session = connect(rlb.address());
    echo(&mut session, b"a session that lasts");
    rlb.signal(Signal::SIGTERM);
    rlb.wait_message("STOPPING=1");
    // A worker without sessions has ended by now, which must not stop the notifications.
    for _ in 0..3 {
        rlb.wait_message("WATCHDOG=1");
    }
    drop(session);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
}

/// The thread of a process with this `name`. A thread gets its name when it first runs, which may be
/// after the process has said that it is ready.
pub(crate) fn thread(process: u32, name: &str) -> String {
    let named = |path: &std::path::Path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    eventually(TIMEOUT, "a thread of this name", || {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
        let mut tasks = tasks.flatten().map(|task| task.path());
        let task = tasks.find(|path| named(path))?;
        Some(task.file_name()?.to_string_lossy().into_owned())
    })
}

/// A tracer stops one worker, as an endless loop would; all other threads run.
#[test]
fn the_watchdog_hears_nothing_while_one_worker_is_stuck() {
    let (true, Some(strace)) = (needs::root(), needs::program("strace")) else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let rlb = Start::new(&config).env("WATCHDOG_USEC", 400_000).ready();
    rlb.wait_message("WATCHDOG=1");
    let mut command = Command::new(strace);
    command
        .args([
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=epoll_wait,epoll_pwait",
        ])
        .args(["-e", "inject=epoll_wait,epoll_pwait:delay_enter=60s"])
        .args(["-p", &thread(rlb.process.id(), "worker-1")]);
    let mut tracer = Process::start(command, None, false);
    rlb.events().wait_for("workers [1] do not answer");
    // Notifications from before.
    while rlb.notified("WATCHDOG=1") {}
    steadily(Duration::from_secs(1), "no WATCHDOG=1 is sent", || {
        !rlb.notified("WATCHDOG=1")
    });
    assert_eq!(tracer.ended(), None);
    let missed = rlb.events().with("no sign of life for the watchdog").len();
    assert!(missed >= 3, "said each time: {missed}");
    tracer.kill();
    eventually(TIMEOUT, "WATCHDOG=1 once it turns again", || {
        rlb.notified("WATCHDOG=1").then_some(())
    });
    for _ in 0..8 {
        echo(&mut connect(rlb.address()), b"both workers serve");
    }
    rlb.stop();
}

#[test]
fn a_watchdog_for_another_process_is_none_of_ours() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let rlb = Start::new(&config)
        .env("WATCHDOG_USEC", 100_000)
        .env("WATCHDOG_PID", 1)
        .ready();
    steadily(Duration::from_millis(300), "no WATCHDOG=1", || {
        !rlb.notified("WATCHDOG=1")
    });
    rlb.stop();
}
