//! A server with its specification, resolved address and status; and how many servers of a backend are usable.

use super::status::{AdminState, OperState, Rules, SHARES, ServerStatus};
use crate::balance::hash;
use crate::config::model::{self, Balance};
use crate::live::ServerLive;
use std::borrow::Cow;
use std::collections::HashMap;
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
    /// Where connections go; `None` while its name is not resolved.
    pub endpoint: Option<Endpoint>,
    /// Health and administrative state.
    pub status: ServerStatus,
    /// Weight as in the file or as an operator has set it; neither administrative drain nor a slow start changes it.
    pub weight: u32,
    /// The generation of its backend in which it last became usable or, being usable, got another address. 0: neither
    /// has happened since the backend exists.
    pub renewed: u64,
    /// Its backend fails open: that it is down is not believed. The builders of snapshots set it (`super::standing`).
    pub fail_open: bool,
    /// Its counters.
    pub live: Arc<ServerLive>,
    /// As an operator has added it at run time; `None`: it is in the file.
    pub added: Option<Arc<model::Server>>,
    /// Its name in the file, when an operator has given it another: then `added` is what the file says of it, with the
    /// new name.
    pub name_in_file: Option<Arc<str>>,
}

impl Server {
    /// A server at the start: up until a check fails, or in maintenance if it is disabled or has a name that is
    /// not resolved yet.
    pub fn new(spec: model::Server, live: Arc<ServerLive>, now: Instant) -> Self {
        let endpoint = Endpoint::of(&spec.address);
        let mut admin = AdminState::READY;
        if spec.disabled {
            admin = admin.with(AdminState::CMAINT).with(AdminState::FMAINT);
        }
        if endpoint.is_none() {
            admin = admin.with(AdminState::RMAINT);
        }
        let rules = Rules::of(&spec);
        Self {
            endpoint,
            status: ServerStatus::initial(admin, rules, now),
            weight: spec.weight,
            renewed: 0,
            fail_open: false,
            spec: Arc::new(spec),
            live,
            added: None,
            name_in_file: None,
        }
    }

    /// Has its connections go elsewhere. It waits for its name no longer.
    pub fn set_address(&mut self, address: model::ServerAddress, endpoint: Endpoint, now: Instant) {
        Arc::make_mut(&mut self.spec).address = address;
        self.endpoint = Some(endpoint);
        let (admin, rules) = (self.status.admin, self.rules());
        if admin.has(AdminState::RMAINT) {
            let admin = admin.without(AdminState::RMAINT);
            self.status.set_admin(admin, rules, now);
        }
    }

    /// Gives it another check; `None`: it is not checked.
    pub fn set_check(&mut self, check: Option<model::Check>) {
        let rules = self.rules();
        Arc::make_mut(&mut self.spec).check = check;
        self.status.set_rules(rules, self.rules());
    }

    /// Gives it another limit of sessions; 0: none. As in HAProxy a `minconn` that is the same as `maxconn` goes along.
    pub fn set_maxconn(&mut self, maxconn: u32) {
        let spec = Arc::make_mut(&mut self.spec);
        if spec.minconn == spec.maxconn {
            spec.minconn = maxconn;
        }
        spec.maxconn = maxconn;
    }

    /// Whether new connections may go to it.
    pub fn is_usable(&self) -> bool {
        if self.fail_open {
            self.is_offered()
        } else {
            self.is_up()
        }
    }

    /// Whether new connections may go to it as the checks say.
    pub fn is_up(&self) -> bool {
        self.endpoint.is_some() && self.status.is_usable(self.weight)
    }

    /// Whether nothing is to be expected of a connection to it that is being made: it is in maintenance, or down and believed
    /// to be.
    pub fn is_hopeless(&self) -> bool {
        let down = self.status.oper == OperState::Stopped;
        (down && !self.fail_open) || self.status.admin.is_maint()
    }

    /// Whether new connections may go to it if it is not down: no operator has taken it out.
    pub fn is_offered(&self) -> bool {
        self.endpoint.is_some() && self.status.is_offered(self.weight)
    }

    /// Whether clients may reach it now and could not reach it, or reached another address, when it was `before`; or it has
    /// come up while that it was down was not believed.
    pub(super) fn is_renewed(&self, before: &Self) -> bool {
        let came = !before.is_usable() || self.is_up() && !before.is_up();
        self.is_usable() && (came || before.endpoint != self.endpoint)
    }

    /// The number from which its places on a ring follow.
    pub(super) fn hash_key(&self) -> u32 {
        let address = match &self.endpoint {
            Some(Endpoint::Ip(ip, model::ServerPort::Fixed(port))) => Some((*ip, u32::from(*port))),
            // HAProxy's port of such a server is the offset.
            Some(Endpoint::Ip(ip, model::ServerPort::FromClient(offset))) => {
                Some((*ip, offset.cast_unsigned()))
            }
            Some(Endpoint::Unix(_)) | None => None,
        };
        hash::of_server(self.spec.hash_key, self.spec.id, address)
    }

    /// What its keys say about its states; the limits of its health counter are HAProxy's defaults if it is not checked.
    pub fn rules(&self) -> Rules {
        Rules::of(&self.spec)
    }

    /// Its weight in force in sixteenths, HAProxy's `eweight`: less during a slow start, if the `backend` chooses by an
    /// algorithm that follows weights.
    pub fn eweight(&self, backend: &model::Backend) -> u32 {
        let shares = if has_dynamic_weights(backend) {
            self.status.shares(self.rules())
        } else {
            SHARES
        };
        self.weight * shares
    }

    /// The `status` column of the statistics.
    pub fn status_label(&self) -> Cow<'static, str> {
        self.status
            .label(self.spec.check.is_some().then(|| self.rules()))
    }
}

/// Whether weights may change at any time with this algorithm: HAProxy's `BE_LB_PROP_DYN`. A map has whole units of weight.
fn has_dynamic_weights(backend: &model::Backend) -> bool {
    match backend.balance {
        Balance::StaticRr => false,
        Balance::Source | Balance::Hash => backend.hash_type.consistent,
        Balance::RoundRobin
        | Balance::First
        | Balance::Random
        | Balance::LeastConn
        | Balance::Maglev
        | Balance::Ewma => true,
    }
}

/// Where a server's connections go, with names resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and how to find the port.
    Ip(IpAddr, model::ServerPort),
    /// A unix socket path, or an abstract name that begins with `@`.
    Unix(PathBuf),
}

impl Endpoint {
    /// The endpoint of an address that needs no resolution; `None` for a name.
    pub fn of(address: &model::ServerAddress) -> Option<Self> {
        match address {
            model::ServerAddress::Ip(ip, port) => Some(Self::Ip(*ip, *port)),
            model::ServerAddress::Unix(path) => Some(Self::Unix(path.clone())),
            model::ServerAddress::Name(..) => None,
        }
    }
}

/// Usable servers of a backend, as the checks say (`act` and `bck` of its row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usable {
    /// Usable active servers.
    pub active: u32,
    /// Usable backup servers.
    pub backup: u32,
}

impl Usable {
    /// Counts `servers`.
    pub fn count<'a>(servers: impl Iterator<Item = &'a Server>) -> Self {
        let mut usable = Self::default();
        for server in servers.filter(|server| server.is_up()) {
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

/// Servers of a file by their names.
pub(super) fn by_name(servers: &[model::Server]) -> HashMap<&str, &model::Server> {
    let servers = servers.iter();
    servers.map(|server| (&*server.name, server)).collect()
}

/// As written in a configuration.
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
