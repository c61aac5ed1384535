//! `[log]` compared: targets by where they lead. Pure; part of [`plan`](super::plan).
//!
//! Invariant: [`match_targets`] says which targets stay open, to the report and to the log thread
//! alike, so that what is told and what is done cannot differ.

use super::show::text;
use super::{Action, Found, Keys, compare};
use crate::config::file::{FacilityWord, FormatWord, LevelWord};
use crate::config::model::{Log, LogTarget};

/// For each of `new` the one of `old` that leads to the same place and so stays open; each old one
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
    let Log { tag: _, targets: _ } = old;
    let mut keys = Keys::default();
    compare!(keys, old, new; "tag" => tag: text);
    let object = ("log", String::new());
    found.changed(Action::Change, object, keys, "holds for the next line");
    let mut stays = vec![false; old.targets.len()];
    for (fate, one) in match_targets(&old.targets, &new.targets)
        .into_iter()
        .zip(&new.targets)
    {
        let object = ("log target", one.sink.to_string());
        let Some(index) = fate else {
            found.push(
                Action::Add,
                object,
                "is opened before anything else changes",
            );
            continue;
        };
        stays[index] = true;
        let keys = target_keys(&old.targets[index], one);
        found.changed(Action::Change, object, keys, "holds for the next line");
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
    let mut keys = Keys::default();
    let orders = (order(old, new), order(new, old));
    keys.compare("order of targets", (&orders.0, &orders.1), String::clone);
    let object = ("log", String::new());
    found.changed(Action::Change, object, keys, "holds for the next line");
}

fn target_keys(old: &LogTarget, new: &LogTarget) -> Keys {
    let LogTarget {
        sink: _,
        format: _,
        facility: _,
        level: _,
    } = old;
    let mut keys = Keys::default();
    compare!(keys, old, new;
        "format" => format: |it| FormatWord(*it).word().to_owned(),
        "facility" => facility: |it| FacilityWord(*it).word().to_owned(),
        "level" => level: |it| LevelWord(*it).word().to_owned());
    keys
}
