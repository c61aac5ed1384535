//! What `rlb demo` puts around the load balancer: three nodes with four small services each, and
//! clients. Everything is on loopback and in this process.
//!
//! Runs on a thread of its own with one tokio runtime, beside the ordinary program, which knows
//! nothing of it: it gets a configuration and sees connections. Invariant: every task is owned by a
//! set, so that the end of the thread ends all of them. Started by the command line.

mod addresses;
mod http;
mod node;
mod postgres;
mod traffic;

pub use addresses::{Addresses, Kind, NODES, Service};
pub use traffic::{LONG_MAX, RATE};

use node::Nodes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

/// How the demo is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// From one going away of the last node to the next.
    pub blink: Duration,
    /// How long the demo lasts; `None`: until it is stopped.
    pub length: Option<Duration>,
}

impl Options {
    /// How long the node stays away each time.
    pub fn away(&self) -> Duration {
        self.blink * 2 / 5
    }

    /// How long it is there between.
    fn there(&self) -> Duration {
        self.blink * 3 / 5
    }

    /// Time between two health checks: short enough that three of them fail while the node is away.
    fn check_interval(&self) -> Duration {
        (self.blink / 30).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }
}

/// What the clients have seen.
#[derive(Debug, Default)]
pub struct Tally {
    /// Short connections that were answered.
    pub answered: AtomicU64,
    /// Short connections that were not.
    pub failed: AtomicU64,
    /// Long connections that ended because their node went away.
    pub cut: AtomicU64,
    /// The demo is about to stop: what fails from here on is its own end.
    ending: AtomicBool,
}

impl Tally {
    fn note(&self, answered: bool) {
        if !answered && self.ending.load(Relaxed) {
            return;
        }
        let counter = if answered {
            &self.answered
        } else {
            &self.failed
        };
        counter.fetch_add(1, Relaxed);
    }
}

/// A running demo.
#[derive(Debug)]
pub struct Demo {
    addresses: Addresses,
    options: Options,
    tally: Arc<Tally>,
    stop: CancellationToken,
    thread: JoinHandle<()>,
    /// Held for as long as the demo runs.
    _claim: addresses::Claim,
}

impl Demo {
    /// Starts the nodes; clients come as soon as somebody listens on the frontends.
    ///
    /// # Errors
    /// When no free ports can be found, or no thread made.
    pub fn start(options: Options) -> io::Result<Self> {
        let (addresses, listeners, claim) = Addresses::take()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let nodes = Nodes::new(&addresses, listeners);
        let tally = Arc::new(Tally::default());
        let stop = CancellationToken::new();
        let (seen, end, services) = (Arc::clone(&tally), stop.clone(), addresses.services);
        let run = move || {
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = nodes.blink(options) => {}
                    () = traffic::run(&services, &seen) => {}
                    () = end_in(options.length, &seen) => {}
                    () = interrupted() => seen.ending.store(true, Relaxed),
                    () = end.cancelled() => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("demo".to_owned())
            .spawn(run)?;
        Ok(Self {
            addresses,
            options,
            tally,
            stop,
            thread,
            _claim: claim,
        })
    }

    /// Where everything is.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The configuration of the load balancer between the clients and the nodes.
    pub fn config(&self) -> String {
        self.addresses.config(self.options.check_interval())
    }

    /// Ends clients and nodes, and tells what the clients have seen.
    pub fn stop(self) -> Arc<Tally> {
        self.stop.cancel();
        // A panic there has been printed already, and nothing depends on the thread.
        let _ = self.thread.join();
        self.tally
    }
}

/// Completes when the process is told to stop from outside; the load balancer hears it too.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Asks the process to stop after `length`, as Ctrl-C would, and goes on until it does.
async fn end_in(length: Option<Duration>, tally: &Tally) {
    if let Some(length) = length {
        tokio::time::sleep(length).await;
        tally.ending.store(true, Relaxed);
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
    }
    std::future::pending::<()>().await;
}
