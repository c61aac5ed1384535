//! The sessions that servers have too many of, and how many of them may end now (`rebalance`).
//!
//! Control makes it for a second and tells all workers. Invariant: no more sessions end than it has, because a worker
//! takes each out before it ends one, and control takes the rest back before it makes the next.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many sessions of each of some servers may end, over all workers.
#[derive(Debug)]
pub struct Surplus(Box<[(u64, AtomicU32)]>);

impl Surplus {
    /// So many of each of these servers, by [`crate::live::ServerLive::uid`].
    pub fn new(mut servers: Vec<(u64, u32)>) -> Self {
        servers.sort_unstable();
        let servers = servers.into_iter();
        Self(servers.map(|(uid, most)| (uid, most.into())).collect())
    }

    fn of(&self, server: u64) -> Option<&AtomicU32> {
        let at = self.0.binary_search_by_key(&server, |(uid, _)| *uid).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether a session of the server may end.
    pub(super) fn has(&self, server: u64) -> bool {
        self.of(server).is_some_and(|left| left.load(Relaxed) > 0)
    }

    /// A session of the server ends, if one more may.
    pub fn claim(&self, server: u64) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        self.of(server)
            .is_some_and(|left| left.fetch_update(Relaxed, Relaxed, one_less).is_ok())
    }

    /// Whether none may end any more.
    pub(super) fn is_used_up(&self) -> bool {
        self.0.iter().all(|(_, left)| left.load(Relaxed) == 0)
    }

    /// Takes back what has not ended of the server.
    pub fn take_back(&self, server: u64) -> u32 {
        self.of(server).map_or(0, |left| left.swap(0, Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Workers that claim at once while control takes the rest back: what was claimed and what was taken back make up all.
    #[test]
    fn no_more_end_than_may() {
        let surplus = Surplus::new(vec![(7, 10_000), (3, 5)]);
        let claims = || (0..6_000).filter(|_| surplus.claim(7)).count();
        let (claimed, back) = std::thread::scope(|scope| {
            let workers = [(); 2].map(|()| scope.spawn(claims));
            let back = surplus.take_back(7);
            let claimed = workers.map(|it| it.join().expect("no panic"));
            (claimed.into_iter().sum::<usize>(), back)
        });
        assert_eq!(claimed + back as usize, 10_000);
        assert!(!surplus.claim(7) && !surplus.has(7) && !surplus.has(4));
        assert!(!surplus.is_used_up());
        assert_eq!((0..9).filter(|_| surplus.claim(3)).count(), 5);
        assert!(surplus.is_used_up());
        assert_eq!(surplus.take_back(3), 0);
    }
}
