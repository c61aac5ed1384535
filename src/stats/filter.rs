//! Which rows are shown: `;up`, `;no-maint`, `scope=` of an address, and `scope` of `[stats]`.

use super::rows::{Object, Row};
use crate::state::OperState;
use std::sync::Arc;

/// Longest text that `scope=` is taken with, as in HAProxy.
pub const SCOPE_BYTES_MAX: usize = 20;

/// Which rows are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// No servers that are down or in maintenance.
    pub up: bool,
    /// No servers in maintenance.
    pub no_maint: bool,
    /// Only proxies whose name contains this.
    pub scope: Option<String>,
    /// Only these proxies; empty: all.
    pub only: Vec<Arc<str>>,
}

impl Filter {
    /// Whether it leaves out servers, and a backend's status is to say how many there are.
    pub fn hides_servers(&self) -> bool {
        self.up || self.no_maint
    }

    /// Whether `row` is shown.
    pub fn shows(&self, row: &Row<'_>) -> bool {
        let name = row.proxy();
        if !self.only.is_empty() && !self.only.iter().any(|only| **only == *name) {
            return false;
        }
        if self
            .scope
            .as_ref()
            .is_some_and(|part| !name.contains(part.as_str()))
        {
            return false;
        }
        let Object::Server(_, server) = row.object else {
            return true;
        };
        let maint = server.status.admin.is_maint();
        let down = maint || server.status.oper == OperState::Stopped;
        !(self.up && down || self.no_maint && maint)
    }
}
