//! The figures of `growth`: sections of rows, printed and written as JSON.

use crate::results::{median, range, round};
use serde::Serialize;
use std::collections::BTreeMap;

/// What was measured, as it is printed and written.
#[derive(Serialize)]
pub struct Table {
    machine: String,
    versions: BTreeMap<String, String>,
    rounds: usize,
    rows: Vec<Row>,
}

/// One figure.
#[derive(Serialize)]
struct Row {
    section: &'static str,
    /// The number of sessions, servers or other objects.
    at: String,
    subject: String,
    figure: String,
    samples: Vec<f64>,
}

impl Table {
    /// A table without figures: the machine in words, the version of each subject.
    pub fn new(machine: String, versions: BTreeMap<String, String>, rounds: usize) -> Self {
        Self {
            machine,
            versions,
            rounds,
            rows: Vec::new(),
        }
    }

    /// How often a figure is to be measured.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Adds a sample of a figure.
    pub fn add(&mut self, key: (&'static str, &str, &str), figure: &str, sample: f64) {
        let (section, at, subject) = key;
        let same = |row: &&mut Row| {
            row.section == section && row.at == at && row.subject == subject && row.figure == figure
        };
        if let Some(row) = self.rows.iter_mut().find(same) {
            row.samples.push(sample);
            return;
        }
        self.rows.push(Row {
            section,
            at: at.to_owned(),
            subject: subject.to_owned(),
            figure: figure.to_owned(),
            samples: vec![sample],
        });
    }

    /// One section as text: median and range of each figure.
    pub fn print(&self, section: &str) {
        println!("\n{section}");
        for row in self.rows.iter().filter(|row| row.section == section) {
            let (low, high) = range(&row.samples);
            println!(
                "  {:<28} {:<16} {:<24} {:>10} [{} - {}]",
                row.at,
                row.subject,
                row.figure,
                round(median(&row.samples).unwrap_or_default()),
                round(low),
                round(high)
            );
        }
    }
}
