//! What is told of two configurations, and what needs a restart.

use super::*;
use crate::config::{Limits, Loader};

fn load(text: &str) -> Config {
    let loader = Loader {
        limits: Limits {
            nofile: None,
            somaxconn: None,
            cores: 2,
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
fn a_weight_is_told_with_both_values() {
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
            "+ server app/s3 (takes its share at once; a check decides)",
            "- server app/s2 (is used no more; its sessions end by themselves)",
        ]
    );
}

#[test]
fn another_address_starts_a_server_over_and_another_interval_does_not() {
    assert_eq!(
        edited("10.0.0.2:80", "10.0.0.9:80"),
        ["~ server app/s2: address 10.0.0.2:80 -> 10.0.0.9:80 \
          (its health begins anew, its sessions go on)"]
    );
    let said = edited("check = true", "check = { interval = \"5s\" }");
    assert_eq!(
        said,
        [
            "~ server app/s1: check tcp every 2s rise 2 fall 3 timeout 1s -> \
          tcp every 5s rise 2 fall 3 timeout 1s (holds for the next connection)"
        ]
    );
    let said = edited("check = true", "check = { port = 8080 }");
    assert!(
        said[0].ends_with("(its health begins anew, its sessions go on)"),
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
    assert_eq!(said.len(), 2, "{said:#?}");
    assert!(said[1].starts_with("- bind db 127.0.0.1:5432"), "{said:#?}");
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
    let fates = match_binds(&old, &new);
    assert_eq!(fates, [BindFate::Keeps(0), BindFate::Keeps(2)]);
}

#[test]
fn what_needs_a_restart_stays_and_the_rest_applies() {
    let text = BASE
        .replacen("threads = 2", "threads = 4\nmaxconn = 10", 1)
        .replacen("127.0.0.1:8080\"", "127.0.0.1:9090\"\nmaxconn = 7", 1);
    let (old, new) = (load(BASE), load(&text));
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
            "! stats: bind 127.0.0.1:8080 -> 127.0.0.1:9090 (needs restart)",
            "~ stats: maxconn 200 -> 7 (holds at once)",
        ]
    );
    assert_eq!(changes.restarts().count(), 2);
    let applied = applicable(&old, new.clone());
    assert_eq!(applied.global.threads, 2);
    assert_eq!(applied.global.maxconn, Some(10));
    assert_eq!(applied.stats.as_ref().map(|stats| stats.maxconn), Some(7));
    // And the next reload says it again.
    assert_eq!(plan(&applied, &new).restarts().count(), 2);
    assert_eq!(plan(&old, &applied).restarts().count(), 0);
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
