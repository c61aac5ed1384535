//! The published snapshot: everything that was decided, replaced as a whole.
//!
//! A worker loads it once per connection and clones the `Arc`s that it needs. So a session that lasts for days
//! keeps its frontend, backend and server alive, not an old snapshot.

mod queues;
mod route;

pub(super) use queues::{is_by_slot, is_limited};
pub use route::Route;

use super::ids::{BackendId, FrontendId};
use super::server::{Server, Usable};
use super::standing::settle;
use crate::balance::tiers::{self, Tiers};
use crate::balance::{Candidate, Choice, Picker, maglev};
use crate::config::model::{self, Balance, StateFiles};
use crate::live::{BackendLive, FrontendLive, GlobalLive, LoadOrder, ServerLive};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The settings of the runtime sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// In the order of the configuration.
    pub sockets: Vec<ApiAccess>,
    /// Longest silence of a client.
    pub timeout: Duration,
    /// Most clients at once.
    pub maxconn: u32,
}

impl Api {
    /// As configured; `None`: there is no socket.
    pub(super) fn of(api: Option<&model::RuntimeApi>) -> Option<Arc<Self>> {
        let api = api?;
        Some(Arc::new(Self {
            sockets: api.sockets.iter().map(ApiAccess::of).collect(),
            timeout: api.timeout,
            maxconn: api.maxconn,
        }))
    }

    /// The rights of the socket at `address`; `None`: it is not configured any more.
    pub fn access(&self, address: &model::BindAddress) -> Option<&ApiAccess> {
        self.sockets.iter().find(|one| one.address == *address)
    }
}

/// The access rights of a runtime socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAccess {
    /// Which socket, as configured.
    pub address: model::BindAddress,
    /// Mode of its file. For an abstract socket, the mode that peers are checked against.
    pub mode: u32,
    /// What its clients may do.
    pub level: model::ApiLevel,
}

impl ApiAccess {
    /// As configured.
    fn of(api: &model::RuntimeSocket) -> Self {
        Self {
            address: api.address.clone(),
            mode: api.mode,
            level: api.level,
        }
    }
}

/// Everything that was decided.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The counters of the process.
    pub global: Arc<GlobalLive>,
    /// Most sessions of the process, as an operator has set it since or as [`Snapshot::hard_maxconn`].
    pub maxconn: u32,
    /// Most sessions of the process: as configured, or what the descriptor limit allows.
    pub hard_maxconn: u32,
    /// Most connections that are accepted in a second: as configured, or what an operator has set since
    /// (`set rate-limit`).
    pub rate_limits: RateLimits,
    /// The same as configured.
    pub written_rate_limits: RateLimits,
    /// The stats proxy; `None`: no stats listener.
    pub stats: Option<Arc<model::Stats>>,
    /// Most connections to the statistics, if an operator has set it; 0: none is accepted.
    pub stats_maxconn: Option<u32>,
    /// The counters of the stats proxy; they exist even without a listener.
    pub stats_live: Arc<FrontendLive>,
    /// How long sessions may go on after a graceful stop has begun; `None`: without limit.
    pub hard_stop_after: Option<Duration>,
    /// Name of this machine; `None`: the host name.
    pub node: Option<Arc<str>>,
    /// Description of the process.
    pub description: Option<Arc<str>>,
    /// Where the states of servers are kept.
    pub state_files: StateFiles,
    /// The settings of the runtime sockets; `None`: there are none.
    pub api: Option<Arc<Api>>,
    /// By [`FrontendId`]; `None` where a frontend was removed and no other has come.
    pub frontends: Vec<Option<Arc<Frontend>>>,
    /// By [`BackendId`]; `None` where a backend was removed and no other has come.
    pub backends: Vec<Option<Arc<Backend>>>,
    /// How many reloads came before it.
    pub(super) reload: u32,
}

