//! Commands that change nothing. Admin thread.
//!
//! Invariant: a table is written in chunks, and servers backend by backend, so that ten thousand servers take
//! many short turns.

use super::CommandContext;
use super::access::Peer;
use super::names;
use super::reply::{Reply, ReplyWriter};
use super::set::leading_number;
use crate::config::model::ApiLevel;
use crate::state::{Backend, Snapshot, overrides};
use crate::stats::filter::Select;
use crate::stats::info::{self, Form, Layout};
use crate::stats::{Facts, Filter, Format, Rows, Table};
use crate::stats::{servers_conn, servers_state};
use jiff::Zoned;
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// `show info [desc|json|typed|float]*`.
pub(super) fn info(context: &CommandContext, args: &[&str]) -> Reply {
    let shared = &context.shared;
    let snapshot = shared.snapshot.load_full();
    let facts = Facts {
        snapshot: &snapshot,
        process: &shared.process,
        requests: &shared.requests,
        now: Instant::now(),
    };
    Reply::Text(info::write(&facts, info_form(args)))
}

/// The form that the arguments of `show info` ask for. As HAProxy it ignores other words, which libraries send.
pub(super) fn info_form(args: &[&str]) -> Form {
    let mut form = Form::default();
    for word in args {
        match *word {
            "desc" => form.described = true,
            "float" => form.exact = true,
            "typed" => form.layout = Layout::Typed,
            "json" => form.layout = Layout::Json,
            _ => {}
        }
    }
    form
}

/// `show backend`: as in HAProxy, the statistics' proxy is one.
pub(super) fn backends(context: &CommandContext) -> String {
    let snapshot = context.shared.snapshot.load();
    let mut all: Vec<&Arc<Backend>> = snapshot.backends.iter().flatten().collect();
    all.sort_by_key(|backend| backend.spec.order);
    let names = all.iter().map(|backend| &*backend.spec.name);
    let stats = snapshot.stats.iter().map(|stats| &*stats.name);
    let head = std::iter::once("# name").chain(stats);
    let lines: Vec<&str> = head.chain(names).collect();
    lines.join("\n") + "\n"
}

/// `show errors [<proxy>]`: a proxy in TCP mode parses no requests or responses, so none was captured.
pub(super) fn errors(context: &CommandContext, args: &[&str]) -> Reply {
    if let Some(name) = args.first() {
        let snapshot = context.shared.snapshot.load();
        if !matches!(*name, "request" | "response") && proxy_number(&snapshot, name).is_none() {
            return Reply::error(NO_PROXY);
        }
    }
    let now = Zoned::now().strftime("%d/%b/%Y:%H:%M:%S%.3f").to_string();
    Reply::Text(format!("Total events captured on [{now}] : 0\n"))
}

const NO_PROXY: &str = "No such proxy.\n";

/// `show cli sockets`.
pub(super) fn sockets(context: &CommandContext, peer: &Peer) -> String {
    let mut text = "# socket lvl processes\n".to_owned();
    for served in context.in_order() {
        let name = &served.name;
        let level = peer
            .granted()
            .unwrap_or_else(|| context.level_of(&served))
            .name();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name} {level} all");
    }
    text
}

/// `show overrides`: what was set at run time and the file says otherwise.
pub(super) fn overrides(context: &CommandContext) -> String {
    let mut text = "# object setting file now\n".to_owned();
    for one in overrides::list(&context.shared.snapshot.load()) {
        let (object, setting, file, now) = (one.object, one.setting, one.file, one.now);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{object} {setting} {file} {now}");
    }
    text
}

/// `show env [<name>]`: the environment of the process.
pub(super) fn environment(args: &[&str]) -> Reply {
    let all = std::env::vars_os().map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        format!("{name}={value}\n")
    });
    let Some(wanted) = args.first() else {
        return Reply::Text(all.collect());
    };
    match std::env::var_os(wanted) {
        Some(value) => Reply::Text(format!("{wanted}={}\n", value.to_string_lossy())),
        None => Reply::error("Variable not found\n"),
    }
}

/// `show version`.
pub(super) fn version() -> String {
    format!("{}\n", crate::stats::info::VERSION)
}

