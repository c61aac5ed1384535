//! What a short connection and a round trip cost beside open, idle sessions, and how much memory of the machine
//! an idle session takes.

use super::table::Table;
use crate::callgrind;
use crate::measure;
use crate::subject::{Servers, Subject};
use crate::workload::{CPU, Load, RESIDENT, USER_INSTRUCTIONS, Workload, user};
use anyhow::{Context, Result};
use std::fs;

/// Name of the section about processor time.
pub const COST: &str = "cost while others are held";

/// Name of the section about memory.
pub const MEMORY: &str = "memory of held sessions";

/// Numbers of open, idle sessions.
const HELD: [u32; 4] = [1, 100, 1_000, 9_000];

/// Loads: the operation, its arguments, the operations of a measurement of CPU time, and the operations of a
/// count of instructions: enough to outweigh the begin and the end of thousands of sessions.
const LOADS: [(&str, &str, u32, u64); 2] = [
    ("connection", "--kind rate --connections 32", 20_000, 5_500),
    (
        "round trip",
        "--kind ping --connections 32",
        100_000,
        80_500,
    ),
];

/// Processor time and instructions in user space.
pub fn cost(subjects: &[Subject], servers: &Servers, table: &mut Table) -> Result<()> {
    for (what, arguments, operations, counted) in LOADS {
        for round in 0..table.rounds() {
            for held in HELD {
                for subject in subjects {
                    let at = format!("{held} held, per {what}");
                    let arguments = format!("{arguments} --idle {held}");
                    let timed = format!("{arguments} --operations {operations}");
                    let figures = Workload::speed(timed)
                        .run(subject, servers, 1)
                        .with_context(|| format!("{at}, {}", subject.name))?;
                    let cpu = figures.get(CPU).context("a proxy uses processor time")?;
                    table.add((COST, &at, subject.name), CPU, *cpu);
                    // Slow but repeatable: once, and only for rlb. The comparison counts the others.
                    if round == 0 && subject.name == "rlb" && callgrind::is_installed() {
                        let count = user::instructions(subject, 1, &arguments, counted)
                            .with_context(|| format!("{at}, {}, counted", subject.name))?;
                        table.add((COST, &at, subject.name), USER_INSTRUCTIONS, count);
                    }
                }
            }
            eprintln!("{COST}, {what}: round {}", round + 1);
        }
    }
    Ok(())
}

/// Resident memory of the proxy, and the kernel's memory for all four sockets of a session; a direct connection
/// has two sockets.
pub fn memory(subjects: &[Subject], direct: &Subject, table: &mut Table) -> Result<()> {
    for _ in 0..table.rounds().min(3) {
        for held in HELD.into_iter().skip(2) {
            for subject in subjects.iter().chain([direct]) {
                let running = subject.start()?;
                let pids = running.pids();
                let (resident, kernel) = (measure::resident(&pids)?, slab()?);
                let arguments = format!("--kind idle --connections {held}");
                let mut load = Load::start(&arguments, &running, 1)?;
                let at = format!("{held} held");
                let key = (MEMORY, at.as_str(), subject.name);
                let each =
                    |now: u64, before: u64| now.saturating_sub(before) as f64 / f64::from(held);
                if subject.is_proxy() {
                    let now = measure::resident(&pids)?;
                    table.add(key, RESIDENT, each(now, resident));
                    table.add(key, "RSS MB before", resident as f64 / 1e6);
                }
                table.add(key, "kernel slab bytes/conn", each(slab()?, kernel));
                load.go()?;
            }
        }
    }
    Ok(())
}

/// Bytes that the kernel's object caches take, on the whole machine.
fn slab() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find(|line| line.starts_with("Slab:"));
    let kb = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kb.context("no Slab in /proc/meminfo")?.parse::<u64>()? * 1024)
}
