//! How a session ended: HAProxy's two letters, and the tables that hang on them.
//!
//! [`Termination`] is the only error of the data path. Log text, counters and whether another
//! server may be tried are read off it. The letters are those of HAProxy's `%ts`.

use std::io;

/// Who ended the session (first letter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// `-`: nobody, it ran to its end.
    Normal,
    /// `C`: the client aborted.
    Client,
    /// `S`: the server aborted or refused, or there was none.
    Server,
    /// `P`: the proxy refused it.
    Proxy,
    /// `R`: a resource of ours ran out.
    Resource,
    /// `I`: a mistake of ours.
    Internal,
    /// `D`: its server went down (`on-marked-down`).
    Down,
    /// `U`: a primary server came up (`on-marked-up`).
    Up,
    /// `K`: an operator, or the end of the process.
    Killed,
    /// `c`: the client was silent for too long.
    ClientTimeout,
    /// `s`: the server was silent for too long.
    ServerTimeout,
}

/// What the session was waiting for (second letter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// `-`: nothing, after the end.
    Done,
    /// `R`: data of the client, before a server was chosen.
    Request,
    /// `Q`: a place.
    Queue,
    /// `C`: the connection to the server.
    Connect,
    /// `D`: data of either side.
    Data,
    /// `L`: the last data to the client, the server having ended.
    Last,
}

/// How a session ended.
#[derive(Debug)]
pub struct Termination {
    /// Who.
    pub cause: Cause,
    /// In which phase.
    pub phase: Phase,
    /// What the system said, where it said anything.
    pub error: Option<io::Error>,
}

impl Termination {
    /// An end that no system error belongs to.
    pub fn new(cause: Cause, phase: Phase) -> Self {
        Self {
            cause,
            phase,
            error: None,
        }
    }

    /// The end that both sides agreed on.
    pub fn normal() -> Self {
        Self::new(Cause::Normal, Phase::Done)
    }

    /// An end caused by `error`.
    pub fn because(cause: Cause, phase: Phase, error: io::Error) -> Self {
        Self {
            cause,
            phase,
            error: Some(error),
        }
    }
}

impl Cause {
    /// HAProxy's first letter.
    pub fn letter(self) -> char {
        match self {
            Self::Normal => '-',
            Self::Client => 'C',
            Self::Server => 'S',
            Self::Proxy => 'P',
            Self::Resource => 'R',
            Self::Internal => 'I',
            Self::Down => 'D',
            Self::Up => 'U',
            Self::Killed => 'K',
            Self::ClientTimeout => 'c',
            Self::ServerTimeout => 's',
        }
    }
}

impl Phase {
    /// HAProxy's second letter.
    pub fn letter(self) -> char {
        match self {
            Self::Done => '-',
            Self::Request => 'R',
            Self::Queue => 'Q',
            Self::Connect => 'C',
            Self::Data => 'D',
            Self::Last => 'L',
        }
    }
}
