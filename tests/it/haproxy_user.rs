//! `user` and `group` of a haproxy.cfg under the name `haproxy`: the process gives up root. Needs root.

use crate::haproxy_name::pid_at;
use crate::harness::client::{connect, echo};
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::program_file;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use crate::harness::runtime::ask;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(10);
/// `nobody` and `nogroup`, which every Debian has.
const NOBODY: &str = "65534";
/// `CAP_NET_BIND_SERVICE`, as a mask.
const BIND_LOW_PORTS: &str = "0000000000000400";

/// The server with a name has the process start a thread before it gives up root.
fn config(socket: &Path, server: SocketAddr, words: &str, ports: &[u16]) -> String {
    let binds: Vec<String> = ports
        .iter()
        .map(|port| format!("  bind 127.0.0.1:{port}\n"))
        .collect();
    format!(
        "global\n{words}  stats socket {} level admin\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
         timeout client 1m\n  timeout server 1m\nlisten fe\n{}  server s0 {server}\n  \
         server named localhost:{} disabled\n",
        socket.display(),
        binds.concat(),
        server.port()
    )
}

/// A field of the status of a thread, its words separated by single blanks.
fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words: Vec<&str> = line.expect("the field").split_whitespace().collect();
    words.join(" ")
}

/// Every thread has given up root, and the first has kept the right to listen on low ports.
#[track_caller]
fn is_nobody(pid: i32) {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    for task in tasks {
        let path = task.expect("a thread").path();
        let Ok(status) = fs::read_to_string(path.join("status")) else {
            // It has ended.
            continue;
        };
        let same = [NOBODY; 4].join(" ");
        assert_eq!(field(&status, "Uid:"), same, "{status}");
        assert_eq!(field(&status, "Gid:"), same, "{status}");
        assert_eq!(field(&status, "Groups:"), "", "{status}");
        let allowed = field(&status, "CapPrm:");
        let is_first = path.ends_with(pid.to_string());
        let none = !is_first && allowed == "0000000000000000";
        assert!(none || allowed == BIND_LOW_PORTS, "{status}");
    }
}

/// A folder that everybody can read, with the program and its file, in a network namespace.
struct Setup {
    netns: Netns,
    peer: Peer,
    folder: TempDir,
}

impl Setup {
    fn new() -> Self {
        let netns = Netns::loopback();
        let peer = netns.enter(|| Peer::start(Behaviour::Echo));
        let folder = tempfile::tempdir().expect("a folder");
        let readable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.path(), readable).expect("set");
        // The program may be where only root can read.
        program_file::copy(PROGRAM, &folder.path().join("haproxy"));
        Self {
            netns,
            peer,
            folder,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("rt.sock")
    }

    /// Writes the file, with these words of `global`.
    fn write(&self, words: &str, ports: &[u16]) {
        let text = config(&self.socket(), self.peer.address(), words, ports);
        fs::write(self.folder.path().join("haproxy.cfg"), text).expect("written");
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.folder.path().join("haproxy"));
        command.current_dir(self.folder.path()).args(words);
        command.env_remove("NOTIFY_SOCKET");
        command
    }

    #[track_caller]
    fn served(&self, port: u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.netns.enter(|| {
            eventually_true(WITHIN, "the port", || TcpStream::connect(address).is_ok());
            echo(&mut connect(address), b"here");
        });
    }
}

#[test]
fn a_user_that_does_not_exist_is_refused() {
    if !needs::root() {
        return;
    }
    let setup = Setup::new();
    setup.write("  user nobody-is-called-this\n", &[81]);
    for mode in ["-c", "-db"] {
        let refused = setup.command(&[mode, "-f", "haproxy.cfg"]).output();
        let refused = refused.expect("it starts");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot find user id for"), "{said}");
    }
}

