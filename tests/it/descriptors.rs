//! `bind = "fd@3"`: a socket that whoever starts rlb passes to it.

use crate::harness::client::{connect, echo, hear};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Start, command};
use crate::harness::runtime::ask;
use crate::upgrade::Next;
use nix::sys::signal::Signal;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

fn config(bind: &str, server: SocketAddr) -> String {
    format!(
        "[[listen]]\nname = \"fe\"\nbind = \"{bind}\"\ncheck = false\n\
         servers = [{{ name = \"s\", address = \"{server}\" }}]\n"
    )
}

fn listener() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener.into(), address)
}

#[test]
fn a_descriptor_is_listened_on_and_stays_over_reloads_and_upgrades() {
    let [one, two] = ["one", "two"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let (socket, address) = listener();
    // Who connects before the start waits in the socket.
    let early = std::thread::spawn(move || hear_first(address));
    let mut rlb = Start::new(&config("fd@3", one.address()))
        .descriptor(socket)
        .ready();
    assert_eq!(early.join().expect("a client"), "one");
    assert_eq!(rlb.address(), address);
    rlb.reload(&config("fd@3", two.address()));
    assert_eq!(hear_first(address), "two");
    let mut open = connect(address);
    std::io::Read::read_exact(&mut open, &mut [0; 3]).expect("the greeting");
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    echo(&mut open, b"still there");
    assert_eq!(hear_first(address), "two");
    drop(open);
    next.stop();
    assert!(std::net::TcpStream::connect(address).is_err());
}

/// systemd passes sockets by numbers too: the number of the file wins over names and addresses.
#[test]
fn the_descriptor_of_a_socket_unit_is_found_by_its_number() {
    let peer = Peer::start(Behaviour::Says("one"));
    let ((first, other), (second, address)) = (listener(), listener());
    let rlb = Start::new(&config("fd@4", peer.address()))
        .inherits([first, second])
        .ready();
    assert_eq!(rlb.address(), address);
    assert_eq!(hear(address).0, "one");
    assert!(
        std::net::TcpStream::connect(other).is_err(),
        "nobody wants the other one"
    );
    rlb.stop();
}

#[test]
fn a_descriptor_that_nobody_passes_is_an_error_of_the_start_and_not_of_a_check() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let text = config("fd@77", nobody);
    let (status, said) = Start::new(&text).exits();
    assert_eq!(status.code(), Some(1));
    let said = said.join("\n");
    assert!(said.contains("fe: cannot listen on fd@77"), "{said}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rlb.toml");
    std::fs::write(&path, text).expect("written");
    let path = path.display().to_string();
    assert!(command(&["check", &path]).status.success());
}

/// A runtime socket that is passed is served, with its level, over reloads and upgrades; who connects before the start waits
/// in it.
#[test]
fn a_descriptor_is_a_runtime_socket_and_stays_over_reloads_and_upgrades() {
    let peer = Peer::start(Behaviour::Echo);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passed.sock");
    let socket = UnixListener::bind(&path).expect("bound");
    let text = |level: &str| {
        let line = format!("[runtime-api]\nsocket = \"fd@3\"\n{level}");
        config("127.0.0.1:0", peer.address()) + &line
    };
    let early = {
        let path = path.clone();
        std::thread::spawn(move || ask(&path, "show cli level"))
    };
    let mut rlb = Start::new(&text("")).descriptor(socket.into()).ready();
    assert_eq!(early.join().expect("a client"), "operator\n\n");
    let sockets = ask(&path, "show cli sockets");
    let line = format!("unix@{} operator all\n", path.display());
    assert!(sockets.contains(&line), "{sockets}");
    rlb.reload(&text("level = \"admin\"\n"));
    assert_eq!(ask(&path, "show cli level"), "admin\n\n");
    let said = ask(&path, "upgrade");
    assert!(said.starts_with("Success=1"), "{said}");
    let next = Next::of(&rlb);
    let pid = format!("Pid: {}\n", next.pid());
    assert!(ask(&path, "show info").contains(&pid));
    assert_eq!(ask(&path, "show cli level"), "admin\n\n");
    // Whoever has passed it knows where it is, and not the file.
    let file = rlb.config_path().display().to_string();
    let said = command(&["ctl", "--config", &file, "show info"]);
    assert_eq!(said.status.code(), Some(1));
    let error = String::from_utf8(said.stderr).expect("text");
    assert!(error.contains("only sockets that are passed"), "{error}");
    next.stop();
}

/// The first three bytes that a server says.
#[track_caller]
fn hear_first(address: SocketAddr) -> String {
    let mut stream = connect(address);
    let mut word = [0; 3];
    std::io::Read::read_exact(&mut stream, &mut word).expect("the greeting");
    String::from_utf8(word.to_vec()).expect("text")
}
