//! Files → sections with their statements: lines, conditions, the environment, `no` and `default`.
//!
//! What is not valid is reported, and the reading goes on with the next line. One section is in memory at a time.

use super::condition;
use super::environment::{Environment, LOCAL_PEER};
use super::lexer::{self, Word};
use super::report::{At, Outcome, Report};
use crate::config::haproxy::{Index, Place};

/// A file that is converted.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its path, for people.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// A kind of section that is carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Global,
    Defaults,
    Frontend,
    Backend,
    Listen,
    /// Another one that HAProxy has.
    Other,
}

impl Kind {
    fn of(word: &str, index: &Index) -> Option<Self> {
        Some(match word {
            "global" => Self::Global,
            "defaults" => Self::Defaults,
            "frontend" => Self::Frontend,
            "backend" => Self::Backend,
            "listen" => Self::Listen,
            _ => {
                index.find(Place::Section, word)?;
                Self::Other
            }
        })
    }

    /// Whether it takes connections.
    pub(super) fn is_front(self) -> bool {
        matches!(self, Self::Frontend | Self::Listen | Self::Defaults)
    }
}

/// Whether `word` begins a section.
pub(super) fn is_section(word: &str, index: &Index) -> bool {
    Kind::of(word, index).is_some()
}

/// `no` and `default` before a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modifier {
    None,
    No,
    Default,
}

/// A line of a section.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) at: At,
    pub(super) modifier: Modifier,
    /// At least one.
    pub(super) words: Vec<Word>,
}

impl Statement {
    /// Word `index`, or nothing.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", |word| &word.text)
    }

    /// The place of word `index`.
    pub(super) fn at(&self, index: usize) -> At {
        self.words.get(index).map_or(self.at, |word| At {
            column: word.column,
            ..self.at
        })
    }
}

/// A section and its statements.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) kind: Kind,
    /// Its number in the report.
    pub(super) number: usize,
    pub(super) head: Statement,
    pub(super) statements: Vec<Statement>,
}

/// Most words of all files together: time and memory depend on them. Enough for as many servers as rlb takes, with
/// twelve words each.
pub(super) const ALL_WORDS_MAX: usize = 800_000;

/// Most conditions inside each other, as in HAProxy.
const NESTED_MAX: usize = 100;

/// What a block between two conditions is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// Its lines count.
    Taken,
    /// They do not, and a later block may be taken.
    Passed,
    /// They do not, and no later one is.
    Skipped,
    /// The last block, taken or not.
    Else(bool),
}

impl Block {
    fn is_taken(self) -> bool {
        matches!(self, Self::Taken | Self::Else(true))
    }
}

/// The blocks that have begun and not ended, each with whether all around it are taken, and whether the conditions so far
/// ask for the program: there may be millions.
#[derive(Default)]
struct Blocks(Vec<(Block, bool, bool)>);

/// A block that is left out because of what rlb is.
struct LeftOut {
    /// Where it begins, and with which word.
    at: At,
    word: &'static str,
    /// How many blocks are open in it.
    depth: usize,
    /// Its first and its last line that say something.
    lines: Option<(usize, usize)>,
}

impl Blocks {
    /// Whether lines count here.
    fn are_taken(&self) -> bool {
        let last = self.0.last();
        last.is_none_or(|(block, outer, _)| *outer && block.is_taken())
    }

    /// Whether those around the last one are taken.
    fn outer_are_taken(&self) -> bool {
        self.0.last().is_none_or(|(_, outer, _)| *outer)
    }

    fn begin(&mut self, block: Block, asks: bool) {
        let outer = self.are_taken();
        self.0.push((block, outer, asks));
    }
}

/// Takes the sections one after the other, each with the environment as it is at its end.
pub(super) type Sink<'a, 'e> = dyn FnMut(&Section, &Environment<'e>, &mut Report) + 'a;

/// Reads all files.
pub(super) fn read<'e>(
    inputs: &[Input],
    environment: &mut Environment<'e>,
    index: &Index,
    report: &mut Report,
    sink: &mut Sink<'_, 'e>,
) {
    let (mut begun, mut words) = (0, 0);
    for (file, input) in inputs.iter().enumerate() {
        environment.file.clone_from(&input.name);
        environment.section.clear();
        let mut reader = Reader {
            file,
            environment,
            index,
            report,
            sink,
            begun,
            words,
            section: None,
            blocks: Blocks::default(),
            left_out: None,
        };
        reader.file(&input.bytes);
        reader.end_section();
        (begun, words) = (reader.begun, reader.words);
        if words > ALL_WORDS_MAX {
            break;
        }
    }
}

struct Reader<'a, 's, 'e> {
    file: usize,
    environment: &'a mut Environment<'e>,
    index: &'a Index,
    report: &'a mut Report,
    sink: &'a mut Sink<'s, 'e>,
    /// How many sections have begun in all files.
    begun: usize,
    /// How many words all files had so far.
    words: usize,
    /// The section that is being read.
    section: Option<Section>,
    blocks: Blocks,
    /// The block that is being left out because of what rlb is.
    left_out: Option<LeftOut>,
}

