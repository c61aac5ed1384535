//! A server as decided: specification, resolved address, status; and how many of a backend are usable.

use super::status::{AdminState, Rules, ServerStatus};
use crate::config::model;
use crate::live::ServerLive;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// A server of a backend.
#[derive(Debug, Clone)]
pub struct Server {
    /// As configured.
    pub spec: Arc<model::Server>,
    /// Where connections go now; `None` while its name does not resolve.
    pub endpoint: Option<Endpoint>,
    /// Health and administrative state.
    pub status: ServerStatus,
    /// Weight in force, before administrative drain.
    pub weight: u32,
    /// What is counted for it.
    pub live: Arc<ServerLive>,
}

impl Server {
    /// A server at the start: up until a check says otherwise, unless it is disabled or has a name
    /// that is still to be resolved.
    pub fn new(spec: model::Server, live: Arc<ServerLive>, now: Instant) -> Self {
        let endpoint = Endpoint::of(&spec.address);
        let mut admin = AdminState::READY;
        if spec.disabled {
            admin = admin.with(AdminState::CMAINT).with(AdminState::FMAINT);
        }
        if endpoint.is_none() {
            admin = admin.with(AdminState::RMAINT);
        }
        let rules = Rules::of(spec.check.as_ref());
        Self {
            endpoint,
            status: ServerStatus::initial(admin, rules, now),
            weight: spec.weight,
            spec: Arc::new(spec),
            live,
        }
    }

    /// Whether new connections may go to it.
    pub fn is_usable(&self) -> bool {
        self.endpoint.is_some() && self.status.is_usable(self.weight)
    }

    /// The limits of its health counter; HAProxy's defaults without a check.
    pub fn rules(&self) -> Rules {
        Rules::of(self.spec.check.as_ref())
    }

    /// The `status` column of the statistics.
    pub fn status_label(&self) -> Cow<'static, str> {
        self.status
            .label(self.spec.check.as_ref().map(|check| Rules::of(Some(check))))
    }
}

/// Where a server's connections go, names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and how to find the port.
    Ip(IpAddr, model::ServerPort),
    /// A unix socket path, or an abstract name that begins with `@`.
    Unix(PathBuf),
}

impl Endpoint {
    /// That of an address that needs no resolution; `None` for a name.
    pub fn of(address: &model::ServerAddress) -> Option<Self> {
        match address {
            model::ServerAddress::Ip(ip, port) => Some(Self::Ip(*ip, *port)),
            model::ServerAddress::Unix(path) => Some(Self::Unix(path.clone())),
            model::ServerAddress::Name(..) => None,
        }
    }
}

/// Usable servers of a backend (`act` and `bck` of its row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usable {
    /// Usable active servers.
    pub active: u32,
    /// Usable backup servers.
    pub backup: u32,
}

impl Usable {
    /// Those of `servers`.
    pub fn count<'a>(servers: impl Iterator<Item = &'a Server>) -> Self {
        let mut usable = Self::default();
        for server in servers.filter(|server| server.is_usable()) {
            *usable.of_kind(server.spec.backup) += 1;
        }
        usable
    }

    /// None at all.
    pub fn is_empty(self) -> bool {
        self.active == 0 && self.backup == 0
    }

    /// Only backups are left.
    pub fn on_backup(self) -> bool {
        self.active == 0 && self.backup > 0
    }

    /// The count of active or of backup servers.
    pub(super) fn of_kind(&mut self, backup: bool) -> &mut u32 {
        if backup {
            &mut self.backup
        } else {
            &mut self.active
        }
    }
}

/// As it is written in a configuration.
impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip, model::ServerPort::Fixed(port)) => {
                SocketAddr::new(*ip, *port).fmt(formatter)
            }
            Self::Ip(ip, model::ServerPort::FromClient(_)) => ip.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
