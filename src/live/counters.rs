//! The counters of one frontend, backend or server in one shard, named as in HAProxy's statistics.
//!
//! One struct for all three kinds: a column that a kind does not have stays zero and is not printed, and the
//! code that counts needs no generics.

use super::rate::Rate;
use super::sharded::{Counter, Maximum};
use super::timing::Average;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one thread has counted for one object.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Connections accepted, before any rule (frontend: `conn_tot`).
    pub conn_tot: Counter,
    /// Sessions (`stot`); for a server those assigned to it.
    pub stot: Counter,
    /// Times chosen by the balancing algorithm (`lbtot`).
    pub lbtot: Counter,
    /// Bytes from clients (`bin`).
    pub bin: Counter,
    /// Bytes to clients (`bout`).
    pub bout: Counter,
    /// Request errors: the client left before a server was chosen (`ereq`).
    pub ereq: Counter,
    /// Sessions that reached no server (`econ`).
    pub econ: Counter,
    /// Response errors, server aborts included (`eresp`).
    pub eresp: Counter,
    /// Retries on the same server (`wretr`).
    pub wretr: Counter,
    /// Moves to another server, counted on the one that was left (`wredis`).
    pub wredis: Counter,
    /// Transfers aborted by the client (`cli_abrt`).
    pub cli_abrt: Counter,
    /// Transfers aborted by the server (`srv_abrt`).
    pub srv_abrt: Counter,
    /// Connection attempts to servers (`connect`).
    pub connect: Counter,
    /// Internal errors, panics included (`eint`).
    pub eint: Counter,
    /// Failed checks while the server was not down (`chkfail`); control thread only.
    pub chkfail: Counter,
    /// Changes from up to down (`chkdown`); control thread only.
    pub chkdown: Counter,
    /// Times that as many connects in a row have failed as `error-limit` says (`hanafail`); control thread only.
    pub hanafail: Counter,
    /// Sessions that were ended so that other servers have their shares again (`rebalance`); control thread only.
    pub rebalanced: Counter,
    /// Most concurrent sessions (`smax`).
    pub smax: Maximum,
    /// Most sessions that waited at once (`qmax`).
    pub qmax: Maximum,
    /// Longest time in queues and without a usable server, ms (`qtime_max`).
    pub qtime_max: Maximum,
    /// Longest connect time, ms (`ctime_max`).
    pub ctime_max: Maximum,
    /// Longest session, ms (`ttime_max`).
    pub ttime_max: Maximum,
    /// Sessions per second (`rate`).
    pub rate: Rate,
    /// Connections per second (frontend: `conn_rate`).
    pub conn_rate: Rate,
    /// Time in queues and without a usable server, ms (`qtime`).
    pub qtime: Average,
    /// Time to connect, ms (`ctime`).
    pub ctime: Average,
    /// Time of a whole session, ms (`ttime`).
    pub ttime: Average,
    /// When the last session was assigned, in ms of the process's clock plus one; 0: never
    /// (`lastsess`).
    pub last_session: AtomicU64,
}

/// What `clear counters` clears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clear {
    /// The maxima of all objects.
    Maxima,
    /// All counters of all objects.
    All,
    /// All counters of the server with this [`crate::live::ServerLive::uid`].
    Server(u64),
}

impl Traffic {
    /// Starts all counters again. Called by the writer of the shard.
    pub fn clear(&self) {
        for (_, counter) in COUNTERS {
            counter(self).clear();
        }
        self.clear_maxima();
        self.rate.clear();
        self.conn_rate.clear();
        self.qtime.clear();
        self.ctime.clear();
        self.ttime.clear();
        self.last_session.store(0, Relaxed);
    }

    /// Starts the maxima again. Called by the writer of the shard.
    pub fn clear_maxima(&self) {
        for (_, maximum) in MAXIMA {
            maximum(self).clear();
        }
    }
}

/// A counter of [`Traffic`] by its name.
pub type NamedCounter = (&'static str, fn(&Traffic) -> &Counter);

/// A maximum of [`Traffic`] by its name.
pub type NamedMaximum = (&'static str, fn(&Traffic) -> &Maximum);

/// Every counter.
pub const COUNTERS: [NamedCounter; 18] = [
    ("conn_tot", |traffic| &traffic.conn_tot),
    ("stot", |traffic| &traffic.stot),
    ("lbtot", |traffic| &traffic.lbtot),
    ("bin", |traffic| &traffic.bin),
    ("bout", |traffic| &traffic.bout),
    ("ereq", |traffic| &traffic.ereq),
    ("econ", |traffic| &traffic.econ),
    ("eresp", |traffic| &traffic.eresp),
    ("wretr", |traffic| &traffic.wretr),
    ("wredis", |traffic| &traffic.wredis),
    ("cli_abrt", |traffic| &traffic.cli_abrt),
    ("srv_abrt", |traffic| &traffic.srv_abrt),
    ("connect", |traffic| &traffic.connect),
    ("eint", |traffic| &traffic.eint),
    ("chkfail", |traffic| &traffic.chkfail),
    ("chkdown", |traffic| &traffic.chkdown),
    ("hanafail", |traffic| &traffic.hanafail),
    ("rebalanced", |traffic| &traffic.rebalanced),
];

/// Every maximum.
pub const MAXIMA: [NamedMaximum; 5] = [
    ("smax", |traffic| &traffic.smax),
    ("qmax", |traffic| &traffic.qmax),
    ("qtime_max", |traffic| &traffic.qtime_max),
    ("ctime_max", |traffic| &traffic.ctime_max),
    ("ttime_max", |traffic| &traffic.ttime_max),
];
