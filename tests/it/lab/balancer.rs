//! The balancer under test: rlb with the seed's configuration in its own words, or Debian's HAProxy
//! with the seed's own file, for the figures side by side.

use crate::harness::client::http_get;
use crate::harness::csv::Csv;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::netns::{LB_ADDRESS, Lab};
use crate::harness::process::Process;
use crate::harness::rlb::{Rlb, Start};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The seed's configuration for HAProxy, as the guide prints it.
pub(crate) const SEED_HAPROXY: &str = include_str!("seed-haproxy.cfg");

/// The same in rlb's words, as shipped.
const KURL_HA: &str = include_str!("../../../config/kurl-ha.toml");

/// The same, the runtime socket moved out of /run, where a test has nothing to do.
fn kurl_ha() -> String {
    let (file, own) = (
        "/run/rlb/admin.sock",
        format!("@rlb-lab-{}", std::process::id()),
    );
    assert!(KURL_HA.contains(file), "the file has changed");
    KURL_HA.replace(file, &own)
}

/// The servers' names, by node.
pub(crate) const SERVERS: [&str; 3] = [
    "app-direct-node01",
    "app-direct-node02",
    "app-direct-node03",
];

/// The backends and the ports of their servers.
pub(crate) const BACKENDS: [(&str, u16); 4] = [
    ("app-direct-backend", 80),
    ("postgres-backend", 5432),
    ("replicated-backend", 8800),
    ("kube-api-backend", 6443),
];

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The program of this repository.
    Rlb,
    /// Debian's package.
    Haproxy,
}

impl Kind {
    /// Starts it on the balancer's machine and waits until it serves.
    pub(crate) fn start(self, lab: &Lab) -> Balancer {
        match self {
            Self::Rlb => Balancer::Rlb(Box::new(Start::new(&kurl_ha()).netns(&lab.lb).ready())),
            Self::Haproxy => {
                let (process, _) = haproxy(lab, "-db");
                Balancer::Haproxy(process)
            }
        }
    }

    /// Starts it so that it can be reloaded.
    pub(crate) fn start_to_reload(self, lab: &Lab) -> Reloadable {
        match self {
            Self::Rlb => Reloadable::Rlb(Box::new(Start::new(&kurl_ha()).netns(&lab.lb).ready())),
            Self::Haproxy => {
                let (process, dir) = haproxy(lab, "-W");
                Reloadable::Haproxy { process, dir }
            }
        }
    }
}

/// HAProxy in the foreground; `mode` is `-db` for one process, `-W` for a master and its workers.
fn haproxy(lab: &Lab, mode: &str) -> (Process, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("haproxy.cfg");
    std::fs::write(&config, SEED_HAPROXY).expect("written");
    let mut command = Command::new("haproxy");
    command.arg(mode).arg("-f").arg(&config);
    let process = Process::start(command, Some(&lab.lb), false);
    eventually_true(
        Duration::from_secs(10),
        "HAProxy serves its statistics",
        || {
            lab.client
                .enter(|| http_get(stats_address(), "/;csv"))
                .is_ok()
        },
    );
    (process, dir)
}

/// A running balancer.
#[derive(Debug)]
pub(crate) enum Balancer {
    /// The program of this repository.
    Rlb(Box<Rlb>),
    /// Debian's package.
    Haproxy(Process),
}

impl Balancer {
    /// Panics if it has ended meanwhile.
    #[track_caller]
    pub(crate) fn lives(&mut self) {
        let process = match self {
            Self::Rlb(rlb) => &mut rlb.process,
            Self::Haproxy(process) => process,
        };
        assert_eq!(process.ended(), None, "the balancer has ended");
    }
}

/// A running balancer that takes a new configuration while it runs.
pub(crate) enum Reloadable {
    /// The program of this repository.
    Rlb(Box<Rlb>),
    /// Debian's package as a master with workers, and the directory of its file.
    Haproxy {
        /// The master.
        process: Process,
        /// Holds `haproxy.cfg`.
        dir: TempDir,
    },
}

impl Reloadable {
    /// Reloads with another weight of the application's server on the second node, by signal, and
    /// waits until it is in force.
    #[track_caller]
    pub(crate) fn reload(&mut self, weight: u32) {
        match self {
            Self::Rlb(rlb) => {
                let old = "app-direct-node02 = \"10.240.0.39\"";
                let new =
                    format!("app-direct-node02 = {{ host = \"10.240.0.39\", weight = {weight} }}");
                assert!(KURL_HA.contains(old), "the file has changed");
                rlb.reload(&kurl_ha().replace(old, &new));
            }
            Self::Haproxy { process, dir } => {
                let old = "10.240.0.39:80 check";
                assert!(SEED_HAPROXY.contains(old), "the file has changed");
                let text = SEED_HAPROXY.replace(old, &format!("{old} weight {weight}"));
                std::fs::write(dir.path().join("haproxy.cfg"), text).expect("written");
                let ready = "Loading success";
                let before = process.stderr.with(ready).len();
                process.signal(Signal::SIGUSR2);
                eventually_true(Duration::from_secs(10), "HAProxy has reloaded", || {
                    process.stderr.with(ready).len() > before
                });
            }
        }
    }

    /// Ends it and all that belongs to it, whatever is still open.
    pub(crate) fn stop(self) {
        let mut process = match self {
            Self::Rlb(rlb) => rlb.process,
            Self::Haproxy { process, dir: _ } => process,
        };
        assert_eq!(process.ended(), None, "the balancer has ended");
        // HAProxy's master passes it on to its workers and waits for them.
        process.signal(Signal::SIGTERM);
        process.wait(Duration::from_secs(10));
    }
}

fn stats_address() -> SocketAddr {
    format!("{LB_ADDRESS}:8080").parse().expect("an address")
}

/// The statistics, asked for from the client's machine.
pub(crate) fn csv(lab: &Lab) -> Csv {
    let (status, text) = lab
        .client
        .enter(|| http_get(stats_address(), "/;csv"))
        .expect("the statistics answer");
    assert_eq!(status, 200);
    Csv::parse(&text)
}

/// The states of a backend's servers, as text without the counts of a transition.
pub(crate) fn states(lab: &Lab, backend: &str) -> [String; 3] {
    let csv = csv(lab);
    SERVERS.map(|server| csv.row(backend, server).status().to_owned())
}

/// Waits until the servers of `backend` have these states.
#[track_caller]
pub(crate) fn wait_states(lab: &Lab, backend: &str, expected: [&str; 3]) {
    eventually_eq(
        Duration::from_secs(30),
        &expected.map(str::to_owned),
        || states(lab, backend),
    );
}

/// A frontend's address.
pub(crate) fn frontend(port: u16) -> SocketAddr {
    format!("{LB_ADDRESS}:{port}").parse().expect("an address")
}
