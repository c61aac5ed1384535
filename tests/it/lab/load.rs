//! An open-loop load: connections begin at a fixed rate, whatever happened to earlier ones, and each outcome is
//! kept with its start time.

use crate::harness::eventually::pace_until;
use crate::harness::netns::Netns;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection that took longer is slow.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// The first of the addresses of clients that have several.
const FIRST_ADDRESS: [u8; 4] = [10, 240, 0, 201];

/// Who connects, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clients {
    /// New connections a second.
    pub(crate) per_second: u32,
    /// How long one waits for anything.
    pub(crate) timeout: Duration,
    /// From the connect to the request.
    pub(crate) pause: Duration,
    /// So many come at once.
    pub(crate) burst: u32,
    /// They come from so many addresses in turn; 0: from the one of their machine.
    pub(crate) addresses: u8,
}

impl Clients {
    /// They come one by one from one address, and ask at once.
    pub(crate) fn new(per_second: u32, timeout: Duration) -> Self {
        Self {
            per_second,
            timeout,
            pause: Duration::ZERO,
            burst: 1,
            addresses: 0,
        }
    }

    /// The address of the one with this number, if it is not the machine's.
    fn address(&self, number: u32) -> Option<SocketAddr> {
        let number = number.checked_rem(self.addresses.into())?;
        let mut address = FIRST_ADDRESS;
        address[3] += u8::try_from(number).expect("less than a u8");
        Some((address, 0).into())
    }
}

/// The outcome of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// When it began.
    pub(crate) begun: Instant,
    /// How long it took.
    pub(crate) took: Duration,
    /// The text of the answer, or of the error.
    pub(crate) answer: Result<String, String>,
}

impl Outcome {
    fn affected(&self) -> bool {
        self.answer.is_err() || self.took > SLOW
    }
}

/// A running load.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    pacer: JoinHandle<Vec<JoinHandle<()>>>,
}

impl Load {
    /// Clients begin to connect to `address`; each requests `/`.
    pub(crate) fn start(from: &Netns, address: SocketAddr, clients: Clients) -> Self {
        for number in 0..clients.addresses.into() {
            let own = clients.address(number).expect("it has one").ip();
            from.ip(&["addr", "replace", &format!("{own}/24"), "dev", "eth0"]);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let (theirs, sink) = (Arc::clone(&stop), Arc::clone(&outcomes));
        let pacer = from.spawn(move || {
            let start = Instant::now();
            let mut running = Vec::new();
            for number in 0.. {
                let burst = number - number % clients.burst;
                pace_until(start + Duration::from_secs(1) * burst / clients.per_second);
                if theirs.load(Ordering::Relaxed) {
                    break;
                }
                // Threads that are not joined keep their stacks: thousands in a long run.
                for ended in running.extract_if(.., |it: &mut JoinHandle<_>| it.is_finished()) {
                    ended.join().expect("a connection does not panic");
                }
                running.push(begin(address, clients, number, Arc::clone(&sink)));
            }
            running
        });
        Self {
            stop,
            outcomes,
            pacer,
        }
    }

    /// The outcomes so far.
    pub(crate) fn so_far(&self) -> Vec<Outcome> {
        self.outcomes
            .lock()
            .expect("no panic holds this lock")
            .clone()
    }

    /// Begins no more connections, and waits for the last one.
    pub(crate) fn finish(self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        for connection in self.pacer.join().expect("the pacer does not panic") {
            connection.join().expect("a connection does not panic");
        }
        let mut outcomes = self
            .outcomes
            .lock()
            .expect("no panic holds this lock")
            .clone();
        outcomes.sort_by_key(|outcome| outcome.begun);
        outcomes
    }
}

/// Runs one connection on a thread of its own, in the namespace of the caller.
fn begin(
    address: SocketAddr,
    clients: Clients,
    number: u32,
    sink: Arc<Mutex<Vec<Outcome>>>,
) -> JoinHandle<()> {
    std::thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(move || {
            let outcome = once(address, clients, number);
            sink.lock().expect("no panic holds this lock").push(outcome);
        })
        .expect("a thread for a connection")
}

/// One connection in addition to the load.
pub(crate) fn visit(from: &Netns, address: SocketAddr, timeout: Duration) -> JoinHandle<Outcome> {
    from.spawn(move || once(address, Clients::new(1, timeout), 0))
}

fn once(address: SocketAddr, clients: Clients, number: u32) -> Outcome {
    let begun = Instant::now();
    let answer = ask(address, clients, number).map_err(|error| error.to_string());
    Outcome {
        begun,
        took: begun.elapsed().saturating_sub(clients.pause),
        answer,
    }
}

fn ask(address: SocketAddr, clients: Clients, number: u32) -> std::io::Result<String> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(own) = clients.address(number) {
        socket.bind(&own.into())?;
    }
    socket.connect_timeout(&address.into(), clients.timeout)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(clients.timeout))?;
    pace_until(Instant::now() + clients.pause);
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "no answer",
        ));
    }
    Ok(answer)
}

/// The effect of a fault on clients, among connections that began after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Report {
    /// Connections begun after the fault.
    pub(crate) begun: usize,
    /// Those without an answer.
    pub(crate) failed: usize,
    /// Those answered after more than [`SLOW`].
    pub(crate) slow: usize,
    /// The longest time of any.
    pub(crate) longest: Duration,
    /// From the fault to the start of the last affected connection.
    pub(crate) clean_after: Duration,
    /// Connections that began before the fault and were not answered, because the node had them.
    pub(crate) failed_before: usize,
}

impl Report {
    /// Counts `outcomes` around a fault.
    pub(crate) fn of(outcomes: &[Outcome], fault: Instant) -> Self {
        let (after, before): (Vec<_>, Vec<_>) =
            outcomes.iter().partition(|outcome| outcome.begun >= fault);
        let failed = |list: &[&Outcome]| list.iter().filter(|it| it.answer.is_err()).count();
        let last_affected = after.iter().rfind(|outcome| outcome.affected());
        Self {
            begun: after.len(),
            failed: failed(&after),
            slow: after
                .iter()
                .filter(|it| it.answer.is_ok() && it.took > SLOW)
                .count(),
            longest: after.iter().map(|it| it.took).max().unwrap_or_default(),
            clean_after: last_affected.map_or(Duration::ZERO, |it| it.begun - fault),
            failed_before: failed(&before),
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} connections begun after the fault: {} failed, {} slow, longest {:.3} s, \
             clean after {:.1} s; {} begun before it failed",
            self.begun,
            self.failed,
            self.slow,
            self.longest.as_secs_f64(),
            self.clean_after.as_secs_f64(),
            self.failed_before
        )
    }
}

#[test]
fn a_report_counts_from_the_fault() {
    let start = Instant::now();
    let outcome = |at: u64, took: u64, good: bool| Outcome {
        begun: start + Duration::from_millis(at),
        took: Duration::from_millis(took),
        answer: if good {
            Ok("x".to_owned())
        } else {
            Err("reset".to_owned())
        },
    };
    let outcomes = [
        outcome(0, 5, false),
        outcome(100, 5, true),
        outcome(200, 1500, true),
        outcome(300, 10, false),
        outcome(400, 10, true),
    ];
    let report = Report::of(&outcomes, start + Duration::from_millis(50));
    assert_eq!(
        (
            report.begun,
            report.failed,
            report.slow,
            report.failed_before
        ),
        (4, 1, 1, 1)
    );
    assert_eq!(report.clean_after, Duration::from_millis(250));
    assert_eq!(report.longest, Duration::from_millis(1500));
}
