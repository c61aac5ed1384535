//! The listening sockets that a reload needs, open before its commit, and what the commit tells the workers.
//!
//! Control thread. Invariant: nothing here can fail once the sockets are open.

use super::super::admin_listeners::{AdminListener, ListenerChange};
use super::super::loss::Reopened;
use super::entry::{Entry, Tuning, announce};
use crate::config::diff::{BindOf, Side};
use crate::config::model::Bind;
use crate::state::{Frontend, Snapshot};
use crate::sys::socket::{TcpOptions, UnusedFile};
use crate::worker::order::Order;
use crate::worker::{Closing, ListenerId};
use socket2::Socket;
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

/// The sockets that a reload needs, open but not yet accepted from.
#[derive(Debug)]
pub(in crate::control) struct Prepared {
    /// The table as it will be.
    pub(super) entries: Vec<Entry>,
    /// Positions in it that workers do not know yet, in ascending order.
    pub(super) fresh: Vec<usize>,
    /// Positions in it whose tuning changes, and what their connections have inherited so far.
    pub(super) tuned: Vec<(usize, TcpOptions)>,
    /// What is to be closed.
    pub(super) closed: Vec<Closed>,
    /// What stayed the same and was opened again.
    pub(super) reopened: Vec<Reopened>,
    /// The files of new unix sockets, until they are in force.
    pub(super) files: Vec<UnusedFile>,
    /// What the admin thread is to change.
    pub(super) admin: ListenerChange,
    pub(super) next: u64,
}

/// A listener that is to be closed.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) id: ListenerId,
    side: Side,
    proxy: Arc<str>,
    how: Closing,
}

impl Closed {
    /// What to tell the workers; `frontends` are those of the snapshot in which its frontend was last.
    fn order(&self, frontends: &HashMap<&str, &Arc<Frontend>>) -> Order {
        Order::Close {
            id: self.id,
            frontend: frontends.get(&*self.proxy).map(|it| Arc::clone(it)),
            how: self.how,
        }
    }
}

impl Prepared {
    /// Closes those of `entries`, the table as it is, that do not stay.
    pub(super) fn close(&mut self, entries: &[Entry], stays: &[bool], moves: &[bool]) {
        for ((entry, stays), moved) in entries.iter().zip(stays).zip(moves) {
            if *stays {
                continue;
            }
            let how = if *moved {
                Closing::Moved
            } else if self.entries.iter().any(|next| next.overlaps(entry)) {
                Closing::Overlapped
            } else {
                Closing::Drained
            };
            self.closed.push(Closed {
                id: entry.id,
                side: entry.of.side,
                proxy: Arc::clone(&entry.of.proxy),
                how,
            });
            if entry.of.side == Side::Stats {
                self.admin.close.push(entry.id);
            }
        }
    }

    /// An entry of new sockets; of one of the statistics the admin thread gets a copy.
    pub(super) fn opened(
        &mut self,
        of: &BindOf,
        sockets: Vec<Socket>,
    ) -> io::Result<(ListenerId, Vec<Arc<Socket>>)> {
        let copies = match of.side {
            Side::Traffic => Vec::new(),
            Side::Stats => {
                let copies = sockets.iter().map(Socket::try_clone);
                copies.collect::<io::Result<Vec<_>>>()?
            }
        };
        let id = self.fresh_id();
        let copies = copies.into_iter().map(|copy| AdminListener {
            id,
            bind: of.bind.clone(),
            listener: TcpListener::from(copy),
        });
        self.admin.open.extend(copies);
        Ok((id, sockets.into_iter().map(Arc::new).collect()))
    }

    /// Notes that the next entry has the sockets of `before`, whose tuning may change.
    pub(super) fn tuned_from(&mut self, before: &Entry, tuning: &Tuning, bind: &Bind) {
        if before.tuning != *tuning || before.has_other_header(bind) {
            let had = before.tuning.tcp.clone();
            self.tuned.push((self.entries.len(), had));
        }
    }

    pub(super) fn fresh_id(&mut self) -> ListenerId {
        let id = ListenerId(self.next);
        self.next += 1;
        self.fresh.push(self.entries.len());
        id
    }

    /// What to tell each of `workers` workers once `snapshot` is published; `base` is the one before.
    pub(in crate::control) fn orders(
        &self,
        base: &Snapshot,
        snapshot: &Snapshot,
        workers: usize,
    ) -> Vec<Vec<Order>> {
        let fresh = self.fresh.iter().map(|index| &self.entries[*index]);
        let closed = self.closed.iter();
        let closed = closed.filter(|closed| closed.side == Side::Traffic);
        let (before, after) = (base.frontends_by_name(), snapshot.frontends_by_name());
        (0..workers)
            .map(|worker| {
                let open = fresh
                    .clone()
                    .flat_map(|entry| entry.of_worker(worker, workers, &after))
                    .map(Order::Open);
                let close = closed.clone().map(|closed| closed.order(&before));
                open.chain(close).collect()
            })
            .collect()
    }

    /// The files of new sockets stay from now on.
    pub(in crate::control) fn keep_files(&mut self) {
        std::mem::take(&mut self.files)
            .into_iter()
            .for_each(UnusedFile::keep);
    }

    /// Changes what can be changed of sockets that stay. What the system refuses is logged, and
    /// leaves that socket as it was.
    pub(in crate::control) fn tune(&self) {
        for (index, had) in &self.tuned {
            self.entries[*index].tune(had);
        }
    }

    /// What stayed the same and was opened again, or could not be.
    pub(in crate::control) fn take_reopened(&mut self) -> Vec<Reopened> {
        std::mem::take(&mut self.reopened)
    }

    /// Logs what is new.
    pub(in crate::control) fn announce(&self) {
        for entry in self.fresh.iter().map(|index| &self.entries[*index]) {
            announce(&entry.of.proxy, entry.shards.first().map(AsRef::as_ref));
        }
    }
}
