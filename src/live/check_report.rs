//! The last result of a server's health check, as the statistics show it.

use std::time::Duration;

/// HAProxy's check status codes (its `enum healthcheck_status`), with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CheckStatus {
    /// `UNK`
    Unknown = 0,
    /// `INI`: configured, no result yet.
    Initializing = 1,
    /// `SOCKERR`: a local failure, or a reset after the connection stood.
    SocketError = 5,
    /// `L4OK`
    L4Ok = 6,
    /// `L4TOUT`
    L4Timeout = 7,
    /// `L4CON`: refused or unreachable.
    L4Con = 8,
}

impl CheckStatus {
    /// The code, as in the `check_status` column.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "UNK",
            Self::Initializing => "INI",
            Self::SocketError => "SOCKERR",
            Self::L4Ok => "L4OK",
            Self::L4Timeout => "L4TOUT",
            Self::L4Con => "L4CON",
        }
    }

    /// The text, as in the `check_desc` column and in log lines.
    pub fn description(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Initializing => "Initializing",
            Self::SocketError => "Socket error",
            Self::L4Ok => "Layer4 check passed",
            Self::L4Timeout => "Layer4 timeout",
            Self::L4Con => "Layer4 connection problem",
        }
    }
}

/// What the statistics show of a server's last check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Verdict of the last finished check.
    pub status: CheckStatus,
    /// How long it took; `None` before the first.
    pub duration: Option<Duration>,
    /// What the system said, in HAProxy's words; empty for a passed check.
    pub info: String,
    /// One is running now (`* ` before the status).
    pub in_progress: bool,
}

impl Default for CheckReport {
    fn default() -> Self {
        Self {
            status: CheckStatus::Initializing,
            duration: None,
            info: String::new(),
            in_progress: false,
        }
    }
}
