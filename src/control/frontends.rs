//! Has the workers follow the states of frontends: `disable frontend`, `enable frontend`, `shutdown frontend`, and where a
//! backend says so (`no-server = "stop-listening"`) whether a session would find a server.
//!
//! Control thread. Whether a socket can listen again is known only when its worker has tried it. Invariant: a frontend
//! that is shown as open has sockets that listen: when one of them cannot, the worker says so
//! ([`ToControl::CannotListen`]), and the frontend is disabled, whoever has opened it.

use super::Control;
use super::server_events::{self, LogLine};
use crate::state::{Frontend, FrontendId, FrontendState, Snapshot, ToControl};
use crate::worker::order::Order;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// A frontend whose state has changed.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) id: FrontendId,
    /// Logged when all its sockets have followed.
    pub(super) line: Option<LogLine>,
}

/// Who is to be told, and what, once all sockets have followed. When some cannot, it is told `false` once the
/// frontend is disabled again.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) done: oneshot::Sender<bool>,
    pub(super) answer: bool,
}

impl Control {
    /// Has the workers follow the states of frontends, and tells `told` once they have. A worker may have to accept
    /// what is queued first, so the control task does not wait for it.
    pub(super) async fn follow_frontends(&self, frontends: Vec<Followed>, told: Option<Told>) {
        let mut waiting = Vec::with_capacity(frontends.len());
        for Followed { id, line } in frontends {
            let (reply, replies) = mpsc::channel(self.parts.workers.count().max(1));
            let order = Order::FollowFrontend { id, reply };
            self.parts.workers.tell_all(&order).await;
            waiting.push((id, line, replies));
        }
        let (log, control) = (self.parts.log.clone(), self.parts.handle.clone());
        self.tasks.spawn_local(async move {
            let mut failed = None;
            for (id, line, mut replies) in waiting {
                let mut followed = true;
                while let Some(one) = replies.recv().await {
                    followed &= one;
                }
                match line {
                    Some(line) if followed => line.log(&log),
                    _ => {}
                }
                failed = if followed { failed } else { Some(id) };
            }
            let Some(Told { done, answer }) = told else {
                return;
            };
            match failed {
                // Whoever asked may have gone.
                None => {
                    let _ = done.send(answer);
                }
                // The workers have said it before; this comes behind what they have said.
                Some(frontend) => {
                    let message = ToControl::CannotListen {
                        frontend,
                        port: None,
                        done: Some(done),
                    };
                    control.report(message).await;
                }
            }
        });
    }
    /// The same for frontends whose sessions would find a server in `next` and not in `base`, or the other way round.
    pub(super) async fn follow_backends(&self, base: &Snapshot, next: &Snapshot) {
        let frontends = next.frontends.iter().flatten();
        let turned = frontends.filter_map(|frontend| {
            let before = base.frontend(frontend.id)?;
            let is_same = Arc::ptr_eq(before, frontend) || before.listens() == frontend.listens();
            let is_open = |it: &Frontend| it.state() == FrontendState::Open;
            (!is_same && is_open(before) && is_open(frontend)).then(|| Followed {
                id: frontend.id,
                line: server_events::frontend_follows(next, frontend.id),
            })
        });
        let turned: Vec<Followed> = turned.collect();
        if !turned.is_empty() {
            self.follow_frontends(turned, None).await;
        }
    }
}
