//! The configuration of rlb's, as TOML with comments.
//!
//! Each table is preceded by the place that it comes from and by what its statements do not say any
//! more. What several tables have in common stands in `[defaults]` when the files have one
//! `defaults`. Each line is noted with the place of the statement that it comes from, so that a
//! warning about it can name that one.

mod keys;
mod statements;

use super::Origin;
use super::choice::Choice;
use super::global::Global;
use super::proxy::{Bind, Proxy, Server, Target};
use super::report::{At, Outcome, Report};
use super::sections::Kind;
use super::socket::Socket;
use super::toml_string::quote;
use keys::{Pairs, check, inherited, inline, pairs, question, shared};
use statements::StatementIndex;
use std::collections::HashSet;

/// What is written.
pub(super) struct Carried<'a> {
    pub(super) global: &'a Global,
    /// The `defaults` that all proxies have, when it is one.
    pub(super) defaults: Option<&'a Proxy>,
    pub(super) proxies: &'a [Proxy],
    pub(super) choices: &'a [Choice],
    pub(super) pages: &'a [Proxy],
    /// No proxy listens, and that is meant.
    pub(super) silent: bool,
}

/// The configuration, and where each of its lines comes from.
pub(super) struct Written {
    pub(super) toml: String,
    pub(super) lines: Vec<Origin>,
}

/// Writes it.
pub(super) fn toml(carried: &Carried<'_>, report: &Report) -> Written {
    let mut writer = Writer {
        carried,
        report,
        notes: notes(report),
        statements: StatementIndex::of(report),
        from: (0, None),
        out: String::new(),
        lines: Vec::new(),
    };
    writer.head();
    writer.process();
    writer.stats();
    writer.defaults();
    let asked = asked(carried);
    for (proxy, choice) in carried.proxies.iter().zip(carried.choices) {
        match choice {
            Choice::Carried => writer.proxy(proxy, asked.contains(proxy.name.as_str())),
            Choice::Dropped(why) => writer.dropped(proxy, why),
            Choice::Page => {}
        }
    }
    Written {
        toml: writer.out,
        lines: writer.lines,
    }
}

/// The names of the backends that others which are carried over lead to.
fn asked<'a>(carried: &Carried<'a>) -> HashSet<&'a str> {
    let proxies = carried.proxies.iter().zip(carried.choices);
    let proxies = proxies.filter(|(_, choice)| **choice == Choice::Carried);
    let targets = proxies.filter_map(|(proxy, _)| {
        let target = proxy.target().filter(|_| proxy.is_front());
        target.filter(|target| *target != proxy.name)
    });
    targets.collect()
}

/// By section: the entries that a reader of the new file should know of.
fn notes(report: &Report) -> Vec<Vec<usize>> {
    report.by_section(|entry| entry.outcome >= Outcome::Changed && entry.at.is_some())
}

struct Writer<'a> {
    carried: &'a Carried<'a>,
    report: &'a Report,
    notes: Vec<Vec<usize>>,
    statements: StatementIndex<'a>,
    /// The section that is being written, and the place of its head.
    from: (usize, Option<At>),
    out: String,
    lines: Vec<Origin>,
}

impl<'a> Writer<'a> {
    fn line(&mut self, text: &str) {
        self.line_from(text, self.from.1);
    }

    fn line_from(&mut self, text: &str, at: Option<At>) {
        self.out.push_str(text);
        self.end_line(at.map_or(Origin::Nothing, Origin::Statement));
    }

    fn end_line(&mut self, origin: Origin) {
        self.out.push('\n');
        self.lines.push(origin);
    }

    fn comment(&mut self, text: &str) {
        self.out.push_str("# ");
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        self.out.extend(text.chars().map(plain));
        self.out.truncate(self.out.trim_end_matches(' ').len());
        self.end_line(self.from.1.map_or(Origin::Nothing, Origin::Statement));
    }

    fn key(&mut self, key: &str, value: &str) {
        let at = self.statements.of_key(self.from.0, key);
        self.key_from(key, value, at.or(self.from.1));
    }

    fn key_from(&mut self, key: &str, value: &str, at: Option<At>) {
        for part in [key, " = ", value] {
            self.out.push_str(part);
        }
        self.end_line(at.map_or(Origin::Nothing, Origin::Statement));
    }

