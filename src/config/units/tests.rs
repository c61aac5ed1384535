//! The parsers: round trips and refused texts.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn durations_round_trip(milliseconds in 0..=2_147_483_647u64) {
        let value = Duration::from_millis(milliseconds);
        prop_assert_eq!(duration(&format_duration(value)), Ok(value));
    }

    #[test]
    fn bare_numbers_are_refused(number: u64) {
        prop_assert!(duration(&number.to_string()).is_err());
    }

    #[test]
    fn binds_round_trip(ip: IpAddr, first: u16, more in 0u16..100) {
        let last = first.saturating_add(more);
        let ports = if first == 0 || last == first { first..=first } else { first..=last };
        let range = if ports.start() == ports.end() {
            first.to_string()
        } else {
            format!("{first}-{last}")
        };
        let text = match ip {
            IpAddr::V4(ip) => format!("{ip}:{range}"),
            IpAddr::V6(ip) => format!("[{ip}]:{range}"),
        };
        prop_assert_eq!(bind(&text), Ok(BindText::Tcp(ip, ports)));
    }

    #[test]
    fn servers_round_trip(ip: IpAddr, port in 1u16..) {
        prop_assume!(!ip.is_unspecified());
        let text = SocketAddr::new(ip, port).to_string();
        prop_assert_eq!(server(&text), Ok(ServerAddress::Ip(ip, ServerPort::Fixed(port))));
    }

    #[test]
    fn names_of_hosts_round_trip(name in "[a-z][a-z0-9-]{0,20}(\\.[a-z][a-z0-9]{1,5}){0,3}", port in 1u16..) {
        let expected = ServerAddress::Name(name.as_str().into(), ServerPort::Fixed(port));
        prop_assert_eq!(server(&format!("{name}:{port}")), Ok(expected));
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,30}|[0-9.:\\[\\]*/@+-]{0,20}") {
        let _ = (duration(&text), bind(&text), server(&text), log_sink(&text), mode(&text), name(&text));
    }
}

#[test]
fn durations_have_a_shortest_and_a_longest() {
    assert_eq!(duration("0s"), Ok(Duration::ZERO));
    assert_eq!(duration(" 1h 30m "), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("2147483647ms"), Ok(DURATION_MAX));
    for bad in ["", "s", "1", "-1s", "1ns", "2147483648ms", "1 fortnight"] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn modes_are_octal() {
    assert_eq!(mode("0660"), Ok(0o660));
    assert_eq!(mode("600"), Ok(0o600));
    for bad in ["", "66", "0888", "1777", "+660", "00660", "rw-r--r--"] {
        assert!(mode(bad).is_err(), "{bad}");
    }
}

#[test]
fn unix_paths_are_bounded() {
    let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
    assert!(bind(&long).is_err());
    assert!(bind(&long[..long.len() - 1]).is_ok());
    assert!(server("unix:@").is_err());
}
