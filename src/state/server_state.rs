//! The state that an earlier process had of a server, and which parts of it apply to the same server now.
//!
//! The rules are those of a reload (`super::carry_over`): an operator's state and weight stay unless the file's
//! own value for the same thing has changed; health stays unless the server's address or what its check
//! connects to has changed. Pure; called before checks begin.

use super::builder::SnapshotBuilder;
use super::server::Server;
use super::snapshot::Snapshot;
use super::status::{AdminState, Flaps, Forced, OperState};
use crate::config::model::{ServerAddress, ServerPort};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// The state of a server in an earlier process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// Its backend's name.
    pub backend: Box<str>,
    /// Its name.
    pub server: Box<str>,
    /// Its address; `None` for a unix socket and for a name that did not resolve.
    pub address: Option<IpAddr>,
    /// The host name in its configuration, if it had one.
    pub name: Option<Box<str>>,
    /// Its port. 0: that of the client's connection, or a unix socket.
    pub port: u16,
    /// Operational state.
    pub oper: OperState,
    /// Administrative flags.
    pub admin: AdminState,
    /// Weight in force.
    pub weight: u32,
    /// Weight in the file.
    pub configured_weight: u32,
    /// When its operational state began.
    pub since: Instant,
    /// It was down because connects of sessions had failed.
    pub ejected: bool,
    /// How often it had gone down, and whether it was held down.
    pub flaps: Flaps,
    /// Health counter.
    pub health: u32,
    /// Port (0: the server's) and address of its check; `None`: it was not checked.
    pub check: Option<(u16, Option<IpAddr>)>,
}

/// `base` with the known states applied, where they apply; `None` when none does.
pub fn apply(base: &Arc<Snapshot>, known: &[ServerState], now: Instant) -> Option<Snapshot> {
    apply_changes(base, &[], (known, now))
}

/// `base` with what has changed from the states `before` to the `known` ones. What this process has found out
/// since stays where nothing has changed.
pub fn apply_changes(
    base: &Arc<Snapshot>,
    before: &[ServerState],
    (known, now): (&[ServerState], Instant),
) -> Option<Snapshot> {
    let (before, known) = (by_name(before), by_name(known));
    let mut builder = SnapshotBuilder::new(Arc::clone(base));
    for backend in base.backends.iter().flatten() {
        for (index, server) in backend.servers.iter().enumerate() {
            let name = (&*backend.spec.name, &*server.spec.name);
            let Some(one) = known.get(&name) else {
                continue;
            };
            let before = before.get(&name);
            if before.is_some_and(|before| one.is_same(before)) {
                continue;
            }
            let mut next = Server::clone(server);
            one.apply_admin(&mut next, now);
            if before.is_none_or(|before| !one.has_same_health(before)) {
                one.apply_health(&mut next, now);
            }
            builder.replace(backend.id, index, next, now);
        }
    }
    builder.finish()
}

fn by_name(states: &[ServerState]) -> HashMap<(&str, &str), &ServerState> {
    let states = states.iter();
    states
        .map(|one| ((&*one.backend, &*one.server), one))
        .collect()
}

impl ServerState {
    /// Whether both say the same, except for when it began.
    fn is_same(&self, other: &Self) -> bool {
        let since = self.since;
        *self
            == Self {
                since,
                ..other.clone()
            }
    }

    fn has_same_health(&self, other: &Self) -> bool {
        let maint = |state: &Self| state.admin.is_maint();
        let of = |state: &Self| {
            let health = (state.oper, state.health, state.ejected, state.flaps);
            (health, maint(state))
        };
        of(self) == of(other)
    }

    fn apply_admin(&self, server: &mut Server, now: Instant) {
        if self.configured_weight == server.spec.weight {
            server.weight = self.weight;
        }
        let mut kept = AdminState::FDRAIN;
        if self.admin.has(AdminState::CMAINT) == server.spec.disabled {
            kept = kept.with(AdminState::FMAINT);
        }
        let rules = server.rules();
        let admin = server.status.admin.without(kept);
        let admin = admin.with(AdminState(self.admin.0 & kept.0));
        if admin != server.status.admin {
            server.status.set_admin(admin, rules, now);
        }
    }

    fn apply_health(&self, server: &mut Server, now: Instant) {
        let rules = server.rules();
        let down = self.oper == OperState::Stopped;
        let status = &mut server.status;
        if !status.admin.is_maint() && !self.admin.is_maint() && self.asked_the_same(&server.spec) {
            if down {
                status.force(Forced::Down, rules, now);
                status.health = self.health.min(rules.rise.saturating_sub(1));
                status.ejected = self.ejected;
            } else {
                match self.oper {
                    OperState::Stopping => status.force(Forced::Stopping, rules, now),
                    oper => status.resume(oper == OperState::Starting, rules, now),
                }
                status.health = self.health.clamp(rules.rise, rules.full());
            }
            status.flaps = self.flaps;
        }
        if down == (status.oper == OperState::Stopped) {
            status.since = self.since.min(now);
            status.step(rules, now);
        }
    }

