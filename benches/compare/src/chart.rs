//! A chart of results: what an operation costs with each proxy, as a ratio to HAProxy's best setting.
//!
//! An SVG of fixed width: a part for each results file, and in it a panel for each figure. A bar is a ratio of
//! medians. A bar that is longer than the scale ends in an arrow.

use crate::results::{Results, median, range, round};
use crate::subject::BASE;
use crate::workload::{CALLS, CPU, INSTRUCTIONS, RESIDENT, USER_INSTRUCTIONS};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The figures that are drawn, with their headings.
const FIGURES: [(&str, &str); 5] = [
    (
        INSTRUCTIONS,
        "Instructions per operation, user and kernel (bulk: per GB)",
    ),
    (CALLS, "System calls per operation"),
    (RESIDENT, "Resident bytes per connection held"),
    (CPU, "CPU time per operation in µs (bulk: per GB)"),
    (
        USER_INSTRUCTIONS,
        "Instructions per operation in user space",
    ),
];

/// The subjects that have bars, from the top, with their colours.
const COLOURS: [(&str, &str); 4] = [
    ("rlb", "#c2410c"),
    ("haproxy default", "#4b7196"),
    ("haproxy splice", "#9dbad6"),
    ("nginx", "#8b9c5a"),
];

/// Width of the whole.
const WIDTH: f64 = 960.0;
/// Margin around the drawing.
const MARGIN: f64 = 24.0;
/// Where the bars begin.
const LEFT: f64 = 250.0;
/// Length of a ratio of one.
const UNIT: f64 = 240.0;
/// Largest ratio whose bar is drawn to scale.
const RATIO_MAX: f64 = 2.0;
/// Height of a bar with the space below it.
const BAR: f64 = 12.0;
/// Space between workloads.
const GAP: f64 = 7.0;
/// Approximate width of a letter of the legend.
const LETTER: f64 = 7.0;
/// Smallest range over the rounds, as a share of the median, that is drawn.
const SPREAD_MIN: f64 = 0.01;
/// Letters that fit in a line of small text.
const LETTERS_MAX: usize = 140;

const SMALL: &str = "font-size='11' fill='#6b7280'";
const SMALL_END: &str = "font-size='11' fill='#6b7280' text-anchor='end'";
const GRID: &str = "stroke='#e5e7eb'";
const ONE: &str = "stroke='#1f2937' stroke-dasharray='3 2'";
/// Keeps lines from crossing the letters.
const HALO: &str = "stroke='#ffffff' stroke-width='3' paint-order='stroke'";
const WHISKER: &str = "stroke='#111827' stroke-width='1.5' stroke-opacity='0.6'";

/// The chart of these results. A figure that two of them have (same workload, threads and version of HAProxy)
/// is taken from the first.
pub fn svg(all: &[&Results]) -> String {
    let mut drawing = Drawing {
        body: String::new(),
        y: 34.0,
    };
    let title = format!("What an operation costs: ratio to {BASE} (shorter is better)");
    drawing.text(MARGIN, "font-size='17' font-weight='bold'", &title);
    drawing.legend(all);
    let mut drawn = BTreeSet::new();
    for results in all {
        let version = results.versions.get(BASE).map_or("", String::as_str);
        let mut begun = false;
        for (figure, heading) in FIGURES {
            let mut workloads = results.workloads().to_vec();
            workloads.retain(|workload| {
                let key = (figure, workload.clone(), results.cores, version);
                !bars(results, workload, figure).is_empty() && drawn.insert(key)
            });
            if workloads.is_empty() {
                continue;
            }
            if !begun {
                drawing.part(results);
                begun = true;
            }
            drawing.panel(results, (figure, heading), &workloads);
        }
    }
    if drawn.is_empty() {
        drawing.y += 24.0;
        drawing.text(MARGIN, SMALL, "nothing was measured that has a ratio");
    }
    let height = drawing.y + MARGIN;
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height:.0}' width='{WIDTH}' \
         height='{height:.0}' font-family='system-ui, sans-serif' fill='#1f2937'>\n\
         <title>{title}</title>\n<rect width='100%' height='100%' fill='#ffffff'/>\n{}</svg>\n",
        drawing.body
    )
}

/// A bar: its subject, the ratio of medians, and the least and the most as ratios to the same median.
struct Bar {
    subject: &'static str,
    colour: &'static str,
    ratio: f64,
    low: f64,
    high: f64,
}

