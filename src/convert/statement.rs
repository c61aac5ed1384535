//! The statements of a proxy, one after another.

use super::context::{Context, keyword};
use super::proxy::{Keepalive, Mark, Mode, Proxy};
use super::report::Outcome;
use super::sections::{Kind, Modifier, Statement};
use super::toml_string::quote;
use super::units::Unit;
use super::{
    acl, argument_count, balance, bind, check, defaults_words, expect_proxy, format, log,
    one_sided, page, retry_on, rules, server, sorry, source, timeouts,
};
use crate::config::haproxy::{Becomes, Place};

/// Reads one statement into `proxy`.
pub(super) fn read(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let keyword = keyword(statement);
    if is_refused(context, proxy, statement, &keyword) {
        return;
    }
    format::note(proxy, statement);
    match statement.word(0) {
        "mode" => mode(context, proxy, statement),
        "bind" if proxy.kind == Kind::Backend => {
            one_sided::bind_of_backend(context, proxy, statement);
        }
        "bind" => bind::read(context, proxy, statement, 1),
        "server" | "server-template" => server::read(context, proxy, statement),
        "default-server" => server::defaults(context, proxy, statement),
        "default_backend" | "use_backend" => route(context, proxy, statement, &keyword),
        "balance" => balance::read(context, proxy, statement),
        "hash-type" => balance::hash_type(context, proxy, statement),
        "hash-balance-factor" => balance::factor(context, proxy, statement),
        "hash-preserve-affinity" => balance::preserve_affinity(context, proxy, statement),
        "maxconn" | "backlog" | "fullconn" | "retries" | "id" => {
            number(context, proxy, statement);
        }
        "load-server-state-from-file" | "server-state-file-name" => {
            states(context, proxy, statement);
        }
        "retry-on" if retry_on::read(context, proxy, statement) => {}
        "rate-limit" => rate_limit(context, proxy, statement),
        "source" => source::of_proxy(context, proxy, statement),
        "timeout" | "clitimeout" | "contimeout" | "srvtimeout" => {
            if !timeouts::read(context, proxy, statement) {
                by_table(context, proxy, statement, &keyword);
            }
        }
        word if word.starts_with("clitcpka-") || word.starts_with("srvtcpka-") => {
            keepalive(context, proxy, statement);
        }
        "option" => option(context, proxy, statement, &keyword),
        "disabled" | "enabled" => {
            proxy.settings.disabled = statement.word(0) == "disabled";
            context.kept(statement.at, keyword);
        }
        "log" => log_statement(context, proxy, statement),
        "unique-id-format" => format::unique_id(context, proxy, statement),
        "log-format" if format::log(context, proxy, statement) => {}
        "stats" => page::read(context, proxy, statement),
        "use-server" => {
            let name = statement.word(1);
            // HAProxy finds a name with an expression when a client is there.
            if statement.words[1].unset.is_none() && !name.contains('%') {
                let used = (name.to_owned(), statement.at(1));
                proxy.used_servers.push(used);
            }
            by_table(context, proxy, statement, &keyword);
        }
        "tcp-check" | "http-check" => check::rule(context, proxy, statement, &keyword),
        "tcp-request" if statement.word(1) == "connection" => {
            let expects = statement.word(2) == "expect-proxy";
            proxy.settings.accepts_early |= statement.word(2) == "accept";
            if !expects || !expect_proxy::read(context, proxy, statement) {
                by_table(context, proxy, statement, &keyword);
            }
        }
        _ => by_table(context, proxy, statement, &keyword),
    }
}

