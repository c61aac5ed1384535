//! `balance leastconn` beside HAProxy: both read the same file, and the same clients come and leave in the same order,
//! while servers change their weights, go into maintenance and come back.

#[path = "../../src/balance/tests/steps.rs"]
mod steps;

use crate::harness::eventually::{eventually, eventually_eq};
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, STOP_WITHIN};
use crate::harness::runtime::ask;
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use steps::{Step, step};
use tempfile::TempDir;

/// Steps of each backend; of those that are recorded.
const STEPS: u32 = 200;
const RECORDED: u32 = 1_000;
/// What the servers say: their positions.
const WORDS: [&str; 5] = ["0", "1", "2", "3", "4"];
/// The weights of the backends' servers.
const BACKENDS: [&[u32]; 5] = [
    &[1, 1, 1],
    &[10, 20, 5],
    &[1, 3, 1, 2, 1],
    &[256, 1, 128, 64],
    &[100, 100, 100, 100, 100],
];

struct Setup {
    folder: TempDir,
    _peers: Vec<Peer>,
}

impl Setup {
    fn new() -> Self {
        let speaks = |word: &&'static str| Peer::start(Behaviour::SpeaksFirst(word));
        let peers: Vec<Peer> = WORDS.iter().map(speaks).collect();
        let folder = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink(PROGRAM, folder.path().join("haproxy")).expect("a link");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut text = format!(
            "global\n  nbthread 1\n  stats socket {} level admin\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n",
            path("admin.sock")
        );
        for (number, weights) in BACKENDS.iter().enumerate() {
            let bind = path(&format!("b{number}.sock"));
            let _ = writeln!(
                text,
                "listen b{number}\n  bind unix@{bind}\n  balance leastconn"
            );
            for (position, (weight, peer)) in weights.iter().zip(&peers).enumerate() {
                let address = peer.address();
                let _ = writeln!(text, "  server s{position} {address} weight {weight}");
            }
        }
        fs::write(folder.path().join("haproxy.cfg"), text).expect("written");
        Self {
            folder,
            _peers: peers,
        }
    }

    /// What `program` chooses in each backend in so many steps.
    fn choices(&self, program: &Path, steps: u32) -> Vec<String> {
        let mut command = Command::new(program);
        command
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(&self.folder);
        let mut process = Process::start(command, None, false);
        let choices = std::thread::scope(|scope| {
            let of = |number| move || Backend::new(self.folder.path(), number).choices(steps);
            let threads: Vec<_> = (0..BACKENDS.len()).map(|it| scope.spawn(of(it))).collect();
            let choices = threads.into_iter().map(|it| it.join().expect("it ends"));
            choices.collect()
        });
        process.signal(Signal::SIGTERM);
        process.wait(STOP_WITHIN);
        choices
    }
}

/// A backend while its steps are taken.
struct Backend {
    name: String,
    bind: PathBuf,
    socket: PathBuf,
    weights: Vec<u32>,
    in_maintenance: Vec<bool>,
    /// The clients and the positions of their servers.
    clients: Vec<(UnixStream, usize)>,
}

impl Backend {
    fn new(folder: &Path, number: usize) -> Self {
        Self {
            name: format!("b{number}"),
            bind: folder.join(format!("b{number}.sock")),
            socket: folder.join("admin.sock"),
            weights: BACKENDS[number].to_vec(),
            in_maintenance: vec![false; BACKENDS[number].len()],
            clients: Vec::new(),
        }
    }

    /// The servers that its clients get, a digit each.
    fn choices(mut self, steps: u32) -> String {
        let servers = self.weights.len();
        let mut choices = String::new();
        for number in 0..steps {
            match step(number) {
                Step::Come => {
                    let chosen = self.come();
                    choices.extend(char::from_digit(u32::try_from(chosen).expect("few"), 10));
                }
                Step::Leave(_) if self.clients.is_empty() => {}
                Step::Leave(which) => self.leave(which % self.clients.len()),
                Step::Toggle(which) => self.toggle(1 + which % (servers - 1)),
                Step::Weigh(which, weight) => self.weigh(which % servers, weight),
            }
        }
        choices
    }

