//! What changes around a running process while its configuration stays the same: an interface is made
//! again, the file of a socket or of a log is removed, the program is replaced (fault 33).

use crate::harness::client::{End, TIMEOUT, connect, echo, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_eq, eventually_true, steadily};
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::program_file;
use crate::harness::rlb::{PROGRAM, Rlb, Start, command};
use crate::harness::runtime::{Fixture, ask};
use crate::upgrade::{Next, STAY};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The event of a socket that was opened again.
const REOPENED: &str = "listening socket opened again";

/// The event of a socket that has lost what it listens on.
const LOST: &str = "listening socket lost";

/// The bind of `config`, which is `BIND`, with further keys.
fn with_bind(config: &Config, bind: &str) -> String {
    let text = config.clone().bind("BIND").to_string();
    text.replace("\"BIND\"", bind)
}

/// Makes the interface `v0` in `here`, whose other end is in `there`.
fn make_v0(here: &Netns, there: &Netns) {
    let peer = ["type", "veth", "peer", "name", "v1", "netns", there.name()];
    here.ip(&[&["link", "add", "v0"][..], &peer[..]].concat());
    for (netns, name, address) in [(here, "v0", "10.99.0.1/24"), (there, "v1", "10.99.0.2/24")] {
        netns.ip(&["addr", "add", address, "dev", name]);
        netns.ip(&["link", "set", name, "up"]);
    }
}

/// The program, which waits when it is started by an upgrade.
struct Gate(tempfile::TempDir);

impl Gate {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let gate = dir.path().join("gate");
        mkfifo(&gate, Mode::S_IRWXU).expect("a pipe with a name");
        let script = format!(
            "#!/bin/bash\nif [ \"$RLB_HANDOVER\" = begin/1 ]; then read -r _ <\"{}\"; fi\n\
             exec -a \"$0\" \"{PROGRAM}\" \"$@\"\n",
            gate.display()
        );
        let program = dir.path().join("rlb");
        program_file::script(&program, &script);
        Self(dir)
    }

    fn program(&self) -> PathBuf {
        self.0.path().join("rlb")
    }

    /// Lets the new process start.
    fn open(&self) {
        std::fs::write(self.0.path().join("gate"), "go\n").expect("it waits there");
    }
}

/// Fault 33 (a): clients of an interface that was made again were refused, for ever.
#[test]
fn fault_33_a_bind_whose_interface_is_made_again_is_opened_again() {
    if !needs::root() {
        return;
    }
    let (here, there) = (Netns::alone("here"), Netns::alone("there"));
    make_v0(&here, &there);
    let peer = here.enter(|| Peer::start(Behaviour::Echo));
    let config = Config::new().server_with(peer.address(), "check = false");
    let config = config.global(STAY);
    let bind = "{ address = \"0.0.0.0:9000\", interface = \"v0\" }";
    let gate = Gate::new();
    let rlb = Start::new(&with_bind(&config, bind)).netns(&here);
    let rlb = rlb.program(gate.program()).ready();
    let address: SocketAddr = "10.99.0.1:9000".parse().expect("an address");
    let mut kept = there.enter(|| connect(address));
    there.enter(|| echo(&mut kept, b"before"));
    for count in 1..=2 {
        here.ip(&["link", "del", "v0"]);
        eventually_eq(TIMEOUT, &count, || rlb.events().with(LOST).len());
        let lost = rlb.events().with(LOST);
        assert!(lost.iter().all(|line| line.contains("interface v0")));
        assert_eq!(rlb.events().with(REOPENED).len(), count - 1);
        make_v0(&here, &there);
        eventually_eq(2 * TIMEOUT, &count, || rlb.events().with(REOPENED).len());
        there.enter(|| echo(&mut connect(address), b"after"));
    }
    // Fault 40: an upgrade that finds it lost said that it is not configured any more. During the upgrade the
    // old process opens nothing.
    rlb.signal(Signal::SIGUSR2);
    rlb.events().wait_for("upgrade: starting the new process");
    here.ip(&["link", "del", "v0"]);
    make_v0(&here, &there);
    gate.open();
    let next = Next::of(&rlb);
    rlb.events().wait_for("inherited socket closed");
    let closed = rlb.events().with("inherited socket closed");
    let said = |line: &String| line.contains("its interface was deleted and made again");
    assert!(!closed.is_empty() && closed.iter().all(said), "{closed:?}");
    there.enter(|| echo(&mut connect(address), b"by the new process"));
    next.stop();
    let panics = rlb.events().with("panicked at");
    assert!(panics.is_empty(), "{panics:#?}");
}

