//! What is written is read unchanged, and what is not valid is left out.

use super::*;
use crate::state::{AdminState, OperState, ServerState};
use crate::stats::test_snapshot::seed;

#[test]
fn what_is_written_is_read() {
    let snapshot = seed(3);
    let later = Instant::now() + std::time::Duration::from_secs(90);
    let servers = read(&whole(&snapshot, later));
    let names: Vec<&str> = servers.iter().map(|one| &*one.server).collect();
    assert_eq!(names, ["node1", "node2", "node3"]);
    let first = servers[0].clone();
    let lasting = first.lasting;
    assert!((89..=90).contains(&lasting.as_secs()), "{lasting:?}");
    assert_eq!(
        first,
        ServerState {
            backend: "postgres".into(),
            server: "node1".into(),
            address: Some([127, 0, 0, 1].into()),
            name: None,
            port: 9,
            oper: OperState::Running,
            admin: AdminState::READY,
            weight: 1,
            configured_weight: 1,
            lasting,
            health: 2,
            check: Some((0, None)),
        }
    );
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
