//! Several runtime sockets, unix and TCP, each with its mode, owner and level; their timeout and limit.

use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN, command};
use crate::harness::runtime::ask;
use crate::upgrade::Next;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

fn base() -> (Config, Peer) {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    (config, peer)
}

/// The answer of a socket over TCP to a line.
fn ask_tcp(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    writeln!(stream, "{line}").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("closed");
    answer
}

/// The address of the TCP socket, whose port the kernel has chosen.
fn tcp_address(sockets: &str) -> SocketAddr {
    let mut lines = sockets.lines();
    let address = lines.find_map(|line| line.strip_prefix("ipv4@")?.split(' ').next());
    address.expect("one over TCP").parse().expect("an address")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").mode() & 0o777
}

/// tools.md 3.
#[test]
fn tools_3_several_sockets_each_have_a_level() {
    let directory = tempfile::tempdir().expect("a directory");
    let (admin, user) = (
        directory.path().join("a.sock"),
        directory.path().join("u.sock"),
    );
    let table = |level: &str, mode: &str| {
        format!(
            "[runtime-api]\nsocket = \"{}\"\nsockets = [\n\
             {{ socket = \"{}\", mode = \"{mode}\", owner = \"0\", group = \"7\", level = \"{level}\" }},\n\
             \"127.0.0.1:0\"]",
            admin.display(),
            user.display()
        )
    };
    let (config, _peer) = base();
    let root = rustix::process::geteuid().is_root();
    let mut rlb = Rlb::start(&config.clone().table(&table("user", "0660")));
    let sockets = ask(&admin, "show cli sockets");
    let lines: Vec<&str> = sockets.lines().collect();
    assert_eq!(lines[0], "# socket lvl processes");
    assert_eq!(lines[1], format!("unix@{} admin all", admin.display()));
    assert_eq!(lines[2], format!("unix@{} user all", user.display()));
    let tcp = tcp_address(&sockets);
    assert_eq!(lines[3], format!("ipv4@{tcp} operator all"));
    assert_eq!((mode(&admin), mode(&user)), (0o600, 0o660));
    if root {
        assert_eq!(std::fs::metadata(&user).expect("there").gid(), 7);
    }
    // Each has its own level.
    let weight = "set server be/s1 weight 7";
    assert_eq!(ask(&admin, weight), "\n");
    assert_eq!(ask(&user, weight), "Permission denied\n\n");
    assert_eq!(ask_tcp(tcp, weight), "Permission denied\n\n");
    assert_eq!(ask_tcp(tcp, "show cli level"), "operator\n\n");
    assert_eq!(ask(&user, "show cli level"), "user\n\n");
    // Changes of level, mode and owner come into force by a reload.
    rlb.reload(&config.table(&table("admin", "0600")));
    assert_eq!(ask(&user, weight), "\n");
    assert_eq!(mode(&user), 0o600);
    // The command line takes the socket with the highest level, or the one that it is given.
    let path = rlb.config_path();
    let path = path.to_str().expect("UTF-8");
    let said = |arguments: &[&str]| {
        let output = command(arguments);
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(
        said(&["ctl", "--config", path, "show cli level"]),
        "admin\n\n"
    );
    let address = tcp.to_string();
    assert_eq!(
        said(&["ctl", "-s", &address, "show cli level"]),
        "operator\n\n"
    );
    rlb.stop();
}

#[track_caller]
fn is_closed(path: &Path) {
    let refused = || UnixStream::connect(path).is_err();
    eventually_true(STOP_WITHIN, "it is closed", refused);
}

/// Sockets came and went by a restart only.
#[test]
fn a_reload_opens_and_closes_sockets() {
    let directory = tempfile::tempdir().expect("a directory");
    let [first, second, third] =
        ["1", "2", "3"].map(|name| directory.path().join(format!("{name}.sock")));
    let socket = |path: &Path, rest: &str| format!("{{ socket = \"{}\"{rest} }}", path.display());
    let table = |all: &[String]| format!("[runtime-api]\nsockets = [{}]", all.join(", "));
    let (config, _peer) = base();
    let tcp = "{ socket = \"127.0.0.1:0\", level = \"user\" }".to_owned();
    let start = table(&[socket(&first, ""), tcp.clone()]);
    let mut rlb = Rlb::start(&config.clone().table(&start));
    let address = tcp_address(&ask(&first, "show cli sockets"));
    let mut open = TcpStream::connect(address).expect("it listens");
    open.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    open.write_all(b"prompt i\n").expect("sent");
    let mut answer = [0; 1];
    open.read_exact(&mut answer).expect("answered");
    // One goes, one comes, and one gets other rights: each keeps to its own.
    let next = [
        socket(&second, ", mode = \"0666\", level = \"operator\""),
        socket(&first, ", mode = \"0660\""),
    ];
    rlb.reload(&config.clone().table(&table(&next)));
    assert_eq!(ask(&second, "show cli level"), "operator\n\n");
    assert_eq!((mode(&second), mode(&first)), (0o666, 0o660));
    let (one, two) = (first.display(), second.display());
    assert_eq!(
        ask(&first, "show cli sockets"),
        format!("# socket lvl processes\nunix@{two} operator all\nunix@{one} admin all\n\n")
    );
    eventually_true(STOP_WITHIN, "it is closed", || {
        TcpStream::connect(address).is_err()
    });
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).expect("closed in order");
    assert_eq!(rest, b"", "its client's connection ends");
    // The command line finds the one that is open, whichever the file names first.
    let next = table(&[socket(&third, ""), socket(&first, ""), socket(&second, "")]);
    rlb.rewrite(&config.clone().table(&next));
    let path = rlb.config_path();
    let output = command(&["reload", "--config", path.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(ask(&third, "show cli level"), "admin\n\n");
    // The one that is asked for the reload goes by it, and answers.
    rlb.rewrite(&config.clone().table(&table(&[socket(&second, "")])));
    let said = ask(&first, "reload;show cli level");
    assert!(said.contains("Success=1"), "{said}");
    assert!(said.ends_with("\n\nadmin\n\n"), "as before: {said}");
    is_closed(&first);
    // What cannot be opened leaves everything as it was.
    std::fs::remove_file(&third).expect("it is left");
    std::fs::write(&third, "a file").expect("written");
    let next = table(&[socket(&third, ""), socket(&first, "")]);
    rlb.rewrite(&config.clone().table(&next));
    let said = ask(&second, "reload");
    assert!(
        said.contains("Success=0") && said.contains("cannot listen on"),
        "{said}"
    );
    assert_eq!(ask(&second, "show cli level"), "admin\n\n");
    // None, and again one. An upgrade hands it over.
    rlb.reload(&config);
    is_closed(&second);
    rlb.reload(&config.clone().table(&table(&[socket(&first, "")])));
    assert_eq!(ask(&first, "show cli level"), "admin\n\n");
    let path = rlb.config_path();
    let path = path.to_str().expect("UTF-8");
    assert!(command(&["upgrade", "--config", path]).status.success());
    let next = Next::logged(&rlb, 1);
    eventually_true(STOP_WITHIN, "the new process answers", || {
        ask(&first, "show info").contains(&format!("\nPid: {}\n", next.pid()))
    });
    next.stop();
    let status = rlb.process.wait(STOP_WITHIN);
    assert_eq!(status.code(), Some(0));
}

/// The files of new runtime sockets and of new binds were left.
#[test]
fn a_reload_that_is_refused_leaves_no_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let [socket, other, frontend, file] =
        ["1.sock", "2.sock", "fe.sock", "file"].map(|name| directory.path().join(name));
    std::fs::write(&file, "a file").expect("written");
    let table = |all: &[&Path]| {
        let sockets = all
            .iter()
            .map(|path| format!("{{ socket = \"{}\" }}", path.display()));
        let sockets: Vec<String> = sockets.collect();
        format!("[runtime-api]\nsockets = [{}]", sockets.join(", "))
    };
    let (config, _peer) = base();
    let rlb = Rlb::start(&config.clone().table(&table(&[&socket])));
    let bind = format!(
        "[[frontend]]\nname = \"other\"\nbind = [\"unix:{}\"]\ndefault-backend = \"be\"",
        frontend.display()
    );
    let next = config.table(&table(&[&socket, &other, &file])).table(&bind);
    rlb.rewrite(&next);
    let said = ask(&socket, "reload");
    assert!(said.contains("cannot listen on"), "{said}");
    assert!(!other.exists() && !frontend.exists(), "no file is left");
    assert!(file.exists());
    std::fs::remove_file(&file).expect("removed");
    let said = ask(&socket, "reload");
    assert!(said.contains("Success=1"), "{said}");
    assert!(other.exists() && frontend.exists() && file.exists());
    rlb.stop();
}

/// A file that is written in steps lacks its last tables for a while: the watch waits for the rest.
#[test]
fn a_slow_writer_does_not_close_a_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("1.sock");
    let (config, _peer) = base();
    let config = config.global("watch = true");
    let table = format!("[runtime-api]\nsocket = \"{}\"", path.display());
    let whole = config.table(&table).to_string();
    let rlb = Rlb::start(&whole);
    let mut open = UnixStream::connect(&path).expect("it listens");
    open.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    open.write_all(b"prompt i\n").expect("sent");
    let mut answer = [0; 1];
    open.read_exact(&mut answer).expect("answered");
    let file = rlb.config_path();
    let cut = whole.find("[runtime-api]").expect("the table");
    std::fs::write(&file, &whole[..cut]).expect("a part");
    eventually_true(STOP_WITHIN, "the watch waits", || {
        let deferred = "reload deferred: listeners would close";
        !rlb.events().with(deferred).is_empty()
    });
    let whole = whole.replacen("[runtime-api]", "[runtime-api]\nmaxconn = 3", 1);
    std::fs::write(&file, whole).expect("all of it");
    eventually_true(STOP_WITHIN, "it is in force", || {
        ask(&path, "show config").contains("maxconn = 3")
    });
    open.write_all(b"show cli level\n").expect("sent");
    let mut answer = [0; 7];
    open.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"admin\n\n");
    rlb.stop();
}

