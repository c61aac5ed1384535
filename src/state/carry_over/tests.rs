//! What an object that keeps its name keeps over a reload, and what starts again.

use super::*;
use crate::config::model::{BackendIndex, Check, Config};
use crate::state::Flaps;
use crate::state::status::{OperState, Rules};
use crate::state::test_config::{backend, check, config, frontend, origin, server};
use crate::state::{RuntimeState, ServerState, ServerStatus, Usable, overrides};
use std::collections::HashSet;
use std::time::Duration;

fn start(config: &Config, now: Instant) -> Snapshot {
    Snapshot::initial(config, &origin(now))
}

fn next(before: &Snapshot, config: &Config, now: Instant) -> Snapshot {
    next_with(before, config, now, &HashMap::new())
}

fn next_with(
    before: &Snapshot,
    config: &Config,
    now: Instant,
    addresses: &HashMap<Arc<str>, IpAddr>,
) -> Snapshot {
    let carry = CarryOver {
        maxconn: 200,
        shards: 1,
        addresses,
        now,
    };
    before.next_snapshot(config, &carry)
}

/// Two frontends, two backends of two servers.
fn two() -> Config {
    let mut second = frontend("f1", 4);
    second.default_backend = BackendIndex(1);
    let mut config = config(vec![
        backend("b0", vec![server("s1"), server("s2")]),
        backend("b1", vec![server("s1"), server("s2")]),
    ]);
    config.frontends = vec![frontend("f0", 3), second];
    config
}

fn server_of(snapshot: &Snapshot, backend: u32, index: usize) -> &Arc<Server> {
    &snapshot.backends[backend as usize]
        .as_ref()
        .unwrap()
        .servers[index]
}

/// With the status of a server of the first backend changed.
fn with_status(before: Snapshot, index: usize, change: impl FnOnce(&mut Server)) -> Snapshot {
    let mut builder = crate::state::SnapshotBuilder::new(Arc::new(before));
    let mut server = Server::clone(builder.server(BackendId::first(0), index).unwrap());
    change(&mut server);
    builder.replace(BackendId::first(0), index, server, Instant::now());
    builder.finish().unwrap()
}

fn down(server: &mut Server) {
    let rules = server.rules();
    server.status.check_failed(rules, Instant::now());
}

#[test]
fn what_does_not_change_is_the_same_object() {
    let now = Instant::now();
    let before = start(&two(), now);
    let after = next(&before, &two(), now);
    assert_eq!(after.maxconn, 200);
    for id in 0..2 {
        let (old, new) = (
            before.backend(BackendId::first(id)),
            after.backend(BackendId::first(id)),
        );
        assert!(Arc::ptr_eq(old.unwrap(), new.unwrap()));
        let (old, new) = (
            before.frontend(FrontendId::first(id)),
            after.frontend(FrontendId::first(id)),
        );
        assert!(Arc::ptr_eq(old.unwrap(), new.unwrap()));
    }
}

/// The backend that a frontend's sessions go to.
fn backend_of(frontend: &Frontend) -> BackendId {
    let backend = frontend.route.backend();
    backend.id
}

#[test]
fn ids_follow_names_and_are_never_given_twice() {
    let now = Instant::now();
    let before = start(&two(), now);
    let mut less = two();
    less.frontends.remove(0);
    less.backends.remove(0);
    less.frontends[0].default_backend = BackendIndex(0);
    let without = next(&before, &less, now);
    assert!(without.frontend(FrontendId::first(0)).is_none());
    assert!(without.backend(BackendId::first(0)).is_none());
    let stayed = without.frontend(FrontendId::first(1)).unwrap();
    assert_eq!(&*stayed.spec.name, "f1");
    assert_eq!(
        backend_of(stayed),
        BackendId::first(1),
        "by id, not by position"
    );
    let again = next(&without, &two(), now);
    let back = again.frontends_by_name()["f0"];
    let (frontend, backend) = (FrontendId::given(0, 2), BackendId::given(0, 2));
    assert_eq!((back.id, backend_of(back)), (frontend, backend));
    assert!(again.frontend(frontend).is_some() && again.backend(backend).is_some());
    assert!(again.frontend(FrontendId::first(0)).is_none());
    assert!(again.backend(BackendId::first(0)).is_none());
}

