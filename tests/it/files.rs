//! Configuration files that are incomplete, unusual or being written: how `rlb check`, a start, a reload and
//! the watch handle them.

use crate::harness::client::{connect, echo};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, pace_until};
use crate::harness::load::Load;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN, Start, command};
use crate::harness::runtime::Fixture;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A file that removes a listener is accepted when nothing was written for 5 s.
const BELIEVED_WITHIN: Duration = Duration::from_secs(15);

/// A balancer with a runtime socket and one server.
fn scene(config: Config) -> (Fixture, Peer) {
    let peer = Peer::start(Behaviour::Echo);
    let config = config.server_with(peer.address(), "check = false");
    (Fixture::new(config, "admin"), peer)
}

/// Runs a sub-command against the socket of `scene`: exit code, standard output and error.
fn run(scene: &Fixture, arguments: &[&str]) -> (Option<i32>, String, String) {
    let socket = scene.socket();
    let socket = ["--socket", socket.to_str().expect("a UTF-8 path")];
    let output = command(&[arguments, &socket].concat());
    let [out, err] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
    (output.status.code(), out, err)
}

/// The text up to and including the table that begins with `header`.
fn cut_off(text: &str, header: &str) -> String {
    let at = text.find(header).expect("the table is there");
    let end = text[at + 1..]
        .find("\n[")
        .map_or(text.len(), |end| at + 1 + end);
    text[..end].to_owned()
}

