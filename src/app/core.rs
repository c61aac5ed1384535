//! What all threads share, and how the threads are started. Control thread.

use super::{Error, Stops, system};
use crate::admin::{self, AdminListenerSet, runtime::Runtime};
use crate::config::model::Config;
use crate::control::admin_listeners::{ListenerChange, RuntimePlaces};
use crate::control::handover::{ArrivingSessions, OldProcesses, PassedConnection};
use crate::control::reload::ReloadHandle;
use crate::control::{Control, Parts as ControlParts};
use crate::live::pulse::Pulse;
use crate::live::{GlobalLive, LogQueue, WorkerToken};
use crate::log::events::RecentEvents;
use crate::state::snapshot::Origin;
use crate::state::{ControlHandle, Snapshot, ToControl};
use crate::sys::limits::DescriptorReserve;
use crate::worker;
use crate::worker::order::{Order, Workers};
use arc_swap::ArcSwap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::mpsc::Receiver;

/// What all threads share.
pub(super) struct Core {
    pub(super) threads: usize,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) global: Arc<GlobalLive>,
    pub(super) log: LogQueue,
    pub(super) control: ControlHandle,
    pub(super) workers: Workers,
    pub(super) old_processes: OldProcesses,
}

impl Core {
    pub(super) fn new(
        config: &Config,
        maxconn: u32,
        global: Arc<GlobalLive>,
        log: LogQueue,
        (control, workers): (ControlHandle, Workers),
    ) -> Self {
        let threads = config.global.threads;
        let origin = Origin {
            global: Arc::clone(&global),
            maxconn,
            shards: threads + 1,
            now: global.start,
        };
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::initial(config, &origin)));
        let arriving = ArrivingSessions::new(Arc::clone(&snapshot), workers.clone());
        Self {
            threads,
            snapshot,
            old_processes: OldProcesses::new(Arc::clone(&global), control.clone(), arriving),
            global,
            log,
            control,
            workers,
        }
    }

    pub(super) fn control(
        &self,
        inbox: Receiver<ToControl>,
        reserve: Arc<DescriptorReserve>,
    ) -> Control {
        Control::new(ControlParts {
            snapshot: Arc::clone(&self.snapshot),
            handle: self.control.clone(),
            inbox,
            log: self.log.clone(),
            workers: self.workers.clone(),
            // The last shard; the workers have the others.
            token: Rc::new(WorkerToken::new(self.threads)),
            reserve,
        })
    }

    pub(super) fn runtime(
        &self,
        sockets: RuntimePlaces,
        (connections, reload): (Receiver<PassedConnection>, &ReloadHandle),
        recent: RecentEvents,
    ) -> Runtime {
        Runtime {
            sockets,
            connections,
            old_processes: self.old_processes.clone(),
            control: self.control.clone(),
            reload: reload.clone(),
            workers: self.workers.clone(),
            recent,
        }
    }

    /// Starts the admin thread. Its listening sockets follow later.
    pub(super) fn spawn_admin(
        &self,
        (changes, runtime): (Receiver<ListenerChange>, Runtime),
        reserve: Arc<DescriptorReserve>,
    ) -> Result<admin::Handle, Error> {
        let listeners = AdminListenerSet {
            open: Vec::new(),
            changes,
            runtime: Some(runtime),
        };
        admin::spawn(
            listeners,
            (Arc::clone(&self.snapshot), self.log.clone()),
            reserve,
        )
        .map_err(system("cannot start the stats listener"))
    }

    pub(super) fn spawn_workers(
        &self,
        (orders, pulses): (Vec<Receiver<Order>>, Vec<Option<Pulse>>),
        stops: &Stops,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let parts = orders.into_iter().zip(pulses);
        let parts = parts
            .zip(worker::hand_off::hand_offs(self.threads))
            .enumerate();
        parts
            .map(|(index, ((orders, pulse), hand_off))| {
                worker::spawn(worker::Parts {
                    index,
                    snapshot: Arc::clone(&self.snapshot),
                    global: Arc::clone(&self.global),
                    log: self.log.clone(),
                    control: self.control.clone(),
                    orders,
                    hand_off,
                    pulse,
                    stops: stops.workers.clone(),
                })
            })
            .collect()
    }
}
