//! Going into the background (`haproxy -D`): the process that was started starts the one that serves,
//! waits until it serves or has ended, and ends with its exit code.
//!
//! Invariant: whoever starts the first process learns of a start that fails, as from a process in the
//! foreground. Main thread; blocking.

use super::channel::Channel;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, Stdio};

/// Tells a process that it was started to serve in the background.
const VARIABLE: &str = "RLB_BACKGROUND";
/// What it sends when it serves.
const READY: &str = "ready";

/// The process that waits until this one serves.
#[derive(Debug)]
pub struct Launcher(Channel);

impl Launcher {
    /// The process that has started this one for the background; `None`: this one was started
    /// otherwise. Leaves its session, so that a terminal that closes does not end this process.
    ///
    /// # Errors
    /// When standard input is not the channel to it.
    pub fn of_this_process() -> io::Result<Option<Self>> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let channel = Channel::from_stdin()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        rustix::process::setsid()?;
        Ok(Some(Self(channel)))
    }

    /// Tells it that this process serves, and lets go of standard output and standard error.
    ///
    /// # Errors
    /// When /dev/null cannot be opened.
    pub fn ready(self) -> io::Result<()> {
        let nothing = OpenOptions::new().write(true).open("/dev/null");
        let left = nothing.and_then(|nothing| {
            rustix::stdio::dup2_stdout(&nothing)?;
            rustix::stdio::dup2_stderr(&nothing)?;
            Ok(())
        });
        // Nobody may wait any more.
        let _ = self.0.send(READY, &[]);
        left
    }
}

/// Starts this program again in the background, with these words, the first of which is its name.
/// Returns success when it serves, and its exit code when it has ended before.
///
/// # Errors
/// When it cannot be started.
pub fn launch(words: &[OsString]) -> io::Result<ExitCode> {
    let (ours, theirs) = Channel::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    if let Some((name, arguments)) = words.split_first() {
        command.arg0(name).args(arguments);
    }
    let mut child = command
        .env(VARIABLE, "1")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    // The command holds the other end of the channel.
    drop(command);
    let said = ours.receive()?;
    if said.is_some_and(|message| message.text == READY) {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    let signalled = status.signal().map_or(255, |signal| 128 + signal);
    let code = status.code().unwrap_or(signalled);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}
