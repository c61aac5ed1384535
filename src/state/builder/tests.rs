//! What a builder shares, what it rebuilds, and how a backend's status follows its servers.

use super::*;
use crate::config::model;
use crate::live::GlobalLive;
use crate::state::snapshot::Origin;
use crate::state::status::{AdminState, OperState};
use crate::state::test_config::{backend, config, server};
use std::time::Duration;

fn snapshot(servers: Vec<model::Server>, now: Instant) -> Arc<Snapshot> {
    let config = config(vec![
        backend("b0", servers),
        backend("b1", vec![server("x")]),
    ]);
    let origin = Origin {
        global: Arc::new(GlobalLive::new(now, 1)),
        maxconn: 100,
        shards: 1,
        now,
    };
    Arc::new(Snapshot::initial(&config, &origin))
}

const B0: BackendId = BackendId::first(0);

fn change(
    builder: &mut SnapshotBuilder,
    index: usize,
    admin: AdminState,
    now: Instant,
) -> BackendChange {
    let mut server = Server::clone(builder.server(B0, index).unwrap());
    let rules = server.rules();
    server.status.set_admin(admin, rules, now);
    builder.replace(B0, index, server, now)
}

#[test]
fn a_batch_touches_only_what_it_changes() {
    let now = Instant::now();
    let before = snapshot(vec![server("s1"), server("s2")], now);
    let mut builder = SnapshotBuilder::new(Arc::clone(&before));
    assert_eq!(
        change(&mut builder, 0, AdminState::FMAINT, now),
        BackendChange::None
    );
    let after = builder.finish().unwrap();
    let part =
        |snapshot: &Snapshot, id| Arc::clone(snapshot.backend(BackendId::first(id)).unwrap());
    assert!(Arc::ptr_eq(&part(&before, 1), &part(&after, 1)));
    let (old, new) = (part(&before, 0), part(&after, 0));
    assert!(!Arc::ptr_eq(&old, &new));
    assert!(Arc::ptr_eq(&old.servers[1], &new.servers[1]));
    assert!(Arc::ptr_eq(&old.servers[0].live, &new.servers[0].live));
    assert_eq!(
        new.usable(),
        Usable {
            active: 1,
            backup: 0
        }
    );
    let mut picked = Vec::new();
    new.picker.pick(
        &crate::balance::PickInput::take(&new.live.cursor),
        |_| 0,
        |index| {
            picked.push(index);
            false
        },
    );
    assert_eq!(picked, [1], "the picker knows");
}

#[test]
fn nothing_touched_is_nothing_published() {
    let before = snapshot(vec![server("s1")], Instant::now());
    assert!(SnapshotBuilder::new(before).finish().is_none());
}

#[test]
fn the_backend_goes_down_with_its_last_usable_server_and_adds_up_downtime() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut spare = server("s2");
    spare.backup = true;
    let mut builder = SnapshotBuilder::new(snapshot(vec![server("s1"), spare], start));
    assert_eq!(
        builder.usable(B0),
        Usable {
            active: 1,
            backup: 1
        }
    );
    assert_eq!(
        change(&mut builder, 0, AdminState::FMAINT, at(1)),
        BackendChange::None
    );
    assert!(builder.usable(B0).on_backup());
    assert_eq!(
        change(&mut builder, 1, AdminState::FDRAIN, at(2)),
        BackendChange::Down
    );
    let mut builder = SnapshotBuilder::new(Arc::new(builder.finish().unwrap()));
    let status = builder.backend(B0).unwrap().status;
    assert!(!status.up);
    assert_eq!(status.downtime(at(5)), Duration::from_secs(3));
    assert_eq!(
        change(&mut builder, 0, AdminState::READY, at(6)),
        BackendChange::Up
    );
    let after = builder.finish().unwrap();
    let status = after.backend(B0).unwrap().status;
    assert_eq!((status.up, status.since), (true, at(6)));
    assert_eq!(status.downtime(at(9)), Duration::from_secs(4));
}

#[test]
fn a_backend_without_servers_is_up_and_a_disabled_one_is_not() {
    let now = Instant::now();
    let empty = snapshot(vec![], now);
    assert!(empty.backend(B0).unwrap().status.up);
    let mut disabled = server("s1");
    disabled.disabled = true;
    let mut named = server("s2");
    named.address = model::ServerAddress::Name("db.example".into(), model::ServerPort::Fixed(1));
    let down = snapshot(vec![disabled, named], now);
    let backend = down.backend(B0).unwrap();
    assert!(!backend.status.up && backend.picker.is_empty());
    let labels: Vec<_> = backend.servers.iter().map(|s| s.status_label()).collect();
    assert_eq!(labels, ["MAINT", "MAINT (resolution)"]);
}

