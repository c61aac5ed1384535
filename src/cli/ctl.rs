//! `rlb ctl`, `rlb reload` and `rlb upgrade`: send a command to the runtime socket of a running rlb.
//!
//! Runs on the main thread and ends. Exit status 1 when the socket cannot be reached, when no answer comes in
//! time, when a command is unknown, not allowed or has failed, or when a reload or an upgrade was refused.

use crate::config::model::BindAddress;
use crate::config::{self, address, units};
use anyhow::Context;
use socket2::{SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long each part of an ordinary command's answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a reload, which may look up names, and for an upgrade, which starts a process.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Sent before the commands, as HAProxy's own tools do: afterwards errors have a severity prefix.
const MARK_ERRORS: &str = "set severity-output number";
/// Answers of failed commands to which HAProxy gives no error prefix.
const UNMARKED_FAILURES: [&str; 3] = ["Unknown command", "Session not found.", "Success=0"];
/// The least severe level that is a failure: `LOG_ERR` of syslog(3).
const SEVERITY_ERROR: u8 = 3;

/// Which socket, and how long its answer may take.
#[derive(Debug, clap::Args)]
pub(super) struct SocketArgs {
    /// The socket, a path or ADDRESS:PORT; by default that of the configuration file
    #[arg(long, short, value_name = "SOCKET", value_parser = socket)]
    pub(super) socket: Option<BindAddress>,
    /// The configuration file whose [runtime-api] names the socket
    #[arg(long, short, value_name = "FILE", default_value = "/etc/rlb/rlb.toml")]
    pub(super) config: PathBuf,
    /// Longest wait for the socket and for each piece of the answer, as 10s; by default 10s, and 60s
    /// for reload and upgrade
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(super) timeout: Option<Duration>,
}

/// A socket that a command line names: as in the file, or a path from the directory of now.
pub(super) fn socket(text: &str) -> Result<BindAddress, String> {
    let as_in_file = text.starts_with(['/', '@']) || text.contains(':') || text.is_empty();
    let address = if as_in_file {
        address::runtime(text)
    } else {
        let path = std::path::absolute(text).map_err(|error| error.to_string())?;
        address::runtime(&path.to_string_lossy())
    };
    address.map_err(|problem| problem.message)
}

/// The socket for people.
fn shown(socket: &BindAddress) -> String {
    match socket {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => path.display().to_string(),
        BindAddress::Descriptor(number) => format!("fd@{number}"),
    }
}

/// Parses a timeout of the command line.
fn timeout(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Ok(time) if time.is_zero() => Err("it must be longer than 0".to_owned()),
        result => result,
    }
}

/// Arguments of `rlb ctl`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The command, or several with semicolons between them; `help` lists them
    #[arg(value_name = "COMMAND", required = true)]
    command: Vec<String>,
    #[command(flatten)]
    socket: SocketArgs,
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

/// Sends a command and prints the answer.
pub(super) fn run(args: &Args) -> ExitCode {
    let command = format!("{MARK_ERRORS};{}", args.command.join(" "));
    let answer = match ask(&args.socket, &command, ANSWER_TIMEOUT) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let (text, succeeded) = unmarked(&answer);
    // A reader that stops early (head) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    exit(succeeded)
}

/// The answers to the commands after [`MARK_ERRORS`] without their prefixes, and whether all commands have
/// succeeded.
fn unmarked(answer: &str) -> (String, bool) {
    // The empty line is the answer to [`MARK_ERRORS`] itself. Without it the socket has refused the client or
    // the whole line, or has not answered.
    let marked = answer.strip_prefix('\n');
    let mut succeeded = marked.is_some();
    let answer = marked.unwrap_or(answer);
    let mut text = String::with_capacity(answer.len());
    let mut begins = true;
    for line in answer.split_inclusive('\n') {
        let (severity, line) = match severity(line) {
            Some((severity, rest)) if begins => (Some(severity), rest),
            _ => (None, line),
        };
        let failure = severity.is_some_and(|it| it <= SEVERITY_ERROR)
            || begins && UNMARKED_FAILURES.iter().any(|it| line.starts_with(it));
        succeeded &= !failure;
        text.push_str(line);
        begins = line == "\n";
    }
    (text, succeeded)
}

