//! The page over snapshots whose servers are in every state.

use super::*;
use crate::config::model;
use crate::live::{CheckReport, CheckStatus, LastReload, ReloadEnd};
use crate::state::{AdminState, Forced, Server};
use crate::stats::Filter;
use crate::stats::test_snapshot::{config, seed, snapshot};
use std::time::Duration;

fn page(snapshot: Snapshot, view: View) -> Page {
    let snapshot = Arc::new(snapshot);
    let start = snapshot.global.start;
    let now = start + Duration::from_secs(65);
    Page::new(
        snapshot,
        Arc::new(Process::new(start)),
        Arc::new(Requests::default()),
        now,
        View {
            uri: "/".into(),
            ..view
        },
    )
}

fn whole(snapshot: Snapshot, view: View) -> String {
    let mut page = page(snapshot, view);
    let mut text = String::new();
    loop {
        let chunk = page.chunk();
        if chunk.is_empty() {
            return text;
        }
        text.push_str(&chunk);
    }
}

/// A snapshot of one server that `spec` and `change` have been at.
fn one(spec: impl FnOnce(&mut model::Server), change: impl FnOnce(&mut Server)) -> Snapshot {
    let mut config = config(1);
    spec(&mut config.backends[0].servers[0]);
    let mut snapshot = snapshot(&config);
    let mut backend = Arc::into_inner(snapshot.backends[0].take().unwrap()).unwrap();
    change(Arc::get_mut(&mut backend.servers[0]).unwrap());
    snapshot.backends[0] = Some(Arc::new(backend));
    snapshot
}

/// The row of `id` without its markup: class, then the text of the cells.
fn row(page: &str, id: &str) -> (String, Vec<String>) {
    let line = page
        .lines()
        .find(|line| line.contains(&format!(" id=\"{id}\"")))
        .expect("the row");
    let class = line.split('"').nth(1).unwrap().to_owned();
    let cells = line.split("<td").skip(1).map(|cell| {
        let text = cell
            .split_once('>')
            .unwrap()
            .1
            .split("<span class=\"tip\">")
            .next()
            .unwrap();
        let mut plain = String::new();
        let mut inside = false;
        for character in text.chars() {
            match character {
                '<' => inside = true,
                '>' => inside = false,
                _ if !inside => plain.push(character),
                _ => {}
            }
        }
        plain
    });
    (class, cells.collect())
}

#[test]
fn every_state_has_its_class_and_words() {
    let fail = |times: u32| {
        move |server: &mut Server| {
            server.status.health = server.rules().full();
            for _ in 0..times {
                server
                    .status
                    .check_failed(server.rules(), server.status.since);
            }
        }
    };
    let rise = |server: &mut Server| {
        server
            .status
            .check_failed(server.rules(), server.status.since);
        server
            .status
            .check_passed(server.rules(), server.status.since);
    };
    let backup = |spec: &mut model::Server| spec.backup = true;
    let plain = |_: &mut model::Server| {};
    let force = |server: &mut Server| {
        server
            .status
            .force(Forced::Stopping, server.rules(), server.status.since);
    };
    let drain = |server: &mut Server| {
        server.status.health = server.rules().full();
        server.status.admin = AdminState::FDRAIN;
    };
    for (snapshot, class, words) in [
        (one(plain, fail(0)), "active_up", "1m5s UP"),
        (one(plain, fail(1)), "active_going_down", "1m5s UP 2/3 ↓"),
        (one(plain, fail(3)), "active_down", "1m5s DOWN"),
        (one(plain, rise), "active_going_up", "1m5s DOWN 1/2 ↑"),
        (one(plain, force), "active_nolb", "1m5s NOLB ↓"),
        (one(plain, drain), "active_draining", "1m5s DRAIN"),
        (
            one(|spec| spec.weight = 0, fail(0)),
            "active_draining",
            "1m5s UP",
        ),
        (
            one(|spec| spec.disabled = true, |_| {}),
            "maintain",
            "1m5s MAINT",
        ),
        (
            one(|spec| spec.check = None, |_| {}),
            "no_check",
            "no check",
        ),
        (one(backup, fail(0)), "backup_up", "1m5s UP"),
        (one(backup, fail(1)), "backup_going_down", "1m5s UP 2/3 ↓"),
        (one(backup, fail(3)), "backup_down", "1m5s DOWN"),
        (one(backup, rise), "backup_going_up", "1m5s DOWN 1/2 ↑"),
        (one(backup, force), "backup_nolb", "1m5s NOLB ↓"),
        (one(backup, drain), "backup_draining", "1m5s DRAIN"),
    ] {
        let text = whole(snapshot, View::default());
        let (found, cells) = row(&text, "postgres/node1");
        assert_eq!((found.as_str(), cells[22].as_str()), (class, words));
    }
}

#[test]
fn rows_have_all_columns_and_a_listen_is_one_table() {
    let text = whole(seed(2), View::default());
    assert_eq!(
        text.matches("<table class=\"rows\">").count(),
        2,
        "stats and postgres"
    );
    for line in text.lines().filter(|line| line.starts_with("<tr class=")) {
        let spans = line.match_indices("colspan=\"");
        let further: usize = spans
            .map(|(at, _)| {
                line[at + 9..]
                    .split('"')
                    .next()
                    .unwrap()
                    .parse::<usize>()
                    .unwrap()
                    - 1
            })
            .sum();
        assert_eq!(line.matches("<td").count() + further, 31, "{line}");
    }
    let order: Vec<usize> = ["Frontend", "node1", "node2", "Backend"]
        .map(|name| text.find(&format!("id=\"postgres/{name}\"")).unwrap())
        .into();
    assert!(order.is_sorted());
}

