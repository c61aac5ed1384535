//! The program under the name `haproxy`: HAProxy's command line, messages, exit codes and signals, side by
//! side with Debian's haproxy where that is installed.

use crate::harness::client::{End, connect, echo, hear, read_to_end};
use crate::harness::eventually::eventually_true;
use crate::harness::load::Load;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use crate::harness::runtime::ask;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// From a start to its readiness.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A folder with a link to the program, and a configuration of one proxy.
pub(crate) struct Haproxy {
    folder: TempDir,
    pub(crate) address: SocketAddr,
}

impl Haproxy {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(PROGRAM, folder.path().join("haproxy")).expect("a link");
        let haproxy = Self {
            folder,
            address: ports::free(),
        };
        haproxy.write(server, "");
        haproxy
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes its configuration; `global` are statements of that section.
    pub(crate) fn write(&self, server: SocketAddr, global: &str) {
        fs::write(
            self.path("haproxy.cfg"),
            config(self.address, server, global),
        )
        .expect("written");
    }

    /// The program, or another one, with these words.
    pub(crate) fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .args(words)
            .env_remove("NOTIFY_SOCKET");
        command
    }

    fn command(&self, words: &[&str]) -> Command {
        self.command_of(&self.path("haproxy"), words)
    }

    pub(crate) fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("it starts")
    }

    /// Starts it in the foreground and waits until it serves.
    #[track_caller]
    fn start(&self, words: &[&str]) -> Process {
        let process = Process::start(self.command(words), None, false);
        process.stderr.wait_for("ready version=");
        process
    }

    /// The process of the pid file. It is ended with the test.
    #[track_caller]
    pub(crate) fn background(&self) -> Background {
        let text = fs::read_to_string(self.path("pid")).expect("a pid file");
        Background(text.trim().parse().expect("a process id"))
    }
}

fn config(address: SocketAddr, server: SocketAddr, global: &str) -> String {
    format!(
        "global\n  maxconn 500\n{global}defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  \
         timeout server 1m\nlisten fe\n  bind {address}\n  server s0 {server}\n"
    )
}

/// A process that is no child of the test.
pub(crate) struct Background(pub(crate) i32);

impl Background {
    pub(crate) fn lives(&self) -> bool {
        // One that has ended may wait for its parent.
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0), signal).expect("it lives");
    }

    #[track_caller]
    pub(crate) fn wait_end(&self) {
        eventually_true(STOP_WITHIN, "the end of the process", || !self.lives());
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.lives() {
            self.signal(Signal::SIGKILL);
        }
    }
}

fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Severity, file and line of the messages that have a place.
fn places(stderr: &str) -> Vec<String> {
    let placed = stderr.lines().filter_map(|line| {
        let severity = line.split(']').next()?;
        let (_, rest) = line.split_once("parsing [")?;
        Some(format!("{severity} {}", rest.split(']').next()?))
    });
    placed.collect()
}

