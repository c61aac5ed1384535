//! Every form for every use, round trips, and what is refused in which words.

use super::*;
use proptest::prelude::*;

proptest! {
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
    fn nothing_panics(text in "\\PC{0,30}|[0-9.:\\[\\]*/@+-]{0,20}|(unix|udp|file):.{0,20}") {
        let _ = (bind(&text), server(&text), node(&text, 1), ip_alone(&text), socket(&text));
        let _ = log_sink(&text);
    }
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

#[test]
fn every_form_of_a_bind() {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    for (text, expected) in [
        ("*:80", BindText::Tcp(any, 80..=80)),
        (":80", BindText::Tcp(any, 80..=80)),
        ("*:0", BindText::Tcp(any, 0..=0)),
        ("10.0.0.1:80", BindText::Tcp(v4(1), 80..=80)),
        ("[::1]:80", BindText::Tcp(V6, 80..=80)),
        ("*:8000-8010", BindText::Tcp(any, 8000..=8010)),
        ("unix:/run/s", BindText::Unix("/run/s".into())),
        ("unix:@name", BindText::Unix("@name".into())),
        ("abns@name", BindText::Unix("abns@name".into())),
    ] {
        assert_eq!(bind(text), Ok(expected), "{text}");
    }
}

#[test]
fn every_form_of_a_server() {
    let name = |port| ServerAddress::Name("db1".into(), port);
    for (text, expected) in [
        (
            "10.0.0.1:80",
            ServerAddress::Ip(v4(1), ServerPort::Fixed(80)),
        ),
        (
            "10.0.0.1",
            ServerAddress::Ip(v4(1), ServerPort::FromClient(0)),
        ),
        ("[::1]:80", ServerAddress::Ip(V6, ServerPort::Fixed(80))),
        ("[::1]", ServerAddress::Ip(V6, ServerPort::FromClient(0))),
        ("db1:80", name(ServerPort::Fixed(80))),
        ("db1", name(ServerPort::FromClient(0))),
        ("db1:+1000", name(ServerPort::FromClient(1000))),
        ("db1:-1000", name(ServerPort::FromClient(-1000))),
        ("unix:/run/s", ServerAddress::Unix("/run/s".into())),
        ("unix:@name", ServerAddress::Unix("@name".into())),
        ("abns@name", ServerAddress::Unix("abns@name".into())),
    ] {
        assert_eq!(server(text), Ok(expected), "{text}");
    }
    let at = |host| node(host, 80);
    assert_eq!(at("10.0.0.1"), server("10.0.0.1:80"));
    assert_eq!(at("[::1]"), server("[::1]:80"));
    assert_eq!(at("db1"), server("db1:80"));
}

#[test]
fn every_form_of_the_other_addresses() {
    for (text, expected) in [("10.0.0.1", v4(1)), ("::1", V6), ("[::1]", V6)] {
        assert_eq!(ip_alone(text), Ok(expected), "{text}");
    }
    for text in ["/run/s", "unix:/run/s"] {
        assert_eq!(socket(text), Ok("/run/s".into()), "{text}");
    }
    for text in ["@name", "unix:@name"] {
        assert_eq!(socket(text), Ok("@name".into()), "{text}");
    }
    for (text, expected) in [
        ("stdout", LogSink::Stdout),
        ("stderr", LogSink::Stderr),
        ("file:/log", LogSink::File("/log".into())),
        ("unix:/dev/log", LogSink::Unix("/dev/log".into())),
        ("unix:@name", LogSink::Unix("@name".into())),
        ("abns@name", LogSink::Unix("abns@name".into())),
        (
            "udp:10.0.0.1:1514",
            LogSink::Udp(SocketAddr::new(v4(1), 1514)),
        ),
        ("udp:10.0.0.1", LogSink::Udp(SocketAddr::new(v4(1), 514))),
        ("udp:[::1]:1514", LogSink::Udp(SocketAddr::new(V6, 1514))),
        ("udp:[::1]", LogSink::Udp(SocketAddr::new(V6, 514))),
    ] {
        assert_eq!(log_sink(text), Ok(expected), "{text}");
    }
}

#[test]
fn a_descriptor_is_a_number_from_3() {
    assert_eq!(bind("fd@3"), Ok(BindText::Descriptor(3)));
    for text in ["fd@", "fd@2", "fd@-3", "fd@+3", "fd@x", "fd@99999999999"] {
        let problem = bind(text).expect_err(text);
        assert!(problem.message.contains("not a descriptor"), "{text}");
    }
    assert!(server("fd@3").is_err());
}

/// A form that a use does not take is refused with what to write in its place.
#[test]
fn forms_that_are_refused() {
    fn hint<T: std::fmt::Debug>(result: Result<T, Problem>) -> Option<String> {
        result.unwrap_err().hint
    }
    let write = |text: &str| Some(format!("write \"{text}\""));
    for (text, instead) in [
        ("abnsz@name", "unix:@name"),
        ("unix@/run/s", "unix:/run/s"),
        ("ipv4@10.0.0.1:80", "10.0.0.1:80"),
        ("ipv6@[::1]:80", "[::1]:80"),
        ("tcp@10.0.0.1:80", "10.0.0.1:80"),
        ("/run/s", "unix:/run/s"),
    ] {
        assert_eq!(hint(bind(text)), write(instead), "{text}");
        assert_eq!(hint(server(text)), write(instead), "{text}");
    }
    for text in ["sockpair@4", "udp@10.0.0.1:53"] {
        for problem in [bind(text).unwrap_err(), server(text).unwrap_err()] {
            let said = "is not a form of address that rlb knows";
            assert!(problem.message.ends_with(said), "{text}: {problem:?}");
            assert_eq!(problem.hint, None, "{text}");
        }
    }
    assert_eq!(
        hint(bind("80")).as_deref(),
        Some("write \"*:80\" for all addresses of this machine")
    );
    for bad in [
        "",
        "*",
        "10.0.0.1:",
        "10.0.0.1:65536",
        "*:9-8",
        "*:0-8",
        "name:80",
        "::1:80",
    ] {
        assert!(bind(bad).is_err(), "{bad}");
    }
    for bad in [
        "",
        "*:80",
        "0.0.0.0:80",
        "10.0.0.1:0",
        "http://x:80",
        "a b:80",
        "1.2.3:80",
        "::1",
    ] {
        assert!(server(bad).is_err(), "{bad}");
    }
    for bad in ["", "10.0.0.1:80", "[10.0.0.1]", "[10.0.0.1", "::1]", "name"] {
        assert!(ip_alone(bad).is_err(), "{bad}");
    }
    for bad in ["", "@", "run/s", "unix:", "unix:run/s", "/a\0b"] {
        assert!(socket(bad).is_err(), "{bad}");
    }
    for bad in [
        "",
        "stdin",
        "file:log",
        "unix:log",
        "udp:name:514",
        "udp:10.0.0.1:0",
        "/dev/log",
    ] {
        assert!(log_sink(bad).is_err(), "{bad}");
    }
    assert!(node("10.0.0.1:80", 1).is_err());
}

#[test]
fn unix_paths_are_bounded() {
    let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
    assert!(bind(&long).is_err() && socket(&long).is_err());
    assert!(bind(&long[..long.len() - 1]).is_ok());
    assert!(server("unix:@").is_err());
    let name = "x".repeat(UNIX_PATH_BYTES_MAX);
    for prefix in ["unix:@", "abns@"] {
        assert!(bind(&format!("{prefix}{name}")).is_ok(), "{prefix}");
        assert!(bind(&format!("{prefix}{name}x")).is_err(), "{prefix}");
    }
}