/// Whether HAProxy takes the statement nowhere, or not here, or ignores it, by its words alone, which is then reported.
fn is_refused(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    keyword: &str,
) -> bool {
    if proxy.kind == Kind::Defaults
        && let Some(problem) = defaults_words::refused(statement, proxy.name.is_empty())
    {
        context.report.error(statement.at, keyword, problem);
        return true;
    }
    if let Some(problem) = one_sided::refused(proxy.kind, statement) {
        context.report.error(statement.at, keyword, problem);
        return true;
    }
    if let Some(why) = one_sided::ignored(proxy.kind, statement) {
        let outcome = Outcome::NotNeeded;
        context.report.push(statement.at, keyword, outcome, why);
        return true;
    }
    if let Some((word, problem)) = argument_count::refused(Place::Proxy, statement) {
        context.report.error(statement.at(word), keyword, problem);
        return true;
    }
    // These have their own readers.
    let is_rule = !["use_backend", "acl", "stats"].contains(&statement.word(0));
    is_rule && !rules::rule(context, proxy, statement, keyword)
}

/// A statement of which the table says everything.
fn by_table(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    keyword: &str,
) {
    if page::is_exporter(statement) {
        return page::exporter(context, proxy, statement, keyword);
    }
    if statement.word(0) == "acl" {
        if !rules::acl(context, proxy, statement) {
            return;
        }
        page::note_acl(context, proxy, statement.word(1));
    }
    let bare = keyword.strip_prefix("no ").unwrap_or(keyword);
    let compresses = statement.word(0) == "filter" && statement.word(1) == "compression";
    let name = if compresses { "compression" } else { bare };
    let found = context.index.find(Place::Proxy, name);
    let found = found.or_else(|| context.index.find(Place::Proxy, statement.word(0)));
    let Some(row) = found else {
        return context.unknown(statement.at, Place::Proxy, bare);
    };
    if statement.modifier != Modifier::None && statement.word(0) == "option" {
        context.kept(statement.at, keyword);
        let before = proxy.settings.marks.len();
        proxy.taken_back.insert(bare.to_owned(), before);
        return;
    }
    let (front, back) = sides(statement.word(0), bare);
    let mark = context.mark(statement.at, keyword, row);
    let silent = matches!(
        row.becomes,
        Becomes::Kept | Becomes::NotNeeded | Becomes::NoTrafficDependsOnIt
    );
    if !silent {
        proxy.settings.marks.push(Mark {
            front,
            back,
            ..mark
        });
    }
}

/// The sides of a proxy that a word is about.
fn sides(first: &str, phrase: &str) -> (bool, bool) {
    let front = [
        "monitor-net",
        "monitor",
        "monitor-uri",
        "use_backend",
        "option httplog",
        "option httpslog",
        "option logasap",
        "log-format",
        "log-tag",
    ];
    let back = [
        "stick",
        "stick-table",
        "use-server",
        "dispatch",
        "cookie",
        "persist",
        "appsession",
        "force-persist",
        "ignore-persist",
        "be-unpublished",
        "http-send-name-header",
        "option transparent",
        "transparent",
    ];
    let is = |list: &[&str]| list.contains(&first) || list.contains(&phrase);
    (!is(&back), !is(&front))
}

fn mode(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let text = match statement.word(1) {
        "tcp" => {
            proxy.settings.mode = Mode::Tcp;
            ""
        }
        "http" => {
            proxy.settings.mode = Mode::Http;
            ""
        }
        other => {
            let known = ["health", "log", "spop", "haterm"].contains(&other);
            proxy.unreadable = Some("its mode");
            let text = if known {
                format!("rlb balances TCP: it has no mode `{other}`")
            } else {
                format!("HAProxy has no mode `{other}`")
            };
            if known {
                let outcome = Outcome::Unsupported;
                context.report.push(statement.at, "mode", outcome, text);
            } else {
                context.report.error(statement.at, "mode", text);
            }
            return;
        }
    };
    context
        .report
        .push(statement.at, "mode", Outcome::Kept, text);
}