/// The process stayed root, where HAProxy does not. Reloads open low ports afterwards, in the process after an upgrade
/// too.
#[test]
fn root_is_given_up_and_reloads_go_on_opening_low_ports() {
    if !needs::root() {
        return;
    }
    let setup = Setup::new();
    let words = "  user nobody\n  group nogroup\n";
    setup.write(words, &[81]);
    let run = setup.command(&["-W", "-db", "-f", "haproxy.cfg", "-p", "pid"]);
    let mut process = Process::start(run, Some(&setup.netns), false);
    process.stderr.wait_for("ready version=");
    let first = process.id().cast_signed();
    is_nobody(first);
    let pid = fs::read_to_string(setup.folder.path().join("pid"));
    assert_eq!(pid.ok(), Some(format!("{first}\n")));
    setup.served(81);
    // Its workers may not bind low ports any more.
    for (command, answer) in [("disable frontend fe", true), ("enable frontend fe", true)] {
        assert_eq!(ask(&setup.socket(), command).trim().is_empty(), answer);
    }
    setup.served(81);
    setup.write(words, &[81, 82]);
    process.signal(Signal::SIGUSR2);
    setup.served(82);
    is_nobody(first);

    let socket = setup.socket();
    let upgraded = Command::new(PROGRAM)
        .args(["upgrade", "--socket"])
        .arg(&socket)
        .output();
    let upgraded = upgraded.expect("it starts");
    assert!(upgraded.status.success(), "{upgraded:?}");
    eventually_true(WITHIN, "answers of the new process", || {
        pid_at(&socket).is_some_and(|pid| pid != first)
    });
    let next = pid_at(&socket).expect("it answers");
    is_nobody(next);
    setup.write(words, &[81, 82, 83]);
    kill(Pid::from_raw(next), Signal::SIGUSR2).expect("it lives");
    setup.served(83);
    kill(Pid::from_raw(next), Signal::SIGTERM).expect("it lives");
    process.wait(STOP_WITHIN);
    eventually_true(STOP_WITHIN, "the end of the new process", || {
        pid_at(&socket).is_none()
    });
}

/// The first session ended the process: it may not enter the namespace.
#[test]
fn servers_in_namespaces_need_root() {
    if !needs::root() {
        return;
    }
    let setup = Setup::new();
    let other = Netns::alone("rooted");
    setup.write("  user nobody\n", &[81]);
    let file = setup.folder.path().join("haproxy.cfg");
    let text = fs::read_to_string(&file).expect("readable");
    let server = setup.peer.address();
    let (plain, moved) = (
        format!("  server s0 {server}\n"),
        format!("  server s0 {server} namespace {}\n", other.name()),
    );
    assert!(text.contains(&plain));
    fs::write(&file, text.replace(&plain, &moved)).expect("written");
    let refused = setup.command(&["-db", "-f", "haproxy.cfg"]);
    let mut refused = Process::start(refused, Some(&setup.netns), false);
    refused
        .stderr
        .wait_for("require full privileges, so global.uid cannot be changed");
    refused.stderr.wait_for("write 'setcap cap_sys_admin'");
    assert_eq!(refused.wait(STOP_WITHIN).code(), Some(1));
}

