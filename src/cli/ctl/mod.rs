//! `rlb ctl`, `rlb reload` and `rlb upgrade`: send commands to the runtime socket of a running rlb.
//!
//! Runs on the main thread and ends. Exit status 1 when the socket cannot be reached, when no answer comes in
//! time, when a command is unknown, not allowed or has failed, or when a reload or an upgrade was refused.

mod answer;
mod fields;
mod interactive;
mod print;
mod socket;

use answer::{MARK_ERRORS, unmarked};
use print::Format;
use socket::Target;
pub(super) use socket::{SocketArgs, socket};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How long each part of an ordinary command's answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a reload, which may look up names, and for an upgrade, which starts a process.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Arguments of `rlb ctl`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The command, or several with semicolons between them; `help` lists them. Without one, commands are
    /// read from standard input, a line each; on a terminal with history and completion
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    socket: SocketArgs,
}

/// How answers are printed; without an option as tables on a terminal, and otherwise as they come.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct FormatArgs {
    /// Print answers as they come
    #[arg(long)]
    raw: bool,
    /// Print answers in aligned columns, of `show stat` the most important ones
    #[arg(long)]
    table: bool,
    /// Print a JSON object for each command, on a line of its own
    #[arg(long)]
    json: bool,
}

impl FormatArgs {
    fn format(&self) -> Format {
        match (self.raw, self.table, self.json) {
            (_, _, true) => Format::Json,
            (_, true, _) => Format::Table,
            (true, _, _) => Format::Raw,
            _ if std::io::stdout().is_terminal() => Format::Table,
            _ => Format::Raw,
        }
    }
}

/// Arguments of `rlb reload`.
#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// Print what a reload would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Drop what was set at run time, too: everything is as the file says then
    #[arg(long, conflicts_with = "dry_run")]
    reset_overrides: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

/// Arguments of `rlb upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// Sends commands and prints the answers.
pub(super) fn run(args: &Args) -> ExitCode {
    let target = match Target::of(&args.socket, ANSWER_TIMEOUT) {
        Ok(target) => target,
        Err(error) => return failed(&error),
    };
    let sender = Sender {
        target,
        format: args.format.format(),
    };
    let done = if !args.command.is_empty() {
        sender.send(&args.command.join(" "))
    } else if std::io::stdin().is_terminal() {
        interactive::run(&sender)
    } else {
        sender.send_lines(std::io::stdin().lock())
    };
    exit_of(done)
}

/// Sends commands, and prints their answers in one format.
struct Sender {
    target: Target,
    format: Format,
}

impl Sender {
    /// Sends a line of commands. Returns whether all of them have succeeded.
    fn send(&self, line: &str) -> anyhow::Result<bool> {
        let mut succeeded = true;
        // The socket itself separates the commands of a line; tables and objects are made of one answer each.
        let commands = match self.format {
            Format::Raw => vec![line.to_owned()],
            Format::Table | Format::Json => fields::commands(line),
        };
        for command in commands {
            if fields::follows(&command) {
                succeeded &= self.follow(&command)?;
                continue;
            }
            let asked = print::asked(&command, self.format);
            let answer = self.target.ask(&format!("{MARK_ERRORS};{asked}"))?;
            let (text, good) = unmarked(&answer);
            succeeded &= good;
            let out = print::shown(&command, &text, good, self.format);
            // A reader that stops early (head) is no failure.
            let _ = std::io::stdout().write_all(out.as_bytes());
        }
        Ok(succeeded)
    }

    /// Prints the answer to `command` as it comes. Returns whether the command has succeeded.
    fn follow(&self, command: &str) -> anyhow::Result<bool> {
        let ends_with_nul = fields::words(command).contains(&"-0");
        let (mut begin, mut succeeded) = (Some(String::new()), None);
        let end = if ends_with_nul { b'\0' } else { b'\n' };
        let taken = |piece: &[u8]| {
            let mut piece = String::from_utf8_lossy(piece).into_owned();
            if let Some(first) = &mut begin {
                first.push_str(&piece);
                // The answer to [`MARK_ERRORS`].
                if first == "\n" {
                    return true;
                }
                let (text, good) = unmarked(first);
                (begin, piece, succeeded) = (None, text, Some(good));
            }
            let good = succeeded.unwrap_or_default();
            let out = match self.format {
                Format::Json if piece.trim_end_matches(['\n', '\0']).is_empty() => String::new(),
                Format::Json => print::shown(command, &piece, good, self.format),
                Format::Raw | Format::Table => piece,
            };
            let mut stdout = std::io::stdout();
            // A reader that stops early (head) is no failure.
            let written = stdout.write_all(out.as_bytes());
            written.and_then(|()| stdout.flush()).is_ok()
        };
        let line = format!("{MARK_ERRORS};{command}");
        self.target.follow(&line, end, taken)?;
        // Without any event, the answer to [`MARK_ERRORS`] says that the command was taken.
        Ok(succeeded.unwrap_or_else(|| begin.is_some_and(|begin| begin == "\n")))
    }

    /// Sends the lines of a pipe or a file, also those behind one that fails. Empty lines and comments are
    /// left out.
    fn send_lines(&self, lines: impl BufRead) -> anyhow::Result<bool> {
        let mut succeeded = true;
        for line in lines.lines() {
            let line = line?;
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                succeeded &= self.send(line)?;
            }
        }
        Ok(succeeded)
    }
}

/// Makes the running process reload its configuration, or report what a reload would change.
pub(super) fn reload(args: &ReloadArgs) -> ExitCode {
    let command = match (args.dry_run, args.reset_overrides) {
        (true, _) => "reload dry-run",
        (false, true) => "reload reset-overrides",
        (false, false) => "reload",
    };
    exit_of(change(&args.socket, command))
}

/// Makes the running process hand over to a new one.
pub(super) fn upgrade(args: &ChangeArgs) -> ExitCode {
    exit_of(change(&args.socket, "upgrade"))
}

/// Requests a change or a dry run and prints the result. Returns whether it succeeded.
pub(super) fn change(socket: &SocketArgs, command: &str) -> anyhow::Result<bool> {
    let answer = Target::of(socket, CHANGE_TIMEOUT)?.ask(command)?;
    let (done, said) = match answer.split_once("\n--\n") {
        Some(("Success=1", said)) => (true, said),
        Some((_, said)) => (false, said),
        None => (false, &*answer),
    };
    let said = said.trim_end();
    // Errors of writing are ignored; the exit status tells the result.
    let _ = if done {
        writeln!(std::io::stdout(), "{said}")
    } else {
        writeln!(std::io::stderr(), "{said}")
    };
    Ok(done)
}

fn exit_of(done: anyhow::Result<bool>) -> ExitCode {
    match done {
        Ok(done) => exit(done),
        Err(error) => failed(&error),
    }
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

pub(super) fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "rlb: {error:#}");
    ExitCode::FAILURE
}
