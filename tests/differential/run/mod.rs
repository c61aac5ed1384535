//! A run of a script through one program, and what was seen.

mod held;

use crate::client::{Client, Seen, Target};
use crate::harness::client::TIMEOUT;
use crate::harness::csv::Csv;
use crate::harness::eventually::eventually_true;
use crate::harness::ports;
use crate::log_line::{SessionLine, numberless};
use crate::program::{Kind as ProgramKind, Program};
use crate::script::{Bind, Connection, Kind, Log, Script, Step};
use crate::server::{Kept, Server};
use held::Held;
use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Clients of a crowd.
const CROWD: usize = 8;

/// Connections of a sequence after which the counters are waited for.
const COUNTED: usize = 20;

/// Longest line that is read.
const LINE_MAX: usize = 4096;

/// One connection, as its client and the log have seen it.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    /// Its number in the script, and what it was.
    pub(crate) label: String,
    /// Its kind.
    pub(crate) kind: Kind,
    pub(crate) seen: Seen,
    /// Its line in the log.
    pub(crate) line: Option<SessionLine>,
}

/// All that was seen of a run.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) connections: Vec<Observation>,
    /// Lines of sessions that nobody waited for.
    pub(crate) strays: usize,
    /// Commands of the runtime socket with their answers.
    pub(crate) answers: Vec<(String, String)>,
    /// Other lines of the log.
    pub(crate) events: Vec<String>,
    /// The rows of `show stat` at the end, without addresses.
    pub(crate) rows: Csv,
    /// Connections had no order.
    pub(crate) crowd: bool,
}

/// Runs the script.
#[track_caller]
pub(crate) fn run(kind: ProgramKind, script: &Script) -> Observed {
    let mut run = Run::start(kind, script);
    for step in &script.steps {
        run.step(step);
    }
    run.observed()
}

/// The socket of the log.
#[derive(Debug)]
enum Receiver {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Receiver {
    fn start(log: Log, folder: &Path) -> Self {
        match log {
            Log::Udp | Log::None => {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP port");
                socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
                Self::Udp(socket)
            }
            Log::Unix => {
                let socket = UnixDatagram::bind(folder.join("log")).expect("a unix socket");
                socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
                Self::Unix(socket)
            }
        }
    }

    fn address(&self, folder: &Path) -> String {
        match self {
            Self::Udp(socket) => socket.local_addr().expect("bound").to_string(),
            Self::Unix(_) => folder.join("log").display().to_string(),
        }
    }

    /// The next line. Where none is there yet, waits for it if `wait` is set.
    fn next(&self, wait: bool) -> Option<String> {
        let mut buffer = vec![0; LINE_MAX];
        let received = match self {
            Self::Udp(socket) => {
                socket.set_nonblocking(!wait).expect("a mode");
                socket.recv(&mut buffer)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(!wait).expect("a mode");
                socket.recv(&mut buffer)
            }
        };
        buffer.truncate(received.ok()?);
        Some(String::from_utf8_lossy(&buffer).trim_end().to_owned())
    }
}

/// A run that goes on.
struct Run<'a> {
    script: &'a Script,
    program: Program,
    servers: BTreeMap<String, Server>,
    targets: HashMap<String, Target>,
    log: Receiver,
    /// Connections of servers that do not end.
    kept: Kept,
    /// Clients that stay, in the order in which they came.
    held: Vec<Held>,
    /// Addresses and paths, and what stands for them in what is compared.
    names: Vec<(String, String)>,
    connections: Vec<Observation>,
    /// Ports of the clients whose lines are read at the end.
    unread: HashMap<u16, usize>,
    strays: usize,
    answers: Vec<(String, String)>,
    events: Vec<String>,
    folder: TempDir,
}