    fn head(&mut self) {
        let files = self.report.files.join(", ");
        self.comment(&format!("Converted from {files} by `rlb convert`."));
        let counted = self.report.summary();
        self.comment(&format!("{counted}."));
        let all = self.report.entries.iter();
        let told: Vec<&str> = all
            .filter(|entry| entry.outcome == Outcome::Information && entry.at.is_none())
            .map(|entry| &*entry.text)
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
        self.from = (proxy.section, Some(proxy.at));
        let place = self.report.place(proxy.at);
        let place = place.rsplit_once(':').map_or("", |(place, _)| place);
        self.comment(place);
        self.told(proxy.section);
    }

    fn told(&mut self, section: usize) {
        let notes = self.notes.get_mut(section).map(std::mem::take);
        // Entries of one line stand one after the other.
        let mut of_line: (usize, Vec<String>) = (0, Vec::new());
        for index in notes.unwrap_or_default() {
            let entry = &self.report.entries[index];
            let line = entry.at.map_or(0, |at| at.line);
            if of_line.0 != line {
                of_line = (line, Vec::new());
            }
            let text = format!(
                "  line {line}: {}: {}: {}",
                entry.keyword,
                entry.outcome.text(),
                entry.text
            );
            if !of_line.1.contains(&text) {
                self.comment(&text);
                of_line.1.push(text);
            }
        }
    }

