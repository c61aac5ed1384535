//! `/readyz`: whether this machine should receive traffic, for keepalived, BGP speakers and load balancers in
//! front of it. Pure.

use crate::state::Snapshot;
use crate::stats::Phase;
use std::fmt::Write;

/// `Ok` when this machine should receive traffic; otherwise the reasons, one line each.
pub(super) fn readiness(phase: Phase, snapshot: &Snapshot) -> Result<(), String> {
    let mut why = String::new();
    match phase {
        Phase::Starting => why.push_str("starting\n"),
        Phase::Stopping => why.push_str("stopping\n"),
        Phase::Ready => {}
    }
    let mut frontends = snapshot.frontends.iter().flatten();
    if frontends.all(|frontend| frontend.spec.disabled) {
        why.push_str("no frontend listens\n");
    }
    let required = snapshot
        .stats
        .iter()
        .flat_map(|stats| &stats.readiness.require);
    for (name, required) in required {
        let backends = snapshot.backends.iter().flatten();
        let backend = { backends }.find(|backend| backend.spec.name == *name);
        let least = backend.map_or(0, |backend| backend.spec.min_servers);
        let required = (*required).max(least);
        let usable = backend.map_or(0, |backend| {
            let usable = backend.usable();
            usable.active + usable.backup
        });
        if usable < required {
            // Writing to a string cannot fail.
            let _ = writeln!(
                why,
                "backend {name}: {usable} usable servers, {required} required"
            );
        }
    }
    if why.is_empty() { Ok(()) } else { Err(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::test_snapshot::{config, snapshot};

    #[test]
    fn it_takes_a_running_process_and_enough_servers() {
        let with = |required: u32, disabled: usize| {
            let mut config = config(3);
            for server in config.backends[0].servers.iter_mut().take(disabled) {
                server.disabled = true;
            }
            let stats = config.stats.as_mut().unwrap();
            stats.readiness.require = vec![("postgres".into(), required)];
            snapshot(&config)
        };
        assert_eq!(readiness(Phase::Ready, &with(2, 1)), Ok(()));
        assert_eq!(
            readiness(Phase::Ready, &with(2, 2)).unwrap_err(),
            "backend postgres: 1 usable servers, 2 required\n"
        );
        assert_eq!(
            readiness(Phase::Starting, &with(1, 0)).unwrap_err(),
            "starting\n"
        );
        assert_eq!(
            readiness(Phase::Stopping, &with(1, 0)).unwrap_err(),
            "stopping\n"
        );
    }

    /// Fault 32: nothing listens, so no traffic should come.
    #[test]
    fn fault_32_without_a_listener_it_is_not_ready() {
        let mut config = config(1);
        for frontend in &mut config.frontends {
            frontend.disabled = true;
        }
        let why = readiness(Phase::Ready, &snapshot(&config)).unwrap_err();
        assert_eq!(why, "no frontend listens\n");
    }
}
