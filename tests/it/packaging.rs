//! The files of a package: the unit and related files, checked with systemd's own tools.

use crate::documents;
use crate::harness::needs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Highest exposure that `systemd-analyze security` may report, in tenths.
const EXPOSURE_MAX: &str = "--threshold=20";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs one of systemd's tools; `None` when it is not installed.
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
    // It looks for the programs: the one under test replaces the installed one.
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

/// Fault 28: a start that failed because another process had the port was repeated five times a second.
#[test]
fn fault_28_a_failed_start_is_repeated_every_five_seconds_and_a_crash_at_once() {
    let unit = std::fs::read_to_string(file("systemd/rlb.service")).expect("a unit");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key} is missing"))
            .to_owned()
    };
    assert_eq!(value("RestartSec="), "200ms");
    // systemd reads `$$` as `$`.
    let command = value("ExecStopPost=/bin/sh -c ").replace("$$", "$");
    let script = command.trim_matches('\'');
    let took = |status: &str| {
        let begun = std::time::Instant::now();
        let ended = Command::new("/bin/sh")
            .args(["-c", script])
            .env("EXIT_STATUS", status)
            .status();
        assert!(ended.expect("a shell").success());
        begun.elapsed().as_secs_f64()
    };
    // A stop, a signal, a configuration that is not valid: no pause.
    for status in ["0", "KILL", "ABRT", "78"] {
        assert!(took(status) < 2.0, "{status}");
    }
    assert!((4.5..8.0).contains(&took("1")));
}

/// Fault 28: after an upgrade of the package the old program went on running.
#[test]
fn fault_28_an_upgrade_of_the_package_hands_over() {
    let script = std::fs::read_to_string(file("debian/rlb.postinst")).expect("a script");
    let (helpers, ours) = script.split_once("#DEBHELPER#").expect("debhelper's part");
    assert!(
        !helpers.contains("rlb upgrade"),
        "before the unit is reloaded"
    );
    assert!(ours.contains("rlb upgrade"));
    let checked = Command::new("/bin/sh")
        .args(["-n"])
        .arg(file("debian/rlb.postinst"))
        .status();
    assert!(checked.expect("a shell").success());
}

/// Fault 28: no session was logged after an installation, and the statistics took port 8080.
#[test]
fn fault_28_the_first_configuration_logs_where_logrotate_looks_and_leaves_8080_alone() {
    let text = std::fs::read_to_string(file("debian/rlb.toml")).expect("a configuration");
    let table: toml::Table = text.parse().expect("TOML");
    let target = table["log"]["target"][0]["to"].as_str().expect("a target");
    let path = target.strip_prefix("file:").expect("a file");
    let rotated = std::fs::read_to_string(file("systemd/logrotate")).expect("logrotate's file");
    let pattern = rotated.split_whitespace().next().expect("a pattern");
    let pattern = glob::Pattern::new(pattern).expect("a pattern");
    assert!(pattern.matches(path), "{path}");
    assert_eq!(table["stats"]["bind"].as_str(), Some("127.0.0.1:8404"));
}

/// Fault 28: the kernel settings of the package took the ports of Kubernetes' services.
#[test]
fn fault_28_the_kernel_settings_are_an_example() {
    let rules = std::fs::read_to_string(file("debian/rules")).expect("the rules");
    assert!(!rules.contains("sysctl"));
    let examples = std::fs::read_to_string(file("debian/rlb.examples")).expect("a list");
    assert!(examples.lines().any(|it| it == "systemd/sysctl.conf"));
    let settings = std::fs::read_to_string(file("systemd/sysctl.conf")).expect("the example");
    assert!(
        !settings
            .lines()
            .any(|it| it.starts_with("net.ipv4.ip_local_port_range"))
    );
}

/// Fault 28: the README of the package linked to files that the package does not have, and the licences of the
/// crates that are linked into the program were not listed.
#[test]
fn fault_28_links_between_packaged_documents_lead_to_packaged_files() {
    let list = std::fs::read_to_string(file("debian/rlb.docs")).expect("a list");
    let packaged: Vec<&str> = list.lines().collect();
    let mut missing = Vec::new();
    for document in documents::all() {
        if !packaged
            .iter()
            .any(|it| Path::new(&document.path).starts_with(it))
        {
            continue;
        }
        for target in documents::links(&document) {
            if !packaged.iter().any(|it| Path::new(&target).starts_with(it)) {
                missing.push(format!("{}: {target}", document.path));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    let rules = std::fs::read_to_string(file("debian/rules")).expect("the rules");
    assert!(rules.contains("licenses-of-crates.txt debian/rlb/usr/share/doc/rlb/"));
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
