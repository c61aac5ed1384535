//! A balancer that is reloaded while it runs, and the configurations of the reloads: the kurl-ha one, with
//! objects of every kind added and removed.

use super::balancer::{Kind, SEED_HAPROXY, haproxy};
use crate::harness::eventually::eventually_true;
use crate::harness::netns::Lab;
use crate::harness::process::{Footprint, Process};
use crate::harness::rlb::{Rlb, Start};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::time::Duration;
use tempfile::TempDir;

/// The port of the frontend that is added and removed.
pub(crate) const EXTRA_FRONTEND: u16 = 8081;

/// The port on node03 of the application's server that is added and removed.
pub(crate) const EXTRA_SERVER: u16 = 81;

/// Weights of the application's server on node02, in turn.
const WEIGHTS: u32 = 3;

/// Whether the additional frontend and server exist in this round, and node03's server of the admin console
/// does not.
pub(crate) fn has_extras(round: u32) -> bool {
    round % 2 == 1
}

/// A running balancer that can be reloaded.
pub(crate) enum Reloadable {
    /// The program of this repository, and its file before the first reload.
    Rlb(Box<Rlb>, String),
    /// Debian's package as a master with workers, as Debian's unit runs it, and the directory of its file.
    Haproxy {
        /// The master.
        process: Process,
        /// Contains `haproxy.cfg`.
        dir: TempDir,
    },
}

impl Reloadable {
    /// Starts it on the balancer's machine and waits until it serves.
    pub(crate) fn start(kind: Kind, lab: &Lab) -> Self {
        match kind {
            Kind::Rlb | Kind::Variant(_) => {
                let file = kind.file();
                let rlb = Start::new(&file).netns(&lab.lb).ready();
                Self::Rlb(Box::new(rlb), file)
            }
            Kind::Haproxy => {
                let (process, dir) = haproxy(lab, "-W");
                Self::Haproxy { process, dir }
            }
        }
    }

    /// Reloads with the configuration of `round`, by signal, and waits until it is in force.
    #[track_caller]
    pub(crate) fn reload(&mut self, round: u32) {
        match self {
            Self::Rlb(rlb, file) => rlb.reload(&rlbs_file(file.clone(), round)),
            Self::Haproxy { process, dir } => {
                std::fs::write(dir.path().join("haproxy.cfg"), haproxys_file(round))
                    .expect("written");
                let ready = "Loading success";
                let before = process.stderr.with(ready).len();
                process.signal(Signal::SIGUSR2);
                // It starts a new process, which takes its time on a busy machine.
                eventually_true(Duration::from_secs(30), "HAProxy has reloaded", || {
                    process.stderr.with(ready).len() > before
                });
            }
        }
    }

    /// The resources of all its processes.
    pub(crate) fn footprint(&self) -> Footprint {
        match self {
            Self::Rlb(rlb, _) => rlb.process.footprint(),
            Self::Haproxy { process, dir: _ } => process.footprint(),
        }
    }

    /// Ends all its processes, whatever is still open.
    pub(crate) fn stop(self) {
        let mut process = match self {
            Self::Rlb(rlb, _) => rlb.process,
            Self::Haproxy { process, dir: _ } => process,
        };
        assert_eq!(process.ended(), None, "the balancer has ended");
        // HAProxy's master forwards it to its workers and waits for them.
        process.signal(Signal::SIGTERM);
        process.wait(Duration::from_secs(10));
    }
}

fn rlbs_file(mut text: String, round: u32) -> String {
    let weight = 1 + round % WEIGHTS;
    replace(
        &mut text,
        "app-direct-node02 = \"10.240.0.39\"",
        &format!("app-direct-node02 = {{ host = \"10.240.0.39\", weight = {weight} }}"),
    );
    if has_extras(round) {
        replace(
            &mut text,
            "port = 80\n",
            &format!(
                "port = 80\nservers = [{{ name = \"app-direct-extra\", \
                 address = \"10.240.0.71:{EXTRA_SERVER}\" }}]\n"
            ),
        );
        replace(
            &mut text,
            "nodes = \"app-direct\"\nport = 8800\n",
            "servers = [{ name = \"app-direct-node01\", address = \"10.240.0.37:8800\" },\
             { name = \"app-direct-node02\", address = \"10.240.0.39:8800\" }]\n",
        );
        let _ = write!(
            text,
            "[[frontend]]\nname = \"extra-frontend\"\nbind = \"*:{EXTRA_FRONTEND}\"\n\
             default-backend = \"app-direct-backend\"\n"
        );
    }
    text
}

fn haproxys_file(round: u32) -> String {
    let weight = 1 + round % WEIGHTS;
    let mut text = SEED_HAPROXY.to_owned();
    let server = "10.240.0.39:80 check";
    replace(&mut text, server, &format!("{server} weight {weight}"));
    if has_extras(round) {
        let last = "server app-direct-node03 10.240.0.71:80 check\n";
        let extra = format!("   server app-direct-extra 10.240.0.71:{EXTRA_SERVER} check\n");
        replace(&mut text, last, &format!("{last}{extra}"));
        replace(
            &mut text,
            "server app-direct-node03 10.240.0.71:8800 check\n",
            "\n",
        );
        let _ = write!(
            text,
            "\nfrontend extra-frontend\n   mode tcp\n   bind *:{EXTRA_FRONTEND}\n   \
             default_backend app-direct-backend\n"
        );
    }
    text
}

/// Replaces text that must occur once; otherwise the file has changed and the round tests nothing.
#[track_caller]
fn replace(text: &mut String, old: &str, new: &str) {
    assert_eq!(
        text.matches(old).count(),
        1,
        "the file has changed: {old:?}"
    );
    *text = text.replace(old, new);
}