/// Faults 8 and 32: a file without a service is an error everywhere, and a reload with it closes nothing.
#[test]
fn fault_08_a_file_without_a_listener_is_refused() {
    let (scene, _peer) = scene(Config::new());
    let path = scene.rlb.config_path();
    let whole = scene.config.to_string();
    let mut stream = connect(scene.rlb.address());
    for text in [
        String::new(),
        "# nothing\n".to_owned(),
        "include = 'conf.d/*.toml'\n".to_owned(),
        cut_off(&whole, "[global]"),
    ] {
        fs::write(&path, &text).expect("written");
        let check = command(&["check", path.to_str().expect("a UTF-8 path")]);
        assert_eq!(check.status.code(), Some(78), "{text}");
        let said = String::from_utf8(check.stderr).expect("text");
        assert!(
            said.contains("error[no-listener]") && said.contains("allow-no-listener"),
            "{said}"
        );
        let (code, _, said) = run(&scene, &["reload"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            said.contains("error[no-listener]"),
            "as check shows it: {said}"
        );
        assert_eq!(
            said.contains("no file matches"),
            text.contains("include"),
            "{said}"
        );
        let (status, lines) = Start::new(&text).exits();
        assert_eq!(status.code(), Some(78), "{lines:?}");
        echo(
            &mut connect(scene.rlb.address()),
            b"the port is still there",
        );
    }
    // It can be allowed; then this machine is not ready.
    let ready = |scene: &Fixture| scene.rlb.http_get("/readyz").expect("answers");
    assert_eq!(ready(&scene).0, 200);
    let global =
        cut_off(&whole, "[global]").replace("[global]", "[global]\nallow-no-listener = true");
    let table = |header: &str| cut_off(&whole[whole.find(header).expect("a table")..], header);
    let (stats, runtime) = (table("[stats]"), table("[runtime-api]"));
    fs::write(&path, format!("{global}\n{stats}\n{runtime}\n")).expect("written");
    let (code, said, _) = run(&scene, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("- frontend fe"), "{said}");
    assert_eq!(ready(&scene), (503, "no frontend listens\n".to_owned()));
    echo(&mut stream, b"its session goes on");
    fs::write(&path, &whole).expect("written");
    assert_eq!(run(&scene, &["reload"]).0, Some(0));
    assert_eq!(ready(&scene).0, 200);
    scene.rlb.stop_after(stream);
}

/// Fault 8: a reload prints the warnings of `check`, too.
#[test]
fn fault_08_a_reload_prints_its_warnings() {
    let (scene, _peer) = scene(Config::new());
    let path = scene.rlb.config_path();
    let more = format!(
        "include = 'none.d/*.toml'\n{}",
        scene.config.clone().frontend("maxconn = 9")
    );
    fs::write(&path, more).expect("written");
    let (code, said, _) = run(&scene, &["reload"]);
    assert_eq!(code, Some(0));
    let warning = said.find("warning[include]: no file matches");
    let change = said.find("~ frontend fe: maxconn none -> 9");
    assert!(warning.is_some() && warning < change, "{said}");
    scene.rlb.stop();
}

/// The warnings of a refused reload were logged as errors.
#[test]
fn the_warnings_of_a_refused_reload_or_start_are_logged_as_warnings() {
    let (scene, _peer) = scene(Config::new());
    let more = format!(
        "include = 'none.d/*.toml'\n{}",
        scene.config.clone().frontend("maxcon = 9")
    );
    let is_as_severe_as_it_is = |lines: Vec<String>| {
        for (text, level) in [("no file matches", "WARN"), ("unknown key", "ERROR")] {
            let line = lines.iter().find(|line| line.contains(text));
            let line = line.unwrap_or_else(|| panic!("{text} in {lines:#?}"));
            assert!(line.contains(&format!("\"level\":\"{level}\"")), "{line}");
        }
    };
    scene.rlb.reload_refused(&more);
    is_as_severe_as_it_is(scene.rlb.events().all());
    is_as_severe_as_it_is(Start::new(&more).exits().1);
    scene.rlb.stop();
}

/// Fault 9: a file that is cut off, then one that cannot be read for longer than a cut one is waited for, then
/// another that is cut off.
#[test]
fn fault_09_a_slow_writer_takes_nothing_away_after_a_file_that_cannot_be_read() {
    let peer = Peer::start(Behaviour::Echo);
    let second = "[[listen]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\nservers = [{ name = \"s\", address = \"127.0.0.1:1\" }]\n";
    let config = Config::new().server_with(peer.address(), "check = false");
    let watched = "[global]\nwatch = true\n";
    let cut = config.to_string().replacen("[global]\n", watched, 1);
    let whole = format!("{cut}\n{second}");
    let rlb = Rlb::start(&whole);
    let path = rlb.config_path();
    let deferred = || rlb.events().with("reload deferred").len();
    fs::write(&path, &cut).expect("written");
    eventually_eq(STOP_WITHIN, &1, deferred);
    // For longer than a doubt lasts.
    fs::write(&path, "[[listen").expect("written");
    rlb.events().wait_for("reload refused");
    pace_until(Instant::now() + Duration::from_secs(31));
    fs::write(&path, &cut).expect("written");
    eventually_eq(STOP_WITHIN, &2, deferred);
    connect(rlb.addresses("second")[0]);
    fs::write(&path, &whole).expect("written");
    pace_until(Instant::now() + Duration::from_secs(6));
    connect(rlb.addresses("second")[0]);
    rlb.stop();
}

/// Faults 9 and 32: while a file is written in steps, nothing is closed; then it is in force.
#[test]
fn fault_09_a_slow_writer_takes_nothing_away() {
    let peer = Peer::start(Behaviour::Echo);
    let second = "[[listen]]\nname = \"second\"\nbind = \"127.0.0.1:0\"\nservers = [{ name = \"s\", address = \"127.0.0.1:1\" }]\n";
    // What a file lacks when it is cut off: a listener or a server, and the watch itself.
    let text = |maxconn: u64| {
        let config = Config::new().server_with(peer.address(), "check = false");
        let config = config.frontend(&format!("maxconn = {maxconn}")).to_string();
        let services = config.strip_prefix("[global]\nthreads = 2\n");
        let services = services.expect("the process comes first");
        format!("{services}\n{second}[global]\nwatch = true\nthreads = 2\n")
    };
    let head = |text: &str| text.find("[[listen]]").expect("a listen");
    let serverless = |text: &str| text.find("servers = [{ name = \"s\"").expect("a server");
    let start = text(100);
    let rlb = Rlb::start(&start);
    let path = rlb.config_path();
    let addresses = [rlb.address(), rlb.addresses("second")[0]];
    let load = Load::start(rlb.address(), 1);
    for (round, pause) in [50, 600, 3000]
        .map(Duration::from_millis)
        .into_iter()
        .enumerate()
    {
        let maxconn = 101 + round as u64;
        let new = text(maxconn);
        let now = Instant::now();
        fs::write(&path, "").expect("truncated");
        pace_until(now + pause);
        fs::write(&path, &new[..head(&new)]).expect("a part");
        pace_until(now + 2 * pause);
        fs::write(&path, &new[..serverless(&new)]).expect("a longer part");
        pace_until(now + 3 * pause);
        fs::write(&path, &new).expect("all of it");
        eventually_eq(STOP_WITHIN, &maxconn, || rlb.number("FRONTEND", "slim"));
        for address in addresses {
            drop(connect(address));
        }
    }
    let (done, failures) = load.end();
    assert!(done > 100 && failures.is_empty(), "{done} {failures:?}");
    assert!(
        !rlb.events().with("no listener").is_empty(),
        "the empty file is told"
    );
    for lost in ["listeners would close", "servers would be removed"] {
        let deferred = format!("reload deferred: {lost}");
        assert!(!rlb.events().with(&deferred).is_empty(), "{lost}");
    }
    // When the rest does not follow, the file is intended.
    let gone = text(200);
    fs::write(&path, &gone[..head(&gone)]).expect("written");
    eventually_eq(BELIEVED_WITHIN, &200, || rlb.number("FRONTEND", "slim"));
    eventually_true(STOP_WITHIN, "the second listener is closed", || {
        TcpStream::connect(addresses[1]).is_err()
    });
    rlb.stop();
}

/// Fault 43: no kind of file blocks a check, start, reload or upgrade.
#[test]
fn fault_43_no_kind_of_file_blocks() {
    let (scene, _peer) = scene(Config::new());
    let path = scene.rlb.config_path();
    let directory = path.parent().expect("in a directory");
    let whole = scene.config.to_string();
    mkfifo(&directory.join("fifo"), Mode::S_IRUSR).expect("a FIFO");
    let start = Instant::now();
    for (line, what) in [
        ("include = 'fifo'\n", "a FIFO"),
        ("include = '/dev/zero'\n", "a device"),
        ("include = '${file:fifo}'\n", "a FIFO"),
    ] {
        fs::write(&path, format!("{line}{whole}")).expect("written");
        let check = command(&["check", path.to_str().expect("a UTF-8 path")]);
        assert_eq!(check.status.code(), Some(78), "{line}");
        assert!(
            String::from_utf8_lossy(&check.stderr).contains(what),
            "{line}"
        );
        for command in ["reload", "upgrade", "diff"] {
            let (code, _, said) = run(&scene, &[command]);
            assert!(
                code != Some(0) && said.contains(what),
                "{command} {line}: {said}"
            );
        }
        echo(&mut connect(scene.rlb.address()), b"served");
    }
    let fifo = directory.join("fifo");
    let check = command(&["check", fifo.to_str().expect("a UTF-8 path")]);
    assert_eq!(check.status.code(), Some(78));
    let started = command(&["run", "--config", fifo.to_str().expect("a UTF-8 path")]);
    assert_eq!(started.status.code(), Some(78));
    assert!(start.elapsed() < STOP_WITHIN, "{:?}", start.elapsed());
    fs::write(&path, &whole).expect("written");
    scene.rlb.stop();
}

/// Fault 27: the running process itself tells what a reload would change, and what is in force.
#[test]
fn fault_27_the_running_process_tells_what_differs() {
    let (scene, peer) = scene(Config::new());
    let path = scene.rlb.config_path();
    let (code, said, _) = run(&scene, &["diff"]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing differs\n"));
    let in_force = scene.ask("show config");
    let name = format!("# configuration file {}:\n", path.display());
    assert!(in_force.starts_with(&name), "{in_force}");
    assert!(
        in_force.contains(scene.config.to_string().trim_end()),
        "{in_force}"
    );
    let more = scene
        .config
        .clone()
        .server_with(peer.address(), "weight = 2");
    let more = more.to_string().replace("threads = 2", "threads = 1");
    fs::write(&path, &more).expect("written");
    let (code, said, _) = run(&scene, &["diff"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("+ server be/s2"), "{said}");
    assert_eq!(run(&scene, &["reload", "--dry-run"]).1, said);
    let (code, json, _) = run(&scene, &["diff", "--format", "json"]);
    assert_eq!(code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!(json["needs_restart"], true);
    // It was only a dry run.
    assert!(scene.rlb.events().with("reloaded").is_empty());
    assert_eq!(scene.ask("show config"), in_force);
    assert_eq!(run(&scene, &["reload"]).0, Some(0));
    let now = scene.ask("show config");
    assert!(
        now.starts_with("# not in force before a restart: ! global: threads 2 -> 1"),
        "{now}"
    );
    assert!(now.contains(more.trim_end()), "{now}");
    fs::write(&path, "[[listen]]\nnam = 'x'\n").expect("written");
    let (code, _, said) = run(&scene, &["diff"]);
    assert_eq!(code, Some(78));
    assert!(
        said.contains("did you mean `name`?"),
        "as check shows it: {said}"
    );
    assert_eq!(run(&scene, &["reload", "--dry-run"]).0, Some(1));
    assert!(scene.ask("user; show config").contains("Permission denied"));
    scene.rlb.stop();
}
