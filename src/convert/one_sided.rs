//! Statements in a proxy with one side that are for the other side: a `frontend` has no servers, and a `backend` listens
//! nowhere. Pure but for the report.
//!
//! HAProxy warns of most of them, reads them, and they have no effect, here as there. Here stand those of which it does not
//! look at the words, those that it refuses, and `bind`.

use super::bind;
use super::context::Context;
use super::proxy::Proxy;
use super::report::Outcome;
use super::sections::{Kind, Statement};

/// Why HAProxy ignores a statement in a proxy of this kind, whatever its words are.
pub(super) fn ignored(kind: Kind, statement: &Statement) -> Option<&'static str> {
    let is_ignored = kind == Kind::Frontend && statement.word(0) == "stick";
    is_ignored.then_some("a frontend has no servers: HAProxy ignores it here")
}

/// Why HAProxy refuses a statement in a proxy of this kind.
pub(super) fn refused(kind: Kind, statement: &Statement) -> Option<&'static str> {
    match (kind, statement.word(0), statement.word(1)) {
        (Kind::Frontend, "server" | "server-template" | "default-server", _) => {
            Some("a frontend has no servers: write them into a `backend` or a `listen`")
        }
        (Kind::Backend, "tcp-request", "connection" | "session") => {
            Some("a backend takes no connections: write it into a `frontend` or a `listen`")
        }
        _ => None,
    }
}

/// Reads a `bind` of a backend. HAProxy warns of it, listens there and takes no connection.
pub(super) fn bind_of_backend(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
) {
    let (entries, marks) = (context.report.entries.len(), proxy.settings.marks.len());
    bind::read(context, proxy, statement, 1);
    proxy.binds.clear();
    proxy.settings.marks.truncate(marks);
    proxy.listens = false;
    for entry in &mut context.report.entries[entries..] {
        if entry.outcome != Outcome::Error {
            entry.outcome = Outcome::NotNeeded;
            entry.text = "a backend listens nowhere: HAProxy serves no client there either".into();
        }
    }
}
