//! The page of snapshots with servers in every state.

use super::*;
use crate::config::model;
use crate::live::{CheckReport, CheckStatus, LastReload, ReloadEnd};
use crate::state::{AdminState, Backend, Forced, Frontend, FrontendState, OperState, Server};
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

/// A snapshot of one server after `spec` and `change`.
fn one(spec: impl FnOnce(&mut model::Server), change: impl FnOnce(&mut Server)) -> Snapshot {
    let mut config = config(1);
    spec(&mut config.backends[0].servers[0]);
    let mut snapshot = snapshot(&config);
    let mut backend = Backend::clone(snapshot.backends[0].as_ref().unwrap());
    change(Arc::make_mut(&mut backend.servers[0]));
    snapshot.backends[0] = Some(Arc::new(backend));
    snapshot
}

/// The row of `id` without its markup: the class, then the text of the cells.
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

/// A change of a server: its last `times` checks have failed.
fn fail(times: u32) -> impl FnOnce(&mut Server) {
    move |server| {
        server.status.health = server.rules().full();
        for _ in 0..times {
            server
                .status
                .check_failed(server.rules(), server.status.since);
        }
    }
}

#[test]
fn every_state_has_its_class_and_text() {
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

/// Fault 29: a server without a check has its own class whatever its weight, and a failing one is going down
/// whatever its weight: HAProxy decides in this order.
#[test]
fn fault_29_unchecked_servers_have_haproxys_class() {
    type Spec = fn(&mut model::Server);
    let specs: [(Spec, u32, &str); 4] = [
        (|spec| spec.check = None, 0, "active_no_check"),
        (
            |spec| (spec.check, spec.weight) = (None, 0),
            0,
            "active_no_check",
        ),
        (
            |spec| (spec.check, spec.backup) = (None, true),
            0,
            "backup_no_check",
        ),
        (|spec| spec.weight = 0, 1, "active_going_down"),
    ];
    for (spec, failures, class) in specs {
        let text = whole(one(spec, fail(failures)), View::default());
        let (found, cells) = row(&text, "postgres/node1");
        assert_eq!(found, class, "{cells:?}");
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
fn what_consumers_parse_is_there() {
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
fn tooltips_show_addresses_and_reasons() {
    let report = |server: &mut Server| {
        server.live.check.store(CheckReport {
            status: CheckStatus::L4Con,
            duration: Some(Duration::from_millis(7)),
            info: "Connection refused".into(),
            code: 0,
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
fn a_link_changes_one_thing_and_keeps_the_rest() {
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
    assert_eq!(
        view.link(";csv"),
        "/haproxy?stats;csv;up;norefresh;scope=post"
    );
    let page = whole(seed(1), view);
    for link in [
        "/;norefresh;scope=post\">Show all servers<",
        "/;up;problems;norefresh;scope=post\">Show only problems<",
        "/;up;scope=post\">Enable refresh<",
        "/;up;norefresh;scope=post\">Refresh now<",
    ] {
        assert!(page.contains(link), "{link} in {page}");
    }
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

/// Two backends with servers in several states.
fn troubled() -> Snapshot {
    let mut config = config(3);
    let second = crate::state::test_config::server("lonely");
    config
        .backends
        .push(crate::state::test_config::backend("redis", vec![second]));
    let mut snapshot = snapshot(&config);
    let mut change = |backend: usize, change: &dyn Fn(&mut Server), server: usize| {
        let mut changed = Backend::clone(snapshot.backends[backend].as_ref().unwrap());
        change(Arc::make_mut(&mut changed.servers[server]));
        if backend == 1 {
            changed.status.up = false;
        }
        snapshot.backends[backend] = Some(Arc::new(changed));
    };
    let down = |server: &mut Server| {
        for _ in 0..3 {
            let since = server.status.since;
            server.status.check_failed(server.rules(), since);
        }
    };
    let good = |server: &mut Server| server.status.health = server.rules().full();
    change(0, &down, 0);
    change(0, &good, 1);
    let maintenance = |server: &mut Server| server.status.admin = AdminState::FMAINT;
    change(0, &maintenance, 2);
    change(1, &down, 0);
    snapshot
}

/// Fault 31.
#[test]
fn fault_31_a_line_at_the_top_says_how_many_servers_are_down_and_where() {
    assert_eq!(
        alerts(troubled())[1],
        "2 of 4 servers are DOWN, in <a href=\"#redis\">redis</a> (all 1), \
         <a href=\"#postgres\">postgres</a> (1)."
    );
    let scope = |text: &str| View {
        filter: Filter {
            scope: Some(text.into()),
            ..Filter::default()
        },
        ..View::default()
    };
    assert!(whole(troubled(), scope("redis")).contains("1 of 1 servers is DOWN, in "));
    assert!(!whole(seed(2), View::default()).contains("class=\"alert\""));
}

/// The alerts at the top.
fn alerts(snapshot: Snapshot) -> Vec<String> {
    let text = whole(snapshot, View::default());
    let alerts = text.split("<p class=\"alert\">").skip(1);
    let alerts = alerts.map(|it| it.split("</p>").next().unwrap().to_owned());
    alerts.collect()
}

#[test]
fn lines_at_the_top_name_what_takes_no_sessions_and_why() {
    let mut snapshot = seed(4);
    let change = |snapshot: &mut Snapshot, index: usize, admin| {
        let mut changed = Backend::clone(snapshot.backends[0].as_ref().unwrap());
        Arc::make_mut(&mut changed.servers[index]).status.admin = admin;
        snapshot.backends[0] = Some(Arc::new(changed));
    };
    for index in 0..3 {
        change(&mut snapshot, index, AdminState::FDRAIN);
    }
    assert_eq!(alerts(snapshot.clone()), [""; 0]);
    change(&mut snapshot, 3, AdminState::FMAINT);
    let unusable = "No usable server in <a href=\"#postgres\">postgres</a> (3 DRAIN, 1 MAINT).";
    assert_eq!(alerts(snapshot.clone()), [unusable]);
    // What is down is one of four, and not all.
    let mut changed = Backend::clone(snapshot.backends[0].as_ref().unwrap());
    let server = Arc::make_mut(&mut changed.servers[3]);
    server.status.admin = AdminState::default();
    for _ in 0..3 {
        let since = server.status.since;
        server.status.check_failed(server.rules(), since);
    }
    changed.published = false;
    snapshot.backends[0] = Some(Arc::new(changed));
    let mut frontend = Frontend::clone(snapshot.frontends[0].as_ref().unwrap());
    frontend.state = FrontendState::Paused;
    let name = Arc::clone(&frontend.spec.name);
    snapshot.frontends[0] = Some(Arc::new(frontend.clone()));
    let closed = |why: &str| {
        format!(
            "No new sessions in <a href=\"#{name}\">{name}</a> ({why}), \
             <a href=\"#postgres\">postgres</a> (unpublished)."
        )
    };
    let unusable = "No usable server in <a href=\"#postgres\">postgres</a> (1 DOWN, 3 DRAIN).";
    let down = "1 of 4 servers is DOWN, in <a href=\"#postgres\">postgres</a> (1).";
    assert_eq!(
        alerts(snapshot.clone()),
        [unusable, &closed("PAUSED"), down]
    );
    frontend.state = FrontendState::Open;
    frontend.maxconn = Some(0);
    snapshot.frontends[0] = Some(Arc::new(frontend));
    assert_eq!(alerts(snapshot)[1], closed("FULL: 0 sessions at most"));
}

/// Fault 31.
#[test]
fn fault_31_a_view_shows_only_what_is_wrong() {
    let problems = || View {
        filter: Filter {
            problems: true,
            ..Filter::default()
        },
        ..View::default()
    };
    let text = whole(troubled(), problems());
    let ids: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("<tr class="))
        .map(|line| line.split('"').nth(3).unwrap())
        .collect();
    assert_eq!(
        ids,
        [
            "postgres/node1",
            "postgres/Backend",
            "redis/lonely",
            "redis/Backend"
        ]
    );
    assert!(text.contains("Show everything") && !text.contains("No problems"));
    let good = one(
        |_| {},
        |server| server.status.health = server.rules().full(),
    );
    let text = whole(good, problems());
    assert!(!text.contains("<tr class=") && text.contains("No problems"));
}

/// Fault 31.
#[test]
fn fault_31_names_are_links_and_a_suspected_server_is_marked() {
    let suspect = |server: &mut Server| {
        for _ in 0..3 {
            server.live.connect_failed();
        }
    };
    let text = whole(one(|spec| spec.check = None, suspect), View::default());
    assert!(text.contains("<a href=\"#postgres/node1\">node1</a>"));
    assert!(text.contains("<a href=\"#postgres/Frontend\">Frontend</a>"));
    assert_eq!(row(&text, "postgres/node1").1[22], "no check asked last");
    let down = |server: &mut Server| {
        suspect(server);
        server.status.oper = OperState::Stopped;
        server.status.health = 0;
    };
    let text = whole(one(|_| {}, down), View::default());
    let status = &row(&text, "postgres/node1").1[22];
    assert!(status.ends_with("DOWN"), "not asked at all: {status}");
}

/// A colour in CIELAB, whose distances match perception.
fn lab(hex: &str) -> [f64; 3] {
    let linear = |at: usize| {
        let part = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        if part <= 0.04045 {
            part / 12.92
        } else {
            ((part + 0.055) / 1.055).powf(2.4)
        }
    };
    let [red, green, blue] = [1, 3, 5].map(linear);
    let curve = |t: f64| {
        if t > 0.008_856 {
            t.cbrt()
        } else {
            7.787 * t + 16.0 / 116.0
        }
    };
    let x = curve((0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.950_47);
    let y = curve(0.2126 * red + 0.7152 * green + 0.0722 * blue);
    let z = curve((0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.088_83);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// Fault 31.
#[test]
fn fault_31_states_can_be_told_apart_in_light_and_in_dark() {
    const STATES: [&str; 13] = [
        "active-up",
        "active-going-down",
        "active-going-up",
        "down",
        "maintain",
        "active-soft",
        "no-check",
        "backup-up",
        "backup-going-down",
        "backup-going-up",
        "backup-draining",
        "backup-nolb",
        "proxy",
    ];
    let style = include_str!("../../../templates/stats/style.css");
    let (light, dark) = style
        .split_once("@media (prefers-color-scheme: dark)")
        .unwrap();
    for (theme, least) in [(light, 10.0), (dark, 15.0)] {
        let colour = |state: &str| {
            let name = format!("--{state}: ");
            let at = theme.find(&name).unwrap() + name.len();
            lab(&theme[at..at + 7])
        };
        for (index, one) in STATES.iter().enumerate() {
            for other in &STATES[..index] {
                let parts = colour(one).into_iter().zip(colour(other));
                let distance: f64 = parts.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                assert!(distance >= least, "{one} and {other}: {distance:.1}");
            }
        }
    }
}

#[test]
fn a_page_that_may_be_changed_has_a_form_for_each_backend() {
    let admin = |view: View| View {
        admin: true,
        ..view
    };
    let text = whole(seed(2), admin(View::default()));
    for part in [
        "<form method=\"post\"><table class=\"rows\">",
        "<input type=\"checkbox\" name=\"s\" value=\"node2\" aria-label=\"node2\"> <a href=\"#postgres/node2\">node2</a>",
        "<option value=\"maint\">Set state to MAINT</option>",
        "<input type=\"hidden\" name=\"b\" value=\"postgres\"> <input type=\"submit\" value=\"Apply\">",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(
        text.matches("type=\"checkbox\"").count(),
        2,
        "servers alone"
    );
    assert_eq!(text.matches("<select").count(), 1, "not for the statistics");
    assert_eq!(
        text.matches("<form").count(),
        text.matches("</form>").count()
    );
    assert_eq!(row(&text, "postgres/node1").1[0], " node1");
    // A refresh would clear the check boxes.
    let refreshing = View {
        refreshable: true,
        refreshing: true,
        ..View::default()
    };
    let text = whole(seed(2), admin(refreshing.clone()));
    assert!(!text.contains("checkbox") && !text.contains("method=\"post\""));
    let link = "<a href=\"/;norefresh#postgres\">Change servers</a>";
    assert_eq!(text.matches(link).count(), 1, "{text}");
    let stopped = View {
        refreshing: false,
        ..refreshing.clone()
    };
    assert!(whole(seed(2), admin(stopped)).contains("checkbox"));
    for view in [View::default(), refreshing] {
        let text = whole(seed(2), view);
        assert!(!text.contains("checkbox") && !text.contains("Change servers"));
    }
    // Servers that are not shown cannot be changed.
    let healthy = View {
        filter: Filter {
            problems: true,
            ..Filter::default()
        },
        ..View::default()
    };
    let all_up = one(|_| {}, fail(0));
    assert!(!whole(all_up, admin(healthy)).contains("<select"));
}

#[test]
fn a_result_is_told_with_haproxys_words_until_it_is_removed() {
    for (code, class, words) in [
        ("DONE", "active_up", "Action processed successfully."),
        ("NONE", "active_going_down", "Nothing has changed."),
        (
            "PART",
            "active_going_down",
            "Action partially processed.<br>Some server names are probably unknown or ambiguous (duplicated \
             names in the backend).",
        ),
        (
            "ERRP",
            "active_down",
            "Action not processed because of invalid parameters.<ul><li>The action is maybe unknown.</li>",
        ),
        (
            "EXCD",
            "active_down",
            "Action not processed : the buffer couldn&#39;t store all the data.<br>You should retry with less \
             servers at a time.",
        ),
        ("DENY", "active_down", "Action denied."),
        (
            "IVAL",
            "active_down",
            "Invalid requests (unsupported method or chunked encoded request).",
        ),
        ("UNKN", "active_no_check", "Unexpected result."),
    ] {
        let view = View {
            result: ActionResult::parse(code),
            filter: Filter {
                up: true,
                ..Filter::default()
            },
            ..View::default()
        };
        let text = whole(seed(1), view);
        let start = format!(
            "<div class=\"message {class}\"><a href=\"/;up\" title=\"Remove this message\">[X]</a> {words}"
        );
        assert!(text.contains(&start), "{start}\n{text}");
    }
    assert!(!whole(seed(1), View::default()).contains("message active"));
}

#[test]
fn a_result_leads_to_the_same_view() {
    let view = View {
        uri: "/haproxy?stats".into(),
        refreshable: true,
        filter: Filter {
            up: true,
            scope: Some("a b".into()),
            ..Filter::default()
        },
        ..View::default()
    };
    let location = view.with_result(ActionResult::Part);
    assert_eq!(location, "/haproxy?stats;st=PART;up;norefresh;scope=a%20b");
}
