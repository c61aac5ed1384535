//! What the log, the statistics and whoever has asked are told of a reload. Control thread.

use super::Reloader;
use super::load::{Line, Problems};
use super::requests::{Answer, Trigger};
use crate::config::diff::Changes;
use crate::live::{LastReload, ReloadEnd};
use std::time::Instant;

/// Most lines of one kind that a reload writes to the log: ten thousand at once would push out what
/// matters. Whoever asks through the runtime socket gets them all.
pub(super) const LOGGED_MAX: usize = 100;

impl Reloader {
    /// Logs what was changed; `notes` are for the answer alone.
    pub(super) fn done(&mut self, changes: &Changes, notes: Vec<String>) -> Answer {
        self.refused.clear();
        self.restarts = changes.restarts().map(ToString::to_string).collect();
        let mut lines: Vec<String> = changes.list.iter().map(ToString::to_string).collect();
        for line in lines.iter().take(LOGGED_MAX) {
            tracing::info!("reload: {line}");
        }
        if let Some(more) = more_than_logged(&lines) {
            tracing::info!("reload: and {more} more changes");
        }
        for change in changes.restarts() {
            let keys: Vec<&str> = change.keys.iter().map(|one| one.key.as_str()).collect();
            let (kind, keys) = (change.kind, keys.join(", "));
            tracing::warn!("reload: [{kind}] {keys} needs a restart and stays as it is");
        }
        let summary = changes.summary();
        lines.push(summary.clone());
        // Before the last event: whoever waits for that one finds the result in the statistics.
        self.note(ReloadEnd::Done, lines.clone());
        tracing::info!("reloaded: {summary}");
        let lines = notes.into_iter().chain(lines).collect();
        Answer { done: true, lines }
    }

    pub(super) fn refuse(&mut self, trigger: Trigger, problems: Problems) -> Answer {
        const UNCHANGED: &str = "the configuration is unchanged";
        let Problems { lines, mut shown } = problems;
        // A watched file that stays wrong is reported once, not each time it is written.
        if trigger != Trigger::Watch || self.refused != lines {
            self.refused.clone_from(&lines);
            let texts = lines.iter().map(|line| line.text.clone());
            let texts = texts.chain([UNCHANGED.to_owned()]).collect();
            self.note(ReloadEnd::Refused, texts);
            let (errors, warnings): (Vec<&Line>, Vec<&Line>) =
                lines.iter().partition(|line| line.is_error());
            // The errors are why it was refused: warnings are not to push them out.
            let all = errors.into_iter().chain(warnings);
            all.take(LOGGED_MAX).for_each(Line::log);
            if let Some(more) = more_than_logged(&lines) {
                tracing::error!("reload: and {more} more problems");
            }
            tracing::error!("reload refused: {UNCHANGED}");
        }
        shown.push(UNCHANGED.to_owned());
        Answer {
            done: false,
            lines: shown,
        }
    }

    pub(super) fn note(&self, end: ReloadEnd, lines: Vec<String>) {
        let at = Instant::now();
        let snapshot = self.snapshot.load();
        snapshot.global.reloads.ended(LastReload { end, at, lines });
    }
}

/// How many of `lines` the log does not get.
fn more_than_logged<T>(lines: &[T]) -> Option<usize> {
    lines.len().checked_sub(LOGGED_MAX).filter(|more| *more > 0)
}
