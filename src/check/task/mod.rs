//! The check task of one server, and the lane that control steers it by. Control thread only.
//!
//! Invariants: at most one check of a server is in flight; a check that could not be made for want
//! of something of ours changes nothing but a warning; while the lane is paused none starts; a
//! verdict that can change something reaches control, in the order of the checks. One that cannot,
//! a pass of a server that is up without a doubt, is only counted: it is nearly every one.

use super::probe::{Idle, Manner, Outcome, Target, probe};
use super::schedule::{Grid, Pace};
use crate::config::model::Check;
use crate::live::{CheckReport, CheckStatus, ServerLive};
use crate::state::{BackendId, ControlHandle, ToControl};
use crate::sys::limits::Spare;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

/// Time between two warnings about checks that could not be made.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// What control tells a check task.
#[derive(Debug)]
pub struct Lane {
    pace: Cell<Pace>,
    target: RefCell<Option<Target>>,
    wanted: Cell<bool>,
    /// Verdicts on their way to control: [`Lane::pace`] does not know of them yet.
    unheard: Cell<u32>,
    changed: Notify,
}

impl Lane {
    /// A lane at `pace` that leads to `target`; `None` while that is not known.
    pub fn new(pace: Pace, target: Option<Target>) -> Rc<Self> {
        Rc::new(Self {
            pace: Cell::new(pace),
            target: RefCell::new(target),
            wanted: Cell::new(false),
            unheard: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// Check at once; the grid goes on as if nothing had happened. While a check is in flight, its
    /// failure is answer enough, and its passing is followed by another check.
    pub fn check_now(&self) {
        self.wanted.set(true);
        self.changed.notify_one();
    }

    /// The server's state has come to this pace.
    pub fn set_pace(&self, pace: Pace) {
        if self.pace.replace(pace) != pace {
            self.changed.notify_one();
        }
    }

    /// Control has taken a verdict of this server out of its inbox.
    pub fn heard(&self) {
        self.unheard.set(self.unheard.get().saturating_sub(1));
    }

    /// A verdict of this server goes to control.
    pub fn tell(&self) {
        self.unheard.set(self.unheard.get().saturating_add(1));
    }

    /// A check of `live` has passed after `took`: whether that is no news to control. Then it is
    /// noted here, and control is not to be told.
    pub fn passed_again(&self, live: &ServerLive, took: Duration) -> bool {
        let settled = self.pace.get() == Pace::Normal && self.unheard.get() == 0;
        let again = settled && live.check.passed_again(took);
        if again {
            live.trust();
        }
        again
    }

    /// The server has got this address.
    pub fn set_target(&self, target: Target) {
        *self.target.borrow_mut() = Some(target);
        self.changed.notify_one();
    }

    /// Waits until a check is to start, and gives where to.
    async fn due(&self, grid: &mut Grid, check: &Check) -> Target {
        loop {
            let target = self.target.borrow().clone();
            let interval = self.pace.get().interval(check);
            let (Some(target), Some(interval)) = (target, interval) else {
                self.changed.notified().await;
                continue;
            };
            if self.wanted.replace(false) {
                return target;
            }
            let due = grid.due(interval, Instant::now());
            tokio::select! {
                () = sleep_until(due.at.into()) => {
                    grid.start(due);
                    return target;
                }
                () = self.changed.notified() => {}
            }
        }
    }
}

/// What all check tasks share.
#[derive(Debug)]
pub struct Common {
    handle: ControlHandle,
    spare: Arc<Spare>,
    reset: Cell<bool>,
    idle: Idle,
    origin: Instant,
    warned: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Common {
    /// Verdicts go to `handle`; `reset`: connections end with RST.
    pub fn new(handle: ControlHandle, spare: Arc<Spare>, reset: bool) -> Rc<Self> {
        Rc::new(Self {
            handle,
            spare,
            reset: Cell::new(reset),
            idle: Idle::default(),
            origin: Instant::now(),
            warned: Cell::new(None),
            unsaid: Cell::new(0),
        })
    }

    /// Whether connections end with RST from now on.
    pub fn set_reset(&self, reset: bool) {
        self.reset.set(reset);
        // There may be fewer checks now than sockets that were kept for them.
        self.idle.clear();
    }

    /// Says that a check could not be made; at most once in [`WARN_EVERY`] for all servers.
    fn warn(&self, subject: &Subject, error: &io::Error) {
        let now = Instant::now();
        if self
            .warned
            .get()
            .is_some_and(|at| now.duration_since(at) < WARN_EVERY)
        {
            self.unsaid.set(self.unsaid.get() + 1);
            return;
        }
        self.warned.set(Some(now));
        tracing::warn!(
            backend = &*subject.backend_name,
            server = &*subject.live.name,
            %error,
            and_others = self.unsaid.replace(0),
            "a health check could not be made here; the server's state is left as it was"
        );
    }
}

/// One checked server.
#[derive(Debug)]
pub struct Subject {
    /// Its backend.
    pub backend: BackendId,
    /// The backend's name.
    pub backend_name: Arc<str>,
    /// What is counted for it.
    pub live: Arc<ServerLive>,
    /// Its check.
    pub check: Check,
    /// How control steers it.
    pub lane: Rc<Lane>,
}

/// Checks one server from `first` on until `stop`, or until control has ended.
pub async fn run(subject: Subject, common: Rc<Common>, first: Instant, stop: CancellationToken) {
    let mut grid = Grid::new(common.origin, first, subject.live.uid);
    let checks = async {
        loop {
            let target = subject.lane.due(&mut grid, &subject.check).await;
            if !check_once(&subject, &common, &target).await {
                return;
            }
        }
    };
    tokio::select! {
        // A check that has been stopped reports nothing: what it was asked may no longer hold.
        biased;
        () = stop.cancelled() => {}
        () = checks => {}
    }
}

/// `false` when nobody listens any more.
async fn check_once(subject: &Subject, common: &Common, target: &Target) -> bool {
    let (live, lane) = (&subject.live, &subject.lane);
    live.check.begin();
    let started = Instant::now();
    let manner = Manner {
        spare: &common.spare,
        reset: common.reset.get().then_some(&common.idle),
        limit: subject.check.timeout,
    };
    match probe(target, manner).await {
        Outcome::Local(error) => {
            live.check.give_up();
            common.warn(subject, &error);
            true
        }
        Outcome::Verdict { status, info } => {
            let (passed, took) = (status == CheckStatus::L4Ok, started.elapsed());
            if passed && lane.passed_again(live, took) {
                return true;
            }
            if !passed {
                lane.wanted.set(false);
            }
            lane.tell();
            let message = ToControl::Checked {
                backend: subject.backend,
                server: live.uid,
                report: CheckReport {
                    status,
                    duration: Some(took),
                    info,
                    in_progress: false,
                },
            };
            common.handle.report(message).await
        }
    }
}

#[cfg(test)]
mod tests;