#[test]
fn a_position_that_does_not_exist_changes_nothing() {
    let now = Instant::now();
    let mut builder = SnapshotBuilder::new(snapshot(vec![server("s1")], now));
    let server = Server::clone(builder.server(B0, 0).unwrap());
    assert_eq!(
        builder.replace(BackendId::first(9), 0, server, now),
        BackendChange::None
    );
    assert!(builder.finish().is_none());
}

/// A session that connects looks only at what was renewed since it looked last, however many servers there are.
#[test]
fn renewed_servers_are_found_without_the_others() {
    let now = Instant::now();
    let first = snapshot(
        (0..5).map(|number| server(&format!("s{number}"))).collect(),
        now,
    );
    let names = |snapshot: &Snapshot, since| -> Vec<String> {
        let backend = snapshot.backend(B0).unwrap();
        let renewed = backend.renewed_since(since);
        renewed.map(|server| server.spec.name.to_string()).collect()
    };
    let generation = |snapshot: &Snapshot| snapshot.backend(B0).unwrap().generation;
    assert_eq!((names(&first, 0), generation(&first)), (vec![], 0));
    // s1 and s3 leave and come back, s1 a second time later. To leave renews nothing.
    let turn = |base: &Arc<Snapshot>, admin, indices: &[usize]| {
        let mut builder = SnapshotBuilder::new(Arc::clone(base));
        for index in indices {
            change(&mut builder, *index, admin, now);
        }
        assert_eq!(builder.backends_changed(), [B0]);
        Arc::new(builder.finish().unwrap())
    };
    let (out, back) = (AdminState::FMAINT, AdminState::READY);
    let gone = turn(&first, out, &[1, 3]);
    assert_eq!((names(&gone, 0), generation(&gone)), (vec![], 1));
    let came = turn(&gone, back, &[1, 3]);
    assert_eq!(names(&came, 1), ["s3", "s1"]);
    let again = turn(&turn(&came, out, &[1]), back, &[1]);
    assert_eq!(
        (names(&again, 0), names(&again, 2)),
        (
            vec!["s1".to_owned(), "s3".to_owned()],
            vec!["s1".to_owned()]
        )
    );
    assert!(names(&again, generation(&again)).is_empty());
    // Another address of a usable server renews it, and one of an unusable server does not.
    let mut builder = SnapshotBuilder::new(Arc::clone(&again));
    let elsewhere = model::ServerAddress::Ip([127, 0, 0, 9].into(), model::ServerPort::Fixed(9));
    change(&mut builder, 2, out, now);
    for index in [2, 4] {
        let mut server = Server::clone(builder.server(B0, index).unwrap());
        server.endpoint = crate::state::Endpoint::of(&elsewhere);
        builder.replace(B0, index, server, now);
    }
    assert_eq!(builder.backends_changed(), [B0]);
    let moved = builder.finish().unwrap();
    assert_eq!(names(&moved, generation(&again)), ["s4"]);
    // Without s3 the positions are others.
    let backend = moved.backend(B0).unwrap();
    let kept = backend
        .servers
        .iter()
        .filter(|server| &*server.spec.name != "s3");
    let fewer = backend.with_servers(kept.cloned().collect(), now);
    let renewed: Vec<_> = fewer
        .renewed_since(0)
        .map(|server| &*server.spec.name)
        .collect();
    assert_eq!(renewed, ["s4", "s1"]);
    assert_eq!(fewer.generation, backend.generation + 1);
}

/// Sessions that connect choose again when servers come up or go down. The end of a slow start is neither.
#[test]
fn the_end_of_a_slow_start_is_no_change_for_sessions() {
    let now = Instant::now();
    let slow = model::Server {
        slowstart: Duration::from_secs(1),
        ..server("s1")
    };
    let base = snapshot(vec![slow], now);
    let mut builder = SnapshotBuilder::new(base);
    change(&mut builder, 0, AdminState::FMAINT, now);
    let base = Arc::new(builder.finish().unwrap());
    let mut builder = SnapshotBuilder::new(base);
    change(&mut builder, 0, AdminState::READY, now);
    assert_eq!(builder.backends_changed(), [B0]);
    let base = Arc::new(builder.finish().unwrap());
    let mut builder = SnapshotBuilder::new(base);
    let mut server = Server::clone(builder.server(B0, 0).unwrap());
    let rules = server.rules();
    server.status.step(rules, now + Duration::from_secs(1));
    assert_eq!(server.status.oper, OperState::Running);
    builder.replace(B0, 0, server, now);
    assert_eq!(builder.backends_changed(), []);
}