/// Limits of rates of the process. 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// `maxconnrate`, `set rate-limit connections global`.
    pub connections: u32,
    /// `maxsessrate`, `set rate-limit sessions global`. Each connection has one session.
    pub sessions: u32,
}

impl RateLimits {
    /// As configured.
    pub(super) fn of(global: &model::Global) -> Self {
        Self {
            connections: global.maxconnrate.unwrap_or(0),
            sessions: global.maxsessrate.unwrap_or(0),
        }
    }

    /// These, where the file said and says the same (`before`, `after`); elsewhere what it says now.
    pub(super) fn kept(self, before: Self, after: Self) -> Self {
        let keep = |now, before, after| if before == after { now } else { after };
        Self {
            connections: keep(self.connections, before.connections, after.connections),
            sessions: keep(self.sessions, before.sessions, after.sessions),
        }
    }

    /// The lower one that is set; 0: none.
    pub fn lowest(self) -> u32 {
        match (self.connections, self.sessions) {
            (0, one) | (one, 0) => one,
            (one, other) => one.min(other),
        }
    }
}

/// What the first snapshot needs besides the configuration.
#[derive(Debug)]
pub struct Origin {
    /// The counters of the process.
    pub global: Arc<GlobalLive>,
    /// Most sessions of the process, after the check against the descriptor limit.
    pub maxconn: u32,
    /// Shards of the counters: one per worker and one for the control thread.
    pub shards: usize,
    /// Time of the start.
    pub now: Instant,
}

impl Snapshot {
    /// The first snapshot of a process: all counters are 0. A server that is disabled or has an unresolved name
    /// is in maintenance, every other is up until a check fails.
    pub fn initial(config: &model::Config, origin: &Origin) -> Self {
        let stats = config.stats.clone().map(Arc::new);
        let stats_name = stats
            .as_ref()
            .map_or_else(|| "stats".into(), |stats| Arc::clone(&stats.name));
        let frontends = config.frontends.iter().enumerate();
        let backends = config.backends.iter().enumerate();
        let backends: Vec<_> = backends
            .map(|(index, spec)| Arc::new(Backend::initial(backend_id(index), spec, origin)))
            .collect();
        Self {
            global: Arc::clone(&origin.global),
            maxconn: origin.maxconn,
            hard_maxconn: origin.maxconn,
            rate_limits: RateLimits::of(&config.global),
            written_rate_limits: RateLimits::of(&config.global),
            stats_maxconn: None,
            stats,
            stats_live: Arc::new(FrontendLive::new(stats_name, origin.shards)),
            hard_stop_after: config.global.hard_stop_after,
            node: config.global.node.clone(),
            description: config.global.description.clone(),
            state_files: StateFiles::of(&config.global),
            api: Api::of(config.runtime_api.as_ref()),
            frontends: frontends
                .map(|(index, spec)| {
                    let route = Route::new(&backends[spec.default_backend.0], |name| {
                        backends.iter().find(|one| *one.spec.name == *name)
                    });
                    let id = frontend_id(index);
                    Some(Arc::new(Frontend::new(id, route, spec, origin.shards)))
                })
                .collect(),
            backends: backends.into_iter().map(Some).collect(),
            reload: 0,
        }
    }

    /// Most connections to the statistics; 0: none is accepted. `None`: there is no stats proxy.
    pub fn stats_limit(&self) -> Option<u32> {
        let stats = self.stats.as_ref()?;
        Some(self.stats_maxconn.unwrap_or(stats.maxconn))
    }

    /// The frontend `id`, if it still exists.
    pub fn frontend(&self, id: FrontendId) -> Option<&Arc<Frontend>> {
        let frontend = self.frontends.get(id.index())?.as_ref()?;
        (frontend.id == id).then_some(frontend)
    }

    /// The backend `id`, if it still exists.
    pub fn backend(&self, id: BackendId) -> Option<&Arc<Backend>> {
        let backend = self.backends.get(id.index())?.as_ref()?;
        (backend.id == id).then_some(backend)
    }
}

