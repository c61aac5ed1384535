//! `rlb ctl` on a terminal: commands with history and completion, until `quit` or the end of input.
//!
//! Every command is a connection of its own, so that an upgrade of rlb between two of them does not matter.

use super::Sender;
use super::answer::unmarked;
use super::fields;
use anyhow::Context as _;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

const PROMPT: &str = "rlb> ";
/// Most commands that are remembered.
const HISTORY_MAX: usize = 1000;

/// Reads and sends commands. A command that fails ends nothing. Returns whether all of them have succeeded.
///
/// # Errors
/// When the terminal cannot be used, or the socket cannot be reached at the beginning.
pub(super) fn run(sender: &Sender) -> anyhow::Result<bool> {
    let commands = Commands::of(sender)?;
    let config = rustyline::Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .build();
    let mut editor: Editor<Commands, FileHistory> =
        Editor::with_config(config).context("cannot use the terminal")?;
    editor.set_helper(Some(commands));
    let history = history();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = editor.load_history(path);
    }
    let mut succeeded = true;
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            // Ctrl-C leaves the line, Ctrl-D the program.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        match line.trim() {
            "" => {}
            "quit" | "exit" => break,
            // Several, when they are pasted.
            lines => {
                for line in lines.lines() {
                    succeeded &= sender.send(line).unwrap_or_else(|error| {
                        super::failed(&error);
                        false
                    });
                }
            }
        }
        if let Some(path) = &history {
            // Without a history everything else goes on.
            let _ = editor.append_history(path);
        }
    }
    Ok(succeeded)
}

/// The file of the history, as the XDG base directories say: `~/.local/state/rlb/ctl-history`.
fn history() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let state = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let state = state.or_else(|| variable("HOME").map(|home| home.join(".local/state")))?;
    let directory = state.join("rlb");
    let made = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.ok().map(|()| directory.join("ctl-history"))
}

/// The commands and the names that the running process has, for completion.
struct Commands {
    /// Their fixed words.
    words: Vec<Vec<String>>,
    /// Backends and servers.
    names: Vec<String>,
    frontends: Vec<String>,
}

impl Commands {
    /// Asks the process. What it refuses cannot be completed.
    ///
    /// # Errors
    /// When it does not answer at all.
    fn of(sender: &Sender) -> anyhow::Result<Self> {
        let help = sender.target.ask("help")?;
        let ask = |command: &str| sender.target.ask(command).unwrap_or_default();
        let conn = ask("show servers conn");
        let (conn, _) = unmarked(&format!("\n{conn}"));
        let stat = ask("show stat -1 1 -1");
        let (stat, _) = unmarked(&format!("\n{stat}"));
        Ok(Self {
            words: fixed_words(&help),
            names: names(&conn),
            frontends: first_fields("show stat", &stat),
        })
    }

    /// What can follow the words of `line` before the last one, which has begun.
    fn following(&self, line: &str) -> (usize, Vec<String>) {
        let start = line.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (before, begun) = line.split_at(start);
        let before = fields::words(before);
        let next = |words: &Vec<String>| {
            let same = before.iter().zip(words).all(|(one, other)| one == other);
            let next = words.get(before.len()).filter(|_| same)?;
            next.starts_with(begun).then(|| next.clone())
        };
        let words: BTreeSet<String> = self.words.iter().filter_map(next).collect();
        if !words.is_empty() || before.is_empty() {
            return (start, words.into_iter().collect());
        }
        let (names, with_servers) = match before.last().map(AsRef::as_ref) {
            Some("frontend") => (&self.frontends, true),
            Some("backend") => (&self.names, false),
            _ => (&self.names, true),
        };
        let names = names.iter().filter(|name| name.starts_with(begun));
        let names = names.filter(|name| with_servers || !name.contains('/'));
        (start, names.cloned().collect())
    }
}

/// The words at the beginning of each line of `help` that are no placeholders.
fn fixed_words(help: &str) -> Vec<Vec<String>> {
    let lines = help.lines().filter(|line| line.starts_with(' '));
    let lines = lines.filter_map(|line| line.split_once(':'));
    let fixed = |(command, _): (&str, &str)| -> Vec<String> {
        let words = command.split_whitespace();
        let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        words.take_while(plain).map(str::to_owned).collect()
    };
    lines.map(fixed).filter(|words| !words.is_empty()).collect()
}

/// `BACKEND/SERVER` of each row of `show servers conn`, and the backends.
fn names(conn: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    for name in first_fields("show servers conn", conn) {
        let backend = name.split('/').next().unwrap_or_default();
        names.insert(backend.to_owned());
        names.insert(name);
    }
    names.into_iter().collect()
}

/// The first field of each row of an answer to `command`.
fn first_fields(command: &str, answer: &str) -> Vec<String> {
    let fields::Fields::Table { rows, .. } = fields::fields(command, answer) else {
        return Vec::new();
    };
    let first = rows.into_iter().filter_map(|row| row.into_iter().next());
    first.collect()
}

impl Helper for Commands {}
impl Highlighter for Commands {}
impl Validator for Commands {}

impl Hinter for Commands {
    type Hint = String;
}

impl Completer for Commands {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let line = &line[..at];
        // Only the command behind the last semicolon.
        let begin = line.rfind(';').map_or(0, |at| at + 1);
        let (start, found) = self.following(&line[begin..]);
        Ok((begin + start, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names_are_completed() {
        let help = "The following commands are valid at this level:\n\
                    \x20 help [<command>]   : list\n\
                    \x20 show info [desc]   : report\n\
                    \x20 show sess [<id>]   : report\n\
                    \x20 set server <bk>/<srv> : change\n\
                    \x20 enable frontend <frontend> : enable\n\
                    \x20 publish backend <backend> : publish\n";
        let conn = "# bkname/svname bkid/svid\nbe/s1 3/1\nbe/s2 3/2\n\n";
        let commands = Commands {
            words: fixed_words(help),
            names: names(conn),
            frontends: first_fields("show stat", "# pxname,svname,\nfe,FRONTEND,\n\n"),
        };
        let following = |line: &str| commands.following(line);
        let of = |start, words: &[&str]| (start, words.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(following("s"), of(0, &["set", "show"]));
        assert_eq!(following("show "), of(5, &["info", "sess"]));
        assert_eq!(following("@!7 show i"), of(9, &["info"]));
        assert_eq!(following("set server b"), of(11, &["be", "be/s1", "be/s2"]));
        assert_eq!(following("set server be/s2"), of(11, &["be/s2"]));
        assert_eq!(following("enable frontend "), of(16, &["fe"]));
        assert_eq!(following("publish backend "), of(16, &["be"]));
        assert_eq!(following("nosuch"), of(0, &[]));
    }
}
