//! Values as people read them in a comparison, close to how they are written. Pure.
#![expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "each takes a field of the model as it stands"
)]

use crate::config::model::{Check, CheckKind, Keepalive, ServerAddress, ServerPort};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// What stands for a value that is not given.
const NONE: &str = "none";

pub(super) fn optional<T>(value: Option<&T>, show: impl Fn(&T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), show)
}

pub(super) fn number<T: std::fmt::Display>(value: &T) -> String {
    value.to_string()
}

pub(super) fn text(value: &Arc<str>) -> String {
    format!("{value:?}")
}

pub(super) fn bool_word(value: &bool) -> String {
    value.to_string()
}

pub(super) fn secs(value: &Duration) -> String {
    humantime::format_duration(*value).to_string()
}

/// An idle timeout; `off` without one.
pub(super) fn duration(value: &Option<Duration>) -> String {
    value.as_ref().map_or_else(|| "off".to_owned(), secs)
}

pub(super) fn keepalive(value: &Option<Keepalive>) -> String {
    value.as_ref().map_or_else(
        || "off".to_owned(),
        |keep| {
            let (idle, interval) = (secs(&keep.idle), secs(&keep.interval));
            format!("{idle}/{interval}/{}", keep.probes)
        },
    )
}

pub(super) fn address(value: &ServerAddress) -> String {
    let with_port = |host: String, port: &ServerPort| match port {
        ServerPort::Fixed(port) => format!("{host}:{port}"),
        ServerPort::FromClient(0) => host,
        ServerPort::FromClient(offset) => format!("{host}:{offset:+}"),
    };
    match value {
        ServerAddress::Ip(std::net::IpAddr::V6(ip), port) => with_port(format!("[{ip}]"), port),
        ServerAddress::Ip(ip, port) => with_port(ip.to_string(), port),
        ServerAddress::Name(name, port) => with_port(name.to_string(), port),
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// `tcp every 2s (fast 1s, down 5s) rise 2 fall 3 timeout 1s port 81`.
pub(super) fn check(value: &Check) -> String {
    let Check {
        kind,
        interval,
        fast_interval,
        down_interval,
        rise,
        fall,
        timeout,
        port,
        address,
    } = value;
    let kind = match kind {
        CheckKind::Tcp => "tcp",
    };
    let mut shown = format!("{kind} every {}", secs(interval));
    for (word, other) in [("fast", fast_interval), ("down", down_interval)] {
        if other != interval {
            let _ = write!(shown, " {word} {}", secs(other));
        }
    }
    let _ = write!(shown, " rise {rise} fall {fall} timeout {}", secs(timeout));
    if let Some(port) = port {
        let _ = write!(shown, " port {port}");
    }
    if let Some(address) = address {
        let _ = write!(shown, " address {address}");
    }
    shown
}
