//! Whether a setting has had the effect that its workload measures: sessions have waited, several servers have had some,
//! nothing was logged. That the PROXY headers were right is checked by the servers themselves.

use super::{Figures, MOST_QUEUED, USED};
use crate::measure::wait_until;
use crate::subject::{Running, Servers, Setting};
use anyhow::{Result, ensure};

/// Waits until this many sessions are in the queue.
pub fn wait_for_queue(running: &Running, waiting: u64) -> Result<()> {
    wait_until("the queue is full", || {
        Ok(running.statistics()?.queued >= waiting)
    })
}

/// Checks it after a load, and returns what was seen.
pub fn check(setting: &Setting, running: &Running, servers: &Servers) -> Result<Figures> {
    let seen = running.statistics()?;
    let mut figures = Figures::from([(USED, seen.used as f64)]);
    // A small load does not reach each of a thousand.
    let expected = u64::from(setting.servers).min(100);
    ensure!(
        seen.used >= expected,
        "{} of {} servers had connections",
        seen.used,
        setting.servers
    );
    if setting.server_maxconn > 0 {
        figures.insert(MOST_QUEUED, seen.most_queued as f64);
        ensure!(
            seen.most_queued >= u64::from(setting.server_maxconn),
            "only {} connections have waited",
            seen.most_queued
        );
    }
    if !setting.logs {
        let lines = servers.take_lines();
        ensure!(lines == 0, "{lines} log lines, although logs are off");
    }
    Ok(figures)
}