#[test]
fn a_check_says_and_exits_as_haproxys() {
    let haproxy = Haproxy::new(nobody());
    let good = config(haproxy.address, nobody(), "");
    let write = |name: &str, text: &str| fs::write(haproxy.path(name), text).expect("written");
    write(
        "bad.cfg",
        &good.replace("mode tcp", "mode tcpp").replace("bind", "bnd"),
    );
    write("value.cfg", &good.replace("client 1m", "client 1parsec"));
    write(
        "quiet-daemon.cfg",
        &good.replace("global\n", "global\n  daemon\n  pidfile /x/y\n"),
    );
    write(
        "backend.cfg",
        &good
            .replace("listen fe", "backend be")
            .replace("  bind", "  #bind"),
    );
    write("empty.cfg", "");
    fs::create_dir(haproxy.path("folder")).expect("a folder");
    write("folder/10-a.cfg", &good);
    write("folder/20-b.txt", "no configuration");
    write("folder/.hidden.cfg", "no configuration");
    let files = [
        "haproxy.cfg",
        "bad.cfg",
        "value.cfg",
        "quiet-daemon.cfg",
        "backend.cfg",
        "empty.cfg",
        "folder",
        "missing.cfg",
    ];
    let master = format!("-Ws -S {} -q", haproxy.path("m.sock").display());
    let options = ["", "-q", "-V", "-q -V", &master, "-db -dM", "-D", "-W -n 7"];
    let debian = needs::program("haproxy");
    for file in files {
        for option in options {
            let words = ["-f", file, "-c"]
                .into_iter()
                .chain(option.split_terminator(' '));
            let words: Vec<&str> = words.collect();
            let ours = haproxy.output(&words);
            let (out, err) = (text(&ours.stdout), text(&ours.stderr));
            let quiet = option.contains("-q") && !option.contains("-V");
            assert!(
                !quiet || (out.is_empty() && err.is_empty()),
                "{words:?}: {out}{err}"
            );
            if file == "haproxy.cfg" && !quiet {
                assert_eq!(out, "Configuration file is valid\n", "{words:?}");
            }
            let Some(debian) = &debian else { continue };
            let theirs = haproxy
                .command_of(debian, &words)
                .output()
                .expect("it starts");
            assert_eq!(ours.status.code(), theirs.status.code(), "{words:?}: {err}");
            // HAProxy 3.0 and later say only with `-V` that a file is valid.
            if option.contains("-V") {
                // What is a warning may differ.
                let said = |text: &str| text.replace("Warnings were found.\n", "");
                assert_eq!(said(&out), said(&text(&theirs.stdout)), "{words:?}");
            }
            let alerts = |text: &str| {
                let mut places = places(text);
                places.retain(|place| place.starts_with("[ALERT"));
                places
            };
            assert_eq!(alerts(&err), alerts(&text(&theirs.stderr)), "{words:?}");
        }
    }
}

#[test]
fn messages_have_haproxys_form() {
    let haproxy = Haproxy::new(nobody());
    let good = config(haproxy.address, nobody(), "");
    let weak = good.replace(
        "listen fe\n",
        "listen fe\n  balance url_param id\n  server s1 127.0.0.1:9\n",
    );
    fs::write(haproxy.path("weak.cfg"), weak).expect("written");
    let refused = haproxy.output(&["-c", "-f", "weak.cfg"]);
    assert_eq!(refused.status.code(), Some(1));
    let err = text(&refused.stderr);
    let lines: Vec<&str> = err.lines().collect();
    let [version, path, _dropped, alert, file, last] = lines[..] else {
        panic!("{err}");
    };
    assert!(version.starts_with("[NOTICE]   (") && version.contains(") : haproxy version is 3."));
    assert!(path.contains(") : path to executable is /"), "{path}");
    assert!(alert.starts_with("[ALERT]    ("), "{alert}");
    assert!(
        alert.contains(") : config : parsing [weak.cfg:9] : 'balance' : "),
        "{alert}"
    );
    assert!(file.ends_with("config : Error(s) found in configuration file : weak.cfg"));
    assert!(
        last.ends_with("config : Fatal errors found in configuration."),
        "{last}"
    );

    let allowed = haproxy.output(&["-c", "-f", "weak.cfg", "--allow-degraded"]);
    assert_eq!(allowed.status.code(), Some(0));
    let expected = "Warnings were found.\nConfiguration file is valid\n";
    assert_eq!(text(&allowed.stdout), expected);
    assert_eq!(places(&text(&allowed.stderr)), ["[WARNING weak.cfg:9"]);
    let strict = haproxy.output(&["-c", "-f", "weak.cfg", "--allow-degraded", "-dW"]);
    assert_eq!(strict.status.code(), Some(1));
}

#[test]
fn versions_conditions_and_mistakes_exit_as_haproxys() {
    let haproxy = Haproxy::new(nobody());
    let debian = needs::program("haproxy");
    let lines = [
        "-v",
        "-vv",
        "-cc version_atleast(2.4)",
        "-cc version_before(2.4)",
        "-cc feature(EPOLL)",
        "-cc bogus(",
        "-c",
        "",
        "word",
        "-f",
        "-sf",
        "-f haproxy.cfg -sf abc",
        "-f haproxy.cfg -sf 0",
        "-k haproxy.cfg",
    ];
    for line in lines {
        let words: Vec<&str> = line.split_terminator(' ').collect();
        let ours = haproxy.output(&words);
        assert!(ours.status.code().is_some(), "{line}");
        if let Some(debian) = &debian {
            let theirs = haproxy
                .command_of(debian, &words)
                .output()
                .expect("it starts");
            assert_eq!(ours.status.code(), theirs.status.code(), "{line}");
        }
    }
    let version = text(&haproxy.output(&["-v"]).stdout);
    assert!(version.starts_with("HAProxy version 3."), "{version}");
    assert!(text(&haproxy.output(&["-vv"]).stdout).contains("\nFeature list : +"));
    assert!(text(&haproxy.output(&["-c"]).stderr).contains("Usage : "));
}

