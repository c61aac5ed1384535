//! Handing the service over to a new process, the upgrade of a running program. The running process starts the
//! program again, gives the new process its listening sockets and what it knows of the servers, waits until the new
//! process is ready to serve, and then only finishes its own sessions.
//!
//! They exchange messages over a channel ([`crate::sys::channel`]), which is the new process's standard input:
//!
//! | sender | text | with it |
//! |---|---|---|
//! | new | `pid N` | its pidfd |
//! | old | `from N`, and in the next lines `sockets N` and `reads unused` | |
//! | old | names, a line each; until there were as many as announced | as many listening sockets |
//! | old | `servers` | two files: what operators have set ([`crate::state::overrides`]), and the text of `show servers state` with what else the next process is told of servers ([`crate::stats::servers_state`]) |
//! | new | if the old one reads it: `unused` and positions of sockets that it does not listen on, in any number of messages | |
//! | new | `ready`, or `failed` and why | |
//! | old | `go` | three files: the same two as they are then, and what was counted ([`counters`]) |
//!
//! After `go` the channel stays open until the old process has ended, so that the new one knows of its sessions. A
//! message is a word and `NAME=VALUE` lines ([`link`]); what a side does not know it ignores. The old process sends
//! nothing before `version`, except for its last message: a version of rlb that ends the conversation with `go`
//! does not read.
//!
//! | sender | text | with it |
//! |---|---|---|
//! | new | `version`: it reads what follows, and its process id | |
//! | old | `process`: process id, version, since when | |
//! | old | `older`: a process that is older still, and the upgrades since it served | the channel to it |
//! | old | `moving`: it gives its sessions to the new process ([`leaving`]) | a channel for them |
//! | old | `sessions`: how many it has now | |
//! | old | `counters`, and in the next lines what was counted since the last one ([`counters`]), in any number of messages; the last of all follows the last session | |
//! | new | `runtime`: a client of a runtime socket, what is known of it, its level and the socket | a connection to it |
//!
//! Invariants: until `go` the old process serves as if nothing had happened, and any failure leaves
//! it so; what operators and checks have decided before `go` goes with it, and no change of an operator is accepted
//! after it ([`super::changes`]); a new process that gets no `go` ends, and accepts nothing before it. A listening socket is the
//! same one in both, so that nothing that waits in it is lost. Each side ignores a file or a line that it
//! does not know.

mod arriving;
pub(super) mod counters;
mod leaving;
mod link;
mod old_processes;
mod predecessor;
mod reporter;
mod successor;

pub use arriving::ArrivingSessions;
pub use old_processes::{Asker, OldProcesses, PassedConnection};
pub use predecessor::{Go, Predecessor, start_next};
pub use reporter::{PASSED_MAX, Reporter, ReporterParts};
pub(super) use successor::{HandoverPayload, NewProcess, StateTexts, Successor};

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// Tells a process that it is to take over, and how far it is: see [`BEGIN`] and [`SERVE`].
const VARIABLE: &str = "RLB_HANDOVER";
/// To a process that only starts the one that will serve, and ends: so that this one's parent is the service
/// manager, which then notices its end. The number is the version of the messages up to `go`.
const BEGIN: &str = "begin/1";
/// To the process that will serve.
const SERVE: &str = "serve/1";

/// The line with which an old process asks for the sockets that are not used.
const READS_UNUSED: &str = "reads unused";

/// The name of the runtime socket in the messages.
pub(super) const RUNTIME: &str = "runtime-api";

/// How this process was started, so that the next one can be started alike.
#[derive(Debug, Clone)]
pub struct Program {
    /// Where the program is.
    pub path: PathBuf,
    /// The name that it was started by, which decides whose command line it understands.
    name: OsString,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// Device and inode of the file that runs.
    running: Option<(u64, u64)>,
}

impl Program {
    /// Asked at the start: later the file that runs may have been replaced, and its link in `/proc`
    /// leads nowhere. A path that was given (as systemd does) is kept as it is, because it may lead
    /// through a link that an upgrade moves.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn of_this_process() -> io::Result<Self> {
        let mut words = std::env::args_os();
        let name = words.next().unwrap_or_default();
        Ok(Self {
            path: path_of(&name)?,
            name,
            arguments: words.collect(),
            running: file(Path::new("/proc/self/exe")).ok(),
        })
    }

    /// What has become of the program's file since this process was started; `None`: nothing.
    pub(super) fn change(&self) -> Option<String> {
        let (running, path) = (self.running?, self.path.display());
        match file(&self.path) {
            Ok(found) if found == running => None,
            Ok(_) => Some(format!(
                "program {path} is another than the one that runs: `rlb upgrade` starts it"
            )),
            Err(error) => Some(format!("program {path}, which an upgrade starts: {error}")),
        }
    }
}

/// The file of the program that was started by `name`: the name itself if it is a path.
fn path_of(name: &OsStr) -> io::Result<PathBuf> {
    if Path::new(name).components().nth(1).is_some() {
        std::path::absolute(name)
    } else {
        std::env::current_exe()
    }
}

/// Device and inode of the file that a path leads to.
fn file(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}
