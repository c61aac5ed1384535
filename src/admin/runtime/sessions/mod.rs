//! `show sess` and `shutdown session`: parses the request and asks the workers. Admin thread.
//!
//! Invariant: one page of one worker is in memory, and it is written before the next is requested, so that a
//! client that reads slowly keeps no worker waiting.

mod dump;
mod line;
#[cfg(test)]
mod tests;

use super::CommandContext;
use super::access::{LOGGED_CHARS_MAX, printable};
use super::names::{self, NO_BACKEND, NO_FRONTEND};
use super::reply::{Reply, ReplyWriter};
use crate::config::units;
use crate::state::Snapshot;
use crate::worker::session_id::SessionId;
use crate::worker::sessions::{Cursor, View, Wanted};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answer to `show sess help`.
const HELP: &str = "\
Usage: show sess [<id> | all | older <age> | help] [<options>*]
Dumps the sessions of the frontends. Available selectors:
   <id>         dump only this session, in large format (0x...)
   all          dump all matching sessions in large format
   older <age>  the same for sessions older than <age> (seconds, or with a unit)
   help         show this message
Available options:
   susp         only show sessions that no timeout ends, or should have ended
   older <age>  only show sessions older than <age>
   server <b/s> only show sessions on this backend's server
   backend <b>  only show sessions of this backend
   frontend <f> only show sessions of this frontend
Without any argument, all sessions are dumped in a shorter format.
";
const ONE_OF: &str = "Only one of backend, frontend or server may be set.\n";

/// Which sessions are wanted, and in which format.
#[derive(Debug, Default)]
pub(super) struct Request {
    wanted: Wanted,
    large: bool,
}

/// `show sess [<id>|all|older <age>|help] [options]*`.
pub(super) async fn show(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    args: &[&str],
) -> io::Result<()> {
    let request = parse(args).and_then(|mut request| {
        resolve(&mut request.wanted, &context.shared.snapshot.load())?;
        Ok(request)
    });
    let Request { wanted, large } = match request {
        Ok(request) => request,
        Err(text) if text == HELP => return reply.send(Reply::Info(text)).await,
        Err(text) => return reply.send(Reply::error(text)).await,
    };
    let wanted = Arc::new(wanted);
    let all = context.workers.count();
    let asked = match wanted.id {
        Some(id) => id.worker(all)..id.worker(all) + 1,
        None => 0..all,
    };
    let mut found = false;
    // Sessions that were listed while connecting; a later page may list them again as established.
    let mut connecting = HashSet::new();
    for worker in asked {
        let mut next = Some(Cursor::default());
        while let Some(from) = next {
            // A worker that has ended has no sessions.
            let Some(page) = context.workers.list(worker, from, &wanted).await else {
                break;
            };
            let now = Instant::now();
            let mut text = String::new();
            for view in page.views {
                let known = connecting.contains(&view.id);
                if view.sides.is_none() {
                    connecting.insert(view.id);
                }
                if !known {
                    write(&mut text, &view, worker, (large, now));
                    found = true;
                }
            }
            reply.write(&text).await?;
            next = page.next;
        }
    }
    if wanted.id.is_some() && !found {
        reply.write("Session not found.\n").await?;
    }
    Ok(())
}

fn write(text: &mut String, view: &View, worker: usize, (large, now): (bool, Instant)) {
    if large {
        dump::write(text, view, worker, now);
    } else {
        line::write(text, view, worker, now);
    }
}

/// `shutdown session <id>`. As in HAProxy a success has no text.
pub(super) async fn shutdown(context: &CommandContext, args: &[&str]) -> Reply {
    match args.first().and_then(|text| SessionId::parse(text)) {
        None => Reply::error("Session pointer expected (use 'show sess').\n"),
        Some(id) if context.workers.end_session(id).await => Reply::Done,
        Some(_) => Reply::error("No such session (use 'show sess').\n"),
    }
}

