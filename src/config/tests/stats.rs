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
