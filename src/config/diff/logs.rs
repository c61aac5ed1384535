//! Compares `[log]`. Targets are the same when they have the same destination. Pure; part of
//! [`plan`](super::plan).
//!
//! Invariant: [`match_targets`] decides which targets stay open, for the report and for the log thread, so that
//! the report is true.

use super::{Action, Found};
use crate::config::key::{Differences, Effect};
use crate::config::model::{Log, LogTarget};

/// For each of `new` the target of `old` with the same destination; it stays open. A target of `old` is matched
/// at most once.
pub fn match_targets(old: &[LogTarget], new: &[LogTarget]) -> Vec<Option<usize>> {
    let mut taken = vec![false; old.len()];
    new.iter()
        .map(|one| {
            let mut all = old.iter().zip(&taken);
            let index = all.position(|(was, taken)| !taken && was.sink == one.sink)?;
            taken[index] = true;
            Some(index)
        })
        .collect()
}

pub(super) fn log(found: &mut Found, old: &Log, new: &Log) {
    let mut keys = Differences::default();
    Log::compare(old, new, &mut keys);
    found.changed("log", "", keys);
    let mut stays = vec![false; old.targets.len()];
    let matched = match_targets(&old.targets, &new.targets);
    for (index, one) in matched.into_iter().zip(&new.targets) {
        let name = one.sink.to_string();
        let Some(index) = index else {
            let effect = "is opened before anything else changes";
            found.push(Action::Add, ("log target", name), effect);
            continue;
        };
        stays[index] = true;
        let mut keys = Differences::default();
        LogTarget::compare(&old.targets[index], one, &mut keys);
        found.changed("log target", &name, keys);
    }
    for (one, stays) in old.targets.iter().zip(stays) {
        if !stays {
            let object = ("log target", one.sink.to_string());
            found.push(Action::Remove, object, "gets what is queued, and closes");
        }
    }
    let order = |log: &Log, other: &Log| {
        let all = log.targets.iter().map(|it| it.sink.to_string());
        let kept = all.filter(|name| other.targets.iter().any(|it| it.sink.to_string() == *name));
        kept.collect::<Vec<_>>().join(" ")
    };
    let mut keys = Differences::default();
    let orders = (&order(old, new), &order(new, old));
    keys.compare_as("order of targets", Effect::NextLine, orders, String::clone);
    found.changed("log", "", keys);
}
