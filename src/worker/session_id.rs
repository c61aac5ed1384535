//! The number of a session. The worker that accepts it gives the number; every thread may use it.

use std::fmt;

/// Identifies a session for the life of the process. Written `0x2a`, where HAProxy writes a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// The `count`th session of worker `worker` of `workers`. Counts begin at 1, so no number is 0.
    pub(crate) fn new(count: u64, (worker, workers): (usize, usize)) -> Self {
        Self(count * workers as u64 + worker as u64)
    }

    /// The worker that has the session, of `workers`.
    pub fn worker(self, workers: usize) -> usize {
        usize::try_from(self.0 % workers.max(1) as u64).unwrap_or(0)
    }

    /// Reads `0x2a` or `42`. 0 and everything else is no session's number.
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains('+') {
            return None;
        }
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        number.ok().filter(|&number| number != 0).map(Self)
    }

    /// As a number, HAProxy's `id`.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_names_its_worker_and_is_never_zero() {
        for workers in 1..5 {
            for worker in 0..workers {
                for count in 1..4 {
                    let id = SessionId::new(count, (worker, workers));
                    assert_eq!(id.worker(workers), worker);
                    assert_ne!(id.number(), 0);
                    assert_eq!(SessionId::parse(&id.to_string()), Some(id));
                    assert_eq!(SessionId::parse(&id.number().to_string()), Some(id));
                }
            }
        }
        assert_eq!(SessionId(42).to_string(), "0x2a");
        for wrong in [
            "",
            "0",
            "0x",
            "0x0",
            "x2a",
            "0x+2a",
            "+42",
            "-1",
            "s1",
            "0x10000000000000000",
        ] {
            assert_eq!(SessionId::parse(wrong), None, "{wrong}");
        }
    }
}
