//! The configuration of rlb's, as TOML with comments.
//!
//! Each table is preceded by the place that it comes from and by what its statements do not say any
//! more. What several tables have in common stands in `[defaults]` when the files have one
//! `defaults`.

use super::choice::Choice;
use super::global::Global;
use super::proxy::{Bind, CheckKind, Keepalive, Proxy, Server, Settings, Target};
use super::report::{Outcome, Report};
use super::sections::Kind;
use super::toml_string::quote;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

/// What is written.
pub(super) struct Carried<'a> {
    pub(super) global: &'a Global,
    /// The `defaults` that all proxies have, when it is one.
    pub(super) defaults: Option<&'a Proxy>,
    pub(super) proxies: &'a [Proxy],
    pub(super) choices: &'a [Choice],
    pub(super) pages: &'a [Proxy],
    /// The files themselves have no proxy that listens.
    pub(super) silent: bool,
}

/// Keys and values of a table, in the order in which they are written.
type Pairs = Vec<(&'static str, String)>;

/// The text.
pub(super) fn toml(carried: &Carried<'_>, report: &Report) -> String {
    let mut writer = Writer {
        carried,
        report,
        notes: notes(report),
        out: String::new(),
    };
    writer.head();
    writer.process();
    writer.stats();
    writer.defaults();
    for (proxy, choice) in carried.proxies.iter().zip(carried.choices) {
        match choice {
            Choice::Carried => writer.proxy(proxy),
            Choice::Dropped(why) => writer.dropped(proxy, why),
            Choice::Page => {}
        }
    }
    writer.out
}

/// By section: the entries that a reader of the new file should know of.
fn notes(report: &Report) -> HashMap<usize, Vec<usize>> {
    let mut notes: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, entry) in report.entries.iter().enumerate() {
        if entry.outcome >= Outcome::Changed && entry.at.is_some() {
            notes.entry(entry.section).or_default().push(index);
        }
    }
    notes
}

/// A table on one line.
fn inline<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a String)>) -> String {
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(key, value)| format!("{key} = {value}"))
        .collect();
    format!("{{ {} }}", pairs.join(", "))
}

fn keepalive(keepalive: &Keepalive) -> Option<String> {
    if !keepalive.on? {
        return Some("false".to_owned());
    }
    let keys = [
        ("idle", &keepalive.idle),
        ("interval", &keepalive.interval),
        ("probes", &keepalive.probes),
    ];
    let keys: Vec<(&str, &String)> = keys
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect();
    Some(if keys.is_empty() {
        "true".to_owned()
    } else {
        inline(keys)
    })
}

/// The keys of both sides that `settings` has, those of `timeout` apart.
fn pairs(settings: &Settings, front: bool, back: bool) -> (Pairs, Pairs) {
    let mut own = Pairs::new();
    let fronts = ["maxconn", "backlog", "dontlognull", "dontlog-normal"];
    let backs = ["retries", "allbackups", "fullconn", "log-health-checks"];
    let chosen = |keys: &[&'static str], on: bool| -> Pairs {
        let keys = keys.iter().filter(|_| on);
        keys.filter_map(|key| Some((*key, settings.keys.get(key)?.clone())))
            .collect()
    };
    own.extend(chosen(&fronts, front));
    own.extend(chosen(&backs, back));
    let client = keepalive(&settings.client_keepalive).filter(|_| front);
    let server = keepalive(&settings.server_keepalive).filter(|_| back);
    // One key for both sides: the one that says more.
    let both = match (client, server) {
        (Some(client), Some(server)) if client == "false" || client == "true" => {
            Some(if server == "false" { client } else { server })
        }
        (client, server) => client.or(server),
    };
    own.extend(both.map(|value| ("keepalive", value)));
    let timeouts = [
        ("client", front),
        ("client-fin", front),
        ("server", back),
        ("server-fin", back),
        ("connect", back),
        ("connect-attempt", back),
        ("check", back),
    ];
    let timeouts = timeouts.into_iter().filter(|(_, on)| *on);
    let timeouts = timeouts.filter_map(|(key, _)| {
        let span = settings.timeouts.get(key)?;
        Some((key, quote(&span.text)))
    });
    (own, timeouts.collect())
}

/// Keys of a proxy that `[defaults]` does not have.
const OWN: [&str; 3] = ["backlog", "allbackups", "fullconn"];

