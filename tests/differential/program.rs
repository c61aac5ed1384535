//! A balancer under test: HAProxy or rlb, started with the same words and the same file.

use crate::harness::client::TIMEOUT;
use crate::harness::csv::Csv;
use crate::harness::eventually::{eventually, eventually_eq};
use crate::harness::process::Process;
use crate::harness::rlb::PROGRAM;
use crate::harness::runtime::ask;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// From the start until it answers, and from an event until the status shows it.
const WITHIN: Duration = Duration::from_secs(20);

/// Questions without a pause.
const SOON: usize = 20;

/// Which program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// HAProxy, at this path.
    Haproxy(&'a Path),
    /// rlb under the name `haproxy`.
    Rlb,
}

/// The version of HAProxy: major and minor number.
#[track_caller]
pub(crate) fn version(haproxy: &Path) -> (u32, u32) {
    let output = Command::new(haproxy).arg("-v").output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split_whitespace().nth(2).expect("a version");
    let mut parts = number.split(['.', '-']).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => panic!("no version: {text}"),
    }
}

/// A running balancer.
#[derive(Debug)]
pub(crate) struct Program {
    process: Process,
    socket: PathBuf,
    /// A connection to the runtime socket that stays open.
    prompt: RefCell<Option<UnixStream>>,
}

impl Program {
    /// Starts it with `haproxy.cfg` and the runtime socket `socket` in `folder`, and waits until it answers.
    #[track_caller]
    pub(crate) fn start(kind: Kind, folder: &Path, environment: &[(String, String)]) -> Self {
        let program = match kind {
            Kind::Haproxy(path) => path.to_owned(),
            Kind::Rlb => {
                let link = folder.join("haproxy");
                symlink(PROGRAM, &link).expect("a link");
                link
            }
        };
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .args(["-db", "-f", "haproxy.cfg"])
            .env_remove("NOTIFY_SOCKET")
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let mut program = Self {
            process: Process::start(command, None, false),
            socket: folder.join("socket"),
            prompt: RefCell::new(None),
        };
        eventually(WITHIN, "the runtime socket", || {
            if let Some(status) = program.process.ended() {
                let said = program.process.stderr.whole().join("\n");
                panic!("{kind:?} ended at its start: {status}\n{said}");
            }
            UnixStream::connect(&program.socket).ok()
        });
        program
    }

    /// The answer of the runtime socket.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> String {
        ask(&self.socket, command)
    }

    /// The answer on the connection that stays open: for questions that are asked thousands of times.
    fn ask_at_prompt(&self, command: &str) -> String {
        let mut prompt = self.prompt.borrow_mut();
        if let Some(answer) = prompt.as_mut().and_then(|it| answered(it, command)) {
            return answer;
        }
        // The first time, or it was closed because it was silent for long.
        let mut stream = UnixStream::connect(&self.socket).expect("the runtime socket");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        answered(&mut stream, "prompt").expect("a prompt");
        let answer = answered(&mut stream, command).expect("an answer");
        *prompt = Some(stream);
        answer
    }

    /// `show stat`.
    #[track_caller]
    pub(crate) fn rows(&self) -> Csv {
        Csv::parse(&self.ask("show stat"))
    }

    /// Waits for a status of a server. A check that runs changes none.
    #[track_caller]
    pub(crate) fn wait_status(&self, backend: &str, server: &str, status: &str) {
        let what = format!("{backend}/{server} {status}");
        eventually(WITHIN, &what, || {
            let rows = self.rows();
            (rows.row(backend, server).status() == status).then_some(())
        });
    }

    /// Waits until a column of a row, `BACKEND/SERVER`, has this value.
    #[track_caller]
    pub(crate) fn wait_count(&self, row: &str, column: &str, value: u64) {
        let (backend, server) = row.split_once('/').expect("BACKEND/SERVER");
        eventually_eq(WITHIN, &value, || {
            self.rows().row(backend, server).number(column)
        });
    }

    /// Waits until every server that is checked was checked once.
    #[track_caller]
    pub(crate) fn wait_checked(&self) {
        eventually(WITHIN, "a check of every server", || {
            let rows = self.rows();
            let waits = rows.rows().any(|row| {
                // A server's row that has no result yet.
                row.text("type") == "2"
                    && !["no check", "MAINT"].contains(&row.status())
                    && ["", "INI"].contains(&row.text("check_status").trim_start_matches("* "))
            });
            (!waits).then_some(())
        });
    }

    /// Waits until this many sessions are left, for frontends and for backends.
    #[track_caller]
    pub(crate) fn wait_sessions(&self, count: usize) {
        // Usually the end of a session is counted a moment after its line was written.
        for _ in 0..SOON {
            if self.sessions() == (count, count) {
                return;
            }
        }
        eventually_eq(WITHIN, &(count, count), || self.sessions());
    }

    /// Sessions of all frontends, and of all backends.
    fn sessions(&self) -> (usize, usize) {
        // The rows of frontends (1) and backends (2). The fifth column is `scur`.
        let answer = self.ask_at_prompt("show stat -1 3 -1");
        let mut sums = (0, 0);
        for line in answer.lines() {
            let mut fields = line.split(',').skip(1);
            let sum = match fields.next() {
                Some("FRONTEND") => &mut sums.0,
                Some("BACKEND") => &mut sums.1,
                _ => continue,
            };
            *sum += fields.nth(2).map_or(0, |it| it.parse().unwrap_or(0));
        }
        sums
    }
}

/// The answer to a command at a prompt; `None` when the connection was closed.
fn answered(stream: &mut UnixStream, command: &str) -> Option<String> {
    stream.write_all(format!("{command}\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 8192];
    while !answer.ends_with(b"\n> ") {
        match stream.read(&mut buffer) {
            Ok(length @ 1..) => answer.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}
