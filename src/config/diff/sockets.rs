//! Which listening socket of an old configuration can be used for which bind of a new one. Pure.
//!
//! The report of a reload and the table of listening sockets both use it, for binds and for the pages that answer there.
//! Invariant: an old socket is taken at most once.

use crate::config::model::{Bind, BindAddress};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// An address, and the network namespace that it is in.
pub(super) type Where<'a> = (&'a BindAddress, Option<&'a str>);

/// Where a bind is. Several sockets may be there, each on a network device of its own.
pub(super) fn place(bind: &Bind) -> Where<'_> {
    (&bind.address, bind.namespace.as_deref())
}

/// An owner, a place, and a network device.
type Key<'a, O> = (O, Where<'a>, Option<&'a str>);

/// The sockets that are not taken yet, by their owner and place, in the order of the file.
pub(super) struct Sockets<'a, O>(HashMap<Key<'a, O>, VecDeque<(usize, &'a Bind)>>);

impl<'a, O: Eq + Hash> Sockets<'a, O> {
    /// Each with its number and its owner.
    pub(super) fn of(all: impl IntoIterator<Item = (usize, O, &'a Bind)>) -> Self {
        let mut sockets: HashMap<Key<'_, O>, VecDeque<_>> = HashMap::new();
        for (number, owner, bind) in all {
            let key = (owner, place(bind), bind.interface.as_deref());
            sockets.entry(key).or_default().push_back((number, bind));
        }
        Self(sockets)
    }

    /// Takes the first one of `owner` that can be used for `bind`.
    pub(super) fn take(&mut self, owner: O, bind: &'a Bind) -> Option<usize> {
        let key = (owner, place(bind), bind.interface.as_deref());
        let there = self.0.get_mut(&key)?;
        let usable = |(_, old): &(usize, &Bind)| Bind::is_same_socket(old, bind);
        let (number, _) = there.remove(there.iter().position(usable)?)?;
        Some(number)
    }
}
