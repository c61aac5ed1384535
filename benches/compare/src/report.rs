//! Tables of ratios, a JSON file with every figure, and a chart.

use crate::subject::Subject;
use crate::workload::{CALLS, CPU, INSTRUCTIONS, RESIDENT, USER_INSTRUCTIONS};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// What ratios are to: HAProxy's best setting.
const BASE: &str = "haproxy tuned";

type Samples = BTreeMap<String, Vec<f64>>;

/// Everything measured.
#[derive(Serialize)]
pub struct Results {
    machine: String,
    cores: usize,
    rounds: usize,
    versions: BTreeMap<String, String>,
    configurations: BTreeMap<String, String>,
    /// Workload → subject → figure → one sample a round.
    figures: BTreeMap<String, BTreeMap<String, Samples>>,
    #[serde(skip)]
    order: Vec<&'static str>,
    /// Workloads as they came.
    #[serde(skip)]
    came: Vec<String>,
}

impl Results {
    /// Nothing measured yet.
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
            order: subjects.iter().map(|subject| subject.name).collect(),
            came: Vec::new(),
        }
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
                let Some(samples) = subjects.get(*subject).and_then(|all| all.get(name)) else {
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

    /// One figure as Markdown: a line a workload, in each column the median and its ratio to
    /// [`BASE`]; the spread is the largest difference between rounds of one subject. Empty when
    /// nothing has that figure.
    pub fn matrix(&self, figure: &str) -> String {
        let mut lines = String::new();
        for workload in &self.came {
            let Some(subjects) = self.figures.get(workload) else {
                continue;
            };
            let samples = |name: &str| subjects.get(name)?.get(figure).map(Vec::as_slice);
            let middle = |name: &str| median(samples(name)?);
            if !self.order.iter().any(|name| samples(name).is_some()) {
                continue;
            }
            let _ = write!(lines, "| {workload} |");
            let mut spread: f64 = 0.0;
            for name in &self.order {
                let Some(value) = middle(name) else {
                    lines.push_str(" |");
                    continue;
                };
                let (low, high) = range(samples(name).unwrap_or_default());
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

    /// Workloads that have figures, as they came.
    pub fn workloads(&self) -> &[String] {
        &self.came
    }

    /// Writes `results.json` and `chart.svg` into `folder`. Meant for after every sample, so that a run
    /// of hours that is cut short leaves what it has: each file is the last whole one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let json = serde_json::to_string_pretty(self)?;
        for (name, content) in [("results.json", json), ("chart.svg", self.chart())] {
            let new = folder.join(format!("{name}.new"));
            fs::write(&new, content)?;
            fs::rename(new, folder.join(name))?;
        }
        Ok(())
    }

    /// Ratios to [`BASE`] as bars: shorter is better.
    fn chart(&self) -> String {
        const ROW: usize = 16;
        const LEFT: usize = 300;
        const UNIT: f64 = 200.0;
        let mut body = String::new();
        let mut y = 40;
        for workload in &self.came {
            let subjects = &self.figures[workload];
            for figure in [CPU, INSTRUCTIONS, USER_INSTRUCTIONS, CALLS, RESIDENT] {
                let ratio = |subject: &str| {
                    let base = median(subjects.get(BASE)?.get(figure)?)?;
                    Some(median(subjects.get(subject)?.get(figure)?)? / base)
                };
                for subject in self.order.iter().filter(|name| **name != BASE) {
                    let Some(ratio) = ratio(subject) else {
                        continue;
                    };
                    let colour = if *subject == "rlb" {
                        "#b04010"
                    } else {
                        "#9aa5b1"
                    };
                    let width = (ratio.min(3.0) * UNIT).max(1.0);
                    let _ = writeln!(
                        body,
                        "<text x='{}' y='{}' text-anchor='end'>{workload}, {figure}: {subject}</text>\
                         <rect x='{LEFT}' y='{}' width='{width:.0}' height='{}' fill='{colour}'/>\
                         <text x='{:.0}' y='{}'>{ratio:.2}</text>",
                        LEFT - 6,
                        y + ROW - 5,
                        y,
                        ROW - 3,
                        LEFT as f64 + width + 4.0,
                        y + ROW - 5
                    );
                    y += ROW;
                }
                y += 2;
            }
        }
        let line = LEFT as f64 + UNIT;
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='1000' height='{}' \
             font-family='sans-serif' font-size='10'>\n\
             <text x='{LEFT}' y='20' font-size='13'>ratio to {BASE}; shorter is better</text>\n\
             {body}<line x1='{line}' x2='{line}' y1='30' y2='{y}' stroke='#20a0ff'/>\n</svg>\n",
            y + 20
        )
    }
}

/// The middle of the samples; none of none.
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

/// Three significant digits or so.
pub fn round(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// This machine in words, for the record.
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
