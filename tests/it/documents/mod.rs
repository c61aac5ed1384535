//! The documents: every configuration in them is loaded, every command of the pages for operators is run
//! against a running rlb, and every link has a target.
//!
//! The language of a block tells its kind. `toml` is a configuration or a part of one. `sh` is a list of
//! commands that must succeed. `console` has commands after `$ `, each followed by its output; `…` stands for
//! any text in a line, and on a line of its own for any number of lines.

mod commands;

use rlb::config::{Diagnostic, Limits, Loader, Severity};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A document: its path from the root of the repository, and its text.
pub(crate) struct Document {
    pub(crate) path: String,
    text: String,
}

/// A block between fences.
struct Block<'a> {
    language: &'a str,
    text: String,
    /// Line of the first fence.
    line: usize,
}

/// Pages whose commands are run.
const RUN: [&str; 4] = [
    "README.md",
    "docs/cookbook.md",
    "docs/faq.md",
    "docs/troubleshooting.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents, in a fixed order.
pub(crate) fn all() -> Vec<Document> {
    let mut paths: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ]
    .map(PathBuf::from)
    .into();
    for pattern in ["docs/*.md", "docs/*/*.md"] {
        let pattern = root().join(pattern);
        let found = glob::glob(pattern.to_str().expect("UTF-8")).expect("a pattern");
        paths.extend(found.map(|path| {
            let path = path.expect("readable");
            path.strip_prefix(root())
                .expect("below the root")
                .to_owned()
        }));
    }
    paths
        .into_iter()
        .map(|path| Document {
            text: fs::read_to_string(root().join(&path)).expect("a document"),
            path: path.to_str().expect("UTF-8").to_owned(),
        })
        .collect()
}

impl Document {
    /// Its lines with their numbers, and whether each is inside a block.
    fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let mut inside = false;
        self.text.lines().enumerate().map(move |(index, line)| {
            let fence = line.starts_with("```");
            let within = inside || fence;
            inside ^= fence;
            (index + 1, line, within)
        })
    }

    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let mut open = false;
        for (line, text, within) in self.lines() {
            match (text.strip_prefix("```"), open) {
                (Some(language), false) => {
                    blocks.push(Block {
                        language,
                        text: String::new(),
                        line,
                    });
                    open = true;
                }
                (Some(_), true) => open = false,
                (None, _) if within => {
                    let block = blocks.last_mut().expect("it is open");
                    writeln!(block.text, "{text}").expect("a string");
                }
                (None, _) => {}
            }
        }
        assert!(!open, "{}: a block is not closed", self.path);
        blocks
    }

    /// The anchors of its headings, as web sites make them.
    fn anchors(&self) -> Vec<String> {
        let headings = self
            .lines()
            .filter(|(_, line, inside)| line.starts_with('#') && !inside);
        headings
            .map(|(_, line, _)| {
                let text = line.trim_start_matches('#').trim().to_lowercase();
                text.chars()
                    .filter_map(|it| match it {
                        ' ' => Some('-'),
                        it if it.is_alphanumeric() || it == '-' || it == '_' => Some(it),
                        _ => None,
                    })
                    .collect()
            })
            .collect()
    }

    /// The targets of its links, outside of blocks.
    fn targets(&self) -> Vec<(usize, &str)> {
        let text = self.lines().filter(|(_, _, inside)| !inside);
        text.flat_map(|(number, line, _)| {
            line.match_indices("](").filter_map(move |(at, mark)| {
                let rest = &line[at + mark.len()..];
                Some((number, &rest[..rest.find(')')?]))
            })
        })
        .collect()
    }
}

/// The files that a document links to, by their paths from the root.
pub(crate) fn links(document: &Document) -> Vec<String> {
    let targets = document.targets().into_iter();
    targets
        .filter(|(_, target)| !target.contains("://") && !target.starts_with('#'))
        .map(|(_, target)| resolved(&document.path, target))
        .collect()
}

