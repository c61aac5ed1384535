//! Results, and tables of them: medians, ranges and ratios to HAProxy's best setting.

use crate::subject::{BASE, Subject};
use crate::workload::Workload;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

type Samples = BTreeMap<String, Vec<f64>>;

/// Everything measured.
#[derive(Serialize, Deserialize)]
pub struct Results {
    /// The machine's description.
    pub machine: String,
    /// Worker threads of each proxy.
    pub cores: usize,
    rounds: usize,
    /// Subject → the version that it reports.
    pub versions: BTreeMap<String, String>,
    configurations: BTreeMap<String, String>,
    /// Workload → subject → figure → one sample a round.
    figures: BTreeMap<String, BTreeMap<String, Samples>>,
    /// Subjects in the order of their turns.
    #[serde(default, rename = "subjects")]
    order: Vec<String>,
    /// Workloads in the order in which they ran.
    #[serde(default, rename = "workloads")]
    came: Vec<String>,
}

impl Results {
    /// Results without figures.
    pub fn new(subjects: &[Subject], cores: usize, rounds: usize, machine: String) -> Self {
        let by_name = |value: fn(&Subject) -> &String| {
            subjects
                .iter()
                .map(|s| (s.name.to_owned(), value(s).clone()))
                .collect()
        };
        Self {
            machine,
            cores,
            rounds,
            versions: by_name(|subject| &subject.version),
            configurations: by_name(|subject| &subject.config),
            figures: BTreeMap::new(),
            order: subjects
                .iter()
                .map(|subject| subject.name.to_owned())
                .collect(),
            came: Vec::new(),
        }
    }

    /// Adds the configurations that workloads change, as "SUBJECT, WORKLOAD".
    pub fn configured(&mut self, workloads: &[Workload], subjects: &[Subject]) {
        for workload in workloads {
            for subject in subjects.iter().filter(|it| workload.is_for(it)) {
                if let Some(config) = workload.config(subject) {
                    let name = format!("{}, {}", subject.name, workload.name);
                    self.configurations.insert(name, config);
                }
            }
        }
    }

    /// The results in a file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("no {}", file.display()))?;
        let mut results: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} has no results", file.display()))?;
        if results.order.is_empty() {
            results.order = results.versions.keys().cloned().collect();
        }
        if results.came.is_empty() {
            results.came = results.figures.keys().cloned().collect();
        }
        Ok(results)
    }

    /// Subjects in the order of their turns.
    pub fn subjects(&self) -> &[String] {
        &self.order
    }

    /// The samples of a figure, one a round; empty if it was not measured.
    pub fn samples(&self, workload: &str, subject: &str, figure: &str) -> &[f64] {
        let of = || self.figures.get(workload)?.get(subject)?.get(figure);
        of().map_or(&[], Vec::as_slice)
    }

    /// All samples of a figure of one subject together, over all workloads.
    pub fn sum(&self, subject: &str, figure: &str) -> f64 {
        let samples = |workload: &String| self.samples(workload, subject, figure);
        self.came.iter().flat_map(samples).sum()
    }

    /// Adds the figures of one run.
    pub fn add(
        &mut self,
        workload: &str,
        subject: &str,
        figures: impl IntoIterator<Item = (impl Into<String>, f64)>,
    ) {
        if !self.figures.contains_key(workload) {
            self.came.push(workload.to_owned());
        }
        let samples = self
            .figures
            .entry(workload.to_owned())
            .or_default()
            .entry(subject.to_owned())
            .or_default();
        for (name, value) in figures {
            samples.entry(name.into()).or_default().push(value);
        }
    }

    /// One workload as a table: median, range over the rounds, ratio of medians to [`BASE`].
    pub fn table(&self, workload: &str) -> String {
        let mut text = format!("\n{workload}\n");
        let Some(subjects) = self.figures.get(workload) else {
            return text;
        };
        let mut names: Vec<&String> = subjects.values().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        for name in names {
            let base = subjects
                .get(BASE)
                .and_then(|samples| median(samples.get(name)?));
            for subject in &self.order {
                let Some(samples) = subjects.get(subject).and_then(|all| all.get(name)) else {
                    continue;
                };
                let Some(middle) = median(samples) else {
                    continue;
                };
                let (low, high) = range(samples);
                let ratio = base.filter(|base| *base > 0.0).map(|base| middle / base);
                let ratio = ratio.map_or_else(|| "   -".into(), |ratio| format!("{ratio:.2}"));
                let _ = writeln!(
                    text,
                    "  {name:<16} {subject:<16} {ratio:>6}   {} [{} - {}]",
                    round(middle),
                    round(low),
                    round(high)
                );
            }
        }
        text
    }

    /// One figure as Markdown: a line a workload, in each column the median and its ratio to [`BASE`]. The
    /// spread is the largest difference between rounds of one subject. Empty when nothing has that figure.
    pub fn matrix(&self, figure: &str) -> String {
        let mut lines = String::new();
        for workload in &self.came {
            let samples = |name: &str| self.samples(workload, name, figure);
            let middle = |name: &str| median(samples(name));
            if self.order.iter().all(|name| samples(name).is_empty()) {
                continue;
            }
            let _ = write!(lines, "| {workload} |");
            let mut spread: f64 = 0.0;
            for name in &self.order {
                let Some(value) = middle(name) else {
                    lines.push_str(" |");
                    continue;
                };
                let (low, high) = range(samples(name));
                spread = spread.max((high - low) / value);
                let _ = write!(lines, " {}", round(value));
                if let Some(base) = middle(BASE) {
                    let _ = write!(lines, " (**{:.3}**)", value / base);
                }
                lines.push_str(" |");
            }
            let _ = writeln!(lines, " {:.1} % |", spread * 100.0);
        }
        if lines.is_empty() {
            return lines;
        }
        format!(
            "\n| {figure} | {} | spread |\n|---|{}---|\n{lines}",
            self.order.join(" | "),
            "---|".repeat(self.order.len())
        )
    }

    /// Workloads that have figures, in the order in which they ran.
    pub fn workloads(&self) -> &[String] {
        &self.came
    }
}

/// The median of the samples; `None` without samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some((sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0)
}

/// The least and the most of the samples.
pub fn range(samples: &[f64]) -> (f64, f64) {
    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
    (low, samples.iter().copied().fold(0.0, f64::max))
}

/// About three significant digits.
pub fn round(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// This machine's description, for the record.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .unwrap_or_default();
    let model = model.split(": ").nth(1).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} x {model}, Linux {}", kernel.trim())
}
