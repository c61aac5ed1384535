//! How evenly two workers share the sessions.
//!
//! Each worker has its own epoll instances, and a session is two descriptors in one of them. The kernel lists
//! the descriptors of an instance in `/proc/PID/fdinfo`, so the proxy need not report them.

use super::table::Table;
use crate::subject::{Running, Servers, Subject};
use crate::workload::Load;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;

/// Name of the section.
pub const SECTION: &str = "sessions of two workers";

/// Workers of each proxy.
pub const WORKERS: usize = 2;

/// Sessions that are shared.
const SESSIONS: [u32; 2] = [64, 2_000];

/// Least starts of each proxy: the result depends on chance, so a few starts say little.
const STARTS: usize = 9;

/// Opens sessions and finds their workers.
pub fn measure(subjects: &[Subject], table: &mut Table) -> Result<()> {
    let _servers = Servers::start(WORKERS)?;
    for sessions in SESSIONS {
        for _ in 0..table.rounds().max(STARTS) {
            for subject in subjects {
                let running = subject.start()?;
                let before = watched(&running)?;
                let arguments = format!("--kind idle --connections {sessions}");
                let mut load = Load::start(&arguments, &running, WORKERS)?;
                let mut grown: Vec<u64> = watched(&running)?
                    .into_iter()
                    .map(|(fd, now)| {
                        let before = before.get(&fd).map_or(0, Vec::len);
                        now.len().saturating_sub(before) as u64
                    })
                    .collect();
                load.go()?;
                grown.sort_unstable_by(|a, b| b.cmp(a));
                grown.resize(WORKERS, 0);
                let mean = grown.iter().sum::<u64>() as f64 / WORKERS as f64;
                let most = *grown.first().context("there are workers")? as f64;
                let at = format!("{sessions} held");
                table.add(
                    (SECTION, &at, subject.name),
                    "busiest above mean, %",
                    (most / mean - 1.0) * 100.0,
                );
            }
        }
    }
    Ok(())
}

/// What each epoll instance of a proxy watches, a line a descriptor. Two descriptors of one instance, as a
/// runtime may have, are one entry: they watch the same.
fn watched(running: &Running) -> Result<BTreeMap<String, Vec<String>>> {
    let mut instances: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pid in running.pids() {
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
            let path = entry?.path();
            // A descriptor may be closed while the folder is read.
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            if target.to_string_lossy() != "anon_inode:[eventpoll]" {
                continue;
            }
            let fd = path.file_name().unwrap_or_default().to_string_lossy();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}"))?;
            let lines = info.lines().filter(|line| line.starts_with("tfd:"));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            if !instances.values().any(|known| *known == lines) {
                instances.insert(format!("{pid}/{fd}"), lines);
            }
        }
    }
    Ok(instances)
}
