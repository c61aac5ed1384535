//! What the machine can hold: file descriptors and accept queues.
//!
//! Only warnings: the machine that checks a file need not be the one that runs it.

use super::scope::{Cx, Given, Scope};
use crate::config::diagnostic::Diagnostic;
use crate::config::file;
use crate::config::model::{Config, Frontend};
use std::collections::HashSet;

/// Descriptors that a session holds: one to the client, one to the server.
pub const SESSION_DESCRIPTORS: u64 = 2;
/// Descriptors kept back, at most, for listeners, checks, statistics, logs and the runtime.
pub const RESERVED_DESCRIPTORS_MAX: u64 = 512;

/// Descriptors kept back from sessions under a limit of `nofile`: a quarter of it,
/// [`RESERVED_DESCRIPTORS_MAX`] at most.
pub fn reserved_descriptors(nofile: u64) -> u64 {
    (nofile / 4).min(RESERVED_DESCRIPTORS_MAX)
}

/// The global `maxconn` when none is written: as many sessions as fit a limit of `nofile_hard`
/// descriptors, at least 1, with [`reserved_descriptors`] kept back.
pub fn derived_maxconn(nofile_hard: u64) -> u32 {
    let sessions = (nofile_hard - reserved_descriptors(nofile_hard)) / SESSION_DESCRIPTORS;
    u32::try_from(sessions).unwrap_or(u32::MAX).max(1)
}

/// Warns about a `backlog` that the kernel will cut.
pub(super) fn backlog(cx: &mut Cx<'_>, backlog: Option<&Given<u32>>) {
    let (Some(given), Some(somaxconn)) = (backlog, cx.limits.somaxconn) else {
        return;
    };
    if given.value > somaxconn {
        let message = format!(
            "a backlog of {} is more than net.core.somaxconn, {somaxconn}, lets one socket have",
            given.value
        );
        cx.report.push(
            Diagnostic::warning("limits", message)
                .at(given.place.clone())
                .label(format!("the kernel makes it {somaxconn}"))
                .hint(format!("sysctl net.core.somaxconn={}", given.value)),
        );
    }
}

/// Warns about a frontend's `maxconn` whose overflow the accept queues cannot hold.
pub(super) fn frontend_maxconn(
    cx: &mut Cx<'_>,
    scope: Scope<'_>,
    table: &file::Frontend,
    frontend: &Frontend,
) {
    let (Some(maxconn), Some(written)) = (frontend.maxconn, &table.maxconn) else {
        return;
    };
    if table.backlog.is_none() && frontend.binds.iter().all(|bind| bind.backlog.is_none()) {
        queue(cx, maxconn, scope.of(written));
    }
}

fn queue(cx: &mut Cx<'_>, maxconn: u32, place: crate::config::source::Place) {
    let threads = cx.threads;
    let Some(somaxconn) = cx.limits.somaxconn else {
        return;
    };
    let queue = u64::from(somaxconn).saturating_mul(threads as u64);
    if u64::from(maxconn) > queue {
        let message = format!(
            "the accept queues hold {queue} connections ({threads} threads with a \
             net.core.somaxconn of {somaxconn}), fewer than a maxconn of {maxconn} asks for"
        );
        cx.report.push(
            Diagnostic::warning("limits", message)
                .at(place)
                .label("connections over the limit may be refused")
                .hint("raise net.core.somaxconn, or write a `backlog`"),
        );
    }
}

/// Warns about a global `maxconn` that descriptors or accept queues cannot hold.
pub(super) fn global(cx: &mut Cx<'_>, maxconn: Option<&Given<u32>>, config: &Config) {
    let Some(given) = maxconn else { return };
    queue(cx, given.value, given.place.clone());
    let Some(nofile) = cx.limits.nofile else {
        return;
    };
    let listeners: usize = config
        .frontends
        .iter()
        .map(|frontend| frontend.binds.len())
        .sum();
    let listeners = listeners.saturating_mul(config.global.threads) as u64;
    let checks: HashSet<_> = config
        .backends
        .iter()
        .flat_map(|backend| {
            backend
                .servers
                .iter()
                .map(move |server| (backend.order, server))
        })
        .filter(|(_, server)| server.check.is_some())
        .map(|(order, server)| (order, server.id))
        .collect();
    let other = reserved_descriptors(nofile).max(listeners + checks.len() as u64);
    let needed = u64::from(given.value) * SESSION_DESCRIPTORS + other;
    if needed > nofile {
        let message = format!(
            "maxconn {} needs {needed} file descriptors, the hard limit here is {nofile}",
            given.value
        );
        cx.report.push(
            Diagnostic::warning("limits", message)
                .at(given.place.clone())
                .label(format!("{} fit", derived_maxconn(nofile)))
                .hint("raise `LimitNOFILE` of the service, or lower maxconn"),
        );
    }
}
