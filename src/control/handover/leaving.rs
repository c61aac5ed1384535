//! The old process's side of moving sessions: takes them out of its workers and gives them to the new process, some
//! at a time.
//!
//! Control thread, one task and one channel per worker. The messages of such a channel:
//!
//! | sender | text | with it |
//! |---|---|---|
//! | old | `move` and how many | a file of lines and bytes ([`crate::worker::moving`]), then two sockets a session |
//! | new | `taken`, and the positions of those that it refuses | |
//! | old | `back`: it goes on with the sessions itself, because `taken` did not come in time | |
//!
//! Invariant: of two processes one relays a session. The sessions are the new process's from the moment in which
//! `taken` has reached the queue of this one, and this process's before. So:
//!
//! - The new process ends before it has sent `taken`: its end is noticed, and the sessions go on here. Those of
//!   which it had sent `taken` are lost with it, as every session of a process that is killed.
//! - This process ends before `taken`: the new one cannot send that any more, and finds no `back` before the end of the
//!   channel. Then it goes on with the sessions.
//! - The new process does not answer for [`TAKEN_MAX`]: this one stops receiving, which decides whether `taken` came
//!   in time, and says `back` if it did not.
//!
//! A session that was refused goes on here, and is not tried again. Sessions that were still connecting are given
//! in a later pass.

use super::link::{Link, value, word};
use super::successor::memory_file;
use crate::sys::channel::FDS_MAX;
use crate::worker::moving::{DetachFrom, LeavingSession};
use crate::worker::order::Workers;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Sessions in one message. Its descriptors are two each and a file, so there could be 31 ([`FDS_MAX`]); but those of
/// one message pause together, and are served one after the other when they have moved.
const SESSIONS_MAX: usize = 8;
const _: () = assert!(2 * SESSIONS_MAX < FDS_MAX);
/// How long the new process may take to answer. The sessions pause meanwhile.
const TAKEN_MAX: Duration = Duration::from_secs(2);
/// Pauses between two passes over the sessions of a worker: after one in which something moved, and the longest.
const PASS_AGAIN: Duration = Duration::from_millis(100);
const PASS_EVERY: Duration = Duration::from_secs(1);

/// The sessions of one worker on their way.
#[derive(Debug)]
pub(super) struct Leaving {
    /// To the new process.
    pub(super) link: Link,
    /// The workers.
    pub(super) workers: Workers,
    /// Number of the worker.
    pub(super) worker: usize,
    /// Counts the processes that sessions were given to. A session that one of them has refused is tried again with
    /// the next.
    pub(super) round: u32,
}

/// What became of the sessions of one pass.
#[derive(Debug, Default)]
struct Pass {
    moved: usize,
    refused: usize,
}

/// What the new process has answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It has taken all but those at these positions.
    Taken(Vec<usize>),
    /// It has taken none, and takes no others.
    None,
    /// It has taken these, or will find that they are its own; it is given no others.
    Unknown,
}

impl Leaving {
    /// Gives the new process all sessions that can be moved, until the worker has ended or the new process takes no
    /// more.
    pub(super) async fn run(self) {
        let begun = Instant::now();
        let mut is_first = true;
        let mut pause = PASS_AGAIN;
        loop {
            let mut pass = Pass::default();
            let goes_on = self.pass(&mut pass).await;
            let Pass { moved, refused } = pass;
            if moved + refused > 0 {
                let (worker, took) = (self.worker, begun.elapsed());
                if is_first {
                    tracing::info!(worker, moved, refused, ?took, "sessions moved away");
                } else {
                    tracing::debug!(worker, moved, refused, "further sessions moved");
                }
            }
            is_first = false;
            if !goes_on || self.is_closed_within(pause).await {
                return;
            }
            pause = if moved > 0 {
                PASS_AGAIN
            } else {
                PASS_EVERY.min(pause * 2)
            };
        }
    }

    /// Whether the new process closes its end within this time.
    async fn is_closed_within(&self, time: Duration) -> bool {
        let closed = async {
            // No message is expected.
            while let Ok(Some(_)) = self.link.receive().await {}
        };
        timeout(time, closed).await.is_ok()
    }

    /// Gives the sessions that there are now. `false`: no others are to be given.
    async fn pass(&self, pass: &mut Pass) -> bool {
        let (worker, round) = (self.worker, self.round);
        let mut from = DetachFrom { round, place: 0 };
        loop {
            let part = self.workers.detach(worker, from, SESSIONS_MAX).await;
            let Some(part) = part else {
                return false;
            };
            let count = part.sessions.len();
            if count > 0 {
                let (answer, goes_on) = self.give(&part.sessions).await;
                let back = refused(part.sessions, &answer);
                pass.refused += back.len();
                pass.moved += count - back.len();
                self.workers.decided(worker, count, back, round).await;
                if !goes_on {
                    return false;
                }
            }
            match part.next {
                Some(place) => from.place = place,
                None => return true,
            }
        }
    }

    /// Gives sessions to the new process and waits for its answer. Returns it, and whether others may be given.
    async fn give(&self, sessions: &[LeavingSession]) -> (Answer, bool) {
        if let Err(error) = self.send(sessions) {
            tracing::warn!(%error, "sessions stay in this process");
            return (Answer::None, false);
        }
        match timeout(TAKEN_MAX, self.link.receive()).await {
            Ok(Ok(Some(message))) => {
                let answer = Answer::of_message(&message.text);
                let goes_on = matches!(answer, Answer::Taken(_));
                (answer, goes_on)
            }
            Ok(Ok(None)) => {
                tracing::warn!("the new process takes no more sessions");
                (Answer::None, false)
            }
            // Nothing can be received any more, so nothing more may be given, whatever the answer was.
            Ok(Err(_)) | Err(_) => (self.take_back(), false),
        }
    }

    fn send(&self, sessions: &[LeavingSession]) -> io::Result<()> {
        let (mut lines, mut bytes) = (String::new(), Vec::new());
        for session in sessions {
            session.write(&mut lines, &mut bytes);
        }
        let file = memory_file("sessions", &[lines.as_bytes(), &bytes])?;
        let sockets = sessions.iter().flat_map(LeavingSession::sockets);
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(file.as_fd()).chain(sockets).collect();
        let count = sessions.len();
        self.link.send(&format!("move\nsessions={count}"), &fds)
    }

    /// The new process has not answered in time, or its answer cannot be read.
    fn take_back(&self) -> Answer {
        if let Some(message) = self.link.last_received() {
            return Answer::of_message(&message.text);
        }
        tracing::warn!(limit = ?TAKEN_MAX, "the new process does not take sessions in time");
        match self.link.send("back", &[]) {
            Ok(()) => Answer::None,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Answer::None,
            // It cannot be told, and goes on with them when it finds that this process does not.
            Err(_) => Answer::Unknown,
        }
    }
}

impl Answer {
    fn of_message(text: &str) -> Self {
        if word(text) != "taken" {
            return Self::None;
        }
        let refused: String = value(text, "refused").unwrap_or_default();
        let refused = refused.split(',').filter_map(|it| it.parse().ok());
        Self::Taken(refused.collect())
    }
}

/// Those that go on here. The others leave the gauges of this process.
fn refused(sessions: Vec<LeavingSession>, answer: &Answer) -> Vec<LeavingSession> {
    match answer {
        Answer::None => sessions,
        Answer::Unknown => Vec::new(),
        Answer::Taken(refused) => {
            let sessions = sessions.into_iter().enumerate();
            let stay = sessions.filter(|(position, _)| refused.contains(position));
            stay.map(|(_, session)| session).collect()
        }
    }
}