fn route(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement, keyword: &str) {
    let name = statement.word(1).to_owned();
    if name.is_empty() {
        let text = "the name of a backend is missing";
        return context.report.error(statement.at, keyword, text);
    }
    match acl::behind_a_backend(statement) {
        Some((index, problem)) => context.report.error(statement.at(index), keyword, problem),
        None => drop(rules::rule(context, proxy, statement, keyword)),
    }
    let always = statement.words.len() == 2 && !name.contains("%[");
    if statement.word(0) == "default_backend" {
        proxy.default_entry = Some(context.kept(statement.at, keyword));
        proxy.settings.default_backend = Some((name, statement.at(1)));
    } else if proxy.leads_to.is_some() {
        let text = "the `use_backend` before it, without a condition, takes every connection";
        context
            .report
            .push(statement.at, keyword, Outcome::NotNeeded, text);
        if !name.contains("%[") {
            proxy.named.push((name, statement.at(1), "use_backend"));
        }
    } else if always && proxy.routes.len() == usize::from(proxy.sorry_rule.is_some()) {
        context.kept(statement.at, keyword);
        proxy.leads_to = Some((name, statement.at(1)));
    } else {
        proxy.routes.push((name, statement.at(1)));
        by_table(context, proxy, statement, keyword);
        let condition = rules::servers_left(proxy, statement);
        if let Some(entry) = proxy.settings.marks.last().map(|mark| mark.entry) {
            sorry::note_rule(proxy, condition, entry);
        }
    }
}

/// Forgets the marks of options that a `no` or `default` behind them has taken back.
pub(super) fn settle_options(context: &Context<'_, '_>, proxy: &mut Proxy) {
    let taken_back = std::mem::take(&mut proxy.taken_back);
    if taken_back.is_empty() {
        return;
    }
    let mut index = 0;
    proxy.settings.marks.retain(|mark| {
        let keyword = &*context.report.entries[mark.entry].keyword;
        let before = taken_back.get(keyword);
        index += 1;
        before.is_none_or(|before| index > *before)
    });
}

/// Lets a `use_backend` without a condition take the place of `default_backend`, which is never asked then.
pub(super) fn settle_route(context: &mut Context<'_, '_>, proxy: &mut Proxy) {
    let Some(leads_to) = proxy.leads_to.take() else {
        return;
    };
    proxy.leads_by_route = true;
    let never = proxy.settings.default_backend.replace(leads_to);
    // A backend does not inherit it.
    let has = proxy.kind != Kind::Backend || proxy.default_entry.is_some();
    let never = never.filter(|_| has);
    proxy
        .named
        .extend(never.map(|(name, at)| (name, at, "default_backend")));
    if let Some(entry) = proxy.default_entry {
        let text = "a `use_backend` without a condition takes every connection";
        context.report.raise(entry, Outcome::NotNeeded, text, false);
    }
}

fn number(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let Some(number) = context.number_or_zero(statement, 1) else {
        return;
    };
    let (key, most) = match statement.word(0) {
        "maxconn" => ("maxconn", crate::config::MAXCONN_MAX),
        "backlog" => ("backlog", crate::config::BACKLOG_MAX),
        "fullconn" => ("fullconn", i64::from(u32::MAX)),
        "retries" => ("retries", crate::config::RETRIES_MAX),
        _ => ("id", i64::from(i32::MAX)),
    };
    if key == "id" && number <= 0 {
        let text = "the number is greater than 0";
        return context.report.error(statement.at(1), key, text);
    }
    let least = i64::from(key != "retries");
    let meant = number.clamp(least, most);
    match number {
        0 if least == 1 => {
            proxy.settings.keys.remove(key);
            let text = "0 stands for the default";
            context
                .report
                .push(statement.at, key, Outcome::NotNeeded, text);
            return;
        }
        _ if number != meant => {
            let text = format!("{meant} instead of {number}: {least} to {most} is possible");
            context
                .report
                .push(statement.at, key, Outcome::Changed, text);
        }
        _ => {
            context.kept(statement.at, key);
        }
    }
    if key == "id" {
        proxy.id = Some(meant.to_string());
    } else {
        proxy.settings.keys.insert(key, meant.to_string());
    }
}

