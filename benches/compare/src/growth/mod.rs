//! How the cost of one more session, server, frontend or worker grows with their number. Prints a table a
//! section and writes `growth.json`. With `--quick`, which is one round, it takes about ten minutes on two
//! cores.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml -- growth`

mod functions;
mod objects;
mod pace;
mod sessions;
mod spread;
mod table;

use crate::cli::Cli;
use crate::results::machine;
use crate::subject::{BASE, Servers, Subject};
use anyhow::{Result, ensure};
use std::fs;
use table::Table;

/// Measures everything and writes it.
pub fn run(cli: &Cli) -> Result<()> {
    let rounds = cli.rounds.unwrap_or(if cli.quick { 1 } else { 5 });
    ensure!(cli.cores == 1, "growth says itself how many cores");
    let subjects = compared(cli, 1)?;
    let versions = subjects
        .iter()
        .map(|subject| (subject.name.to_owned(), subject.version.clone()))
        .collect();
    let mut table = Table::new(machine(), versions, rounds);
    let measured = sections(cli, &subjects, &mut table);
    // An interrupted run writes what it has.
    fs::create_dir_all(&cli.out)?;
    let file = cli.out.join("growth.json");
    fs::write(&file, serde_json::to_string_pretty(&table)?)?;
    eprintln!("written to {}", file.display());
    measured
}

/// The subjects that are compared: rlb and HAProxy's best setting; the others would show little more.
fn compared(cli: &Cli, cores: usize) -> Result<Vec<Subject>> {
    let mut subjects = cli.subjects(cores)?;
    subjects.retain(|subject| ["rlb", BASE].contains(&subject.name));
    Ok(subjects)
}

/// Measures the sections that are wanted and prints each.
fn sections(cli: &Cli, subjects: &[Subject], table: &mut Table) -> Result<()> {
    let wanted = |name: &str| Cli::named(&cli.only, name);
    if wanted(functions::SECTION) {
        functions::measure(table)?;
        table.print(functions::SECTION);
    }
    let servers = Servers::start(1)?;
    if wanted(sessions::COST) {
        sessions::cost(subjects, &servers, table)?;
        table.print(sessions::COST);
    }
    if wanted(pace::SECTION) {
        pace::measure(subjects, &servers, table)?;
        table.print(pace::SECTION);
    }
    if wanted(sessions::MEMORY) {
        sessions::memory(subjects, &Subject::direct(), table)?;
        table.print(sessions::MEMORY);
    }
    if wanted(objects::SECTION) {
        objects::measure(subjects, table)?;
        table.print(objects::SECTION);
    }
    drop(servers);
    if wanted(spread::SECTION) {
        spread::measure(&compared(cli, spread::WORKERS)?, table)?;
        table.print(spread::SECTION);
    }
    Ok(())
}
