//! `[stats]` and `[readiness]`: their meaning and their problems.

use super::{diagnostics, load};
use crate::config::model::{Config, Readiness, StatsPage};
use std::time::Duration;

const REST: &str = "
[[listen]]
name = 'db'
bind = '*:80'
servers = [{ name = 's', address = '10.0.0.1:80' }]
";

#[track_caller]
fn config(text: &str) -> Config {
    let loaded = load(&format!("{text}{REST}"));
    loaded.expect("valid").0
}

/// The text of all problems.
#[track_caller]
fn words(text: &str) -> String {
    let found = diagnostics(load(&format!("{text}{REST}")));
    found.iter().map(|one| one.render(false)).collect()
}

#[test]
fn without_keys_the_page_is_open_plain_and_not_refreshed() {
    let stats = config("[stats]\nbind = '*:81'").stats.unwrap();
    assert_eq!(stats.page, StatsPage::default());
    assert_eq!(stats.readiness, Readiness::default());
}

#[test]
fn every_key_arrives() {
    let config = config(
        "[global]\nnode = 'lb1'\ndescription = 'all of it'\n\
         [stats]\nbind = '*:81'\nuri = '/haproxy?stats'\nrefresh = '10s'\nhide-version = true\n\
         auth = ['admin:a:b', 'guest:c']\nrealm = 'LB Statistics'\nshow-node = true\n\
         show-desc = true\nshow-legends = true\nscope = ['db', 'stats']\n\
         [readiness]\nrequire = { db = 1 }\nwithdraw-delay = '5s'",
    );
    let stats = config.stats.unwrap();
    let page = &stats.page;
    assert_eq!(
        (&*page.uri, &*page.realm),
        ("/haproxy?stats", "LB Statistics")
    );
    assert_eq!(page.refresh, Some(Duration::from_secs(10)));
    assert!(page.hide_version && page.legends && page.show_node);
    let auth: Vec<&str> = page.auth.iter().map(|one| &*one.0).collect();
    assert_eq!(auth, ["admin:a:b", "guest:c"]);
    assert_eq!(config.global.node.as_deref(), Some("lb1"));
    assert_eq!(page.description.as_deref(), Some("all of it"));
    assert_eq!(page.scope, ["db".into(), "stats".into()]);
    assert_eq!(stats.readiness.require, [("db".into(), 1)]);
    assert_eq!(stats.readiness.withdraw_delay, Duration::from_secs(5));
}

#[test]
fn each_page_has_its_own_addresses_and_keys() {
    let stats = config(
        "[stats]\nbind = ['*:81', '127.0.0.1:82']\nuri = '/a'\nrefresh = '9s'\n\
         [[stats.page]]\nbind = '*:83'\nuri = '/b'\nauth = 'a:b'\nscope = 'stats'\n\
         [[stats.page]]\nbind = ['*:84', '*:85']\nhide-version = true",
    );
    let stats = stats.stats.unwrap();
    let ports = [(81, "/a"), (82, "/a"), (83, "/b"), (84, "/"), (85, "/")];
    assert_eq!(stats.binds.len(), ports.len());
    for (bind, (port, uri)) in stats.binds.iter().zip(ports) {
        let page = stats.page_at(bind).unwrap();
        assert_eq!(&*page.uri, uri, "{port}");
        assert_eq!(page.refresh.is_some(), uri == "/a", "{port}");
        assert_eq!(page.auth.len(), usize::from(uri == "/b"), "{port}");
        assert_eq!(page.hide_version, uri == "/", "{port}");
        assert_eq!(page.scope.len(), usize::from(uri == "/b"), "{port}");
    }
    let elsewhere = crate::config::model::Bind::default();
    assert_eq!(stats.page_at(&elsewhere), None);
    let one = config("[stats]\nbind = '*:81'").stats.unwrap();
    assert_eq!(one.page_at(&elsewhere), Some(&one.page));
    assert_eq!(stats.pages().count(), 3);
}

/// An address without a device would collide with both; with one each, they are two sockets.
#[test]
fn pages_of_one_address_on_two_devices_are_told_apart() {
    let text = |freebind: &str| {
        config(&format!(
            "[stats]\nbind = {{ address = '*:81', interface = 'lo' }}\nadmin = true\n\
             [[stats.page]]\nbind = {{ address = '*:81', interface = 'v0', backlog = 9{freebind} }}\n\
             auth = 'a:b'"
        ))
    };
    let stats = text("").stats.unwrap();
    let page = |bind| stats.page_at(bind).unwrap();
    let open: Vec<bool> = stats
        .binds
        .iter()
        .map(|it| page(it).auth.is_empty())
        .collect();
    assert_eq!(open, [true, false]);
    assert_eq!(
        page(&stats.binds[1]).admin,
        crate::config::model::PageAdmin::Nobody
    );
    // A socket that is closed, because another one takes its place, has neither page.
    let other = text(", freebind = true").stats.unwrap();
    assert_eq!(stats.page_at(&other.binds[1]), None);
    // What can be changed while it listens does not matter.
    let mut tuned = stats.binds[1].clone();
    tuned.backlog = Some(10);
    assert_eq!(page(&tuned).auth.len(), 1);
}

#[test]
fn pages_are_judged_each() {
    for (lines, part) in [
        ("", "has no `bind`"),
        ("bind = '*:81'", "already taken by [stats]"),
        ("bind = '127.0.0.1:0'", "two pages of the statistics"),
        ("bind = '*:82'\nuri = 'x'", "a uri is a path"),
        ("bind = '*:82'\nscope = 'dv'", "did you mean `db`?"),
        ("bind = '*:82'", "on every address of this machine"),
        ("bind = '*:82'\nname = 'x'", "name"),
        ("bind = 'unix:/run/x'", "[[stats.page]] listens on TCP only"),
    ] {
        let words = words(&format!(
            "[stats]\nbind = ['*:81', '127.0.0.1:0']\nauth = 'a:b'\n[[stats.page]]\n{lines}"
        ));
        assert!(words.contains(part), "{lines}: {words}");
    }
}

#[test]
fn passwords_are_not_printed_for_debugging() {
    let stats = config("[stats]\nbind = '*:81'\nauth = 'admin:hunter2'").stats;
    let text = format!("{stats:?}");
    assert!(
        text.contains("admin:…") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn impossible_values_are_reported() {
    for (line, part) in [
        ("uri = 'stats'", "a uri is a path"),
        ("uri = '/metrics'", "has a page of its own"),
        ("uri = '/x;csv'", "options follow it"),
        ("refresh = '0s'", "cannot be zero"),
        ("refresh = '1500ms'", "whole seconds"),
        ("auth = 'admin'", "no user and password"),
        ("auth = ':x'", "no user and password"),
        ("realm = 'a \"b\"'", "without quotes"),
        ("scope = 'dv'", "did you mean `db`?"),
        ("[readiness]\nrequire = { dbs = 1 }", "did you mean `db`?"),
        ("[readiness]\nrequire = { db = 2 }", "can never be ready"),
        ("[readiness]\nrequire = { db = 0 }", "out of range"),
    ] {
        let words = words(&format!("[stats]\nbind = '*:81'\n{line}"));
        assert!(words.contains(part), "{line}: {words}");
    }
    let words = words("[readiness]\nrequire = { db = 1 }");
    assert!(words.contains("[readiness] without [stats]"), "{words}");
}
