//! The configurations that workloads change: both programs accept them, and each differs from the usual one.

use super::Workload;
use crate::subject::Subject;
use std::path::{Path, PathBuf};
use std::process::Command;

/// rlb beside this test program, in the folder of its profile, where `tests/run` builds it.
fn rlb() -> Option<PathBuf> {
    let this = std::env::current_exe().expect("it has a path");
    let rlb = this.ancestors().nth(2)?.join("rlb");
    rlb.exists().then_some(rlb)
}

/// All workloads that change something.
fn workloads() -> Vec<Workload> {
    let mut all = Workload::all(false);
    all.extend(Workload::emulated(false));
    all.retain(|workload| workload.setting.is_some());
    all
}

/// Whether the program of `subject` accepts the configuration; what it says otherwise.
fn accepts(subject: &Subject, config: &str, folder: &Path) -> Result<(), String> {
    let file = folder.join("config");
    let config = config.replace("@DIR@", &folder.display().to_string());
    std::fs::write(&file, &config).expect("a temporary file");
    let mut command = Command::new(subject.binary().expect("a proxy"));
    match subject.name {
        "rlb" => command.arg("check").arg(&file),
        _ => command.args(["-c", "-f"]).arg(&file),
    };
    let output = command.output().expect("it runs");
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{}\n{config}", String::from_utf8_lossy(&said)))
}

#[test]
fn every_configuration_is_accepted_and_differs() {
    let Some(rlb) = rlb() else {
        eprintln!("skipped: rlb is not built beside this test");
        return;
    };
    let subjects = Subject::all(Some(rlb), 1).expect("rlb runs");
    let folder = std::env::temp_dir().join(format!("rlb-compare-test-{}", std::process::id()));
    let folder = folder.join("configurations");
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let workloads = workloads();
    assert_eq!(workloads.len(), 22, "nine and two memories, twice");
    for subject in &subjects {
        for workload in &workloads {
            assert_eq!(workload.config(subject).is_some(), subject.has_settings());
            let Some(config) = workload.config(subject) else {
                continue;
            };
            assert_ne!(config, subject.config, "{} changes nothing", workload.name);
            let accepted = accepts(subject, &config, &folder);
            assert!(
                accepted.is_ok(),
                "{}, {}: {}",
                subject.name,
                workload.name,
                accepted.unwrap_err()
            );
        }
    }
    std::fs::remove_dir_all(folder.parent().expect("it has one")).expect("it was made");
}

#[test]
fn both_are_told_the_same() {
    let subjects = match rlb().map(|rlb| Subject::all(Some(rlb), 1).expect("rlb runs")) {
        Some(subjects) => subjects,
        None => return eprintln!("skipped: rlb is not built beside this test"),
    };
    // In each configuration of rlb's the first, in each of HAProxy's the second.
    let words = [
        (
            "short with leastconn 3",
            "\"leastconn\"",
            "balance leastconn\n",
        ),
        ("short with leastconn 100", "\"s9200\"", "server s9200 "),
        ("short with leastconn 1000", "\"s10100\"", "server s10100 "),
        (
            "short with source",
            "\"source\"",
            "balance source\n  option",
        ),
        ("short with maglev", "\"maglev\"", "hash-type consistent\n"),
        ("short with ewma", "\"ewma\"", "balance random(2)\n"),
        ("short with full queue", "maxconn = 8 ", " maxconn 8\n"),
        (
            "short with PROXY v2",
            "send-proxy = \"v2\"",
            " send-proxy-v2\n",
        ),
        (
            "short with PROXY v2",
            "accept-proxy = \"required\"",
            " accept-proxy\n",
        ),
        ("queued, silent", "maxconn = 10100\n", "maxconn 10100\n"),
    ];
    for workload in Workload::emulated(true) {
        for subject in subjects.iter().filter(|it| it.has_settings()) {
            let Some(config) = workload.config(subject) else {
                continue;
            };
            for (_, of_rlb, of_haproxy) in words.iter().filter(|it| it.0 == workload.name) {
                let word = if subject.name == "rlb" {
                    of_rlb
                } else {
                    of_haproxy
                };
                assert!(config.contains(word), "{word} in {config}");
            }
            let logs = config.contains("log");
            assert_eq!(logs, workload.name != "short with no log", "{config}");
        }
    }
}