/// The bars of a workload: one for each subject that has samples; none when HAProxy has none.
fn bars(results: &Results, workload: &str, figure: &str) -> Vec<Bar> {
    let base = median(results.samples(workload, BASE, figure)).filter(|base| *base > 0.0);
    let Some(base) = base else {
        return Vec::new();
    };
    let bar = |(subject, colour): (&'static str, &'static str)| {
        let samples = results.samples(workload, subject, figure);
        let (low, high) = range(samples);
        Some(Bar {
            subject,
            colour,
            ratio: median(samples)? / base,
            low: low / base,
            high: high / base,
        })
    };
    COLOURS.into_iter().filter_map(bar).collect()
}

/// The position of a ratio on the scale.
fn at(ratio: f64) -> f64 {
    LEFT + ratio.min(RATIO_MAX) * UNIT
}

/// What has been drawn so far, and the position of the next line.
struct Drawing {
    body: String,
    y: f64,
}

impl Drawing {
    fn text(&mut self, x: f64, style: &str, text: &str) {
        let (y, text) = (self.y, escaped(text));
        let _ = writeln!(
            self.body,
            "<text x='{x:.1}' y='{y:.1}' {style}>{text}</text>"
        );
    }

    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
        let _ = writeln!(
            self.body,
            "<rect x='{x:.1}' y='{y:.1}' width='{width:.1}' height='{height:.1}' fill='{colour}'/>"
        );
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
        let _ = writeln!(
            self.body,
            "<line x1='{x1:.1}' y1='{y1:.1}' x2='{x2:.1}' y2='{y2:.1}' {style}/>"
        );
    }

    /// Explains the colours and lines.
    fn legend(&mut self, all: &[&Results]) {
        let font = "font-size='12'";
        self.y += 24.0;
        let y = self.y - 4.0;
        let mut x = MARGIN;
        for (subject, colour) in COLOURS {
            if all
                .iter()
                .any(|results| results.versions.contains_key(subject))
            {
                self.rect((x, y - 5.0), (10.0, 10.0), colour);
                self.text(x + 15.0, font, subject);
                x += 38.0 + LETTER * subject.len() as f64;
            }
        }
        let base = format!("{BASE} = 1");
        for (style, text) in [
            (ONE, base.as_str()),
            (WHISKER, "least to most of the rounds"),
        ] {
            self.line((x, y), (x + 16.0, y), style);
            self.text(x + 21.0, font, text);
            x += 44.0 + LETTER * text.len() as f64;
        }
    }

    /// The heading of a part: threads, machine and versions.
    fn part(&mut self, results: &Results) {
        self.y += 40.0;
        let y = self.y - 20.0;
        self.line((MARGIN, y), (WIDTH - MARGIN, y), GRID);
        let heading = match results.cores {
            1 => "Each proxy with one thread".to_owned(),
            more => format!("Each proxy with {more} threads"),
        };
        self.text(MARGIN, "font-size='14' font-weight='bold'", &heading);
        // HAProxy has the same version in all its settings.
        let mut versions: Vec<&str> = Vec::new();
        for subject in results.subjects() {
            let version = results.versions.get(subject).map_or("", |text| text.trim());
            if !version.is_empty() && !versions.contains(&version) {
                versions.push(version);
            }
        }
        let machine = wrapped(&results.machine);
        for line in machine.iter().chain(&wrapped(&versions.join("; "))) {
            self.y += 15.0;
            self.text(MARGIN, SMALL, line);
        }
    }

    /// One figure: its scale, and a group of bars for each workload.
    fn panel(&mut self, results: &Results, (figure, heading): (&str, &str), workloads: &[String]) {
        self.y += 28.0;
        self.text(MARGIN, "font-size='13' font-weight='600'", heading);
        self.text(WIDTH - MARGIN, SMALL_END, &format!("rlb : {BASE}"));
        self.y += 17.0;
        let height: f64 = workloads
            .iter()
            .map(|workload| bars(results, workload, figure).len() as f64 * BAR + GAP)
            .sum();
        let top = self.y + 4.0;
        for ratio in [0.0, 0.5, 1.0, 1.5, RATIO_MAX] {
            let font = "font-size='10' fill='#6b7280' text-anchor='middle'";
            self.text(at(ratio), font, &ratio.to_string());
            self.line((at(ratio), top), (at(ratio), top + height), GRID);
        }
        self.line((at(1.0), top), (at(1.0), top + height), ONE);
        self.y = top + GAP / 2.0;
        for workload in workloads {
            self.group(results, workload, figure);
        }
        self.y = top + height;
    }

    fn group(&mut self, results: &Results, workload: &str, figure: &str) {
        let bars = bars(results, workload, figure);
        let (top, height) = (self.y, bars.len() as f64 * BAR);
        self.y = top + height / 2.0 + 3.0;
        let font = "font-size='12' text-anchor='end'";
        self.text(LEFT - 10.0, font, short(workload));
        let middle = |subject| median(results.samples(workload, subject, figure));
        if let (Some(rlb), Some(base)) = (middle("rlb"), middle(BASE)) {
            let both = format!("{} : {}", grouped(rlb), grouped(base));
            self.text(WIDTH - MARGIN, SMALL_END, &both);
        }
        self.y = top;
        for bar in bars {
            self.bar(&bar);
        }
        self.y = top + height + GAP;
    }

    fn bar(&mut self, bar: &Bar) {
        let (top, bottom) = (self.y, self.y + BAR - 2.0);
        let middle = f64::midpoint(top, bottom);
        let mut end = at(bar.ratio);
        self.rect((LEFT, top), (end - LEFT, bottom - top), bar.colour);
        if bar.ratio > RATIO_MAX {
            let (tip, colour) = (end + 7.0, bar.colour);
            let _ = writeln!(
                self.body,
                "<path d='M{end:.1} {top:.1}L{tip:.1} {middle:.1}L{end:.1} {bottom:.1}z' fill='{colour}'/>"
            );
            end = tip;
        } else if bar.high - bar.low > SPREAD_MIN * bar.ratio {
            self.line((at(bar.low), middle), (at(bar.high), middle), WHISKER);
            end = at(bar.high);
        }
        let weight = match bar.subject {
            "rlb" => "bold",
            _ => "normal",
        };
        let font = format!("font-size='10' font-weight='{weight}' {HALO}");
        self.y = bottom - 1.0;
        self.text(end + 4.0, &font, &format!("{:.2}", bar.ratio));
        self.y = top + BAR;
    }
}

