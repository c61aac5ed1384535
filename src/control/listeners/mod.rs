//! The table of listening sockets: opened before anything is announced, kept across reloads.
//!
//! The sockets of the statistics are in it too: they go to the admin thread instead of the workers
//! ([`super::admin_listeners`]).
//!
//! Control thread. Invariants: a bind that a reload leaves in place keeps its very sockets, all
//! shards; what a reload needs is opened before its commit, and nothing of the table changes until
//! then. A socket is shared with the worker that accepts from it and closed by whichever of the two
//! lets go of it last, so a removed one lives until its worker has accepted what was queued.

mod entry;
mod prepared;

pub(super) use prepared::Prepared;

use super::admin_listeners::{AdminListener, ListenerChange};
use super::inherited::Inherited;
use super::loss::{Loss, LostBind, Reopened};
use crate::config::diff::{BindAction, BindOf, Side, binds, match_binds};
use crate::config::model::{Bind, BindAddress, Config};
use crate::state::{FrontendState, Snapshot};
use crate::sys::service_manager::ServiceManager;
use crate::sys::socket::{self, Adjust, Options, UnusedFile};
use crate::worker::{Listener, ListenerId};
use entry::{Entry, Tuning, Tunings, options, shown};
use socket2::Socket;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The listening sockets of all frontends and of the statistics.
#[derive(Debug)]
pub struct Listeners {
    entries: Vec<Entry>,
    workers: usize,
    /// Number of the next listener.
    next: u64,
    /// Who keeps the sockets over a crash.
    manager: ServiceManager,
    /// Sets the options when this process is in charge; `None`: no other one accepts from them until then.
    adjust: Option<Adjust>,
}

/// Which of the binds that have lost what they listen on are opened again.
#[derive(Debug)]
pub(super) enum Reopen {
    /// Each of them.
    All,
    /// These.
    Only(HashSet<ListenerId>),
}

impl Reopen {
    fn includes(&self, id: ListenerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(these) => these.contains(&id),
        }
    }
}

impl Listeners {
    /// The sockets of `config`, one a worker or more for each address; those that were passed to us
    /// first. And the listeners of the admin thread.
    ///
    /// # Errors
    /// A sentence for each address that cannot be listened on.
    pub fn open(
        config: &Config,
        maxconn: u32,
        inherited: &mut Inherited,
    ) -> Result<(Self, Vec<AdminListener>), Vec<String>> {
        let mut table = Self {
            entries: Vec::new(),
            workers: config.global.threads,
            next: 0,
            manager: inherited.manager(),
            adjust: inherited.adjust_later(),
        };
        let open =
            |of: &BindOf, options: &Options, shards| inherited.listen(&of.bind, options, shards);
        let prepared = table.prepare_by(config, (maxconn, &Reopen::All), open)?;
        prepared.announce();
        // They are stored once they serve.
        table.entries = prepared.entries;
        table.next = prepared.next;
        Ok((table, prepared.admin.open))
    }

    /// Sets the options of sockets that another process has accepted from so far: this process is in charge now.
    /// What the system refuses is logged, and leaves that socket as it was. Those of frontends that are disabled in
    /// `snapshot` do not listen. What sets them; `None`: there are none.
    pub(super) fn adjust(&mut self, snapshot: &Snapshot) -> Option<Adjust> {
        let adjust = self.adjust.take()?;
        let frontends = snapshot.frontends_by_name();
        for entry in &self.entries {
            let traffic = entry.of.side == Side::Traffic;
            let frontend = frontends.get(&*entry.of.proxy).filter(|_| traffic);
            if frontend.is_some_and(|it| !it.listens()) {
                entry.state.set_suspended(true);
                // It was announced before it was known that the process before did not listen either.
                tracing::info!(
                    proxy = &*entry.of.proxy,
                    "not listening: the frontend is paused"
                );
            }
            entry.set_options(adjust);
        }
        Some(adjust)
    }

    /// Who keeps them over a crash.
    pub(super) fn manager(&self) -> &ServiceManager {
        &self.manager
    }

    /// What each worker accepts from, by the ids of `snapshot`.
    pub fn of_workers(&self, snapshot: &Snapshot) -> Vec<Vec<Listener>> {
        let frontends = snapshot.frontends_by_name();
        (0..self.workers)
            .map(|worker| {
                let mine = self.entries.iter();
                mine.flat_map(|entry| entry.of_worker(worker, self.workers, &frontends))
                    .collect()
            })
            .collect()
    }

