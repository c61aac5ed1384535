//! What a listening socket does while its frontend does not listen: it is disabled (`disable frontend`, `shutdown
//! frontend`), or no session would find a server (`no-server = "stop-listening"`). Runs on a worker.
//!
//! The task of the socket accepts what is queued, as far as there is room, and makes the socket stop listening. It stays
//! bound, so that nobody needs a privilege or a free address to enable it again. A unix socket cannot stop listening: its
//! clients wait in the queue, as in HAProxy. Sessions go on.

use super::Acceptor;
use crate::state::ToControl;
use crate::sys::{accept, socket};
use crate::worker::header_rule::HeaderRule;
use crate::worker::relay::Watched;
use arc_swap::ArcSwapOption;
use socket2::{SockRef, Socket};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// What control and the workers tell each other of a listener.
#[derive(Debug)]
pub struct ListenState {
    /// The length of the accept queue that is configured.
    backlog: AtomicU32,
    /// It does not listen, because its frontend does not.
    suspended: AtomicBool,
    /// Whether there is a `header`: this is cheaper to ask.
    has_header: AtomicBool,
    /// What is said of clients, as that they begin with a PROXY header.
    header: ArcSwapOption<HeaderRule>,
}

impl ListenState {
    /// A listener that listens.
    pub fn new(backlog: u32, header: Option<Arc<HeaderRule>>) -> Arc<Self> {
        Arc::new(Self {
            backlog: AtomicU32::new(backlog),
            suspended: AtomicBool::new(false),
            has_header: AtomicBool::new(header.is_some()),
            header: ArcSwapOption::new(header),
        })
    }

    /// From now on this is said of clients; `None`: nothing.
    pub fn set_header(&self, header: Option<Arc<HeaderRule>>) {
        self.has_header.store(header.is_some(), Relaxed);
        self.header.store(header);
    }

    /// What is said of its clients; `None`: nothing.
    ///
    /// # Hot path: a load and a branch where nothing is.
    pub(super) fn header(&self) -> Option<Arc<HeaderRule>> {
        if !self.has_header.load(Relaxed) {
            return None;
        }
        self.header.load_full()
    }

    /// Another length of the accept queue is configured.
    pub fn set_backlog(&self, backlog: u32) {
        self.backlog.store(backlog, Relaxed);
    }

    /// It does not listen from now on, because its frontend does not; or it listens.
    pub fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Relaxed);
    }

    /// Whether it does not listen because its frontend does not.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Relaxed)
    }
}

/// Whether a socket is to listen. The worker's order changes it, the socket's task follows it.
#[derive(Debug, Default)]
pub(in crate::worker) struct Suspension {
    is_on: Cell<bool>,
    /// The task has done what it says.
    is_followed: Cell<bool>,
    changed: Notify,
    /// Ends accepting when the suspension begins.
    round: RefCell<CancellationToken>,
    /// Who is to be told when the task has followed.
    waiting: RefCell<Vec<mpsc::Sender<bool>>>,
}

impl Suspension {
    /// Whether the frontend listens now. `reply` is told once the socket's task has followed.
    pub(in crate::worker) fn follow(&self, listens: bool, reply: Option<mpsc::Sender<bool>>) {
        let on = !listens;
        let is_same = on == self.is_on.replace(on);
        if is_same && self.is_followed.get() {
            return;
        }
        self.waiting.borrow_mut().extend(reply);
        if is_same {
            return;
        }
        self.is_followed.set(false);
        if on {
            self.round.borrow().cancel();
        }
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Whether the frontend does not listen.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.get()
    }

    /// Returns when that has changed, or for no reason.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Another worker that shares the socket may have made it stop listening already: then nothing is queued.
    pub(super) fn explain(&self, error: io::Error, state: &ListenState) -> io::Error {
        let is_closed = error.raw_os_error() == Some(libc::EINVAL);
        if is_closed && (self.is_on() || state.is_suspended()) {
            return io::Error::from_raw_os_error(libc::EAGAIN);
        }
        error
    }