/// `show stat [<id> <type> <sid>] [typed|json|up|no-maint]*`.
pub(super) async fn stat(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    peer: &Peer,
    args: &[&str],
) -> io::Result<()> {
    let shared = &context.shared;
    let snapshot = shared.snapshot.load_full();
    let Stat {
        chosen,
        format,
        mut filter,
    } = match parse_stat(args) {
        Ok(parsed) => parsed,
        Err(text) => return reply.send(Reply::error(text)).await,
    };
    if let Some((proxy, kinds, service)) = chosen {
        let Some(proxy) = proxy_number(&snapshot, proxy) else {
            return reply.send(Reply::error(NO_PROXY)).await;
        };
        filter.select = Some(Select {
            proxy,
            kinds,
            service,
        });
    }
    let requests = Arc::clone(&shared.requests);
    // As in HAProxy, by the level of the socket, not by that to which the client has lowered itself.
    let legends = context.level(peer) >= ApiLevel::Operator;
    let rows = Rows::new(snapshot, requests, Instant::now())
        .filtered(filter)
        .with_legends(legends);
    let mut table = Table::new(format, rows);
    loop {
        let chunk = table.chunk();
        if chunk.is_empty() {
            return Ok(());
        }
        reply.write(&chunk).await?;
    }
}

/// The arguments of `show stat`.
#[derive(Debug)]
pub(super) struct Stat<'a> {
    /// A proxy, kinds of objects and a service.
    chosen: Option<(&'a str, i64, i64)>,
    format: Format,
    filter: Filter,
}

/// Parses the arguments of `show stat`; the error is HAProxy's. As HAProxy it ignores unknown words, which libraries
/// send.
pub(super) fn parse_stat<'a>(args: &[&'a str]) -> Result<Stat<'a>, &'static str> {
    let args = match args {
        ["domain", "proxy", rest @ ..] => rest,
        ["domain", ..] => return Err("Invalid statistics domain.\n"),
        _ => args,
    };
    let (chosen, words) = match args {
        [proxy, kinds, service, rest @ ..] => {
            let number = |text| leading_number(text).map_or(0, |(number, _)| number);
            (Some((*proxy, number(kinds), number(service))), rest)
        }
        rest => (None, rest),
    };
    let mut stat = Stat {
        chosen,
        format: Format::Csv,
        filter: Filter::default(),
    };
    for word in words {
        match *word {
            "typed" => stat.format = Format::Typed,
            "json" => stat.format = Format::Json,
            "up" => stat.filter.up = true,
            "no-maint" => stat.filter.no_maint = true,
            _ => {}
        }
    }
    Ok(stat)
}

/// The number of a proxy, from its name, from `#` and its number, or from a number other than 0; -1 stands for all.
fn proxy_number(snapshot: &Snapshot, text: &str) -> Option<i64> {
    let frontend = names::frontend(snapshot, text).map(|it| it.spec.id);
    let id = frontend.or_else(|| names::backend(snapshot, text).map(|it| it.spec.id));
    let stats = snapshot.stats.as_ref();
    let id = id.or_else(|| Some(stats?.id).filter(|_| names::is_stats(snapshot, text)));
    let number = || leading_number(text).map(|(number, _)| number);
    id.map(i64::from).or_else(number).filter(|it| *it != 0)
}

/// The backends that a command is about: the named one, or all in the order of the file. None of the stats proxy,
/// which has no servers.
fn wanted_backends(snapshot: &Snapshot, args: &[&str]) -> Result<Vec<Arc<Backend>>, &'static str> {
    let mut backends: Vec<Arc<Backend>> = match args.first() {
        None => snapshot.backends.iter().flatten().cloned().collect(),
        Some(name) if names::is_stats(snapshot, name) => Vec::new(),
        Some(name) => {
            let backend = names::backend(snapshot, name).ok_or("Can't find backend.\n")?;
            vec![Arc::clone(backend)]
        }
    };
    backends.sort_by_key(|backend| backend.spec.order);
    Ok(backends)
}

/// `show servers conn [<backend>]`.
pub(super) async fn servers_conn(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    args: &[&str],
) -> io::Result<()> {
    let snapshot = context.shared.snapshot.load_full();
    let backends = match wanted_backends(&snapshot, args) {
        Ok(backends) => backends,
        Err(problem) => return reply.send(Reply::error(problem)).await,
    };
    let threads = context.workers.count();
    reply.write(&servers_conn::header(threads)).await?;
    for backend in backends {
        let lines = servers_conn::of_backend(&backend, threads);
        reply.write(&lines).await?;
    }
    Ok(())
}

/// `show servers state [<backend>]`.
pub(super) async fn servers_state(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    args: &[&str],
) -> io::Result<()> {
    let snapshot = context.shared.snapshot.load_full();
    let backends = match wanted_backends(&snapshot, args) {
        Ok(backends) => backends,
        Err(problem) => return reply.send(Reply::error(problem)).await,
    };
    let now = Instant::now();
    reply.write(servers_state::HEADER).await?;
    for backend in backends {
        reply
            .write(&servers_state::of_backend(&backend, now))
            .await?;
    }
    Ok(())
}
