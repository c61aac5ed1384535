//! The balancer under test: rlb with the kurl-ha configuration, or Debian's HAProxy with the original file, for
//! comparison.

use super::load::Clients;
use crate::harness::client::http_get;
use crate::harness::csv::Csv;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::netns::{LB_ADDRESS, Lab};
use crate::harness::process::Process;
use crate::harness::rlb::{Rlb, Start};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The original configuration for HAProxy, as printed in the guide.
pub(crate) const SEED_HAPROXY: &str = include_str!("seed-haproxy.cfg");

/// The same for rlb, as shipped.
const KURL_HA: &str = include_str!("../../../config/kurl-ha.toml");

/// The same, with the statistics on the address that the client asks, and the runtime socket outside /run,
/// which tests must not use.
fn kurl_ha() -> String {
    let mut text = KURL_HA.to_owned();
    for (file, own) in [
        (
            "/run/rlb/admin.sock",
            format!("@rlb-lab-{}", std::process::id()),
        ),
        ("127.0.0.1:8080", "*:8080".to_owned()),
    ] {
        assert!(text.contains(file), "the file has changed");
        text = text.replace(file, &own);
    }
    text
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

/// The kind of balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The program of this repository.
    Rlb,
    /// The same with other lines in its file, for other clients.
    Variant(&'static Variant),
    /// Debian's package.
    Haproxy,
}

/// What is different in the configuration, and its clients.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Lines of `[defaults]`.
    pub(crate) defaults: &'static str,
    /// Lines of the application's backend.
    pub(crate) backend: &'static str,
    /// The clients of the application.
    pub(crate) clients: Clients,
}

impl Variant {
    fn file(&self) -> String {
        let mut text = kurl_ha();
        for (table, lines) in [
            ("[defaults]\n", self.defaults),
            ("name = \"app-direct-backend\"\n", self.backend),
        ] {
            assert_eq!(text.matches(table).count(), 1, "the file has changed");
            text = text.replace(table, &format!("{table}{lines}\n"));
        }
        text
    }
}

impl Kind {
    /// rlb's configuration.
    pub(super) fn file(self) -> String {
        match self {
            Self::Variant(variant) => variant.file(),
            Self::Rlb | Self::Haproxy => kurl_ha(),
        }
    }

    /// The clients of the application: as many, unless the variant has its own.
    pub(super) fn clients(self, per_second: u32, timeout: Duration) -> Clients {
        match self {
            Self::Variant(variant) => variant.clients,
            Self::Rlb | Self::Haproxy => Clients::new(per_second, timeout),
        }
    }

    /// Starts it on the balancer's machine and waits until it serves.
    pub(crate) fn start(self, lab: &Lab) -> Balancer {
        match self {
            Self::Rlb | Self::Variant(_) => {
                let rlb = Start::new(&self.file()).netns(&lab.lb).ready();
                Balancer::Rlb(Box::new(rlb))
            }
            Self::Haproxy => {
                let (process, _) = haproxy(lab, "-db");
                Balancer::Haproxy(process)
            }
        }
    }
}

/// HAProxy in the foreground; `mode` is `-db` for one process, `-W` for a master and its workers.
pub(super) fn haproxy(lab: &Lab, mode: &str) -> (Process, TempDir) {
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

fn stats_address() -> SocketAddr {
    format!("{LB_ADDRESS}:8080").parse().expect("an address")
}

/// The statistics, requested from the client's machine.
pub(crate) fn csv(lab: &Lab) -> Csv {
    let (status, text) = lab
        .client
        .enter(|| http_get(stats_address(), "/;csv"))
        .expect("the statistics answer");
    assert_eq!(status, 200);
    Csv::parse(&text)
}

/// The states of a backend's servers, without the counters of a transition.
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