/// A frontend.
#[derive(Debug, Clone)]
pub struct Frontend {
    /// Its id, which never changes.
    pub id: FrontendId,
    /// As configured.
    pub spec: Arc<model::Frontend>,
    /// Where its sessions go.
    pub route: Route,
    /// Whether it accepts connections, as an operator has set it.
    pub state: FrontendState,
    /// Most sessions: as configured, or what an operator has set since. `None`: only the limit of the process
    /// applies; `Some(0)`, which only an operator can set: nothing is accepted, as in HAProxy.
    pub maxconn: Option<u32>,
    /// Its counters.
    pub live: Arc<FrontendLive>,
}

impl AsRef<FrontendLive> for Frontend {
    fn as_ref(&self) -> &FrontendLive {
        &self.live
    }
}

/// Whether a frontend accepts connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrontendState {
    /// It does.
    #[default]
    Open,
    /// Its sockets do not listen until an operator enables it (`disable frontend`).
    Paused,
    /// Its sockets do not listen any more (`shutdown frontend`).
    Stopped,
}

impl FrontendState {
    /// As in the column `status`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Paused => "PAUSED",
            Self::Stopped => "STOP",
        }
    }

    /// The state with this label.
    pub(super) fn of_label(label: &str) -> Option<Self> {
        let all = [Self::Open, Self::Paused, Self::Stopped];
        all.into_iter().find(|one| one.label() == label)
    }
}

impl Frontend {
    pub(super) fn new(id: FrontendId, route: Route, spec: &model::Frontend, shards: usize) -> Self {
        Self {
            id,
            route,
            state: FrontendState::Open,
            maxconn: spec.maxconn,
            live: Arc::new(FrontendLive::new(Arc::clone(&spec.name), shards)),
            spec: Arc::new(spec.clone()),
        }
    }

    /// Whether its sockets listen: the file and the operators let them, and where a backend says so
    /// (`no-server = "stop-listening"`), a session would find a server.
    pub fn listens(&self) -> bool {
        self.state() == FrontendState::Open && !self.route.is_closed()
    }

    /// Whether it accepts connections, as the file and the operators say.
    pub fn state(&self) -> FrontendState {
        if self.spec.disabled {
            FrontendState::Stopped
        } else {
            self.state
        }
    }

    /// As in the column `status`.
    pub fn label(&self) -> &'static str {
        match self.state() {
            FrontendState::Open if !self.listens() => FrontendState::Paused.label(),
            state => state.label(),
        }
    }

    /// This frontend with another route.
    pub(super) fn routed(&self, route: Route) -> Self {
        Self {
            route,
            ..self.clone()
        }
    }
}

/// A backend.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its id, which never changes.
    pub id: BackendId,
    /// As configured. Its `servers` are as written; those in force are [`Backend::servers`].
    pub spec: Arc<model::Backend>,
    /// Its counters.
    pub live: Arc<BackendLive>,
    /// In file order.
    pub servers: Vec<Arc<Server>>,
    /// Chooses among the usable `servers`, by position.
    pub picker: Picker,
    /// Whether any of the servers may have only so many sessions (`maxconn`).
    pub limited: bool,
    /// Whether a session takes more steps to a slot on its server than the one to choose it: servers have limits, or the
    /// times of connects are learnt.
    pub by_slot: bool,
    /// Whether it is up, and since when.
    pub status: BackendStatus,
    /// Whether frontends that name it as their backend may use it; an operator may have set otherwise (`unpublish
    /// backend`).
    pub published: bool,
    /// Counts the changes of its servers.
    pub generation: u64,
    /// The positions of the servers that were renewed, the latest first.
    pub(super) renewals: Arc<[u32]>,
}