/// A link of the document at `path`, from the root and without its anchor.
fn resolved(path: &str, target: &str) -> String {
    let target = target.split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = all();
    let mut broken = Vec::new();
    for document in &documents {
        for (line, target) in document.targets() {
            if target.contains("://") {
                continue;
            }
            let path = match target.strip_prefix('#') {
                Some(_) => document.path.clone(),
                None => resolved(&document.path, target),
            };
            let anchor = target.split_once('#').map(|(_, anchor)| anchor);
            let found = match anchor {
                None => root().join(&path).exists(),
                Some(anchor) => documents
                    .iter()
                    .find(|it| it.path == path)
                    .is_some_and(|it| it.anchors().iter().any(|it| it == anchor)),
            };
            if !found {
                broken.push(format!("{}:{line}: {target}", document.path));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A text in which every `${file:…}` names a file that exists.
fn with_file(text: &str, file: &Path) -> String {
    let mut parts = text.split("${file:");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('}').expect("it is closed");
        write!(all, "${{file:{}}}{rest}", file.display()).expect("a string");
    }
    all
}

/// The parts that a block may lack, so that it can be loaded as a whole: a listener and a backend.
const FRAME: &str = "\n[[listen]]\nname = 'frame-of-the-test'\nbind = '127.0.0.1:1'\n\
    servers = [{ name = 's1', address = '127.0.0.1:2' }]\n";

/// Instead of that of a cluster.
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/ca.pem");

#[test]
fn every_configuration_in_a_document_is_valid() {
    let loader = Loader {
        limits: Limits {
            nofile: Some(20_000),
            somaxconn: Some(65_535),
            cores: 2,
            net_admin: true,
        },
        environment: &|name| Some(name.to_lowercase()),
        disk: true,
    };
    let secret = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&secret, "secret").expect("written");
    let mut count = 0;
    let mut wrong = Vec::new();
    for document in all() {
        for block in document.blocks() {
            if block.language != "toml" {
                continue;
            }
            count += 1;
            let text = block.text.replace("/etc/kubernetes/pki/ca.crt", AUTHORITY);
            let text = with_file(&text, secret.path()) + FRAME;
            let found: Vec<Diagnostic> = match loader.load_text("block", &text) {
                Ok((_, warnings)) => warnings,
                Err(problems) => problems,
            };
            // A part of a configuration may have a backend that nothing uses.
            for problem in found.iter().filter(|it| it.severity == Severity::Error) {
                wrong.push(format!(
                    "{}:{}: {}",
                    document.path,
                    block.line,
                    problem.line()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 5, "{count} blocks");
}

/// Every block has a language: without one no test would run or load it.
#[test]
fn every_block_has_a_language() {
    let known = [
        "", "console", "json", "sh", "text", "toml", "yaml", "haproxy", "rust",
    ];
    for document in all() {
        for block in document.blocks() {
            let place = format!("{}:{}", document.path, block.line);
            assert!(
                known.contains(&block.language),
                "{place}: {}",
                block.language
            );
            // Commands in a block without a language would not be run.
            if RUN.contains(&&*document.path) {
                assert_ne!(block.language, "", "{place}");
            }
        }
    }
}

/// The figures of the README are in the documents that describe their measurement.
#[test]
fn every_figure_of_the_readme_stands_where_it_was_measured() {
    let documents = all();
    let text = |name: &str| {
        let found = documents.iter().filter(|it| it.path.starts_with(name));
        let texts: String = found.map(|it| it.text.as_str()).collect();
        assert!(!texts.is_empty(), "{name}");
        texts
    };
    // One document separates thousands by a comma, another by a blank.
    let plain = |text: &str| text.replace([',', '\u{a0}'], "");
    let measured = ["docs/performance.md", "docs/internals/", "docs/failures.md"].map(text);
    let measured = plain(&measured.concat());
    let joined: String = {
        let digits: Vec<char> = measured.chars().collect();
        let between = |at: usize| {
            digits[at] == ' '
                && at > 0
                && digits[at - 1].is_ascii_digit()
                && digits.get(at + 1).is_some_and(char::is_ascii_digit)
        };
        (0..digits.len())
            .filter(|at| !between(*at))
            .map(|at| digits[at])
            .collect()
    };
    let readme = documents
        .iter()
        .find(|it| it.path == "README.md")
        .expect("it");
    let rows = readme
        .text
        .lines()
        .skip_while(|line| !line.contains("HAProxy 3.0"));
    let rows: Vec<&str> = rows
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert!(rows.len() > 4, "the table of figures");
    for row in rows {
        for cell in row.trim_matches('|').split('|').skip(1) {
            let cell = plain(cell.trim());
            if cell != "–" {
                assert!(
                    joined.contains(&cell) || measured.contains(&cell),
                    "{cell}: {row}"
                );
            }
        }
    }
}
