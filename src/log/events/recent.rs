//! The events of the process in memory: the newest ones, for `show events`, and what was told at the start, for `show
//! startup-logs`. Every thread that emits an event writes here; the admin thread reads.
//!
//! Invariants: a writer waits for nobody, and both are bounded: of the newest events the oldest give way
//! ([`RECENT_BYTES_MAX`]), of those of the start the last ones are only counted ([`START_BYTES_MAX`]).

use super::{IN_WORDS, priority};
use jiff::Zoned;
use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Most bytes of events that are kept.
const RECENT_BYTES_MAX: usize = 128 * 1024;
/// Most bytes of one event; the rest of a longer one is cut off.
const EVENT_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of what was told at the start.
const START_BYTES_MAX: usize = 64 * 1024;

/// The events in memory.
#[derive(Debug, Clone, Default)]
pub struct RecentEvents(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// The number of events so far.
    count: watch::Sender<u64>,
    start: Mutex<StartLog>,
    /// Events that stderr has not got.
    lost: AtomicU64,
}

/// The newest events.
#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<Arc<str>>,
    bytes: usize,
    /// How many there were before the first of them.
    gone: u64,
}

/// What was told at the start.
#[derive(Debug, Default)]
struct StartLog {
    text: String,
    /// Lines that had no room.
    left_out: usize,
    over: bool,
}

/// Some events, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Events {
    /// A line each, without its end.
    pub lines: Vec<Arc<str>>,
    /// How many were asked for and had given way.
    pub missed: u64,
    /// Where the next ones begin.
    pub next: u64,
}

impl RecentEvents {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        let lines = self.0.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self) -> MutexGuard<'_, StartLog> {
        let start = self.0.start.lock();
        start.unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &str) {
        let count = {
            let mut lines = self.lines();
            lines.bytes += line.len();
            lines.kept.push_back(line.into());
            while lines.bytes > RECENT_BYTES_MAX
                && let Some(gone) = lines.kept.pop_front()
            {
                lines.bytes -= gone.len();
                lines.gone += 1;
            }
            lines.gone + lines.kept.len() as u64
        };
        self.0.count.send_modify(|told| *told = count.max(*told));
    }

    /// The events from number `from` on, at most `bytes_max` of them, but at least one if there is one.
    pub fn from(&self, from: u64, bytes_max: usize) -> Events {
        let lines = self.lines();
        let begin = from.max(lines.gone);
        let skip = usize::try_from(begin - lines.gone).unwrap_or(usize::MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for line in lines.kept.iter().skip(skip) {
            bytes += line.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(Arc::clone(line));
        }
        Events {
            missed: begin - from,
            next: begin + found.len() as u64,
            lines: found,
        }
    }

    /// How many events there were so far: changes with each.
    pub fn count(&self) -> watch::Receiver<u64> {
        self.0.count.subscribe()
    }

    /// `lost` events did not reach stderr.
    pub(super) fn add_lost(&self, lost: u64) {
        self.0.lost.fetch_add(lost, Relaxed);
    }

    /// How many events did not reach stderr.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// What was told before there were events, in front of those that were told since.
    pub fn begin_start(&self, told: &str) {
        let mut start = self.start();
        let later = std::mem::take(&mut start.text);
        for line in told
            .split_inclusive('\n')
            .chain(later.split_inclusive('\n'))
        {
            start.push(line);
        }
    }

    /// The start is over: no more is added to what was told at it.
    pub fn end_start(&self) {
        let mut start = self.start();
        start.over = true;
        start.text.shrink_to_fit();
    }

    /// What was told at the start.
    pub fn of_start(&self) -> String {
        let start = self.start();
        let mut text = start.text.clone();
        if start.left_out > 0 {
            let more = format!("{} more lines are not kept", start.left_out);
            text.push_str(&start_line("NOTICE", &more));
        }
        text
    }
}

impl StartLog {
    fn push(&mut self, line: &str) {
        if self.left_out > 0 || self.text.len() + line.len() > START_BYTES_MAX {
            self.left_out += 1;
        } else {
            self.text.push_str(line);
        }
    }
}

/// A line as HAProxy writes it at its start.
pub fn start_line(severity: &str, text: &str) -> String {
    let severity = format!("[{severity}]");
    format!("{severity:<10} ({}) : {text}\n", std::process::id())
}

