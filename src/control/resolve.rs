//! Host names of servers: looked up at the start and at the reload that brings them, and again
//! until they resolve.
//!
//! One task per name on the control thread; the lookups themselves run on the runtime's blocking
//! threads, at most [`LOOKUPS_MAX`] at once. The first address is kept: a name that has resolved is
//! not looked up again.

use crate::state::{ControlHandle, ToControl};
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout_at};

/// Time between two lookups of a name that does not resolve.
pub const RETRY_EVERY: Duration = Duration::from_secs(10);

/// How long the start waits for the first lookups.
pub const START_MAX: Duration = Duration::from_secs(1);

/// Lookups at once. Each takes a thread for as long as the system's resolver takes.
pub const LOOKUPS_MAX: usize = 16;

/// The first lookup of every name.
#[derive(Debug)]
pub(super) struct FirstRound {
    pending: Cell<usize>,
    over: Notify,
    lookups: Semaphore,
}

impl FirstRound {
    /// A round over `names` names.
    pub(super) fn new(names: usize) -> Rc<Self> {
        Rc::new(Self {
            pending: Cell::new(names),
            over: Notify::new(),
            lookups: Semaphore::new(LOOKUPS_MAX),
        })
    }

    /// Whether every name has been looked up once.
    pub(super) fn is_over(&self) -> bool {
        self.pending.get() == 0
    }

    /// Waits until every name has been looked up once and its address has been reported.
    pub(super) async fn over(&self) {
        while !self.is_over() {
            self.over.notified().await;
        }
    }

    fn one_done(&self) {
        self.pending.set(self.pending.get().saturating_sub(1));
        self.over.notify_one();
    }
}

/// Looks `name` up until it resolves, and reports the address.
pub(super) async fn resolve(name: Arc<str>, round: Rc<FirstRound>, handle: ControlHandle) {
    let mut first = true;
    loop {
        let looked_up = look_up(&name, &round.lookups).await;
        if let Ok(address) = looked_up {
            let message = ToControl::Resolved {
                name: Arc::clone(&name),
                address,
            };
            let _ = handle.report(message).await;
        }
        if first {
            round.one_done();
        }
        match looked_up {
            Ok(_) => return,
            Err(error) if first => tracing::warn!(
                %error,
                "could not resolve address '{name}', disabling server; trying again every {} s",
                RETRY_EVERY.as_secs()
            ),
            Err(error) => tracing::debug!(%error, "could not resolve address '{name}'"),
        }
        first = false;
        sleep(RETRY_EVERY).await;
    }
}

/// Looks names up once, all at a time, for [`START_MAX`] at most: the addresses of those that have
/// resolved by then.
pub(super) async fn look_up_all(names: Vec<Arc<str>>) -> HashMap<Arc<str>, IpAddr> {
    let deadline = tokio::time::Instant::now() + START_MAX;
    let lookups = Rc::new(Semaphore::new(LOOKUPS_MAX));
    let mut running = JoinSet::new();
    for name in names {
        let lookups = Rc::clone(&lookups);
        running.spawn_local(async move {
            let address = look_up(&name, &lookups).await;
            address.map(|address| (name, address))
        });
    }
    let mut known = HashMap::new();
    while let Ok(Some(ended)) = timeout_at(deadline, running.join_next()).await {
        if let Ok(Ok((name, address))) = ended {
            known.insert(name, address);
        }
    }
    known
}

async fn look_up(name: &str, lookups: &Semaphore) -> io::Result<IpAddr> {
    let _permit = lookups.acquire().await.map_err(io::Error::other)?;
    let address = lookup_host((name, 0)).await?.next();
    address
        .map(|address| address.ip())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}
