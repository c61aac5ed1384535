//! How a session ended: HAProxy's two letters, and the tables that depend on them.
//!
//! [`Termination`] is the only error of the data path. Log text and counters follow from it. The letters are
//! those of HAProxy's `%ts`.

use crate::proto::proxy::Problem;
use std::io;

/// Who ended the session (first letter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// `-`: nobody; both sides ended it.
    Normal,
    /// `C`: the client aborted.
    Client,
    /// `S`: the server aborted or refused, or there was none.
    Server,
    /// `P`: the proxy refused it.
    Proxy,
    /// `L`: the proxy has answered it itself.
    Local,
    /// `R`: this machine ran short of something.
    Resource,
    /// `I`: an internal error.
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
    /// `-`: nothing; it was over.
    Done,
    /// `R`: data of the client, before a server was chosen.
    Request,
    /// `Q`: a slot.
    Queue,
    /// `C`: the connection to the server.
    Connect,
    /// `D`: data of either side.
    Data,
    /// `L`: the last data to the client, after the server has ended.
    Last,
}

/// Why a client's PROXY header did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFailure {
    /// The client has ended before its first byte.
    Empty,
    /// The client's connection has failed.
    Aborted,
    /// It was waited for long enough.
    TimedOut,
    /// The client has ended within the header.
    Truncated,
    /// What came is none.
    Refused(Problem),
}

impl HeaderFailure {
    /// HAProxy's words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Empty => "Connection closed while waiting for PROXY protocol header",
            Self::Aborted => "Connection error while waiting for PROXY protocol header",
            Self::TimedOut => "Timeout while waiting for PROXY protocol header",
            Self::Truncated => "Truncated PROXY protocol header received",
            Self::Refused(problem) => problem.text(),
        }
    }

    /// Whether the client has sent nothing: `dontlognull` leaves its line out.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Empty | Self::Aborted)
    }
}

/// How a session ended.
#[derive(Debug)]
pub struct Termination {
    /// Who ended it.
    pub cause: Cause,
    /// What it was waiting for.
    pub phase: Phase,
    /// The system's error, if there was one.
    pub error: Option<io::Error>,
}

impl Termination {
    /// An end without a system error.
    pub const fn new(cause: Cause, phase: Phase) -> Self {
        Self {
            cause,
            phase,
            error: None,
        }
    }

    /// An end by both sides.
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

/// Which counters an end adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCounters {
    /// None.
    Nothing,
    /// `ereq` of the frontend.
    RequestError,
    /// `cli_abrt`.
    ClientAbort,
    /// `srv_abrt`.
    ServerAbort,
    /// `srv_abrt` and `eresp`.
    ServerError,
    /// `eint`.
    InternalError,
}

impl Termination {
    /// The counters by HAProxy's rule, as observed with 3.5 (`process_stream` in its `src/stream.c`). An error
    /// of the server's connection counts as an invalid response, its silence does not. A client that sends FIN
    /// while a server is being tried is not counted; one that resets its connection then is.
    pub fn counters(&self) -> EndCounters {
        match (self.cause, self.phase) {
            (Cause::Client, Phase::Request) => EndCounters::RequestError,
            (Cause::Client, Phase::Queue | Phase::Connect) if self.error.is_none() => {
                EndCounters::Nothing
            }
            (Cause::Client | Cause::ClientTimeout, _) => EndCounters::ClientAbort,
            (Cause::Server, Phase::Data | Phase::Last) => EndCounters::ServerError,
            (Cause::ServerTimeout, Phase::Data | Phase::Last) => EndCounters::ServerAbort,
            (Cause::Internal, _) => EndCounters::InternalError,
            _ => EndCounters::Nothing,
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
            Self::Local => 'L',
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 48: the counters that HAProxy 3.5 incremented for each of these ends.
    #[test]
    fn fault_48_ends_are_counted_as_by_haproxy() {
        use {Cause as C, EndCounters as E, Phase as P};
        for (cause, phase, expected) in [
            (C::Normal, P::Done, E::Nothing),
            (C::Client, P::Request, E::RequestError),
            (C::Client, P::Queue, E::Nothing),
            (C::Client, P::Connect, E::Nothing),
            (C::Client, P::Data, E::ClientAbort),
            (C::ClientTimeout, P::Data, E::ClientAbort),
            (C::Server, P::Connect, E::Nothing),
            (C::ServerTimeout, P::Connect, E::Nothing),
            (C::Server, P::Data, E::ServerError),
            (C::Server, P::Last, E::ServerError),
            (C::ServerTimeout, P::Data, E::ServerAbort),
            (C::ServerTimeout, P::Last, E::ServerAbort),
            (C::Killed, P::Data, E::Nothing),
            (C::Down, P::Data, E::Nothing),
            (C::Resource, P::Connect, E::Nothing),
            (C::Internal, P::Data, E::InternalError),
        ] {
            let found = Termination::new(cause, phase).counters();
            assert_eq!(found, expected, "{}{}", cause.letter(), phase.letter());
        }
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let reset = Termination::because(Cause::Client, Phase::Connect, reset);
        assert_eq!(reset.counters(), EndCounters::ClientAbort);
    }
}