/// Whether a session through the unix socket at `path` echoes.
/// The interface is looked for in the namespace of the bind: the one of rlb has none of that name.
#[test]
fn a_bind_in_a_namespace_whose_interface_is_made_again_is_opened_again() {
    if !needs::root() {
        return;
    }
    let (here, there) = (Netns::alone("here"), Netns::alone("there"));
    make_v0(&here, &there);
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let bind = format!(
        "{{ address = \"0.0.0.0:9000\", interface = \"v0\", namespace = \"{}\" }}",
        here.name()
    );
    let rlb = Start::new(&with_bind(&config, &bind)).ready();
    let address: SocketAddr = "10.99.0.1:9000".parse().expect("an address");
    there.enter(|| echo(&mut connect(address), b"before"));
    here.ip(&["link", "del", "v0"]);
    rlb.events().wait_for(LOST);
    make_v0(&here, &there);
    rlb.events().wait_for(REOPENED);
    there.enter(|| echo(&mut connect(address), b"after"));
    rlb.stop();
}

fn echoes(path: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(path) else {
        return false;
    };
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut answer = [0; 4];
    let sent = stream.write_all(b"echo");
    sent.is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"echo"
}

/// Fault 33 (b): after its file was removed, a unix bind could not be reached.
#[test]
fn fault_33_a_unix_bind_whose_file_is_removed_is_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("front.sock");
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .bind(format!("unix:{}", path.display()))
        .server_with(peer.address(), "check = false");
    let mut rlb = Rlb::start(&config);
    let mut kept = UnixStream::connect(&path).expect("connected");
    kept.write_all(b"kept").expect("sent");
    std::fs::remove_file(&path).expect("it is there");
    eventually_true(TIMEOUT, "opened again", || echoes(&path));
    eventually_eq(TIMEOUT, &1, || rlb.events().with(REOPENED).len());
    let mut answer = [0; 4];
    kept.read_exact(&mut answer).expect("the session goes on");

    // A socket or a file that is not rlb's is left alone, and the loss is logged once.
    std::fs::remove_file(&path).expect("it is there");
    let other = UnixListener::bind(&path).expect("free");
    eventually_eq(TIMEOUT, &2, || rlb.events().with(LOST).len());
    rlb.reload(&config);
    // The reload logs why it was not opened again.
    eventually_eq(TIMEOUT, &1, || {
        let errors = rlb.events().with("\"error\":");
        errors.iter().filter(|it| it.contains(LOST)).count()
    });
    drop(UnixStream::connect(&path).expect("the other one listens"));
    drop(other);
    eventually_true(2 * TIMEOUT, "opened again in its place", || echoes(&path));
    eventually_eq(TIMEOUT, &2, || rlb.events().with(REOPENED).len());
    rlb.stop_after(kept);
}

/// A second socket that was lost within five seconds of the first waited for the rest of
/// them.
#[test]
fn each_lost_socket_is_opened_as_soon_as_its_loss_is_noticed() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = ["one", "other", "third"].map(|name| dir.path().join(name));
    let peer = Peer::start(Behaviour::Echo);
    let config = paths.iter().fold(Config::new(), |config, path| {
        config.bind(format!("unix:{}", path.display()))
    });
    let rlb = Rlb::start(&config.server_with(peer.address(), "check = false"));
    for path in &paths {
        std::fs::remove_file(path).expect("it is there");
        // It is looked at once a second.
        let within = Duration::from_millis(2500);
        eventually_true(within, "opened again", || echoes(path));
    }
    rlb.stop();
}

/// Fault 33 (c): a runtime socket whose file was removed could not be reached until a restart.
#[test]
fn fault_33_a_runtime_socket_whose_file_is_removed_is_opened_again() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let mut kept = UnixStream::connect(&socket).expect("it is there");
    kept.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    kept.write_all(b"prompt\n").expect("sent");
    kept.read_exact(&mut [0; 3]).expect("a prompt");
    for count in 1..=2 {
        std::fs::remove_file(&socket).expect("it is there");
        let again = "runtime socket opened again";
        eventually_eq(2 * TIMEOUT, &count, || {
            fixture.rlb.events().with(again).len()
        });
        assert!(ask(&socket, "show info").contains("Pid: "));
    }
    kept.write_all(b"show info\n").expect("sent");
    kept.read_exact(&mut [0; 100])
        .expect("the connection goes on");
    // A socket or a file that is not rlb's is left alone, and the loss is logged once.
    let lost = || fixture.rlb.events().with("runtime socket lost").len();
    let before = lost();
    std::fs::remove_file(&socket).expect("it is there");
    std::fs::write(&socket, "another's").expect("written");
    eventually_eq(TIMEOUT, &(before + 1), lost);
    steadily(Duration::from_millis(1500), "logged again", || {
        lost() == before + 1
    });
    let text = std::fs::read_to_string(&socket).expect("it is there");
    assert_eq!(text, "another's");
    drop(kept);
    fixture.rlb.stop();
}