impl<'a> Run<'a> {
    fn start(kind: ProgramKind, script: &'a Script) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = Kept::default();
        let log = Receiver::start(script.log, folder.path());
        let servers = script.servers.iter().map(|(name, serves)| {
            let server = Server::start(name, *serves, folder.path(), &kept);
            (name.clone(), server)
        });
        let servers: BTreeMap<String, Server> = servers.collect();
        let mut targets = HashMap::new();
        let mut environment = script.variables.clone();
        for (name, server) in &servers {
            environment.extend(variables(name, &server.address()));
        }
        for (name, bind) in &script.binds {
            let (target, address) = target(name, *bind, folder.path());
            environment.extend(variables(name, &address));
            targets.insert(name.clone(), target);
        }
        environment.extend(variables("log", &log.address(folder.path())));
        let socket = folder.path().join("socket").display().to_string();
        environment.push(("SOCKET".to_owned(), socket));
        // The longest first: a port may be the beginning of another one.
        let addresses = environment
            .iter()
            .filter(|(_, text)| text.contains([':', '/']));
        let addresses = addresses.map(|(name, text)| (text.clone(), format!("${name}")));
        let mut names: Vec<(String, String)> = addresses.collect();
        names.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        std::fs::write(folder.path().join("haproxy.cfg"), &script.text).expect("written");
        let program = Program::start(kind, folder.path(), &environment);
        program.wait_checked();
        Self {
            script,
            program,
            servers,
            targets,
            log,
            kept,
            held: Vec::new(),
            names,
            connections: Vec::new(),
            unread: HashMap::new(),
            strays: 0,
            answers: Vec::new(),
            events: Vec::new(),
            folder,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(backend, server, status) => {
                self.program.wait_status(backend, server, status);
            }
            Step::Count(row, column, value) => self.program.wait_count(row, column, *value),
            Step::Stop(name) => self.change(name, Server::stopped),
            Step::Start(name) => {
                let kept = Kept::clone(&self.kept);
                self.change(name, |server| server.started(name, &kept));
            }
            Step::Ask(command) => {
                let answer = self.nameless(&self.program.ask(command));
                self.answers.push((command.clone(), answer));
            }
            Step::Sequence(bind, all) => self.sequence(bind, all),
            Step::Hold(bind, count, full) => self.hold(bind, *count, *full),
            Step::Cut(bind, count, command) => self.cut(bind, *count, command),
            Step::Crowd(bind, all) => self.crowd(bind, all),
            Step::Come(bind, count) => self.come(bind, *count),
            Step::Queue(bind, count, row, asks) => self.queue(bind, *count, row, *asks),
            Step::Served(count) => self.served(*count),
            Step::End(count) => self.end(*count),
            Step::Leave(count, how) => self.leave(*count, *how),
            Step::Late(count) => self.late(*count),
        }
    }

    /// Connections one after another. For the first ones, and where not every session has a line, waits until the
    /// session is over in the counters too; the others do not tell how many sessions there were at their end.
    fn sequence(&mut self, bind: &str, all: &[Connection]) {
        let target = self.targets[bind].clone();
        self.program.wait_sessions(self.held.len());
        for (number, connection) in all.iter().enumerate() {
            let accepted = self.accepted();
            let client = Client::connect(&target, number);
            let port = client.port;
            if connection.kind == Kind::Null {
                // A client that ends while its server is asked may be noticed or not.
                eventually_true(TIMEOUT, "a connection to a server", || {
                    self.accepted() > accepted
                });
            }
            let (seen, socket) = client.run(*connection);
            self.ended(bind, connection.kind, port, seen);
            drop(socket);
            let is_counted = self.script.counted || !self.script.all_logged;
            if number < COUNTED || is_counted {
                self.program.wait_sessions(self.held.len());
            } else if let Some(last) = self.connections.last_mut() {
                last.line = last.line.take().map(SessionLine::without_counts);
            }
        }
    }

    /// Connections that servers have accepted.
    fn accepted(&self) -> usize {
        self.servers.values().map(Server::accepted).sum()
    }

    fn change(&mut self, name: &str, how: impl FnOnce(Server) -> Server) {
        let server = self.servers.remove(name).expect("a server of the script");
        self.servers.insert(name.to_owned(), how(server));
    }

    /// Connections at once; with `full` one more that is served when the first has ended.
    fn hold(&mut self, bind: &str, count: usize, full: bool) {
        let target = self.targets[bind].clone();
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..count {
            let mut client = Client::connect(&target, number);
            client.hold();
            clients.push(client);
        }
        let last = full.then(|| {
            let mut client = Client::connect(&target, count);
            client.ask();
            client
        });
        let mut open = self.held.len() + count;
        let mut clients = clients.into_iter();
        let mut end = |run: &mut Self, client: Client| {
            let port = client.port;
            let seen = client.finish();
            run.ended(bind, Kind::Idle, port, seen);
            open -= 1;
            run.program.wait_sessions(open);
        };
        if let Some(mut last) = last {
            let first = clients.next().expect("one is served");
            let port = first.port;
            let seen = first.finish();
            self.ended(bind, Kind::Idle, port, seen);
            last.answered();
            end(self, last);
        }
        for client in clients {
            end(self, client);
        }
    }

    /// Connections at once that a command ends, in any order.
    fn cut(&mut self, bind: &str, count: usize, command: &str) {
        let target = self.targets[bind].clone();
        let mut clients: Vec<Client> = Vec::new();
        for number in 0..count {
            let mut client = Client::connect(&target, number);
            client.hold();
            clients.push(client);
        }
        let answer = self.nameless(&self.program.ask(command));
        self.answers.push((command.to_owned(), answer));
        self.ended_by_the_program(&format!("cut {bind}"), clients);
    }

    /// Reads to the ends of connections that the program ends, in any order.
    fn ended_by_the_program(&mut self, what: &str, clients: Vec<Client>) {
        self.program.wait_sessions(self.held.len());
        let lines = clients.iter().filter_map(|_| self.next_session(true));
        let lines: Vec<SessionLine> = lines.collect();
        for client in clients {
            let line = lines.iter().find(|line| line.port == client.port);
            let line = line.cloned().map(SessionLine::without_counts);
            let number = self.connections.len();
            self.connections.push(Observation {
                label: format!("connection {number} ({what})"),
                kind: Kind::Idle,
                seen: client.ended(),
                line,
            });
        }
    }

