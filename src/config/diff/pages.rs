//! Compares the pages of the statistics by the addresses that they answer at. Pure; part of [`plan`](super::plan).
//!
//! Invariant: where a socket stays and answers with other settings, a change names its address.

use super::sockets::{Sockets, Where, place};
use super::{Action, Found};
use crate::config::key::{Differences, Effect};
use crate::config::model::{Bind, Stats, StatsPage};
use crate::config::show;
use std::collections::{HashMap, HashSet, VecDeque};

/// An address, the page that answers there, and whether that is `[stats]` itself.
#[derive(Clone, Copy)]
struct Answer<'a> {
    bind: &'a Bind,
    page: &'a StatsPage,
    first: bool,
}

/// What answers at each address, in file order.
fn answers(stats: &Stats) -> Vec<Answer<'_>> {
    let of = |bind, page, first| Answer { bind, page, first };
    let further = stats.further.iter().flat_map(|page| {
        let binds = stats.binds.get(page.binds.clone()).unwrap_or_default();
        binds.iter().map(move |bind| of(bind, &page.page, false))
    });
    // The addresses of further pages stand at the end.
    let own = stats.further.first().map(|page| page.binds.start);
    let own = own.unwrap_or(stats.binds.len()).min(stats.binds.len());
    let first = stats.binds[..own].iter();
    let first = first.map(|bind| of(bind, &stats.page, true));
    first.chain(further).collect()
}

/// For each of `new` the one of `old` at its address: that of the same socket, or else one that it takes the place of.
fn matched(old: &[Answer<'_>], new: &[Answer<'_>]) -> Vec<Option<usize>> {
    let all = old.iter().enumerate();
    let mut sockets = Sockets::of(all.map(|(index, one)| (index, (), one.bind)));
    let same_socket = new.iter().map(|one| sockets.take((), one.bind));
    let mut found: Vec<Option<usize>> = same_socket.collect();
    let taken: HashSet<usize> = found.iter().flatten().copied().collect();
    let mut left: HashMap<Where<'_>, VecDeque<usize>> = HashMap::new();
    let all = old.iter().enumerate();
    for (index, one) in all.filter(|(index, _)| !taken.contains(index)) {
        left.entry(place(one.bind)).or_default().push_back(index);
    }
    for (found, one) in found.iter_mut().zip(new) {
        if found.is_none() {
            *found = left.get_mut(&place(one.bind)).and_then(VecDeque::pop_front);
        }
    }
    found
}

/// Adds to `keys`, those of `[stats]`, what changes at its addresses; the other addresses have a change each.
pub(super) fn pages(found: &mut Found, mut keys: Differences, (old, new): (&Stats, &Stats)) {
    let (before, after) = (answers(old), answers(new));
    let matched = matched(&before, &after);
    let pairs = || {
        let all = matched.iter().zip(&after);
        all.map(|(index, now)| (index.map(|index| before[index]), *now))
    };
    let stays = |(was, now): (Option<Answer<'_>>, Answer<'_>)| {
        was.is_some_and(|was| was.first && now.first)
    };
    // Without an address that was and is its own, `[stats]` has nothing to be compared with if it has exchanged one with
    // another page.
    let exchanged = |(was, now): (Option<Answer<'_>>, Answer<'_>)| {
        was.is_some_and(|was| was.first != now.first)
    };
    if pairs().any(stays) || !pairs().any(exchanged) {
        StatsPage::compare(&old.page, &new.page, &mut keys);
    }
    let places = |all: &[Answer<'_>]| -> Vec<String> {
        let mut first: Vec<String> = Vec::new();
        for page in all.chunk_by(|one, next| std::ptr::eq(one.page, next.page)) {
            first.extend(page.first().map(name));
        }
        first
    };
    let (first_before, first_after) = (places(&before), places(&after));
    let mut sorted = (first_before.clone(), first_after.clone());
    sorted.0.sort();
    sorted.1.sort();
    if sorted.0 == sorted.1 {
        let orders = (&first_before, &first_after);
        keys.compare_as("order", Effect::AtOnce, orders, |it| it.join(" "));
    }
    found.changed("stats", "", keys);
    for (was, now) in pairs() {
        match was {
            Some(was) if was.first && now.first => {}
            Some(was) => {
                let mut keys = Differences::default();
                StatsPage::compare(was.page, now.page, &mut keys);
                found.changed("stats page", &name(&now), keys);
            }
            None if now.first => {}
            None => found.push(Action::Add, ("stats page", name(&now)), "answers at once"),
        }
    }
    let mut gone = vec![true; before.len()];
    for index in matched.iter().flatten() {
        gone[*index] = false;
    }
    for (was, _) in before
        .iter()
        .zip(gone)
        .filter(|(was, gone)| *gone && !was.first)
    {
        let effect = "answers no more; those on their way are finished";
        found.push(Action::Remove, ("stats page", name(was)), effect);
    }
}

/// Its address, and the device that tells it from another one of that address.
fn name(answer: &Answer<'_>) -> String {
    let address = show::bind_address(&answer.bind.address);
    match &answer.bind.interface {
        Some(device) => format!("{address} interface {device}"),
        None => address,
    }
}