/// Fault 33 (d): lines go to a log file again that was removed.
#[test]
fn fault_33_a_log_file_that_is_removed_is_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sessions.log");
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .log(format!("file:{}", path.display()), "raw");
    let rlb = Rlb::start(&config);
    let session = || echo(&mut connect(rlb.address()), b"a session");
    let has_lines = || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(" fe be/s1 "));
    session();
    eventually_true(TIMEOUT, "a line", has_lines);
    std::fs::remove_file(&path).expect("it is there");
    eventually_true(TIMEOUT, "a line in a new file", || {
        session();
        has_lines()
    });
    rlb.stop();
}

/// Fault 33 (e): a reload says that the program which an upgrade would start is another.
#[test]
fn fault_33_a_reload_says_that_the_program_was_replaced() {
    let peer = Peer::start(Behaviour::Echo);
    let dir = tempfile::tempdir().expect("a directory");
    let (program, socket) = (dir.path().join("rlb"), dir.path().join("admin.sock"));
    let api = format!(
        "[runtime-api]\nsocket = \"{}\"\nlevel = \"admin\"",
        socket.display()
    );
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .table(&api);
    symlink(PROGRAM, &program).expect("a link");
    let rlb = Start::new(&config).program(program.clone()).ready();
    let reload = || {
        let said = command(&["reload", "--socket", socket.to_str().expect("text")]);
        assert!(said.status.success(), "a reload is not refused for it");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let same = reload();
    assert!(!same.contains("program "), "{same}");
    std::fs::remove_file(&program).expect("it is there");
    let missing = reload();
    assert!(
        missing.contains("which an upgrade starts: No such file"),
        "{missing}"
    );
    symlink("/bin/true", &program).expect("a link");
    let other = reload();
    assert!(
        other.contains("is another than the one that runs"),
        "{other}"
    );
    eventually_eq(TIMEOUT, &2, || rlb.events().with("reload: program ").len());
    rlb.stop();
}

/// Fault 33, its kind: somebody who shares a listening socket shuts it down. A reload opens it again.
#[test]
fn fault_33_a_reload_opens_a_socket_again_that_does_not_listen() {
    let peer = Peer::start(Behaviour::Echo);
    let (address, other) = (ports::free(), ports::free());
    let sockets = [address, other].map(|it| TcpListener::bind(it).expect("free a moment ago"));
    let copies = [0, 1].map(|index: usize| sockets[index].try_clone().expect("a copy").into());
    let config = Config::new()
        .bind(address)
        .bind(other)
        .server_with(peer.address(), "check = false");
    let mut rlb = Start::new(&config).inherits(copies).ready();
    echo(&mut connect(address), b"before");
    let mut kept = connect(other);
    echo(&mut kept, b"before");
    let shared = socket2::SockRef::from(&sockets[0]);
    shared
        .shutdown(std::net::Shutdown::Both)
        .expect("it listens");
    eventually(TIMEOUT, "nobody listens", || {
        TcpStream::connect(address).err()
    });
    let before = rlb.process.cpu_time();
    steadily(Duration::from_millis(300), "nobody listens", || {
        TcpStream::connect(address).is_err()
    });
    let used = rlb.process.cpu_time().saturating_sub(before);
    assert!(
        used < Duration::from_millis(150),
        "it does not spin: {used:?}"
    );
    rlb.reload(&config);
    eventually_eq(TIMEOUT, &1, || rlb.events().with(REOPENED).len());
    let said = rlb.events().with(REOPENED);
    assert!(said[0].contains("did not listen"), "{said:?}");
    echo(&mut connect(address), b"after");
    echo(&mut kept, b"as before");
    assert_eq!(read_to_end(&mut half_closed(kept)).1, End::Eof);
    rlb.stop();
}

fn half_closed(stream: TcpStream) -> TcpStream {
    stream
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    stream
}
