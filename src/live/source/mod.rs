//! From which address a connection to a server comes (`source`), and how often an address could not be used. Called by
//! workers and by the control thread.
//!
//! The addresses take turns, and so do the ports of each: a port is used again when all others have been used since, so
//! it is free most probably. Nobody keeps a list of the ports in use. The kernel knows them, and says at once when one
//! is taken towards this server. When an address has no port left, or cannot be used, the next one is tried.

use super::failures::REPORT_EVERY;
use super::objects::{GlobalLive, ServerLive};
use super::source_failures::SourceFailure;
use crate::config::model::{SourceAddress, UseSrc};
use crate::sys::limits::SourceRefused;
use crate::sys::socket::{Own, bind_own, of_client};
use socket2::Socket;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

/// Ports of an address that are tried for one connection. Those that were used longest ago come first; when so many of
/// them are in use, the address counts as used up.
pub const PORT_TRIES_MAX: u32 = 256;

/// Who connects where.
#[derive(Debug, Clone, Copy)]
pub struct Connect<'a> {
    /// The counters of the process.
    pub global: &'a GlobalLive,
    /// The server.
    pub live: &'a ServerLive,
    /// Its names, for an event.
    pub names: (&'a str, &'a str),
    /// The client; `None`: it has no address, or it is a health check.
    pub client: Option<SocketAddr>,
    /// Where to.
    pub to: SocketAddr,
}

impl Connect<'_> {
    /// A socket that `open` has opened and that is connecting from one of `sources`, or has connected.
    ///
    /// # Errors
    /// Those of `open`, and of `connect` when the server has caused them. Those of the last address when none could be
    /// used.
    pub fn start(
        &self,
        sources: &[SourceAddress],
        mut open: impl FnMut() -> io::Result<Socket>,
    ) -> io::Result<Socket> {
        let count = u32::try_from(sources.len()).unwrap_or(u32::MAX).max(1);
        let turn = self.live.source_turn.fetch_add(1, Relaxed);
        let (first, round) = (turn % count, turn / count);
        let order = (0..count).map(|step| (first + step) % count);
        let mut last = None;
        for source in order.filter_map(|index| sources.get(index as usize)) {
            if !source.fits(self.to.ip()) {
                continue;
            }
            let (result, tries) = self.one_source(source, round, &mut open);
            if tries > 1 {
                // The next connection begins behind the ports that were in use.
                let skipped = (tries - 1).saturating_mul(count);
                self.live.source_turn.fetch_add(skipped, Relaxed);
            }
            match result {
                Err(error) => match SourceFailure::of(&error) {
                    Some(failure) => {
                        self.failed(source, failure, &error);
                        last = Some(error);
                    }
                    None => return Err(error),
                },
                Ok(socket) => return Ok(socket),
            }
        }
        Err(last.unwrap_or_else(no_address))
    }

    /// The same from one address, and how many of its ports were tried.
    fn one_source(
        &self,
        source: &SourceAddress,
        round: u32,
        open: &mut impl FnMut() -> io::Result<Socket>,
    ) -> (io::Result<Socket>, u32) {
        let client = source.usesrc.zip(self.client);
        let (own, transparent) = match client {
            Some((usesrc, client)) => {
                let Some(client) = of_client(client, self.to.ip()) else {
                    return (Err(other_family(client)), 1);
                };
                let port = match usesrc {
                    UseSrc::Client => client.port(),
                    UseSrc::ClientIp => 0,
                };
                (Some(SocketAddr::new(client.ip(), port)), true)
            }
            None => (self.own_address(source, round), false),
        };
        let ports = source.ports.filter(|_| client.is_none());
        let tries = ports.map_or(1, |(first, last)| u32::from(last - first) + 1);
        let mut own = Own {
            address: own,
            transparent,
            interface: source.interface.as_deref(),
        };
        let mut result = Err(no_address());
        for tried in 1..=tries.min(PORT_TRIES_MAX) {
            result = open().and_then(|socket| self.connect(socket, own));
            let in_use = result.as_ref().err().and_then(SourceFailure::of);
            if in_use != Some(SourceFailure::UsedUp) {
                return (result, tried);
            }
            own.address = self.own_address(source, round.wrapping_add(tried));
        }
        (result, tries.min(PORT_TRIES_MAX))
    }

    fn connect(&self, socket: Socket, own: Own<'_>) -> io::Result<Socket> {
        bind_own(&socket, own)?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
            result => result.map(|()| socket),
        }
    }

    /// The address, with the port whose turn it is; `None`: the system chooses both.
    fn own_address(&self, source: &SourceAddress, round: u32) -> Option<SocketAddr> {
        let port = source.ports.map(|(first, last)| {
            let count = u32::from(last - first) + 1;
            first + u16::try_from(round % count).unwrap_or(0)
        });
        let any = if self.to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        match (source.ip, port) {
            (None, None) => None,
            (ip, port) => Some(SocketAddr::new(ip.unwrap_or(any), port.unwrap_or(0))),
        }
    }

    /// Counts that an address could not be used, and writes an event.
    fn failed(&self, source: &SourceAddress, failure: SourceFailure, error: &io::Error) {
        self.global.source_failures.count(source.ip, failure);
        let throttle = &self.global.reports.sources[failure as usize];
        let second = self.global.start.elapsed().as_secs();
        let Some(and_others) = throttle.allow(second, REPORT_EVERY) else {
            return;
        };
        let (backend, server) = self.names;
        match failure {
            SourceFailure::UsedUp => tracing::warn!(
                backend,
                server,
                %source,
                and_others,
                cure = "give `source` more ports or more addresses",
                "source ports of an address used up"
            ),
            SourceFailure::Refused => {
                tracing::warn!(backend, server, %source, %error, and_others, "source address refused");
            }
        }
    }
}

/// This machine has no source address for the server.
fn no_address() -> io::Error {
    io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)
}

fn other_family(client: SocketAddr) -> io::Error {
    io::Error::other(SourceRefused {
        step: format!("connect from the client's address {}", client.ip()),
        error: io::Error::from_raw_os_error(libc::EAFNOSUPPORT),
    })
}

#[cfg(test)]
mod tests;