impl<S: Subscriber> Layer<S> for RecentEvents {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text {
            line: String::new(),
            alone: event.metadata().target() == IN_WORDS,
        };
        event.record(&mut text);
        let text = one_line(&text.line);
        let level = *event.metadata().level();
        let now = Zoned::now()
            .strftime("%Y-%m-%dT%H:%M:%S%.6f%:z")
            .to_string();
        self.push(&format!("<{}>{now} {text}", priority(level)));
        let severity = match level {
            Level::ERROR => "ALERT",
            Level::WARN => "WARNING",
            _ => return,
        };
        let mut start = self.start();
        if !start.over {
            start.push(&start_line(severity, &text));
        }
    }
}

/// The text of an event: its message, and its fields as `name=value`.
struct Text {
    line: String,
    /// The message alone.
    alone: bool,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.line, "{value:?}"),
            _ if self.alone => Ok(()),
            name if self.line.is_empty() => write!(self.line, "{name}={value:?}"),
            name => write!(self.line, " {name}={value:?}"),
        };
    }
}

/// `text` as one line of at most [`EVENT_BYTES_MAX`].
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(EVENT_BYTES_MAX));
    for character in text.chars() {
        if line.len() + character.len_utf8() > EVENT_BYTES_MAX {
            break;
        }
        line.push(if character.is_control() {
            ' '
        } else {
            character
        });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry::Registry;

    #[test]
    fn the_newest_events_are_kept() {
        let recent = RecentEvents::default();
        assert_eq!(recent.from(0, 100).lines, []);
        let long = "x".repeat(1000);
        let count = 2 * RECENT_BYTES_MAX as u64 / 1000;
        for _ in 0..count {
            recent.push(&long);
        }
        assert!(recent.lines().bytes <= RECENT_BYTES_MAX);
        let all = recent.from(0, usize::MAX);
        assert_eq!(all.next, count);
        assert_eq!(all.missed + all.lines.len() as u64, count);
        let some = recent.from(all.missed, 2500);
        assert_eq!((some.lines.len(), some.missed), (2, 0));
        assert_eq!(recent.from(count - 1, 1).lines.len(), 1);
        let none = recent.from(count, usize::MAX);
        assert_eq!((none.lines.len(), none.missed, none.next), (0, 0, count));
        assert_eq!(*recent.count().borrow(), count);
    }

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        let recent = RecentEvents::default();
        let subscriber = Registry::default().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(socket = "a", pid = 7, "one\ntwo");
            tracing::warn!(target: IN_WORDS, backend = "b", "in words");
            tracing::error!("{}", "é".repeat(EVENT_BYTES_MAX));
        });
        let lines = recent.from(0, usize::MAX).lines;
        let ends = |index: usize, prefix: &str, text: &str| {
            let line = &lines[index];
            assert!(line.starts_with(prefix) && line.ends_with(text), "{line}");
        };
        ends(0, "<6>2", " one two socket=\"a\" pid=7");
        ends(1, "<4>2", " in words");
        ends(2, "<3>2", "é");
        assert!(lines[2].len() < EVENT_BYTES_MAX + 50);
    }

    #[test]
    fn what_is_told_at_the_start_is_kept_and_bounded() {
        let recent = RecentEvents::default();
        let subscriber = Registry::default().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not this");
            tracing::warn!("second");
            recent.begin_start(&start_line("NOTICE", "first"));
            recent.end_start();
            tracing::warn!("too late");
        });
        let pid = std::process::id();
        let expected = format!("[NOTICE]   ({pid}) : first\n[WARNING]  ({pid}) : second\n");
        assert_eq!(recent.of_start(), expected);
        let line = start_line("WARNING", &"x".repeat(1000));
        let recent = RecentEvents::default();
        recent.begin_start(&line.repeat(100));
        let text = recent.of_start();
        assert!(text.len() < START_BYTES_MAX + 100, "{}", text.len());
        let kept = text.lines().count() - 1;
        let last = format!(
            "[NOTICE]   ({pid}) : {} more lines are not kept",
            100 - kept
        );
        assert_eq!(text.lines().last(), Some(&*last));
    }
}
