//! `hash-balance-factor`: a server with much more than its share of the sessions is passed over (consistent hashing with
//! bounded loads; Mirrokni, Thorup and Zadimoghaddam, arXiv:1608.01350). HAProxy's formula.

use super::Candidate;

/// Hundredths of a session.
const PERCENT: u64 = 100;

/// How many sessions each server may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Sessions that there is room for, in hundredths of those that there are.
    factor: u32,
    /// The sum of all weights.
    sum: u64,
    /// The weight of a server and of all before it, by its index.
    shares: Box<[(u64, u64)]>,
}

impl Bound {
    /// The bound of these servers; `None` without one.
    pub(super) fn new(servers: &[Candidate], factor: u32) -> Option<Self> {
        let last = servers.iter().map(|server| server.index).max()?;
        let mut shares = vec![(0, 0); last as usize + 1];
        let mut sum = 0;
        for server in servers {
            let weight = u64::from(server.eweight);
            shares[server.index as usize] = (weight, sum);
            sum += weight;
        }
        (factor > 0).then(|| Self {
            factor,
            sum,
            shares: shares.into(),
        })
    }

    /// Whether the server may have one more session than `load`, when the backend has `sessions` with this one.
    pub(super) fn has_room(&self, index: u32, load: u32, sessions: u32) -> bool {
        let room = u64::from(sessions) * u64::from(self.factor);
        let (each, rest) = {
            let room = room.div_ceil(PERCENT);
            (room / self.sum, room % self.sum)
        };
        let (weight, before) = self.shares[index as usize];
        // What is left is shared out in the order of the servers.
        let of_rest = (before + weight) * rest / self.sum - before * rest / self.sum;
        u64::from(load) < (weight * each + of_rest).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_shared_out_by_weight() {
        let server = |index, weight| Candidate {
            index,
            id: index + 1,
            key: 0,
            name: 0,
            weight,
            eweight: 16 * weight,
            written: weight,
            priority: 0,
            backup: false,
            usable: true,
            down: false,
        };
        let servers = [server(0, 1), server(2, 3)];
        let bound = Bound::new(&servers, 125).expect("a bound");
        let room = |index, sessions| {
            let mut loads = 0..1_000;
            loads.find(|&load| !bound.has_room(index, load, sessions))
        };
        // 125 % of 16 sessions are 20.
        assert_eq!((room(0, 16), room(2, 16)), (Some(5), Some(15)));
        // Of 2 sessions (125 % of 1, and up), the first server has none of its own and gets one all the same.
        assert_eq!((room(0, 1), room(2, 1)), (Some(1), Some(2)));
        for sessions in 1..500 {
            let sum = room(0, sessions).unwrap_or(0) + room(2, sessions).unwrap_or(0);
            assert!(sum >= sessions, "{sessions}: everyone finds room");
        }
        assert_eq!(Bound::new(&servers, 0), None);
        assert_eq!(Bound::new(&[], 125), None);
    }
}
