//! What a workload changes in the configurations of rlb and of HAProxy alike.

/// The change, beside the configuration that the other workloads have ([`PLAIN`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    pub balance: Balance,
    /// Servers, under names of their own; those of the load share their ports.
    pub servers: u16,
    /// Whether servers are checked. Not where there are many: the checks of a thousand would cost as much as the
    /// connections.
    pub checks: bool,
    /// Most sessions of a server, further ones wait; 0: no limit.
    pub server_maxconn: u32,
    /// Most sessions of the proxy.
    pub maxconn: u32,
    /// Whether clients and the proxy begin their connections with a PROXY header of version 2.
    pub proxy_header: bool,
    /// Whether there is a log line for each session.
    pub logs: bool,
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    RoundRobin,
    LeastConn,
    Source,
    /// Consistent hashing of the client's address: Maglev's table in rlb, the ring in HAProxy.
    Consistent,
    /// The better of two that are drawn: by smoothed connect times in rlb, by sessions in HAProxy.
    OfTwo,
}

/// The configuration of the workloads that change nothing.
pub const PLAIN: Setting = Setting {
    balance: Balance::RoundRobin,
    servers: 3,
    checks: true,
    server_maxconn: 0,
    maxconn: 9_400,
    proxy_header: false,
    logs: true,
};

/// Three servers, chosen in another way.
pub const fn balance(balance: Balance) -> Setting {
    Setting { balance, ..PLAIN }
}

/// The server with the fewest sessions of this many.
pub const fn leastconn(servers: u16) -> Setting {
    Setting {
        balance: Balance::LeastConn,
        servers,
        checks: false,
        ..PLAIN
    }
}

/// One server that takes this many sessions, while others wait.
pub const fn queue(server_maxconn: u32, maxconn: u32) -> Setting {
    Setting {
        servers: 1,
        server_maxconn,
        maxconn,
        ..PLAIN
    }
}

/// A PROXY header in and out.
pub const PROXY_HEADER: Setting = Setting {
    proxy_header: true,
    ..PLAIN
};

/// No log lines.
pub const NO_LOG: Setting = Setting {
    logs: false,
    ..PLAIN
};

impl Balance {
    /// rlb's word.
    pub fn of_rlb(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::LeastConn => "leastconn",
            Self::Source => "source",
            Self::Consistent => "maglev",
            Self::OfTwo => "ewma",
        }
    }

    /// The end of HAProxy's line.
    pub fn of_haproxy(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::LeastConn => "leastconn",
            Self::Source => "source",
            Self::Consistent => "source\n  hash-type consistent",
            Self::OfTwo => "random(2)",
        }
    }
}
