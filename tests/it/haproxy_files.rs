//! Configurations of HAProxy's: `rlb convert`, `rlb run --haproxy` with its reloads, `rlb check` and
//! `rlb diff`.

use crate::harness::client::hear;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Start, command};
use std::fs;
use std::net::SocketAddr;

/// A service with these lines, over these servers.
fn haproxy(lines: &str, servers: &[SocketAddr]) -> String {
    let servers = servers.iter().enumerate();
    let servers: Vec<String> = servers
        .map(|(index, address)| format!("  server s{index} {address}\n"))
        .collect();
    let servers = servers.concat();
    format!(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n\
         listen fe\n  bind 127.0.0.1:0\n{lines}{servers}"
    )
}

#[test]
fn a_file_of_haproxys_is_run_and_read_again_by_a_reload() {
    let peers = ["one", "two"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let [one, two] = [peers[0].address(), peers[1].address()];
    let mut rlb = Start::new(&haproxy("", &[one])).haproxy().ready();
    assert_eq!(hear(rlb.address()).0, "one");
    rlb.reload(&haproxy("", &[two]));
    assert_eq!(hear(rlb.address()).0, "two");
    // What would be weaker is refused, and what is in force stays.
    rlb.reload_refused(&haproxy("  balance leastconn\n", &[one, two]));
    let events = rlb.events().all().join("\n");
    assert!(
        events.contains("rlb.toml:8:3: not supported yet: balance"),
        "{events}"
    );
    rlb.reload_refused(&haproxy("  ballance roundrobin\n", &[one]));
    assert_eq!(hear(rlb.address()).0, "two");
    rlb.stop();
}

#[test]
fn a_start_with_what_is_not_carried_over_is_refused() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let text = haproxy("  balance source\n", &[nobody, nobody]);
    let (status, said) = Start::new(&text).haproxy().exits();
    assert_eq!(status.code(), Some(78), "{said:#?}");
    assert!(said.join("\n").contains("not `source`"), "{said:#?}");
}

#[test]
fn check_and_diff_take_files_of_haproxys() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let other = SocketAddr::from(([127, 0, 0, 1], 10));
    let (good, weak, toml) = (path("good.cfg"), path("weak.cfg"), path("rlb.toml"));
    fs::write(&good, haproxy("", &[nobody])).expect("written");
    let least = "  balance leastconn\n";
    fs::write(&weak, haproxy(least, &[nobody, other])).expect("written");
    let said = |arguments: &[&str]| {
        let output = command(arguments);
        let [out, err] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (output.status.code(), out, err)
    };

    let (code, out, _) = said(&["check", "--haproxy", &good]);
    assert_eq!((code, out), (Some(0), format!("{good} is valid\n")));
    let (code, _, err) = said(&["check", "--haproxy", &weak]);
    assert_eq!(code, Some(78));
    assert!(err.contains("not `leastconn`"), "{err}");
    assert_eq!(
        said(&["check", "--haproxy", &weak, "--allow-degraded"]).0,
        Some(0)
    );
    let (code, _, err) = said(&["check", &good]);
    assert_eq!(code, Some(78));
    assert!(err.contains("rlb convert"), "{err}");
    assert_eq!(said(&["check", &good, "--allow-degraded"]).0, Some(2));

    let (code, converted, err) = said(&["convert", &good]);
    assert_eq!(code, Some(0), "{err}");
    fs::write(&toml, &converted).expect("written");
    assert_eq!(said(&["check", &toml]).0, Some(0));
    assert_eq!(said(&["convert", &weak]).0, Some(1));
    let (code, json, _) = said(&["convert", "--format", "json", &weak]);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["changes-traffic"], true);
    assert!(json["toml"].as_str().is_some());
    assert_eq!(said(&["convert", &path("none.cfg")]).0, Some(78));

    let differs = [
        "diff",
        "--config",
        &toml,
        "--allow-degraded",
        "--haproxy",
        &weak,
    ];
    let (code, out, err) = said(&differs);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("s1"), "{out}");
}
