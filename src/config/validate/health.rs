//! The keys of servers about health that need a check: `observe`, `hold-down`.

use super::frontend::longer;
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::{FLAP_WINDOW, HOLD_DOWN_MAX, ServerLayer};
use crate::config::model::{HoldDown, Server};
use crate::config::scope::{Validator, or_default};
use crate::config::source::Place;
use std::sync::Arc;

/// Where they are written that hold for a server.
pub(super) struct HealthKeys {
    observe: Option<Place>,
    hold_down: Option<Place>,
}

impl HealthKeys {
    pub(super) fn of(keys: &ServerLayer) -> Self {
        Self {
            observe: keys.observe.as_ref().map(|it| it.place.clone()),
            hold_down: keys.hold_down.as_ref().map(|it| it.place.clone()),
        }
    }
}

/// `hold-down` with its bound and its window; `None`: the server is not held down.
pub(super) fn hold_down(
    validator: &mut Validator<'_>,
    keys: &ServerLayer,
) -> Option<Arc<HoldDown>> {
    let written = keys.hold_down.as_ref().filter(|it| !it.value.is_zero())?;
    let (max, max_at) = or_default(keys.hold_down_max.as_ref(), HOLD_DOWN_MAX);
    let base = written.value;
    if base > max {
        let value = ("hold-down", base, &written.place);
        let problem = longer(value, ("hold-down-max", max, max_at));
        validator.report.push(problem);
    }
    let (window, _) = or_default(keys.flap_window.as_ref(), FLAP_WINDOW);
    Some(Arc::new(HoldDown { base, max, window }))
}

/// One of the keys.
struct OfHealth {
    name: &'static str,
    hint: &'static str,
    is_set: fn(&Server) -> bool,
    at: fn(&HealthKeys) -> Option<&Place>,
}

const KEYS: [OfHealth; 2] = [
    OfHealth {
        name: "observe",
        hint: "write a `check`: it brings the server up again",
        is_set: |server| server.observe,
        at: |keys| keys.observe.as_ref(),
    },
    OfHealth {
        name: "hold-down",
        hint: "write a `check`: it takes the server down, and brings it up",
        is_set: |server| server.hold_down.is_some(),
        at: |keys| keys.hold_down.as_ref(),
    },
];

/// Warns of them at servers without a check. One that is inherited is for those that have a check, if any has.
pub(super) fn not_checked(
    validator: &mut Validator<'_>,
    what: &str,
    servers: &[(&Server, &HealthKeys)],
    base: &ServerLayer,
) {
    let base = HealthKeys::of(base);
    for key in &KEYS {
        let inherited = (key.at)(&base);
        let set = || servers.iter().filter(|(server, _)| (key.is_set)(server));
        let mut told = set().any(|(server, _)| server.check.is_some());
        for (server, keys) in set().filter(|(server, _)| server.check.is_none()) {
            let Some(place) = (key.at)(keys) else {
                continue;
            };
            let message = if Some(place) == inherited {
                if std::mem::replace(&mut told, true) {
                    continue;
                }
                format!("no server of {what} is checked")
            } else {
                format!("server `{}` is not checked", server.name)
            };
            let diagnostic = Diagnostic::warning("no-check", message)
                .at(place.clone())
                .label(format!("`{}` has no effect without a check", key.name))
                .hint(key.hint);
            validator.report.push(diagnostic);
        }
    }
}