/// A byte order mark.
pub(super) const BOM: &[u8] = b"\xEF\xBB\xBF";

impl Reader<'_, '_, '_> {
    fn file(&mut self, bytes: &[u8]) {
        let first = At {
            file: self.file,
            line: 1,
            column: 1,
        };
        let bare = bytes.strip_prefix(BOM);
        if bare.is_some() {
            let text = "a byte order mark is left out; HAProxy refuses it";
            self.note(first, text);
        }
        let bytes = bare.unwrap_or(bytes);
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        let mut number = 0;
        while let Some(line) = lines.next() {
            number += 1;
            let at = At {
                line: number,
                ..first
            };
            if lines.peek().is_none() {
                if line.is_empty() {
                    break;
                }
                let text = "the last line has no line feed; HAProxy refuses that";
                self.note(at, text);
            }
            self.environment.line = number;
            self.line(at, line);
            if self.words > ALL_WORDS_MAX {
                let text = format!("more than {ALL_WORDS_MAX} words: what follows was not read");
                self.report.error(at, "", text);
                return;
            }
        }
        if !self.blocks.0.is_empty() {
            let at = At {
                line: number.max(1),
                ..first
            };
            self.report.error(at, ".if", "there is no `.endif` for it");
        }
    }

    fn note(&mut self, at: At, text: &'static str) {
        self.report.push(at, "", Outcome::Information, text);
    }

    fn line(&mut self, at: At, line: &[u8]) {
        let line = match line.iter().position(|byte| *byte == 0) {
            Some(zero) => {
                self.report.error(at, "", "a zero byte ends this line");
                &line[..zero]
            }
            None => line,
        };
        let begins = line.iter().find(|byte| !byte.is_ascii_whitespace());
        if begins == Some(&b'[') {
            self.report.push(at, "[…]", Outcome::NotNeeded, "a scope");
            return;
        }
        // A line that the conditions leave out may hold anything.
        let words = match lexer::split(line, self.environment) {
            Ok(words) => words,
            Err(problem) => {
                if self.blocks.are_taken() {
                    let at = At {
                        column: problem.column,
                        ..at
                    };
                    self.report.error(at, "", problem.message);
                }
                return;
            }
        };
        self.words += words.len();
        let Some(first) = words.first() else { return };
        let at = At {
            column: first.column,
            ..at
        };
        let hidden = line.iter().position(|byte| *byte == b'\r');
        if hidden.is_some_and(|from| !line[from..].trim_ascii().is_empty()) {
            self.note(
                at,
                "a carriage return ends this line: what follows it does not count",
            );
        }
        if first.text.starts_with('.') && self.condition(at, &words) {
            return;
        }
        if !self.blocks.are_taken() {
            if let Some(left_out) = &mut self.left_out {
                let first = left_out.lines.map_or(at.line, |(first, _)| first);
                left_out.lines = Some((first, at.line));
            }
            return;
        }
        if first.text.starts_with('.') {
            return self.message(at, &words);
        }
        if let Some(empty) = words
            .iter()
            .position(|word| word.text.is_empty() && word.unset.is_none())
        {
            let at = At {
                column: words[empty].column,
                ..at
            };
            let text = "a word is empty, and ends the list of words";
            return self.report.error(at, first.text.clone(), text);
        }
        self.statement(at, words);
    }

    /// Whether it was one; then it was dealt with.
    fn condition(&mut self, at: At, words: &[Word]) -> bool {
        let name = words[0].text.as_str();
        let outer = self.blocks.outer_are_taken();
        let all = self.blocks.are_taken();
        let conditions = words[1..].iter();
        let asks = conditions
            .map(|word| word.text.as_str())
            .any(condition::asks_for_the_program);
        if name != ".if" {
            self.tell_left_out();
        }
        match name {
            ".if" => {
                if self.blocks.0.len() >= NESTED_MAX {
                    let text = format!("more than {NESTED_MAX} conditions inside each other");
                    self.report.error(at, name, text);
                }
                let block = match all {
                    true if self.holds(at, words) => Block::Taken,
                    true => Block::Passed,
                    false => Block::Skipped,
                };
                self.blocks.begin(block, asks);
            }
            ".elif" | ".else" => {
                let Some((last, ..)) = self.blocks.0.last().copied() else {
                    self.report.error(at, name, "there is no `.if` before it");
                    return true;
                };
                let next = match last {
                    Block::Else(_) => {
                        self.report.error(at, name, "it stands behind an `.else`");
                        return true;
                    }
                    Block::Taken | Block::Skipped if name == ".else" => Block::Else(false),
                    Block::Taken | Block::Skipped => Block::Skipped,
                    Block::Passed if name == ".else" => Block::Else(outer),
                    Block::Passed if outer && self.holds(at, words) => Block::Taken,
                    Block::Passed => Block::Passed,
                };
                if let Some((last, _, asked)) = self.blocks.0.last_mut() {
                    *last = next;
                    *asked |= asks;
                }
            }
            ".endif" => {
                if self.blocks.0.pop().is_none() {
                    self.report.error(at, name, "there is no `.if` before it");
                }
            }
            _ => return false,
        }
        if name != ".if" && name != ".elif" && words.len() > 1 {
            self.report.error(at, name, "nothing may stand behind it");
        }
        self.note_left_out(at, name);
        true
    }

    /// Notes that the block which the directive `name` begins is left out because of what rlb is.
    fn note_left_out(&mut self, at: At, name: &str) {
        let words = [".if", ".elif", ".else"];
        let Some(word) = words.into_iter().find(|word| *word == name) else {
            return;
        };
        if let Some((block, true, true)) = self.blocks.0.last()
            && !block.is_taken()
        {
            self.left_out = Some(LeftOut {
                at,
                word,
                depth: self.blocks.0.len(),
                lines: None,
            });
        }
    }

    /// Says which lines are left out in a block that ends: HAProxy may take them.
    fn tell_left_out(&mut self) {
        let depth = self.blocks.0.len();
        let Some(left_out) = self.left_out.take_if(|it| it.depth == depth) else {
            return;
        };
        if let Some((first, last)) = left_out.lines {
            let lines = match last - first {
                0 => format!("line {first} is"),
                _ => format!("lines {first} to {last} are"),
            };
            let text = format!("{lines} left out: rlb answers for HAProxy 3.0 without TLS");
            let changed = Outcome::Changed;
            self.report.push(left_out.at, left_out.word, changed, text);
        }
    }

    fn holds(&mut self, at: At, words: &[Word]) -> bool {
        let texts = words[1..].iter().map(|word| word.text.as_str());
        let text = texts.collect::<Vec<_>>().join(" ");
        let name = &words[0].text;
        match condition::holds(&text, self.environment) {
            Ok(holds) => {
                let what = if holds {
                    "it holds"
                } else {
                    "it does not hold"
                };
                self.report.push(at, name, Outcome::Kept, what);
                holds
            }
            Err(problem) => {
                self.report.error(at, name, problem);
                false
            }
        }
    }

    /// `.notice`, `.warning`, `.alert`, `.diag`.
    fn message(&mut self, at: At, words: &[Word]) {
        let name = words[0].text.clone();
        if words.len() > 2 {
            let text = "one word may stand behind it: put the message in quotes";
            return self.report.error(at, name, text);
        }
        let text = words.get(1).map_or("", |word| &word.text);
        let outcome = match &*name {
            ".alert" => Outcome::Error,
            ".warning" | ".notice" | ".diag" => Outcome::Information,
            _ => {
                return self.report.error(at, name, "there is no such directive");
            }
        };
        self.report
            .push(at, name, outcome, format!("the file says: {text}"));
    }

    fn statement(&mut self, at: At, mut words: Vec<Word>) {
        let modifier = match &*words[0].text {
            "no" if words.len() > 1 => Modifier::No,
            "default" if words.len() > 1 => Modifier::Default,
            _ => Modifier::None,
        };
        if modifier != Modifier::None {
            words.remove(0);
        }
        let statement = Statement {
            at,
            modifier,
            words,
        };
        let first = statement.word(0);
        if modifier != Modifier::None && !Self::can_be_negated(first) {
            let text = "only an option, a log and switches of `global` have a `no` before them";
            return self.report.error(at, first, text);
        }
        if let Some(kind) = Kind::of(first, self.index).filter(|_| modifier == Modifier::None) {
            return self.begin(kind, statement);
        }
        let Some(section) = self.section.as_mut() else {
            let text = "this is no section, and stands in none";
            return self.report.error(at, first, text);
        };
        if section.kind == Kind::Global {
            variables(&statement, self.environment);
        }
        section.statements.push(statement);
    }

    fn can_be_negated(word: &str) -> bool {
        [
            "option",
            "log",
            "busy-polling",
            "set-dumpable",
            "strict-limits",
            "insecure-fork-wanted",
            "numa-cpu-mapping",
        ]
        .contains(&word)
    }

    fn begin(&mut self, kind: Kind, head: Statement) {
        self.end_section();
        self.report.first_error = None;
        self.begun += 1;
        let name = usize::from(head.words.len() > 1);
        head.word(name).clone_into(&mut self.environment.section);
        self.section = Some(Section {
            kind,
            number: self.begun,
            head,
            statements: Vec::new(),
        });
    }

    fn end_section(&mut self) {
        if let Some(section) = self.section.take() {
            self.report.section = section.number;
            (self.sink)(&section, self.environment, self.report);
            self.report.section = 0;
        }
    }
}

/// `setenv` and its like: they hold for the lines that follow.
fn variables(statement: &Statement, environment: &mut Environment<'_>) {
    let value = statement.word(2);
    match statement.word(0) {
        "setenv" => environment.set(statement.word(1), value),
        "localpeer" => environment.set(LOCAL_PEER, statement.word(1)),
        "presetenv" => environment.set_unless_set(statement.word(1), value),
        "unsetenv" => {
            let names = statement.words[1..].iter();
            names.for_each(|name| environment.unset(&name.text));
        }
        "resetenv" => {
            environment.reset(statement.words[1..].iter().map(|name| name.text.as_str()));
        }
        _ => {}
    }
}
