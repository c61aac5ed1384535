//! What a HAProxy master leaves to the program that it executes in its place.
//!
//! A reload of HAProxy (`-W`) executes the program file again, in the same process. When that file is rlb by then, rlb is
//! the parent of HAProxy's workers: their numbers and `sockpair@N` stand on its command line, and for each worker it has
//! descriptors. A worker whose descriptors are closed ends at once, with its sessions. Main thread, at the start.

use super::raw;
use std::collections::HashMap;
use std::env;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// Set by HAProxy where a master executes its program again.
const EXECUTED_AGAIN: &str = "HAPROXY_MWORKER_REEXEC";
/// The processes that the master knows, each behind a `|`, as words `key=value` with `;` between them.
const PROCESSES: &str = "HAPROXY_PROCESSES";
/// Keys of the descriptors of a process.
const DESCRIPTORS: [&str; 2] = ["fd", "cfd"];
/// How HAProxy writes the descriptor of a worker on the command line.
const PREFIX: &str = "sockpair@";

/// The descriptors of the master's workers. They are closed when it is dropped.
#[derive(Debug, Default)]
pub struct HaproxyMaster(HashMap<RawFd, OwnedFd>);

impl HaproxyMaster {
    /// What was left to this process; nothing, unless a HAProxy master has executed it.
    pub fn of_this_process() -> Self {
        if env::var_os(EXECUTED_AGAIN).is_none() {
            return Self::default();
        }
        let processes = env::var(PROCESSES).unwrap_or_default();
        let owned =
            numbers(&processes).filter_map(|number| Some((number, raw::adopt(number).ok()?)));
        Self(owned.collect())
    }

    /// The descriptor that `sockpair@N` names; `None`: it is no such word, or there is none.
    pub fn pair(&self, word: &str) -> Option<BorrowedFd<'_>> {
        let number = word.strip_prefix(PREFIX)?.parse().ok()?;
        self.0.get(&number).map(AsFd::as_fd)
    }
}

/// The descriptors in the list of processes.
fn numbers(processes: &str) -> impl Iterator<Item = RawFd> {
    let words = processes.split(['|', ';']);
    words.filter_map(|word| {
        let (key, value) = word.split_once('=')?;
        let number: RawFd = value.parse().ok()?;
        (DESCRIPTORS.contains(&key) && number >= 0).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_of_all_processes_are_found() {
        let of_2_6 = "|type=m;fd=-1;pid=7;reloads=2;failedreloads=0;timestamp=5;id=;version=2.6.12\
                      |type=w;fd=5;pid=8;reloads=0;failedreloads=0;timestamp=5;id=;version=2.6.12";
        assert_eq!(numbers(of_2_6).collect::<Vec<_>>(), [5]);
        let of_3_5 = "|type=w;fd=5;cfd=6;pid=8;reloads=0;failedreloads=0;timestamp=5;id=;version=";
        assert_eq!(numbers(of_3_5).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(numbers("").count(), 0);
    }
}
