//! Makes a TCP socket stop listening, and listen again. Usable from any thread.

use super::{backlog, is_unix};
use socket2::Socket;
use std::io;
use std::net::Shutdown;

/// Makes a TCP socket stop listening: clients are refused, and what is queued is reset. It stays bound. A unix socket
/// cannot do that: its clients wait in the queue.
///
/// # Errors
/// Those of `shutdown`.
pub fn suspend(socket: &Socket) -> io::Result<()> {
    if is_unix(socket) || !socket.is_listener()? {
        return Ok(());
    }
    socket.shutdown(Shutdown::Read)
}

/// Makes a TCP socket listen again, if it does not; `wanted` is the length of its accept queue.
///
/// # Errors
/// Those of `bind` and `listen`: another process may listen there now.
pub fn resume(socket: &Socket, wanted: u32) -> io::Result<()> {
    if is_unix(socket) || socket.is_listener()? {
        return Ok(());
    }
    // The kernel gives up a port that it has chosen itself, and still tells it.
    match socket.bind(&socket.local_addr()?) {
        // It is still bound. Without the right to ports below 1024, which a thread may have given up, the kernel refuses
        // before it looks; a socket that is not bound could not listen on its port then.
        Err(error)
            if [io::ErrorKind::InvalidInput, io::ErrorKind::PermissionDenied]
                .contains(&error.kind()) => {}
        result => result?,
    }
    socket.listen(backlog(wanted))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{loopback, options};
    use super::super::{Address, Options, accept, listen};
    use super::*;
    use std::net::TcpStream;

    /// A socket that a reload added to a disabled frontend listened for a moment.
    #[test]
    fn a_new_socket_need_not_listen() {
        let quiet = |address| Options {
            listens: false,
            ..options(address)
        };
        let sockets = listen(&quiet(loopback(0)), 2).unwrap();
        let address = sockets[0].local_addr().unwrap().as_socket().unwrap();
        assert!(sockets.iter().all(|socket| !socket.is_listener().unwrap()));
        assert!(TcpStream::connect(address).is_err());
        for socket in &sockets {
            resume(socket, 16).unwrap();
        }
        let error = listen(&quiet(Address::Tcp(address)), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let _client = TcpStream::connect(address).unwrap();
        assert!(sockets.iter().any(|socket| accept(socket).is_ok()));
    }

    /// One of two whose port the kernel had chosen listened on another port then.
    #[test]
    fn a_socket_listens_again_where_it_was() {
        let sockets = listen(&options(loopback(0)), 2).unwrap();
        let address = sockets[0].local_addr().unwrap().as_socket().unwrap();
        for _ in 0..2 {
            for socket in &sockets {
                suspend(socket).unwrap();
                suspend(socket).unwrap();
            }
            assert!(TcpStream::connect(address).is_err());
            for socket in &sockets {
                resume(socket, 16).unwrap();
                assert_eq!(socket.local_addr().unwrap().as_socket(), Some(address));
                let _client = TcpStream::connect(address).unwrap();
                assert!(sockets.iter().any(|socket| accept(socket).is_ok()));
            }
        }
        resume(&sockets[0], 16).unwrap();
    }
}
