//! A thousand frontends and ten thousand servers: start, reload, memory, and what health checks
//! cost.

use super::table::Table;
use crate::measure;
use crate::subject::Subject;
use crate::subject::large::{self, Large};
use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Name of the section.
pub const SECTION: &str = "1000 frontends, 10000 servers";

/// Reloads of one start.
const RELOADS: u32 = 10;

/// How long the cost of being idle, or of checks only, is measured.
const LOOK: Duration = Duration::from_secs(4);

/// Starts each proxy with and without checks, measures it, and reloads it.
pub fn measure(subjects: &[Subject], table: &mut Table) -> Result<()> {
    for round in 0..table.rounds().min(3) {
        for checks in [false, true] {
            for subject in subjects {
                let at = if checks { "checks on" } else { "checks off" };
                let add = |table: &mut Table, figure: &str, value: f64| {
                    table.add((SECTION, at, subject.name), figure, value);
                };
                one(subject, checks, &mut |figure, value| {
                    add(table, figure, value);
                })
                .with_context(|| format!("{SECTION}, {at}, {}", subject.name))?;
            }
        }
        eprintln!("{SECTION}: round {}", round + 1);
    }
    Ok(())
}

fn one(subject: &Subject, checks: bool, note: &mut dyn FnMut(&str, f64)) -> Result<()> {
    let config = |generation| {
        let large = Large { checks, generation };
        large::config(subject, large)
    };
    let subject = subject.with_config(config(0)?);
    let begun = Instant::now();
    let mut running = subject.start()?;
    note("start, s", begun.elapsed().as_secs_f64());
    // Work that the start leaves for after the last frontend serves is not idling.
    measure::pause(LOOK);
    let before = measure::cpu_ns(&running.pids())?;
    let since = Instant::now();
    measure::pause(LOOK);
    let used = measure::cpu_ns(&running.pids())? - before;
    note(
        "CPU without load, %",
        used as f64 / since.elapsed().as_nanos() as f64 * 100.0,
    );
    note("RSS MB", measure::resident(&running.pids())? as f64 / 1e6);
    for generation in 1..=RELOADS {
        let took = large::reload(&subject, &mut running, &config(generation)?)?;
        note("reload, s", took.as_secs_f64());
    }
    note(
        "RSS MB after 10 reloads",
        measure::resident(&running.pids())? as f64 / 1e6,
    );
    // The memory of what was replaced returns to the system a little later.
    measure::pause(LOOK);
    note(
        "RSS MB soon after them",
        measure::resident(&running.pids())? as f64 / 1e6,
    );
    Ok(())
}
