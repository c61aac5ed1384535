//! The limits of the machine: file descriptors and accept queues.
//!
//! They cause only warnings, because the machine that checks a file need not be the one that runs it.

use super::FrontendSide;
use crate::config::descriptors::{self, SESSION_DESCRIPTORS};
use crate::config::diagnostic::Diagnostic;
use crate::config::model::{Config, Frontend};
use crate::config::scope::{Scope, Validator, Written};

/// Warns about a `backlog` that the kernel limits to less.
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

/// Warns about a frontend's `maxconn` that is larger than the accept queues.
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

/// Warns about a global `maxconn` that the descriptors or accept queues do not allow, and, when none was
/// written, about descriptors that leave few sessions.
pub(super) fn global(
    validator: &mut Validator<'_>,
    maxconn: Option<&Written<u32>>,
    config: &Config,
) {
    if let Some(written) = maxconn {
        queue(validator, written.value, written.place.clone());
    }
    let Some(nofile) = validator.limits.nofile else {
        return;
    };
    let hint = "raise `LimitNOFILE` of the service, or lower maxconn";
    let fits = match descriptors::capacity(config, nofile) {
        Ok(capacity) => capacity.maxconn,
        Err(too_few) => {
            let warning = Diagnostic::warning("limits", too_few.to_string());
            validator.report.push(warning);
            return;
        }
    };
    let other = descriptors::needed(config, nofile);
    if let Some(written) = maxconn {
        let needed = u64::from(written.value) * SESSION_DESCRIPTORS + other;
        if needed > nofile {
            let message = format!(
                "maxconn {} needs {needed} file descriptors, the hard limit here is {nofile}",
                written.value
            );
            validator.report.push(
                Diagnostic::warning("limits", message)
                    .at(written.place.clone())
                    .label(format!("{fits} fit"))
                    .hint(hint),
            );
        }
    } else if other > nofile / 2 {
        let message = format!(
            "threads, listening sockets and checks need {other} of the {nofile} file descriptors \
             that the hard limit here allows; {fits} sessions fit"
        );
        validator
            .report
            .push(Diagnostic::warning("limits", message).hint(hint));
    }
}
