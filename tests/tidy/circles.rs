//! No two modules import each other. A module and the modules inside it may: they count as one.

use super::{Source, files};
use std::collections::{BTreeMap, BTreeSet};

/// Where modules are, from the root of their crate.
const CRATES: [&str; 2] = ["src", "benches/compare/src"];

/// Existing circles; the list may only become shorter.
const LEFT: &[(&str, &str)] = &[
    ("live::failures", "live::objects"),
    ("worker::relay::conn", "worker::relay::connecting"),
    ("worker::relay::conn", "worker::relay::lifecycle"),
    ("worker::relay::conn", "worker::relay::splice"),
    ("worker::relay::direction", "worker::relay::splice"),
];

type Path = Vec<String>;

/// The path of the module that a file is, from the root of its crate.
fn module(source: &Source, root: &str) -> Path {
    let inside = source.path.strip_prefix(root).expect("below the root");
    let inside = inside.trim_start_matches('/').trim_end_matches(".rs");
    let mut parts: Path = inside.split('/').map(str::to_owned).collect();
    if parts
        .last()
        .is_some_and(|it| ["mod", "lib", "main"].contains(&it.as_str()))
    {
        parts.pop();
    }
    parts
}

/// The paths of a `use`, one for each name in its braces.
fn expanded(text: &str) -> Vec<String> {
    let text = text.trim();
    let Some((before, group)) = text.split_once('{') else {
        return vec![
            text.split(" as ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
        ];
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("there is one").push(character);
    }
    let named = parts.iter().filter(|part| !part.trim().is_empty());
    named
        .flat_map(|part| expanded(part))
        .map(|part| format!("{before}{part}"))
        .collect()
}

/// What a module imports, as paths from the root of its crate.
fn imports(code: &str, of: &[String]) -> Vec<Path> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        let Some((before, text)) = statement.rsplit_once("use ") else {
            continue;
        };
        if before
            .chars()
            .next_back()
            .is_some_and(|it| !it.is_whitespace())
        {
            continue;
        }
        for path in expanded(text) {
            let mut parts: Vec<&str> = path.split("::").map(str::trim).collect();
            let mut base = of.to_vec();
            match parts.first() {
                Some(&"crate") => base.clear(),
                Some(&"super") => {
                    while parts.get(1) == Some(&"super") {
                        base.pop();
                        parts.remove(0);
                    }
                    base.pop();
                }
                Some(&"self") => {}
                _ => parts.insert(0, ""),
            }
            base.extend(parts[1..].iter().map(|part| (*part).to_owned()));
            found.push(base);
        }
    }
    found
}

/// All pairs of modules below `root` that import each other.
fn circles(root: &str) -> BTreeSet<(String, String)> {
    let sources: Vec<Source> = files(root, &[".rs"])
        .into_iter()
        .filter(|source| !source.is_test())
        .collect();
    let modules: BTreeMap<Path, &Source> = sources
        .iter()
        .map(|source| (module(source, root), source))
        .collect();
    let mut edges: BTreeSet<(&Path, &Path)> = BTreeSet::new();
    for (from, source) in &modules {
        let code: Vec<&str> = source.code().iter().map(|(_, line)| *line).collect();
        for import in imports(&code.join("\n"), from) {
            let to = (1..=import.len())
                .rev()
                .find_map(|length| modules.get_key_value(&import[..length]));
            if let Some((to, _)) = to
                && !from.starts_with(to)
                && !to.starts_with(from)
            {
                edges.insert((from, to));
            }
        }
    }
    let both = edges
        .iter()
        .filter(|(from, to)| from < to && edges.contains(&(*to, *from)));
    both.map(|(from, to)| (from.join("::"), to.join("::")))
        .collect()
}

#[test]
fn no_two_modules_import_each_other() {
    let found: BTreeSet<(String, String)> = CRATES.iter().flat_map(|root| circles(root)).collect();
    let left: BTreeSet<(String, String)> = LEFT
        .iter()
        .map(|(one, other)| ((*one).to_owned(), (*other).to_owned()))
        .collect();
    let new: Vec<_> = found.difference(&left).collect();
    assert!(new.is_empty(), "new circles of imports: {new:#?}");
    let gone: Vec<_> = left.difference(&found).collect();
    assert!(gone.is_empty(), "take them off the list LEFT: {gone:?}");
}

#[test]
fn a_use_is_followed_to_its_modules() {
    let of = ["a".to_owned(), "b".to_owned()];
    let found = |code: &str| {
        let paths = imports(code, &of).into_iter();
        paths.map(|path| path.join("::")).collect::<Vec<_>>()
    };
    assert_eq!(
        found("pub use crate::x::{y, z::{T, U as V}};"),
        ["x::y", "x::z::T", "x::z::U"]
    );
    assert_eq!(
        found("use super::c::D;\nuse super::super::e;"),
        ["a::c::D", "e"]
    );
    assert_eq!(found("use c::D;\nfn f() {}"), ["a::b::c::D"]);
    assert!(found("let reuse = 1;").is_empty());
}
