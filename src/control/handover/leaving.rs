//! The old process's side of moving sessions: takes them out of its workers and gives them to the new process, some
//! at a time.
//!
//! Control thread, one task and one channel per worker. The messages of such a channel:
//!
//! | sender | text | with it |
//! |---|---|---|
//! | old | `move` and how many | a file of lines and bytes ([`crate::worker::moving`]), then two sockets a session |
//! | new | `taken`, and the positions of those that it refuses | |
//! | new | `later`, and why: it can take none now | |
//! | old | `back`: it goes on with the sessions itself, because `taken` did not come in time | |
//! | old | `passed`: the new process has been given all sessions that could be moved at first | |
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
//! A session that was refused goes on here. If it has a server it is not tried again. Sessions that were still connecting
//! are given in a later pass; those that wait for a server, in each pass after the others of their worker.

use super::link::{Link, value, word};
use super::successor::memory_file;
use crate::sys::channel::FDS_MAX;
use crate::worker::moving::{DetachFrom, LeavingSession, ServerNames};
use crate::worker::order::Workers;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
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
/// Longest pause after a pass that something was missing for, such as descriptors.
const LATER_MAX: Duration = Duration::from_secs(30);

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
    /// Of servers that were renamed.
    pub(super) names: Arc<ServerNames>,
}

/// What became of the sessions of one pass.
#[derive(Debug, Default)]
struct Pass {
    moved: usize,
    refused: usize,
}

/// How a pass has ended.
#[derive(Debug, PartialEq, Eq)]
enum PassEnd {
    /// All sessions were looked at.
    Complete,
    /// The rest is to be tried again, because something is missing now.
    Later(String),
    /// No others are to be given.
    Last,
}

/// What the new process has answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// It has taken all but those at these positions.
    Taken(Vec<usize>),
    /// It has taken none now, for this reason.
    Later(String),
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
        let mut is_told = false;
        let mut pause = PASS_AGAIN;
        for number in 1.. {
            let mut pass = Pass::default();
            let ended = self.pass(number, &mut pass).await;
            if ended != PassEnd::Complete {
                // Those that were to follow go on in this process.
                self.workers.resume(self.worker).await;
            }
            let Pass { moved, refused } = pass;
            if moved + refused > 0 {
                let (worker, took) = (self.worker, begun.elapsed());
                if is_first {
                    tracing::info!(worker, moved, refused, ?took, "sessions moved away");
                } else {
                    tracing::debug!(worker, moved, refused, "further sessions moved");
                }
            }
            match ended {
                PassEnd::Complete => {
                    if is_first {
                        // For the log of the new process only.
                        let _ = self.link.send("passed", &[]);
                    }
                    is_first = false;
                    is_told = false;
                    pause = if moved > 0 {
                        PASS_AGAIN
                    } else {
                        PASS_EVERY.min(pause * 2)
                    };
                }
                PassEnd::Later(reason) => {
                    if !is_told {
                        tracing::warn!(reason, "sessions stay in this process for now");
                    }
                    is_told = true;
                    pause = LATER_MAX.min(pause * 2).max(PASS_EVERY);
                }
                PassEnd::Last => return,
            }
            if self.is_closed_within(pause).await {
                return;
            }
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

    /// Gives the sessions that there are now.
    async fn pass(&self, number: u32, pass: &mut Pass) -> PassEnd {
        let (worker, round) = (self.worker, self.round);
        let mut from = DetachFrom {
            round,
            pass: number,
            place: 0,
        };
        loop {
            let part = self.workers.detach(worker, from, SESSIONS_MAX).await;
            let Some(part) = part else {
                return PassEnd::Last;
            };
            let count = part.sessions.len();
            if count > 0 {
                let (answer, goes_on) = self.give(&part.sessions).await;
                let back = refused(part.sessions, &answer);
                pass.moved += count - back.len();
                if let (Answer::Later(reason), true) = (&answer, goes_on) {
                    // Round 0: they are given again.
                    self.workers.decided(worker, count, back, (0, 0)).await;
                    return PassEnd::Later(reason.clone());
                }
                pass.refused += back.len();
                let refused = (round, number);
                self.workers.decided(worker, count, back, refused).await;
                if !goes_on {
                    return PassEnd::Last;
                }
            }
            match part.next {
                Some(place) => from.place = place,
                None => return PassEnd::Complete,
            }
        }
    }

    /// Gives sessions to the new process and waits for its answer. Returns it, and whether others may be given.
    async fn give(&self, sessions: &[LeavingSession]) -> (Answer, bool) {
        let received = match self.send(sessions) {
            Ok(()) => timeout(TAKEN_MAX, self.link.receive_any()).await,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Ok(None)),
            Err(error) => return (Answer::Later(error.to_string()), true),
        };
        match received {
            Ok(Ok(Some(message))) => {
                let answer = Answer::of_message(&message.text);
                let goes_on = matches!(answer, Answer::Taken(_) | Answer::Later(_));
                (answer, goes_on)
            }
            Ok(Ok(None)) => {
                tracing::warn!("the new process takes no more sessions");
                (Answer::None, false)
            }
            // An answer that cannot be read may be that they are the new process's.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                (Answer::Unknown, false)
            }
            // Nothing can be received any more, so nothing more may be given, whatever the answer was.
            Ok(Err(_)) | Err(_) => (self.take_back(), false),
        }
    }

    fn send(&self, sessions: &[LeavingSession]) -> io::Result<()> {
        let (mut lines, mut bytes) = (String::new(), Vec::new());
        for session in sessions {
            session.write(&self.names, (&mut lines, &mut bytes));
        }
        let file = memory_file("sessions", &[lines.as_bytes(), &bytes])?;
        let sockets = sessions.iter().flat_map(LeavingSession::sockets);
        let fds: Vec<BorrowedFd<'_>> = std::iter::once(file.as_fd()).chain(sockets).collect();
        let count = sessions.len();
        self.link.send(&format!("move\nsessions={count}"), &fds)
    }

    /// The new process has not answered in time.
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
        match word(text) {
            "taken" => {}
            "later" => return Self::Later(value(text, "reason").unwrap_or_default()),
            _ => return Self::None,
        }
        let refused: String = value(text, "refused").unwrap_or_default();
        let refused = refused.split(',').filter_map(|it| it.parse().ok());
        Self::Taken(refused.collect())
    }
}