    /// Whether it was checked as `spec` says: not at all, or with a check that connected to the same address and
    /// port.
    fn asked_the_same(&self, spec: &crate::config::model::Server) -> bool {
        let check = spec.check.as_ref();
        let check = check.map(|check| (check.port.unwrap_or(0), check.address));
        self.check == check && self.is_at(&spec.address)
    }

    /// Whether it had this address. For a unix socket the format does not tell.
    fn is_at(&self, address: &ServerAddress) -> bool {
        let (ip, name, port) = match address {
            ServerAddress::Ip(ip, port) => (Some(*ip), None, *port),
            ServerAddress::Name(name, port) => (self.address, Some(&**name), *port),
            ServerAddress::Unix(_) => (None, None, ServerPort::Fixed(0)),
        };
        let port = match port {
            ServerPort::Fixed(port) => port,
            ServerPort::FromClient(_) => 0,
        };
        self.address == ip && self.name.as_deref() == name && self.port == port
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Config, HoldDown};
    use crate::state::test_config::{backend, config, origin, server};
    use std::time::Duration;

    const LASTING: Duration = Duration::from_millis(7_500);

    fn start(config: &Config, now: Instant) -> Arc<Snapshot> {
        Arc::new(Snapshot::initial(config, &origin(now)))
    }

    /// The state of `s1` of `be`, as `test_config` has it.
    fn known() -> ServerState {
        ServerState {
            backend: "be".into(),
            server: "s1".into(),
            address: Some([127, 0, 0, 1].into()),
            name: None,
            port: 9,
            oper: OperState::Running,
            admin: AdminState::READY,
            weight: 1,
            configured_weight: 1,
            since: Instant::now(),
            ejected: false,
            flaps: Flaps::default(),
            health: 4,
            check: Some((0, None)),
        }
    }

    /// `s1` after `known` is applied to `config`, ten seconds after the clock's start and 7.5 s after its state began.
    fn taken(known: ServerState, config: &Config) -> (Server, Arc<Snapshot>, Instant) {
        let now = Instant::now() + Duration::from_secs(10);
        let known = ServerState {
            since: now.checked_sub(LASTING).unwrap(),
            ..known
        };
        let base = start(config, now);
        let next = apply(&base, &[known], now).map_or(base, Arc::new);
        let server = &next.backends[0].as_ref().unwrap().servers[0];
        (Server::clone(server), next, now)
    }

    fn two() -> Config {
        config(vec![backend("be", vec![server("s1"), server("s2")])])
    }

    #[test]
    fn health_and_the_time_of_its_last_change_stay() {
        let (up, _, now) = taken(known(), &two());
        assert_eq!((up.status.oper, up.status.health), (OperState::Running, 4));
        assert_eq!(now - up.status.since, LASTING);
        let down = ServerState {
            oper: OperState::Stopped,
            health: 1,
            ..known()
        };
        let (down, next, now) = taken(down, &two());
        assert_eq!(
            (down.status.oper, down.status.health),
            (OperState::Stopped, 1)
        );
        assert_eq!(now - down.status.since, LASTING);
        let backend = next.backends[0].as_ref().unwrap();
        assert_eq!(backend.usable().active, 1, "and is not chosen");
        assert!(backend.servers[1].is_usable(), "the other is as it begins");
    }

    /// `max-ejected` counts it in the next process too.
    #[test]
    fn a_server_that_sessions_have_taken_down_stays_ejected() {
        let ejected = ServerState {
            oper: OperState::Stopped,
            health: 0,
            ejected: true,
            ..known()
        };
        let (server, ..) = taken(ejected.clone(), &two());
        assert!(server.status.ejected);
        let elsewhere = ServerState {
            port: 10,
            ..ejected.clone()
        };
        assert!(!taken(elsewhere, &two()).0.status.ejected);
        let up = ServerState {
            oper: OperState::Running,
            health: 4,
            ..ejected
        };
        assert!(!taken(up, &two()).0.status.ejected);
    }

    /// The time for which it is held down goes on, and so does the count of one that is up.
    #[test]
    fn a_server_that_flaps_does_so_in_the_next_process_too() {
        let held = ServerState {
            oper: OperState::Stopped,
            health: 1,
            flaps: Flaps {
                count: 3,
                held: true,
            },
            ..known()
        };
        let mut file = two();
        file.backends[0].servers[0].hold_down = Some(Arc::new(HoldDown {
            base: Duration::from_secs(10),
            max: Duration::from_secs(60),
            window: Duration::from_secs(60),
        }));
        let (server, _, now) = taken(held.clone(), &file);
        let left = server.status.held_for(server.rules(), now);
        assert_eq!(
            left.map(|left| left + LASTING),
            Some(Duration::from_secs(20))
        );
        let elsewhere = ServerState {
            port: 10,
            ..held.clone()
        };
        assert_eq!(taken(elsewhere, &file).0.status.flaps, Flaps::default());
        let up = ServerState {
            oper: OperState::Running,
            health: 4,
            flaps: Flaps {
                count: 3,
                held: false,
            },
            ..held
        };
        assert_eq!(taken(up, &file).0.status.flaps.count, 3);
    }

