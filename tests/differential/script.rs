//! The script of a configuration: its comments that begin with `#>`, one statement each.
//!
//! | statement | meaning |
//! |---|---|
//! | `servers a b=refuses c=dark d=unix` | servers; `${A}` is the address of `a`, `${A_PORT}` its port |
//! | `binds web v6=tcp6 many=range sock=unix` | addresses that clients connect to: `${WEB}`, `${WEB_PORT}` |
//! | `log unix`, `log none` | instead of UDP: a unix socket; no session is logged. `${LOG}` is its address |
//! | `unlogged` | some sessions have no line; the last connection must have one |
//! | `set NAME VALUE` | a variable |
//! | `counted` | every session is over in the counters before the next one begins: they decide what is chosen |
//! | `repeat N`, `done` | the statements between them N times |
//! | `wait BACKEND/SERVER STATUS` | until `show stat` shows this status |
//! | `stop a`, `start a` | the server refuses; it serves again |
//! | `ask COMMAND` | a command of the runtime socket; its answer is compared |
//! | `N KIND web` | N connections, one after another ([`Kind`]); of `mix` each has a kind of its own |
//! | `N hold web` | N connections at once, which end in the order in which they began |
//! | `N full web` | the same, and one more that is served when the first has ended |
//! | `cut N web COMMAND` | N connections at once, which the command ends |
//! | `N crowd web` | N connections of eight clients at a time |
//!
//! These are for clients that stay while other steps run, each of which the script must end:
//!
//! | statement | meaning |
//! |---|---|
//! | `N come web` | N clients, one after another, which are served at once |
//! | `N queue web BACKEND/SERVER` | N that wait in the queue of this row (`qcur`), and send nothing before they are served |
//! | `N queue web BACKEND/SERVER asks` | the same, but they have sent what they want |
//! | `count BACKEND/SERVER COLUMN N` | until `show stat` shows this number |
//! | `served N` | the N that have waited longest are served by now |
//! | `end N` | the N that came first end, one after another; one that has waited is served before |
//! | `leave N`, `leave N reset` | the N that have waited longest leave, one after another |
//! | `late N` | the N that have waited longest are ended by the balancer |
//!
//! `${SOCKET}` is the path of the runtime socket.

use std::path::Path;

/// What a client and its server do on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The server sends back what the client sends, and the client ends.
    Echo,
    /// The same with a fixed number of bytes, so that it does not matter which server it is.
    Ping,
    /// The server answers and ends.
    Answer,
    /// The client ends what it sends; the server answers then.
    ClientHalfCloses,
    /// The server ends what it sends; the client goes on.
    ServerHalfCloses,
    /// The client resets after the server's first answer.
    ClientResets,
    /// The server resets after the client's second word.
    ServerResets,
    /// The client connects and ends.
    Null,
    /// The client reads a long answer slowly.
    SlowReader,
    /// The client sends byte after byte, each after the answer to the last.
    SlowWriter,
    /// Many bytes in both directions.
    Bulk,
    /// Neither side sends anything after the server's first answer.
    Idle,
    /// The client ends what it sends; the server sends nothing, and does not end.
    IdleServer,
    /// The server ends what it sends; the client sends nothing, and does not end.
    IdleClient,
}

/// The kinds by their words.
const KINDS: &[(&str, Kind)] = &[
    ("echo", Kind::Echo),
    ("ping", Kind::Ping),
    ("answer", Kind::Answer),
    ("half-close", Kind::ClientHalfCloses),
    ("server-half-close", Kind::ServerHalfCloses),
    ("reset", Kind::ClientResets),
    ("server-reset", Kind::ServerResets),
    ("null", Kind::Null),
    ("slow-reader", Kind::SlowReader),
    ("slow-writer", Kind::SlowWriter),
    ("bulk", Kind::Bulk),
    ("idle", Kind::Idle),
    ("idle-server", Kind::IdleServer),
    ("idle-client", Kind::IdleClient),
];

/// The kinds of a `mix`, each with its share of 100.
const MIX: &[(Kind, u32)] = &[
    (Kind::Echo, 40),
    (Kind::Answer, 15),
    (Kind::ClientHalfCloses, 15),
    (Kind::ServerHalfCloses, 8),
    (Kind::ClientResets, 7),
    (Kind::ServerResets, 7),
    (Kind::SlowWriter, 3),
    (Kind::SlowReader, 1),
    (Kind::Bulk, 4),
];

/// Most bytes of a connection that is no bulk.
const SIZE_MAX: usize = 4000;

/// Bytes of a connection that moves many.
const SIZE_BULK: usize = 200_000;

