//! The lines about backends: that too few servers are usable, in HAProxy's words, and that the checks are not believed.
//! Pure.

use super::{Fields, LogLine};
use crate::config::model::{self, Severity};
use crate::state::{Server, Usable};
use std::sync::Arc;

/// A backend after a change.
#[derive(Debug, Clone, Copy)]
pub struct BackendEvent<'a> {
    /// As configured.
    pub spec: &'a model::Backend,
    /// Whether it is half of a `[[listen]]`.
    pub listen: bool,
    /// Its servers.
    pub servers: &'a [Arc<Server>],
    /// How many of them are usable, as the checks say.
    pub usable: Usable,
}

impl BackendEvent<'_> {
    /// It has gone down, or come up. HAProxy says nothing of the latter.
    pub fn turned(self, up: bool) -> Option<LogLine> {
        let least = self.spec.min_servers;
        let usable = self.usable.active + self.usable.backup;
        let name = self.name();
        if up {
            let text = format!("{name} is UP again: {usable} servers usable, min-servers {least}.");
            return (least > 1).then(|| self.line(Severity::Notice, text));
        }
        let why = if usable > 0 {
            format!(" {usable} usable, min-servers {least}.")
        } else {
            String::new()
        };
        let text = format!("{name} has no server available!{why}");
        Some(self.line(Severity::Emerg, text))
    }

    /// The checks are not believed any more, or again.
    pub fn fail_open(self, begins: bool) -> LogLine {
        let (up, below) = (self.up(), self.spec.fail_open_below);
        let name = self.name();
        if begins {
            let text = format!(
                "{name} fails open: {up} servers are up, less than {below} %. Checks are not believed, all are used."
            );
            self.line(Severity::Alert, text)
        } else {
            let text = format!("{name} fails open no longer: {up} servers are up.");
            self.line(Severity::Notice, text)
        }
    }

    /// Sessions are ended from now on, because this server has `sessions` and its share of `total` is `share`.
    pub fn rebalances(self, server: &str, (sessions, share, total): (u32, u32, u64)) -> LogLine {
        let (name, percent) = (self.name(), self.spec.rebalance);
        let text = format!(
            "{name} rebalances: server {server} has {sessions} sessions, its share of {total} is {share}. \
             Up to {percent} % end in a minute."
        );
        self.line(Severity::Notice, text)
    }

    /// None is ended any more, after so many. `even`: servers have their shares.
    pub fn rebalanced(self, sessions: u64, even: bool) -> LogLine {
        let name = self.name();
        let text = if even {
            format!("{name} has rebalanced: {sessions} sessions ended, all shares are within 10 %.")
        } else {
            format!("{name} rebalances no longer: {sessions} sessions ended.")
        };
        self.line(Severity::Notice, text)
    }

    /// How many servers are up of those that no operator has taken out: `1 of 5`.
    fn up(self) -> String {
        let offered = self.servers.iter().filter(|server| server.is_offered());
        format!(
            "{} of {}",
            self.usable.active + self.usable.backup,
            offered.count()
        )
    }

    fn name(self) -> String {
        let kind = if self.listen { "proxy" } else { "backend" };
        format!("{kind} {}", self.spec.name)
    }

    fn line(self, severity: Severity, text: String) -> LogLine {
        LogLine {
            severity,
            planned: false,
            text,
            fields: Fields {
                active_servers: Some(self.usable.active),
                backup_servers: Some(self.usable.backup),
                ..Fields::of_backend(&self.spec.name)
            },
        }
    }
}
