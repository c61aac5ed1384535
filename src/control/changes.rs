//! What operators change while the service is handed over to another process: nothing is accepted that the other
//! process would not know.
//!
//! Control thread. Invariant: a change is made and published before what is in force is handed over, or it waits
//! until the handover has failed or succeeded. In the second case nobody answers the one who has asked, who finds
//! out then which process serves.

use crate::state::ToControl;

/// What becomes of a change that an operator asks for.
#[derive(Debug, Default)]
pub(super) enum OperatorChanges {
    /// It is made.
    #[default]
    Made,
    /// It waits here. Each client of the runtime socket waits for one, and the page for those of one action.
    Held(Vec<ToControl>),
    /// It is dropped: another process serves.
    Refused,
}

impl OperatorChanges {
    /// They wait from now on.
    pub(super) fn hold(&mut self) {
        if matches!(self, Self::Made) {
            *self = Self::Held(Vec::new());
        }
    }

    /// They are made again from now on. Returns those that have waited, in their order.
    pub(super) fn resume(&mut self) -> Vec<ToControl> {
        match self {
            Self::Held(waiting) => {
                let waiting = std::mem::take(waiting);
                *self = Self::Made;
                waiting
            }
            Self::Made | Self::Refused => Vec::new(),
        }
    }

    /// They are dropped from now on, and those that have waited too.
    pub(super) fn refuse(&mut self) {
        *self = Self::Refused;
    }

    /// The message, if it is to be acted on now.
    pub(super) fn admit(&mut self, message: ToControl) -> Option<ToControl> {
        let is_change = matches!(
            message,
            ToControl::SetAdmin { .. } | ToControl::SetWeight { .. } | ToControl::Change { .. }
        );
        match self {
            Self::Held(waiting) if is_change => {
                waiting.push(message);
                None
            }
            Self::Refused if is_change => None,
            // What is found out about servers here has no meaning any more.
            Self::Refused if matches!(message, ToControl::Observed { .. }) => None,
            _ => Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::AdminRequest;
    use tokio::sync::oneshot;

    fn change(server: u64) -> (ToControl, oneshot::Receiver<bool>) {
        let (done, answer) = oneshot::channel();
        let to = AdminRequest::Maint;
        (ToControl::SetAdmin { server, to, done }, answer)
    }

    /// A command that the old process accepted while it handed over was lost.
    #[test]
    fn changes_wait_during_a_handover_and_are_made_or_dropped_after_it() {
        let mut changes = OperatorChanges::default();
        assert!(changes.admit(change(1).0).is_some());
        changes.hold();
        let (first, mut answer) = change(2);
        assert!(changes.admit(first).is_none());
        assert!(changes.admit(change(3).0).is_none());
        assert!(
            answer
                .try_recv()
                .is_err_and(|it| it == oneshot::error::TryRecvError::Empty)
        );
        let (done, _answer) = oneshot::channel();
        let kill = ToControl::KillSessions { server: 2, done };
        assert!(
            changes.admit(kill).is_some(),
            "sessions here are ended at once"
        );
        let order: Vec<u64> = changes
            .resume()
            .iter()
            .filter_map(|it| match it {
                ToControl::SetAdmin { server, .. } => Some(*server),
                _ => None,
            })
            .collect();
        assert_eq!(order, [2, 3]);
        assert!(changes.admit(change(4).0).is_some());
        changes.hold();
        let (waiting, mut answer) = change(5);
        assert!(changes.admit(waiting).is_none());
        changes.refuse();
        assert!(
            answer
                .try_recv()
                .is_err_and(|it| it == oneshot::error::TryRecvError::Closed)
        );
        assert!(changes.admit(change(6).0).is_none());
        let found_out = ToControl::Observed {
            server: 1,
            errors: 10,
        };
        assert!(changes.admit(found_out).is_none());
    }
}
