//! The access rights of the runtime socket, what is logged and shown, and how `rlb ctl` reports failures.

use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::program_file;
use crate::harness::rlb::{PROGRAM, Rlb, command};
use crate::harness::runtime::{Fixture, ask};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A user and group other than those of the tests: nobody and nogroup.
const NOBODY: u32 = 65_534;

/// The output of a program, and its exit code.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Fault 15: a socket without a file has no mode that the kernel checks.
#[test]
fn fault_15_an_abstract_socket_has_its_mode_and_changes_are_logged_with_their_author() {
    if !needs::root() {
        return;
    }
    let peer = Peer::start(Behaviour::Echo);
    let name = format!("@rlb-test-{}", std::process::id());
    let config = |mode: &str| {
        Config::new()
            .server_with(peer.address(), "check = false")
            .table(&format!(
                "[runtime-api]\nsocket = \"{name}\"\nmode = \"{mode}\""
            ))
    };
    let mut rlb = Rlb::start(&config("0660"));
    // In a directory from which another user may run it.
    let directory = tempfile::tempdir().expect("a directory");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("its mode");
    let program = directory.path().join("rlb");
    program_file::copy(PROGRAM, &program);
    let ctl = |uid: u32, gid: u32, line: &str| {
        let output = Command::new(&program)
            .args(["ctl", "--socket", &name, line])
            .stdin(Stdio::null())
            .uid(uid)
            .gid(gid)
            .output();
        said(&output.expect("it starts"))
    };
    let maint = "set server be/s1 state maint";
    let (code, out, err) = ctl(NOBODY, NOBODY, maint);
    assert_eq!((code, &*out), (Some(1), "Permission denied\n"), "{err}");
    let line = rlb.events().wait_for("runtime client refused");
    assert!(line.contains("\"uid\":65534"), "{line}");
    assert_eq!(rlb.status("s1"), "no check");
    assert!(rlb.events().with(maint).is_empty(), "nothing was run");

    // 0660 admits the group of the process, as it does for a file.
    assert_eq!(ctl(NOBODY, 0, maint).0, Some(0));
    assert_eq!(rlb.status("s1"), "MAINT");
    let line = rlb.events().wait_for("runtime command");
    for part in [
        &*format!("abnsz@{}", &name[1..]),
        "\"uid\":65534",
        "\"pid\":",
        maint,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    rlb.reload(&config("0600"));
    assert_eq!(ctl(NOBODY, 0, maint).0, Some(1));
    rlb.reload(&config("0666"));
    assert_eq!(
        ctl(NOBODY, NOBODY, "set server be/s1 state ready").0,
        Some(0)
    );
    assert_eq!(rlb.status("s1"), "no check");
    rlb.stop();
}

/// Faults 15 and 29: weights that are set at run time are logged, and so are failures.
#[test]
fn fault_29_weights_set_at_run_time_are_logged() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    assert_eq!(fixture.ask("set server be/s1 weight 50"), "\n");
    let line = fixture.rlb.events().wait_for("set server be/s1 weight 50");
    let path = fixture.socket().display().to_string();
    for part in ["runtime command", &path, "\"uid\":", "\"pid\":"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    fixture.ask("set weight be/nosuch 7\x1b[2J");
    let line = fixture.rlb.events().wait_for("runtime command failed");
    assert!(line.contains("No such server."), "{line}");
    assert!(!line.contains('\x1b'), "{line}");
    assert!(fixture.ask("show info").starts_with("Name: "));
    assert!(fixture.rlb.events().with("show info").is_empty());
    fixture.rlb.stop();
}

/// The values of columns 74 (`addr`) and 77 (`algo`) of server and backend.
fn legends(csv: &str) -> [String; 2] {
    let field = |service: &str, name: &str| {
        let mut lines = csv.lines();
        let names = lines.next().expect("a header").trim_start_matches("# ");
        let at = names
            .split(',')
            .position(|it| it == name)
            .expect("a column");
        let row = lines.find(|line| line.starts_with(&format!("be,{service},")));
        let row = row.unwrap_or_else(|| panic!("no {service} in {csv}"));
        row.split(',').nth(at).expect("a field").to_owned()
    };
    [field("s1", "addr"), field("BACKEND", "algo")]
}

/// Fault 16: HAProxy's rule, for each level, with and without `show-legends`.
#[test]
fn fault_16_addresses_are_shown_to_operators_and_with_show_legends() {
    let peer = Peer::start(Behaviour::Echo);
    let address = peer.address().to_string();
    let shown = [address.clone(), "roundrobin".to_owned()];
    let hidden = [String::new(), String::new()];
    let config = || Config::new().server_with(peer.address(), "check = false");
    for (level, expected) in [("user", &hidden), ("operator", &shown), ("admin", &shown)] {
        let fixture = Fixture::new(config(), level);
        assert_eq!(&legends(&fixture.ask("show stat")), expected, "{level}");
        let json = fixture.ask("show stat json");
        assert_eq!(json.contains(&address), level != "user", "{level}");
        // As in HAProxy the level of the socket counts, not that to which a client has lowered itself.
        let lowered = fixture.ask("user;show stat");
        assert_eq!(&legends(lowered.trim_start()), expected, "{level}");
        fixture.rlb.stop();
    }
    let bare = config().to_string();
    for (text, expected) in [
        (bare.clone(), &hidden),
        (
            bare.replace("[stats]\n", "[stats]\nshow-legends = true\n"),
            &shown,
        ),
    ] {
        let rlb = Rlb::start(&text);
        let get = |path: &str| rlb.http_get(path).expect("answers").1;
        assert_eq!(&legends(&get("/;csv")), expected);
        for path in ["/;json", "/;typed", "/metrics", "/"] {
            let page = get(path);
            assert_eq!(
                page.contains(&address),
                expected == &shown,
                "{path}: {page}"
            );
        }
        rlb.stop();
    }
}

/// Fault 17: HAProxy drops a line without its end.
#[test]
fn fault_17_a_line_without_its_end_is_not_run() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false, weight = 7");
    let fixture = Fixture::new(config, "admin");
    for (sent, answer) in [
        ("set server be/s1 weight 10", ""),
        ("show version;set server be/s1 weight 10", ""),
        (
            "prompt\nset server be/s1 weight 1\nset server be/s1 weight 10",
            "\n> \n> ",
        ),
    ] {
        let mut stream = UnixStream::connect(fixture.socket()).expect("the socket is there");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.write_all(sent.as_bytes()).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("closed");
        assert_eq!(said, answer, "{sent}");
    }
    assert_eq!(fixture.ask("get weight be/s1"), "1 (initial 7)\n\n");
    fixture.rlb.stop();
}

