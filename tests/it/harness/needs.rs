//! What a test needs of the machine, and the one place where a test may decide to do nothing.
//!
//! By hand a test whose program is not installed says so and passes. `tests/run` installs the
//! programs and sets [`MUST_RUN`]: there a test that proves nothing fails.

use std::path::PathBuf;

/// Set by `tests/run`: whatever is missing fails the test.
const MUST_RUN: &str = "RLB_TESTS_MUST_RUN";

/// Where programs are that the search path of a plain user does not name.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Where `program` is; `None`, and said: not installed, so that the test has to return.
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

/// Whether namespaces can be made and processes traced; said, if not: the test has to return.
#[track_caller]
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        missing("network namespaces and tracing need root");
    }
    root
}

/// Says what is missing. Panics where every test has to run.
#[track_caller]
fn missing(what: &str) {
    assert!(std::env::var_os(MUST_RUN).is_none(), "{what}");
    eprintln!("skipped: {what}");
}

#[test]
fn what_is_missing_fails_where_tests_must_run() {
    use std::process::Command;
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
