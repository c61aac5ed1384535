//! rlb itself, counted from outside: one client and one server that take turns, and wait for the
//! line of each session, so that every run sees the same events in the same order.

use crate::callgrind;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a message.
const MESSAGE: usize = 64;

/// How long a start, an end or an answer under valgrind may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longer than the time within which rlb counts turns as near to each other.
const PAUSE: Duration = Duration::from_millis(1);

/// What is done through rlb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// A connection, a message there and back, the end; one after the other.
    Sessions,
    /// A message there and back on one connection.
    RoundTrips,
}

/// Instructions of all threads of an rlb that does `load` so often, from its start to its end.
///
/// One worker, a session line a session over UDP as in service, no health checks: they would come
/// by the clock.
pub(crate) fn count(load: Load, times: u64, folder: &Path) -> io::Result<u64> {
    let lines = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    lines.set_read_timeout(Some(PATIENCE))?;
    let server = serve()?;
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
            .arg(env!("CARGO_BIN_EXE_rlb"))
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
    }
    rlb.end()?;
    callgrind::take(folder)
}

/// Between operations: when one follows the other closely, rlb waits awake for the next, and counts
/// what the machine's speed makes of it.
fn pause() {
    let end = Instant::now() + PAUSE;
    while Instant::now() < end {
        thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Waits for the line of a session: rlb has done with it.
fn wait_for_line(lines: &UdpSocket) -> io::Result<()> {
    let mut line = [0; 2048];
    loop {
        let length = lines.recv(&mut line)?;
        if String::from_utf8_lossy(&line[..length]).contains(" load load/s1 ") {
            return Ok(());
        }
    }
}

/// A server that takes one connection after the other and sends back what comes. It lasts as long
/// as the process.
fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; MESSAGE];
            let _ = stream.set_nodelay(true);
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        }
    });
    Ok(address)
}

/// An address that nobody listens on.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
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
        let deadline = Instant::now() + PATIENCE;
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

    /// Tells it to stop when its sessions have ended, and waits for that.
    fn end(&mut self) -> io::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
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
