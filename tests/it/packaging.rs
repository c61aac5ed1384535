//! What a package installs: the unit and its neighbours, judged by systemd's own tools.

use crate::harness::needs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Most exposure that `systemd-analyze security` may find, in tenths.
const EXPOSURE_MAX: &str = "--threshold=20";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs one of systemd's tools; `None` where it is not installed.
fn tool(name: &str, arguments: &[&str], path: &Path) -> Option<Output> {
    let program = needs::program(name)?;
    let output = Command::new(program).args(arguments).arg(path).output();
    Some(output.unwrap_or_else(|error| panic!("{name}: {error}")))
}

#[track_caller]
fn accepted(output: &Output) {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn the_unit_is_hardened() {
    let arguments = ["security", "--offline=true", "--no-pager", EXPOSURE_MAX];
    if let Some(output) = tool("systemd-analyze", &arguments, &file("systemd/rlb.service")) {
        accepted(&output);
    }
}

#[test]
fn the_units_have_no_mistake_that_systemd_knows() {
    // It looks for the programs: the one under test stands for the installed one.
    let dir = tempfile::tempdir().expect("a directory");
    let program = crate::harness::rlb::PROGRAM;
    for name in ["rlb.service", "rlb.socket"] {
        let text = std::fs::read_to_string(file("systemd").join(name)).expect("a unit");
        let path = dir.path().join(name);
        std::fs::write(&path, text.replace("/usr/sbin/rlb", program)).expect("written");
    }
    let arguments = ["verify", "--man=no"];
    if let Some(output) = tool(
        "systemd-analyze",
        &arguments,
        &dir.path().join("rlb.service"),
    ) {
        accepted(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("rlb.s"), "{said}");
    }
    if let Some(output) = tool(
        "systemd-analyze",
        &arguments,
        &dir.path().join("rlb.socket"),
    ) {
        accepted(&output);
    }
}

#[test]
fn the_unit_says_what_rlb_counts_on() {
    let unit = std::fs::read_to_string(file("systemd/rlb.service")).expect("a unit");
    for line in [
        "Type=notify",
        "ExecReload=/usr/sbin/rlb reload",
        "RestartPreventExitStatus=78",
        "StartLimitIntervalSec=0",
        "RuntimeDirectoryPreserve=restart",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    assert!(unit.contains("\nWatchdogSec="));
    let stored = format!(
        "FileDescriptorStoreMax={}",
        rlb::sys::listen_fds::RECEIVED_MAX
    );
    assert!(unit.lines().any(|it| it == stored), "{stored}");
}

#[test]
fn the_packaged_configuration_is_valid_without_a_warning() {
    let path = file("debian/rlb.toml");
    let output = crate::harness::rlb::command(&[
        "check",
        "--deny-warnings",
        path.to_str().expect("a UTF-8 path"),
    ]);
    accepted(&output);
}
