//! Gives a socket its own address before it connects. Usable from any thread.
//!
//! Without a port, `IP_BIND_ADDRESS_NO_PORT` leaves the choice to `connect`: the kernel then looks for a port that is
//! free towards the server alone, and not for one that nobody uses. With a port, `SO_REUSEADDR` lets the same port be
//! used towards several servers.

use crate::sys::limits::SourceRefused;
use crate::sys::raw;
use socket2::Socket;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

/// What a socket is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Address and port; port 0: `connect` chooses one. `None`: `connect` chooses both.
    pub address: Option<SocketAddr>,
    /// The address may be another machine's.
    pub transparent: bool,
    /// `SO_BINDTODEVICE`.
    pub interface: Option<&'a str>,
}

/// Gives `socket` its own address.
///
/// # Errors
/// `EADDRINUSE` when the port is taken: another one may be tried with the same socket. [`SourceRefused`] for everything
/// else.
pub fn bind_own(socket: &Socket, own: Own<'_>) -> io::Result<()> {
    if let Some(device) = own.interface {
        let bound = socket.bind_device(Some(device.as_bytes()));
        bound.map_err(|error| refused(format!("use the device {device}"), error))?;
    }
    let Some(address) = own.address else {
        return Ok(());
    };
    if own.transparent {
        let set = match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
        };
        set.map_err(|error| refused("use the client's address".to_owned(), error))?;
    }
    if address.port() == 0 {
        // Kernels before 4.2 do not have it: `bind` chooses a port there.
        let _ = raw::leave_port_to_connect(socket.as_fd());
    } else {
        socket.set_reuse_address(true)?;
    }
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        Err(error) => Err(refused(format!("bind to {address}"), error)),
        Ok(()) => Ok(()),
    }
}

fn refused(step: String, error: io::Error) -> io::Error {
    io::Error::other(SourceRefused { step, error })
}

/// The address of a client as a socket of the family of `to` can have it. `None`: it has none.
pub fn of_client(client: SocketAddr, to: IpAddr) -> Option<SocketAddr> {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    (client.is_ipv4() == to.is_ipv4()).then_some(client)
}
