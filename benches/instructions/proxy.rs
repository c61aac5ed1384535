//! Counts rlb itself from outside: one client and one server take turns and wait for the log line of each
//! session, so that every run has the same events in the same order.

use crate::callgrind;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes of a message.
const MESSAGE: usize = 64;

/// Connections that are served in one turn.
const MANY: usize = 64;

/// How long a start, an end or an answer under valgrind may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the time between turns that rlb counts as near.
const PAUSE: Duration = Duration::from_millis(1);

/// What is done through rlb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A connection, a message each way, the end; one after the other.
    Sessions,
    /// A message each way on one connection.
    RoundTrips,
    /// A message each way on [`MANY`] connections at once: what a turn of the relay costs when nobody wakes up
    /// for a single message.
    Turns,
}

/// Instructions of all threads of an rlb that does `load` `times` times, from its start to its end.
///
/// One worker and one session line a session over UDP, as in production; no health checks, because they run by
/// the clock.
pub(crate) fn count(program: &Path, load: Load, times: u64, folder: &Path) -> io::Result<u64> {
    let lines = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    lines.set_read_timeout(Some(TIMEOUT))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let server = listener.local_addr()?;
    let echo = echo(listener, load == Load::Turns);
    let target = free_address()?;
    let config = folder.join("rlb.toml");
    let text = format!(
        "[global]\nthreads = 1\n\
         [[log.target]]\nto = \"udp:{}\"\n\
         [defaults]\ntimeout = {{ client = \"60s\", server = \"60s\", connect = \"60s\", connect-attempt = \"60s\" }}\n\
         [[listen]]\nname = \"load\"\nbind = \"{target}\"\n\
         servers = [{{ name = \"s1\", address = \"{server}\" }}]\n",
        lines.local_addr()?
    );
    std::fs::write(&config, text)?;
    let mut command = Command::new("env");
    let mut rlb = Running(
        callgrind::count_into(&mut command, folder)
            .arg(program)
            .args(["run", "--log-level", "error", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()?,
    );
    rlb.wait_until_it_serves(target)?;
    wait_for_line(&lines)?;
    match load {
        Load::Sessions => {
            for _ in 0..times {
                pause();
                round_trip(&mut connect(target)?)?;
                wait_for_line(&lines)?;
            }
        }
        Load::RoundTrips => {
            let mut stream = connect(target)?;
            for _ in 0..times {
                pause();
                round_trip(&mut stream)?;
            }
            drop(stream);
            wait_for_line(&lines)?;
        }
        Load::Turns => {
            let listener = echo.join().map_err(|_| io::Error::other("no server"))?;
            let mut clients = Vec::new();
            let mut servers = Vec::new();
            for _ in 0..MANY {
                clients.push(connect(target)?);
                servers.push(listener.accept()?.0);
            }
            for _ in 0..times {
                rlb.turn(&mut clients, &mut servers)?;
                rlb.turn(&mut servers, &mut clients)?;
            }
            drop(clients);
            drop(servers);
            for _ in 0..MANY {
                wait_for_line(&lines)?;
            }
        }
    }
    rlb.end()?;
    callgrind::take(folder)
}

/// Between operations: when operations follow each other closely, rlb busy-polls for the next, and the count
/// depends on the machine's speed.
fn pause() {
    let end = Instant::now() + PAUSE;
    while Instant::now() < end {
        thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Waits for the log line of a session: rlb is then done with it.
fn wait_for_line(lines: &UdpSocket) -> io::Result<()> {
    let mut line = [0; 2048];
    loop {
        let length = lines.recv(&mut line)?;
        if String::from_utf8_lossy(&line[..length]).contains(" load load/s1 ") {
            return Ok(());
        }
    }
}

/// A server that takes one connection after the other and sends back what it receives. With `once` it takes
/// only the first and returns the listener; otherwise it lasts as long as the process.
fn echo(listener: TcpListener, once: bool) -> JoinHandle<TcpListener> {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; MESSAGE];
            let _ = stream.set_nodelay(true);
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            if once {
                break;
            }
        }
        listener
    })
}

/// An address that nobody listens on.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn round_trip(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(&[7; MESSAGE])?;
    stream.read_exact(&mut [0; MESSAGE])
}

/// An rlb, killed when dropped.
struct Running(Child);

impl Running {
    /// Polls until one round trip has worked.
    fn wait_until_it_serves(&mut self, target: SocketAddr) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return Err(io::Error::other(format!("rlb has ended: {status}")));
            }
            match connect(target) {
                Ok(mut stream) => return round_trip(&mut stream),
                Err(_) => thread::park_timeout(Duration::from_millis(20)),
            }
        }
        Err(io::Error::other("rlb does not serve"))
    }

    /// Sends a message from each of `from` to its other end in `to`. rlb is stopped while the messages are
    /// written, so that it finds all of them at once, however busy the machine is.
    fn turn(&self, from: &mut [TcpStream], to: &mut [TcpStream]) -> io::Result<()> {
        self.wait_for_threads('S')?;
        self.signal(Signal::STOP)?;
        self.wait_for_threads('T')?;
        for stream in from {
            stream.write_all(&[7; MESSAGE])?;
        }
        self.signal(Signal::CONT)?;
        for stream in to {
            stream.read_exact(&mut [0; MESSAGE])?;
        }
        Ok(())
    }

    /// Polls until all of its threads are in this state, by proc(5): asleep or stopped.
    fn wait_for_threads(&self, state: char) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            pause();
            let mut all = true;
            for thread in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
                let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
                // The name before it, in parentheses, may contain any character.
                let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                all &= rest.starts_with(state);
            }
            if all {
                return Ok(());
            }
        }
        Err(io::Error::other("rlb does not rest"))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.0), signal)?)
    }

    /// Tells rlb to stop after its sessions have ended, and waits for its end.
    fn end(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(io::Error::other(format!("rlb has failed: {status}")))
                };
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        Err(io::Error::other("rlb does not end"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
