//! A proxy as its statements make it: what it inherits, what it has of its own, and the words in it
//! that rlb has no key for.
//!
//! Plain data; `statement` fills it in, `choice` says what is carried over, `write` writes it.

use super::report::At;
use super::sections::{Kind, Section};
use crate::config::haproxy::Words;
use crate::config::model::PageAdmin;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A word of the table in a statement.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// Its entry in the report.
    pub(super) entry: usize,
    /// What the table says of it.
    pub(super) row: &'static Words,
    /// The sides of a proxy that it is about.
    pub(super) front: bool,
    pub(super) back: bool,
}

/// A mode of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Tcp,
    Http,
}

/// The kind of health check of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum CheckKind {
    #[default]
    Connection,
    /// `option tcp-check`; its rules ask for more than a connection.
    Rules,
    /// `option httpchk`.
    Http,
    /// One that rlb has a type for.
    Preset,
    /// Another one.
    Other,
}

/// A rule of `http-check`.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// Keys of a step, as rlb writes them.
    Step(Vec<(&'static str, String)>),
    /// Those of a request, and its comment; without keys it is the one of the check.
    Request(Vec<(&'static str, String)>, Option<String>),
}

impl Rule {
    /// The keys of a step.
    fn step(&self) -> Option<&Vec<(&'static str, String)>> {
        match self {
            Self::Step(keys) => Some(keys),
            Self::Request(..) => None,
        }
    }
}

/// What `option httpchk` and `http-check` say.
#[derive(Debug, Clone, Default)]
pub(super) struct HttpRules {
    /// Keys of the check's request, as rlb writes them.
    pub(super) request: Vec<(&'static str, String)>,
    pub(super) rules: Vec<(Rule, At)>,
    pub(super) disable_on_404: bool,
    pub(super) send_state: bool,
}

/// TCP keepalive of one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Keepalive {
    pub(super) on: Option<bool>,
    pub(super) idle: Option<String>,
    pub(super) interval: Option<String>,
    pub(super) probes: Option<String>,
}

/// What a server says, or a `default-server`.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerKeys {
    pub(super) check: bool,
    /// Keys of its `check` table, as rlb writes them.
    pub(super) checks: BTreeMap<&'static str, String>,
    /// Its other keys, as rlb writes them.
    pub(super) keys: BTreeMap<&'static str, String>,
    /// TLVs of the PROXY header, as rlb writes them.
    pub(super) tlvs: Vec<String>,
    /// `inter` in milliseconds.
    pub(super) interval: Option<u64>,
    pub(super) tls: ServerTls,
    pub(super) marks: Vec<Mark>,
}

/// What a server says of TLS, or a `default-server`, until it is known whether its check speaks it.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerTls {
    /// `check-ssl`
    pub(super) on: bool,
    /// Keys of its check, as rlb writes them.
    pub(super) keys: BTreeMap<&'static str, String>,
    /// The same of sessions, which checks have where they have none of their own.
    pub(super) of_traffic: BTreeMap<&'static str, String>,
    /// Where it is said, by the entries of the report.
    pub(super) entries: Vec<usize>,
    /// Where older versions are allowed than rlb speaks.
    pub(super) oldest: Vec<usize>,
    /// What checks cannot have.
    pub(super) marks: Vec<Mark>,
}

/// A server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) at: At,
    pub(super) name: String,
    /// Content of the TOML string.
    pub(super) address: String,
    pub(super) keys: ServerKeys,
    /// It is checked, and only a rule can have the port to be checked at.
    pub(super) needs_port: bool,
}

/// A listening address.
#[derive(Debug, Clone)]
pub(super) struct Bind {
    pub(super) at: At,
    /// Content of the TOML string.
    pub(super) address: String,
    /// The other keys, as rlb writes them.
    pub(super) keys: BTreeMap<&'static str, String>,
}

impl Bind {
    /// Whether it is a TCP address: the statistics listen nowhere else.
    pub(super) fn is_tcp(&self) -> bool {
        let mut others = ["unix:", "abns@", "fd@"].iter();
        !others.any(|begin| self.address.starts_with(begin))
    }

