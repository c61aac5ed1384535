//! What files of up to 10 MB cost: 2 s of the processor and 500 MB, for a check and for a reload. That is said of the
//! release build, so these tests need one: `tests/run` runs them with its path in `RLB_RELEASE`.

use crate::harness::client::{connect, echo};
use crate::harness::config::Config;
use crate::harness::eventually::pace_until;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Start, command, release};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Seconds of the processor.
const SECONDS_MAX: u64 = 2;
/// All that is mapped, in kB.
const MEMORY_MAX: u64 = 500_000;

/// About as many bytes as the largest file has.
const SIZE: usize = 10_000_000;

/// So many bytes of lines.
fn lines(line: impl Fn(usize) -> String) -> String {
    let mut text = String::with_capacity(SIZE + 1000);
    for index in 0.. {
        if text.len() >= SIZE {
            break;
        }
        text += &line(index);
    }
    text
}

/// Configurations that are not valid, which took minutes and gigabytes.
fn odd_files() -> [(&'static str, String); 6] {
    let repeat =
        |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let server = |index| format!("{{name='s{index}',address='10.0.0.1:80',weight='x'}},\n");
    let mut group = format!(
        "[node-group.g]\n{}",
        repeat(20_000, &|it| format!("n{it} = '10.0.0.1'\n"))
    );
    group += &repeat(2000, &|it| {
        format!(
            "[[listen]]\nname='l{it}'\nbind='*:{}'\nnodes='g'\nport=80\n",
            it + 1
        )
    });
    [
        ("equals", "=\n".repeat(3_000_000)),
        ("newlines", "\n".repeat(SIZE)),
        ("group", group),
        (
            "types",
            format!("[[listen]]\nservers=[\n{}]\n", repeat(50_000, &server)),
        ),
        ("keys", repeat(240_000, &|it| format!("k{it}=1\n"))),
        (
            "strings",
            format!("[global]\ndescription='{}'\n", "x".repeat(SIZE)),
        ),
    ]
}

fn ip(index: usize) -> String {
    let [a, b, c] = [16, 8, 0].map(|bits| index >> bits & 255);
    format!("10.{a}.{b}.{c}")
}

/// Files of HAProxy's with more addresses to listen on than rlb takes.
fn wide_files() -> [(&'static str, String); 4] {
    let listen = |it| {
        let address = ip(it);
        format!("listen l{it}\n  bind {address}:80\n  server s{it} 127.0.0.1:80 check\n")
    };
    let page = |it| {
        let address = ip(it);
        format!("listen p{it}\n  mode http\n  bind {address}:80\n  stats uri /{it}\n")
    };
    let binds = lines(|it| format!("{}:80,", ip(it)));
    let sockets = lines(|it| format!("  stats socket /run/s{it}\n"));
    [
        ("listens", lines(listen)),
        ("pages", lines(page)),
        (
            "one bind",
            format!("listen a\n  mode tcp\n  bind {binds}:81\n"),
        ),
        ("sockets", format!("global\n{sockets}")),
    ]
}

/// Files of HAProxy's, and the exit status of a check.
fn haproxy_files() -> [(&'static str, String, i32); 8] {
    let backends = lines(|it| {
        format!(
            "backend b{it}\n  mode tcp\n  balance roundrobin\n  server s1 {}:80 check inter 2s\n  \
             server s2 10.1.0.1:80 check backup\n\n",
            ip(it)
        )
    });
    let http = lines(|it| {
        format!(
            "frontend f{it}\n  mode http\n  bind :{}\n  use_backend b{it} if {{ hdr(host) x{it} }}\n  \
             default_backend b{it}\nbackend b{it}\n mode http\n server s 10.0.0.1:80\n",
            it % 60_000 + 1024
        )
    });
    let servers = lines(|it| format!("  server s{it} {}:80 check\n", ip(it)));
    let service = "listen a\n  bind :80\n  mode tcp\n";
    [
        ("backends", backends, 78),
        ("http", http, 78),
        ("servers", format!("{service}{servers}"), 78),
        (
            "defaults",
            format!("defaults\n{}", "  timeout connect 5s\n".repeat(SIZE / 21)),
            78,
        ),
        (
            "words",
            format!("{service}{}", lines(|it| format!("  word{it} 1\n"))),
            78,
        ),
        (
            "one line",
            format!("{service}{}\n", "a ".repeat(SIZE / 2)),
            78,
        ),
        ("conditions", ".if (((((1\n".repeat(SIZE / 11), 78),
        (
            "comments",
            format!(
                "{service}  server s 10.0.0.1:80\n{}",
                "# a comment\n".repeat(SIZE / 12)
            ),
            0,
        ),
    ]
}

/// Fault 45: a check ends in time, whatever is in the file.
#[test]
#[ignore = "needs a release build"]
fn fault_45_a_check_of_any_file_is_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let odd = odd_files();
    let odd = odd.map(|(name, text)| (name, text, "check", 78));
    let haproxy = haproxy_files();
    let haproxy = haproxy.map(|(name, text, code)| (name, text, "check --haproxy", code));
    let wide = wide_files().into_iter().flat_map(|(name, text)| {
        ["check --haproxy", "convert"].map(|what| (name, text.clone(), what, 78))
    });
    let mut missed = Vec::new();
    for (name, text, what, code) in odd.into_iter().chain(haproxy).chain(wide) {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("written");
        let limits = format!("ulimit -v {MEMORY_MAX} -t {SECONDS_MAX}; exec \"$0\" {what} \"$1\"");
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(limits).arg(release()).arg(&path);
        let output = shell.output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let end = &said[said.len().saturating_sub(300)..];
        if output.status.code() != Some(code) {
            let ended = (output.status.code(), output.status.signal());
            missed.push(format!("{what} {name}: {ended:?} {end}"));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// Fault 45: the same for a reload of a process that serves; meanwhile its sessions go on.
#[test]
#[ignore = "needs a release build"]
fn fault_45_a_reload_of_any_file_is_bounded() {
    let peer = Peer::start(Behaviour::Echo);
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let socket = socket.to_str().expect("a UTF-8 path");
    let config = Config::new()
        .server_with(peer.address(), "check = false")
        .table(&format!(
            "[runtime-api]\nsocket = \"{socket}\"\nlevel = \"admin\""
        ));
    let rlb = Start::new(&config).program(release()).ready();
    let path = rlb.config_path();
    let process = &rlb.process;
    let mut stream = connect(rlb.address());
    for (name, text) in odd_files() {
        fs::write(&path, text).expect("written");
        // The peak of its memory is counted from here on.
        let peak = format!("/proc/{}/clear_refs", process.id());
        fs::write(peak, "5").expect("the kernel takes it");
        let before = process.cpu_time();
        let reload = std::thread::scope(|scope| {
            let reload = scope.spawn(|| command(&["reload", "--socket", socket]));
            while !reload.is_finished() {
                let asked = Instant::now();
                echo(&mut stream, b"goes on");
                assert!(asked.elapsed() < Duration::from_millis(500), "{name}");
                pace_until(asked + Duration::from_millis(10));
            }
            reload.join().expect("no panic")
        });
        assert_eq!(reload.status.code(), Some(1), "{name}: {reload:?}");
        let took = process.cpu_time().saturating_sub(before);
        let peak = process.memory_kb("VmHWM");
        assert!(took < Duration::from_secs(SECONDS_MAX), "{name}: {took:?}");
        assert!(peak < MEMORY_MAX, "{name}: {peak} kB");
    }
    fs::write(&path, config.to_string()).expect("written");
    rlb.stop_after(stream);
}
