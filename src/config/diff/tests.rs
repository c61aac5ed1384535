//! The differences of two configurations, and what needs a restart.

use super::*;
use crate::config::{Limits, Loader};

fn load(text: &str) -> Config {
    let loader = Loader {
        limits: Limits {
            nofile: None,
            somaxconn: None,
            cores: 2,
            net_admin: true,
        },
        environment: &|_| None,
        disk: false,
    };
    match loader.load_text("test.toml", text) {
        Ok((config, _)) => config,
        Err(problems) => panic!("{problems:#?}"),
    }
}

const BASE: &str = r#"
[global]
threads = 2
[stats]
bind = "127.0.0.1:8080"
[[frontend]]
name = "web"
bind = ["127.0.0.1:80", "127.0.0.1:81"]
default-backend = "app"
[[frontend]]
name = "db"
bind = "127.0.0.1:5432"
default-backend = "pg"
[[backend]]
name = "app"
servers = [
  { name = "s1", address = "10.0.0.1:80", check = true },
  { name = "s2", address = "10.0.0.2:80" },
]
[[backend]]
name = "pg"
servers = [{ name = "s1", address = "10.0.0.1:5432" }]
"#;

fn lines(old: &str, new: &str) -> Vec<String> {
    let changes = plan(&load(old), &load(new));
    changes.list.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn edited(from: &str, to: &str) -> Vec<String> {
    assert!(BASE.contains(from), "{from}");
    lines(BASE, &BASE.replacen(from, to, 1))
}

#[test]
fn a_file_does_not_differ_from_itself() {
    let changes = plan(&load(BASE), &load(BASE));
    assert!(changes.is_empty());
    assert_eq!(changes.summary(), "nothing differs");
}

#[test]
fn a_weight_is_shown_with_both_values() {
    assert_eq!(
        edited(
            "address = \"10.0.0.2:80\"",
            "address = \"10.0.0.2:80\", weight = 5"
        ),
        ["~ server app/s2: weight 1 -> 5 (holds for the next connection)"]
    );
}

#[test]
fn servers_come_and_go() {
    assert_eq!(
        edited("name = \"s2\"", "name = \"s3\""),
        [
            "+ server app/s3 (takes its share at once)",
            "- server app/s2 (is used no more; its sessions end by themselves)",
        ]
    );
    assert_eq!(
        edited(
            "name = \"s1\", address = \"10.0.0.1:80\"",
            "name = \"s3\", address = \"10.0.0.1:80\""
        ),
        [
            "+ server app/s3 (takes its share at once; a check decides)",
            "- server app/s1 (is used no more; its sessions end by themselves)",
        ]
    );
}

#[test]
fn another_address_starts_a_server_over_and_another_interval_does_not() {
    assert_eq!(
        edited("10.0.0.2:80", "10.0.0.9:80"),
        ["~ server app/s2: address 10.0.0.2:80 -> 10.0.0.9:80 \
          (its health starts again, its sessions go on)"]
    );
    let said = edited("check = true", "check = { interval = \"5s\" }");
    assert_eq!(
        said,
        [
            "~ server app/s1: check connect every 2s rise 2 fall 3 timeout 1s -> \
          connect every 5s rise 2 fall 3 timeout 1s (holds for the next connection)"
        ]
    );
    let said = edited("check = true", "check = { port = 8080 }");
    assert!(
        said[0].ends_with("(its health starts again, its sessions go on)"),
        "{said:?}"
    );
}

#[test]
fn binds_come_go_and_move() {
    assert_eq!(
        edited("\"127.0.0.1:81\"", "\"127.0.0.1:82\""),
        [
            "+ bind web 127.0.0.1:82 (is opened before anything else changes)",
            "- bind web 127.0.0.1:81 (accepts what is queued and closes; its sessions end by \
             themselves)",
        ]
    );
    let moved = BASE.replacen(", \"127.0.0.1:81\"", "", 1).replacen(
        "bind = \"127.0.0.1:5432\"",
        "bind = [\"127.0.0.1:5432\", \"127.0.0.1:81\"]",
        1,
    );
    assert_eq!(
        lines(BASE, &moved),
        ["~ bind db 127.0.0.1:81: frontend web -> db (the socket stays open)"]
    );
    assert_eq!(
        edited("\"127.0.0.1:80\", ", "\"0.0.0.0:80\", ")[0],
        "+ bind web 0.0.0.0:80 (is opened beside the socket that this process has there)"
    );
    assert_eq!(
        edited("\"127.0.0.1:80\", ", "\"127.0.0.2:80\", ")[0],
        "+ bind web 127.0.0.2:80 (is opened before anything else changes)"
    );
}

#[test]
fn a_renamed_frontend_keeps_its_sockets() {
    let said = edited("name = \"db\"", "name = \"postgres\"");
    assert_eq!(said.len(), 3, "{said:#?}");
    assert_eq!(
        said[2],
        "~ bind postgres 127.0.0.1:5432: frontend db -> postgres (the socket stays open)"
    );
}

#[test]
fn a_disabled_frontend_closes_its_binds() {
    let said = edited("name = \"db\"", "name = \"db\"\ndisabled = true");
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[1].starts_with("- bind db 127.0.0.1:5432"), "{said:#?}");
    // Its own `maxconn` does not count any more.
    assert!(said[2].starts_with("~ backend pg: fullconn "), "{said:#?}");
}