/// A workload's name without the words that are in the panel's heading.
fn short(workload: &str) -> &str {
    let name = workload.strip_suffix(", calls").unwrap_or(workload);
    name.strip_suffix(", user space").unwrap_or(name)
}

/// A figure with its thousands separated; from ten million on in millions.
fn grouped(value: f64) -> String {
    if value >= 1e7 {
        return format!("{} M", grouped(value / 1e6));
    }
    if value < 1000.0 {
        return round(value);
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

/// Lines of at most [`LETTERS_MAX`] letters, unless a word is longer.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < LETTERS_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{grouped, svg};
    use crate::results::Results;
    use crate::workload::{CALLS, INSTRUCTIONS};

    fn results(base: Option<f64>) -> Results {
        let text = r#"{"machine": "m & n", "cores": 2, "rounds": 1, "figures": {},
            "configurations": {}, "versions": {"rlb": "1", "haproxy tuned": "2", "nginx": "3"}}"#;
        let mut results: Results = serde_json::from_str(text).unwrap();
        results.add("w", "rlb", [(INSTRUCTIONS, 50.0), (CALLS, 7.0)]);
        results.add("w", "nginx", [(INSTRUCTIONS, 900.0)]);
        if let Some(base) = base {
            results.add("w", "haproxy tuned", [(INSTRUCTIONS, base)]);
        }
        results
    }

    #[test]
    fn a_bar_is_what_was_measured_and_can_be_compared() {
        let results = results(Some(100.0));
        // The second results file has the same figures as the first.
        let chart = svg(&[&results, &results]);
        for (text, count) in [
            (">0.50<", 1),
            (">9.00<", 1),
            ("<path", 1),
            ("System calls", 0),
            ("2 threads", 1),
            ("m &amp; n", 1),
        ] {
            assert_eq!(chart.matches(text).count(), count, "{text} in {chart}");
        }
    }

    #[test]
    fn nothing_to_compare_with_is_no_bar() {
        for base in [None, Some(0.0)] {
            let chart = svg(&[&results(base)]);
            assert!(chart.contains("nothing was measured"), "{chart}");
            assert!(!chart.contains("NaN") && !chart.contains("inf"), "{chart}");
        }
    }

    #[test]
    fn figures_are_readable() {
        let figures = [14.6, 136_246.0, 216_900_000.0].map(grouped);
        assert_eq!(figures, ["14.60", "136\u{a0}246", "217 M"]);
    }
}