    fn come(&mut self) -> usize {
        let mut stream = eventually(STOP_WITHIN, "it listens", || {
            UnixStream::connect(&self.bind).ok()
        });
        let mut word = [0];
        stream.read_exact(&mut word).expect("the server's word");
        let chosen = usize::from(word[0] - b'0');
        let usable = (0..self.weights.len()).filter(|&it| !self.in_maintenance[it]);
        let least = usable.map(|it| self.key(it)).min();
        assert_eq!(Some(self.key(chosen)), least, "{} {chosen}", self.name);
        self.clients.push((stream, chosen));
        chosen
    }

    fn leave(&mut self, which: usize) {
        let (client, server) = self.clients.swap_remove(which);
        drop(client);
        let left = self.sessions(server).to_string();
        eventually_eq(STOP_WITHIN, &left, || self.counted(server));
    }

    fn toggle(&mut self, server: usize) {
        self.in_maintenance[server] ^= true;
        let verb = if self.in_maintenance[server] {
            "disable"
        } else {
            "enable"
        };
        self.order(&format!("{verb} server {}/s{server}", self.name));
    }

    fn weigh(&mut self, server: usize, weight: u32) {
        self.weights[server] = weight;
        self.order(&format!("set weight {}/s{server} {weight}", self.name));
    }

    fn order(&self, command: &str) {
        assert_eq!(ask(&self.socket, command).trim(), "", "{command}");
    }

    fn sessions(&self, server: usize) -> u32 {
        let clients = self.clients.iter().filter(|(_, it)| *it == server);
        u32::try_from(clients.count()).expect("few")
    }

    /// HAProxy's key of a server.
    fn key(&self, server: usize) -> u32 {
        match self.sessions(server) {
            0 => 0,
            sessions => (sessions + 1) * 256 / self.weights[server],
        }
    }

    /// The column `scur` of a server.
    fn counted(&self, server: usize) -> String {
        let answer = ask(&self.socket, "show stat");
        let row = format!("{},s{server},", self.name);
        let row = answer.lines().find_map(|line| line.strip_prefix(&row));
        let column = row.and_then(|row| row.split(',').nth(2));
        column.expect("a row of the server").to_owned()
    }
}

/// Whether servers with the same key take turns: since 3.2 HAProxy chooses one of them at random.
fn takes_turns(haproxy: &Path) -> bool {
    needs::version(haproxy) < (3, 2)
}

#[test]
fn the_least_busy_server_is_haproxys() {
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    let setup = Setup::new();
    let theirs = setup.choices(&haproxy, STEPS);
    let ours = setup.choices(&setup.folder.path().join("haproxy"), STEPS);
    // Each choice was one of the least busy. Which one, HAProxy's turns tell.
    if takes_turns(&haproxy) {
        assert_eq!(ours, theirs);
    }
}

/// Records HAProxy's choices for the unit tests.
#[test]
#[ignore = "writes src/balance/tests/leastconn.txt"]
fn record_haproxys_leastconn() {
    let haproxy = needs::haproxy().expect("HAProxy");
    assert!(takes_turns(&haproxy), "HAProxy before 3.2");
    let mut text =
        "# Written by `cargo test --test it -- --ignored record_haproxys_leastconn`.\n".to_owned();
    let choices = Setup::new().choices(&haproxy, RECORDED);
    for (choices, weights) in choices.iter().zip(BACKENDS) {
        let weights: Vec<String> = weights.iter().map(u32::to_string).collect();
        let _ = writeln!(text, "{} {choices}", weights.join(","));
    }
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/balance/tests/leastconn.txt"
    );
    fs::write(file, text).expect("written");
}
