//! What the machine can hold: file descriptors and accept queues.
//!
//! Only warnings: the machine that checks a file need not be the one that runs it.

use super::FrontendSide;
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Config, Frontend};
use crate::config::scope::{Scope, Validator, Written};
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
pub(super) fn backlog(validator: &mut Validator<'_>, backlog: Option<&Written<u32>>) {
    let (Some(written), Some(somaxconn)) = (backlog, validator.limits.somaxconn) else {
        return;
    };
    if written.value > somaxconn {
        let message = format!(
            "a backlog of {} is more than net.core.somaxconn, {somaxconn}, lets one socket have",
            written.value
        );
        validator.report.push(
            Diagnostic::warning("limits", message)
                .at(written.place.clone())
                .label(format!("the kernel makes it {somaxconn}"))
                .hint(format!("sysctl net.core.somaxconn={}", written.value)),
        );
    }
}

/// Warns about a frontend's `maxconn` whose overflow the accept queues cannot hold.
pub(super) fn frontend_maxconn(
    validator: &mut Validator<'_>,
    scope: Scope<'_>,
    table: &FrontendSide<'_>,
    frontend: &Frontend,
) {
    let (Some(maxconn), Some(written)) = (frontend.maxconn, &table.keys.maxconn) else {
        return;
    };
    if table.own.backlog.is_none() && frontend.binds.iter().all(|bind| bind.backlog.is_none()) {
        queue(validator, maxconn, scope.of(written));
    }
}

fn queue(validator: &mut Validator<'_>, maxconn: u32, place: crate::config::source::Place) {
    let threads = validator.threads;
    let Some(somaxconn) = validator.limits.somaxconn else {
        return;
    };
    let queue = u64::from(somaxconn).saturating_mul(threads as u64);
    if u64::from(maxconn) > queue {
        let message = format!(
            "the accept queues hold {queue} connections ({threads} threads with a \
             net.core.somaxconn of {somaxconn}), fewer than a maxconn of {maxconn} asks for"
        );
        validator.report.push(
            Diagnostic::warning("limits", message)
                .at(place)
                .label("connections over the limit may be refused")
                .hint("raise net.core.somaxconn, or write a `backlog`"),
        );
    }
}

/// Warns about a global `maxconn` that descriptors or accept queues cannot hold.
pub(super) fn global(
    validator: &mut Validator<'_>,
    maxconn: Option<&Written<u32>>,
    config: &Config,
) {
    let Some(written) = maxconn else { return };
    queue(validator, written.value, written.place.clone());
    let Some(nofile) = validator.limits.nofile else {
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
    let needed = u64::from(written.value) * SESSION_DESCRIPTORS + other;
    if needed > nofile {
        let message = format!(
            "maxconn {} needs {needed} file descriptors, the hard limit here is {nofile}",
            written.value
        );
        validator.report.push(
            Diagnostic::warning("limits", message)
                .at(written.place.clone())
                .label(format!("{} fit", derived_maxconn(nofile)))
                .hint("raise `LimitNOFILE` of the service, or lower maxconn"),
        );
    }
}