/// Switches that show something: what they print of the files, and how they end, beside a HAProxy that has all of them.
#[test]
fn switches_that_show_something_end_as_haproxys() {
    let haproxy = Haproxy::new(nobody());
    let words = "# a comment\nglobal\n  presetenv A \"x${HOME}\" # b\n.if defined(A)\n  maxconn ${B}\n.endif\n\
                 listen a\n  bind :\"${PORT-80}\" name x\\ y\n";
    fs::write(haproxy.path("words.cfg"), words).expect("written");
    for (name, content) in [
        ("quote.cfg", "listen a\n  bind \"x\n"),
        ("broken.cfg", "listen a\n  bind \"x\n  bind :1\n"),
        ("zero.cfg", "listen a\n  bind\0 :1\n  bind :2\n"),
    ] {
        fs::write(haproxy.path(name), content).expect("written");
    }
    let other = needs::haproxy().filter(|program| needs::version(program) >= (3, 0));
    for line in [
        "-dMhelp",
        "-dMfail,help",
        "-dMfoo -f haproxy.cfg -c",
        "-dMno-merge,tag -f haproxy.cfg -c",
        "-dMno-merge,-5 -f haproxy.cfg -c",
        "-dM-5 -f haproxy.cfg -c",
        "-dM0X50,tag -f haproxy.cfg -c",
        "-dthelp -f haproxy.cfg",
        "-dt help -f haproxy.cfg -c",
        "-dthelp -f nothing.cfg",
        "-dA -f haproxy.cfg -c",
        "-dAlibraries.tar -f haproxy.cfg -c",
        "-dL -f haproxy.cfg -c",
        "-dKhelp -f haproxy.cfg -c",
        "-dKcfg -f haproxy.cfg -c -q",
        "-dC -f haproxy.cfg",
        "-dC -f words.cfg -f haproxy.cfg -c",
        "-dCline -f words.cfg",
        "-dC -q -f words.cfg",
        "-dC -f quote.cfg",
        "-dC -f broken.cfg -f words.cfg",
        "-dC -f zero.cfg -f words.cfg",
        "-dA/dev/full -f haproxy.cfg -c",
        "-dA/nothing/x -f haproxy.cfg -c",
        "-dC -f nothing.cfg",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ours = haproxy.output(&words);
        let shown = text(&ours.stdout);
        let silent = [
            "-dC -q", "nothing", "-dMno", "-dMfoo", "-dM-5", "-dM0X50", "-dA -f", "-dA/",
        ];
        let valid = shown.replace("Configuration file is valid\n", "");
        let is_silent = silent.iter().any(|part| line.contains(part));
        assert_eq!(valid.is_empty(), is_silent, "{line}: {shown}");
        let Some(program) = &other else { continue };
        let theirs = haproxy.command_of(program, &words).output();
        let theirs = theirs.expect("it starts");
        assert_eq!(ours.status.code(), theirs.status.code(), "{line}");
        // HAProxy reads files that are valid twice and prints them each time.
        if line.starts_with("-dC") {
            let times = if ours.status.success() { 2 } else { 1 };
            assert_eq!(shown.repeat(times), text(&theirs.stdout), "{line}");
        }
        if line.starts_with("-dA/") {
            let alert = |output: &Output| {
                let said = text(&output.stderr);
                let alert = said.lines().find(|line| line.contains("[ALERT]"));
                alert.and_then(|line| line.split_once(" : ").map(|(_, it)| it.to_owned()))
            };
            assert_eq!(alert(&ours), alert(&theirs), "{line}");
        }
    }
}

