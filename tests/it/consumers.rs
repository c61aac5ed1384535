//! Programs that people use with HAProxy, at rlb: at its runtime sockets, its statistics, its metrics and its log.
//! Each is the real one, from Debian or `PyPI` (`tests/python-tools`).

use crate::harness::client::{connect, echo, http_get};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_true};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::STOP_WITHIN;
use crate::harness::runtime::Fixture;
use crate::harness::syslog::Syslog;
use crate::harness::terminal::Terminal;
use crate::harness::{needs, ports};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Ansible takes seconds to start.
const TOOL_WITHIN: Duration = Duration::from_secs(60);

/// Two checked servers that are UP, and a runtime socket.
struct Balancer {
    fixture: Fixture,
    peers: [Peer; 2],
}

impl Balancer {
    fn new() -> Self {
        Self::with(Config::new(), "")
    }

    /// With further lines of `[runtime-api]`.
    fn with(config: Config, lines: &str) -> Self {
        let peers = [(); 2].map(|()| Peer::start(Behaviour::Echo));
        let config = peers.iter().fold(config, |config, peer| {
            let keys = "weight = 10, check = { interval = \"200ms\" }";
            config.server_with(peer.address(), keys)
        });
        let fixture = Fixture::with(config, "admin", lines);
        // They are UP from the beginning.
        eventually_true(STOP_WITHIN, "both were checked", || {
            let rows = fixture.rlb.csv();
            ["s1", "s2"].map(|server| rows.row("be", server).text("check_status") == "L4OK")
                == [true; 2]
        });
        Self { fixture, peers }
    }

    fn status(&self, server: &str) -> String {
        self.fixture.rlb.status(server)
    }

    fn stop(self) {
        self.fixture.rlb.stop_after(self.peers);
    }
}