    fn process(&mut self) {
        let global = self.carried.global;
        if !global.keys.is_empty() || self.carried.silent {
            self.line("");
            self.from = (global.section, None);
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
        let ordered = |socket: &Socket| -> Pairs {
            let keys = ["socket", "mode", "owner", "group", "level"].into_iter();
            keys.filter_map(|key| Some((key, socket.keys.get(key)?.clone())))
                .collect()
        };
        let (first, others) = (&sockets[0], &sockets[1..]);
        for (key, value) in ordered(first) {
            self.key_from(key, &value, Some(first.at));
        }
        if !others.is_empty() {
            self.line("sockets = [");
            for socket in others {
                let keys = ordered(socket);
                let keys = inline(keys.iter().map(|(key, value)| (*key, value)));
                self.line_from(&format!("    {keys},"), Some(socket.at));
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
        let mut known: HashSet<&Target> = HashSet::new();
        let targets = self.carried.global.targets.iter().chain(targets);
        let written = targets.filter(|target| known.insert(*target)).cloned();
        let written: Vec<Target> = written.collect();
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
        self.pages();
        if let Some(delay) = &self.carried.global.withdraw_delay {
            self.line("");
            self.line("[readiness]");
            self.key("withdraw-delay", delay);
        }
    }

    /// `[stats]`, and a `[[stats.page]]` for each further page.
    fn pages(&mut self) {
        let shown = self.shown();
        for (index, page) in self.carried.pages.iter().enumerate() {
            self.section(page);
            if index == 0 {
                self.line("[stats]");
                self.key("name", &quote(&page.name));
            } else {
                self.line("[[stats.page]]");
            }
            self.binds(&page.binds);
            let maxconn = page.settings.keys.get("maxconn");
            if let Some(maxconn) = maxconn.filter(|_| index == 0) {
                self.key("maxconn", maxconn);
            }
            self.page(page, &shown);
        }
    }

    /// The keys of a page.
    fn page(&mut self, page: &Proxy, shown: &HashSet<&str>) {
        let page = &page.settings.page;
        for (key, value) in &page.keys {
            self.key(key, value);
        }
        let mut known: HashSet<&str> = HashSet::new();
        let auth = page.auth.iter().filter(|one| known.insert(one.as_str()));
        let auth: Vec<String> = auth.map(|one| quote(one)).collect();
        if !auth.is_empty() {
            self.comment("a file of its own keeps a password better: \"admin:$${file:/path}\"");
            self.key("auth", &format!("[{}]", auth.join(", ")));
        }
        let mut known: HashSet<&str> = HashSet::new();
        let scope = page.scope.iter().map(String::as_str);
        let scope = scope.filter(|name| shown.contains(name) && known.insert(name));
        let mut scope: Vec<String> = scope.map(quote).collect();
        let own = self.carried.pages.first().map(|page| page.name.as_str());
        if let (true, false, Some(own)) = (scope.is_empty(), page.scope.is_empty(), own) {
            // None of them is carried over: no scope would show all.
            scope.push(quote(own));
        }
        if !scope.is_empty() {
            self.key("scope", &format!("[{}]", scope.join(", ")));
        }
    }

    /// The names that the statistics have a row of.
    fn shown(&self) -> HashSet<&'a str> {
        let carried = self.carried.proxies.iter().zip(self.carried.choices);
        let carried = carried.filter(|(_, choice)| **choice == Choice::Carried);
        let carried = carried.map(|(proxy, _)| proxy.name.as_str());
        let page = self.carried.pages.first().map(|page| page.name.as_str());
        page.into_iter().chain(carried).collect()
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
        if timeouts.is_empty() {
            return;
        }
        let pairs = timeouts.iter().map(|(key, value)| (*key, value));
        let line = format!("timeout = {}", inline(pairs));
        let origin = timeouts.iter().filter_map(|(key, _)| {
            let column = line.find(&format!(" {key} = "))?;
            let word = format!("timeout {key}");
            let at = self.statements.of_statement(self.from.0, &word);
            Some((column, at.or(self.from.1)?))
        });
        let origin = origin.collect();
        self.out.push_str(&line);
        self.end_line(Origin::Parts(origin));
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

    /// A proxy. A `listen` that leads elsewhere, and that others lead to, becomes two tables.
    fn proxy(&mut self, proxy: &Proxy, is_asked: bool) {
        let target = proxy.target().filter(|target| *target != proxy.name);
        let leads = target.is_some() && proxy.is_front();
        let (front, back) = match proxy.kind {
            Kind::Frontend => (true, false),
            Kind::Listen => (proxy.is_front(), !leads),
            _ => (false, true),
        };
        self.section(proxy);
        self.sides(proxy, (front, back));
        if proxy.kind == Kind::Listen && !back && is_asked {
            self.line("");
            self.sides(proxy, (false, true));
        }
    }

    /// `[check.NAME]` for the checks of a proxy whose steps need a table of their own.
    fn named_check(&mut self, proxy: &Proxy) {
        let (keys, steps) = question(&proxy.settings);
        if steps.is_empty() || !proxy.is_checked() {
            return;
        }
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let name = if proxy.name.bytes().all(bare) {
            proxy.name.clone()
        } else {
            quote(&proxy.name)
        };
        self.line(&format!("[check.{name}]"));
        for (key, value) in &keys {
            self.key(key, value);
        }
        self.list("steps", &steps);
        self.line("");
    }

    /// The table of one side of a proxy, or of both.
    fn sides(&mut self, proxy: &Proxy, (front, back): (bool, bool)) {
        if back {
            self.named_check(proxy);
        }
        self.line(match (front, back) {
            (true, true) => "[[listen]]",
            (true, false) => "[[frontend]]",
            _ => "[[backend]]",
        });
        self.key("name", &quote(&proxy.name));
        // Of two tables the frontend has the number.
        if let Some(id) = proxy.id.as_ref().filter(|_| front || !proxy.is_front()) {
            self.key("id", id);
        }
        if front {
            self.binds(&proxy.binds);
            if proxy.settings.disabled {
                self.key("disabled", "true");
            }
        }
        if let (true, false, Some(target)) = (front, back, proxy.target()) {
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
        let one = |bind: &Bind| -> String {
            let address = quote(&bind.address);
            if bind.keys.is_empty() {
                return address;
            }
            let keys = bind.keys.iter().map(|(key, value)| (*key, value));
            inline(std::iter::once(("address", &address)).chain(keys))
        };
        if let [bind] = binds {
            return self.key_from("bind", &one(bind), Some(bind.at));
        }
        let all: Vec<(String, At)> = binds.iter().map(|bind| (one(bind), bind.at)).collect();
        self.list("bind", &all);
    }

    fn list(&mut self, key: &str, items: &[(String, At)]) {
        let first = items.first().map(|(_, at)| *at);
        self.key_from(key, "[", first);
        for (item, at) in items {
            for part in ["  ", item, ","] {
                self.out.push_str(part);
            }
            self.end_line(Origin::Statement(*at));
        }
        self.line("]");
    }

    fn servers(&mut self, proxy: &Proxy) {
        let servers = &proxy.servers;
        let (mut asked, steps) = question(&proxy.settings);
        if !steps.is_empty() {
            asked = vec![("use", quote(&proxy.name))];
        }
        let checks: Vec<Option<String>> =
            servers.iter().map(|server| check(server, &asked)).collect();
        let same = checks.windows(2).all(|pair| pair[0] == pair[1]);
        let common = checks.first().cloned().flatten().filter(|_| same);
        let first = servers.first().map(|server| server.at);
        if let Some(check) = &common {
            self.key_from("check", check, first);
        }
        let shared = shared(servers);
        if !shared.is_empty() {
            let keys = shared.iter().map(|(key, value)| (*key, value));
            self.key_from("default-server", &inline(keys), first);
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
            let keys = keys.iter().map(|(key, value)| (*key, value));
            (inline(keys), server.at)
        };
        let lines: Vec<(String, At)> = servers.iter().zip(&checks).map(line).collect();
        if !lines.is_empty() {
            self.list("servers", &lines);
        }
    }
}