    /// Connections of several clients at a time. What is seen of them has no order.
    fn crowd(&mut self, bind: &str, all: &[Connection]) {
        let target = self.targets[bind].clone();
        let next = AtomicUsize::new(0);
        let seen = Mutex::new(Vec::new());
        let mut lines = HashMap::new();
        std::thread::scope(|scope| {
            for _ in 0..CROWD {
                scope.spawn(|| {
                    while let Some(connection) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let client = Client::connect(&target, 0);
                        let port = client.port;
                        let (what, _) = client.run(*connection);
                        let mut seen = seen.lock().expect("no panic holds this lock");
                        seen.push((port, what));
                    }
                });
            }
            while self.script.all_logged && lines.len() < all.len() {
                let Some(line) = self.next_session(true) else {
                    break;
                };
                lines.insert(line.port, line.without_counts());
            }
        });
        let seen = seen.into_inner().expect("no panic holds this lock");
        let seen = seen.into_iter().map(|(port, seen)| Observation {
            label: format!("crowd {bind}"),
            kind: Kind::Ping,
            seen,
            line: lines
                .remove(&port)
                .map(|line| SessionLine { port: 0, ..line }),
        });
        let mut seen: Vec<Observation> = seen.collect();
        seen.sort_by_key(|it| format!("{it:?}"));
        self.connections.append(&mut seen);
    }

    /// Notes what was seen of a connection, and waits for the end of its session.
    fn ended(&mut self, bind: &str, kind: Kind, port: u16, seen: Seen) {
        let number = self.connections.len();
        let line = if self.script.all_logged {
            let line = self.line_of(port);
            let program = &self.program;
            assert!(
                line.is_some(),
                "{program:?}: no line of connection {number}, {kind:?} {bind}: {seen:?}"
            );
            line
        } else {
            self.unread.insert(port, number);
            None
        };
        self.connections.push(Observation {
            label: format!("connection {number} ({kind:?} {bind})"),
            kind,
            seen,
            line,
        });
        if !self.script.all_logged {
            self.read_lines(false);
        }
    }

    /// Reads the lines that have come: of sessions of which it is not known whether they have one. With `all`
    /// waits for the line of the last session.
    fn read_lines(&mut self, all: bool) {
        let last = self.connections.len().checked_sub(1);
        while !all || last.is_some_and(|last| self.unread.values().any(|it| *it == last)) {
            let Some(line) = self.next_session(all) else {
                return;
            };
            match self.unread.remove(&line.port) {
                Some(number) => self.connections[number].line = Some(line),
                None => self.strays += 1,
            }
        }
    }

    /// The line of the client at this port.
    fn line_of(&mut self, port: u16) -> Option<SessionLine> {
        while let Some(line) = self.next_session(true) {
            if line.port == port {
                return Some(line);
            }
            self.strays += 1;
        }
        None
    }

    /// The next line of a session. Other lines are noted.
    fn next_session(&mut self, wait: bool) -> Option<SessionLine> {
        while let Some(line) = self.log.next(wait) {
            if let Some(session) = SessionLine::parse(&line) {
                return Some(session);
            }
            let line = numberless(&self.nameless(&line));
            self.events.push(line);
        }
        None
    }

    /// A text with names instead of addresses.
    fn nameless(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (address, name) in &self.names {
            text = text.replace(address, name);
        }
        text
    }

    fn observed(mut self) -> Observed {
        assert!(self.held.is_empty(), "clients are left");
        self.program.wait_sessions(0);
        let rows = Csv::parse(&self.nameless(&self.program.ask("show stat")));
        // Some sessions have no line. All lines have come when the last session's has.
        if self.script.log != Log::None {
            self.read_lines(true);
        }
        Observed {
            connections: self.connections,
            strays: self.strays,
            answers: self.answers,
            events: self.events,
            rows,
            crowd: self.script.has_crowd(),
        }
    }
}

/// The variables of an address: `NAME` and, with a port, `NAME_PORT`.
fn variables(name: &str, address: &str) -> Vec<(String, String)> {
    let name = name.to_uppercase();
    let port = address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let port = port.map(|port| (format!("{name}_PORT"), port));
    [(name, address.to_owned())]
        .into_iter()
        .chain(port)
        .collect()
}

/// Where the clients of a bind connect, and what the configuration has.
fn target(name: &str, bind: Bind, folder: &Path) -> (Target, String) {
    let port = ports::free_pair();
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    match bind {
        Bind::Tcp => (Target::Tcp(vec![at(port)]), at(port).to_string()),
        Bind::Tcp6 => {
            let address = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port));
            (Target::Tcp(vec![address]), address.to_string())
        }
        Bind::Range => {
            let both = vec![at(port), at(port + 1)];
            (Target::Tcp(both), format!("{}-{}", at(port), port + 1))
        }
        Bind::Unix => {
            let path = folder.join(format!("{name}.bind"));
            let text = path.display().to_string();
            (Target::Unix(path), text)
        }
    }
}