/// Every worker, and every one of the process after an upgrade, enters a namespace.
#[test]
fn the_capabilities_of_setcap_stay() {
    const MASK: &str = "0000000000201400";
    if !needs::root() {
        return;
    }
    let setup = Setup::new();
    let other = Netns::alone("kept");
    let peer = other.enter(|| Peer::start(Behaviour::Echo));
    setup.write(
        "  user nobody\n  nbthread 2\n  setcap cap_sys_admin,cap_net_admin\n",
        &[81],
    );
    let file = setup.folder.path().join("haproxy.cfg");
    let text = fs::read_to_string(&file).expect("readable");
    let plain = format!("  server s0 {}\n", setup.peer.address());
    let moved = format!(
        "  server s0 {} namespace {}\n",
        peer.address(),
        other.name()
    );
    fs::write(&file, text.replace(&plain, &moved)).expect("written");
    let run = setup.command(&["-W", "-db", "-f", "haproxy.cfg"]);
    let mut process = Process::start(run, Some(&setup.netns), false);
    process.stderr.wait_for("ready version=");
    let serves = |pid: i32| {
        // Each worker gets some of them.
        for _ in 0..20 {
            setup.served(81);
        }
        let mut workers = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task")).expect("it lives") {
            let path = task.expect("a thread").path();
            let Ok(status) = fs::read_to_string(path.join("status")) else {
                continue;
            };
            assert_eq!(field(&status, "Uid:"), [NOBODY; 4].join(" "), "{status}");
            let is_worker = field(&status, "Name:").starts_with("worker-");
            let (permitted, effective) = (field(&status, "CapPrm:"), field(&status, "CapEff:"));
            assert_eq!(permitted, effective, "{status}");
            let allowed = u64::from_str_radix(&permitted, 16).expect("a mask");
            let most = u64::from_str_radix(MASK, 16).expect("a mask");
            assert_eq!(allowed & !most, 0, "{status}");
            if is_worker {
                workers += 1;
                assert_eq!(allowed & 0x20_1000, 0x20_1000, "{status}");
            }
        }
        assert_eq!(workers, 2);
    };
    let first = process.id().cast_signed();
    serves(first);
    let socket = setup.socket();
    let upgraded = Command::new(PROGRAM)
        .args(["upgrade", "--socket"])
        .arg(&socket)
        .output();
    assert!(upgraded.expect("it starts").status.success());
    eventually_true(WITHIN, "answers of the new process", || {
        pid_at(&socket).is_some_and(|pid| pid != first)
    });
    let next = pid_at(&socket).expect("it answers");
    serves(next);
    kill(Pid::from_raw(next), Signal::SIGTERM).expect("it lives");
    process.wait(STOP_WITHIN);
    eventually_true(STOP_WITHIN, "the end of the new process", || {
        pid_at(&socket).is_none()
    });
}

/// Each use of a namespace ended the process.
#[test]
fn a_process_that_may_enter_no_namespace_serves_the_others() {
    if !needs::root() {
        return;
    }
    let setup = Setup::new();
    let other = Netns::alone("barred");
    let text = format!(
        "[[listen]]\nname = \"a\"\nbind = \"127.0.0.1:8100\"\n\
         servers = [{{ name = \"s\", address = \"{0}\", namespace = \"{1}\" }}]\n\
         [[listen]]\nname = \"b\"\nbind = \"127.0.0.1:8101\"\n\
         servers = [{{ name = \"s\", address = \"{0}\" }}]\n",
        setup.peer.address(),
        other.name(),
    );
    let file = setup.folder.path().join("config.toml");
    fs::write(&file, text).expect("written");
    // What is not called haproxy reads this format.
    let program = setup.folder.path().join("rlb");
    fs::rename(setup.folder.path().join("haproxy"), &program).expect("renamed");
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(file);
    command.env_remove("NOTIFY_SOCKET").uid(65534).gid(65534);
    let mut process = Process::start(command, Some(&setup.netns), false);
    process.stderr.wait_for("ready version=");
    setup.netns.enter(|| {
        let mut stream = connect(([127, 0, 0, 1], 8100).into());
        assert_eq!(stream.read(&mut [0]).ok(), Some(0), "it is closed");
        drop(stream);
        echo(&mut connect(([127, 0, 0, 1], 8101).into()), b"served");
    });
    process.signal(Signal::SIGTERM);
    assert!(process.wait(STOP_WITHIN).success());
}

/// It was noticed at the first reload, which was refused.
#[test]
fn a_file_that_reloads_cannot_read_is_warned_of() {
    if !needs::root() {
        return;
    }
    let setup = Setup::new();
    setup.write("  user nobody\n", &[81]);
    let file = setup.folder.path().join("haproxy.cfg");
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("set");
    let run = setup.command(&["-W", "-db", "-f", "haproxy.cfg"]);
    let mut process = Process::start(run, Some(&setup.netns), false);
    let told = process.stderr.wait_for("reloads cannot read a file");
    assert!(told.contains("haproxy.cfg"), "{told}");
    process.signal(Signal::SIGTERM);
    process.wait(STOP_WITHIN);
}