#[test]
fn ports_of_the_kernels_choice_are_kept_one_by_one() {
    let any = BASE
        .replace(
            "127.0.0.1:80\", \"127.0.0.1:81",
            "127.0.0.1:0\", \"127.0.0.1:0",
        )
        .replace("127.0.0.1:5432", "127.0.0.1:0");
    let (config, one_less) = (load(&any), load(&any.replacen("\"127.0.0.1:0\", ", "", 1)));
    let (old, new) = (binds(&config), binds(&one_less));
    let actions = match_binds(&old, &new);
    assert_eq!(
        actions,
        [
            BindAction::Keeps(0),
            BindAction::Keeps(1),
            BindAction::Keeps(3)
        ]
    );
}

#[test]
fn what_needs_a_restart_stays_and_the_rest_applies() {
    let with = |path: &str, level: &str| {
        format!("{BASE}[runtime-api]\nsocket = \"{path}\"\nlevel = \"{level}\"\n")
    };
    let text = with("/run/b", "operator").replacen("threads = 2", "threads = 4\nmaxconn = 10", 1);
    let (old, new) = (load(&with("/run/a", "admin")), load(&text));
    let changes = plan(&old, &new);
    let said: Vec<String> = changes
        .list
        .iter()
        .filter(|one| one.kind != "backend")
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        said,
        [
            "! global: threads 2 -> 4 (needs restart)",
            "~ global: maxconn none -> 10 (holds at once)",
            "+ runtime-api /run/b (is opened before anything else changes)",
            "- runtime-api /run/a (accepts what is queued and closes; commands that run are answered)",
        ]
    );
    assert_eq!(changes.restarts().count(), 1);
    let applied = applicable(&old, new.clone());
    assert_eq!(applied.global.threads, 2);
    assert_eq!(applied.global.maxconn, Some(10));
    let api = applied.runtime_api.as_ref().expect("there is one");
    assert_eq!(
        (api.sockets[0].place(), api.sockets[0].level.name()),
        ("/run/b".to_owned(), "operator")
    );
    // The next reload reports it again.
    assert_eq!(plan(&applied, &new).restarts().count(), 1);
    assert_eq!(plan(&old, &applied).restarts().count(), 0);
}

#[test]
fn runtime_sockets_are_compared_by_their_addresses() {
    let with = |sockets: &str| format!("{BASE}[runtime-api]\nsocket = {sockets}\n");
    let old = with(
        "\"127.0.0.1:9999\"\nlevel = \"user\"\nsockets = { socket = \"/run/a\", mode = \"0666\", level = \"user\" }",
    );
    let new = with(
        "\"/run/new\"\nlevel = \"admin\"\nmaxconn = 3\nsockets = { socket = \"/run/a\", level = \"user\" }",
    );
    let opened = "(is opened before anything else changes)";
    let closed = "(accepts what is queued and closes; commands that run are answered)";
    assert_eq!(
        lines(&old, &new),
        [
            "~ runtime-api: maxconn 10 -> 3 (holds for the next connection)".to_owned(),
            format!("+ runtime-api /run/new {opened}"),
            "~ runtime-api /run/a: mode 0666 -> 0600 (holds for the next command)".to_owned(),
            format!("- runtime-api 127.0.0.1:9999 {closed}"),
        ]
    );
    let swapped = with(
        "\"/run/a\"\nlevel = \"user\"\nmode = \"0666\"\nsockets = { socket = \"127.0.0.1:9999\", level = \"user\" }",
    );
    assert_eq!(
        lines(&old, &swapped),
        [
            "~ runtime-api: order 127.0.0.1:9999 /run/a -> /run/a 127.0.0.1:9999 (holds for the next command)"
        ]
    );
    let with = with("\"/run/a\"");
    assert_eq!(
        lines(&with, BASE),
        [format!("- runtime-api /run/a {closed}")]
    );
    assert_eq!(
        lines(BASE, &with),
        [format!("+ runtime-api /run/a {opened}")]
    );
    for (from, to) in [(&*with, BASE), (BASE, &*with)] {
        assert_eq!(applicable(&load(from), load(to)), load(to));
    }
}