#[test]
fn what_the_switches_show_is_of_this_program() {
    let haproxy = Haproxy::new(nobody());
    let listed = text(&haproxy.output(&["-dL", "-c", "-f", "haproxy.cfg"]).stdout);
    assert!(
        listed.starts_with("List of loaded object files:\n/"),
        "{listed}"
    );
    let keywords = text(
        &haproxy
            .output(&["-dKcfg", "-c", "-f", "haproxy.cfg"])
            .stdout,
    );
    for word in [
        "global\n",
        "\n\tmaxconn\n",
        "\n\tbind <addr> interface\n",
        "\n\tbalance\n",
    ] {
        assert!(keywords.contains(word), "{word}: {keywords}");
    }
    // The archive holds the program, byte for byte.
    haproxy.output(&["-dAours.tar", "-c", "-f", "haproxy.cfg"]);
    let archive = fs::read(haproxy.path("ours.tar")).expect("an archive");
    let program = fs::read(PROGRAM).expect("the program");
    assert_eq!(&archive[257..262], b"ustar");
    assert!(archive[512..].starts_with(&program));
    assert_eq!(archive.len() % 512, 0);
}

/// Debian's unit: `-Ws`, a pid file, a check and SIGUSR2 for a reload.
#[test]
fn as_the_unit_starts_it_it_notifies_reloads_and_ends_at_once() {
    let [one, two] = ["one", "two"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let haproxy = Haproxy::new(one.address());
    let notify = UnixDatagram::bind(haproxy.path("notify")).expect("a socket");
    notify.set_read_timeout(Some(READY_WITHIN)).expect("set");
    let master = haproxy.path("m.sock").display().to_string();
    let mut command = haproxy.command(&["-Ws", "-f", "haproxy.cfg", "-p", "pid", "-S", &master]);
    command.env("NOTIFY_SOCKET", haproxy.path("notify"));
    let mut process = Process::start(command, None, false);
    let heard = || {
        let mut message = [0; 4096];
        let length = notify.recv(&mut message).expect("a message");
        text(&message[..length])
    };
    let wait_for = |word: &str| while !heard().contains(word) {};
    wait_for("READY=1");
    // The process that was started is the one that serves.
    let pid = fs::read_to_string(haproxy.path("pid")).expect("a pid file");
    assert_eq!(pid, format!("{}\n", process.id()));
    assert!(haproxy.path("m.sock").exists());
    assert_eq!(hear_word(haproxy.address), "one");

    for signal in [Signal::SIGUSR2, Signal::SIGHUP] {
        let (server, word) = match signal {
            Signal::SIGUSR2 => (two.address(), "two"),
            _ => (one.address(), "one"),
        };
        haproxy.write(server, "");
        let check = haproxy.output(&["-Ws", "-f", "haproxy.cfg", "-c", "-q", "-S", &master]);
        assert!(check.status.success());
        process.signal(signal);
        wait_for("RELOADING=1");
        wait_for("READY=1");
        assert_eq!(hear_word(haproxy.address), word);
    }
    // What HAProxy refuses, or what would be weaker, leaves what is in force.
    let weak = "  harden.reject-privileged-ports.tcp on\n";
    haproxy.write(two.address(), weak);
    process.signal(Signal::SIGUSR2);
    process.stderr.wait_for("reload refused");
    assert_eq!(hear_word(haproxy.address), "one");

    let mut open = connect(haproxy.address);
    let mut word = [0; 3];
    std::io::Read::read_exact(&mut open, &mut word).expect("the greeting");
    process.signal(Signal::SIGTERM);
    assert!(process.wait(STOP_WITHIN).success());
    assert_ne!(read_to_end(&mut open).1, End::Silence);
}

/// Under `-W`, HAProxy goes on without a listener; a start without it fails, and a reload never closes all.
#[test]
fn files_in_which_nothing_listens_take_nothing_down() {
    let peer = Peer::start(Behaviour::SpeaksFirst("one"));
    let haproxy = Haproxy::new(peer.address());
    let whole = fs::read(haproxy.path("haproxy.cfg")).expect("the file");
    fs::write(haproxy.path("empty.cfg"), "").expect("written");
    let cut = &whole[..whole.len() - 60];
    fs::write(haproxy.path("cut.cfg"), [cut, b"\n"].concat()).expect("written");
    let running = haproxy.output(&["-D", "-f", "haproxy.cfg", "-p", "pid"]);
    assert!(running.status.success(), "{running:?}");
    let background = haproxy.background();
    let pid = background.0.to_string();
    let debian = needs::program("haproxy");
    for words in [
        vec!["-db", "-f", "empty.cfg"],
        vec!["-D", "-f", "empty.cfg", "-p", "pid", "-sf", &pid],
    ] {
        let output = haproxy.output(&words);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("No enabled listener found"), "{said}");
        if let Some(debian) = &debian {
            let theirs = haproxy.command_of(debian, &words).output();
            assert_eq!(
                theirs.expect("it starts").status.code(),
                Some(1),
                "{words:?}"
            );
        }
        assert_eq!(hear_word(haproxy.address), "one");
    }
    background.signal(Signal::SIGTERM);
    background.wait_end();

    let mut process = haproxy.start(&["-W", "-f", "haproxy.cfg"]);
    for file in ["empty.cfg", "cut.cfg"] {
        fs::copy(haproxy.path(file), haproxy.path("haproxy.cfg")).expect("written");
        process.signal(Signal::SIGUSR2);
        process.stderr.wait_for("reload refused");
        assert_eq!(hear_word(haproxy.address), "one", "{file}");
    }
    process.signal(Signal::SIGTERM);
    assert!(process.wait(STOP_WITHIN).success());
}