/// `rate-limit sessions NUMBER`.
fn rate_limit(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let keyword = "rate-limit";
    if statement.word(1) != "sessions" {
        let text = "only `sessions` can be limited";
        return context.report.error(statement.at(1), keyword, text);
    }
    let Some(number) = context.number(statement, 2) else {
        return;
    };
    if number <= 0 {
        proxy.settings.keys.remove("rate-limit-sessions");
        let text = "0 is no limit";
        context
            .report
            .push(statement.at, keyword, Outcome::NotNeeded, text);
        return;
    }
    let limit = number.min(crate::config::MAXCONN_MAX).to_string();
    proxy.settings.keys.insert("rate-limit-sessions", limit);
    if proxy.kind == Kind::Backend {
        let text = "it is for frontends";
        context
            .report
            .push(statement.at, keyword, Outcome::NotNeeded, text);
    } else {
        context.kept(statement.at, keyword);
    }
}

/// `load-server-state-from-file` and `server-state-file-name`.
fn states(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let (keyword, value) = (statement.word(0), statement.word(1));
    if proxy.kind == Kind::Frontend {
        let text = "it is for backends";
        context
            .report
            .push(statement.at, keyword, Outcome::NotNeeded, text);
        return;
    }
    if proxy.kind == Kind::Defaults && keyword == "server-state-file-name" {
        let text = "a proxy does not inherit it";
        context
            .report
            .push(statement.at, keyword, Outcome::NotNeeded, text);
        return;
    }
    context.kept(statement.at, keyword);
    let keys = &mut proxy.settings.keys;
    match keyword {
        "load-server-state-from-file" => {
            keys.insert("load-server-state-from-file", quote(value));
        }
        _ if ["", "use-backend-name"].contains(&value) => {
            keys.remove("server-state-file-name");
        }
        _ => {
            keys.insert("server-state-file-name", quote(value));
        }
    }
}

fn keepalive(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    let (side, what) = statement.word(0).split_once('-').unwrap_or_default();
    let value = match what {
        "idle" | "intvl" => context
            .span(statement, 1, Unit::Seconds)
            .map(|span| format!("\"{}s\"", span.milliseconds.div_ceil(1000).clamp(1, 32_767))),
        _ => context
            .number(statement, 1)
            .map(|number| number.clamp(1, 127).to_string()),
    };
    let Some(value) = value else { return };
    context.kept(statement.at, statement.word(0));
    let side: &mut Keepalive = if side == "clitcpka" {
        &mut proxy.settings.client_keepalive
    } else {
        &mut proxy.settings.server_keepalive
    };
    match what {
        "idle" => side.idle = Some(value),
        "intvl" => side.interval = Some(value),
        _ => side.probes = Some(value),
    }
}

fn option(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement, keyword: &str) {
    if check::option(context, proxy, statement, keyword) {
        return;
    }
    let on = statement.modifier != Modifier::No;
    let set = statement.modifier != Modifier::Default;
    let settings = &mut proxy.settings;
    let mut switch = |key: &'static str| {
        settings.keys.insert(key, (set && on).to_string());
    };
    match statement.word(1) {
        "dontlognull" => switch("dontlognull"),
        "dontlog-normal" => switch("dontlog-normal"),
        "log-health-checks" => switch("log-health-checks"),
        "allbackups" => switch("allbackups"),
        "abortonclose" => switch("abortonclose"),
        "clitcpka" => settings.client_keepalive.on = set.then_some(on),
        "srvtcpka" => settings.server_keepalive.on = set.then_some(on),
        "tcpka" => {
            settings.client_keepalive.on = Some(true);
            settings.server_keepalive.on = Some(true);
        }
        word => {
            if ["tcplog", "httplog", "httpslog"].contains(&word) {
                settings.keys.remove("log-suffix");
            }
            return by_table(context, proxy, statement, keyword);
        }
    }
    context.kept(statement.at, keyword);
}

fn log_statement(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) {
    if statement.modifier != Modifier::None {
        proxy.settings.log_global = false;
        proxy.settings.targets.clear();
        context.kept(statement.at, "no log");
        return;
    }
    if statement.word(1) == "global" {
        proxy.settings.log_global = true;
        context.kept(statement.at, "log global");
        return;
    }
    let target = log::read(context, statement);
    proxy.settings.targets.extend(target);
}