    /// Whether it is a range of ports.
    pub(super) fn is_range(&self) -> bool {
        let port = self.address.rsplit_once(':').map(|(_, port)| port);
        self.is_tcp() && port.is_some_and(|port| port.contains('-'))
    }
}

/// An address, and the namespace and the device that it is in.
pub(super) type BindPlace = (String, Option<String>, Option<String>);

/// Why a page that is valid is not carried over.
#[derive(Debug, Clone)]
pub(super) struct PageNotShown {
    pub(super) why: String,
    /// HAProxy shows it, and rlb cannot.
    pub(super) haproxy_shows: bool,
}

/// The statistics page of a proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Page {
    pub(super) enabled: bool,
    /// It has a statement in the proxy itself.
    pub(super) own: bool,
    /// Keys of `[stats]` but `auth` and `scope`, as rlb writes them.
    pub(super) keys: BTreeMap<&'static str, String>,
    /// Its `uri` cannot be had.
    pub(super) not_shown: Option<PageNotShown>,
    /// A user of it has no name or no password.
    pub(super) open_user: Option<PageNotShown>,
    /// Contents of TOML strings.
    pub(super) auth: Vec<String>,
    /// The users in `auth`.
    pub(super) users: HashSet<String>,
    pub(super) scope: Vec<String>,
    /// Who may change servers, and the entries of the statements that say so.
    pub(super) admin: PageAdmin,
    pub(super) admin_entries: Vec<usize>,
    /// The statements, by their entries.
    pub(super) entries: Vec<usize>,
    /// The first statement of the proxy or of its `defaults` that is in error, whatever it is about. Without it more
    /// could be seen or changed on the page, and by more people.
    pub(super) first_error: Option<(Arc<str>, At)>,
}

/// `http-request use-service prometheus-exporter`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exporter {
    pub(super) entry: usize,
    /// It answers at `/metrics`, whoever asks.
    pub(super) is_for_all: bool,
}

/// A condition about the number of a backend's servers that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServersLeft {
    /// The backend; `None`: that of the proxy itself.
    pub(super) backend: Option<String>,
    /// Whether it holds when there is one, or when there is none.
    pub(super) any: bool,
}

/// A rule that such a condition decides alone.
#[derive(Debug, Clone)]
pub(super) struct SorryRule {
    pub(super) condition: ServersLeft,
    /// The name of the ACL that says it. It has no further lines, also behind the rule.
    pub(super) acl: Option<String>,
    /// The entry of the rule.
    pub(super) entry: usize,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// Content of the TOML string.
    pub(super) to: String,
    pub(super) keys: BTreeMap<&'static str, String>,
}

