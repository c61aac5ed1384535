//! What is written is read unchanged, and what is not valid is left out.

use super::*;
use crate::state::{AdminState, Flaps, OperState, ServerState, SnapshotBuilder};
use crate::stats::test_snapshot::seed;
use std::sync::Arc;

/// A clock that all share, at this process's `now`.
const MONOTONIC: Duration = Duration::from_secs(1_000);

fn read(text: &str) -> Vec<ServerState> {
    super::read(text, (Instant::now(), MONOTONIC))
}

/// The next process is told the same, to the nanosecond, however long it takes to read it.
#[test]
fn what_is_written_is_read() {
    let mut builder = SnapshotBuilder::new(Arc::new(seed(3)));
    let backend = Arc::clone(builder.base().backends[0].as_ref().unwrap());
    let began = backend.servers[0].status.since;
    let written_at = began + Duration::from_millis(1_700);
    let mut down = Server::clone(&backend.servers[1]);
    (down.status.oper, down.status.health) = (OperState::Stopped, 0);
    down.status.ejected = true;
    let flaps = Flaps {
        count: 3,
        held: true,
    };
    down.status.flaps = flaps;
    builder.replace(backend.id, 1, down, began);
    let snapshot = builder.finish().unwrap();
    let text = for_next_process(&snapshot, (written_at, MONOTONIC));
    let later = Duration::from_millis(800);
    let read_at = (written_at + later, MONOTONIC + later);
    let servers = super::read(&text, read_at);
    let names: Vec<&str> = servers.iter().map(|one| &*one.server).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    let first = ServerState {
        backend: "postgres".into(),
        server: "node1".into(),
        address: Some([127, 0, 0, 1].into()),
        name: None,
        port: 9,
        oper: OperState::Running,
        admin: AdminState::READY,
        weight: 1,
        configured_weight: 1,
        since: began,
        ejected: false,
        flaps: Flaps::default(),
        health: 2,
        check: Some((0, None)),
    };
    assert_eq!(servers[0], first);
    let second = &servers[1];
    assert_eq!((second.oper, second.ejected), (OperState::Stopped, true));
    assert_eq!(second.flaps, flaps);
    // A version that has only HAProxy's columns; operators see no others.
    let columns = |line: &str| line.split(' ').take(25).collect::<Vec<_>>().join(" ");
    let mut plain: Vec<String> = text.lines().skip(2).map(columns).collect();
    let shown = of_backend(snapshot.backends[0].as_ref().unwrap(), written_at);
    assert_eq!(shown.lines().collect::<Vec<_>>(), plain);
    plain.insert(0, "1".to_owned());
    let servers = super::read(&plain.join("\n"), read_at);
    assert_eq!(read_at.0 - servers[0].since, Duration::from_secs(1));
    assert!(!servers[1].ejected && servers[1].flaps == Flaps::default());
}

/// Recorded from HAProxy 2.6 and 3.x, whose lines end differently.
#[test]
fn lines_of_haproxy_are_read() {
    let text = "1\n# be_id be_name srv_id srv_name srv_addr\n\
        3 be 1 s1 10.0.0.1 0 1 7 2 15 6 3 0 14 0 0 0 - 5432 - 0 0 - - 0\n\
        3 be 2 s2 10.0.0.2 2 0 1 1 15 6 3 4 6 0 0 0 db.example 5432 - 0 5433 10.0.0.9 - 0 x y\n\
        3 be 3 s3 - 2 0 1 1 15 1 0 1 0 0 0 0 - 0\n";
    let servers = read(text);
    assert_eq!(servers.len(), 3);
    assert_eq!(
        (servers[0].oper, servers[0].admin, servers[0].weight),
        (OperState::Stopped, AdminState::FMAINT, 7)
    );
    assert_eq!(servers[1].name.as_deref(), Some("db.example"));
    assert_eq!(servers[1].check, Some((5433, Some([10, 0, 0, 9].into()))));
    assert_eq!((servers[2].address, servers[2].check), (None, None));
}

/// As HAProxy takes files: a line that is cut off makes all of it worthless, a value that is none only its server.
#[test]
fn a_file_is_taken_as_by_haproxy() {
    let line = |name: &str, oper: u8| {
        format!("3 be 1 {name} 10.0.0.1 {oper} 0 1 1 15 6 3 4 6 0 0 0 - 5432 - 0 0 - - 0\n")
    };
    let clock = (Instant::now(), Duration::ZERO);
    let read = |text: &str| super::read_file(text, clock);
    assert_eq!(read("").err(), Some(Unreadable::Empty));
    for text in ["1", "2\n", "# be_id\n1\n", "1 \n"] {
        assert_eq!(read(text).err(), Some(Unreadable::Version), "{text:?}");
    }
    assert_eq!(read("1\n"), Ok((Vec::new(), Vec::new())));
    let good = format!(
        "1\n# be_id\n\n \t# a remark\n{}{}{}{}",
        line("a", 2),
        line("b", 9),
        line("a", 0),
        line("c", 0)
    );
    let (servers, wrong) = read(&good).unwrap();
    let servers: Vec<_> = servers.iter().map(|it| (&*it.server, it.oper)).collect();
    let expected = [("a", OperState::Running), ("c", OperState::Stopped)];
    assert_eq!(servers, expected, "the first line of a server counts");
    assert_eq!(wrong, ["be/b"]);
    assert_eq!(read(good.trim_end()).err(), Some(Unreadable::Line(7)));
    let short = format!("1\n{}3 be 1 s\n", line("a", 2));
    assert_eq!(read(&short).err(), Some(Unreadable::Line(2)));
}

#[test]
fn what_is_not_valid_is_left_out() {
    let good = "3 be 1 s1 10.0.0.1 2 0 1 1 15 6 3 4 6 0 0 0 - 5432 - 0 0 - - 0";
    assert_eq!(read(&format!("1\n{good}\n")).len(), 1);
    assert!(read(&format!("2\n{good}\n")).is_empty(), "another version");
    assert!(read("").is_empty());
    let state = good.replacen(" 2 0 1 1 ", " 9 0 1 1 ", 1);
    let weight = good.replacen(" 2 0 1 1 ", " 2 0 -1 1 ", 1);
    for bad in ["3 be 1 s1", &state, &weight] {
        let text = format!("1\n{bad}\n{good}\n");
        assert_eq!(read(&text).len(), 1, "{bad}");
    }
}
