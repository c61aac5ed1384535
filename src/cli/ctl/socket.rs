//! The runtime socket that a command goes to: which one it is, and the answer within a limit of time.

use crate::config::model::BindAddress;
use crate::config::{self, address, units};
use anyhow::Context;
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{SockAddr, Socket, Type};
use std::io::{BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which socket, and how long its answer may take.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SocketArgs {
    /// The socket, a path or ADDRESS:PORT; by default that of the configuration file
    #[arg(long, short, value_name = "SOCKET", value_parser = socket)]
    pub(in crate::cli) socket: Option<BindAddress>,
    /// The configuration file whose [runtime-api] names the socket
    #[arg(long, short, value_name = "FILE", default_value = "/etc/rlb/rlb.toml")]
    pub(in crate::cli) config: PathBuf,
    /// Longest wait for the socket and for each piece of the answer, as 10s; by default 10s, and 60s
    /// for reload and upgrade
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    pub(in crate::cli) timeout: Option<Duration>,
}

/// A socket that a command line names: as in the file, or a path from the directory of now.
pub(in crate::cli) fn socket(text: &str) -> Result<BindAddress, String> {
    let is_path = text.starts_with(['/', '@']) || text.starts_with("abns@");
    let as_in_file = is_path || text.contains(':') || text.is_empty();
    let address = if as_in_file {
        address::runtime(text)
    } else {
        let path = std::path::absolute(text).map_err(|error| error.to_string())?;
        address::runtime(&path.to_string_lossy())
    };
    address.map_err(|problem| problem.message)
}

/// The socket for people.
fn shown(socket: &BindAddress) -> String {
    match socket {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => path.display().to_string(),
        BindAddress::Descriptor(number) => format!("fd@{number}"),
    }
}

/// Parses a timeout of the command line.
fn timeout(text: &str) -> Result<Duration, String> {
    match units::duration(text) {
        Ok(time) if time.is_zero() => Err("it must be longer than 0".to_owned()),
        result => result,
    }
}

/// The socket of `args`, and how long each part of an answer may take.
pub(super) struct Target {
    /// The first of them that somebody listens on: a reload may be to open the others.
    addresses: Vec<BindAddress>,
    timeout: Duration,
}

impl Target {
    /// `default`: the longest wait when the command line says none.
    ///
    /// # Errors
    /// When the configuration names no socket.
    pub(super) fn of(args: &SocketArgs, default: Duration) -> anyhow::Result<Self> {
        let addresses = match &args.socket {
            Some(address) => vec![address.clone()],
            None => configured(&args.config)?,
        };
        Ok(Self {
            addresses,
            timeout: args.timeout.unwrap_or(default),
        })
    }

    /// Sends a line and reads the answer to its end.
    ///
    /// # Errors
    /// When the socket cannot be reached, or there is no whole answer in time.
    pub(super) fn ask(&self, line: &str) -> anyhow::Result<String> {
        let timeout = self.timeout;
        let (address, connected) = self.connect();
        let late = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                anyhow::anyhow!("{} does not answer within {timeout:?}", shown(address))
            }
            _ => anyhow::Error::new(error).context("no whole answer"),
        };
        let mut stream = match connected {
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(error).with_context(|| format!("cannot reach {}", shown(address)));
            }
            result => result.map_err(late)?,
        };
        let line = line.replace(['\r', '\n'], " ");
        let mut answer = String::new();
        stream
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .and_then(|()| stream.read_to_string(&mut answer))
            .map_err(late)?;
        Ok(answer)
    }

    /// Sends a line and hands over the pieces of its answer as they come, each with its `end`, until the answer ends or
    /// something is typed, until nobody reads what is printed, or until one is not `taken`.
    ///
    /// # Errors
    /// When the socket cannot be reached, or the connection fails.
    pub(super) fn follow(
        &self,
        line: &str,
        end: u8,
        mut taken: impl FnMut(&[u8]) -> bool,
    ) -> anyhow::Result<()> {
        let (address, connected) = self.connect();
        let stream = connected.with_context(|| format!("cannot reach {}", shown(address)))?;
        stream.set_read_timeout(None)?;
        let mut stream = BufReader::new(stream);
        // What it sends ends the answer, and so does the end of what it sends.
        let line = line.replace(['\r', '\n'], " ");
        stream
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .context("no whole answer")?;
        let mut piece = Vec::new();
        loop {
            if stream.buffer().is_empty() && ended_before(stream.get_ref()) {
                return Ok(());
            }
            let ended = stream.read_until(end, &mut piece);
            let length = ended.context("no whole answer")?;
            if length == 0 || !taken(&piece) {
                return Ok(());
            }
            piece.clear();
        }
    }

    /// Connects to the first address that somebody listens on; without one, what came of the first of all.
    fn connect(&self) -> (&BindAddress, std::io::Result<Socket>) {
        let nobody = |result: &std::io::Result<Socket>| {
            let kind = result.as_ref().err().map(std::io::Error::kind);
            matches!(
                kind,
                Some(ErrorKind::NotFound | ErrorKind::ConnectionRefused)
            )
        };
        let tried = self.addresses.iter();
        let mut tried = tried.map(|address| (address, connect(address, self.timeout)));
        let first = tried.next();
        let first = first.unwrap_or_else(|| (&NOWHERE, Err(ErrorKind::NotFound.into())));
        if !nobody(&first.1) {
            return first;
        }
        tried.find(|(_, result)| !nobody(result)).unwrap_or(first)
    }
}

