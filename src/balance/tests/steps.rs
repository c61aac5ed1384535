//! What happens to a backend whose servers are chosen by load: the same steps for HAProxy and for rlb.
//! `tests/it/balance_leastconn.rs` takes them with both.

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A client comes.
    Come,
    /// One of the clients leaves: the one at this position, counted round.
    Leave(usize),
    /// One of the servers goes into maintenance or comes back; not the first one.
    Toggle(usize),
    /// One of the servers gets this weight.
    Weigh(usize, u32),
}

/// The step with this number. Most steps bring a client, so that their number grows.
pub(crate) fn step(number: u32) -> Step {
    // The constant of Fibonacci hashing: neighbours are far apart.
    let mut spread = (number + 1).wrapping_mul(0x9e37_79b9);
    spread = (spread ^ (spread >> 15)).wrapping_mul(0x85eb_ca6b);
    let (kind, which) = (spread >> 16 & 0x7f, (spread & 0xffff) as usize);
    match kind {
        0..=69 => Step::Come,
        70..=119 => Step::Leave(which),
        120..=123 => Step::Toggle(which),
        _ => Step::Weigh(which, 1 + (spread >> 24)),
    }
}