#[test]
fn binds_of_the_statistics_come_and_go() {
    assert_eq!(
        edited(
            "\"127.0.0.1:8080\"",
            "[\"127.0.0.1:8080\", \"127.0.0.1:9090\"]"
        ),
        ["+ bind stats 127.0.0.1:9090 (is opened before anything else changes)"]
    );
    assert_eq!(
        edited("127.0.0.1:8080\"", "127.0.0.1:9090\"\nmaxconn = 7"),
        [
            "~ stats: maxconn 200 -> 7 (holds at once)",
            "+ bind stats 127.0.0.1:9090 (is opened before anything else changes)",
            "- bind stats 127.0.0.1:8080 (accepts what is queued and closes; answers on their way \
             are finished)",
        ]
    );
    // Another name does not change the socket.
    assert_eq!(
        edited("[stats]\n", "[stats]\nname = \"admin\"\n"),
        ["~ stats: name \"stats\" -> \"admin\" (holds at once)"]
    );
}

/// What matters is who may see and change what at an address.
#[test]
fn pages_are_compared_by_each_address() {
    let with = |stats: &str| BASE.replacen("bind = \"127.0.0.1:8080\"\n", stats, 1);
    let pages = |first: &str, second: &str, third: &str| {
        with(&format!(
            "bind = [{first}]\nuri = \"/one\"\nauth = \"a:b\"\n\
             [[stats.page]]\nbind = [{second}]\nadmin = true\n\
             [[stats.page]]\nbind = [{third}]\nadmin = \"localhost\"\nauth = \"x:y\"\n"
        ))
    };
    let [a, b, c, d] = [1, 2, 4, 5].map(|port| format!("\"127.0.0.1:900{port}\""));
    let before = pages(&format!("{a}, {d}"), &b, &c);
    // From a password to an open page.
    let said = lines(&before, &pages(&a, &format!("{b}, {d}"), &c));
    assert_eq!(
        said,
        [
            "~ stats page 127.0.0.1:9005: uri \"/one\" -> \"/\", auth 1 users -> 0 users, \
          admin false -> true (holds at once)"
        ]
    );
    // To another password.
    let said = lines(&before, &pages(&a, &b, &format!("{c}, {d}")));
    assert!(
        said.iter()
            .any(|line| line.starts_with("~ stats page 127.0.0.1:9005: ")
                && line.contains("auth 1 users -> 1 users")),
        "{said:#?}"
    );
    // Exchanged between further pages, and with the first one.
    let said = lines(&before, &pages(&format!("{a}, {d}"), &c, &b));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].starts_with("~ stats: order "), "{said:#?}");
    assert!(
        said[1].contains("page 127.0.0.1:9004: auth 1 users -> 0 users"),
        "{said:#?}"
    );
    assert!(
        said[2].contains("page 127.0.0.1:9002: auth 0 users -> 1 users"),
        "{said:#?}"
    );
    let said = lines(&pages(&a, &b, &c), &pages(&b, &a, &c));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(!said[0].contains("uri"), "{said:#?}");
    assert!(
        said[1].contains("page 127.0.0.1:9002: uri \"/\" -> \"/one\""),
        "{said:#?}"
    );
    assert!(
        said[2].contains("page 127.0.0.1:9001: uri \"/one\" -> \"/\""),
        "{said:#?}"
    );
    // The same pages in another order.
    let two = "bind = \"127.0.0.1:9001\"\nuri = \"/one\"\n[[stats.page]]\nbind = \"127.0.0.1:9002\"\nuri = \"/two\"\n";
    let turned = "bind = \"127.0.0.1:9002\"\nuri = \"/two\"\n[[stats.page]]\nbind = \"127.0.0.1:9001\"\nuri = \"/one\"\n";
    assert_eq!(
        lines(&with(two), &with(turned)),
        [
            "~ stats: order 127.0.0.1:9001 127.0.0.1:9002 -> 127.0.0.1:9002 127.0.0.1:9001 \
          (holds at once)"
        ]
    );
    // One address on two devices.
    let devices = |first: &str, second: &str| {
        with(&format!(
            "bind = {{ address = \"*:9001\", interface = \"{first}\" }}\nadmin = true\n\
             [[stats.page]]\nbind = {{ address = \"*:9001\", interface = \"{second}\" }}\nauth = \"a:b\"\n"
        ))
    };
    let said = lines(&devices("lo", "v0"), &devices("v0", "lo"));
    let open =
        "~ stats page 0.0.0.0:9001 interface v0: auth 1 users -> 0 users, admin false -> true";
    assert!(said.iter().any(|line| line.starts_with(open)), "{said:#?}");
    // Their sockets stay.
    assert!(said.iter().all(|line| !line.contains("bind")), "{said:#?}");
}

