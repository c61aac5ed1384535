//! What the messages of a turn do at once, and what they leave to do when it is published.

use super::batch::Batch;
use crate::state::{FrontendId, RuntimeChange, RuntimeState, ToControl};
use tokio::sync::oneshot;

/// What the messages of a turn leave to do after the publication.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Servers that workers suspect.
    pub(super) suspects: Vec<u64>,
    /// Who is to be told, and what.
    pub(super) answers: Vec<(oneshot::Sender<bool>, bool)>,
    /// What the process before has counted.
    pub(super) counted: Vec<String>,
    /// What the process before has decided, first what is taken over already.
    pub(super) decided: Option<(RuntimeState, RuntimeState)>,
    /// Changes at run time, whether their object was found, and who is to be told.
    pub(super) changes: Vec<(RuntimeChange, bool, oneshot::Sender<bool>)>,
    /// Frontends that cannot listen again, and who waits until they are disabled.
    pub(super) cannot_listen: Vec<(FrontendId, oneshot::Sender<bool>)>,
}

impl Pending {
    /// Applies a message to `batch`.
    pub(super) fn take(&mut self, batch: &mut Batch<'_>, message: ToControl) {
        match message {
            ToControl::Checked { server, report, .. } => batch.checked(server, &report),
            ToControl::Observed { server, errors } => batch.observed(server, errors),
            ToControl::Resolved { name, addresses } => batch.resolved(&name, &addresses),
            ToControl::CheckNow { server, .. } => self.suspects.push(server),
            ToControl::SetAdmin { server, to, done } => {
                self.answers.push((done, batch.set_admin(server, to)));
            }
            ToControl::SetWeight {
                server,
                weight,
                done,
            } => self.answers.push((done, batch.set_weight(server, weight))),
            ToControl::Change { change, done } => {
                let found = batch.change_runtime(&change);
                self.changes.push((change, found, done));
            }
            ToControl::CannotListen {
                frontend,
                port,
                done,
            } => {
                batch.cannot_listen(frontend, port);
                self.cannot_listen.extend(done.map(|done| (frontend, done)));
            }
            // The control task has done what they say.
            ToControl::HoldChanges { .. }
            | ToControl::ResumeChanges
            | ToControl::HandedOver
            | ToControl::Stopping => {}
            ToControl::ApplyState {
                before,
                state,
                done,
            } => {
                self.decided = Some((before, state));
                self.answers.push((done, true));
            }
            ToControl::AddCounters { text, done } => {
                self.counted.push(text);
                self.answers.push((done, true));
            }
            ToControl::KillSessions { server, done } => {
                self.answers.push((done, batch.kill_sessions(server)));
            }
        }
    }
}
