//! The page in a browser, and the metrics in Prometheus. Needs Chromium and promtool (see [`needs`]).
//!
//! With `RLB_SCREENSHOTS=docs/images` the pictures of the documentation are made again.

use crate::harness::browser::{BROWSER_WITHIN, browse, photograph, row};
use crate::harness::client::{TIMEOUT, connect, echo, http_get};
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time until checks have brought a server into the wanted state.
const CHECKED_WITHIN: Duration = Duration::from_secs(20);

/// rlb and its servers.
pub(crate) struct Fixture {
    pub(crate) rlb: Rlb,
    /// The servers, and ports that stay unused so that they refuse.
    pub(crate) peers: (Vec<Peer>, [Refuses; 2]),
}

/// rlb in front of servers in every state that a file and checks can cause, with one `[[listen]]` and one pair
/// of sections.
pub(crate) fn fixture() -> Fixture {
    let good = Peer::start(Behaviour::Echo);
    let (dead_port, waking_port) = (Refuses::start(), Refuses::start());
    let (dead, waking) = (dead_port.address(), waking_port.address());
    let ill = Peer::start(Behaviour::Echo);
    // One result, then a long pause: a server stays in transition.
    let slow = "{ interval = \"300ms\", fast-interval = \"60s\", rise = 50, fall = 50 }";
    let wakes = "{ interval = \"60s\", fast-interval = \"60s\", down-interval = \"300ms\", rise = 50, fall = 50 }";
    let (up, ill_at) = (good.address(), ill.address());
    let config = format!(
        "[global]\nthreads = 2\nmaxconn = 8000\nnode = \"lb01\"\n\
         description = \"every state of the legend\"\n\
         [stats]\nbind = \"127.0.0.1:0\"\nshow-node = true\nshow-desc = true\n\
         show-legends = true\nrefresh = \"10s\"\n\
         [defaults]\ncheck = {{ interval = \"200ms\" }}\n\
         [[listen]]\nname = \"states\"\nbind = \"127.0.0.1:0\"\nservers = [\n\
         {{ name = \"act-up\", address = \"{up}\" }},\n\
         {{ name = \"act-going-down\", address = \"{ill_at}\", check = {slow} }},\n\
         {{ name = \"act-going-up\", address = \"{waking}\", check = {wakes} }},\n\
         {{ name = \"act-down\", address = \"{dead}\" }},\n\
         {{ name = \"act-maint-cfg\", address = \"{up}\", disabled = true }},\n\
         {{ name = \"act-weight0\", address = \"{up}\", weight = 0 }},\n\
         {{ name = \"act-nocheck\", address = \"{up}\", check = false }},\n\
         {{ name = \"bck-up\", address = \"{up}\", backup = true }},\n\
         {{ name = \"bck-going-down\", address = \"{ill_at}\", check = {slow}, backup = true }},\n\
         {{ name = \"bck-down\", address = \"{dead}\", backup = true }},\n]\n\
         [[frontend]]\nname = \"fe\"\nbind = \"127.0.0.1:0\"\ndefault-backend = \"be\"\n\
         [[backend]]\nname = \"be\"\nservers = [\n\
         {{ name = \"node01\", address = \"{up}\" }}, {{ name = \"node02\", address = \"{dead}\" }} ]\n\
         [[backend]]\nname = \"lost\"\nservers = [ {{ name = \"node01\", address = \"{dead}\" }} ]\n"
    );
    let rlb = Rlb::start(&config);
    for proxy in ["fe", "states"] {
        for _ in 0..20 {
            echo(&mut connect(rlb.addresses(proxy)[0]), &[b'x'; 2000]);
        }
    }
    let status = |server: &str, wanted: &str| {
        eventually_true(CHECKED_WITHIN, &format!("{server} is {wanted}"), || {
            rlb.csv().row("states", server).status() == wanted
        });
    };
    status("act-up", "UP");
    status("act-going-down", "UP");
    status("bck-going-down", "UP");
    status("act-going-up", "DOWN");
    let ill_port = ill.stop();
    let woken = Peer::start_on(waking_port, Behaviour::Echo);
    status("act-going-down", "UP 49/50");
    status("bck-going-down", "UP 49/50");
    eventually_true(CHECKED_WITHIN, "act-going-up is on its way", || {
        rlb.csv()
            .row("states", "act-going-up")
            .status()
            .starts_with("DOWN ")
    });
    Fixture {
        rlb,
        peers: (vec![good, woken], [dead_port, ill_port]),
    }
}