/// The number of `[3]: …`, and the rest.
fn severity(line: &str) -> Option<(u8, &str)> {
    let (number, rest) = line.strip_prefix('[')?.split_once("]: ")?;
    Some((number.parse().ok().filter(|it| *it <= 7)?, rest))
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
    let answer = ask(socket, command, CHANGE_TIMEOUT)?;
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

fn ask(args: &SocketArgs, command: &str, default: Duration) -> anyhow::Result<String> {
    let address = match &args.socket {
        Some(address) => address.clone(),
        None => configured(&args.config)?,
    };
    let timeout = args.timeout.unwrap_or(default);
    let late = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            anyhow::anyhow!("{} does not answer within {timeout:?}", shown(&address))
        }
        _ => anyhow::Error::new(error).context("no whole answer"),
    };
    let mut stream = match connect(&address, timeout) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => {
            return Err(error).with_context(|| format!("cannot reach {}", shown(&address)));
        }
        result => result.map_err(late)?,
    };
    let command = command.replace(['\r', '\n'], " ");
    let mut answer = String::new();
    stream
        .write_all(format!("{command}\n").as_bytes())
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut answer))
        .map_err(late)?;
    Ok(answer)
}

/// Connects within `timeout`, which also applies to each read and write. When the queue of the socket is full,
/// the kernel waits as long as the send timeout.
fn connect(address: &BindAddress, timeout: Duration) -> std::io::Result<Socket> {
    let address = match address {
        BindAddress::Tcp(address) => SockAddr::from(*address),
        BindAddress::Unix(path) => crate::sys::socket::unix_address(path)?,
        BindAddress::Descriptor(_) => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&address)?;
    Ok(socket)
}

/// The socket that a configuration names. Also reads it from a file that is not valid (any more).
fn configured(path: &Path) -> anyhow::Result<BindAddress> {
    let shown = path.display();
    if let Err(error) = std::fs::metadata(path) {
        return Err(error).with_context(|| {
            format!(
                "cannot read {shown}, which is to name the socket \
                 (name another file with --config, or the socket with --socket)"
            )
        });
    }
    if let Ok((config, _)) = config::load(path) {
        let sockets = config.runtime_api.map_or_else(Vec::new, |api| api.sockets);
        // The first of those that may do the most.
        let best = sockets.into_iter().rev().max_by_key(|one| one.level);
        return best.map(|one| one.address).with_context(|| {
            format!("{shown} names no socket: write a [runtime-api] table, or use --socket")
        });
    }
    let mut named = config::runtime_sockets(path).into_iter();
    named.next().with_context(|| {
        format!(
            "{shown} is not valid, and no socket can be read from it: \
             see `rlb check {shown}`, or use --socket"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 18.
    #[test]
    fn fault_18_a_failed_command_is_told_from_a_successful_one() {
        for (answer, text, succeeded) in [
            ("\n\n", "\n", true),
            ("", "", false),
            ("Permission denied\n", "Permission denied\n", false),
            ("\n[6]: 3.0.0\n\n", "3.0.0\n\n", true),
            ("\n[3]: No such server.\n\n", "No such server.\n\n", false),
            ("\n# pxname,\n[3]: x,\n\n", "# pxname,\n[3]: x,\n\n", true),
            ("\n\n[3]: a\n\n\n", "\na\n\n\n", false),
            (
                "\n[6]: Unknown command: 'x'\n\n",
                "Unknown command: 'x'\n\n",
                false,
            ),
            ("\nSession not found.\n\n", "Session not found.\n\n", false),
            ("\nSuccess=0\n--\nno\n\n", "Success=0\n--\nno\n\n", false),
            ("\nSuccess=1\n--\nyes\n\n", "Success=1\n--\nyes\n\n", true),
        ] {
            assert_eq!(unmarked(answer), (text.to_owned(), succeeded), "{answer:?}");
        }
    }
}
