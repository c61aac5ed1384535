//! Which servers a session has tried.

/// The servers that were tried, and when each was renewed last at that time. The first needs no allocation: most
/// sessions try only one.
#[derive(Debug, Default)]
pub(super) struct Tried {
    first: Option<(u64, u64)>,
    more: Vec<(u64, u64)>,
}

impl Tried {
    pub(super) fn all(&self) -> impl Iterator<Item = &(u64, u64)> {
        self.first.iter().chain(&self.more)
    }

    pub(super) fn contains(&self, server: u64) -> bool {
        self.all().any(|&(tried, _)| tried == server)
    }

    /// When the server was renewed last, as it was at the last attempt.
    pub(super) fn last(&self, server: u64) -> Option<u64> {
        let mut all = self.all();
        let found = all.find(|&&(tried, _)| tried == server);
        found.map(|&(_, renewed)| renewed)
    }

    pub(super) fn insert(&mut self, server: u64, renewed: u64) {
        self.remove(server);
        if self.first.is_none() {
            self.first = Some((server, renewed));
        } else {
            self.more.push((server, renewed));
        }
    }

    pub(super) fn remove(&mut self, server: u64) {
        if self.first.is_some_and(|(first, _)| first == server) {
            self.first = None;
        }
        self.more.retain(|&(other, _)| other != server);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