/// Fault 23: tables grew by one position with each rename, for ever.
#[test]
fn fault_23_tables_do_not_grow_with_renames() {
    let now = Instant::now();
    let mut snapshot = start(&two(), now);
    let mut given = HashSet::new();
    for round in 0..100 {
        let mut config = two();
        let stays = round % 2;
        let renamed = 1 - stays;
        config.frontends[renamed].name = format!("f-{round}").into();
        config.backends[renamed].name = format!("b-{round}").into();
        snapshot = next(&snapshot, &config, now);
        assert_eq!((snapshot.frontends.len(), snapshot.backends.len()), (2, 2));
        for frontend in snapshot.frontends.iter().flatten() {
            let found = snapshot.frontend(frontend.id).unwrap();
            assert!(Arc::ptr_eq(found, frontend));
            assert_eq!(
                snapshot.backend(backend_of(frontend)).unwrap().id,
                backend_of(frontend)
            );
        }
        let renamed = snapshot.frontends_by_name()[&*format!("f-{round}")].id;
        assert!(given.insert(renamed), "{renamed:?} was given twice");
    }
    let mut one = two();
    one.frontends.pop();
    one.backends.pop();
    let less = next(&snapshot, &one, now);
    assert!(less.frontends.len() <= 2 && less.backends.len() <= 2);
    assert_eq!(
        next(&less, &two(), now).backends.iter().flatten().count(),
        2
    );
}

#[test]
fn counters_health_and_maintenance_survive() {
    let now = Instant::now();
    let before = with_status(start(&two(), now), 0, down);
    let before = with_status(before, 1, |server| {
        let rules = server.rules();
        server.status.set_admin(AdminState::FMAINT, rules, now);
        server.weight = 7;
    });
    let mut config = two();
    config.backends[0].retries = 9;
    config.backends[0].servers.insert(0, server("s0"));
    for server in &mut config.backends[0].servers {
        server.backup = &*server.name == "s1";
    }
    let after = next(&before, &config, now);
    let backend = after.backend(BackendId::first(0)).unwrap();
    let names: Vec<&str> = backend.servers.iter().map(|it| &*it.spec.name).collect();
    assert_eq!(names, ["s0", "s1", "s2"]);
    for (old, new) in [(0, 1), (1, 2)] {
        let (old, new) = (server_of(&before, 0, old), server_of(&after, 0, new));
        assert!(Arc::ptr_eq(&old.live, &new.live));
        assert_eq!(old.status, new.status);
    }
    assert_eq!(backend.servers[2].weight, 7, "set at run time");
    assert!(Arc::ptr_eq(
        &before.backend(BackendId::first(0)).unwrap().live,
        &backend.live
    ));
    assert_eq!(
        backend.usable(),
        Usable {
            active: 1,
            backup: 0
        }
    );
    assert!(backend.status.up, "the new server carries it");
}

#[test]
fn a_changed_weight_replaces_the_one_set_at_run_time() {
    let now = Instant::now();
    let before = with_status(start(&two(), now), 0, |server| server.weight = 7);
    let mut config = two();
    config.backends[0].servers[0].weight = 3;
    assert_eq!(server_of(&next(&before, &config, now), 0, 0).weight, 3);
}

#[test]
fn another_address_resets_health_and_another_interval_does_not() {
    let now = Instant::now();
    let before = with_status(start(&two(), now), 0, down);
    assert_eq!(server_of(&before, 0, 0).status.oper, OperState::Stopped);
    let mut slower = two();
    slower.backends[0].servers[0].check = Some(Check {
        interval: Duration::from_secs(9),
        rise: 5,
        ..check()
    });
    let after = next(&before, &slower, now);
    assert_eq!(server_of(&after, 0, 0).status.oper, OperState::Stopped);
    let mut moved = two();
    moved.backends[0].servers[0].address = ServerAddress::Unix("/elsewhere".into());
    let after = next(&before, &moved, now);
    let server = server_of(&after, 0, 0);
    assert_eq!(server.status.oper, OperState::Running);
    assert_eq!(server.status.health, server.rules().rise);
    assert_eq!(server.endpoint, Some(Endpoint::Unix("/elsewhere".into())));
    assert!(Arc::ptr_eq(&server.live, &server_of(&before, 0, 0).live));
}

#[test]
fn disabled_in_the_file_is_maintenance_until_the_file_says_otherwise() {
    let now = Instant::now();
    let mut off = two();
    off.backends[0].servers[0].disabled = true;
    let mut alone = off.clone();
    alone.backends[0].servers.truncate(1);
    let before = start(&two(), now);
    let after = next(&before, &off, now);
    assert_eq!(server_of(&after, 0, 0).status_label(), "MAINT");
    assert!(after.backend(BackendId::first(0)).unwrap().status.up);
    let down = next(&after, &alone, now);
    assert!(!down.backend(BackendId::first(0)).unwrap().status.up);
    let on = next(&down, &two(), now);
    assert_eq!(server_of(&on, 0, 0).status.oper, OperState::Running);
    // An operator has enabled it: a reload with the same value changes nothing.
    let enabled = with_status(after, 0, |server| {
        let rules = server.rules();
        server.status.set_admin(AdminState::CMAINT, rules, now);
    });
    let mut touched = off;
    touched.backends[0].retries = 1;
    let kept = next(&enabled, &touched, now);
    assert_eq!(server_of(&kept, 0, 0).status.oper, OperState::Running);
}

