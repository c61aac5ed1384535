//! `rlb ctl`, `rlb reload` and `rlb upgrade`: one command to the runtime socket of a running rlb.
//!
//! Runs on the main thread and ends. Exit status 1 when the socket cannot be reached, when the
//! command is not known or not allowed, or when a reload or an upgrade was refused.

use crate::config;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How long the answer of an ordinary command may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The same of a reload, which may look up names, and of an upgrade, which starts a process.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Which socket.
#[derive(Debug, clap::Args)]
struct SocketArgs {
    /// The socket; by default that of the configuration file
    #[arg(long, short, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The configuration file whose [runtime-api] names the socket
    #[arg(long, short, value_name = "FILE", default_value = "/etc/rlb/rlb.toml")]
    config: PathBuf,
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

/// Arguments of `rlb reload` and `rlb upgrade`.
#[derive(Debug, clap::Args)]
pub(super) struct ChangeArgs {
    #[command(flatten)]
    socket: SocketArgs,
}

/// Sends a command and prints the answer.
pub(super) fn run(args: &Args) -> ExitCode {
    let answer = match ask(&args.socket, &args.command.join(" "), ANSWER_TIMEOUT) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    // A reader that has seen enough (head) is no failure.
    let _ = std::io::stdout().write_all(answer.as_bytes());
    let refused = answer.starts_with("Unknown command") || answer.starts_with("Permission denied");
    exit(!refused && !answer.starts_with("Success=0"))
}

/// Asks for a change of the running process (`reload`, `upgrade`) and prints what came of it.
pub(super) fn change(args: &ChangeArgs, command: &str) -> ExitCode {
    let answer = match ask(&args.socket, command, CHANGE_TIMEOUT) {
        Ok(answer) => answer,
        Err(error) => return failed(&error),
    };
    let (done, said) = match answer.split_once("\n--\n") {
        Some(("Success=1", said)) => (true, said),
        Some((_, said)) => (false, said),
        None => (false, &*answer),
    };
    let said = said.trim_end();
    // Whoever reads neither has the exit status.
    let _ = if done {
        writeln!(std::io::stdout(), "{said}")
    } else {
        writeln!(std::io::stderr(), "{said}")
    };
    exit(done)
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "rlb: {error:#}");
    ExitCode::FAILURE
}

fn ask(socket: &SocketArgs, command: &str, timeout: Duration) -> anyhow::Result<String> {
    use anyhow::Context;
    let path = match &socket.socket {
        Some(path) => path.clone(),
        None => configured(&socket.config)?,
    };
    let mut stream = connect(&path).with_context(|| format!("cannot reach {}", path.display()))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let command = command.replace(['\r', '\n'], " ");
    stream.write_all(format!("{command}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("no whole answer")?;
    Ok(answer)
}

fn connect(path: &Path) -> std::io::Result<UnixStream> {
    match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        None => UnixStream::connect(path),
    }
}

/// The socket that a configuration names. A file that is not valid (any more) may still name it.
fn configured(path: &Path) -> anyhow::Result<PathBuf> {
    let known = match config::load(path) {
        Ok((config, _)) => config.runtime_api.map(|api| api.socket),
        Err(_) => config::runtime_socket(path),
    };
    known.ok_or_else(|| {
        anyhow::anyhow!(
            "{} names no socket: write a [runtime-api] table, or use --socket",
            path.display()
        )
    })
}