/// One address on several network devices is several sockets, and each stays with its device.
#[test]
fn sockets_stay_with_their_devices() {
    let on = |device: &str| format!("{{ address = \"*:81\", interface = \"{device}\" }}");
    let with = |web: &[&str], db: &[&str]| {
        let list = |devices: &[&str]| {
            let all: Vec<String> = devices.iter().map(|device| on(device)).collect();
            format!("[{}]", all.join(", "))
        };
        let text = BASE.replace("[\"127.0.0.1:80\", \"127.0.0.1:81\"]", &list(web));
        binds(&load(&text.replace("\"127.0.0.1:5432\"", &list(db))))
    };
    let old = with(&["a", "b"], &["c", "d"]);
    let (keeps, moves) = (BindAction::Keeps, BindAction::Moves);
    let actions = |web: &[&str], db: &[&str]| match_binds(&old, &with(web, db))[1..].to_vec();
    let all = [2, 1, 4, 3].map(keeps);
    assert_eq!(actions(&["b", "a"], &["d", "c"]), all);
    let all = [moves(4), moves(3), moves(2), moves(1)];
    assert_eq!(actions(&["d", "c"], &["b", "a"]), all);
    let all = [keeps(2), moves(3), moves(1), keeps(4)];
    assert_eq!(actions(&["b", "c"], &["a", "d"]), all);
    let opens = BindAction::Opens { beside: true };
    assert_eq!(
        actions(&["a", "x"], &["b", "d"]),
        [keeps(1), opens, moves(2), keeps(4)]
    );
}

#[test]
fn pages_come_and_go() {
    let page = |lines: &str| {
        let stats = "[stats]\nbind = \"127.0.0.1:8080\"\n";
        BASE.replacen(stats, &format!("{stats}{lines}"), 1)
    };
    let one = page("[[stats.page]]\nbind = \"127.0.0.1:8081\"\nuri = \"/a\"\n");
    let other = page("[[stats.page]]\nbind = \"127.0.0.1:8081\"\nuri = \"/b\"\n");
    assert_eq!(
        lines(&one, &other),
        ["~ stats page 127.0.0.1:8081: uri \"/a\" -> \"/b\" (holds at once)"]
    );
    assert_eq!(
        lines(BASE, &one),
        [
            "+ stats page 127.0.0.1:8081 (answers at once)",
            "+ bind stats 127.0.0.1:8081 (is opened before anything else changes)",
        ]
    );
    assert_eq!(
        lines(&one, BASE),
        [
            "- stats page 127.0.0.1:8081 (answers no more; those on their way are finished)",
            "- bind stats 127.0.0.1:8081 (accepts what is queued and closes; answers on their way \
             are finished)",
        ]
    );
    // What is the first page's alone changes the first page.
    let first = page("uri = \"/x\"\n[[stats.page]]\nbind = \"127.0.0.1:8081\"\nuri = \"/a\"\n");
    assert_eq!(
        lines(&one, &first),
        ["~ stats: uri \"/\" -> \"/x\" (holds at once)"]
    );
}