/// Waits until `stream` has something to read. `true`: before, a line was typed on the terminal, which is thrown away, or
/// the reader of standard output has gone.
fn ended_before(stream: &Socket) -> bool {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let typed = if stdin.is_terminal() {
        PollFlags::IN
    } else {
        PollFlags::empty()
    };
    let mut fds = [
        PollFd::new(stream, PollFlags::IN),
        PollFd::new(&stdout, PollFlags::empty()),
        PollFd::new(&stdin, typed),
    ];
    // Without a terminal the end of the input is no reason to end.
    let fds = if typed.is_empty() {
        &mut fds[..2]
    } else {
        &mut fds[..]
    };
    // A call that fails says nothing: the next read waits.
    let _ = poll(fds, None);
    let told = |index: usize| {
        fds.get(index)
            .is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty())
    };
    if told(0) {
        return false;
    }
    if told(2) {
        // What cannot be read has ended, too.
        let _ = stdin.read_line(&mut String::new());
    }
    told(1) || told(2)
}

/// In the place of a socket where there is none.
const NOWHERE: BindAddress = BindAddress::Descriptor(-1);

/// Connects within `timeout`, which also applies to each read and write. When the queue of the socket is full,
/// the kernel waits as long as the send timeout.
fn connect(address: &BindAddress, timeout: Duration) -> std::io::Result<Socket> {
    let address = match address {
        BindAddress::Tcp(address) => SockAddr::from(*address),
        BindAddress::Unix(path) => crate::sys::socket::unix_address(path)?,
        BindAddress::Descriptor(_) => return Err(std::io::ErrorKind::InvalidInput.into()),
    };
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    socket.set_write_timeout(Some(timeout))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&address)?;
    Ok(socket)
}

/// Whether the address says where the socket is.
fn can_be_reached(address: &BindAddress) -> bool {
    !matches!(address, BindAddress::Descriptor(_))
}

/// The sockets that a configuration names and that may do the most. Also reads them from a file that is not valid (any
/// more).
fn configured(path: &Path) -> anyhow::Result<Vec<BindAddress>> {
    let shown = path.display();
    if let Err(error) = std::fs::metadata(path) {
        return Err(error).with_context(|| {
            format!(
                "cannot read {shown}, which is to name the socket \
                 (name another file with --config, or the socket with --socket)"
            )
        });
    }
    if let Ok((config, _)) = config::load(path) {
        let mut sockets = config.runtime_api.map_or_else(Vec::new, |api| api.sockets);
        let is_passed = !sockets.is_empty();
        sockets.retain(|one| can_be_reached(&one.address));
        let Some(most) = sockets.iter().map(|one| one.level).max() else {
            anyhow::ensure!(
                !is_passed,
                "{shown} names only sockets that are passed, and not where they are: use --socket"
            );
            anyhow::bail!("{shown} names no socket: write a [runtime-api] table, or use --socket");
        };
        let best = sockets.into_iter().filter(|one| one.level == most);
        return Ok(best.map(|one| one.address).collect());
    }
    let mut named = config::runtime_sockets(path);
    named.retain(can_be_reached);
    anyhow::ensure!(
        !named.is_empty(),
        "{shown} is not valid, and no socket can be read from it: \
         see `rlb check {shown}`, or use --socket"
    );
    Ok(named)
}
