//! Host names of servers: looked up at the start, until they resolve; and again at every reload and when a
//! server of that name leaves maintenance.
//!
//! One task per name on the control thread; the lookups themselves run on the runtime's blocking
//! threads, at most [`LOOKUPS_MAX`] at once. An address is kept as long as the name still has it.

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
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time between two lookups of a name that does not resolve.
pub const RETRY_EVERY: Duration = Duration::from_secs(10);

/// How long the start waits for the first lookups.
pub const START_MAX: Duration = Duration::from_secs(1);

/// Lookups at once. Each takes a thread for as long as the system's resolver takes.
pub const LOOKUPS_MAX: usize = 16;

/// Addresses of one name that are looked at.
pub const ADDRESSES_MAX: usize = 64;

/// The first lookup of every name.
#[derive(Debug)]
pub(super) struct FirstRound {
    pending: Cell<usize>,
    over: Notify,
}

impl FirstRound {
    /// A round over `names` names.
    pub(super) fn new(names: usize) -> Rc<Self> {
        Rc::new(Self {
            pending: Cell::new(names),
            over: Notify::new(),
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

/// How long a name is looked up.
#[derive(Debug, Clone)]
pub(super) enum Until {
    /// Until it resolves: servers wait for it.
    Resolved,
    /// The same; the round counts it when it has been looked up once.
    FirstRound(Rc<FirstRound>),
    /// Once: its servers have an address, which they keep if it does not resolve.
    Once,
}

/// The lookups that run.
#[derive(Debug)]
pub(super) struct Resolver {
    handle: ControlHandle,
    permits: Rc<Semaphore>,
    running: HashMap<Arc<str>, Lookup>,
}

#[derive(Debug)]
struct Lookup {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Resolver {
    /// Reports to `handle`.
    pub(super) fn new(handle: ControlHandle) -> Self {
        Self {
            handle,
            permits: Rc::new(Semaphore::new(LOOKUPS_MAX)),
            running: HashMap::new(),
        }
    }

    /// Looks a name up, in a task among `tasks` that ends with `all`; unless that is being done already.
    pub(super) fn look_up(
        &mut self,
        name: &Arc<str>,
        until: Until,
        (tasks, all): (&TaskTracker, &CancellationToken),
    ) {
        let running = self.running.get(name);
        if running.is_some_and(|lookup| !lookup.task.is_finished()) {
            return;
        }
        let stop = all.child_token();
        let (handle, permits) = (self.handle.clone(), Rc::clone(&self.permits));
        let (looked_up, stopped) = (Arc::clone(name), stop.clone());
        let task = tasks.spawn_local(async move {
            let lookup = resolve(looked_up, until, handle, permits);
            let _ = stopped.run_until_cancelled_owned(lookup).await;
        });
        let lookup = Lookup { stop, task };
        self.running.insert(Arc::clone(name), lookup);
    }

    /// Ends the lookups of names that are not `wanted`, and forgets those that have ended.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.running.retain(|name, lookup| {
            let stays = wanted(name);
            if !stays {
                lookup.stop.cancel();
            }
            stays && !lookup.task.is_finished()
        });
        self.running.shrink_to_fit();
    }
}

/// Looks `name` up and reports its addresses. The report is the last thing that it does.
async fn resolve(name: Arc<str>, until: Until, handle: ControlHandle, permits: Rc<Semaphore>) {
    let mut first = true;
    loop {
        let looked_up = look_up(&name, &permits).await;
        let error = match looked_up {
            Ok(addresses) => {
                let name = Arc::clone(&name);
                let _ = handle.report(ToControl::Resolved { name, addresses }).await;
                None
            }
            Err(error) => Some(error),
        };
        if let (Until::FirstRound(round), true) = (&until, first) {
            round.one_done();
        }
        match (error, &until) {
            (None, _) => return,
            (Some(error), Until::Once) => {
                tracing::warn!(%error, "could not resolve address '{name}': its servers keep theirs");
                return;
            }
            (Some(error), _) if first => tracing::warn!(
                %error,
                "could not resolve address '{name}', disabling server; trying again every {} s",
                RETRY_EVERY.as_secs()
            ),
            (Some(error), _) => tracing::debug!(%error, "could not resolve address '{name}'"),
        }
        first = false;
        sleep(RETRY_EVERY).await;
    }
}

/// Looks names up once, all at a time, for [`START_MAX`] at most: the addresses of those that have
/// resolved by then.
pub(super) async fn look_up_all(names: Vec<Arc<str>>) -> HashMap<Arc<str>, IpAddr> {
    let deadline = tokio::time::Instant::now() + START_MAX;
    let permits = Rc::new(Semaphore::new(LOOKUPS_MAX));
    let mut running = JoinSet::new();
    for name in names {
        let permits = Rc::clone(&permits);
        running.spawn_local(async move {
            let addresses = look_up(&name, &permits).await;
            addresses.map(|addresses| (name, addresses))
        });
    }
    let mut known = HashMap::new();
    while let Ok(Some(ended)) = timeout_at(deadline, running.join_next()).await {
        if let Ok(Ok((name, addresses))) = ended {
            known.extend(addresses.first().map(|address| (name, *address)));
        }
    }
    known
}

/// The addresses of a name, at least one.
async fn look_up(name: &str, permits: &Semaphore) -> io::Result<Vec<IpAddr>> {
    let _permit = permits.acquire().await.map_err(io::Error::other)?;
    let found = lookup_host((name, 0)).await?;
    let addresses: Vec<IpAddr> = found.map(|it| it.ip()).take(ADDRESSES_MAX).collect();
    if addresses.is_empty() {
        let text = "the name has no address";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(addresses)
}
