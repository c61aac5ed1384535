//! Values as people read them in a comparison of two configurations, similar to how they are written. Pure.
#![expect(
    clippy::ref_option,
    clippy::ptr_arg,
    clippy::trivially_copy_pass_by_ref,
    reason = "each takes a field of the model as it stands"
)]

use super::address::Network;
use super::values::{BindAddress, ServerAddress, ServerPort};
use std::sync::Arc;
use std::time::Duration;

/// Stands for a value that is absent.
pub(super) const NONE: &str = "none";

pub(super) fn optional<T>(value: Option<&T>, show: impl Fn(&T) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), show)
}

pub(super) fn number<T: std::fmt::Display>(value: &T) -> String {
    value.to_string()
}

pub(super) fn optional_number(value: &Option<u32>) -> String {
    optional(value.as_ref(), number)
}

pub(super) fn text(value: &Arc<str>) -> String {
    format!("{value:?}")
}

pub(super) fn optional_text(value: &Option<Arc<str>>) -> String {
    optional(value.as_ref(), text)
}

pub(super) fn bool_word(value: &bool) -> String {
    value.to_string()
}

pub(super) fn secs(value: &Duration) -> String {
    humantime::format_duration(*value).to_string()
}

/// A timeout; `off` without one.
pub(super) fn duration(value: &Option<Duration>) -> String {
    value.as_ref().map_or_else(|| "off".to_owned(), secs)
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
        ServerAddress::Unix(path) => super::address::unix_text(path),
    }
}

/// All networks without a list of them.
pub(super) fn networks(value: &Vec<Network>) -> String {
    if value.is_empty() {
        return "all".to_owned();
    }
    let shown: Vec<String> = value.iter().map(number).collect();
    shown.join(" ")
}

pub(super) fn bind_address(address: &BindAddress) -> String {
    match address {
        BindAddress::Tcp(address) => address.to_string(),
        BindAddress::Unix(path) => super::address::unix_text(path),
        BindAddress::Descriptor(number) => format!("fd@{number}"),
    }
}
