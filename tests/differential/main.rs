//! The differential run: the same configuration file and the same scripted clients through HAProxy and through
//! rlb, whose observations are compared: the server of every connection, what its client saw, its line in
//! the log, and at the end every row of `show stat`.
//!
//! `configs/NAME.cfg` is a configuration of HAProxy's whose comments that begin with `#>` are the script
//! ([`script`]). [`run`] runs it through one program, [`differences`] compares two runs, and [`known`] lists
//! the differences that `docs/differences.md` documents. Every other difference fails the test. HAProxy is the
//! one that `HAPROXY_BIN` names, or Debian's.

#![allow(
    dead_code,
    reason = "shares the harness of tests/it and uses a part of it"
)]

mod client;
mod differences;
#[path = "../it/harness/mod.rs"]
mod harness;
mod known;
mod log_line;
mod program;
mod run;
mod script;
mod server;

use crate::program::Kind;
use crate::run::{Observation, Observed};
use crate::script::Script;
use std::collections::BTreeSet;
use std::path::Path;

/// Least number of connections of a script, through each program.
const CONNECTIONS_MIN: usize = 1000;

/// How often a script is run where an answer has taken long.
const RUNS_MAX: usize = 3;

/// Connections of a script that may have an answer that takes long.
const LATE_MAX: usize = 5;

/// The folder of the configurations.
fn folder() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/differential/configs"
    ))
}

/// Runs a configuration through both programs and compares what was seen.
#[track_caller]
fn compare(name: &str) {
    let Some(haproxy) = harness::needs::haproxy() else {
        return;
    };
    let script = Script::read(&folder().join(format!("{name}.cfg")));
    let connections = script.connections();
    assert!(
        connections >= CONNECTIONS_MIN,
        "{name} has {connections} connections"
    );
    let version = program::version(&haproxy);
    for run in 1..=RUNS_MAX {
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| run::run(Kind::Haproxy(&haproxy), &script));
            let ours = run::run(Kind::Rlb, &script);
            let theirs = theirs.join();
            let theirs = theirs.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (theirs, ours)
        });
        let found = differences::between(&theirs, &ours);
        let unknown = known::left_over(name, version, found);
        if unknown.is_empty() {
            return;
        }
        let once_more = run < RUNS_MAX && asks_more_servers(&theirs, &ours);
        assert!(once_more, "{name}: {}", unknown.join("\n"));
    }
}

/// Whether rlb alone has asked a second server in few connections. It does so when one has not answered within 5 ms
/// (`docs/differences.md`: time for one server), which happens now and then on a busy machine; all servers after it are
/// others then.
fn asks_more_servers(theirs: &Observed, ours: &Observed) -> bool {
    let pairs = theirs.connections.iter().zip(&ours.connections);
    let at_once = |it: &Observation| it.line.as_ref().is_some_and(|it| it.has("retries", "0"));
    let again = |it: &Observation| it.line.as_ref().is_some_and(|it| it.has("retries", "+1"));
    let more = pairs.filter(|(theirs, ours)| at_once(theirs) && again(ours));
    (1..=LATE_MAX).contains(&more.count())
}

/// A test for each configuration, and the list of them.
macro_rules! configurations {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            compare(stringify!($name));
        })*

        /// The configurations that have a test.
        const CONFIGURATIONS: &[&str] = &[$(stringify!($name)),*];
    };
}

configurations! {
    all_backups,
    all_down,
    backup_servers,
    binds_many,
    check_elsewhere,
    conditions,
    dark_server,
    dark_server_checked,
    default_server,
    defaults_chain,
    first,
    four_threads,
    frontend_backend,
    frontend_full,
    hashes,
    ids,
    ipv6,
    keepalive,
    leastconn,
    listen_plain,
    log_none,
    log_null,
    log_quiet,
    log_raw,
    log_rfc5424,
    log_short,
    log_unix,
    many_services,
    marked_down,
    marked_up,
    one_thread,
    process_full,
    proxy_disabled,
    queue_abort,
    queue_leave,
    queue_order,
    queue_resets,
    queue_server_down,
    queue_timeout,
    queue_turns,
    refused_alone,
    refused_no_retries,
    refused_redispatch,
    refused_retries,
    server_down_and_up,
    servers_disabled,
    stats_page,
    syntax_wild,
    timeout_tunnel,
    timeouts_idle,
    unix_sockets,
    weights,
    weights_at_run_time,
    weights_equal,
    weights_of_static,
}

#[test]
fn every_configuration_has_a_test() {
    let files = std::fs::read_dir(folder()).expect("the folder");
    let files: BTreeSet<String> = files
        .filter_map(|file| {
            let name = file.expect("a file").file_name();
            Some(name.to_str()?.strip_suffix(".cfg")?.to_owned())
        })
        .collect();
    let tests: BTreeSet<String> = CONFIGURATIONS.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(files, tests);
}
