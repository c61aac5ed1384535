//! What a round trip costs when round trips are rare, and when they follow each other at once: rlb busy-polls
//! for the next message in the second case, and must not in the first.

use super::table::Table;
use crate::subject::{Servers, Subject};
use crate::workload::{CPU, P50, RATE, Workload};
use anyhow::{Context, Result};

/// Name of the section.
pub const SECTION: &str = "rare and frequent round trips";

/// Connections, round trips a second (0: without pauses), and the number of round trips.
const LOADS: [(u32, u32, u32); 8] = [
    (1, 100, 300),
    (1, 1_000, 3_000),
    (1, 5_000, 15_000),
    (1, 0, 20_000),
    (2, 0, 20_000),
    (4, 0, 40_000),
    (8, 0, 40_000),
    (16, 0, 40_000),
];

/// Measures every load.
pub fn measure(subjects: &[Subject], servers: &Servers, table: &mut Table) -> Result<()> {
    for round in 0..table.rounds() {
        for (connections, pace, operations) in LOADS {
            let at = match pace {
                0 => format!("{connections} without pause"),
                pace => format!("{connections}, {pace} a second"),
            };
            for subject in subjects {
                let arguments = format!(
                    "--kind ping --connections {connections} --pace {pace} --operations {operations}"
                );
                let figures = Workload::speed(arguments)
                    .run(subject, servers, 1)
                    .with_context(|| format!("{at}, {}", subject.name))?;
                let key = (SECTION, at.as_str(), subject.name);
                let cpu = figures.get(CPU).context("a proxy uses processor time")?;
                let rate = figures.get(RATE).context("a load has a rate")?;
                table.add(key, CPU, *cpu);
                table.add(key, "CPU, % of a core", cpu * rate / 1e4);
                table.add(key, P50, *figures.get(P50).context("a ping takes time")?);
            }
        }
        eprintln!("{SECTION}: round {}", round + 1);
    }
    Ok(())
}