#[test]
fn a_section_each_for_frontend_and_backend() {
    let mut config = config(1);
    config.frontends[0].id = 9;
    config.frontends[0].order = 0;
    let text = whole(snapshot(&config), View::default());
    assert_eq!(text.matches("<table class=\"rows\">").count(), 3);
    assert_eq!(text.matches("</tbody></table></section>").count(), 3);
}

#[test]
fn what_consumers_look_for_is_there() {
    let text = whole(seed(1), View::default());
    assert!(
        text.contains(&format!("HAProxy version {VERSION}, ")),
        "{text}"
    );
    assert!(
        text.contains("\n<b>uptime = </b> 0d 0h01m05s<br>\n"),
        "{text}"
    );
    assert!(text.contains("idle = 100 %"), "{text}");
    let hidden = View {
        hide_version: true,
        ..View::default()
    };
    assert!(!whole(seed(1), hidden).contains(env!("CARGO_PKG_VERSION")));
}

use crate::stats::process::VERSION;

#[test]
fn tips_tell_addresses_and_reasons() {
    let report = |server: &mut Server| {
        server.live.check.store(CheckReport {
            status: CheckStatus::L4Con,
            duration: Some(Duration::from_millis(7)),
            info: "Connection refused".into(),
            in_progress: true,
        });
    };
    let legends = View {
        legends: true,
        ..View::default()
    };
    let text = whole(one(|_| {}, report), legends);
    assert_eq!(row(&text, "postgres/node1").1[23], "* L4CON in 7ms");
    for tip in [
        "Layer4 connection problem: Connection refused",
        "127.0.0.1:9, id: 1",
        "balancing: roundrobin",
    ] {
        assert!(text.contains(tip), "{tip}");
    }
    assert!(!whole(one(|_| {}, report), View::default()).contains("127.0.0.1:9"));
}

#[test]
fn nothing_from_outside_becomes_markup() {
    let view = View {
        filter: Filter {
            scope: Some("\"><script>".into()),
            ..Filter::default()
        },
        ..View::default()
    };
    let text = whole(seed(1), view);
    assert!(!text.contains("<script"), "{text}");
    assert!(text.contains("scope=%22%3E%3Cscript%3E"), "{text}");
    let bad = one(
        |_| {},
        |server| {
            let report = CheckReport {
                status: CheckStatus::L4Con,
                info: "<img src=x>".into(),
                ..CheckReport::default()
            };
            server.live.check.store(report);
        },
    );
    assert!(!whole(bad, View::default()).contains("<img"));
}

#[test]
fn a_failed_reload_is_one_escaped_line_until_one_succeeds() {
    let after = |ends: &[ReloadEnd], lines: &[&str]| {
        let snapshot = seed(1);
        for &end in ends {
            let at = snapshot.global.start + Duration::from_secs(5);
            let lines = lines.iter().map(ToString::to_string).collect();
            snapshot.global.reloads.ended(LastReload { end, at, lines });
        }
        whole(snapshot, View::default())
    };
    let alert = |text: &str| {
        let line = text.lines().find(|line| line.contains("class=\"alert\""));
        line.map(str::to_owned)
    };
    assert_eq!(alert(&after(&[], &[])), None);
    let unchanged = "the configuration is unchanged";
    let refused = [ReloadEnd::Refused];
    assert_eq!(
        alert(&after(
            &refused,
            &["rlb.toml:3: unknown key bnd", unchanged]
        ))
        .as_deref(),
        Some("<p class=\"alert\">The last reload failed 1m ago: rlb.toml:3: unknown key bnd</p>")
    );
    let text = alert(&after(
        &refused,
        &["<script>\nx", "two", "three", unchanged],
    ))
    .unwrap();
    assert!(!text.contains("<script"), "{text}");
    assert!(text.ends_with(" (and 2 more)</p>"), "{text}");
    let text = alert(&after(&refused, &[&"<".repeat(100_000)])).unwrap();
    assert!(text.len() < 3000, "{}", text.len());
    let back = after(&[ReloadEnd::Done, ReloadEnd::RolledBack], &["lost", "x"]);
    assert!(
        alert(&back)
            .unwrap()
            .contains("was taken back 1m ago: lost")
    );
    let stuck = after(
        &[ReloadEnd::Done, ReloadEnd::RollbackFailed],
        &["lost", "x"],
    );
    let stuck = alert(&stuck).unwrap();
    assert!(
        stuck.contains("could not be taken back 1m ago: lost"),
        "{stuck}"
    );
    assert_eq!(
        alert(&after(&[ReloadEnd::Refused, ReloadEnd::Done], &["x"])),
        None
    );
}

#[test]
fn links_turn_one_thing_and_keep_the_rest() {
    let view = View {
        uri: "/haproxy?stats".into(),
        filter: Filter {
            up: true,
            scope: Some("post".into()),
            ..Filter::default()
        },
        refreshable: true,
        ..View::default()
    };
    assert_eq!(view.link("", false, true), "/haproxy?stats;scope=post");
    assert_eq!(
        view.link(";csv", true, false),
        "/haproxy?stats;csv;up;norefresh;scope=post"
    );
}

#[test]
fn ten_thousand_servers_come_in_bounded_chunks() {
    let mut page = page(seed(10_000), View::default());
    let mut rows = 0;
    loop {
        let chunk = page.chunk();
        if chunk.is_empty() {
            break;
        }
        assert!(chunk.len() < CHUNK + 16 * 1024, "{}", chunk.len());
        rows += chunk.matches("<tr class=").count();
    }
    assert_eq!(rows, 2 + 1 + 10_000 + 1);
}
