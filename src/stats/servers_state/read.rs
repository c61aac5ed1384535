//! Reads what [`super::whole`] has written, and files of HAProxy.

use crate::state::{AdminState, OperState, ServerState};
use std::time::Duration;

/// The only version of the format.
const VERSION: &str = "1";
/// Columns that are needed; HAProxy has added more at the end.
const COLUMNS_MIN: usize = 19;
/// `CHK_ST_CONFIGURED` of `srv_check_state`.
const CHECKED: u8 = 2;

/// The servers of a text. Lines that are not valid are left out: checks find out what is not known of a server.
pub fn read(text: &str) -> Vec<ServerState> {
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return Vec::new();
    }
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(server)
        .collect()
}

fn server(line: &str) -> Option<ServerState> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    if columns.len() < COLUMNS_MIN {
        return None;
    }
    let number = |index: usize| columns[index].parse::<u32>().ok();
    let small = |index: usize| columns[index].parse::<u8>().ok();
    let given = |index: usize| columns.get(index).filter(|text| **text != "-");
    let check = (small(13)? & CHECKED != 0).then(|| {
        let port = columns.get(21).and_then(|port| port.parse().ok());
        let address = given(22).and_then(|address| address.parse().ok());
        (port.unwrap_or(0), address)
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
        weight: number(7)?,
        configured_weight: number(8)?,
        lasting: Duration::from_secs(columns[9].parse().ok()?),
        health: number(12)?,
        name: given(17).map(|name| (*name).into()),
        port: columns[18].parse().ok()?,
        check,
    })
}