#[test]
fn a_name_that_is_known_needs_no_maintenance() {
    let now = Instant::now();
    let mut named = two();
    let port = model::ServerPort::Fixed(80);
    named.backends[0].servers[0].address = ServerAddress::Name("known".into(), port);
    named.backends[0].servers[1].address = ServerAddress::Name("unknown".into(), port);
    let mut more = backend("b2", vec![server("s1")]);
    more.servers[0].address = ServerAddress::Name("known".into(), port);
    named.backends.push(more);
    let ip: IpAddr = "10.0.0.9".parse().unwrap();
    let addresses = HashMap::from([(Arc::from("known"), ip)]);
    let after = next_with(&start(&two(), now), &named, now, &addresses);
    let known = Some(Endpoint::Ip(ip, port));
    assert_eq!(server_of(&after, 0, 0).endpoint, known);
    assert!(server_of(&after, 0, 0).is_usable());
    assert_eq!(server_of(&after, 0, 1).status_label(), "MAINT (resolution)");
    assert_eq!(server_of(&after, 2, 0).endpoint, known);
    assert!(after.backends[2].as_ref().unwrap().status.up);
    // Back to an address.
    let back = next(&after, &two(), now);
    assert_eq!(server_of(&back, 0, 1).status.oper, OperState::Running);
}

#[test]
fn a_new_rise_or_fall_keeps_the_verdict() {
    let now = Instant::now();
    let status = |health| ServerStatus {
        health,
        ..ServerStatus::initial(AdminState::READY, Rules::DEFAULT, now)
    };
    let under = |health, rise, fall| {
        let mut status = status(health);
        status.set_rules(
            Rules::DEFAULT,
            Rules {
                rise,
                fall,
                ..Rules::DEFAULT
            },
        );
        status.health
    };
    assert_eq!(under(4, 3, 5), 7, "full stays full");
    assert_eq!(under(0, 3, 5), 0);
    assert_eq!(under(1, 1, 1), 0, "down stays down");
    assert_eq!(under(2, 5, 2), 5, "one failure before down");
    assert_eq!(under(3, 1, 2), 2, "two failures, as far as the limit goes");
}

/// The file's server was gone, and another one had its sessions.
#[test]
fn a_renamed_server_has_its_own_name_again_when_the_file_has_a_server_of_the_other() {
    let now = Instant::now();
    let mut file = two();
    file.backends[0].servers[0].disabled = true;
    let first = start(&file, now);
    let uid = server_of(&first, 0, 0).live.uid;
    let renamed = dynamic::rename(&first, uid, &"x".into(), now).unwrap();
    let renamed = with_status(renamed, 0, |server| server.weight = 7);
    assert_eq!(&*server_of(&renamed, 0, 0).spec.name, "x");
    let mut more = file.clone();
    more.backends[0].servers.push(server("x"));
    let after = next(&renamed, &more, now);
    let shown = |snapshot: &Snapshot| {
        let servers = &snapshot.backends[0].as_ref().unwrap().servers;
        let servers = servers.iter();
        let shown = servers.map(|one| {
            assert_eq!((&one.added, &one.name_in_file), (&None, &None));
            let label = one.status_label().into_owned();
            (one.spec.name.to_string(), label, one.weight)
        });
        shown.collect::<Vec<_>>()
    };
    let row = |name: &str, label: &str, weight| (name.to_owned(), label.to_owned(), weight);
    let expected = [
        row("s1", "MAINT", 7),
        row("s2", "UP 1/3", 1),
        row("x", "UP 1/3", 1),
    ];
    assert_eq!(shown(&after), expected);
    assert_eq!(server_of(&after, 0, 0).live.uid, uid);
    let dropped = overrides::ended(&renamed, &after);
    let dropped: Vec<_> = dropped.iter().map(|it| (&*it.object, it.setting)).collect();
    assert_eq!(dropped, [("server b0/x", "name")], "its weight stays");

    // The same by an upgrade with the other file; also when that says something else of the server itself.
    let mut other = more.clone();
    other.backends[0].servers.pop();
    other.backends[0].servers[0].backup = true;
    let state = ServerState {
        backend: "b0".into(),
        server: "x".into(),
        address: Some([127, 0, 0, 1].into()),
        name: None,
        port: 9,
        oper: OperState::Stopped,
        admin: server_of(&renamed, 0, 0).status.admin,
        weight: 7,
        configured_weight: 1,
        since: now,
        ejected: false,
        flaps: Flaps::default(),
        health: 0,
        check: None,
    };
    let state = RuntimeState {
        overrides: overrides::write(&renamed),
        servers: vec![state],
    };
    for (file, servers) in [(&more, 3), (&other, 2)] {
        let fresh = Arc::new(start(file, now));
        let upgraded = state.apply(&RuntimeState::default(), &fresh, (1, now));
        let upgraded = upgraded.unwrap();
        assert_eq!(shown(&upgraded), expected[..servers]);
        let again = state.apply(&state, &upgraded, (1, now));
        assert!(again.is_none(), "nothing has changed since");
    }
}

