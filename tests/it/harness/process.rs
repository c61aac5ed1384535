//! A child process: started in a namespace or not, with its output collected, and ended by its id.

use super::eventually::{eventually, eventually_true};
use super::netns::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lines that a child has written so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>);

impl Lines {
    /// Reads `source` on a thread of its own until it ends.
    fn collect(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                sink.0.lock().expect("no panic holds this lock").push(line);
            }
            sink.1.store(true, SeqCst);
        });
        lines
    }

    /// All that was written, once the child has ended: its reader may be late.
    #[track_caller]
    pub(crate) fn whole(&self) -> Vec<String> {
        eventually_true(Duration::from_secs(10), "the end of the output", || {
            self.1.load(SeqCst)
        });
        self.all()
    }

    /// What has been written so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic holds this lock").clone()
    }

    /// The lines that contain `part`.
    pub(crate) fn with(&self, part: &str) -> Vec<String> {
        self.all()
            .into_iter()
            .filter(|line| line.contains(part))
            .collect()
    }

    /// Waits for a line that contains `part`.
    #[track_caller]
    pub(crate) fn wait_for(&self, part: &str) -> String {
        let lines = self.clone();
        eventually(
            Duration::from_secs(10),
            &format!("a line with {part:?}"),
            || lines.with(part).into_iter().next(),
        )
    }
}

/// A running child. Killed by its id when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Its standard output, when collected.
    pub(crate) stdout: Lines,
    /// Its standard error.
    pub(crate) stderr: Lines,
}

impl Process {
    /// Starts `command`, in `netns` if given. Collects standard error, and standard output unless
    /// `keep_stdout`.
    #[track_caller]
    pub(crate) fn start(mut command: Command, netns: Option<&Netns>, keep_stdout: bool) -> Self {
        command.stdin(Stdio::null());
        if !keep_stdout {
            command.stdout(Stdio::piped());
        }
        Self::spawn(command, netns, keep_stdout)
    }

    /// Starts `command` with its configured standard input and output.
    #[track_caller]
    pub(crate) fn start_as_is(command: Command) -> Self {
        Self::spawn(command, None, true)
    }

    #[track_caller]
    fn spawn(mut command: Command, netns: Option<&Netns>, keep_stdout: bool) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stderr(Stdio::piped());
        let mut spawn = move || command.spawn();
        let mut child = match netns {
            Some(netns) => netns.enter(spawn),
            None => spawn(),
        }
        .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let stdout = match child.stdout.take() {
            Some(pipe) if !keep_stdout => Lines::collect(pipe),
            other => {
                child.stdout = other;
                Lines::default()
            }
        };
        let stderr = child.stderr.take().map(Lines::collect).unwrap_or_default();
        Self {
            name,
            child,
            stdout,
            stderr,
        }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id is a pid_t");
        kill(Pid::from_raw(id), signal).expect("a child that was not waited for can be signalled");
    }

    /// Whether `SIGSTOP` has halted all of its threads.
    pub(crate) fn is_halted(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("it lives");
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status"));
            status.is_ok_and(|status| status.contains("State:\tT"))
        })
    }

    /// The exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self, within: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually(within, &format!("the end of {name}"), || self.ended())
    }

    /// Kills it, and waits for its end.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// A field of `/proc/<id>/status` in kB, such as `RssAnon`: what is resident without pages of files, which come and
    /// go as code is used.
    pub(crate) fn memory_kb(&self, field: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process lives");
        status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("the kernel prints the field")
    }

    /// The resources that it and all its descendants use now.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint::of(self.id())
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("the process lives")
            .count()
    }

    /// User and system time used so far (`/proc/<id>/stat`, fields 14 and 15, in ticks of 10 ms).
    pub(crate) fn cpu_time(&self) -> Duration {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("the process lives");
        let after_name = stat.rsplit_once(')').expect("the name is in brackets").1;
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }
}

/// The resources of a process and its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Footprint {
    /// Number of processes.
    pub(crate) processes: usize,
    /// Resident memory; shared memory counts for each process.
    pub(crate) resident_kb: u64,
    /// The same, with shared memory divided among the processes.
    pub(crate) proportional_kb: u64,
    /// Resident memory that is in no file.
    pub(crate) anonymous_kb: u64,
}

impl Footprint {
    /// Reads `/proc`; a descendant that ends meanwhile does not count.
    fn of(root: u32) -> Self {
        let children = children();
        let mut waiting = vec![root];
        let mut sum = Self::default();
        while let Some(id) = waiting.pop() {
            waiting.extend(children.iter().filter(|it| it.1 == id).map(|it| it.0));
            let Ok(text) = fs::read_to_string(format!("/proc/{id}/smaps_rollup")) else {
                continue;
            };
            let field = |name: &str| -> Option<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.split_whitespace().next()?.parse().ok()
            };
            sum.processes += 1;
            sum.resident_kb += field("Rss:").unwrap_or_default();
            sum.proportional_kb += field("Pss:").unwrap_or_default();
            sum.anonymous_kb += field("Anonymous:").unwrap_or_default();
        }
        sum
    }
}

impl std::fmt::Display for Footprint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} processes with {} kB resident, {} kB proportional",
            self.processes, self.resident_kb, self.proportional_kb
        )
    }
}

/// All processes with the ids of their parents (`/proc/<id>/stat`, fields 1 and 4).
fn children() -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc").expect("the kernel lists them");
    let parent = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        Some((id, after_name.split_whitespace().nth(1)?.parse().ok()?))
    };
    processes
        .flatten()
        .filter_map(|entry| parent(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            for line in self.stderr.all().iter().rev().take(40).rev() {
                eprintln!("{}: {line}", self.name);
            }
        }
    }
}