    /// The sockets that the next process would listen on too, by their names in the service
    /// manager's store.
    pub(super) fn lasting(&self) -> impl Iterator<Item = (String, Arc<Socket>)> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| Some((entry.stored_as()?, &entry.shards)))
            .flat_map(|(name, shards)| shards.iter().map(move |it| (name.clone(), Arc::clone(it))))
    }

    /// The listeners whose sockets the next process does not have; `unused` are positions in [`Self::lasting`].
    pub(super) fn left(&self, unused: &[usize]) -> HashSet<ListenerId> {
        let unused: HashSet<usize> = unused.iter().copied().collect();
        let mut position = 0;
        let mut left = HashSet::new();
        for entry in &self.entries {
            let lasts = entry.stored_as().is_some();
            let end = position + if lasts { entry.shards.len() } else { 0 };
            if (position..end).all(|position| unused.contains(&position)) {
                left.insert(entry.id);
            }
            position = end;
        }
        left
    }

    /// What tells the admin thread to close all of its listeners.
    pub(super) fn close_admin_listeners(&self) -> ListenerChange {
        let open = self.entries.iter();
        let open = open.filter(|entry| entry.of.side == Side::Stats);
        ListenerChange {
            open: Vec::new(),
            close: open.map(|entry| entry.id).collect(),
        }
    }

    /// Opens what `config` needs beside the sockets there are, and those that are lost again as `reopen` says. Those of
    /// frontends that are disabled in `snapshot` do not listen. Changes nothing: what was opened is gone with the result,
    /// unless that comes into force.
    pub(super) fn prepare(
        &self,
        config: &Config,
        (maxconn, reopen): (u32, &Reopen),
        snapshot: &Snapshot,
    ) -> Result<Prepared, Vec<String>> {
        let frontends = snapshot.frontends_by_name();
        let is_open = |of: &BindOf| {
            let frontend = frontends
                .get(&*of.proxy)
                .filter(|_| of.side == Side::Traffic);
            // Not whether the file before disabled it.
            frontend.is_none_or(|it| it.state == FrontendState::Open && !it.route.is_closed())
        };
        let mut files = Vec::new();
        let open = |of: &BindOf, options: &Options, shards| {
            let options = Options {
                listens: is_open(of),
                ..options.clone()
            };
            let sockets = socket::listen(&options, shards)?;
            if let BindAddress::Unix(path) = &of.bind.address {
                files.extend(UnusedFile::of(path));
            }
            Ok(sockets)
        };
        let mut prepared = self.prepare_by(config, (maxconn, reopen), open)?;
        prepared.files = files;
        let fresh = prepared.fresh.iter().map(|index| &prepared.entries[*index]);
        for entry in fresh.filter(|entry| !is_open(&entry.of)) {
            entry.state.set_suspended(true);
        }
        Ok(prepared)
    }

    /// The same, opening sockets by `open`.
    fn prepare_by(
        &self,
        config: &Config,
        (maxconn, reopen): (u32, &Reopen),
        mut open: impl FnMut(&BindOf, &Options, usize) -> io::Result<Vec<Socket>>,
    ) -> Result<Prepared, Vec<String>> {
        let old: Vec<BindOf> = self.entries.iter().map(|entry| entry.of.clone()).collect();
        let new = binds(config);
        let tunings = Tunings::of(config, maxconn);
        let mut prepared = Prepared {
            entries: Vec::with_capacity(new.len()),
            fresh: Vec::new(),
            tuned: Vec::new(),
            closed: Vec::new(),
            reopened: Vec::new(),
            files: Vec::new(),
            admin: ListenerChange::default(),
            next: self.next,
        };
        let mut stays = vec![false; old.len()];
        let mut moves = vec![false; old.len()];
        let mut problems = Vec::new();
        for (action, of) in match_binds(&old, &new).into_iter().zip(new) {
            let tuning = tunings.of_bind(&of);
            if let BindAction::Keeps(index) | BindAction::Moves(index) = action
                && reopen.includes(self.entries[index].id)
                && let Some(loss) = self.entries[index].loss(true)
                && let Some((id, shards)) =
                    self.reopen((&of, &tuning), loss, &mut open, &mut prepared)
            {
                prepared.entries.push(Entry::new(of, id, tuning, shards));
                continue;
            }
            let entry = match action {
                BindAction::Keeps(index) => {
                    stays[index] = true;
                    let before = &self.entries[index];
                    prepared.tuned_from(before, &tuning, &of.bind);
                    Ok((before.id, before.shards.clone()))
                }
                // The old frontend's listener and the new one's each need a descriptor of their own.
                BindAction::Moves(index) => {
                    moves[index] = true;
                    let before = &self.entries[index];
                    prepared.tuned_from(before, &tuning, &of.bind);
                    duplicates(&before.shards).map(|shards| (prepared.fresh_id(), shards))
                }
                BindAction::Opens { beside } => {
                    let options = options(&of.bind, &tuning, beside);
                    open(&of, &options, self.shards(of.side))
                        .and_then(|sockets| prepared.opened(&of, sockets))
                }
            };
            match entry {
                Ok((id, shards)) => {
                    let mut entry = Entry::new(of, id, tuning, shards);
                    if let BindAction::Keeps(index) | BindAction::Moves(index) = action {
                        // What was lost is still lost.
                        entry.file = self.entries[index].file;
                    }
                    if let BindAction::Keeps(index) = action {
                        entry.state.clone_from(&self.entries[index].state);
                    }
                    prepared.entries.push(entry);
                }
                Err(error) => problems.push(problem(&of.proxy, &of.bind, &error)),
            }
        }
        prepared.close(&self.entries, &stays, &moves);
        if problems.is_empty() {
            Ok(prepared)
        } else {
            Err(problems)
        }
    }

    /// Opens a bind that stayed the same again, because its sockets have lost what they listened on. `None`:
    /// it cannot be opened now, and stays as it is.
    fn reopen(
        &self,
        (of, tuning): (&BindOf, &Tuning),
        loss: Loss,
        open: &mut impl FnMut(&BindOf, &Options, usize) -> io::Result<Vec<Socket>>,
        prepared: &mut Prepared,
    ) -> Option<(ListenerId, Vec<Arc<Socket>>)> {
        let opened = open(of, &options(&of.bind, tuning, true), self.shards(of.side))
            .and_then(|sockets| prepared.opened(of, sockets));
        let (opened, error) = match opened {
            Ok(opened) => (Some(opened), None),
            Err(error) => (None, Some(error)),
        };
        prepared.reopened.push(Reopened {
            proxy: Arc::clone(&of.proxy),
            address: shown(&of.bind),
            loss,
            error,
        });
        opened
    }

    /// How many sockets a bind needs.
    fn shards(&self, side: Side) -> usize {
        match side {
            Side::Traffic => self.workers,
            Side::Stats => 1,
        }
    }

    /// The binds whose sockets have lost their interface or their file.
    pub(super) fn lost(&self) -> Vec<LostBind> {
        let lost = self.entries.iter().filter_map(|entry| {
            let loss = entry.loss(false)?;
            Some(LostBind {
                id: entry.id,
                proxy: Arc::clone(&entry.of.proxy),
                address: shown(&entry.of.bind),
                can_open: loss.can_be_opened(&entry.of.bind),
                loss,
            })
        });
        lost.collect()
    }

    /// Makes what was prepared the table, and has it kept over a crash. What comes back is for the
    /// admin thread.
    pub(super) fn take(&mut self, prepared: Prepared) -> ListenerChange {
        self.store_changes(&prepared);
        self.entries = prepared.entries;
        self.next = prepared.next;
        prepared.admin
    }

    /// Takes the closed sockets out of the service manager's store, or clients would go on waiting
    /// in them, and leaves the new ones there.
    fn store_changes(&self, prepared: &Prepared) {
        if !self.manager.exists() {
            return;
        }
        let closed: HashSet<ListenerId> = prepared.closed.iter().map(|it| it.id).collect();
        let gone: BTreeSet<String> = self
            .entries
            .iter()
            .filter(|entry| closed.contains(&entry.id))
            .filter_map(Entry::stored_as)
            .collect();
        for name in &gone {
            self.manager.forget(name);
        }
        for (index, entry) in prepared.entries.iter().enumerate() {
            let Some(name) = entry.stored_as() else {
                continue;
            };
            // Another bind of the same address has gone with its name, but stays.
            if prepared.fresh.binary_search(&index).is_ok() || gone.contains(&name) {
                let copies = entry
                    .shards
                    .iter()
                    .map(|one| one.as_fd().try_clone_to_owned());
                match copies.collect::<io::Result<Vec<_>>>() {
                    Ok(copies) => self.manager.keep(&name, copies),
                    // They are missing at the next crash; nothing is lost now.
                    Err(error) => tracing::warn!(name, %error, "listening sockets not stored"),
                }
            }
        }
    }
}

fn duplicates(shards: &[Arc<Socket>]) -> io::Result<Vec<Arc<Socket>>> {
    let copies = shards.iter().map(|shard| shard.try_clone().map(Arc::new));
    copies.collect()
}

fn problem(proxy: &str, bind: &Bind, error: &io::Error) -> String {
    let address = shown(bind);
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process (or another rlb) listens there",
        // It says by itself what was tried.
        io::ErrorKind::Other if bind.mptcp && bind.namespace.is_none() => {
            ": this kernel has no MPTCP, or net.mptcp.enabled is 0"
        }
        io::ErrorKind::Other if bind.namespace.is_some() => {
            ": `ip netns` lists the namespaces; to enter one, rlb needs CAP_SYS_ADMIN"
        }
        io::ErrorKind::PermissionDenied => {
            ": ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => {
            ": this machine does not have the address (`freebind = true` binds it all the same)"
        }
        _ => "",
    };
    format!("{proxy}: cannot listen on {address}: {error}{hint}")
}