/// Bytes that a slow reader gets: more than the buffers on the way hold.
const SIZE_SLOW: usize = 1_500_000;

/// Bytes of a ping.
const SIZE_PING: usize = 100;

/// A connection to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) kind: Kind,
    /// Bytes that are sent after the first words.
    pub(crate) size: usize,
}

/// Whether a server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Over TCP.
    Tcp,
    /// Over TCP on `::1`.
    Tcp6,
    /// Over a unix socket.
    Unix,
    /// Its port refuses.
    Refuses,
    /// Its port does not answer.
    Dark,
}

/// An address that clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// A port of 127.0.0.1.
    Tcp,
    /// A port of `::1`.
    Tcp6,
    /// Two neighbouring ports, which clients use in turn.
    Range,
    /// A unix socket.
    Unix,
}

/// Where the balancer sends its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Log {
    /// To a UDP port.
    Udp,
    /// To a unix socket.
    Unix,
    /// No session is logged.
    None,
}

/// How a client leaves a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It ends its connection.
    End,
    /// It resets it.
    Reset,
}

/// A step of the script.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Waits for a status: backend, server, status.
    Wait(String, String, String),
    /// Makes a server refuse.
    Stop(String),
    /// Makes it serve again.
    Start(String),
    /// Sends a command to the runtime socket.
    Ask(String),
    /// Connections one after another.
    Sequence(String, Vec<Connection>),
    /// Connections at once, and whether one more waits for the end of the first.
    Hold(String, usize, bool),
    /// Connections at once that a command of the runtime socket ends: bind, number, command.
    Cut(String, usize, String),
    /// Connections of several clients at a time.
    Crowd(String, Vec<Connection>),
    /// Waits for a number: row, column, number.
    Count(String, String, u64),
    /// Clients that stay and are served.
    Come(String, usize),
    /// Clients that wait: bind, number, row, whether they have sent their order.
    Queue(String, usize, String, bool),
    /// So many of them are served.
    Served(usize),
    /// So many that stay end.
    End(usize),
    /// So many that wait leave.
    Leave(usize, Leave),
    /// So many that wait are ended.
    Late(usize),
}

/// A configuration and its script.
#[derive(Debug)]
pub(crate) struct Script {
    /// The text of the configuration.
    pub(crate) text: String,
    pub(crate) servers: Vec<(String, Serves)>,
    pub(crate) binds: Vec<(String, Bind)>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) log: Log,
    /// Every session has a line in the log.
    pub(crate) all_logged: bool,
    /// Every session is over in the counters before the next one begins.
    pub(crate) counted: bool,
    pub(crate) steps: Vec<Step>,
    /// Where the open `repeat` begins, and how often it runs.
    repeat: Option<(usize, usize)>,
}

impl Script {
    /// Reads a configuration; panics where it breaks the rules above.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| {
            panic!("{}: {error}", path.display());
        });
        let mut script = Self {
            text: String::new(),
            servers: Vec::new(),
            binds: Vec::new(),
            variables: Vec::new(),
            log: Log::Udp,
            all_logged: true,
            counted: false,
            steps: Vec::new(),
            repeat: None,
        };
        // The same for every run of a configuration.
        let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut random = fastrand::Rng::with_seed(seed);
        for line in text.lines().filter_map(|line| line.strip_prefix("#>")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            script.statement(&words, &mut random);
        }
        assert_eq!(script.repeat, None, "no `done` after `repeat`");
        script.text = text;
        script
    }

    fn statement(&mut self, words: &[&str], random: &mut fastrand::Rng) {
        match words {
            ["servers", servers @ ..] => {
                self.servers = named(servers, |word| match word {
                    "" => Serves::Tcp,
                    "tcp6" => Serves::Tcp6,
                    "unix" => Serves::Unix,
                    "refuses" => Serves::Refuses,
                    "dark" => Serves::Dark,
                    _ => panic!("a server that {word}"),
                });
            }
            ["binds", binds @ ..] => {
                self.binds = named(binds, |word| match word {
                    "" => Bind::Tcp,
                    "tcp6" => Bind::Tcp6,
                    "range" => Bind::Range,
                    "unix" => Bind::Unix,
                    _ => panic!("a bind of {word}"),
                });
            }
            ["log", "unix"] => self.log = Log::Unix,
            ["log", "none"] => {
                self.log = Log::None;
                self.all_logged = false;
            }
            ["unlogged"] => self.all_logged = false,
            ["counted"] => self.counted = true,
            ["repeat", times] => self.repeat = Some((self.steps.len(), number(times))),
            ["done"] => {
                let (from, times) = self.repeat.take().expect("`repeat` before `done`");
                let part = self.steps[from..].to_vec();
                self.steps.extend((1..times).flat_map(|_| part.clone()));
            }
            ["set", name, value] => {
                let pair = ((*name).to_owned(), (*value).to_owned());
                self.variables.push(pair);
            }
            ["wait", row, status @ ..] => {
                let (backend, server) = row.split_once('/').expect("BACKEND/SERVER");
                let step = Step::Wait(backend.to_owned(), server.to_owned(), status.join(" "));
                self.steps.push(step);
            }
            ["stop", name] => self.steps.push(Step::Stop((*name).to_owned())),
            ["start", name] => self.steps.push(Step::Start((*name).to_owned())),
            ["ask", command @ ..] => self.steps.push(Step::Ask(command.join(" "))),
            ["cut", count, bind, command @ ..] => {
                let step = Step::Cut((*bind).to_owned(), number(count), command.join(" "));
                self.steps.push(step);
            }
            _ => {
                let step = held(words).unwrap_or_else(|| match words {
                    [count, what, bind] => connections(number(count), what, bind, random),
                    _ => panic!("no statement: {words:?}"),
                });
                self.steps.push(step);
            }
        }
    }

    /// How many connections it makes.
    pub(crate) fn connections(&self) -> usize {
        let steps = self.steps.iter().map(|step| match step {
            Step::Sequence(_, all) | Step::Crowd(_, all) => all.len(),
            Step::Hold(_, count, full) => count + usize::from(*full),
            Step::Cut(_, count, _) | Step::Come(_, count) | Step::Queue(_, count, ..) => *count,
            _ => 0,
        });
        steps.sum()
    }

    /// Whether it has connections whose order the programs do not share.
    pub(crate) fn has_crowd(&self) -> bool {
        let mut steps = self.steps.iter();
        steps.any(|step| matches!(step, Step::Crowd(..)))
    }
}

