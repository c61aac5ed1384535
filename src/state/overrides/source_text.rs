//! `source` of a server as one word: its addresses with commas, the parts of each with slashes. Pure.

use crate::config::address;
use crate::config::model::{Source, SourceAddress, UseSrc};

/// ` source=ADDRESS/USESRC/DEVICE,…`; `-` stands for what an address does not have.
pub(super) fn write(source: &Source) -> String {
    let one = |one: &SourceAddress| {
        let plain = SourceAddress {
            usesrc: None,
            interface: None,
            ..one.clone()
        };
        let usesrc = one.usesrc.map_or("-", UseSrc::name);
        let device = one.interface.as_deref().unwrap_or("-");
        format!("{plain}/{usesrc}/{device}")
    };
    let all: Vec<String> = source.iter().map(one).collect();
    format!(" source={}", all.join(","))
}

/// Reads what [`write`] has written behind the `=`.
pub(super) fn read(text: &str) -> Option<Source> {
    let one = |text: &str| {
        let mut words = text.splitn(3, '/');
        let (ip, ports) = address::source(words.next()?).ok()?;
        let usesrc = match words.next()? {
            "client" => Some(UseSrc::Client),
            "clientip" => Some(UseSrc::ClientIp),
            _ => None,
        };
        let device = words.next().filter(|device| *device != "-");
        Some(SourceAddress {
            ip,
            ports,
            interface: device.map(Into::into),
            usesrc,
        })
    };
    text.split(',').map(one).collect()
}

#[test]
fn what_is_written_is_read() {
    let all: Source = [
        ("10.0.0.5", None, None),
        ("[fd00::5]:1024-65535", Some(UseSrc::Client), Some("eth1")),
        ("*", Some(UseSrc::ClientIp), None),
        ("*:5000", None, Some("eth1")),
        ("fd00::6", None, None),
    ]
    .map(|(text, usesrc, device)| {
        let (ip, ports) = address::source(text).expect("an address");
        SourceAddress {
            ip,
            ports,
            interface: device.map(Into::into),
            usesrc,
        }
    })
    .into();
    let text = write(&all);
    assert_eq!(
        read(text.strip_prefix(" source=").expect("a word")),
        Some(all)
    );
}