#[test]
fn a_browser_shows_every_state_in_haproxys_layout() {
    let Some(chromium) = needs::program("chromium") else {
        return;
    };
    let Fixture { rlb, peers } = fixture();
    let url = format!("http://{}/;norefresh", rlb.addresses("stats")[0]);
    let page = browse(&chromium, &url, &["--dump-dom"]);
    for (server, class, words) in [
        ("act-up", "active_up", " UP"),
        ("act-going-down", "active_going_down", " UP 49/50 ↓"),
        ("act-going-up", "active_going_up", "/50 ↑"),
        ("act-down", "active_down", " DOWN"),
        ("act-maint-cfg", "maintain", " MAINT"),
        ("act-weight0", "active_draining", " UP"),
        ("act-nocheck", "active_no_check", "no check"),
        ("bck-up", "backup_up", " UP"),
        ("bck-going-down", "backup_going_down", " UP 49/50 ↓"),
        ("bck-down", "backup_down", " DOWN"),
    ] {
        let (found, cells) = row(&page, &format!("states/{server}"));
        assert_eq!((found.as_str(), cells[0].as_str()), (class, server));
        assert!(cells[22].ends_with(words), "{server}: {cells:?}");
    }
    let (class, cells) = row(&page, "lost/Backend");
    assert_eq!(class, "backend");
    assert!(cells[22].ends_with(" DOWN"), "{cells:?}");
    assert_eq!(
        row(&page, "fe/Frontend").1[8],
        "20",
        "sessions of the frontend"
    );
    let order = [
        "stats/Frontend",
        "states/Frontend",
        "states/act-up",
        "states/bck-down",
        "states/Backend",
        "fe/Frontend",
        "be/node01",
        "be/node02",
        "be/Backend",
        "lost/Backend",
    ];
    let places: Vec<_> = order
        .iter()
        .map(|id| page.find(&format!("id=\"{id}\"")))
        .collect();
    assert!(places.is_sorted() && places[0].is_some(), "{places:?}");
    for text in [
        "Statistics Report for pid",
        "on lb01: every state of the legend",
        "HAProxy version 3.",
        "Hide 'DOWN' servers",
        "Enable refresh",
        "CSV export",
        "JSON export",
        "balancing: roundrobin",
        "Layer4 connection problem: ",
    ] {
        assert!(page.contains(text), "{text}");
    }
    photograph(&chromium, &url, "dashboard", (820, true));
    photograph(&chromium, &url, "dashboard-dark", (820, false));
    rlb.stop_after(peers);
}

#[test]
fn promtool_accepts_the_metrics() {
    let Some(promtool) = needs::program("promtool") else {
        return;
    };
    let Fixture { rlb, peers } = fixture();
    let (status, text) = rlb.http_get("/metrics").expect("answers");
    assert_eq!(status, 200);
    let mut tool = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = tool.stdin.take().expect("its input");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = tool.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && words.is_empty(),
        "{words}\n{text}"
    );
    for line in [
        "haproxy_server_status{proxy=\"states\",server=\"act-maint-cfg\",state=\"MAINT\"} 1",
        "haproxy_backend_active_servers{proxy=\"lost\"} 0",
        "haproxy_frontend_sessions_total{proxy=\"fe\"} 20",
        "haproxy_process_node{node=\"lb01\"} 1",
        "rlb_running 1",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
    }
    rlb.stop_after(peers);
}