#[test]
fn a_socket_of_the_command_line_has_the_level_that_is_asked_for() {
    let haproxy = Haproxy::new(nobody());
    for (name, more, level) in [
        ("a.sock", "", "admin"),
        ("u#1.sock", ",mode,600,level,user", "user"),
        ("it's.sock", ",level,operator", "operator"),
    ] {
        let path = haproxy.path(name);
        let socket = format!("{}{more}", path.display());
        let mut process = haproxy.start(&["-W", "-f", "haproxy.cfg", "-S", &socket]);
        assert_eq!(
            ask(&path, "show cli level"),
            format!("{level}\n\n"),
            "{socket}"
        );
        if level == "admin" {
            // A reload keeps it.
            let said = ask(&path, "reload");
            assert!(said.contains("Success=1"), "{said}");
            assert_eq!(ask(&path, "show cli level"), "admin\n\n");
        }
        process.signal(Signal::SIGTERM);
        assert!(process.wait(STOP_WITHIN).success());
    }
}

#[test]
fn messages_of_a_file_are_told_and_a_warning_counts() {
    let haproxy = Haproxy::new(nobody());
    let whole = fs::read_to_string(haproxy.path("haproxy.cfg")).expect("the file");
    for (line, severity, code) in [
        (".warning \"look here\"", "[WARNING]", Some(1)),
        (".notice \"look here\"", "[NOTICE]", Some(0)),
    ] {
        let text_of_file = format!("{line}\n{whole}");
        fs::write(haproxy.path("haproxy.cfg"), text_of_file).expect("written");
        let output = haproxy.output(&["-dW", "-c", "-f", "haproxy.cfg"]);
        let said = text(&output.stderr);
        let told = said.lines().find(|line| line.contains("look here"));
        assert!(
            told.is_some_and(|line| line.starts_with(severity)),
            "{said}"
        );
        assert_eq!(output.status.code(), code, "{said}");
    }
    let output = haproxy.output(&["-db", "-f", "haproxy.cfg", "-x", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Failed to get the sockets from the old process!"));
}

/// The first three bytes that a server says.
#[track_caller]
fn hear_word(address: SocketAddr) -> String {
    let mut stream = connect(address);
    let mut word = [0; 3];
    std::io::Read::read_exact(&mut stream, &mut word).expect("the greeting");
    text(&word)
}

#[test]
fn usr1_waits_for_sessions_and_hup_without_w_tells_the_servers() {
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let mut process = haproxy.start(&["-db", "-f", "haproxy.cfg", "-p", "pid"]);
    assert!(
        !haproxy.path("pid").exists(),
        "as in HAProxy, without -D and -W"
    );
    process.signal(Signal::SIGHUP);
    process
        .stderr
        .wait_for("SIGHUP: Server fe/s0 is UP. Conn: 0 act, 0 pend, 0 tot.");
    process.signal(Signal::SIGUSR2);
    process.stderr.wait_for("SIGUSR2");
    // A HAProxy that cannot bind sends it; it would suspend the process.
    process.signal(Signal::SIGTTOU);
    process.stderr.wait_for("SIGTTOU");
    process.signal(Signal::SIGQUIT);
    process.stderr.wait_for("SIGQUIT");

    let mut open = connect(haproxy.address);
    echo(&mut open, b"before");
    process.signal(Signal::SIGUSR1);
    eventually_true(STOP_WITHIN, "nobody listens", || {
        !ports::is_listened_on(haproxy.address)
    });
    echo(&mut open, b"after");
    drop(open);
    assert!(process.wait(STOP_WITHIN).success());
}

/// Whether a process handles a signal: HAProxy's master does so some time after its worker listens.
pub(crate) fn handles(pid: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let has = |field: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field));
        let mask = u64::from_str_radix(mask.expect("a mask").trim(), 16).expect("hexadecimal");
        mask & (1 << (signal as i32 - 1)) != 0
    };
    has("SigCgt:") && !has("SigBlk:")
}

