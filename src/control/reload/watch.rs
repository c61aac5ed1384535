//! Watching the configuration's files, opt-in by `watch`. Control thread, part of the reload task.
//!
//! The directories are watched and not the files: editors and `ConfigMap`s replace a file by
//! renaming another over it, and a watch on the old file would see nothing more. Invariant: a change
//! is reported once, when nothing more has happened for [`QUIET`], and at the latest after
//! [`QUIET_MAX`].

use crate::sys::raw::{self, Owned};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Nothing more must have happened for so long.
const QUIET: Duration = Duration::from_millis(250);

/// A file that is written all the time is read all the same after so long.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Before a file that takes listeners or servers away is put in force, nothing must have happened for so long:
/// a program that writes a file in several steps pauses between them.
pub(super) const LOSS_QUIET: Duration = Duration::from_secs(5);

/// How long such a file is not put in force while it is written all the time.
const LOSS_MAX: Duration = Duration::from_secs(30);

/// Bytes of events that are read at once.
const EVENTS_MAX: usize = 4096;

/// The watch, on or off.
#[derive(Debug)]
pub(super) struct Watch {
    directories: BTreeSet<PathBuf>,
    /// Some of them do not exist.
    missing: bool,
    events: Option<AsyncFd<Owned<OwnedFd>>>,
    /// Something has happened: first then, last then.
    pending: Option<(Instant, Instant)>,
    /// The last time that something has happened.
    last: Option<Instant>,
    /// Since when a change waits.
    deferred: Option<Instant>,
    /// When it is reported again.
    again: Option<Instant>,
}

impl Watch {
    /// Reports nothing.
    pub(super) fn off() -> Self {
        Self {
            directories: BTreeSet::new(),
            missing: false,
            events: None,
            pending: None,
            last: None,
            deferred: None,
            again: None,
        }
    }

    /// Whether a change that takes something away is to wait. It is reported again then, when
    /// nothing has happened for [`LOSS_QUIET`], and after [`LOSS_MAX`] at the latest.
    pub(super) fn wait_for_loss(&mut self) -> bool {
        let now = Instant::now();
        let since = self.deferred.unwrap_or(now);
        let again = self
            .last
            .map(|last| (last + LOSS_QUIET).min(since + LOSS_MAX));
        self.again = again.filter(|again| now < *again);
        self.deferred = self.again.map(|_| since);
        self.again.is_some()
    }

    /// Nothing is taken away any more.
    pub(super) fn stop_waiting(&mut self) {
        (self.deferred, self.again) = (None, None);
    }

    /// Watches the directories of `files`, and of what they lead to where they are links. What
    /// cannot be watched is logged.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let directories = directories(files);
        if directories == self.directories && !self.missing {
            return;
        }
        (self.events, self.missing) = match start(&directories) {
            Ok((events, missing)) => (Some(events), missing),
            Err(error) => {
                tracing::error!(%error, "cannot watch the configuration");
                (None, false)
            }
        };
        if directories != self.directories {
            // The files were read before they were watched: what has happened between is seen by one more look.
            let now = Instant::now();
            self.pending = Some((now, now));
        }
        self.directories = directories;
    }

    /// Completes when something has changed; never while it is off. What has been seen is not lost
    /// when the future is dropped.
    pub(super) async fn changed(&mut self) {
        let Some(events) = &self.events else {
            return std::future::pending().await;
        };
        let again = async {
            match self.again {
                Some(again) => sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        let settled = tokio::select! {
            settled = settle(events, &mut self.pending) => settled,
            () = again => {
                self.again = None;
                return;
            }
        };
        match settled {
            Ok(()) => {
                self.last = self.pending.take().map(|(_, last)| last);
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is no longer watched");
                self.events = None;
            }
        }
    }
}

/// A watch of those that exist, and whether any does not.
fn start(directories: &BTreeSet<PathBuf>) -> io::Result<(AsyncFd<Owned<OwnedFd>>, bool)> {
    let mut missing = false;
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    for directory in directories {
        let what = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&events, directory, what) {
            Ok(_) => {}
            // A pattern may stand for directories, and a secret may not be there yet.
            Err(Errno::NOENT | Errno::NOTDIR) => missing = true,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((raw::watch(Owned::new(events), Interest::READABLE)?, missing))
}

/// Where the files are, and where they really are.
fn directories(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let real = files.iter().filter_map(|file| file.canonicalize().ok());
    let all = real.chain(files.iter().cloned());
    all.map(|file| parent(&file)).collect()
}

/// Waits for an event, and then until there are no more.
async fn settle(
    events: &AsyncFd<Owned<OwnedFd>>,
    pending: &mut Option<(Instant, Instant)>,
) -> io::Result<()> {
    loop {
        let Some((first, last)) = *pending else {
            drain(events).await?;
            let now = Instant::now();
            *pending = Some((now, now));
            continue;
        };
        let quiet = (last + QUIET).min(first + QUIET_MAX);
        match timeout_at(quiet, drain(events)).await {
            Ok(result) => result?,
            Err(_) => return Ok(()),
        }
        *pending = Some((first, Instant::now()));
        if Instant::now() >= first + QUIET_MAX {
            return Ok(());
        }
    }
}

/// Waits until there are events, and takes them all.
async fn drain(events: &AsyncFd<Owned<OwnedFd>>) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); EVENTS_MAX];
    let mut seen = false;
    while !seen {
        let mut ready = events.readable().await?;
        let mut reader = inotify::Reader::new(ready.get_inner().as_fd(), &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => seen = true,
                Err(error) if error == Errno::AGAIN => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has changed between the reading of the files and the begin of the watch is not missed.
    #[tokio::test]
    async fn a_watch_begins_with_one_look() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rlb.toml");
        let mut watch = Watch::off();
        watch.follow(std::slice::from_ref(&file));
        tokio::time::timeout(QUIET_MAX, watch.changed())
            .await
            .expect("a look");
        assert!(watch.pending.is_none(), "one is enough");
        watch.follow(&[file]);
        assert!(watch.pending.is_none(), "nothing else is watched now");
    }
}