/// tools.md 3: changes over TCP are logged with the client's address.
#[test]
fn tools_3_a_change_over_tcp_is_logged_with_its_client() {
    let (config, _peer) = base();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sock");
    let rlb = Rlb::start(&config.table(&format!(
        "[runtime-api]\nsocket = \"{}\"\nsockets = {{ socket = \"127.0.0.1:0\", level = \"admin\" }}",
        path.display()
    )));
    let tcp = tcp_address(&ask(&path, "show cli sockets"));
    assert_eq!(ask_tcp(tcp, "set server be/s1 weight 9"), "\n");
    let found = eventually(STOP_WITHIN, "the command is logged", || {
        let found = rlb.events().with("runtime command");
        (!found.is_empty()).then_some(found)
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("\"client\":\"127.0.0.1:"), "{found:?}");
    assert!(!found[0].contains("uid"), "{found:?}");
    // All that needs the level admin is logged, also when it changes nothing.
    let looks = ["show env PATH", "show config", "reload dry-run", "wait 1"];
    for look in looks {
        ask_tcp(tcp, look);
        let line = rlb.events().wait_for(&format!("\"command\":\"{look}\""));
        assert!(line.contains("\"client\":\"127.0.0.1:"), "{line}");
    }
    // A long name hides nothing.
    let long = format!("set server be/{} addr 127.6.6.6 port 666", "a".repeat(240));
    assert_eq!(ask_tcp(tcp, &long), "No such server.\n\n");
    rlb.events().wait_for(&format!("\"command\":\"{long}\""));
    rlb.stop();
}

/// The slots of clients of `wait` were free only when the time was over, although the clients had gone.
#[test]
fn clients_that_have_gone_do_not_hold_their_slots() {
    let (config, _peer) = base();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sock");
    let rlb = Rlb::start(&config.table(&format!(
        "[runtime-api]\nsocket = \"{}\"\nmaxconn = 2\nsockets = {{ socket = \"127.0.0.1:0\", level = \"admin\" }}",
        path.display()
    )));
    let tcp = tcp_address(&ask(&path, "show cli sockets"));
    let waiting = |count: usize| {
        let logged = || rlb.events().with("\"command\":\"wait 1h").len();
        eventually_true(STOP_WITHIN, "the commands run", || logged() == count);
    };
    let mut clients: Vec<UnixStream> = (0..2)
        .map(|_| UnixStream::connect(&path).expect("it listens"))
        .collect();
    for client in &mut clients {
        client.write_all(b"wait 1h\n").expect("sent");
    }
    waiting(2);
    drop(clients);
    assert!(ask(&path, "show version").contains("rlb"), "it is served");
    // Over TCP a reset tells it.
    let mut clients: Vec<TcpStream> = (0..2)
        .map(|_| TcpStream::connect(tcp).expect("it listens"))
        .collect();
    for client in &mut clients {
        client.write_all(b"wait 1h\n").expect("sent");
    }
    waiting(4);
    for client in clients {
        let linger = Some(std::time::Duration::ZERO);
        socket2::SockRef::from(&client)
            .set_linger(linger)
            .expect("a reset");
    }
    assert!(ask(&path, "show version").contains("rlb"), "it is served");
    // Who has only ended what it sends waits for the answer.
    let mut client = TcpStream::connect(tcp).expect("it listens");
    client.write_all(b"wait 300\n").expect("sent");
    client.shutdown(std::net::Shutdown::Write).expect("ended");
    client.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("closed");
    assert_eq!(answer, "Done.\n\n");
    rlb.stop();
}

/// tools.md 3: hatop sets 300 s.
#[test]
fn tools_3_clients_set_their_timeout_and_a_full_socket_makes_them_wait() {
    let (config, _peer) = base();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sock");
    let rlb = Rlb::start(&config.table(&format!(
        "[runtime-api]\nsocket = \"{}\"\ntimeout = \"400ms\"\nmaxconn = 2",
        path.display()
    )));
    for (line, answer) in [
        ("set timeout cli 0", "Invalid timeout value.\n\n"),
        ("set timeout cli", "Expects an integer value.\n\n"),
        ("set timeout cli foo", "Invalid timeout value.\n\n"),
        ("set timeout cli 5s", "\n"),
        ("set timeout cli 1h", "\n"),
        (
            "set timeout foo 1",
            "'set timeout' only supports 'cli'.\n\n",
        ),
    ] {
        assert_eq!(ask(&path, line), answer, "{line}");
    }
    let open = |first: &str| {
        let mut stream = UnixStream::connect(&path).expect("it listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.write_all(first.as_bytes()).expect("sent");
        stream
    };
    let begun = Instant::now();
    let mut patient = open("prompt i;set timeout cli 300\n");
    let mut silent = open("");
    // Both places are taken: the third waits until the second has been silent for too long.
    let mut third = open("show version\n");
    let mut said = String::new();
    third.read_to_string(&mut said).expect("answered");
    assert!(said.starts_with("3.0.0-rlb"), "{said}");
    assert!(begun.elapsed().as_millis() >= 350, "{:?}", begun.elapsed());
    assert_eq!(silent.read(&mut [0; 9]).expect("closed"), 0);
    // The first is still served.
    patient.write_all(b"show version\nquit\n").expect("open");
    let mut said = String::new();
    patient.read_to_string(&mut said).expect("closed by quit");
    assert!(said.contains("3.0.0-rlb"), "{said}");
    rlb.stop();
}

/// tools.md 3: a start that cannot have its sockets says so.
#[test]
fn tools_3_an_owner_that_does_not_exist_stops_the_start() {
    let (config, _peer) = base();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.sock");
    let config = config.table(&format!(
        "[runtime-api]\nsocket = \"{}\"\nowner = \"no such user\"",
        path.display()
    ));
    let (status, lines) = crate::harness::rlb::Start::new(&config).exits();
    assert!(!status.success());
    let said = lines.join("\n");
    assert!(
        said.contains("`no such user` is not in /etc/passwd"),
        "{said}"
    );
    eventually_true(STOP_WITHIN, "nothing listens", || {
        UnixStream::connect(&path).is_err()
    });
}
