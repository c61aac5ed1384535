//! Rules about the sources' text that no compiler checks: which module may import which, how long a file may
//! be, names that say nothing. Links nothing of the crate.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/words.rs"]
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from left to right: each imports only from its left. Those of one entry do not import each
/// other, and those of the first import no module of the crate.
const LAYERS: &[&[&str]] = &[
    &["sys", "proto", "config"],
    &["live"],
    &["balance"],
    &["state"],
    &["worker", "check", "log", "stats"],
    &["control"],
    &["admin"],
    &["app"],
    &["demo"],
    &["cli"],
];

/// Modules outside the layers, and all modules that they may import.
const BESIDE: &[(&str, &[&str])] = &[("convert", &["config"])];

/// Most lines of code in a file, without tests, comments and empty lines.
const CODE_LINES_MAX: usize = 500;

/// Names that do not say what a module is.
const VAGUE: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "types", "manager", "misc",
];

/// The one file that may hold `unsafe`.
const UNSAFE_HOME: &str = "src/sys/raw.rs";

/// A file of the repository: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers: without comments and without a test module at the end.
    fn code(&self) -> Vec<(usize, &str)> {
        if self.is_test() {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| {
                pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod ")
            })
            .unwrap_or(lines.len());
        lines[..tests]
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
            .collect()
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// The module right below the crate's root that a file of `src/` belongs to.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let name = inside.split('/').next()?.trim_end_matches(".rs");
        (!["lib", "main"].contains(&name)).then_some(name)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` whose name ends in one of `endings`, in a fixed order.
fn files(dir: &str, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(dir)];
    while let Some(path) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&path) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                // `target` is what a build left behind.
                if path.file_name().is_some_and(|name| name != "target") {
                    waiting.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let inside = path.strip_prefix(root()).expect("below the root");
                let text = fs::read_to_string(&path).expect("a text file");
                found.push(Source {
                    path: inside.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

/// The modules that a text names after `crate::`, in braces too.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|character| character.is_alphanumeric() || character == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(first_names(group));
        } else {
            found.extend(name_at(rest));
        }
    }
    found
}

fn name_at(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|it| it.is_ascii_alphanumeric() || *it == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// The first names of the entries of a `{…}` group, whose opening brace is gone.
fn first_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut entry = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(name_at(std::mem::take(&mut entry).trim_start())),
            _ => {}
        }
        entry.push(character);
        if entry == "," {
            entry.clear();
        }
    }
    names.extend(name_at(entry.trim_start()));
    names
}

/// Whether a file of module `from` may name module `to`.
fn may_import(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    if let Some((_, seen)) = BESIDE.iter().find(|(name, _)| *name == from) {
        return seen.contains(&to);
    }
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    let beside = BESIDE.iter().any(|(name, _)| *name == to);
    match (layer(from), layer(to)) {
        (Some(from), Some(to)) => to < from,
        // A module outside the layers is for the command line only.
        (Some(_), None) => beside && from == "cli",
        _ => false,
    }
}

#[test]
fn a_module_imports_only_from_its_left() {
    let mut broken = Vec::new();
    for source in files("src", &[".rs"]) {
        let Some(module) = source.module() else {
            continue;
        };
        let code: Vec<&str> = source.code().iter().map(|(_, line)| *line).collect();
        for import in imports(&code.join("\n")) {
            // lib.rs has only modules, so every name after `crate::` is one.
            if !may_import(module, &import) {
                broken.push(format!("{}: `{module}` imports `{import}`", source.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_module_is_in_a_layer() {
    let known: BTreeSet<&str> = LAYERS
        .iter()
        .copied()
        .flatten()
        .copied()
        .chain(BESIDE.iter().map(|it| it.0))
        .collect();
    let unknown: BTreeSet<String> = files("src", &[".rs"])
        .iter()
        .filter_map(Source::module)
        .filter(|module| !known.contains(module))
        .map(str::to_owned)
        .collect();
    assert!(unknown.is_empty(), "not in LAYERS: {unknown:?}");
}

#[test]
fn a_file_holds_one_idea() {
    let long: Vec<String> = files("src", &[".rs"])
        .iter()
        .map(|source| (source.code().len(), &source.path))
        .filter(|(lines, _)| *lines > CODE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines of code"))
        .collect();
    assert!(long.is_empty(), "above {CODE_LINES_MAX}: {long:#?}");
}

#[test]
fn a_file_says_what_it_is() {
    let silent: Vec<String> = ["src", "tests", "benches", "fuzz/fuzz_targets"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
        .filter(|source| {
            !source.path.ends_with("/tests.rs")
                && !source
                    .text
                    .trim_start_matches("#![no_main]\n")
                    .starts_with("//!")
        })
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top: {silent:#?}");
}

#[test]
fn no_module_has_a_vague_name() {
    let vague: Vec<String> = ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
        .filter(|source| {
            let words = source.path.trim_end_matches(".rs").split('/');
            words.into_iter().any(|word| VAGUE.contains(&word))
        })
        .map(|source| source.path)
        .collect();
    assert!(vague.is_empty(), "{vague:#?}");
}

#[test]
fn nothing_is_left_unfinished() {
    // Built here, so that this file does not contain the words itself.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let marks = ["TODO", "FIXME", "XXX"].map(|word| format!("// {word}"));
    let mut found = Vec::new();
    for source in ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
    {
        for (number, line) in source.text.lines().enumerate() {
            if words
                .iter()
                .chain(&marks)
                .any(|word| line.contains(word.as_str()))
            {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_has_one_home() {
    let words = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "expect(unsafe_code",
        "allow(unsafe_code",
    ];
    let mut found = Vec::new();
    for source in ["src", "tests", "benches"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
    {
        if source.path == UNSAFE_HOME || source.path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    assert!(found.is_empty(), "outside {UNSAFE_HOME}: {found:#?}");
}

#[test]
fn tests_do_not_sleep() {
    let home = "tests/it/harness/eventually.rs";
    let found: Vec<String> = ["src", "tests"]
        .iter()
        .flat_map(|dir| files(dir, &[".rs"]))
        .filter(|source| source.path != home && source.path != "tests/tidy.rs")
        .filter(|source| source.text.contains("thread::sleep"))
        .map(|source| source.path)
        .collect();
    assert!(found.is_empty(), "outside {home}: {found:#?}");
}

#[test]
fn documents_link_to_names_not_to_lines() {
    let mut documents = files("docs", &[".md"]);
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ] {
        if let Ok(text) = fs::read_to_string(root().join(name)) {
            documents.push(Source {
                path: name.to_owned(),
                text,
            });
        }
    }
    let mut found = Vec::new();
    for document in documents {
        for (number, line) in document.text.lines().enumerate() {
            if line.contains(".rs#L") || points_at_a_line(line) {
                found.push(format!("{}:{}: {}", document.path, number + 1, line.trim()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "they rot with the next commit: {found:#?}"
    );
}

/// Whether a text holds `….rs:` and a digit.
fn points_at_a_line(line: &str) -> bool {
    line.match_indices(".rs:")
        .any(|(at, part)| line[at + part.len()..].starts_with(|it: char| it.is_ascii_digit()))
}

#[test]
fn the_rules_see_what_they_should() {
    let names = |text: &str| imports(text).into_iter().collect::<Vec<_>>();
    assert_eq!(
        names("use crate::live::Slot;\nlet x = crate::sys::now();"),
        ["live", "sys"]
    );
    assert_eq!(
        names("use crate::{live::{Slot, Gauge}, state::Server};"),
        ["live", "state"]
    );
    assert_eq!(names("use my_crate::other;"), Vec::<String>::new());
    assert!(may_import("worker", "state") && may_import("worker", "sys"));
    assert!(!may_import("worker", "check") && !may_import("sys", "config"));
    assert!(!may_import("state", "worker") && !may_import("convert", "live"));
    assert!(may_import("cli", "convert") && !may_import("app", "convert"));
    assert!(points_at_a_line("see src/app.rs:12") && !points_at_a_line("see src/app.rs: it"));
    let source = Source {
        path: "src/x.rs".to_owned(),
        text: "//! Head.\n\nfn a() {} // end\n#[cfg(test)]\nmod tests {\n}\n".to_owned(),
    };
    assert_eq!(source.code(), [(3, "fn a() {} ")]);
}
