//! What a proxy itself counts, in HAProxy's columns: whether a setting has had the effect that it is measured for.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The statistics of the backend and its servers.
#[derive(Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Servers that have had a session.
    pub used: u64,
    /// Sessions that wait.
    pub queued: u64,
    /// Most that have waited.
    pub most_queued: u64,
}

impl Statistics {
    /// Asks over the socket for commands.
    pub fn read(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).context("the socket for commands")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"show stat\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Self::of(&text)
    }

    /// Those in the answer to `show stat`.
    fn of(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let head = lines.next().context("no statistics")?;
        let names: Vec<&str> = head.trim_start_matches("# ").split(',').collect();
        let at = |name: &str| {
            let found = names.iter().position(|it| *it == name);
            found.with_context(|| format!("no column {name}: {text}"))
        };
        let (server, sessions) = (at("svname")?, at("stot")?);
        let (queued, most_queued) = (at("qcur")?, at("qmax")?);
        let mut statistics = Self {
            used: 0,
            queued: 0,
            most_queued: 0,
        };
        for line in lines {
            let values: Vec<&str> = line.split(',').collect();
            let (Some(&"load"), Some(name)) = (values.first(), values.get(server)) else {
                continue;
            };
            let value = |at: usize| values.get(at).and_then(|it| it.parse().ok()).unwrap_or(0);
            match *name {
                "FRONTEND" => {}
                // Sessions wait in the backend's queue: nothing binds them to a server.
                "BACKEND" => {
                    statistics.queued = value(queued);
                    statistics.most_queued = value(most_queued);
                }
                _ => statistics.used += u64::from(value(sessions) > 0),
            }
        }
        Ok(statistics)
    }
}

#[cfg(test)]
mod tests {
    use super::Statistics;

    #[test]
    fn columns_are_found_by_their_names() {
        let text = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,\n\
            load,FRONTEND,,,9,9,9400,70,\n\
            load,s9101,0,0,8,8,8,60,\n\
            load,s9102,0,0,0,0,8,0,\n\
            load,BACKEND,56,57,9,9,940,70,\n\
            other,s1,3,3,3,3,3,3,\n\n";
        let statistics = Statistics::of(text).unwrap();
        assert_eq!(
            statistics,
            Statistics {
                used: 1,
                queued: 56,
                most_queued: 57
            }
        );
        assert!(Statistics::of("Unknown command").is_err());
    }
}