    /// Begins to accept, until the suspension or `drain`.
    fn begin(&self, drain: &CancellationToken) -> CancellationToken {
        let round = drain.child_token();
        *self.round.borrow_mut() = round.clone();
        round
    }

    /// Tells whoever waits whether the task could follow.
    async fn answer(&self, followed: bool) {
        self.is_followed.set(true);
        let waiting = self.waiting.take();
        for one in waiting {
            // Whoever asked may have gone.
            let _ = one.send(followed).await;
        }
    }
}

/// Whether a socket listens, and what it needs to do so again.
#[derive(Debug)]
pub(super) struct Listens {
    state: Arc<ListenState>,
    /// It may not have listened since it was registered with the event loop, for which it is at its end for ever then.
    was_closed: Cell<bool>,
}

impl Listens {
    /// Of a socket that is not registered yet.
    pub(super) fn new(state: Arc<ListenState>, socket: &Socket) -> Self {
        Self {
            state,
            was_closed: Cell::new(!socket.is_listener().unwrap_or(true)),
        }
    }

    pub(super) fn state(&self) -> &ListenState {
        &self.state
    }
}

impl Acceptor {
    /// Accepts until the stop, while the frontend listens.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        let drain = self.stop.drain.clone();
        loop {
            if self.suspension.is_on() {
                self.suspend();
                self.suspension.answer(true).await;
                tokio::select! {
                    () = drain.cancelled() => {
                        // Another process that has the queue does not have this one.
                        if self.stop.queue_moved.is_cancelled() {
                            self.serve_kept().await;
                        }
                        return Ok(());
                    }
                    () = self.suspension.changed() => {}
                }
                continue;
            }
            if let Err(error) = self.resume() {
                self.tell(&error, "listening socket cannot listen again");
                self.suspension.is_on.set(true);
                self.report_deaf().await;
                self.suspension.answer(false).await;
                continue;
            }
            self.suspension.answer(true).await;
            let round = self.suspension.begin(&drain);
            self.serve_kept().await;
            if self.suspension.is_on() {
                continue;
            }
            accept::run(&self.socket, &*self, &round).await?;
            // Another worker that shares the socket may have made it stop listening.
            self.listens.was_closed.set(true);
            if drain.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Control disables the frontend.
    async fn report_deaf(&self) {
        let address = SockRef::from(self.socket.get_ref()).local_addr();
        let address = address.ok().and_then(|it| it.as_socket());
        let message = ToControl::CannotListen {
            frontend: self.frontend.borrow().id,
            port: address.map(|it| it.port()),
            done: None,
        };
        // Control ends only with the process.
        self.worker.control.report(message).await;
    }

    fn tell(&self, error: &io::Error, what: &str) {
        let frontend = &*self.frontend.borrow().spec.name;
        tracing::error!(frontend, %error, "{what}");
    }

    fn suspend(&self) {
        self.listens.was_closed.set(true);
        // Before: workers that share the socket look at it.
        self.listens.state.set_suspended(true);
        if let Err(error) = socket::suspend(&SockRef::from(self.socket.get_ref())) {
            self.tell(&error, "listening socket does not stop listening");
        }
    }

    /// Makes the socket listen, if it does not, and registers it anew, under another descriptor.
    fn resume(&mut self) -> io::Result<()> {
        let socket = SockRef::from(self.socket.get_ref());
        let state = &self.listens.state;
        let backlog = state.backlog.load(Relaxed);
        socket::resume(&socket, backlog)?;
        if self.listens.was_closed.get() {
            let again = Arc::new(socket.try_clone()?);
            self.socket = Watched::new(&self.worker.relay, again)?;
            self.listens.was_closed.set(false);
        }
        state.set_suspended(false);
        Ok(())
    }
}