/// What a program says. Fails when it does.
#[track_caller]
fn said(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().expect("it starts");
    let [stdout, stderr] = [stdout, stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    assert!(status.success(), "{status}: {stdout}{stderr}");
    stdout
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[test]
fn hatop_shows_the_servers_and_passes_commands_on() {
    let Some(hatop) = needs::program("hatop") else {
        return;
    };
    let balancer = Balancer::new();
    let socket = balancer.fixture.socket();
    let start = |mode: u8| {
        let line = format!("{} -s {} -i 1 -m {mode}", hatop.display(), socket.display());
        Terminal::start(&line, &[])
    };
    let (Some(mut statistics), Some(mut commands)) = (start(1), start(5)) else {
        return;
    };
    for shown in ["HATop version", "fe", "be", "s1", "s2"] {
        statistics.wait_for(shown);
    }
    statistics.press("q");
    assert!(statistics.ended_well());
    commands.wait_for("haproxy command line");
    commands.press("disable server be/s2\r");
    balancer.fixture.rlb.wait_status("s2", "MAINT");
    // Out of the command line, and out of the program.
    commands.press("\x1b1");
    commands.wait_for("s1");
    commands.press("q");
    assert!(commands.ended_well());
    balancer.stop();
}

#[test]
fn prometheus_haproxy_exporter_reads_the_page_and_the_socket() {
    let Some(exporter) = needs::program("prometheus-haproxy-exporter") else {
        return;
    };
    let balancer = Balancer::new();
    let page = balancer.fixture.rlb.addresses("stats")[0];
    for from in [
        format!("http://{page}/;csv"),
        format!("unix:{}", balancer.fixture.socket().display()),
    ] {
        let address = ports::free();
        let mut program = Command::new(&exporter)
            .arg(format!("--haproxy.scrape-uri={from}"))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the exporter starts");
        let wanted = [
            "haproxy_up 1",
            "haproxy_exporter_csv_parse_failures_total 0",
            "haproxy_server_up{backend=\"be\",server=\"s1\"} 1",
            "haproxy_frontend_current_sessions{frontend=\"fe\"} 0",
            "haproxy_server_weight{backend=\"be\",server=\"s2\"} 10",
        ];
        let scraped = std::panic::catch_unwind(|| {
            eventually(STOP_WITHIN, "all metrics", || {
                let (_, text) = http_get(address, "/metrics").ok()?;
                let has = |line: &&str| text.lines().any(|it| it == *line);
                wanted.iter().all(has).then_some(())
            });
        });
        program.kill().expect("it can be ended");
        program.wait().expect("it ends");
        assert!(scraped.is_ok(), "{from}");
    }
    balancer.stop();
}

/// What haproxyadmin does at the socket that is its first argument.
const HAPROXYADMIN: &str = r"
import sys
from haproxyadmin import haproxy
all = haproxy.HAProxy(socket_file=sys.argv[1])
assert all.version.startswith('3.0.0'), all.version
frontend, backend = all.frontend('fe'), all.backend('be')
assert (frontend.status, backend.status) == ('OPEN', 'UP')
assert [it.name for it in backend.servers()] == ['s1', 's2']
server = backend.server('s1')
assert (int(server.weight), server.check_status) == (10, 'L4OK')
for state, status in [('drain', 'DRAIN'), ('maint', 'MAINT'), ('ready', 'UP')]:
    assert server.setstate(state)
    # Until the next check has passed it is 'UP 1/3'.
    now = server.status
    assert now.split()[0] == status, now
for weight, now in [(20, 20), ('50%', 5)]:
    assert server.setweight(weight)
    assert int(server.weight) == now, server.weight
assert server.shutdown()
server.port = int(sys.argv[2])
assert int(server.port) == int(sys.argv[2])
assert frontend.setmaxconn(77) and frontend.maxconn == 77
assert frontend.disable() and frontend.status == 'PAUSED', frontend.status
assert frontend.enable() and frontend.status == 'OPEN', frontend.status
assert all.setmaxconn(900) and all.maxconn == 900
assert all.setratelimitconn(800) and all.ratelimitconn == 800
assert all.setratelimitsess(700) and all.ratelimitsess == 700
assert all.clearcounters(all=True)
assert frontend.requests == 0
";

#[test]
fn haproxyadmin_and_haproxytool_read_and_set() {
    let Some(tool) = needs::program("haproxytool") else {
        return;
    };
    let balancer = Balancer::new();
    let socket = balancer.fixture.socket();
    let python = tool.with_file_name("python");
    let port = balancer.peers[0].address().port().to_string();
    said(Command::new(python).args(["-c", HAPROXYADMIN, text(&socket), &port]));
    let ask = |arguments: &[&str]| {
        let (object, arguments) = arguments.split_first().expect("an object");
        said(
            Command::new(&tool)
                .args([object, "-F", text(&socket)])
                .args(arguments),
        )
    };
    assert!(ask(&["frontend", "-s"]).contains("fe OPEN"));
    assert!(ask(&["backend", "-S"]).contains("s2"));
    ask(&["server", "--force", "-n", "s2"]);
    assert_eq!(balancer.status("s2"), "DRAIN");
    let servers = ask(&["server", "-s"]);
    let words: Vec<&str> = servers.split_whitespace().collect();
    assert!(words.ends_with(&["be", "s2", "DRAIN"]), "{servers}");
    balancer.stop();
}

#[test]
fn haproxy_cli_works_over_tcp() {
    let Some(client) = needs::program("haproxy-cli") else {
        return;
    };
    let address = ports::free();
    let tcp = format!("sockets = [ {{ socket = \"{address}\", level = \"admin\" }} ]");
    let balancer = Balancer::with(Config::new(), &tcp);
    let ask = |arguments: &[&str]| {
        let python = client.with_file_name("python");
        let socket = format!("tcp://{address}");
        said(
            Command::new(python)
                .arg(&client)
                .args(["-k", &socket])
                .args(arguments),
        )
    };
    assert!(ask(&["-c", "info"]).contains("Name: HAProxy"));
    assert!(ask(&["-c", "servers", "-b", "be"]).contains("Name: s1 Status: UP Weight: 10"));
    ask(&["-c", "disable", "-b", "be", "-s", "s1"]);
    assert_eq!(balancer.status("s1"), "MAINT");
    ask(&["-c", "enable", "-b", "be", "-s", "s1"]);
    ask(&["-c", "set-weight", "-b", "be", "-s", "s1", "-w", "30"]);
    let weight = ask(&["-c", "get-weight", "-b", "be", "-s", "s1"]);
    assert!(weight.starts_with("30 (initial 10)"), "{weight}");
    balancer.stop();
}

/// Its module waits until the server has no session any more.
#[test]
fn ansible_drains_a_server_and_brings_it_back() {
    let Some(ansible) = needs::program("ansible") else {
        return;
    };
    let balancer = Balancer::new();
    let home = tempfile::tempdir().expect("a directory");
    let socket = balancer.fixture.socket();
    let play = |state: &str, more: &str| {
        let arguments = format!(
            "state={state} host=s1 backend=be socket={} wait=yes wait_interval=1 wait_retries=20 {more}",
            socket.display()
        );
        let mut command = Command::new(&ansible);
        command
            .args(["localhost", "-m", "community.general.haproxy", "-a"])
            .arg(arguments)
            .env("HOME", home.path())
            .env("ANSIBLE_LOCALHOST_WARNING", "false");
        said(&mut command)
    };
    let mut session = connect(balancer.fixture.rlb.address());
    echo(&mut session, b"on s1");
    assert!(play("disabled", "").contains("CHANGED"));
    assert_eq!(balancer.status("s1"), "MAINT");
    assert!(play("enabled", "").contains("CHANGED"));
    assert_eq!(balancer.status("s1"), "UP");
    let drained = std::thread::scope(|scope| {
        let drained = scope.spawn(|| play("drain", "drain=yes"));
        eventually_true(TOOL_WITHIN, "it drains", || {
            balancer.status("s1") == "DRAIN"
        });
        drop(session);
        drained.join().expect("no panic")
    });
    assert!(drained.contains("\"scur\": \"0\""), "{drained}");
    balancer.stop();
}

/// Lines as a syslog daemon writes them.
#[test]
fn lnav_understands_the_lines_of_sessions() {
    let Some(lnav) = needs::program("lnav") else {
        return;
    };
    let syslog = Syslog::udp();
    let balancer = Balancer::with(
        Config::new().log(format!("udp:{}", syslog.address()), "rfc3164"),
        "",
    );
    let dir = tempfile::tempdir().expect("a directory");
    let mut lines = String::new();
    for _ in 0..5 {
        echo(&mut connect(balancer.fixture.rlb.address()), b"12345");
        let line = syslog.next_with("] fe be/s");
        let (_, line) = line.split_once('>').expect("a priority");
        // The daemon adds the host that it has the line from.
        let (date, line) = line.trim_end().split_at("Nov 28 16:30:57".len());
        lines.extend([date, " lb01", line, "\n"]);
    }
    let path = dir.path().join("rlb.log");
    std::fs::write(&path, &lines).expect("written");
    let query =
        ";select frontend_name, backend_name, bytes_read, termination_state from haproxy_log";
    let table = said(
        Command::new(lnav)
            .args(["-n", "-c", query, "-c", ":write-csv-to -"])
            .arg(&path)
            .env("TERM", "dumb")
            .env("HOME", dir.path()),
    );
    let rows: Vec<&str> = table.lines().skip(1).collect();
    assert_eq!(rows, ["fe,be,5,--"; 5], "{lines}{table}");
    balancer.stop();
}

fn rules() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/packaging/prometheus/alerts.yml"
    ))
}

#[test]
fn promtool_accepts_the_alert_rules() {
    let Some(promtool) = needs::program("promtool") else {
        return;
    };
    said(Command::new(&promtool).args(["check", "rules", "--lint-fatal", text(rules())]));
    let tests = rules().with_file_name("alerts-test.yml");
    said(Command::new(&promtool).args(["test", "rules", text(&tests)]));
}

#[test]
fn every_metric_of_the_alert_rules_is_there() {
    let config = Config::new().backend("fail-open-below = 50");
    let balancer = Balancer::with(config, "");
    let (_, metrics) = balancer.fixture.rlb.http_get("/metrics").expect("answers");
    let rules = std::fs::read_to_string(rules()).expect("the rules");
    let expressions = rules.lines().filter(|line| line.contains("expr: "));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = expressions.flat_map(|line| line.split(|c| !is_name(c)));
    let names: Vec<&str> = names
        .filter(|word| word.starts_with("haproxy_") || word.starts_with("rlb_"))
        .collect();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let line = format!("# TYPE {name} ");
        assert!(metrics.contains(&line), "{name}");
    }
    balancer.stop();
}
