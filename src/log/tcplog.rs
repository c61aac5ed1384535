//! HAProxy's `option tcplog` line. Pure; runs on the log thread.
//!
//! `%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq`, byte for byte.

use crate::live::SessionRecord;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

/// English month names, whatever the locale: syslog and HAProxy use these.
pub(super) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Appends the line of `session`, without its end; times are printed in `zone`.
pub(super) fn write(line: &mut String, session: &SessionRecord, zone: &TimeZone) {
    // Writing to a string cannot fail.
    let _ = try_write(line, session, zone);
}

fn try_write(line: &mut String, session: &SessionRecord, zone: &TimeZone) -> fmt::Result {
    match session.client {
        Some(client) => write!(line, "{}:{}", client.ip(), client.port())?,
        None => line.write_str("unix:1")?,
    }
    line.write_str(" [")?;
    date(line, &local(session.accepted, zone))?;
    let server = session.server.as_deref().unwrap_or("<NOSRV>");
    write!(line, "] {} {}/{server} ", session.frontend, session.backend)?;
    millis_or_none(line, session.wait)?;
    line.write_char('/')?;
    millis_or_none(line, session.connect)?;
    write!(
        line,
        "/{} {} {}{} {}/{}/{}/{}/",
        session.total.as_millis(),
        session.bytes_out,
        session.cause.letter(),
        session.phase.letter(),
        session.active,
        session.frontend_active,
        session.backend_active,
        session.server_active,
    )?;
    let redispatched = if session.redispatched { "+" } else { "" };
    // Queue positions: nothing queues yet, so both are the zero that HAProxy prints then.
    write!(line, "{redispatched}{} 0/0", session.retries)
}

fn millis_or_none(line: &mut String, time: Option<Duration>) -> fmt::Result {
    match time {
        Some(time) => write!(line, "{}", time.as_millis()),
        None => line.write_str("-1"),
    }
}

/// `22/Nov/2026:06:51:57.997`
fn date(line: &mut String, at: &Zoned) -> fmt::Result {
    write!(
        line,
        "{:02}/{}/{:04}:{:02}:{:02}:{:02}.{:03}",
        at.day(),
        month(at),
        at.year(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond(),
    )
}

/// `Nov`
pub(super) fn month(at: &Zoned) -> &'static str {
    let index = usize::try_from(at.month() - 1).unwrap_or(0);
    MONTHS.get(index).copied().unwrap_or("Jan")
}

fn local(at: SystemTime, zone: &TimeZone) -> Zoned {
    // A clock outside the years -9999 to 9999 is shown as 1970.
    Timestamp::try_from(at)
        .unwrap_or(Timestamp::UNIX_EPOCH)
        .to_zoned(zone.clone())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::live::{Cause, Phase};

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
        }
    }

    fn line(session: &SessionRecord, zone: &TimeZone) -> String {
        let mut line = String::new();
        write(&mut line, session, zone);
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