#[test]
fn prometheus_scrapes_it() {
    let Some(prometheus) = needs::program("prometheus") else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&crate::harness::config::Config::new().server(peer.address()));
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\n\
         scrape_configs: [ {{ job_name: rlb, static_configs: [ {{ targets: [ \"{}\" ] }} ] }} ]\n",
        rlb.addresses("stats")[0]
    );
    std::fs::write(&config, text).expect("its configuration");
    let address = ports::free();
    let mut program = Command::new(prometheus)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.path().join("data").display()
        ))
        .arg(format!("--web.listen-address={address}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("Prometheus starts");
    let found = |query: &str| {
        let answer = http_get(address, &format!("/api/v1/query?query={query}"));
        answer.is_ok_and(|(_, text)| text.contains("\"1\"]"))
    };
    let scraped = std::panic::catch_unwind(|| {
        eventually_true(BROWSER_WITHIN, "a scrape", || {
            found("up")
                && found("haproxy_server_status%7Bstate=%22UP%22%7D")
                && found("rlb_running")
        });
    });
    program.kill().expect("it can be ended");
    program.wait().expect("it ends");
    assert!(scraped.is_ok(), "Prometheus has scraped rlb");
    rlb.stop_after(peer);
}

#[test]
fn readiness_turns_before_the_listeners_close() {
    let peer = Peer::start(Behaviour::Echo);
    let port = Refuses::start();
    let (up, down) = (peer.address(), port.address());
    let rlb = Rlb::start(&format!(
        "[global]\nthreads = 1\n[stats]\nbind = \"127.0.0.1:0\"\n\
         [readiness]\nrequire = {{ be = 2 }}\nwithdraw-delay = \"30s\"\n\
         [[frontend]]\nname = \"fe\"\nbind = \"127.0.0.1:0\"\ndefault-backend = \"be\"\n\
         [[backend]]\nname = \"be\"\ncheck = {{ interval = \"200ms\" }}\nservers = [\n\
         {{ name = \"s1\", address = \"{up}\" }}, {{ name = \"s2\", address = \"{down}\" }} ]\n"
    ));
    rlb.wait_status("s2", "DOWN");
    let ready = || rlb.http_get("/readyz").expect("answers");
    assert_eq!(
        ready(),
        (503, "backend be: 1 usable servers, 2 required\n".to_owned())
    );
    let second = Peer::start_on(port, Behaviour::Echo);
    rlb.wait_status("s2", "UP");
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    let stats = rlb.addresses("stats")[0];
    rlb.signal(Signal::SIGTERM);
    eventually_true(STOP_WITHIN, "it is not ready any more", || {
        ready() == (503, "stopping\n".to_owned())
    });
    echo(&mut connect(rlb.address()), b"still listening");
    assert_eq!(http_get(stats, "/healthz").expect("answers").0, 200);
    // The second signal ends the wait.
    rlb.stop_after((peer, second));
}

/// Whether a new connection is accepted and served.
fn served(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"in between")?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer)
}

#[test]
fn the_listeners_close_when_the_withdraw_delay_is_over() {
    const DELAY: Duration = Duration::from_secs(2);
    let peer = Peer::start(Behaviour::Echo);
    let up = peer.address();
    let mut rlb = Rlb::start(&format!(
        "[global]\nthreads = 2\nhard-stop-after = \"60s\"\n[stats]\nbind = \"127.0.0.1:0\"\n\
         [readiness]\nrequire = {{ be = 1 }}\nwithdraw-delay = \"{}s\"\n\
         [[frontend]]\nname = \"fe\"\nbind = \"127.0.0.1:0\"\ndefault-backend = \"be\"\n\
         [[backend]]\nname = \"be\"\ncheck = {{ interval = \"200ms\" }}\nservers = [\n\
         {{ name = \"s1\", address = \"{up}\" }} ]\n",
        DELAY.as_secs()
    ));
    let address = rlb.address();
    let readiness = |rlb: &Rlb| rlb.http_get("/readyz").expect("answers");
    assert_eq!(readiness(&rlb), (200, "ready\n".to_owned()));
    let mut before = connect(address);
    echo(&mut before, b"before the signal");
    let start = Instant::now();
    rlb.signal(Signal::SIGTERM);
    eventually_true(DELAY / 2, "it is not ready any more", || {
        readiness(&rlb) == (503, "stopping\n".to_owned())
    });
    assert!(start.elapsed() < DELAY, "told well before the end");
    let mut between = connect(address);
    echo(&mut between, b"in between");
    let mut taken = 0;
    eventually_true(DELAY + STOP_WITHIN, "the listeners close", || {
        let result = served(address);
        taken += usize::from(result.is_ok());
        result.is_err()
    });
    let open_for = start.elapsed();
    assert!(open_for >= DELAY, "refused after {open_for:?} already");
    assert!(taken > 20, "{taken} served in between");
    assert!(served(address).is_err(), "closed for good");
    assert_eq!(readiness(&rlb), (503, "stopping\n".to_owned()));
    // Sessions go on, whenever they began, and the stop waits for them.
    echo(&mut before, b"after the listeners have closed");
    echo(&mut between, b"after the listeners have closed");
    assert_eq!(rlb.process.ended(), None);
    drop((before, between));
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    drop(peer);
}
