//! The log of the process: the control thread starts it, reloads change it, the stop ends it.
//!
//! A change has the steps of a reload: [`Log::plan_change`] plans it, [`LogChange::open`] opens new targets and
//! may fail, [`Log::apply`] cannot fail. Invariants: a line goes to the targets that were in force when it was
//! sent, because a change begins a new queue and the log thread first reads the old one to its end. A target
//! with the same destination as before keeps its descriptor and the lines that wait for it in memory.

use super::syslog::Header;
use super::writer::Target;
use super::{Action, Handle, Next, host_name, spawn};
use crate::config::diff::match_targets;
use crate::config::model;
use crate::live::{GlobalLive, LogQueue, LogSender, log_queue};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most changes and ending log threads at once. A reload above that is refused.
pub const CHANGES_MAX: usize = 8;

/// The log of the process.
#[derive(Debug)]
pub struct Log {
    queue: LogQueue,
    global: Arc<GlobalLive>,
    spec: Spec,
    /// `None`: there are no targets.
    thread: Option<Handle>,
    /// Threads whose targets were removed and that write what is left.
    ending: Vec<Handle>,
}

/// Everything that a line depends on.
#[derive(Debug, Clone, PartialEq)]
struct Spec {
    log: model::Log,
    /// Name of the machine in RFC 5424 headers.
    host: String,
}

impl Spec {
    /// `node`: as configured; `None`: the host name.
    fn of(log: &model::Log, node: Option<&str>) -> Self {
        Self {
            log: log.clone(),
            host: node.map_or_else(host_name, str::to_owned),
        }
    }

    fn target(&self, spec: &model::LogTarget) -> io::Result<Target> {
        Target::new(spec, self.header(spec))
    }

    fn header(&self, spec: &model::LogTarget) -> Header {
        Header::new(spec.format, spec.facility, &self.log.tag, &self.host)
    }
}

impl Log {
    /// Starts the log thread if there are targets. `node` is the machine's name in RFC 5424
    /// headers; `None`: the host name.
    ///
    /// # Errors
    /// When a target's address cannot be used, or the system refuses a thread. A target that cannot
    /// be opened now is no error: it is tried again while rlb runs.
    pub fn start(
        log: &model::Log,
        node: Option<&str>,
        global: &Arc<GlobalLive>,
    ) -> io::Result<Self> {
        let spec = Spec::of(log, node);
        let queue = LogQueue::off(Arc::clone(global));
        let targets = log.targets.iter().map(|target| spec.target(target));
        let targets = targets.collect::<io::Result<Vec<_>>>()?;
        let mut thread = None;
        if !targets.is_empty() {
            let (sender, receiver) = log_queue();
            thread = Some(spawn(targets, receiver, Arc::clone(global))?);
            queue.set_sender(Some(sender));
        }
        Ok(Self {
            queue,
            global: Arc::clone(global),
            spec,
            thread,
            ending: Vec::new(),
        })
    }

    /// The queue that lines are sent to.
    pub fn queue(&self) -> LogQueue {
        self.queue.clone()
    }

    /// The log thread.
    #[cfg(test)]
    pub(super) fn thread(&self) -> Option<&Handle> {
        self.thread.as_ref()
    }

    /// Plans a change to `log`, with the machine's name `node`.
    pub fn plan_change(&mut self, log: &model::Log, node: Option<&str>) -> LogChange {
        self.ending.retain(|thread| !thread.has_ended());
        let waiting = self.thread.as_ref().map_or(0, Handle::changes);
        LogChange {
            before: self.spec.clone(),
            spec: Spec::of(log, node),
            global: Arc::clone(&self.global),
            busy: waiting + self.ending.len() >= CHANGES_MAX,
        }
    }