/// Those that go on here. The others leave the gauges of this process.
fn refused(sessions: Vec<LeavingSession>, answer: &Answer) -> Vec<LeavingSession> {
    match answer {
        Answer::None | Answer::Later(_) => sessions,
        Answer::Unknown => Vec::new(),
        Answer::Taken(refused) => {
            let sessions = sessions.into_iter().enumerate();
            let stay = sessions.filter(|(position, _)| refused.contains(position));
            stay.map(|(_, session)| session).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::channel::Channel;
    use rustix::net::{SendFlags, send};
    use std::os::fd::OwnedFd;

    /// The old process's part, and the new process's end of the channel.
    fn leaving() -> (Leaving, OwnedFd) {
        let (ours, theirs) = Channel::pair().unwrap();
        let leaving = Leaving {
            link: Link::new(Arc::new(ours)).unwrap(),
            workers: Workers::new(0).0,
            worker: 0,
            round: 1,
            names: Arc::default(),
        };
        (leaving, theirs)
    }

    #[tokio::test]
    async fn an_answer_that_comes_at_the_limit_counts_and_no_later_one() {
        let (leaving, theirs) = leaving();
        let new = Channel::from_fd(theirs).unwrap();
        new.send("taken\nrefused=1", &[]).unwrap();
        assert_eq!(leaving.take_back(), Answer::Taken(vec![1]));
        let error = new.send("taken\nrefused=", &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn without_an_answer_the_new_process_is_told_and_cannot_answer_any_more() {
        let (leaving, theirs) = leaving();
        let new = Channel::from_fd(theirs).unwrap();
        assert_eq!(leaving.take_back(), Answer::None);
        assert!(new.send("taken\nrefused=", &[]).is_err());
        assert_eq!(new.receive().unwrap().unwrap().text, "back");
    }

    /// Of two processes that went on with a session both would read its bytes.
    #[tokio::test]
    async fn an_answer_that_cannot_be_read_may_mean_that_they_were_taken() {
        let (leaving, theirs) = leaving();
        send(&theirs, b"taken\xff", SendFlags::empty()).unwrap();
        assert_eq!(leaving.give(&[]).await, (Answer::Unknown, false));
    }

    #[tokio::test]
    async fn what_is_missing_for_now_ends_nothing() {
        let (leaving, theirs) = leaving();
        send(&theirs, b"later\nreason=full", SendFlags::empty()).unwrap();
        let later = Answer::Later("full".to_owned());
        assert_eq!(leaving.give(&[]).await, (later, true));
    }
}
