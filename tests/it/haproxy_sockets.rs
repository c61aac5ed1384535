//! What becomes of the sockets that `-sf` and `-x` take over from HAProxy and from rlb.

use crate::haproxy_name::{Background, Haproxy, answers_at, handles, loaded, pid_at};
use crate::harness::client::{connect, echo};
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
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
    // A signal that comes before is lost: the master ignores it for a moment when it starts.
    eventually_true(WITHIN, "HAProxy's master and worker", || {
        TcpStream::connect(haproxy.address).is_ok()
            && handles(master.0.cast_unsigned(), Signal::SIGUSR1)
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

/// A reload of HAProxy executes its program file again. When that was exchanged, rlb ended with an error, and the workers
/// with it.
#[test]
fn a_reload_of_haproxy_whose_program_was_exchanged_goes_over_to_rlb() {
    let Some(debian) = needs::program("haproxy") else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("rt.sock");
    let runtime = format!("  stats socket {} level admin\n", socket.display());
    haproxy.write(peer.address(), &runtime);
    let program = haproxy.path("program");
    symlink(&debian, &program).expect("a link");
    let master = haproxy.path("m.sock").display().to_string();
    let words = ["-W", "-db", "-f", "haproxy.cfg", "-p", "pid", "-S", &master];
    // HAProxy executes what it was started as.
    let folder = haproxy.path("bin");
    fs::create_dir(&folder).expect("a folder");
    let started_as = folder.join("haproxy");
    symlink(&program, &started_as).expect("a link");
    let mut process = Process::start(haproxy.command_of(&started_as, &words), None, false);
    eventually_true(WITHIN, "HAProxy's worker", || {
        TcpStream::connect(haproxy.address).is_ok() && handles(process.id(), Signal::SIGUSR2)
    });
    let mut held = connect(haproxy.address);
    echo(&mut held, b"held");
    let workers = children(process.id());
    assert_eq!(workers.len(), 1, "{workers:?}");
    fs::remove_file(&program).expect("removed");
    symlink(PROGRAM, &program).expect("a link");
    loaded(&haproxy, || {
        process.signal(Signal::SIGUSR2);
        process.stderr.wait_for("ready version=");
        eventually_true(WITHIN, "answers of rlb", || {
            pid_at(&socket) == Some(process.id().cast_signed())
        });
        echo(&mut held, b"a session of HAProxy's goes on");
    });
    assert_eq!(children(process.id()), workers, "it has the session");
    drop(held);
    eventually_true(STOP_WITHIN, "the end of HAProxy's worker", || {
        children(process.id()).is_empty()
    });
    assert!(haproxy.path("m.sock").exists());
    // Signals reach it: HAProxy's master had blocked them.
    loaded(&haproxy, || {
        process.signal(Signal::SIGUSR2);
        process.stderr.wait_for("reloaded");
    });
    process.signal(Signal::SIGTERM);
    assert!(process.wait(STOP_WITHIN).success());
}

/// The children of a process, those too that nobody has waited for.
fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).expect("the process lives");
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// `-x` asks for the sockets with HAProxy's protocol: here nothing else leads to them, because rlb is in a pid namespace
/// in which HAProxy has no number.
#[test]
fn x_takes_sockets_from_a_haproxy_in_another_container() {
    let Some(debian) = needs::program("haproxy") else {
        return;
    };
    if !needs::root() {
        return;
    }
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("rt.sock");
    let socket_words = |words: &str| format!("  stats socket {}{words}\n", socket.display());
    let path = haproxy.path("haproxy");
    let path = path.display().to_string();
    let x = socket.display().to_string();
    let words = [
        "--pid",
        "--fork",
        "--kill-child",
        &path,
        "-db",
        "-f",
        "haproxy.cfg",
        "-x",
        &x,
    ];
    let container = || haproxy.command_of(Path::new("unshare"), &words);
    let start = |words: &str| {
        haproxy.write(peer.address(), &socket_words(words));
        let command = haproxy.command_of(&debian, &["-db", "-f", "haproxy.cfg"]);
        let process = Process::start(command, None, false);
        eventually_true(WITHIN, "HAProxy", || {
            TcpStream::connect(haproxy.address).is_ok()
        });
        process
    };
    // It does not give them, and rlb cannot see it.
    let mut closed = start(" level admin");
    let refused = container().output().expect("it starts");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    closed.kill();
    let mut open = start(" level admin expose-fd listeners");
    let _ours = loaded(&haproxy, || {
        let ours = Process::start(container(), None, false);
        ours.stderr.wait_for("ready version=");
        open.signal(Signal::SIGUSR1);
        open.wait(STOP_WITHIN);
        echo(&mut connect(haproxy.address), b"served by rlb");
        ours
    });
}

/// The abstract names of HAProxy's `abns@` are padded with zeros: a name that was not padded reached nobody. From one rlb
/// to HAProxy, and from there to another rlb.
#[test]
fn abstract_names_are_haproxys() {
    let Some(debian) = needs::program("haproxy") else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    // As long as HAProxy takes them.
    let names = ["a", "b"].map(|name| format!("abns@{name}-{:0>105}", std::process::id()));
    let [near, far] = &names;
    let first = haproxy.address.to_string();
    let last = peer.address().to_string();
    let chain = [
        (haproxy.path("haproxy"), far.as_str(), last.as_str()),
        (debian, near, far),
        (haproxy.path("haproxy"), &first, near),
    ];
    let mut processes = Vec::new();
    for (number, (program, bind, server)) in chain.iter().enumerate() {
        let text = format!(
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n\
             listen fe\n  bind {bind}\n  server s0 {server} check\n"
        );
        let file = format!("{number}.cfg");
        fs::write(haproxy.path(&file), text).expect("written");
        let command = haproxy.command_of(program, &["-db", "-f", &file]);
        processes.push(Process::start(command, None, false));
    }
    eventually_true(WITHIN, "an answer through all three", || {
        let answer = TcpStream::connect(haproxy.address).and_then(|mut stream| {
            stream.write_all(b"there")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).map(|()| answer)
        });
        answer.is_ok_and(|answer| answer == *b"there")
    });
}