/// Without `-W` the process ended with 0 after TERM and INT, which end HAProxy by the signal.
#[test]
fn the_exit_status_after_a_signal_is_haproxys() {
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let debian = needs::program("haproxy");
    let programs: Vec<PathBuf> = debian
        .into_iter()
        .chain([haproxy.path("haproxy")])
        .collect();
    let [term, int, usr1] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1];
    let by = |signal: Signal| (Some(signal as i32), None);
    let exit = |code| (None, Some(code));
    let cases = [
        (&["-db"][..], &[term][..], by(term)),
        (&["-db"], &[int], by(int)),
        (&["-db"], &[usr1, term], by(term)),
        (&["-db"], &[usr1], exit(0)),
        (&["-W", "-db"], &[term], exit(0)),
        (&["-W", "-db"], &[int], exit(130)),
        (&["-W", "-db"], &[usr1, int], exit(130)),
        (&["-W", "-db"], &[usr1], exit(0)),
    ];
    for program in programs {
        for (mode, signals, expected) in cases {
            // What runs the tests may ignore SIGINT, as a shell does for what it starts behind itself.
            let name = program.to_str().expect("a path of text");
            let words = [&["--default-signal", name], mode, &["-f", "haproxy.cfg"]].concat();
            let command = haproxy.command_of(Path::new("env"), &words);
            let mut process = Process::start(command, None, false);
            let handled = if mode[0] == "-W" { term } else { usr1 };
            eventually_true(READY_WITHIN, "a listening process", || {
                TcpStream::connect(haproxy.address).is_ok() && handles(process.id(), handled)
            });
            let mut open = connect(haproxy.address);
            echo(&mut open, b"held");
            for signal in signals {
                process.signal(*signal);
                if *signal == usr1 {
                    eventually_true(STOP_WITHIN, "nobody listens", || {
                        !ports::is_listened_on(haproxy.address)
                    });
                }
            }
            if signals == [usr1] {
                drop(open);
            }
            let status = process.wait(STOP_WITHIN);
            let what = format!("{} {mode:?} {signals:?}", program.display());
            assert_eq!((status.signal(), status.code()), expected, "{what}");
        }
    }
}

#[test]
fn a_start_in_the_background_is_over_when_it_serves_or_has_failed() {
    let peer = Peer::start(Behaviour::Says("one"));
    let haproxy = Haproxy::new(peer.address());
    let words = ["-D", "-f", "haproxy.cfg", "-p", "pid"];
    let started = haproxy.output(&words);
    assert!(started.status.success(), "{started:?}");
    let process = haproxy.background();
    assert_eq!(hear(haproxy.address).0, "one");
    // It has left the session and the streams of whoever has started it.
    let stderr = fs::read_link(format!("/proc/{}/fd/2", process.0)).expect("it lives");
    assert_eq!(stderr, Path::new("/dev/null"));

    let second = haproxy.output(&words);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(
        said.contains("[ALERT]") && said.contains("fe: cannot listen on"),
        "{said}"
    );
    assert!(said.contains("Some protocols failed to start their listeners! Exiting."));
    assert_eq!(haproxy.background().0, process.0, "the pid file stays");
    process.signal(Signal::SIGINT);
    process.wait_end();

    // `daemon` in the file does the same, unless `-db` stands on the command line.
    haproxy.write(peer.address(), "  daemon\n  pidfile pid\n");
    assert!(haproxy.output(&["-f", "haproxy.cfg"]).status.success());
    let process = haproxy.background();
    process.signal(Signal::SIGTERM);
    process.wait_end();
    let mut foreground = haproxy.start(&["-f", "haproxy.cfg", "-db"]);
    foreground.signal(Signal::SIGINT);
    assert_eq!(foreground.wait(STOP_WITHIN).signal(), Some(2));
}

