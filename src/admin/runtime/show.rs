//! Commands that change nothing. Admin thread.
//!
//! Invariant: a table is written in chunks, and servers backend by backend, so that ten thousand servers take
//! many short turns.

use super::CommandContext;
use super::access::{LOGGED_CHARS_MAX, printable};
use super::reply::{Reply, ReplyWriter};
use crate::config::model::ApiLevel;
use crate::state::{Backend, Snapshot};
use crate::stats::filter::Select;
use crate::stats::info::{self, Form};
use crate::stats::servers_state;
use crate::stats::{Facts, Filter, Format, Rows, Table};
use jiff::Zoned;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// `show info [desc|json|typed]*`.
pub(super) fn info(context: &CommandContext, args: &[&str]) -> Reply {
    let form = match parse_info(args) {
        Ok(form) => form,
        Err(unknown) => {
            let unknown = printable(unknown, LOGGED_CHARS_MAX);
            return Reply::error(format!("Unknown parameter '{unknown}' of 'show info'.\n"));
        }
    };
    let shared = &context.shared;
    let snapshot = shared.snapshot.load_full();
    let facts = Facts {
        snapshot: &snapshot,
        process: &shared.process,
        requests: &shared.requests,
        now: Instant::now(),
    };
    Reply::Text(info::write(&facts, form))
}

/// Parses the arguments of `show info`; the error is the unknown one.
pub(super) fn parse_info<'a>(args: &[&'a str]) -> Result<Form, &'a str> {
    let (mut typed, mut described, mut json) = (false, false, false);
    for word in args {
        match *word {
            "desc" => described = true,
            "typed" => (typed, json) = (true, false),
            "json" => (typed, json) = (false, true),
            other => return Err(other),
        }
    }
    Ok(if json {
        Form::Json
    } else {
        Form::Lines { typed, described }
    })
}

/// `show backend`.
pub(super) fn backends(context: &CommandContext) -> String {
    let snapshot = context.shared.snapshot.load();
    let mut all: Vec<&Arc<Backend>> = snapshot.backends.iter().flatten().collect();
    all.sort_by_key(|backend| backend.spec.order);
    let names = all.iter().map(|backend| &*backend.spec.name);
    let lines: Vec<&str> = std::iter::once("# name").chain(names).collect();
    lines.join("\n") + "\n"
}

/// `show errors`: a proxy in TCP mode parses no requests or responses, so none was captured.
pub(super) fn errors() -> String {
    let now = Zoned::now().strftime("%d/%b/%Y:%H:%M:%S%.3f").to_string();
    format!("Total events captured on [{now}] : 0\n")
}

/// `show cli sockets`.
pub(super) fn sockets(context: &CommandContext) -> String {
    let level = context.level().name();
    format!("# socket lvl processes\n{} {level} all\n", context.path)
}

/// `show version`.
pub(super) fn version() -> String {
    format!("{}\n", crate::stats::info::VERSION)
}

/// `show stat [<id> <type> <sid>] [typed|json|up|no-maint]*`.
pub(super) async fn stat(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    args: &[&str],
) -> io::Result<()> {
    let shared = &context.shared;
    let snapshot = shared.snapshot.load_full();
    let (chosen, format, mut filter) = match parse_stat(args) {
        Ok(parsed) => parsed,
        Err(unknown) => {
            let unknown = printable(unknown, LOGGED_CHARS_MAX);
            let text = format!("Unknown parameter '{unknown}' of 'show stat'.\n");
            return reply.send(Reply::error(text)).await;
        }
    };
    if let Some((proxy, kinds, service)) = chosen {
        let Some(proxy) = proxy_number(&snapshot, proxy) else {
            return reply.send(Reply::error("No such proxy.\n")).await;
        };
        filter.select = Some(Select {
            proxy,
            kinds,
            service,
        });
    }
    let requests = Arc::clone(&shared.requests);
    // As in HAProxy, by the level of the socket, not by that to which the client has lowered itself.
    let legends = context.level() >= ApiLevel::Operator;
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

/// The arguments of `show stat`: a proxy, kinds of objects and a service, if given; format and filter.
type Stat<'a> = (Option<(&'a str, i64, i64)>, Format, Filter);

/// Parses the arguments of `show stat`; the error is the unknown one.
pub(super) fn parse_stat<'a>(args: &[&'a str]) -> Result<Stat<'a>, &'a str> {
    let (chosen, words) = match args {
        [proxy, kinds, service, rest @ ..] if kinds.parse::<i64>().is_ok() => {
            let kinds = kinds.parse().unwrap_or(-1);
            (Some((*proxy, kinds, service.parse().unwrap_or(-1))), rest)
        }
        rest => (None, rest),
    };
    let mut format = Format::Csv;
    let mut filter = Filter::default();
    for word in words {
        match *word {
            "typed" => format = Format::Typed,
            "json" => format = Format::Json,
            "up" => filter.up = true,
            "no-maint" => filter.no_maint = true,
            other => return Err(other),
        }
    }
    Ok((chosen, format, filter))
}

/// The number of a proxy, from a number or a name; -1 stands for all.
fn proxy_number(snapshot: &Snapshot, text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let frontends = snapshot.frontends.iter().flatten();
    let backends = snapshot.backends.iter().flatten();
    let stats = snapshot.stats.iter().map(|stats| (&stats.name, stats.id));
    frontends
        .map(|one| (&one.spec.name, one.spec.id))
        .chain(backends.map(|one| (&one.spec.name, one.spec.id)))
        .chain(stats)
        .find(|(name, _)| ***name == *text)
        .map(|(_, id)| i64::from(id))
}

/// `show servers state [<backend>]`.
pub(super) async fn servers_state(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    args: &[&str],
) -> io::Result<()> {
    let snapshot = context.shared.snapshot.load_full();
    let mut backends: Vec<&Arc<Backend>> = snapshot.backends.iter().flatten().collect();
    if let Some(name) = args.first() {
        backends.retain(|backend| *backend.spec.name == **name);
        if backends.is_empty() {
            return reply.send(Reply::error("Can't find backend.\n")).await;
        }
    }
    backends.sort_by_key(|backend| backend.spec.order);
    let now = Instant::now();
    reply.write(servers_state::HEADER).await?;
    for backend in backends {
        reply
            .write(&servers_state::of_backend(backend, now))
            .await?;
    }
    Ok(())
}
