//! `rlb demo`: its output is true, there is traffic everywhere, and its node goes away and comes back.

use crate::harness::client::http_get;
use crate::harness::csv::Csv;
use crate::harness::eventually::{eventually, eventually_eq};
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

const NAMES: [&str; 4] = ["app", "postgres", "admin-console", "kube-api"];
const WITHIN: Duration = Duration::from_secs(20);

struct Demo {
    process: Process,
    stats: SocketAddr,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("demo").args(arguments).env_remove("RUST_LOG");
        let process = Process::start(command, None, false);
        let line = process.stdout.wait_for("statistics");
        let address = line.split("http://").nth(1).expect("an address");
        let stats = address.trim_end_matches('/').parse().expect("an address");
        process.stderr.wait_for("ready");
        Self { process, stats }
    }

    fn csv(&self) -> Csv {
        let (status, text) = http_get(self.stats, "/;csv").expect("the statistics answer");
        assert_eq!(status, 200);
        Csv::parse(&text)
    }

    fn status(&self, node: &str) -> String {
        self.csv().row("app-backend", node).status().to_owned()
    }
}

#[test]
fn every_server_has_traffic_and_one_node_blinks() {
    let mut demo = Demo::start(&["--blink", "2s"]);
    eventually_eq(WITHIN, &Vec::<String>::new(), || {
        let csv = demo.csv();
        NAMES
            .iter()
            .flat_map(|name| {
                ["node01", "node02", "node03"].map(|node| (format!("{name}-backend"), node))
            })
            .filter(|(backend, node)| {
                let row = csv.row(backend, node);
                row.number("stot") < 3 || row.number("bout") == 0
            })
            .map(|(backend, node)| format!("{backend}/{node}"))
            .collect()
    });
    for wanted in ["DOWN", "UP", "DOWN"] {
        eventually(WITHIN, &format!("node03 is {wanted}"), || {
            (demo.status("node03") == wanted).then_some(())
        });
    }
    assert_eq!(demo.status("node01"), "UP");
    let csv = demo.csv();
    for name in NAMES {
        let row = csv.row(&format!("{name}-backend"), "node01");
        assert_eq!(row.number("chkdown"), 0, "{name}: a node that stays");
    }
    demo.process.signal(Signal::SIGINT);
    assert_eq!(demo.process.wait(STOP_WITHIN).code(), Some(0));
    let last = demo.process.stdout.wait_for("connections answered");
    let answered: u64 = last
        .split(' ')
        .next()
        .and_then(|it| it.parse().ok())
        .expect("a number");
    assert!(answered > 50, "{last}");
}

/// What ends with the demo is no failure.
#[test]
fn a_service_manager_ends_it_without_failed_connections() {
    let mut demo = Demo::start(&[]);
    eventually(WITHIN, "traffic", || {
        let csv = demo.csv();
        let served = |name: &&str| {
            csv.row(&format!("{name}-backend"), "BACKEND")
                .number("stot")
        };
        (NAMES.iter().map(served).min() > Some(9)).then_some(())
    });
    demo.process.signal(Signal::SIGTERM);
    assert_eq!(demo.process.wait(STOP_WITHIN).code(), Some(0));
    let last = demo.process.stdout.wait_for("connections answered");
    assert!(last.contains(" answered, 0 failed"), "{last}");
}

#[test]
fn two_demos_run_side_by_side_and_end_by_themselves() {
    let mut demos = [(); 2].map(|()| Demo::start(&["--seconds", "3"]));
    assert_ne!(demos[0].stats, demos[1].stats);
    for demo in &demos {
        let page = demo.process.stdout.wait_for("curl");
        let address = page.split("http://").nth(1).expect("an address");
        let address: SocketAddr = address
            .split('/')
            .next()
            .and_then(|it| it.parse().ok())
            .expect("an address");
        let (status, body) = http_get(address, "/").expect("the page");
        assert_eq!(status, 200);
        assert!(body.contains("This is node0"), "{body}");
    }
    for demo in &mut demos {
        assert_eq!(demo.process.wait(WITHIN).code(), Some(0));
        let refused = std::net::TcpStream::connect(demo.stats).is_err();
        assert!(refused, "nothing is left behind");
    }
}