/// A server that is one byte of its own: what a client sends comes back.
pub(crate) fn loaded<T>(haproxy: &Haproxy, restart: impl FnOnce() -> T) -> T {
    let load = Load::start(haproxy.address, 4);
    let restarted = restart();
    let (served, failures) = load.end();
    assert!(
        failures.is_empty(),
        "{} of {served}: {failures:?}",
        failures.len()
    );
    assert!(served > 0);
    restarted
}

#[test]
fn sf_loses_nothing_with_rlb_on_both_sides() {
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("rt.sock");
    let runtime = format!("  stats socket {} level admin\n", socket.display());
    haproxy.write(peer.address(), &runtime);
    let start = |old: &[&str]| {
        let words = ["-D", "-f", "haproxy.cfg", "-p", "pid", "-sf"];
        let words: Vec<&str> = words.iter().chain(old).copied().collect();
        let started = haproxy.output(&words);
        assert!(started.status.success(), "{started:?}");
        haproxy.background()
    };
    let mut process = start(&[]);
    let mut held: Vec<TcpStream> = Vec::new();
    loaded(&haproxy, || {
        for _ in 0..8 {
            let mut stream = connect(haproxy.address);
            echo(&mut stream, b"held");
            held.push(stream);
            let next = start(&[&process.0.to_string()]);
            assert_ne!(next.0, process.0);
            // The old one keeps its sessions and answers no commands any more.
            answers_at(&socket, &next);
            for stream in &mut held {
                echo(stream, b"still there");
            }
            assert!(process.lives());
            held.clear();
            process.wait_end();
            process = next;
        }
    });
    let st = haproxy.output(&[
        "-D",
        "-f",
        "haproxy.cfg",
        "-p",
        "pid",
        "-st",
        &process.0.to_string(),
    ]);
    assert!(st.status.success());
    process.wait_end();
    let last = haproxy.background();
    answers_at(&socket, &last);
    last.signal(Signal::SIGTERM);
    last.wait_end();
}

/// Waits until this process answers at a runtime socket, and no other one.
#[track_caller]
pub(crate) fn answers_at(socket: &Path, process: &Background) {
    eventually_true(READY_WITHIN, "answers of the new process", || {
        (0..3).all(|_| pid_at(socket) == Some(process.0))
    });
}

/// The `Pid:` of an answer.
pub(crate) fn pid_at(socket: &Path) -> Option<i32> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.write_all(b"show info\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid: "))?;
    line.trim().parse().ok()
}

/// A new process that fails leaves the old one as it was.
#[test]
fn a_failed_sf_leaves_the_old_process_in_charge() {
    let peer = Peer::start(Behaviour::Says("one"));
    let haproxy = Haproxy::new(peer.address());
    let process = haproxy.start(&["-db", "-f", "haproxy.cfg"]);
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address");
    let text_of_both = config(haproxy.address, peer.address(), "")
        + &format!(
            "listen other\n  bind {taken}\n  server s {}\n",
            peer.address()
        );
    fs::write(haproxy.path("both.cfg"), text_of_both).expect("written");
    let old = process.id().to_string();
    let failed = haproxy.output(&["-D", "-f", "both.cfg", "-p", "pid", "-sf", &old]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        text(&failed.stderr).contains("other: cannot listen on"),
        "{failed:?}"
    );
    assert!(!haproxy.path("pid").exists());
    for _ in 0..10 {
        assert_eq!(hear(haproxy.address).0, "one");
    }
}