impl Backend {
    pub(super) fn initial(id: BackendId, spec: &model::Backend, origin: &Origin) -> Self {
        let live = Arc::new(BackendLive::new(Arc::clone(&spec.name), origin.shards));
        let mut servers: Vec<Arc<Server>> = spec
            .servers
            .iter()
            .map(|server| {
                let live = Arc::new(ServerLive::new(&live.queue, origin.shards));
                Arc::new(Server::new(server.clone(), live, origin.now))
            })
            .collect();
        let (fail_open, up) = settle(&mut servers, spec);
        Self {
            id,
            live,
            picker: picker_for(&servers, spec),
            limited: is_limited(&servers),
            by_slot: is_by_slot(&servers, spec),
            status: BackendStatus {
                up,
                fail_open,
                since: origin.now,
                down_before: Duration::ZERO,
            },
            published: true,
            generation: 0,
            renewals: Arc::default(),
            servers,
            spec: Arc::new(spec.clone()),
        }
    }

    /// From where connections to a server come, if the file says it.
    pub fn source_of<'a>(&'a self, server: &'a Server) -> Option<&'a model::Source> {
        server.spec.source.as_ref().or(self.spec.source.as_ref())
    }

    /// The server with this uid, which was at `index` when it was last seen.
    pub fn server(&self, index: u32, uid: u64) -> Option<&Arc<Server>> {
        let is_it = |server: &&Arc<Server>| server.live.uid == uid;
        let there = self.servers.get(index as usize).filter(is_it);
        there.or_else(|| self.servers.iter().find(is_it))
    }

    /// The servers that were renewed after this generation.
    pub fn renewed_since(&self, generation: u64) -> impl Iterator<Item = &Arc<Server>> {
        let servers = self
            .renewals
            .iter()
            .map(|index| &self.servers[*index as usize]);
        servers.take_while(move |server| server.renewed > generation)
    }

    /// A server as it was before operators changed it: as in the file, or as it was added.
    pub fn written<'a>(&'a self, server: &'a Server) -> Option<&'a model::Server> {
        let mut file = self.spec.servers.iter();
        let added = server.added.as_deref();
        added.or_else(|| file.find(|one| one.name == server.spec.name))
    }

    /// Whether one of its servers has this name, here or in the file.
    pub fn has_name(&self, name: &str) -> bool {
        let mut servers = self.servers.iter();
        let mut file = self.spec.servers.iter();
        servers.any(|one| *one.spec.name == *name) || file.any(|one| *one.name == *name)
    }

    /// This backend with other servers at `now`.
    #[must_use]
    pub(super) fn with_servers(&self, mut servers: Vec<Arc<Server>>, now: Instant) -> Self {
        let (fail_open, up) = settle(&mut servers, &self.spec);
        let (generation, renewals) = self.renew(&mut servers);
        let status = self.status.after((fail_open, up), now);
        Self {
            picker: picker_for(&servers, &self.spec),
            limited: is_limited(&servers),
            by_slot: is_by_slot(&servers, &self.spec),
            status,
            generation,
            renewals,
            servers,
            ..self.clone()
        }
    }

    /// Marks those of `servers`, which follow the servers of this backend, that are renewed. Returns the next
    /// generation, and the positions of all that were renewed.
    pub(super) fn renew(&self, servers: &mut [Arc<Server>]) -> (u64, Arc<[u32]>) {
        let generation = self.generation + 1;
        let known = self.servers.iter().map(|server| (server.live.uid, server));
        let known: HashMap<u64, &Arc<Server>> = known.collect();
        for server in &mut *servers {
            let before = known.get(&server.live.uid);
            if before.is_none_or(|before| server.is_renewed(before)) {
                Arc::make_mut(server).renewed = generation;
            }
        }
        let mut renewals: Vec<u32> = (0..)
            .zip(&*servers)
            .filter_map(|(index, server)| (server.renewed > 0).then_some(index))
            .collect();
        renewals.sort_by_key(|index| Reverse(servers[*index as usize].renewed));
        (generation, renewals.into())
    }

