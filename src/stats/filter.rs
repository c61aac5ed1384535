//! Which rows are shown: `;up`, `;no-maint`, `;problems` and `scope=` of a URL, and `scope` of `[stats]`.

use super::row::{Kind, Object, Row};
use crate::state::{AdminState, Backend, Frontend, FrontendState, OperState, Server};
use std::sync::Arc;

/// Longest text of `scope=`, as in HAProxy.
pub const SCOPE_BYTES_MAX: usize = 20;

/// Which rows are shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// No servers that are down or in maintenance.
    pub up: bool,
    /// No servers in maintenance.
    pub no_maint: bool,
    /// Only servers with a problem ([`has_problem`]), backends that are down, unpublished or have such servers, and
    /// frontends that an operator has closed or that are full.
    pub problems: bool,
    /// Only proxies whose name contains this.
    pub scope: Option<String>,
    /// Only these proxies; empty: all.
    pub only: Vec<Arc<str>>,
    /// Only these rows, by number (`show stat <id> <type> <sid>`).
    pub select: Option<Select>,
}

/// Rows by number; -1 stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Select {
    /// Number of the proxy.
    pub proxy: i64,
    /// Kinds of rows, added up: 1 frontends, 2 backends, 4 servers.
    pub kinds: i64,
    /// Number of the server.
    pub service: i64,
}

impl Select {
    fn takes(self, row: &Row<'_>) -> bool {
        let bit = match row.kind() {
            Kind::Frontend => 1,
            Kind::Backend => 2,
            Kind::Server => 4,
        };
        let (proxy, service) = row.ids();
        let is = |wanted: i64, number: u32| wanted == -1 || wanted == i64::from(number);
        self.kinds & bit != 0 && is(self.proxy, proxy) && is(self.service, service)
    }
}

impl Filter {
    /// Whether it hides servers, so that a backend's status shows how many there are.
    pub fn hides_servers(&self) -> bool {
        self.up || self.no_maint || self.problems
    }

    /// Whether the proxy called `name` is shown.
    pub fn shows_proxy(&self, name: &str) -> bool {
        let only = self.only.is_empty() || self.only.iter().any(|only| **only == *name);
        let scope = self.scope.as_ref();
        only && scope.is_none_or(|part| name.contains(part.as_str()))
    }

    /// Whether `row` is shown.
    pub fn shows(&self, row: &Row<'_>) -> bool {
        if !self.shows_proxy(row.proxy()) {
            return false;
        }
        if self.select.is_some_and(|select| !select.takes(row)) {
            return false;
        }
        if self.problems && !is_problem(row) {
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

/// Whether a row shows a problem.
fn is_problem(row: &Row<'_>) -> bool {
    match row.object {
        Object::Server(_, server) => has_problem(server),
        Object::Backend(backend) => backend_has_problem(backend),
        Object::Frontend(frontend) => {
            frontend.state != FrontendState::Open || frontend.route.is_closed() || is_full(frontend)
        }
        Object::StatsFrontend(_) | Object::StatsBackend(_) => false,
    }
}

/// Whether a frontend has as many sessions as it may have.
pub fn is_full(frontend: &Frontend) -> bool {
    let limit = frontend.maxconn;
    limit.is_some_and(|limit| frontend.live.active.get() >= limit)
}

/// Whether a server has a problem: it is down, going down or coming up, suspected because connects to it fail,
/// or without an address. Maintenance by an operator is no problem.
pub fn has_problem(server: &Server) -> bool {
    let status = &server.status;
    if status.admin.is_maint() {
        return status.admin.has(AdminState::RMAINT);
    }
    let changing = server.spec.check.is_some() && status.health < server.rules().full();
    status.oper == OperState::Stopped || changing || server.live.is_suspect()
}

fn backend_has_problem(backend: &Backend) -> bool {
    let down = !backend.status.up && !backend.servers.is_empty();
    down || !backend.published || backend.servers.iter().any(|server| has_problem(server))
}