fn number(word: &str) -> usize {
    let number = word.parse();
    number.unwrap_or_else(|_| panic!("no number: {word}"))
}

/// A statement about clients that stay.
fn held(words: &[&str]) -> Option<Step> {
    let step = match words {
        ["count", row, column, value] => {
            let value = value.parse().expect("a number");
            Step::Count((*row).to_owned(), (*column).to_owned(), value)
        }
        [count, "come", bind] => Step::Come((*bind).to_owned(), number(count)),
        [count, "queue", bind, row, asks @ ..] => {
            let asks = match asks {
                [] => false,
                ["asks"] => true,
                _ => panic!("clients that wait and {asks:?}"),
            };
            Step::Queue((*bind).to_owned(), number(count), (*row).to_owned(), asks)
        }
        ["served", count] => Step::Served(number(count)),
        ["end", count] => Step::End(number(count)),
        ["leave", count] => Step::Leave(number(count), Leave::End),
        ["leave", count, "reset"] => Step::Leave(number(count), Leave::Reset),
        ["late", count] => Step::Late(number(count)),
        _ => return None,
    };
    Some(step)
}

/// The words `name` and `name=value`.
fn named<T>(words: &[&str], value: impl Fn(&str) -> T) -> Vec<(String, T)> {
    let words = words.iter().map(|word| {
        let (name, kind) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), value(kind))
    });
    words.collect()
}

fn connections(count: usize, what: &str, bind: &str, random: &mut fastrand::Rng) -> Step {
    let bind = bind.to_owned();
    match what {
        "hold" => return Step::Hold(bind, count, false),
        "full" => return Step::Hold(bind, count, true),
        _ => {}
    }
    let kind = KINDS.iter().find(|(word, _)| *word == what);
    let mixed = |random: &mut fastrand::Rng| {
        let mut share = random.u32(0..100);
        let kind = MIX.iter().find(|(_, part)| {
            let found = share < *part;
            share = share.saturating_sub(*part);
            found
        });
        kind.expect("the shares are 100").0
    };
    let mut next = || {
        let kind = match what {
            "mix" => mixed(random),
            "crowd" => Kind::Ping,
            _ => kind.unwrap_or_else(|| panic!("no kind: {what}")).1,
        };
        let size = match kind {
            Kind::Bulk => SIZE_BULK,
            Kind::SlowReader => SIZE_SLOW,
            Kind::Ping => SIZE_PING,
            Kind::SlowWriter => random.usize(1..20),
            _ => random.usize(1..SIZE_MAX),
        };
        Connection { kind, size }
    };
    let all = (0..count).map(|_| next()).collect();
    match what {
        "crowd" => Step::Crowd(bind, all),
        _ => Step::Sequence(bind, all),
    }
}