    /// How many of its servers are usable, as the checks say (`act` and `bck`).
    pub fn usable(&self) -> Usable {
        Usable::count(self.servers.iter().map(AsRef::as_ref))
    }

    /// The servers that new sessions are shared among.
    pub fn in_use(&self) -> Vec<Candidate> {
        tiers::in_use(&candidates(&self.servers, &self.spec), tiers_of(&self.spec))
    }
}

/// A picker over the usable ones of `servers`, as the backend `spec` chooses. It is to be published: the servers' loads are
/// ordered for it alone from now on.
pub(super) fn picker_for(servers: &[Arc<Server>], spec: &model::Backend) -> Picker {
    let choice = Choice {
        balance: spec.balance,
        hash_type: spec.hash_type,
        hash_on: spec.hash_on,
        hash_balance_factor: spec.hash_balance_factor,
        preserve_affinity: spec.hash_preserve_affinity,
        table_size: spec.maglev_table_size,
        draws: spec.random_draws,
        tiers: tiers_of(spec),
    };
    let live = |it: &Candidate| &servers[it.index as usize].live;
    let order = |chosen: &[Candidate]| {
        let places = chosen.iter().map(|it| (&live(it).order, it.eweight));
        let load = |position: usize| live(&chosen[position]).load();
        LoadOrder::of(&places.collect::<Vec<_>>(), load)
    };
    let all = candidates(servers, spec);
    let picker = Picker::new(&all, choice, order, |it| Arc::clone(live(it)));
    for (index, server) in (0..).zip(servers) {
        if !picker.orders(index) {
            server.live.order.leave();
        }
    }
    picker
}

fn tiers_of(spec: &model::Backend) -> Tiers {
    Tiers {
        allbackups: spec.allbackups,
        spill_below: spec.spill_below,
        min_servers: spec.min_servers,
    }
}

/// What the picker needs to know of `servers` of the backend `spec`.
fn candidates(servers: &[Arc<Server>], spec: &model::Backend) -> Vec<Candidate> {
    (0u32..)
        .zip(servers)
        .map(|(index, server)| Candidate {
            index,
            id: server.spec.id,
            key: server.hash_key(),
            name: if spec.balance == Balance::Maglev {
                maglev::of_name(&server.spec.name)
            } else {
                0
            },
            weight: server.weight,
            eweight: server.eweight(spec),
            written: server.spec.weight,
            priority: server.spec.priority,
            backup: server.spec.backup,
            usable: server.is_usable(),
            down: server.is_usable() && !server.is_up(),
        })
        .collect()
}

fn frontend_id(index: usize) -> FrontendId {
    FrontendId::first(u32::try_from(index).expect("four billion frontends do not fit memory"))
}

fn backend_id(index: usize) -> BackendId {
    BackendId::first(
        u32::try_from(index).expect("a file of four billion backends does not fit memory"),
    )
}

/// The status of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendStatus {
    /// Enough servers are usable (`min-servers`), or there is no server at all (HAProxy's rule).
    pub up: bool,
    /// Too few servers are up for the checks to be believed (`fail-open-below`).
    pub fail_open: bool,
    /// When `up` last changed, or the process started.
    pub since: Instant,
    /// Time spent down before `since`.
    pub down_before: Duration,
}

impl BackendStatus {
    /// This status when the backend fails open, or not, and is up, or not, from `now` on.
    #[must_use]
    pub fn after(self, (fail_open, up): (bool, bool), now: Instant) -> Self {
        if up == self.up {
            return Self { fail_open, ..self };
        }
        Self {
            up,
            fail_open,
            since: now,
            down_before: self.downtime(now),
        }
    }

    /// Time spent down until `now`, the current outage included.
    pub fn downtime(self, now: Instant) -> Duration {
        if self.up {
            self.down_before
        } else {
            self.down_before + now.saturating_duration_since(self.since)
        }
    }
}