    /// Puts a prepared change in force.
    pub fn apply(&mut self, prepared: PreparedLog) {
        let PreparedLog { spec, change } = prepared;
        match change {
            Change::None => {}
            Change::Off => {
                self.queue.set_sender(None);
                self.ending.extend(self.thread.take());
            }
            Change::Begin { sender, thread } => {
                self.thread = Some(thread);
                self.queue.set_sender(Some(sender));
            }
            Change::Switch { sender, next } => {
                if let Some(thread) = &self.thread {
                    // Before the old queue ends, because the thread takes the next one then.
                    thread.then(next);
                    self.queue.set_sender(Some(sender));
                }
            }
        }
        self.spec = spec;
    }

    /// Ends the log: writes what is queued, for at most `limit`. `false` when a thread has not ended even then
    /// (a descriptor that can only be polled was filled by another process); it is abandoned, and the process
    /// may exit.
    pub fn stop(self, limit: Duration) -> bool {
        drop(self.queue);
        let deadline = Instant::now() + limit;
        let threads = self.ending.into_iter().chain(self.thread);
        threads.fold(true, |all, thread| {
            let left = deadline.saturating_duration_since(Instant::now());
            thread.stop(left) && all
        })
    }
}

/// A planned change of the log.
#[derive(Debug)]
pub struct LogChange {
    before: Spec,
    spec: Spec,
    global: Arc<GlobalLive>,
    busy: bool,
}

impl LogChange {
    /// Opens what is new. Opening may wait for a file system, so call it on a thread that nothing waits for.
    ///
    /// # Errors
    /// A sentence for each file that cannot be opened. A syslog socket without a receiver is no error: it is
    /// tried again, as at the start.
    pub fn open(self) -> Result<PreparedLog, Vec<String>> {
        let Self {
            before,
            spec,
            global,
            busy,
        } = self;
        let new = &spec.log.targets;
        let change = if before == spec || (before.log.targets.is_empty() && new.is_empty()) {
            Change::None
        } else if busy {
            let why = "log: the targets of earlier reloads are still being written to";
            return Err(vec![why.to_owned()]);
        } else if new.is_empty() {
            Change::Off
        } else {
            let actions = actions(&before, &spec)?;
            let (sender, receiver) = log_queue();
            if before.log.targets.is_empty() {
                let targets = actions.into_iter().filter_map(Action::opened).collect();
                let thread = spawn(targets, receiver, global)
                    .map_err(|error| vec![format!("log: cannot start its thread: {error}")])?;
                Change::Begin { sender, thread }
            } else {
                let next = Next {
                    receiver,
                    targets: actions,
                };
                Change::Switch { sender, next }
            }
        };
        Ok(PreparedLog { spec, change })
    }
}

/// The actions for the targets of `spec`, with new ones opened.
fn actions(before: &Spec, spec: &Spec) -> Result<Vec<Action>, Vec<String>> {
    let mut actions = Vec::new();
    let mut problems = Vec::new();
    let matched = match_targets(&before.log.targets, &spec.log.targets);
    for (target, stays) in spec.log.targets.iter().zip(matched) {
        if let Some(index) = stays {
            let (level, header) = (target.level, spec.header(target));
            actions.push(Action::Stays {
                index,
                level,
                header,
            });
            continue;
        }
        let opened = spec.target(target).and_then(|mut target| {
            target.open()?;
            Ok(target)
        });
        match opened {
            Ok(target) => actions.push(Action::New(Box::new(target))),
            Err(error) => problems.push(format!("log: cannot open {}: {error}", target.sink)),
        }
    }
    if problems.is_empty() {
        Ok(actions)
    } else {
        Err(problems)
    }
}

/// A change of the log that can no longer fail. Dropping it changes nothing.
#[derive(Debug)]
pub struct PreparedLog {
    spec: Spec,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// Nothing changes.
    None,
    /// There are no targets any more.
    Off,
    /// There were no targets: a new thread writes the new ones.
    Begin { sender: LogSender, thread: Handle },
    /// The targets, or their levels or headers, change.
    Switch { sender: LogSender, next: Next },
}
