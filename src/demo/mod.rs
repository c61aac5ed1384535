//! The environment of `rlb demo`: three nodes with four small services each, and clients. Everything is on
//! loopback and in this process.
//!
//! Runs on a thread of its own with one tokio runtime. The ordinary program does not know it: it gets a
//! configuration and connections. Invariant: every task is owned by a set, so that all tasks end with the
//! thread. Started by the command line.

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
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

/// Options of the demo.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time from one absence of the last node to the next.
    pub blink: Duration,
    /// How long the demo lasts; `None`: until it is stopped.
    pub length: Option<Duration>,
}

impl Options {
    /// How long the node is away each time.
    pub fn away(&self) -> Duration {
        self.blink * 2 / 5
    }

    /// How long it is there in between.
    fn there(&self) -> Duration {
        self.blink * 3 / 5
    }

    /// Time between two health checks: short enough that three of them fail while the node is away.
    fn check_interval(&self) -> Duration {
        (self.blink / 30).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }
}

/// What the clients have counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Short connections that were answered.
    pub answered: AtomicU64,
    /// Short connections that failed.
    pub failed: AtomicU64,
    /// Long connections that ended because their node went away.
    pub cut: AtomicU64,
    /// The demo is about to stop: later failures are caused by that.
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
    /// Starts the nodes. Clients start when the frontends listen.
    ///
    /// # Errors
    /// When there are no free ports, or no thread can be created.
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

    /// All addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The configuration of the load balancer between the clients and the nodes.
    pub fn config(&self) -> String {
        self.addresses.config(self.options.check_interval())
    }

    /// Ends clients and nodes, and returns what the clients have counted.
    pub fn stop(self) -> Arc<Tally> {
        self.stop.cancel();
        // A panic there was printed already, and nothing depends on the thread.
        let _ = self.thread.join();
        self.tally
    }
}

/// Completes when the process gets SIGINT or SIGTERM, which the load balancer handles too.
async fn interrupted() {
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        Ok(()) = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
}

/// After `length` sends SIGINT to the process, as Ctrl-C does. Never completes.
async fn end_in(length: Option<Duration>, tally: &Tally) {
    if let Some(length) = length {
        tokio::time::sleep(length).await;
        tally.ending.store(true, Relaxed);
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
    }
    std::future::pending::<()>().await;
}
