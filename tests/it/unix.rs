//! Unix sockets, on either side.

use crate::harness::client::{TIMEOUT, connect, echo};
use crate::harness::config::Config;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::Rlb;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};

#[test]
fn a_frontend_listens_on_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("front.sock");
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .bind(format!("unix:{}", path.display()))
        .server_with(peer.address(), "check = false");
    let rlb = Rlb::start(&config);
    assert!(
        std::fs::metadata(&path)
            .expect("it is there")
            .file_type()
            .is_socket()
    );
    let mut stream = UnixStream::connect(&path).expect("connected");
    stream
        .set_read_timeout(Some(TIMEOUT))
        .expect("a read timeout can be set");
    stream.write_all(b"through a unix socket").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half closed");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert_eq!(answer, "through a unix socket");
    rlb.stop();
}

#[test]
fn a_socket_left_by_a_dead_process_is_taken_over_and_has_its_mode() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("front.sock");
    drop(UnixListener::bind(&path).expect("a socket without a process"));
    let peer = Peer::start(Behaviour::Echo);
    let text = Config::new()
        .bind("BIND")
        .server_with(peer.address(), "check = false")
        .to_string()
        .replace(
            "\"BIND\"",
            &format!(
                "{{ address = \"unix:{}\", mode = \"0600\" }}",
                path.display()
            ),
        );
    let rlb = Rlb::start(&text);
    let mode = std::fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(UnixStream::connect(&path).expect("somebody listens"));
    rlb.stop();
}

#[test]
fn a_server_may_be_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("server.sock");
    let listener = UnixListener::bind(&path).expect("a unix socket");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("rlb comes");
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).expect("received");
        stream.write_all(&buffer).expect("sent");
    });
    let config = Config::new().server_with(format!("unix:{}", path.display()), "check = false");
    let rlb = Rlb::start(&config);
    let mut stream = connect(rlb.address());
    echo(&mut stream, b"unix");
    server.join().expect("the server is content");
    rlb.stop_after(stream);
}
