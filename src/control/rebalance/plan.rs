//! How many sessions each server would have by its share, and of how many sessions another one lacks. Pure.

/// A server that takes new sessions, or one of which sessions may come back to those that do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Its sessions.
    pub(super) sessions: u32,
    /// Its weight in force; 0: it takes no new session.
    pub(super) weight: u32,
    /// Most sessions that it may have.
    pub(super) most: u32,
}

/// How many sessions a server would have: as many as its weight gives it, rounded down and up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Target {
    pub(super) least: u32,
    pub(super) most: u32,
}

/// What each server would have of `total` sessions. What one may not have, because of its limit, is shared out among the
/// others.
pub(super) fn targets(loads: &[Load], total: u64) -> Vec<Target> {
    let takes = |load: &Load| load.weight > 0;
    let mut order: Vec<usize> = (0..loads.len()).filter(|at| takes(&loads[*at])).collect();
    // Those that reach their limit first come first.
    order.sort_by(|one, other| {
        let (one, other) = (&loads[*one], &loads[*other]);
        let of = |load: &Load, by: &Load| u64::from(load.most) * u64::from(by.weight);
        of(one, other).cmp(&of(other, one))
    });
    let mut left = total;
    let mut weights: u64 = loads.iter().map(|load| u64::from(load.weight)).sum();
    let mut targets = vec![Target::default(); loads.len()];
    for at in order {
        let (weight, most) = (u64::from(loads[at].weight), u64::from(loads[at].most));
        let share = left * weight;
        if share > most * weights {
            targets[at] = Target {
                least: loads[at].most,
                most: loads[at].most,
            };
            left -= most;
            weights -= weight;
        } else {
            targets[at] = Target {
                least: saturated(share / weights),
                most: saturated(share.div_ceil(weights)),
            };
        }
    }
    targets
}

/// Whether each server has what it would have, to within so many percent.
pub(super) fn is_within(loads: &[Load], targets: &[Target], percent: u64) -> bool {
    loads.iter().zip(targets).all(|(load, target)| {
        let sessions = 100 * u64::from(load.sessions);
        let (least, most) = (u64::from(target.least), u64::from(target.most));
        sessions >= least * (100 - percent) && sessions <= most * (100 + percent)
    })
}

/// How many sessions a server lacks.
pub(super) fn lacks(load: &Load, target: Target) -> u32 {
    target.least.saturating_sub(load.sessions)
}

/// How many sessions of each server others lack: none has fewer without them than it would have, and together they are no
/// more than what the others lack.
pub(super) fn movable(loads: &[Load], targets: &[Target]) -> Vec<u32> {
    let both = || loads.iter().zip(targets);
    let surplus: Vec<u32> = both()
        .map(|(load, target)| load.sessions.saturating_sub(target.most))
        .collect();
    let lack = both().map(|(load, target)| u64::from(lacks(load, *target)));
    parts(&surplus, lack.sum())
}

/// Of these numbers in the same proportion so much that the sum is `most`, or all.
pub(super) fn parts(numbers: &[u32], most: u64) -> Vec<u32> {
    let sum: u64 = numbers.iter().map(|it| u64::from(*it)).sum();
    if sum <= most {
        return numbers.to_vec();
    }
    let part = |number: &u32| saturated(u64::from(*number) * most / sum);
    let mut parts: Vec<u32> = numbers.iter().map(part).collect();
    let given: u64 = parts.iter().map(|it| u64::from(*it)).sum();
    // What rounding has left goes to those that have the most left.
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(numbers[*at] - parts[*at]));
    for (at, _) in order.into_iter().zip(given..most) {
        parts[at] += 1;
    }
    parts
}

fn saturated(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