struct Writer<'a> {
    carried: &'a Carried<'a>,
    report: &'a Report,
    notes: HashMap<usize, Vec<usize>>,
    out: String,
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn comment(&mut self, text: &str) {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let text: String = text.chars().map(plain).collect();
        self.line(format!("# {text}").trim_end());
    }

    fn key(&mut self, key: &str, value: &str) {
        let _ = writeln!(self.out, "{key} = {value}");
    }

    fn head(&mut self) {
        let files = self.report.files.join(", ");
        self.comment(&format!("Converted from {files} by `rlb convert`."));
        let counted = self.report.summary();
        self.comment(&format!("{counted}."));
        let all = self.report.entries.iter();
        let told: Vec<String> = all
            .filter(|entry| entry.outcome == Outcome::Information && entry.at.is_none())
            .map(|entry| entry.text.clone())
            .collect();
        if !told.is_empty() {
            self.comment("");
            self.comment("What holds because nothing is written:");
            for text in told {
                self.comment(&format!("- {text}"));
            }
        }
    }

    /// What became of the statements of a section, as comments.
    fn section(&mut self, proxy: &Proxy) {
        self.line("");
        let place = self.report.place(proxy.at);
        let place = place.rsplit_once(':').map_or("", |(place, _)| place);
        self.comment(place);
        self.told(proxy.section);
    }

    fn told(&mut self, section: usize) {
        let notes = self.notes.get(&section).cloned().unwrap_or_default();
        let mut told: HashSet<(usize, String)> = HashSet::new();
        for index in notes {
            let entry = &self.report.entries[index];
            let line = entry.at.map_or(0, |at| at.line);
            let text = format!(
                "  line {line}: {}: {}: {}",
                entry.keyword,
                entry.outcome.text(),
                entry.text
            );
            if told.insert((line, text.clone())) {
                self.comment(&text);
            }
        }
    }

    fn process(&mut self) {
        let global = self.carried.global;
        if !global.keys.is_empty() || self.carried.silent {
            self.line("");
            self.line("[global]");
            let keys = global.keys.clone();
            for (key, value) in &keys {
                self.key(key, value);
            }
            if self.carried.silent {
                self.key("allow-no-listener", "true");
            }
        }
        self.log();
        if !global.sockets.is_empty() {
            self.sockets();
        }
    }

    /// `[runtime-api]`: the first socket, and the others in a list.
    fn sockets(&mut self) {
        let Global { api, sockets, .. } = self.carried.global;
        self.line("");
        self.line("[runtime-api]");
        let ordered = |socket: &'_ BTreeMap<&'static str, String>| -> Pairs {
            let keys = ["socket", "mode", "owner", "group", "level"].into_iter();
            keys.filter_map(|key| Some((key, socket.get(key)?.clone())))
                .collect()
        };
        let (first, others) = (&sockets[0], &sockets[1..]);
        for (key, value) in ordered(first) {
            self.key(key, &value);
        }
        if !others.is_empty() {
            self.line("sockets = [");
            for socket in others {
                let keys = ordered(socket);
                let keys = inline(keys.iter().map(|(key, value)| (*key, value)));
                self.line(&format!("    {keys},"));
            }
            self.line("]");
        }
        for (key, value) in api {
            self.key(key, value);
        }
    }

    fn log(&mut self) {
        let mut targets: Vec<&Target> = Vec::new();
        let carried = self.carried.proxies.iter().zip(self.carried.choices);
        let mut logs = false;
        for (proxy, _) in carried.filter(|(_, choice)| **choice == Choice::Carried) {
            logs |= proxy.settings.logs();
            let own = proxy.settings.targets.iter();
            targets.extend(own.filter(|_| proxy.is_front()));
        }
        let mut written: Vec<Target> = Vec::new();
        for target in self.carried.global.targets.iter().chain(targets) {
            if !written.contains(target) {
                written.push(target.clone());
            }
        }
        let tag = self.carried.global.tag.clone();
        if written.is_empty() {
            return;
        }
        self.line("");
        if let Some(tag) = tag {
            self.line("[log]");
            self.key("tag", &quote(&tag));
            self.line("");
        }
        for (index, target) in written.iter().enumerate() {
            if index > 0 {
                self.line("");
            }
            self.line("[[log.target]]");
            self.key("to", &quote(&target.to));
            let mut keys = target.keys.clone();
            if !logs {
                self.comment("no proxy has a `log`: no session is written");
                keys.insert("level", quote("notice"));
            }
            for (key, value) in &keys {
                self.key(key, value);
            }
        }
    }

    fn stats(&mut self) {
        self.page();
        if let Some(delay) = &self.carried.global.withdraw_delay {
            self.line("");
            self.line("[readiness]");
            self.key("withdraw-delay", delay);
        }
    }

    fn page(&mut self) {
        let Some(first) = self.carried.pages.first() else {
            return;
        };
        for page in self.carried.pages {
            self.section(page);
        }
        self.line("[stats]");
        self.key("name", &quote(&first.name));
        let binds = self.carried.pages.iter().flat_map(|page| &page.binds);
        let binds: Vec<Bind> = binds.cloned().collect();
        self.binds(&binds);
        let keys = &first.settings.keys;
        if let Some(maxconn) = keys.get("maxconn") {
            self.key("maxconn", maxconn);
        }
        let keys = first.settings.page.keys.clone();
        for (key, value) in &keys {
            self.key(key, value);
        }
        let mut auth: Vec<String> = Vec::new();
        let mut scope: Vec<String> = Vec::new();
        for page in self.carried.pages {
            for one in &page.settings.page.auth {
                if !auth.contains(&quote(one)) {
                    auth.push(quote(one));
                }
            }
            let shown = page.settings.page.scope.iter();
            scope.extend(shown.filter(|name| self.is_shown(name)).map(|it| quote(it)));
        }
        if !auth.is_empty() {
            self.comment("a file of its own keeps a password better: \"admin:$${file:/path}\"");
            self.key("auth", &format!("[{}]", auth.join(", ")));
        }
        if !scope.is_empty() {
            scope.dedup();
            self.key("scope", &format!("[{}]", scope.join(", ")));
        }
    }

    /// Whether the statistics have a row of this name.
    fn is_shown(&self, name: &str) -> bool {
        let first = self.carried.pages.first();
        let carried = self.carried.proxies.iter().zip(self.carried.choices);
        let mut carried = carried.filter(|(_, choice)| **choice == Choice::Carried);
        first.is_some_and(|page| page.name == name) || carried.any(|(proxy, _)| proxy.name == name)
    }

    fn defaults(&mut self) {
        let Some(defaults) = self.carried.defaults else {
            return;
        };
        let (pairs, timeouts) = inherited(&defaults.settings);
        if pairs.is_empty() && timeouts.is_empty() {
            return;
        }
        self.section(defaults);
        self.line("[defaults]");
        self.table(&pairs, &timeouts);
    }

    fn table(&mut self, pairs: &Pairs, timeouts: &Pairs) {
        for (key, value) in pairs {
            self.key(key, value);
        }
        if !timeouts.is_empty() {
            let timeouts = timeouts.iter().map(|(key, value)| (*key, value));
            self.key("timeout", &inline(timeouts));
        }
    }

    fn dropped(&mut self, proxy: &Proxy, why: &str) {
        self.line("");
        let place = self.report.place(proxy.at);
        let place = place.rsplit_once(':').map_or("", |(place, _)| place);
        self.comment(&format!(
            "{place}: {} is not carried over: {why}",
            proxy.what()
        ));
    }

    fn proxy(&mut self, proxy: &Proxy) {
        let leads = proxy.target().is_some() && proxy.is_front();
        let (front, back) = match proxy.kind {
            Kind::Frontend => (true, false),
            Kind::Listen => (proxy.is_front(), !leads),
            _ => (false, true),
        };
        self.section(proxy);
        self.line(match (front, back) {
            (true, true) => "[[listen]]",
            (true, false) => "[[frontend]]",
            _ => "[[backend]]",
        });
        self.key("name", &quote(&proxy.name));
        if let Some(id) = &proxy.id {
            self.key("id", id);
        }
        if front {
            self.binds(&proxy.binds);
            if proxy.settings.disabled {
                self.key("disabled", "true");
            }
        }
        if let (false, Some(target)) = (back, proxy.target()) {
            self.key("default-backend", &quote(target));
        }
        let (mut pairs, mut timeouts) = pairs(&proxy.settings, front, back);
        if let Some(defaults) = self.carried.defaults {
            let (common, common_timeouts) = inherited(&defaults.settings);
            pairs.retain(|pair| !common.contains(pair));
            timeouts.retain(|pair| !common_timeouts.contains(pair));
        }
        self.table(&pairs, &timeouts);
        if back {
            self.servers(proxy);
        }
    }

    fn binds(&mut self, binds: &[Bind]) {
        let one = |bind: &Bind| {
            let address = quote(&bind.address);
            if bind.keys.is_empty() {
                return address;
            }
            let keys = bind.keys.iter().map(|(key, value)| (*key, value));
            inline(std::iter::once(("address", &address)).chain(keys))
        };
        if let [bind] = binds {
            return self.key("bind", &one(bind));
        }
        let all: Vec<String> = binds.iter().map(one).collect();
        self.list("bind", &all);
    }

    fn list(&mut self, key: &str, items: &[String]) {
        let _ = writeln!(self.out, "{key} = [");
        for item in items {
            let _ = writeln!(self.out, "  {item},");
        }
        self.line("]");
    }

    fn servers(&mut self, proxy: &Proxy) {
        let servers = &proxy.servers;
        let rules = proxy.settings.check == CheckKind::Rules;
        let checks: Vec<Option<String>> =
            servers.iter().map(|server| check(server, rules)).collect();
        let same = checks.windows(2).all(|pair| pair[0] == pair[1]);
        let common = checks.first().cloned().flatten().filter(|_| same);
        if let Some(check) = &common {
            self.key("check", check);
        }
        let shared = shared(servers);
        if !shared.is_empty() {
            let keys = shared.iter().map(|(key, value)| (*key, value));
            self.key("default-server", &inline(keys));
        }
        let line = |(server, check): (&Server, &Option<String>)| {
            let mut keys: Pairs = vec![
                ("name", quote(&server.name)),
                ("address", quote(&server.address)),
            ];
            let own = server.keys.keys.iter();
            let own = own.filter(|(key, value)| shared.get(*key) != Some(*value));
            keys.extend(own.map(|(key, value)| (*key, value.clone())));
            if common.is_none() {
                keys.extend(check.clone().map(|check| ("check", check)));
            }
            inline(keys.iter().map(|(key, value)| (*key, value)))
        };
        let lines: Vec<String> = servers.iter().zip(&checks).map(line).collect();
        if !lines.is_empty() {
            self.list("servers", &lines);
        }
    }
}

