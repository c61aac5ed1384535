//! The programs and rights that a test needs, and the only place where a test may be skipped.
//!
//! A test whose program is not installed prints that and passes. `tests/run` installs the programs and sets
//! [`MUST_RUN`]: then a test that cannot run fails.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set by `tests/run`: a missing program fails the test.
const MUST_RUN: &str = "RLB_TESTS_MUST_RUN";

/// Directories of programs that are not in a plain user's path.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The path of `program`. `None` and a message when it is not installed; the test must return then.
#[track_caller]
pub(crate) fn program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        missing(&format!("{program} is not installed"));
    }
    found
}

/// HAProxy: the one that `HAPROXY_BIN` names, or Debian's.
#[track_caller]
pub(crate) fn haproxy() -> Option<PathBuf> {
    let named = std::env::var_os("HAPROXY_BIN").map(PathBuf::from);
    named.or_else(|| program("haproxy"))
}

/// The first two numbers of the version of a HAProxy.
pub(crate) fn version(haproxy: &Path) -> (u32, u32) {
    let output = Command::new(haproxy).arg("-v").output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split_whitespace().nth(2).expect("a version");
    let mut parts = number.split(['.', '-']).map(str::parse);
    let mut part = || parts.next().and_then(Result::ok).expect("a number");
    (part(), part())
}

/// The static program that `tests/run` has linked: `RLB_STATIC`, of `packaging/build-static`.
#[track_caller]
pub(crate) fn static_program() -> Option<PathBuf> {
    let named = std::env::var_os("RLB_STATIC").map(PathBuf::from);
    if named.is_none() {
        missing("RLB_STATIC names no static program");
    }
    named
}

/// Whether namespaces can be made and processes traced. A message when they cannot; the test must return then.
#[track_caller]
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        missing("network namespaces and tracing need root");
    }
    root
}

/// Prints what is missing. Panics when every test must run.
#[track_caller]
fn missing(what: &str) {
    assert!(std::env::var_os(MUST_RUN).is_none(), "{what}");
    eprintln!("skipped: {what}");
}

#[test]
fn what_is_missing_fails_where_tests_must_run() {
    let program = std::env::current_exe().expect("this program");
    let run = |must: bool| {
        let mut command = Command::new(&program);
        command.args(["--ignored", "--exact", "harness::needs::a_missing_program"]);
        command.env_remove(MUST_RUN);
        if must {
            command.env(MUST_RUN, "1");
        }
        command.output().expect("it starts").status.success()
    };
    assert!(run(false));
    assert!(!run(true));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn a_missing_program() {
    assert_eq!(program("no-such-program"), None);
}