/// Parses the arguments of `show sess`; the error is HAProxy's text for what is wrong, or its help.
pub(super) fn parse(args: &[&str]) -> Result<Request, String> {
    let mut request = Request::default();
    let mut rest = match args {
        ["help", ..] => return Err(HELP.to_owned()),
        ["all", rest @ ..] => {
            request.large = true;
            rest
        }
        ["older", ..] => {
            request.large = true;
            args
        }
        [first, others @ ..] => {
            request.wanted.id = SessionId::parse(first);
            request.large = request.wanted.id.is_some();
            if request.large { others } else { args }
        }
        [] => args,
    };
    let wanted = &mut request.wanted;
    while let [word, more @ ..] = rest {
        let names = [&wanted.frontend, &wanted.backend, &wanted.server];
        let taken = names.into_iter().any(Option::is_some);
        let value = more.first().copied();
        match *word {
            "susp" => {
                wanted.suspicious = true;
                rest = more;
                continue;
            }
            "older" => wanted.older = age(value)?,
            "server" | "backend" | "frontend" if taken => return Err(ONE_OF.to_owned()),
            "server" => {
                let text = value.ok_or("Missing server name (<backend>/<server>).\n")?;
                let (backend, server) =
                    text.split_once('/').ok_or("Require 'backend/server'.\n")?;
                wanted.backend = Some(backend.into());
                wanted.server = Some(server.into());
            }
            "backend" => {
                let name = value.ok_or("Missing backend name.\n")?;
                wanted.backend = Some(name.into());
            }
            "frontend" => {
                let name = value.ok_or("Missing frontend name.\n")?;
                wanted.frontend = Some(name.into());
            }
            other => {
                let other = printable(other, LOGGED_CHARS_MAX);
                let text = format!("Unsupported option '{other}', try 'help' for more info.\n");
                return Err(text);
            }
        }
        rest = more.get(1..).unwrap_or_default();
    }
    wanted.details = request.large;
    Ok(request)
}

/// An age: seconds, or a number with its unit.
fn age(text: Option<&str>) -> Result<Duration, String> {
    let text = text.ok_or("Expects a minimum age (in seconds by default).\n")?;
    let seconds = text.parse().map(Duration::from_secs);
    seconds
        .or_else(|_| units::duration(text))
        .map_err(|_| "Invalid age.\n".to_owned())
}

/// Puts the names of the objects where their numbers may stand; the error is HAProxy's when one does not exist.
fn resolve(wanted: &mut Wanted, snapshot: &Snapshot) -> Result<(), &'static str> {
    if let Some(name) = &mut wanted.frontend {
        let found = names::frontend(snapshot, name).ok_or(NO_FRONTEND)?;
        *name = Arc::clone(&found.spec.name);
    }
    if let (Some(backend), Some(server)) = (&mut wanted.backend, &mut wanted.server) {
        let (of, found) = names::server(snapshot, Some(&format!("{backend}/{server}")))?;
        *backend = Arc::clone(&of.spec.name);
        *server = Arc::clone(&found.spec.name);
    } else if let Some(name) = &mut wanted.backend {
        let found = names::backend(snapshot, name).ok_or(NO_BACKEND)?;
        *name = Arc::clone(&found.spec.name);
    }
    Ok(())
}

/// The protocol of the client's connection.
fn protocol(view: &View) -> &'static str {
    match view.peer {
        Some(peer) if peer.is_ipv4() => "tcpv4",
        Some(_) => "tcpv6",
        None => "unix_stream",
    }
}

/// The client's address as HAProxy writes it: without brackets.
fn source(view: &View) -> String {
    match view.peer {
        Some(peer) => format!("{}:{}", peer.ip(), peer.port()),
        None => "unix:1".to_owned(),
    }
}

/// How the bytes of a direction are moved.
fn engine(spliced: bool) -> &'static str {
    if spliced { "splice" } else { "copy" }
}

/// A duration in its two largest units; empty for none.
fn lasting(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| crate::stats::page::age(time.as_secs()))
}
