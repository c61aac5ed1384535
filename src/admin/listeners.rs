//! The sockets of the statistics: those of the start, and those that reloads open and close. Admin thread, one
//! task, and one more per socket.
//!
//! Invariant: a socket that a reload removes accepts what is queued before it closes, and its connections end
//! after the answer in progress.

use super::{Shared, accept};
use crate::control::admin_listeners::{AdminListener, ListenerChange};
use crate::sys::raw::{self, Owned};
use crate::worker::ListenerId;
use std::collections::HashMap;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Listens on `open` and makes `changes`, until the stop.
pub(super) async fn run(
    shared: Rc<Shared>,
    open: Vec<AdminListener>,
    mut changes: mpsc::Receiver<ListenerChange>,
) {
    // Ends the listening on each.
    let mut listeners: HashMap<ListenerId, CancellationToken> = HashMap::new();
    let mut next = Some(ListenerChange {
        open,
        close: Vec::new(),
    });
    while let Some(change) = next {
        for opened in change.open {
            let closing = listeners.entry(opened.id).or_default().clone();
            listen(&shared, opened, closing);
        }
        for id in &change.close {
            if let Some(closing) = listeners.remove(id) {
                closing.cancel();
            }
        }
        next = tokio::select! {
            () = shared.stop.cancelled() => None,
            // `None` when no sender is left: the open listeners stay.
            change = changes.recv() => change,
        };
    }
}

fn listen(shared: &Rc<Shared>, opened: AdminListener, closing: CancellationToken) {
    match raw::watch(Owned::new(opened.listener), Interest::READABLE) {
        Ok(listener) => {
            let bind = Rc::new(opened.bind);
            let task = accept::run((Rc::clone(shared), bind), listener, closing);
            shared.tracker.spawn_local(task);
        }
        Err(error) => tracing::error!(%error, "stats listener cannot be watched"),
    }
}
