//! How the process was started, and what others are told when it serves: the pid file, the processes
//! that it takes over from, and the one that waits for a start in the background.
//!
//! Main thread, then control thread. `rlb run` has none of it; a start under the name `haproxy` does.

use super::{Error, system};
use crate::log::events::{EventLog, RecentEvents, start_line};
use crate::sys::identity::{Identity, Step};
use crate::sys::launcher::Launcher;
use crate::sys::replaced::ReplacedProcesses;
use crate::worker::order::Workers;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What signals mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SignalMeaning {
    /// As docs/reload-and-upgrade.md says: TERM waits for sessions, HUP reloads, USR2 upgrades.
    #[default]
    Rlb,
    /// As HAProxy's: TERM ends at once. `reloads`: HUP and USR2 reload, as of HAProxy's master process;
    /// otherwise HUP logs the state of the servers.
    Haproxy {
        /// Whether a signal reloads.
        reloads: bool,
    },
}

/// How the process was started.
#[derive(Debug, Default)]
pub struct Start {
    /// What signals mean.
    pub signals: SignalMeaning,
    /// The processes to take over from.
    pub old: Option<Rc<ReplacedProcesses>>,
    /// Where the process id is written once everything that can fail has succeeded.
    pub pid_file: Option<PathBuf>,
    /// The process that waits until this one serves, and the events, which go to its standard error
    /// until then.
    pub launcher: Option<(Launcher, EventLog)>,
    /// The events in memory, with what was told at the start.
    pub recent: RecentEvents,
    /// Whom the process becomes when it serves.
    pub identity: Option<Identity>,
}

impl Start {
    /// A start of `rlb run`, with the events that are emitted from now on.
    pub fn telling(program: &Path, recent: RecentEvents) -> Self {
        let path = format!("path to executable is {}", program.display());
        let version = format!("rlb version is {}", env!("CARGO_PKG_VERSION"));
        recent.begin_start(&(start_line("NOTICE", &version) + &start_line("NOTICE", &path)));
        Self {
            recent,
            ..Self::default()
        }
    }

    /// Writes the pid file. `alone`: no other process serves any more, so that a failure is only logged.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write_pid_file(&self, alone: bool) -> Result<(), Error> {
        let written = self.pid_file.as_deref().map_or(Ok(()), write_pid);
        match written.map_err(system("cannot write the pid file")) {
            Err(error) if alone => {
                tracing::error!("{error}");
                Ok(())
            }
            written => written,
        }
    }

    /// Tells the old processes and the one that waits that this process serves. Then it gives up root, if it is to: old
    /// processes may be root's, and reloads come afterwards. It warns of those `files` that reloads cannot read then.
    ///
    /// # Errors
    /// When it cannot give up root; none is expected after [`Identity::may_take`].
    pub(super) async fn tell(self, files: &[PathBuf], workers: &Workers) -> Result<(), Error> {
        // The table of sockets was the other owner.
        if let Some(old) = self.old.and_then(Rc::into_inner) {
            old.finish();
        }
        if let Some((launcher, events)) = self.launcher {
            events.leave_stderr();
            if let Err(error) = launcher.ready() {
                tracing::warn!(%error, "standard output and error stay open");
            }
        }
        if let Some(identity) = self.identity {
            let taken = take(identity, workers).await;
            taken.map_err(system("cannot give up root"))?;
            for path in files.iter().filter(|path| is_denied(path)) {
                tracing::warn!(path = %path.display(), "reloads cannot read a file");
            }
        }
        self.recent.end_start();
        Ok(())
    }
}

/// Takes an identity. Workers keep what it says that they keep.
async fn take(identity: Identity, workers: &Workers) -> io::Result<()> {
    let Some(kept) = identity.kept_by_workers() else {
        return identity.take();
    };
    workers.take(Step::Before).await?;
    let taken = identity.take();
    // Also after a failure: no worker goes on with more than these.
    workers.take(Step::After(kept)).await?;
    taken
}

/// Whether this process may not read a file.
fn is_denied(path: &Path) -> bool {
    let read = fs::metadata(path).and_then(|found| {
        // What is no file, a pipe for example, is not opened.
        let opened = found.is_file().then(|| fs::File::open(path).map(drop));
        opened.unwrap_or(Ok(()))
    });
    read.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Replaces the file, so that a link at its path is not followed.
fn write_pid(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_at_the_path_of_the_pid_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (target, path) = (folder.path().join("target"), folder.path().join("pid"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let start = Start {
            pid_file: Some(path.clone()),
            ..Start::default()
        };
        start.write_pid_file(false).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert_eq!(written, format!("{}\n", std::process::id()));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
