//! HAProxy's `option tcplog` line. Pure; runs on the log thread.
//!
//! `%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq`, byte for byte.

use super::clock::Clock;
use crate::live::timing::millis;
use crate::live::{EmbryonicRecord, SessionRecord};
use itoa::{Buffer, Integer};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

/// Appends the line of `session`, without its end; times are those of `clock`.
///
/// Written without `write!`, whose machinery costs as much for one line as everything else that rlb does for a
/// short session.
pub(super) fn write(line: &mut String, session: &SessionRecord, clock: &mut Clock) {
    begin(line, session.client, session.accepted, clock);
    line.push_str(&session.frontend);
    line.push(' ');
    line.push_str(&session.backend);
    line.push('/');
    line.push_str(session.server.as_deref().unwrap_or("<NOSRV>"));
    line.push(' ');
    millis_or_none(line, session.wait);
    line.push('/');
    millis_or_none(line, session.connect);
    after(line, '/', millis(session.total));
    after(line, ' ', session.bytes_out);
    line.push(' ');
    line.push(session.cause.letter());
    line.push(session.phase.letter());
    after(line, ' ', session.active);
    after(line, '/', session.frontend_active);
    after(line, '/', session.backend_active);
    after(line, '/', session.server_active);
    line.push('/');
    if session.redispatched {
        line.push('+');
    }
    line.push_str(Buffer::new().format(session.retries));
    let (server, backend) = session.queue_positions;
    after(line, ' ', server);
    after(line, '/', backend);
    if let Some(suffix) = &session.suffix {
        line.push(' ');
        line.push_str(suffix);
    }
}

/// Appends the line of a connection that was no session: `%ci:%cp [%t] %ft/%b: error`, as in HAProxy.
pub(super) fn write_embryonic(line: &mut String, ended: &EmbryonicRecord, clock: &mut Clock) {
    begin(line, ended.client, ended.accepted, clock);
    for part in [
        &*ended.frontend,
        "/",
        &*ended.listener,
        ": ",
        ended.failure.text(),
    ] {
        line.push_str(part);
    }
}

/// Appends the client and the time.
fn begin(line: &mut String, client: Option<SocketAddr>, accepted: SystemTime, clock: &mut Clock) {
    match client {
        Some(client) => {
            address(line, client.ip());
            after(line, ':', client.port());
        }
        None => line.push_str("unix:1"),
    }
    line.push_str(" [");
    clock.write(line, accepted);
    line.push_str("] ");
}

fn after(line: &mut String, separator: char, number: impl Integer) {
    line.push(separator);
    line.push_str(Buffer::new().format(number));
}

fn address(line: &mut String, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            line.push_str(Buffer::new().format(a));
            for part in [b, c, d] {
                after(line, '.', part);
            }
        }
        IpAddr::V6(ip) => {
            // Writing to a string cannot fail.
            let _ = write!(line, "{ip}");
        }
    }
}

fn millis_or_none(line: &mut String, time: Option<Duration>) {
    match time {
        Some(time) => line.push_str(Buffer::new().format(millis(time))),
        None => line.push_str("-1"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::live::{Cause, HeaderFailure, Phase};
    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    /// A session as in HAProxy's manual.
    pub(in crate::log) fn record() -> SessionRecord {
        let accepted: Timestamp = "2026-11-22T06:51:57.997Z".parse().unwrap();
        SessionRecord {
            client: Some("127.0.0.1:47384".parse().unwrap()),
            accepted: accepted.into(),
            frontend: "app-direct".into(),
            backend: "app-direct".into(),
            server: Some("app-direct-node03".into()),
            wait: Some(Duration::from_millis(1)),
            connect: Some(Duration::ZERO),
            total: Duration::from_micros(4_900),
            queue_positions: (0, 0),
            bytes_in: 1234,
            bytes_out: 7389,
            cause: Cause::Normal,
            phase: Phase::Done,
            active: 19,
            frontend_active: 9,
            backend_active: 8,
            server_active: 3,
            retries: 0,
            redispatched: false,
            suffix: None,
        }
    }

    fn line(session: &SessionRecord, zone: &TimeZone) -> String {
        let mut line = String::new();
        write(&mut line, session, &mut Clock::new(zone.clone()));
        line
    }

    #[test]
    fn a_plain_session_is_haproxys_line() {
        assert_eq!(
            line(&record(), &TimeZone::UTC),
            "127.0.0.1:47384 [22/Nov/2026:06:51:57.997] app-direct app-direct/app-direct-node03 \
             1/0/4 7389 -- 19/9/8/3/0 0/0"
        );
    }

    #[test]
    fn what_a_frontend_adds_stands_behind_the_line() {
        let session = SessionRecord {
            suffix: Some("id-1 {name}".into()),
            ..record()
        };
        let line = line(&session, &TimeZone::UTC);
        assert!(line.ends_with(" 19/9/8/3/0 0/0 id-1 {name}"), "{line}");
    }

    /// The line that HAProxy 3.5 wrote.
    #[test]
    fn a_connection_without_its_header_is_haproxys_error_line() {
        let ended = EmbryonicRecord {
            client: record().client,
            accepted: record().accepted,
            frontend: "fe".into(),
            listener: "b1".into(),
            failure: HeaderFailure::TimedOut,
        };
        let mut line = String::new();
        write_embryonic(&mut line, &ended, &mut Clock::new(TimeZone::UTC));
        assert_eq!(
            line,
            "127.0.0.1:47384 [22/Nov/2026:06:51:57.997] fe/b1: Timeout while waiting for PROXY \
             protocol header"
        );
    }

    #[test]
    fn a_session_without_a_server_has_no_times() {
        let session = SessionRecord {
            client: Some("127.0.0.1:39116".parse().unwrap()),
            frontend: "kube-api".into(),
            backend: "kube-api".into(),
            server: None,
            wait: None,
            connect: None,
            total: Duration::ZERO,
            bytes_out: 0,
            cause: Cause::Server,
            phase: Phase::Connect,
            active: 16,
            frontend_active: 1,
            backend_active: 0,
            server_active: 0,
            ..record()
        };
        assert_eq!(
            line(&session, &TimeZone::UTC),
            "127.0.0.1:39116 [22/Nov/2026:06:51:57.997] kube-api kube-api/<NOSRV> -1/-1/0 0 SC \
             16/1/0/0/0 0/0"
        );
    }

    #[test]
    fn redispatch_unix_and_ipv6_clients_and_local_time() {
        let unix = SessionRecord {
            client: None,
            retries: 2,
            redispatched: true,
            ..record()
        };
        assert_eq!(
            line(&unix, &TimeZone::fixed(jiff::tz::offset(2))),
            "unix:1 [22/Nov/2026:08:51:57.997] app-direct app-direct/app-direct-node03 1/0/4 7389 \
             -- 19/9/8/3/+2 0/0"
        );
        let v6 = SessionRecord {
            client: Some("[2001:db8::1]:443".parse().unwrap()),
            cause: Cause::ClientTimeout,
            phase: Phase::Data,
            ..record()
        };
        let line = line(&v6, &TimeZone::UTC);
        assert!(line.starts_with("2001:db8::1:443 ["), "{line}");
        assert!(line.contains(" 7389 cD "), "{line}");
    }
}