/// What a proxy inherits from its `defaults`, and changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    /// `maxconn`, `retries`, `dontlognull` …, as rlb writes them.
    pub(super) keys: BTreeMap<&'static str, String>,
    /// Whether `retry-on` has failed connects among its words; `None`: there is none.
    pub(super) retries_connects: Option<bool>,
    /// Milliseconds and text of each timeout of rlb's.
    pub(super) timeouts: BTreeMap<&'static str, super::units::Span>,
    /// `timeout tunnel`, and its entry.
    pub(super) tunnel: Option<(super::units::Span, usize)>,
    pub(super) client_keepalive: Keepalive,
    pub(super) server_keepalive: Keepalive,
    /// The networks of `tcp-request connection expect-proxy`; empty: all clients.
    pub(super) expect_proxy: Option<Vec<String>>,
    /// A rule before it may have accepted a client.
    pub(super) accepts_early: bool,
    /// The algorithm, and its entry.
    pub(super) balance: Option<(String, usize)>,
    pub(super) check: CheckKind,
    /// The statements about checks, for which kind they are, and what of them rlb does not have.
    pub(super) checks: Vec<(usize, CheckKind, Option<Cow<'static, str>>)>,
    /// The rules of `tcp-check` as steps, and where they stand.
    pub(super) tcp_rules: Vec<(Vec<(&'static str, String)>, At)>,
    /// In the heap, as what follows: there may be very many proxies.
    pub(super) http: Box<HttpRules>,
    /// The keys of a check that rlb has a type for.
    pub(super) preset: Vec<(&'static str, String)>,
    pub(super) server: Box<ServerKeys>,
    pub(super) default_backend: Option<(String, At)>,
    /// Own log targets, and whether those of `global` hold too.
    pub(super) targets: Vec<Target>,
    pub(super) log_global: bool,
    /// The formats that hold, by their keywords, and where they are.
    pub(super) formats: BTreeMap<&'static str, (String, At)>,
    pub(super) page: Box<Page>,
    pub(super) exporters: Vec<Exporter>,
    pub(super) disabled: bool,
    pub(super) marks: Vec<Mark>,
}

impl Settings {
    /// Whether checks ask what its statements say: rlb has all of it.
    pub(super) fn asks(&self) -> bool {
        let mut about = self
            .checks
            .iter()
            .filter(|(_, kind, _)| *kind == self.check);
        about.all(|(_, _, lacks)| lacks.is_none())
    }

    /// Whether states of servers are kept in a file for them alone.
    pub(super) fn has_own_states(&self) -> bool {
        let from = self.keys.get("load-server-state-from-file");
        from.is_some_and(|from| from == "\"local\"")
    }

    /// Whether checks connect by rules alone that have ports.
    pub(super) fn connects_with_ports(&self) -> bool {
        let steps: Vec<&Vec<(&'static str, String)>> = match self.check {
            CheckKind::Rules => self.tcp_rules.iter().map(|(step, _)| step).collect(),
            CheckKind::Http => {
                let rules = self.http.rules.iter();
                rules.filter_map(|(rule, _)| rule.step()).collect()
            }
            _ => return false,
        };
        let has = |step: &[(&'static str, String)], key| step.iter().any(|(name, _)| *name == key);
        let mut connects = steps.iter().filter(|step| has(step, "connect")).peekable();
        connects.peek().is_some() && connects.all(|step| has(step, "port"))
    }

    pub(super) fn logs(&self) -> bool {
        self.log_global || !self.targets.is_empty()
    }
}

/// A proxy, or a `defaults`.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) kind: Kind,
    /// Number of its section in the report.
    pub(super) section: usize,
    pub(super) at: At,
    pub(super) name: String,
    /// Entry of its head.
    pub(super) entry: usize,
    /// The `defaults` that it has, among all of them.
    pub(super) defaults: Option<usize>,
    pub(super) settings: Settings,
    pub(super) id: Option<String>,
    pub(super) binds: Vec<Bind>,
    /// The names of its binds. Only statements ask for them.
    pub(super) bind_names: HashSet<String>,
    /// The numbers of its binds. Only statements ask for them.
    pub(super) bind_ids: HashSet<i64>,
    /// The names of its servers, those in error too. Only statements ask for them.
    pub(super) server_names: HashSet<String>,
    /// The servers that `use-server` names. Only statements ask for them.
    pub(super) used_servers: Vec<(String, At)>,
    /// Its binds by their places. Only statements ask for them.
    pub(super) places: HashMap<BindPlace, usize>,
    /// The names of its ACLs. Only statements ask for them.
    pub(super) acls: HashSet<String>,
    /// Those that ask how many servers can be used; `None`: several have the name. Only statements ask for them.
    pub(super) server_acls: HashMap<String, Option<ServersLeft>>,
    /// It has a `bind`, valid or not.
    pub(super) listens: bool,
    pub(super) servers: Vec<Server>,
    /// The names of its servers, and the number with which a name that is taken is tried next.
    pub(super) names: HashMap<String, u32>,
    /// It has rules of `http-check`, and of `tcp-check`, of its own.
    pub(super) own_rules: [bool; 2],
    /// Options that a `no` has taken back, and how many marks stood before it.
    pub(super) taken_back: HashMap<String, usize>,
    /// Backends that conditions lead to.
    pub(super) routes: Vec<(String, At)>,
    /// The last of those rules, if a server that can be used decides it.
    pub(super) sorry_rule: Option<SorryRule>,
    /// The backend of its only rule, which is `sorry-backend` of the one that it leads to.
    pub(super) sorry_backend: Option<String>,
    /// The backend of the first `use_backend` without a condition: it gets what no condition before it
    /// takes.
    pub(super) leads_to: Option<(String, At)>,
    /// It took the place of `default_backend`.
    pub(super) leads_by_route: bool,
    /// Entry of its own `default_backend`.
    pub(super) default_entry: Option<usize>,
    /// Backends that it names and never asks, and by which word; HAProxy demands that they exist.
    pub(super) named: Vec<(String, At, &'static str)>,
    /// What in it cannot be read, so that it is not carried over.
    pub(super) unreadable: Option<&'static str>,
}

impl Proxy {
    /// One without statements, that has these settings of its `defaults`.
    pub(super) fn new(
        section: &Section,
        entry: usize,
        base: Option<usize>,
        settings: Settings,
    ) -> Self {
        let head = &section.head;
        let anonymous = section.kind == Kind::Defaults && head.word(1) == "from";
        let name = if anonymous { "" } else { head.word(1) };
        Self {
            kind: section.kind,
            section: section.number,
            at: section.head.at,
            name: name.to_owned(),
            entry,
            defaults: base,
            settings,
            id: None,
            binds: Vec::new(),
            bind_names: HashSet::new(),
            bind_ids: HashSet::new(),
            server_names: HashSet::new(),
            used_servers: Vec::new(),
            places: HashMap::new(),
            acls: HashSet::new(),
            server_acls: HashMap::new(),
            listens: false,
            servers: Vec::new(),
            names: HashMap::new(),
            own_rules: [false; 2],
            taken_back: HashMap::new(),
            routes: Vec::new(),
            sorry_rule: None,
            sorry_backend: None,
            leads_to: None,
            leads_by_route: false,
            default_entry: None,
            named: Vec::new(),
            unreadable: None,
        }
    }

    /// Lets go of what only statements ask for, and of room for more.
    pub(super) fn forget_names(&mut self) {
        self.servers.shrink_to_fit();
        self.binds.shrink_to_fit();
        self.names = HashMap::new();
        self.bind_names = HashSet::new();
        self.bind_ids = HashSet::new();
        self.places = HashMap::new();
        self.acls = HashSet::new();
    }

    /// Whether nothing but the page of the statistics answers here.
    pub(super) fn is_page(&self) -> bool {
        self.settings.mode == Mode::Http
            && self.settings.page.enabled
            && self.kind != Kind::Backend
            && self.servers.is_empty()
            && self.routes.is_empty()
            && self.target().is_none()
            && self.listens
    }

    /// Whether a backend, or a `listen` that does not listen, answers with the page of the statistics and has no servers.
    pub(super) fn is_page_of_frontends(&self) -> bool {
        self.settings.mode == Mode::Http
            && self.settings.page.enabled
            && self.is_back()
            && !self.is_front()
            && self.servers.is_empty()
            && !self.settings.disabled
    }

    pub(super) fn is_front(&self) -> bool {
        self.kind == Kind::Frontend || (self.kind == Kind::Listen && self.listens)
    }

    pub(super) fn is_back(&self) -> bool {
        matches!(self.kind, Kind::Backend | Kind::Listen)
    }

    /// Whether it is a frontend for TCP, and `backend`, which it leads to, for HTTP.
    pub(super) fn leads_to_http(&self, backend: &Self) -> bool {
        let front = self.is_front() && self.settings.mode == Mode::Tcp;
        front && backend.settings.mode == Mode::Http
    }

    /// As HAProxy's word calls it.
    pub(super) fn what(&self) -> String {
        let kind = match self.kind {
            Kind::Frontend => "frontend",
            Kind::Backend => "backend",
            Kind::Listen => "listen",
            _ => "defaults",
        };
        format!("{kind} `{}`", self.name)
    }

    /// Where its connections go when nothing else decides.
    pub(super) fn target(&self) -> Option<&str> {
        let named = self.settings.default_backend.as_ref();
        named.map(|(name, _)| name.as_str())
    }

    /// The marks of both sides that it has, inherited ones too.
    pub(super) fn marks(&self) -> impl Iterator<Item = &Mark> {
        let (front, back) = (self.is_front(), self.is_back());
        let marks = self.settings.marks.iter();
        let own = marks.filter(move |mark| (mark.front && front) || (mark.back && back));
        own.chain(self.servers.iter().flat_map(|server| &server.keys.marks))
    }

    /// Whether a server of it is checked.
    pub(super) fn is_checked(&self) -> bool {
        self.servers.iter().any(|server| server.keys.check)
    }
}
