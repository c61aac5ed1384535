//! Messages of a start and a check in HAProxy's form: `[ALERT]    (1234) : text`.

use crate::config::{Diagnostic, Severity};
use crate::convert::{Entry, Outcome, Report};
use crate::log::events::start_line;
use crate::stats::info::VERSION;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Codes of what [`Messages::tell_report`] tells, and of warnings where HAProxy says nothing.
const UNTOLD: [&str; 3] = ["haproxy", "no-effect", "no-weight"];

/// Where messages go, and whether they do.
#[derive(Debug)]
pub(super) struct Messages {
    /// Nothing is printed.
    quiet: bool,
    /// A first message is preceded by the version.
    begun: Cell<bool>,
    warned: Cell<bool>,
    /// What was told, printed or not.
    told: RefCell<String>,
}

impl Messages {
    pub(super) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            begun: Cell::new(false),
            warned: Cell::new(false),
            told: RefCell::default(),
        }
    }

    /// What was told since the last call.
    pub(super) fn take_told(&self) -> String {
        self.told.take()
    }

    /// Whether nothing is printed.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether a warning was told, printed or not.
    pub(super) fn warned(&self) -> bool {
        self.warned.get()
    }

    pub(super) fn alert(&self, text: &str) {
        self.begin();
        self.print("ALERT", text);
    }

    pub(super) fn warning(&self, text: &str) {
        self.warned.set(true);
        self.begin();
        self.print("WARNING", text);
    }

    pub(super) fn notice(&self, text: &str) {
        self.begin();
        self.print("NOTICE", text);
    }

    /// A line of standard output.
    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            println!("{text}");
        }
    }

    fn begin(&self) {
        if self.begun.replace(true) {
            return;
        }
        self.print("NOTICE", &format!("haproxy version is {VERSION}"));
        let path = std::env::current_exe().unwrap_or_default();
        self.print(
            "NOTICE",
            &format!("path to executable is {}", path.display()),
        );
    }

    fn print(&self, severity: &str, text: &str) {
        let line = start_line(severity, text);
        if !self.quiet {
            eprint!("{line}");
        }
        self.told.borrow_mut().push_str(&line);
    }

    /// What became of the statements. `all`: also what is kept and means something else.
    pub(super) fn tell_report(&self, report: &Report, all: bool) {
        let mut failed = BTreeSet::new();
        // What goes with a proxy that is dropped is not told statement by statement.
        let heads = report.entries.iter();
        let heads = heads.filter(|entry| is_proxy(entry) && entry.outcome == Outcome::Dropped);
        let dropped: BTreeSet<usize> = heads.map(|entry| entry.section).collect();
        for entry in &report.entries {
            let goes_with = entry.outcome == Outcome::Dropped && dropped.contains(&entry.section);
            if goes_with && !entry.traffic && !is_proxy(entry) {
                continue;
            }
            let text = described(report, entry);
            match entry.outcome {
                Outcome::Error => {}
                _ if entry.traffic => {}
                _ if *entry.keyword == *".warning" => self.warning(&text),
                _ if [".notice", ".diag"].contains(&&*entry.keyword) => self.notice(&text),
                Outcome::Unsupported | Outcome::Dropped => self.warning(&text),
                Outcome::Changed if is_proxy(entry) => self.warning(&text),
                Outcome::Changed if all => self.notice(&text),
                _ => {}
            }
            if entry.outcome == Outcome::Error || entry.traffic {
                self.alert(&text);
                failed.extend(entry.at.map(|at| at.file));
            }
        }
        for file in failed {
            let name = report.files.get(file).map_or("", String::as_str);
            self.alert(&format!(
                "config : Error(s) found in configuration file : {name}"
            ));
        }
    }

    /// What a load found, without [`UNTOLD`].
    pub(super) fn tell_load(&self, problems: &[Diagnostic]) {
        let told = |problem: &&Diagnostic| !UNTOLD.contains(&problem.code);
        for problem in problems.iter().filter(told) {
            let text = format!("config : {}", place_and_text(problem));
            match problem.severity {
                Severity::Error => self.alert(&text),
                Severity::Warning => self.warning(&text),
            }
        }
    }
}

/// `parsing [haproxy.cfg:12] : …`, as far as the place is known.
fn place_and_text(problem: &Diagnostic) -> String {
    match &problem.place {
        Some(place) => {
            let line = place.start().line;
            format!(
                "parsing [{}:{line}] : {}",
                place.source.name, problem.message
            )
        }
        None => problem.message.clone(),
    }
}

fn described(report: &Report, entry: &Entry) -> String {
    let place = entry.at.map_or_else(String::new, |at| {
        let file = report.files.get(at.file).map_or("", String::as_str);
        format!("parsing [{file}:{}] : ", at.line)
    });
    let keyword = match &*entry.keyword {
        "" => String::new(),
        keyword => format!("'{keyword}' : "),
    };
    let outcome = match entry.outcome {
        Outcome::Error => String::new(),
        outcome => format!("{} : ", outcome.text()),
    };
    format!("config : {place}{keyword}{outcome}{}", entry.text)
}

fn is_proxy(entry: &Entry) -> bool {
    ["frontend", "backend", "listen"].contains(&&*entry.keyword)
}

/// An error in the words of C's library.
pub(super) fn text(error: &std::io::Error) -> String {
    let text = rustix::io::Errno::from_io_error(error).map_or_else(
        || error.to_string(),
        |errno| std::io::Error::from(errno).to_string(),
    );
    let before = text.split(" (os error").next();
    before.unwrap_or_default().to_owned()
}

/// Why files cannot be read: the first path that cannot be, in HAProxy's words.
pub(super) fn unreadable(paths: &[PathBuf]) -> Option<String> {
    paths.iter().find_map(|path| {
        let error = text(&std::fs::metadata(path).err()?);
        let path = path.display();
        Some(format!(
            "config : Cannot open configuration file/directory {path} : {error}"
        ))
    })
}