#[test]
fn what_a_reload_cannot_keep_is_told() {
    let now = Instant::now();
    let first = start(&two(), now);
    let id = BackendId::first(0);
    let added = Arc::new(model::Server {
        id: dynamic::CHOSEN,
        ..server("n")
    });
    let set = dynamic::add(&first, id, &added, (1, now)).unwrap();
    let set = with_status(set, 0, |server| server.weight = 7);
    let set = with_status(set, 1, |server| server.weight = 8);
    let mut builder = crate::state::SnapshotBuilder::new(Arc::new(set));
    builder.process_mut().rate_limits.sessions = 5;
    builder.frontend_mut(FrontendId::first(0)).unwrap().maxconn = Some(5);
    builder.frontend_mut(FrontendId::first(1)).unwrap().maxconn = Some(5);
    let set = builder.finish().unwrap();
    let mut file = two();
    file.backends[0].servers[0].weight = 3;
    file.backends[0].servers.push(server("n"));
    file.frontends[0].maxconn = Some(9);
    file.frontends[1].name = "gone".into();
    let after = next(&set, &file, now);
    let told = overrides::ended(&set, &after);
    let told: Vec<_> = told.iter().map(|it| (&*it.object, it.setting)).collect();
    let expected = [
        ("frontend f0", "maxconn"),
        ("server b0/s1", "weight"),
        ("server b0/n", "server"),
        ("server b0/n", "check"),
    ];
    assert_eq!(told, expected);
    // Nothing is told of what stays.
    let set = with_status(first, 0, |server| server.weight = 7);
    assert_eq!(overrides::ended(&set, &next(&set, &two(), now)), []);
}

/// A slow start goes on over a reload, over an upgrade, and with another time.
#[test]
fn a_slow_start_goes_on() {
    let start_of = Instant::now();
    let at = |seconds| start_of + Duration::from_secs(seconds);
    let with = |seconds: u64| {
        let mut config = two();
        config.backends[0].servers[0].slowstart = Duration::from_secs(seconds);
        config
    };
    let before = with_status(start(&with(20), start_of), 0, |server| {
        let rules = server.rules();
        server.status.set_admin(AdminState::FMAINT, rules, start_of);
        server.status.set_admin(AdminState::READY, rules, start_of);
        server.status.step(rules, at(10));
    });
    let share = |snapshot: &Snapshot| {
        let server = server_of(snapshot, 0, 0);
        let backend = snapshot.backends[0].as_ref().unwrap();
        (server.status.oper, server.eweight(&backend.spec))
    };
    assert_eq!(share(&before), (OperState::Starting, 9));
    let mut other = with(20);
    other.backends[0].servers[0].maxconn = 7;
    assert_eq!(share(&next(&before, &other, at(10))), share(&before));
    let slower = next(&before, &with(40), at(10));
    assert_eq!(share(&slower), (OperState::Starting, 5));
    let ended = next(&before, &two(), at(10));
    assert_eq!(share(&ended), (OperState::Running, 16));

    let known = |oper| ServerState {
        backend: "b0".into(),
        server: "s1".into(),
        address: Some([127, 0, 0, 1].into()),
        name: None,
        port: 9,
        oper,
        admin: AdminState::READY,
        weight: 1,
        configured_weight: 1,
        since: at(15),
        ejected: false,
        flaps: Flaps::default(),
        health: 4,
        check: Some((0, None)),
    };
    let taken = |oper, config: &Config| {
        let base = Arc::new(start(config, start_of));
        let next = crate::state::server_state::apply(&base, &[known(oper)], at(30));
        share(&next.unwrap())
    };
    let mut asked = with(20);
    asked.backends[0].servers[0].slowstart_at_start = true;
    let begins = start(&asked, start_of);
    assert_eq!(share(&begins), (OperState::Starting, 1));
    for config in [with(20), asked] {
        let going_on = taken(OperState::Starting, &config);
        assert_eq!(going_on, (OperState::Starting, 13));
        assert_eq!(taken(OperState::Running, &config), (OperState::Running, 16));
    }
    assert_eq!(
        taken(OperState::Starting, &with(9)),
        (OperState::Running, 16)
    );
}
