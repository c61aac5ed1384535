//! Workers that share one listening socket, because it was passed to them: one of them makes it stop listening or closes it
//! for all.

use crate::harness::client::{End, connect, echo, read_to_end};
use crate::harness::eventually::{eventually_true, steadily};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start};
use crate::harness::runtime::ask;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// How often the frontend is disabled and enabled.
const ROUNDS: usize = 3;

/// Clients at a time.
const CLIENTS: usize = 32;

/// No worker spins: that would use this time several times over.
#[track_caller]
fn sleeps(rlb: &Rlb) {
    let before = rlb.process.cpu_time();
    steadily(Duration::from_millis(300), "no worker spins", || {
        rlb.process.cpu_time().saturating_sub(before) <= Duration::from_millis(100)
    });
}

/// Clients that have connected.
fn clients(address: SocketAddr) -> Vec<TcpStream> {
    (0..CLIENTS).map(|_| connect(address)).collect()
}

/// All of them are served.
#[track_caller]
fn are_served(clients: Vec<TcpStream>) {
    for mut client in clients {
        assert_eq!(read_to_end(&mut client), (b"served".into(), End::Eof));
    }
}

/// Four workers with a runtime socket; with `bind` they share the socket that was passed.
fn config(folder: &Path, servers: [SocketAddr; 2], bind: bool) -> String {
    let [says, echoes] = servers;
    let shared = format!(
        "[[listen]]\nname = \"shared\"\nbind = \"fd@3\"\ncheck = false\n\
         servers = [{{ name = \"s\", address = \"{says}\" }}]\n"
    );
    format!(
        "[global]\nthreads = 4\n[runtime-api]\nsocket = \"{}\"\nlevel = \"admin\"\n{}\
         [[listen]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\ncheck = false\n\
         servers = [{{ name = \"s\", address = \"{echoes}\" }}]\n",
        folder.join("socket").display(),
        if bind { &*shared } else { "" },
    )
}

#[test]
fn they_sleep_while_it_does_not_listen_and_serve_everyone_otherwise() {
    let (says, echoes) = (
        Peer::start(Behaviour::Says("served")),
        Peer::start(Behaviour::Echo),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = |bind| config(folder.path(), [says.address(), echoes.address()], bind);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut rlb = Start::new(&file(true)).descriptor(listener.into()).ready();
    let order = |word: &str| {
        let command = format!("{word} frontend shared");
        let answer = ask(&folder.path().join("socket"), &command);
        assert_eq!(answer.trim(), "", "{command}");
    };
    for _ in 0..ROUNDS {
        are_served(clients(address));
        sleeps(&rlb);
        // Those that have connected before the order are served.
        let before = clients(address);
        order("disable");
        are_served(before);
        assert!(TcpStream::connect(address).is_err(), "it does not listen");
        sleeps(&rlb);
        order("enable");
    }
    let other = rlb.addresses("other")[0];
    let mut open = connect(other);
    echo(&mut open, b"here");
    let before = clients(address);
    rlb.reload(&file(false));
    are_served(before);
    eventually_true(STOP_WITHIN, "nobody listens", || {
        TcpStream::connect(address).is_err()
    });
    sleeps(&rlb);
    echo(&mut open, b"still here");
    echo(&mut connect(other), b"and new ones");
    rlb.stop_after(open);
}