/// Fault 18.
#[test]
fn fault_18_the_exit_status_tells_whether_the_command_has_succeeded() {
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server_with(peer.address(), "check = false");
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let socket = socket.to_str().expect("a UTF-8 path");
    let ctl = |line: &str| said(&command(&["ctl", "--socket", socket, line]));
    for (line, code, out) in [
        ("set server be/s1 weight 20", 0, "\n"),
        ("set server be/s1 weight 20%", 0, "\n"),
        ("get weight be/s1", 0, "0 (initial 1)\n\n"),
        (
            "show version;get weight be/s1",
            0,
            "3.0.0-rlb0.1.0\n\n0 (initial 1)\n\n",
        ),
        ("set server be/nosuch state maint", 1, "No such server.\n\n"),
        (
            "set server nosuch/s1 state maint",
            1,
            "No such backend.\n\n",
        ),
        (
            "get weight be/s1;get weight be/x",
            1,
            "0 (initial 1)\n\nNo such server.\n\n",
        ),
        (
            "get weight be/x;get weight be/s1",
            1,
            "No such server.\n\n0 (initial 1)\n\n",
        ),
        (
            "set weight be/s1 900",
            1,
            "Absolute weight can only be between 0 and 256 inclusive.\n\n",
        ),
        (
            "set server be/s1 state bogus",
            1,
            "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n",
        ),
        (
            "shutdown session 0x1234567",
            1,
            "No such session (use 'show sess').\n\n",
        ),
        ("show sess 0x1234567", 1, "Session not found.\n\n"),
        ("user;reload", 1, "\nPermission denied\n\n"),
        ("show stat nosuch 1 1", 1, "No such proxy.\n\n"),
    ] {
        assert_eq!(
            ctl(line),
            (Some(code), out.to_owned(), String::new()),
            "{line}"
        );
    }
    assert_eq!(ctl("nosuch").0, Some(1));
    assert_eq!(ctl("show stat").0, Some(0));
    assert_eq!(ctl("help").0, Some(0));
    // HAProxy's own way to mark errors.
    assert_eq!(
        ask(
            Path::new(socket),
            "set severity-output number;get weight be/x;show version;set severity-output string;get weight be/x"
        ),
        "\n[3]: No such server.\n\n[6]: 3.0.0-rlb0.1.0\n\n\n[err]: No such server.\n\n"
    );
    fixture.rlb.stop();
}

/// Fault 18: neither a socket with a full queue nor one that does not answer blocks `rlb ctl`.
#[test]
fn fault_18_a_socket_that_does_not_answer_is_waited_for_within_a_limit() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("hung.sock");
    let address = socket2::SockAddr::unix(&path).expect("an address");
    let stream = || socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None);
    let listener = stream().expect("a socket");
    listener.bind(&address).expect("bound");
    listener.listen(0).expect("listening");
    let name = path.to_str().expect("a UTF-8 path");
    let mut held = Vec::new();
    for full in [false, true] {
        if full {
            // As many as its queue takes.
            loop {
                let client = stream().expect("a socket");
                client.set_nonblocking(true).expect("set");
                if client.connect(&address).is_err() {
                    break;
                }
                held.push(client);
            }
        }
        let begun = Instant::now();
        let output = command(&["ctl", "--socket", name, "--timeout", "300ms", "show info"]);
        let (code, out, err) = said(&output);
        assert_eq!((code, &*out), (Some(1), ""), "full: {full}");
        assert!(
            err.contains("hung.sock does not answer within 300ms"),
            "full: {full}: {err}"
        );
        assert!(begun.elapsed() < Duration::from_secs(5), "{full}");
    }
}

/// Fault 18: an invalid configuration file is reported as such.
#[test]
fn fault_18_a_configuration_that_names_no_socket_is_told_from_one_that_is_not_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("rlb.toml");
    let name = path.to_str().expect("a UTF-8 path");
    let blamed = || said(&command(&["ctl", "--config", name, "show info"])).2;
    let missing = blamed();
    assert!(
        missing.contains("No such file or directory") && missing.contains("--config"),
        "{missing}"
    );
    assert!(!missing.contains("write a [runtime-api]"), "{missing}");
    std::fs::write(&path, "nonsense = {").expect("written");
    let invalid = blamed();
    assert!(
        invalid.contains("is not valid") && invalid.contains("rlb check"),
        "{invalid}"
    );
    let peer = Peer::start(Behaviour::Echo);
    let config = Config::new().server(peer.address()).to_string();
    std::fs::write(&path, config).expect("written");
    let silent = blamed();
    assert!(silent.contains("write a [runtime-api] table"), "{silent}");
}
