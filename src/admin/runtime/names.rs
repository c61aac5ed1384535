//! Finds the proxies and servers that a command names: by name, or as `#` and the number. Pure.

use crate::state::{Backend, Frontend, FrontendState, Server, Snapshot};
use std::sync::Arc;

pub(super) const NO_BACKEND: &str = "No such backend.\n";
pub(super) const NO_FRONTEND: &str = "No such frontend.\n";
const DISABLED: &str = "Proxy is disabled.\n";
pub(super) const NO_SERVER: &str = "No such server.\n";

/// Whether `text` names an object with this name and number.
fn is(text: &str, name: &str, id: u32) -> bool {
    match text.strip_prefix('#') {
        Some(number) => number.parse() == Ok(id),
        None => text == name,
    }
}

/// A backend.
pub(in crate::admin) fn backend<'a>(
    snapshot: &'a Snapshot,
    text: &str,
) -> Option<&'a Arc<Backend>> {
    let mut all = snapshot.backends.iter().flatten();
    all.find(|one| is(text, &one.spec.name, one.spec.id))
}

/// A frontend.
pub(super) fn frontend<'a>(snapshot: &'a Snapshot, text: &str) -> Option<&'a Arc<Frontend>> {
    let mut all = snapshot.frontends.iter().flatten();
    all.find(|one| is(text, &one.spec.name, one.spec.id))
}

/// Whether it is the stats proxy, which is a frontend and a backend without servers.
pub(in crate::admin) fn is_stats(snapshot: &Snapshot, text: &str) -> bool {
    let stats = snapshot.stats.as_ref();
    stats.is_some_and(|stats| is(text, &stats.name, stats.id))
}

/// A server that a command is to change, by `backend/server`.
///
/// # Errors
/// HAProxy's answer when there is none, or when it belongs to a `[[listen]]` that was shut down.
pub(super) fn server_to_change(
    snapshot: &Snapshot,
    text: Option<&str>,
) -> Result<(Arc<Backend>, Arc<Server>), &'static str> {
    let (backend, server) = server(snapshot, text)?;
    let mut frontends = snapshot.frontends.iter().flatten();
    // The two halves of a `[[listen]]` have one number.
    let listen = frontends.find(|one| one.spec.id == backend.spec.id);
    if listen.is_some_and(|it| it.state() == FrontendState::Stopped) {
        return Err(DISABLED);
    }
    Ok((backend, server))
}

/// A server by `backend/server`.
///
/// # Errors
/// HAProxy's answer when there is none.
pub(super) fn server(
    snapshot: &Snapshot,
    text: Option<&str>,
) -> Result<(Arc<Backend>, Arc<Server>), &'static str> {
    let text = text.unwrap_or_default();
    let (of, name) = text.split_once('/').ok_or("Require 'backend/server'.\n")?;
    if is_stats(snapshot, of) {
        return Err(NO_SERVER);
    }
    let backend = backend(snapshot, of).ok_or(NO_BACKEND)?;
    let mut servers = backend.servers.iter();
    let server = servers.find(|one| is(name, &one.spec.name, one.spec.id));
    let server = server.ok_or(NO_SERVER)?;
    Ok((Arc::clone(backend), Arc::clone(server)))
}
