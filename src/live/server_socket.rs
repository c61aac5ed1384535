//! Sockets towards servers that have options of their own (`cc`, `tcp-ut`, `namespace`, `mptcp`). Called by workers and by
//! the control thread.

use super::failures::REPORT_EVERY;
use super::objects::GlobalLive;
use crate::config::model::ServerSocket;
use crate::sys::socket;
use socket2::{Domain, Socket};
use std::io;

/// Opens one, not blocking, for the server with `names` (its backend's and its own). As in HAProxy, a server is reached
/// without a `cc` or `tcp-ut` that the kernel refuses: an event tells of it.
///
/// # Errors
/// Those of [`socket::open`].
pub fn open(
    options: &ServerSocket,
    domain: Domain,
    (global, names): (&GlobalLive, (&str, &str)),
) -> io::Result<Socket> {
    let place = (options.namespace.as_deref(), options.mptcp);
    let socket = match socket::open(domain, place) {
        Ok(socket) => socket,
        Err(error) => {
            tell(global, names, "socket", &error);
            return Err(error);
        }
    };
    socket.set_nonblocking(true)?;
    if let Some(cc) = &options.cc
        && let Err(error) = socket.set_tcp_congestion(cc.as_bytes())
    {
        tell(global, names, "cc", &error);
    }
    if options.tcp_ut.is_some()
        && let Err(error) = socket.set_tcp_user_timeout(options.tcp_ut)
    {
        tell(global, names, "tcp-ut", &error);
    }
    Ok(socket)
}

/// Writes an event, at most once a second.
fn tell(global: &GlobalLive, (backend, server): (&str, &str), option: &str, error: &io::Error) {
    let second = global.start.elapsed().as_secs();
    let Some(and_others) = global.reports.sockets.allow(second, REPORT_EVERY) else {
        return;
    };
    tracing::warn!(
        backend,
        server,
        option,
        %error,
        and_others,
        "socket option refused"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::limits::Shortage;
    use std::time::{Duration, Instant};

    #[test]
    fn options_are_set_and_a_refused_one_is_left_out() {
        let global = GlobalLive::new(Instant::now(), 1);
        let with = |cc: &str, namespace: Option<&str>| {
            let options = ServerSocket {
                cc: Some(cc.into()),
                tcp_ut: Some(Duration::from_millis(1500)),
                namespace: namespace.map(Into::into),
                mptcp: false,
            };
            open(&options, Domain::IPV4, (&global, ("b", "s")))
        };
        for (wanted, is) in [("reno", true), ("no-such-one", false)] {
            let socket = with(wanted, None).unwrap();
            let cc = socket.tcp_congestion().unwrap();
            assert_eq!(cc.starts_with(wanted.as_bytes()), is, "{wanted}");
            let timeout = socket.tcp_user_timeout().unwrap();
            assert_eq!(timeout, Some(Duration::from_millis(1500)));
        }
        let error = with("reno", Some("no-such-namespace")).unwrap_err();
        assert_eq!(Shortage::of(&error), Some(Shortage::Socket));
        let text = error.to_string();
        assert!(text.contains("no-such-namespace"), "{text}");
    }
}