#[test]
fn the_statistics_come_and_go() {
    let none = BASE.replacen("[stats]\nbind = \"127.0.0.1:8080\"\n", "", 1);
    let ours = |old: &str, new: &str| -> Vec<String> {
        let all = lines(old, new).into_iter();
        all.filter(|line| line.contains("stats")).collect()
    };
    assert_eq!(
        ours(BASE, &none),
        [
            "- stats (answers no more; those on their way are finished)",
            "- bind stats 127.0.0.1:8080 (accepts what is queued and closes; answers on their way \
             are finished)",
        ]
    );
    assert_eq!(
        ours(&none, BASE),
        [
            "+ stats (answers at once)",
            "+ bind stats 127.0.0.1:8080 (is opened before anything else changes)",
        ]
    );
}

#[test]
fn a_port_that_changes_sides_is_opened_beside() {
    let swapped = BASE
        .replacen("127.0.0.1:8080", "127.0.0.1:x", 1)
        .replacen("127.0.0.1:5432", "127.0.0.1:8080", 1)
        .replacen("127.0.0.1:x", "127.0.0.1:5432", 1);
    let said = lines(BASE, &swapped);
    let beside = "is opened beside the socket that this process has there";
    assert_eq!(
        said.iter().filter(|line| line.contains(beside)).count(),
        2,
        "{said:#?}"
    );
    assert_eq!(said.len(), 4, "{said:#?}");
}

#[test]
fn targets_of_the_log_are_compared_by_destination() {
    let log = |targets: &str| format!("{BASE}[log]\n{targets}");
    let two = log("target = [{ to = \"stdout\" }, { to = \"file:/var/log/a\" }]\n");
    let other = log("tag = \"lb\"\ntarget = [{ to = \"file:/var/log/b\" }, \
         { to = \"stdout\", level = \"notice\", facility = \"local1\", format = \"rfc5424\" }]\n");
    assert_eq!(
        lines(&two, &other),
        [
            "~ log: tag \"rlb\" -> \"lb\" (holds for the next line)",
            "+ log target file:/var/log/b (is opened before anything else changes)",
            "~ log target stdout: format raw -> rfc5424, facility local0 -> local1, level info -> \
             notice (holds for the next line)",
            "- log target file:/var/log/a (gets what is queued, and closes)",
        ]
    );
    let turned = log("target = [{ to = \"file:/var/log/a\" }, { to = \"stdout\" }]\n");
    assert_eq!(
        lines(&two, &turned).len(),
        1,
        "an order is a difference too"
    );
    assert_eq!(plan(&load(&two), &load(&other)).restarts().count(), 0);
}

#[test]
fn one_more_proxy_is_no_change_of_order_and_a_swap_is() {
    let more = BASE.replacen(
        "[[frontend]]",
        "[[frontend]]\nname = \"new\"\nid = 90\nbind = \"127.0.0.1:1\"\n\
         default-backend = \"pg\"\n[[frontend]]",
        1,
    );
    let said = lines(BASE, &more);
    assert!(!said.iter().any(|line| line.contains("order")), "{said:#?}");
    let swapped = edited(
        "{ name = \"s1\", address = \"10.0.0.1:80\", check = true },\n  \
         { name = \"s2\", address = \"10.0.0.2:80\" },",
        "{ name = \"s2\", address = \"10.0.0.2:80\", id = 2 },\n  \
         { name = \"s1\", address = \"10.0.0.1:80\", check = true, id = 1 },",
    );
    assert_eq!(
        swapped,
        ["~ backend app: order of servers s1 s2 -> s2 s1 (holds for the next connection)"]
    );
}

/// Fault 29: counted ids are no change.
#[test]
fn fault_29_counted_ids_are_no_change() {
    let removed = |line: &str| edited(line, "");
    assert_eq!(
        removed("  { name = \"s1\", address = \"10.0.0.1:80\", check = true },\n"),
        ["- server app/s1 (is used no more; its sessions end by themselves)"]
    );
    assert_eq!(removed("\"127.0.0.1:80\", ").len(), 1);
    let told = removed("[stats]\nbind = \"127.0.0.1:8080\"\n");
    assert!(told.iter().all(|line| !line.contains(" id ")), "{told:?}");
    // A written one is a change.
    assert_eq!(
        edited("name = \"s2\"", "name = \"s2\", id = 7"),
        ["~ server app/s2: id 2 -> 7 (holds for the next connection)"]
    );
    let told = edited("name = \"db\"", "name = \"db\"\nid = 9");
    let line = "~ frontend db: id 4 -> 9 (holds for the next connection)";
    assert!(told.iter().any(|it| it == line), "{told:?}");
}