    #[test]
    fn a_check_of_another_target_resets_health() {
        let down = ServerState {
            oper: OperState::Stopped,
            health: 0,
            ..known()
        };
        let elsewhere = ServerState {
            port: 10,
            ..down.clone()
        };
        let named = ServerState {
            name: Some("db".into()),
            ..down.clone()
        };
        let asked = ServerState {
            check: Some((11, None)),
            ..down.clone()
        };
        let unchecked = ServerState {
            check: None,
            ..down
        };
        for other in [elsewhere, named, asked, unchecked] {
            let (server, ..) = taken(other.clone(), &two());
            assert_eq!(server.status.oper, OperState::Running, "{other:?}");
        }
    }

    #[test]
    fn an_operators_state_and_weight_yield_to_the_file() {
        let touched = ServerState {
            admin: AdminState::FMAINT,
            oper: OperState::Stopped,
            health: 0,
            weight: 9,
            ..known()
        };
        let (server, ..) = taken(touched.clone(), &two());
        assert_eq!(
            (server.status.admin, server.weight),
            (AdminState::FMAINT, 9)
        );
        assert_eq!(server.status.oper, OperState::Stopped);

        let mut changed = two();
        changed.backends[0].servers[0].weight = 3;
        changed.backends[0].servers[0].disabled = true;
        let (server, ..) = taken(touched, &changed);
        let disabled = AdminState::FMAINT.with(AdminState::CMAINT);
        assert_eq!((server.status.admin, server.weight), (disabled, 3));

        // It was disabled in the file, and an operator has enabled it.
        let enabled = ServerState {
            admin: AdminState::CMAINT,
            configured_weight: 3,
            weight: 3,
            ..known()
        };
        let (server, ..) = taken(enabled.clone(), &changed);
        assert_eq!(server.status.admin, AdminState::CMAINT);
        assert!(server.is_usable());
        // Now the file has the same value.
        let (server, ..) = taken(enabled, &two());
        assert_eq!(server.status.admin, AdminState::READY);
        let drained = ServerState {
            admin: AdminState::FDRAIN,
            ..known()
        };
        let (server, ..) = taken(drained, &changed);
        assert!(server.status.admin.is_drain(), "a drain yields to nothing");
    }

    /// An operator can take a server down that is not checked.
    #[test]
    fn a_state_that_an_operator_has_forced_stays() {
        let mut unchecked = two();
        unchecked.backends[0].servers[0].check = None;
        for (oper, config, check) in [
            (OperState::Stopped, &unchecked, None),
            (OperState::Stopping, &unchecked, None),
            (OperState::Stopping, &two(), Some((0, None))),
        ] {
            let forced = ServerState {
                oper,
                check,
                ..known()
            };
            let (server, ..) = taken(forced, config);
            assert_eq!(server.status.oper, oper);
        }
    }

    /// The states that come with `go` follow those of the start.
    #[test]
    fn only_what_has_changed_since_is_applied_again() {
        let now = Instant::now() + Duration::from_secs(10);
        let base = start(&two(), now);
        let mut builder = SnapshotBuilder::new(Arc::clone(&base));
        let backend = base.backends[0].as_ref().unwrap();
        let mut down = Server::clone(&backend.servers[0]);
        down.status.force(Forced::Down, down.rules(), now);
        builder.replace(backend.id, 0, down, now);
        let base = Arc::new(builder.finish().unwrap());
        let first = |snapshot: &Snapshot| {
            let server = &snapshot.backends[0].as_ref().unwrap().servers[0];
            (server.status.oper, server.weight)
        };
        let apply = |state| apply_changes(&base, &[known()], (&[state], now));
        let later = ServerState {
            since: now.checked_sub(LASTING).unwrap(),
            ..known()
        };
        assert!(apply(later).is_none());
        let weight = ServerState {
            weight: 9,
            ..known()
        };
        let next = apply(weight).unwrap();
        assert_eq!(
            first(&next),
            (OperState::Stopped, 9),
            "its own check counts"
        );
        let up = ServerState {
            health: 3,
            ..known()
        };
        let next = apply(up).unwrap();
        assert_eq!(
            first(&next),
            (OperState::Running, 1),
            "the newer one counts"
        );
    }

    #[test]
    fn a_counter_stays_within_the_limits_of_its_check() {
        let mut config = two();
        config.backends[0].servers[0].check.as_mut().unwrap().fall = 1;
        let (server, ..) = taken(known(), &config);
        assert_eq!(server.status.health, server.rules().full());
        let odd = ServerState {
            oper: OperState::Stopped,
            health: 99,
            ..known()
        };
        let (server, ..) = taken(odd, &config);
        assert!(server.status.health < server.rules().rise);
    }

    #[test]
    fn servers_that_are_gone_or_new_are_left_alone() {
        let gone = ServerState {
            server: "s9".into(),
            ..known()
        };
        let now = Instant::now();
        let base = start(&two(), now);
        assert!(apply(&base, &[gone], now).is_none());
    }
}
