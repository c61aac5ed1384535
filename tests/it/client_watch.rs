//! The watch of clients that wait, where the kernel refuses it: a tracer makes `epoll_ctl` fail in the workers.

use crate::harness::client::{TIMEOUT, connect};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, steadily};
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::Rlb;
use crate::service::thread;
use std::fs::read_to_string;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Makes each `epoll_ctl` of the workers fail, and writes each into a file.
fn refuse(strace: &Path, rlb: &Rlb, log: &Path) -> Process {
    let mut command = Command::new(strace);
    command
        .args(["-qq", "-e", "trace=epoll_ctl", "-o"])
        .arg(log);
    command.args(["-e", "inject=epoll_ctl:error=ENOSPC"]);
    let workers = ["worker-0", "worker-1"].map(|name| thread(rlb.process.id(), name));
    for worker in &workers {
        command.args(["-p", worker]);
    }
    let tracer = Process::start(command, None, false);
    for worker in workers {
        let status = format!("/proc/{worker}/status");
        eventually_true(TIMEOUT, "it is traced", || {
            let status = read_to_string(&status).expect("it runs");
            !status.contains("TracerPid:\t0\n")
        });
    }
    tracer
}

/// A client cannot be watched while it waits: it is served all the same, and the watch is tried once.
fn waits_unwatched(config: &Config, is_waiting: impl Fn(&Rlb) -> bool) {
    let (true, Some(strace)) = (needs::root(), needs::program("strace")) else {
        return;
    };
    let rlb = Rlb::start(config);
    let speaks = |stream: &mut TcpStream| stream.read_exact(&mut [0]).expect("its server speaks");
    let mut first = connect(rlb.address());
    speaks(&mut first);
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let mut tracer = refuse(&strace, &rlb, &log);
    let tried = || read_to_string(&log).map_or(0, |text| text.matches("INJECTED").count());
    let mut second = connect(rlb.address());
    eventually_true(TIMEOUT, "the client waits", || is_waiting(&rlb));
    eventually_eq(TIMEOUT, &1, tried);
    let before = rlb.process.cpu_time();
    steadily(Duration::from_millis(300), "tried once, and slept", || {
        let used = rlb.process.cpu_time().saturating_sub(before);
        tried() == 1 && used <= Duration::from_millis(100)
    });
    tracer.kill();
    drop(first);
    speaks(&mut second);
    drop(second);
    rlb.stop();
}

#[test]
fn a_client_in_a_queue() {
    let peer = Peer::start(Behaviour::SpeaksFirst("x"));
    let config = Config::new()
        .timeout("queue = \"20s\"")
        .server_with(peer.address(), "check = false, maxconn = 1");
    waits_unwatched(&config, |rlb| rlb.number("BACKEND", "qcur") == 1);
}

#[test]
fn a_client_that_is_accepted_while_its_frontend_is_full() {
    let peer = Peer::start(Behaviour::SpeaksFirst("x"));
    let config = Config::new()
        .frontend("maxconn = 1")
        .server_with(peer.address(), "check = false");
    waits_unwatched(&config, |_| true);
}