/// The `check` of a server; `rules`: its backend has `option tcp-check`.
fn check(server: &Server, rules: bool) -> Option<String> {
    if !server.keys.check {
        return None;
    }
    if server.keys.checks.is_empty() {
        let word = if rules {
            quote("tcp")
        } else {
            "true".to_owned()
        };
        return Some(word);
    }
    let order = [
        "interval",
        "fast-interval",
        "down-interval",
        "rise",
        "fall",
        "timeout",
        "port",
        "address",
    ];
    let keys = order.into_iter();
    let keys = keys.filter_map(|key| Some((key, server.keys.checks.get(key)?)));
    let kind = quote("tcp");
    let kind = rules.then_some(("type", &kind));
    Some(inline(kind.into_iter().chain(keys)))
}

/// The keys that all of several servers have.
fn shared(servers: &[Server]) -> BTreeMap<&'static str, String> {
    let [first, rest @ ..] = servers else {
        return BTreeMap::new();
    };
    if rest.is_empty() {
        return BTreeMap::new();
    }
    let mut shared = first.keys.keys.clone();
    shared.retain(|key, value| {
        let common = ["weight", "on-marked-down", "on-marked-up"].contains(key);
        common
            && rest
                .iter()
                .all(|server| server.keys.keys.get(key) == Some(value))
    });
    shared
}

/// What of a `defaults` stands in `[defaults]`.
fn inherited(settings: &Settings) -> (Pairs, Pairs) {
    let (mut pairs, timeouts) = pairs(settings, true, true);
    let one_sided = keepalive(&settings.client_keepalive) != keepalive(&settings.server_keepalive);
    pairs.retain(|(key, _)| match *key {
        "keepalive" => !one_sided,
        key => !OWN.contains(&key),
    });
    (pairs, timeouts)
}
