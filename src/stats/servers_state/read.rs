//! Reads what [`super::for_next_process`] has written, also by other versions, and files of HAProxy.

use super::{EJECTED, FLAPS, HELD, SINCE};
use crate::config::WEIGHT_MAX;
use crate::state::{AdminState, Flaps, OperState, ServerState};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// The only version of the format.
const VERSION: &str = "1";
/// Columns that are needed; HAProxy has added more at the end.
const COLUMNS_MIN: usize = 19;
/// Columns of `show servers state`, behind which further words may follow.
const COLUMNS: usize = 25;
/// `CHK_ST_CONFIGURED` of `srv_check_state`.
const CHECKED: u8 = 2;

/// The servers of a text. Lines that are not valid are left out: checks find out what is not known of a server. `now` is
/// `monotonic` by the monotonic clock.
pub fn read(text: &str, clock: (Instant, Duration)) -> Vec<ServerState> {
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return Vec::new();
    }
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| server(line, clock))
        .collect()
}

/// The servers of a file, and those whose lines are not valid. The first line for a server counts.
///
/// # Errors
/// Why nothing of the file can be used.
pub fn read_file(
    text: &str,
    clock: (Instant, Duration),
) -> Result<(Vec<ServerState>, Vec<String>), Unreadable> {
    if text.is_empty() {
        return Err(Unreadable::Empty);
    }
    let mut lines = text.split_inclusive('\n');
    if lines.next().and_then(|line| line.strip_suffix('\n')) != Some(VERSION) {
        return Err(Unreadable::Version);
    }
    let (mut servers, mut wrong) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for (number, line) in (1..).zip(lines) {
        if line
            .trim_start_matches([' ', '\t'])
            .starts_with(['#', '\n'])
        {
            continue;
        }
        let columns: Vec<&str> = line.split_whitespace().collect();
        if !line.ends_with('\n') || columns.len() < COLUMNS_MIN {
            return Err(Unreadable::Line(number));
        }
        let (backend, name) = (columns[1], columns[3]);
        if !seen.insert((backend, name)) {
            continue;
        }
        match server(line, clock) {
            Some(server) => servers.push(server),
            None => wrong.push(format!("{backend}/{name}")),
        }
    }
    Ok((servers, wrong))
}

/// Why a file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It has no byte.
    Empty,
    /// Its first line is not the version of the format.
    Version,
    /// This line is cut off; the one behind the version is the first.
    Line(usize),
}

fn server(line: &str, (now, monotonic): (Instant, Duration)) -> Option<ServerState> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if columns.len() < COLUMNS_MIN {
        return None;
    }
    let number = |index: usize| columns[index].parse::<u32>().ok();
    let weight = |index| number(index).filter(|weight| i64::from(*weight) <= WEIGHT_MAX);
    let small = |index: usize| columns[index].parse::<u8>().ok();
    let given = |index: usize| columns.get(index).filter(|text| **text != "-");
    let check = (small(13)? & CHECKED != 0).then(|| {
        let port = columns.get(21).and_then(|port| port.parse().ok());
        let address = given(22).and_then(|address| address.parse().ok());
        (port.unwrap_or(0), address)
    });
    let word = |name: &str| {
        let mut words = columns
            .iter()
            .skip(COLUMNS)
            .filter_map(|word| word.split_once('='));
        words.find_map(|(found, value)| (found == name).then_some(value))
    };
    let seconds = Duration::from_secs(columns[9].parse().ok()?);
    let began = word(SINCE).and_then(|began| began.parse().ok());
    let lasting = began.map_or(seconds, |began| {
        monotonic.saturating_sub(Duration::from_nanos(began))
    });
    Some(ServerState {
        backend: columns[1].into(),
        server: columns[3].into(),
        address: given(4).and_then(|address| address.parse().ok()),
        oper: match small(5)? {
            0 => OperState::Stopped,
            1 => OperState::Starting,
            2 => OperState::Running,
            3 => OperState::Stopping,
            _ => return None,
        },
        admin: AdminState(small(6)?),
        weight: weight(7)?,
        configured_weight: weight(8)?,
        since: now.checked_sub(lasting).unwrap_or(now),
        ejected: word(EJECTED) == Some("1"),
        flaps: Flaps {
            count: word(FLAPS).and_then(|it| it.parse().ok()).unwrap_or(0),
            held: word(HELD) == Some("1"),
        },
        health: number(12)?,
        name: given(17).map(|name| (*name).into()),
        port: columns[18].parse().ok()?,
        check,
    })
}