/// Going over from HAProxy to rlb under load, and back.
#[test]
fn sf_takes_over_from_haproxy_and_haproxy_from_rlb() {
    let Some(debian) = needs::program("haproxy") else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("rt.sock");
    let runtime = format!("  stats socket {} level admin\n", socket.display());
    haproxy.write(peer.address(), &runtime);
    let words = ["-D", "-f", "haproxy.cfg", "-p", "pid"];
    let theirs = haproxy
        .command_of(&debian, &words)
        .output()
        .expect("it starts");
    assert!(theirs.status.success(), "{theirs:?}");
    let old = haproxy.background();
    loaded(&haproxy, || {
        let pid = old.0.to_string();
        let started = haproxy.output(&[&words[..], &["-sf", &pid]].concat());
        assert!(started.status.success(), "{started:?}");
        old.wait_end();
    });
    let ours = haproxy.background();
    answers_at(&socket, &ours);
    let pid = ours.0.to_string();
    let words = [&words[..], &["-sf", &pid]].concat();
    let back = haproxy
        .command_of(&debian, &words)
        .output()
        .expect("it starts");
    assert!(back.status.success(), "{back:?}");
    ours.wait_end();
    let last = haproxy.background();
    let mut stream = connect(haproxy.address);
    echo(&mut stream, b"served");
    last.signal(Signal::SIGTERM);
    last.wait_end();
}

/// `rlb upgrade` of a process that runs under the name, found by its search path.
#[test]
fn an_upgrade_keeps_the_name() {
    let peer = Peer::start(Behaviour::Says("one"));
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("rt.sock");
    let runtime = format!("  stats socket {} level admin\n", socket.display());
    haproxy.write(peer.address(), &runtime);
    let mut command = Command::new("haproxy");
    command
        .env("PATH", haproxy.folder.path())
        .env_remove("NOTIFY_SOCKET")
        .current_dir(haproxy.folder.path())
        .args(["-W", "-db", "-f", "haproxy.cfg", "-p", "pid"]);
    let mut process = Process::start(command, None, false);
    process.stderr.wait_for("ready version=");
    let upgraded = Command::new(PROGRAM)
        .args(["upgrade", "--socket"])
        .arg(&socket)
        .output()
        .expect("it starts");
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert!(process.wait(STOP_WITHIN).success());
    let next = haproxy.background();
    answers_at(&socket, &next);
    assert_eq!(hear(haproxy.address).0, "one");
    next.signal(Signal::SIGTERM);
    next.wait_end();
}

/// `show startup-logs` has what was written at the start, in HAProxy's form.
#[test]
fn what_was_told_at_the_start_can_be_asked_for() {
    let peer = Peer::start(Behaviour::Says("one"));
    let haproxy = Haproxy::new(peer.address());
    let socket = haproxy.path("sock");
    let global = format!("  stats socket {}\n", socket.display());
    for quiet in [&[][..], &["-q"]] {
        haproxy.write(peer.address(), &global);
        let words = [quiet, &["-f", "haproxy.cfg"]].concat();
        let ready = || {
            eventually_true(READY_WITHIN, "it serves", || {
                UnixStream::connect(&socket).is_ok()
            });
        };
        let mut process = Process::start(haproxy.command(&words), None, false);
        ready();
        assert_eq!(ask(&socket, "show startup-logs"), "\n", "nothing was told");
        process.signal(Signal::SIGTERM);
        process.wait(STOP_WITHIN);
        fs::remove_file(&socket).expect("it was there");
        let resolvers = format!("{global}resolvers dns\n  nameserver a 127.0.0.1:53\n");
        haproxy.write(peer.address(), &resolvers);
        let process = Process::start(haproxy.command(&words), None, false);
        ready();
        let said = ask(&socket, "show startup-logs");
        let pid = process.id();
        let lines: Vec<&str> = said.lines().collect();
        let begins = [
            format!("[NOTICE]   ({pid}) : haproxy version is "),
            format!("[NOTICE]   ({pid}) : path to executable is /"),
            format!("[WARNING]  ({pid}) : config : parsing [haproxy.cfg:4] : 'resolvers' : "),
        ];
        assert_eq!(lines.len(), begins.len() + 1, "{said}");
        for (line, begin) in lines.iter().zip(&begins) {
            assert!(line.starts_with(begin), "{line}");
            let written = process.stderr.with(line).len();
            assert_eq!(written, usize::from(quiet.is_empty()), "{line}");
        }
    }
}
