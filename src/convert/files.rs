//! The files that are converted: read from the disk, a directory's in the order of their names; and
//! a whole configuration of rlb's made from them.

use super::environment::LOCAL_PEER;
use super::lexer;
use super::prove::origin;
use super::report::{At, ERRORS_MAX, Report};
use super::sections::Input;
use super::{Conversion, NoListener, Options, Origin, Outside, carry_over, look_up};
use crate::config::source::{Place, Source};
use crate::config::{self, InputFiles, Limits, Load, real_path};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Most bytes of all files together.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Reads files, and of directories those that end in `.cfg`, as HAProxy's `-f` does.
///
/// # Errors
/// A file or directory that cannot be read, with its name.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Input>, String> {
    let mut inputs = Vec::new();
    let mut left = BYTES_MAX;
    for path in paths {
        let list = if path.is_dir() {
            directory(path).map_err(|error| said(path, &error))?
        } else {
            vec![path.clone()]
        };
        for path in list {
            let bytes = file(&path, left).map_err(|error| said(&path, &error))?;
            left = left.saturating_sub(bytes.len() as u64);
            inputs.push(Input {
                name: path.display().to_string(),
                bytes,
            });
        }
    }
    Ok(inputs)
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}

fn directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".cfg") && !name.starts_with('.') && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn file(path: &Path, left: u64) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(left + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > left {
        let message = format!("the files have more than {BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// The variables, the resolver and the folder of this process.
pub fn of_this_process() -> Outside<'static> {
    Outside {
        variable: &variable,
        address: &look_up,
        folder: folder(),
        real_path: &real_path,
    }
}

/// The folder that the process was started in, for all of its life: its name must not follow from a reload. What
/// `-C` says is set before.
fn folder() -> Option<&'static str> {
    static FOLDER: LazyLock<Option<String>> = LazyLock::new(|| {
        let folder = std::env::current_dir().ok()?;
        folder.to_str().map(str::to_owned)
    });
    FOLDER.as_deref()
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    value.or_else(|| match name {
        LOCAL_PEER => {
            let system = rustix::system::uname();
            Some(system.nodename().to_string_lossy().into_owned())
        }
        _ => None,
    })
}

/// A configuration that was made from files of HAProxy's.
#[derive(Debug)]
pub struct Converted {
    /// The load of the configuration of rlb's.
    pub load: Load,
    /// The conversion; `None`: the files cannot be read.
    pub conversion: Option<Conversion>,
}

/// Files of HAProxy's, and how they are converted.
#[derive(Debug, Clone)]
pub struct HaproxyFiles {
    /// Files, and directories of them.
    pub paths: Vec<PathBuf>,
    /// Statements that do not stand in a file.
    pub more: Option<Input>,
    /// How they are converted.
    pub options: Options,
}

impl HaproxyFiles {
    /// What reloads read again.
    pub fn input(&self) -> InputFiles {
        let names = self.paths.iter().map(|path| path.display().to_string());
        let name = names.collect::<Vec<_>>().join(", ");
        let mut files = self.clone();
        // What runs is not exchanged for nothing.
        files.options.no_listener = NoListener::Refused;
        InputFiles::other(name, move |limits| files.load(limits).load)
    }

    /// Converts the files and loads what they become. What is not carried over is an error of the load.
    pub fn load(&self, limits: &Limits) -> Converted {
        let looked_at = self.paths.clone();
        let inputs = match read(&self.paths) {
            Ok(inputs) => inputs,
            Err(why) => {
                let problem = config::Diagnostic::error("unreadable", why);
                return Converted {
                    load: config::refused(vec![problem], looked_at),
                    conversion: None,
                };
            }
        };
        let files = inputs.iter().map(|input| PathBuf::from(&input.name));
        let looked_at: Vec<PathBuf> = looked_at.into_iter().chain(files).collect();
        let inputs: Vec<Input> = inputs.into_iter().chain(self.more.clone()).collect();
        let conversion = carry_over(&inputs, self.options, of_this_process());
        let problems = problems(&conversion.report);
        let load = if problems.is_empty() {
            let name = format!("{} (converted)", conversion.report.files.join(", "));
            let mut load = config::load_converted(&name, &conversion.toml, limits, looked_at);
            let (Ok((_, problems)) | Err(problems)) = &mut load.loaded;
            Origins::new(&inputs, &conversion.lines, &name).apply(problems);
            load
        } else {
            config::refused(problems, looked_at)
        };
        Converted {
            load,
            conversion: Some(conversion),
        }
    }
}

/// Where the lines of a converted configuration come from: a problem with one names the statement that
/// it was made from.
struct Origins<'a> {
    inputs: &'a [Input],
    lines: &'a [Origin],
    /// The converted configuration's name in places.
    converted: &'a str,
    /// The texts of the inputs, as far as a problem needed them, and where their lines begin.
    sources: HashMap<usize, (Arc<Source>, Vec<usize>)>,
}

impl<'a> Origins<'a> {
    fn new(inputs: &'a [Input], lines: &'a [Origin], converted: &'a str) -> Self {
        Self {
            inputs,
            lines,
            converted,
            sources: HashMap::new(),
        }
    }

    fn apply(&mut self, problems: &mut [config::Diagnostic]) {
        for problem in problems {
            if let Some(place) = &mut problem.place {
                self.move_place(place);
            }
            if let Some((place, _)) = &mut problem.related {
                let before = place.short();
                self.move_place(place);
                problem.message = problem.message.replace(&before, &place.short());
            }
        }
    }

    fn move_place(&mut self, place: &mut Place) {
        if place.source.name != self.converted {
            return;
        }
        let at = origin(self.lines, place);
        if let Some(found) = at.and_then(|at| self.statement(at)) {
            *place = found;
        }
    }

    /// The statement at a place, to the end of its line.
    fn statement(&mut self, at: At) -> Option<Place> {
        let input = self.inputs.get(at.file)?;
        let (source, starts) = self.sources.entry(at.file).or_insert_with(|| {
            let text = lexer::text(input.bytes.clone());
            let ends = text.match_indices('\n').map(|(end, _)| end + 1);
            let starts = std::iter::once(0).chain(ends).collect();
            (Arc::new(Source::new(input.name.clone(), text)), starts)
        });
        let start = *starts.get(at.line - 1)?;
        let line = source.text[start..].lines().next().unwrap_or_default();
        let before = line
            .chars()
            .take(at.column - 1)
            .map(char::len_utf8)
            .sum::<usize>();
        Some(Place::new(
            source,
            start + before..start + line.trim_end().len(),
        ))
    }
}

/// What forbids to run a configuration: errors, and what changes traffic; the first [`ERRORS_MAX`] of them.
fn problems(report: &Report) -> Vec<config::Diagnostic> {
    let entries = report.entries.iter();
    let mut entries =
        entries.filter(|entry| entry.outcome == super::Outcome::Error || entry.traffic);
    let problem = |entry: &super::Entry| {
        let place = entry
            .at
            .map_or_else(String::new, |at| format!("{}: ", report.place(at)));
        let keyword = match &*entry.keyword {
            "" => String::new(),
            keyword => format!("{keyword}: "),
        };
        let outcome = entry.outcome.text();
        let message = format!("{place}{outcome}: {keyword}{}", entry.text);
        config::Diagnostic::error("haproxy", message)
    };
    let mut problems: Vec<_> = entries.by_ref().take(ERRORS_MAX).map(problem).collect();
    let left = entries.count();
    if left > 0 {
        let message = format!("{left} more statements forbid to run this");
        problems.push(config::Diagnostic::error("haproxy", message));
    }
    problems
}
