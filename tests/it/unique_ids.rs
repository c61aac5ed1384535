//! Unique ids, the text behind a session's line, and the namespace of a bind: in PROXY headers to servers and in the log, as
//! HAProxy's.

use crate::harness::beside::{Beside, both, both_since};
use crate::harness::client;
use crate::harness::netns::Netns;
use crate::send_proxy::{greeted, heard, next};
use std::net::{Ipv4Addr, SocketAddr};

/// Where a client with a PROXY header connects to.
const WITH_HEADER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7001);
/// What a header of version 2 begins with, up to its length.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 0x15, 0x38];
/// Bytes of a header before its TLVs.
const BEFORE_TLVS: usize = SIGNATURE.len() + 2 + ADDRESSES.len();

const FORMAT: &str = "%{+X}o\\ %ci:%cp_%fi:%fp\\ \\ %{-X}fp:%[fc_pp_authority]:%f%%";
const TCPLOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";
const SUFFIX: &str = "%ID {%[fc_pp_authority]|%[fc_pp_tlv(0xE4),hex]|%[fc_pp_tlv(NETNS)]} %{+Q}f";

/// A header of version 2 with these TLVs.
fn header(tlvs: &[u8]) -> Vec<u8> {
    let body = [&ADDRESSES[..], tlvs].concat();
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [SIGNATURE, &length[..], &body].concat()
}

/// The value of the TLV of this type in a header that a server has got; `None`: it has none.
fn tlv(header: &[u8], kind: u8) -> Option<String> {
    let mut rest = header.get(BEFORE_TLVS..)?;
    while let [own, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, after) = more.split_at_checked(length)?;
        if *own == kind {
            return Some(value.escape_ascii().to_string());
        }
        rest = after;
    }
    None
}

/// With a header of each version: the id that the server gets, and what stands behind the session's line.
#[test]
fn ids_and_what_stands_behind_a_line_are_haproxys() {
    let seen = both_since((3, 0), |program| {
        let netns = Netns::loopback();
        let (server, heard) = netns.enter(heard);
        let service = format!(
            "  bind {WITH_HEADER} accept-proxy\n  unique-id-format {FORMAT}\n  \
             log-format \"{TCPLOG} {SUFFIX}\"\n  \
             server s {} send-proxy-v2 proxy-v2-options unique-id\n",
            server.address()
        );
        let subject = Beside::start(program, netns, ("", &service));
        let mut seen = Vec::new();
        for bytes in [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 5432\r\n".to_vec(),
            header(b"\x02\0\x0adb.example\xE4\0\x02\x01\xFF\x05\0\x05other"),
            // A line feed in a name.
            header(b"\x02\0\x03a\nb"),
        ] {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            subject.netns.enter(|| greeted(from, WITH_HEADER, &bytes));
            let id = tlv(&next(&heard), 5);
            let line = subject.log.next_with(" fe fe/s ");
            let behind = line.split_once(" 0/0 ").map_or("", |(_, behind)| behind);
            // In rlb's lines control characters are never as they are.
            let is_text = !behind.contains("{a");
            seen.push(format!("{id:?}: {}", if is_text { behind } else { "" }));
        }
        subject.stop();
        seen
    });
    if let Some(first) = seen.first() {
        let id = "C0000201:1267_C0000202:1538 5432::fe%";
        assert!(first.contains(id) && first.contains("{-|-|-}"), "{seen:#?}");
    }
}

/// Byte for byte.
#[test]
fn the_namespace_of_a_bind_is_told_as_by_haproxy() {
    let inside = Netns::alone("told");
    let seen = both(|program| {
        let netns = Netns::loopback();
        let (server, heard) = netns.enter(heard);
        let service = format!(
            "  bind {WITH_HEADER} namespace {}\n  server s {} send-proxy-v2\n",
            inside.name(),
            server.address()
        );
        let subject = Beside::start(program, netns, ("", &service));
        let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 7002));
        inside.enter(|| greeted(from, WITH_HEADER, b""));
        let header = next(&heard);
        subject.stop();
        vec![header.escape_ascii().to_string()]
    });
    assert!(
        seen.iter().all(|header| header.contains(inside.name())),
        "{seen:?}"
    );
}

/// Byte for byte: values of the session, text, a TLV of the client's that is passed on, and an empty one.
#[test]
fn tlvs_of_its_own_are_haproxys() {
    let seen = both_since((3, 0), |program| {
        let netns = Netns::loopback();
        let (server, heard) = netns.enter(heard);
        let service = format!(
            "  bind {WITH_HEADER} accept-proxy\n  unique-id-format %ci\n  \
             default-server set-proxy-v2-tlv-fmt(0xE1) \"%[src]:%cp to %fi %%\"\n  \
             server s {} send-proxy-v2 proxy-v2-options crc32c \
             set-proxy-v2-tlv-fmt(228) %[fc_pp_tlv(0xE4)] set-proxy-v2-tlv-fmt(0345) %[fc_pp_authority] \
             set-proxy-v2-tlv-fmt(5) %ID\n",
            server.address()
        );
        let subject = Beside::start(program, netns, ("", &service));
        let mut seen = Vec::new();
        for bytes in [
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 5432\r\n".to_vec(),
            header(b"\xE4\0\x02\x01\xFF\x05\0\x05other"),
        ] {
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            subject.netns.enter(|| greeted(from, WITH_HEADER, &bytes));
            seen.push(next(&heard).escape_ascii().to_string());
        }
        subject.stop();
        seen
    });
    if let [first, second] = &seen[..] {
        let own = "\\xe1\\x00\\x1d192.0.2.1:4711 to 192.0.2.2 %\\xe4\\x00\\x00";
        assert!(first.contains(own), "{first}");
        assert!(
            second.contains("\\xe4\\x00\\x02\\x01\\xff\\xe5\\x00\\x00"),
            "{second}"
        );
    }
}

/// A server that is added has the words of a file's.
#[test]
fn an_added_server_gets_headers_as_haproxys() {
    let seen = both_since((3, 0), |program| {
        let netns = Netns::loopback();
        let (server, heard) = netns.enter(heard);
        let service = format!(
            "  bind {WITH_HEADER} accept-proxy\n  balance roundrobin\n  unique-id-format %ci\n  \
             server s {} disabled\n",
            server.address()
        );
        let subject = Beside::start(program, netns, ("", &service));
        let mut seen = Vec::new();
        for (at, words) in [
            "send-proxy on-marked-down shutdown-sessions",
            "send-proxy-v2 send-proxy proxy-v2-options unique-id",
            "send-proxy-v2 proxy-v2-options crc32c,bogus",
            "send-proxy-v2 set-proxy-v2-tlv-fmt(0xE3) %[src]:%f",
            "on-marked-down nothing",
            "on-marked-up nothing",
        ]
        .into_iter()
        .enumerate()
        {
            let add = format!("add server fe/n{at} {} {words}", server.address());
            let answer = subject.ask(&add);
            seen.push(format!("{words}: {}", answer.trim()));
            if !answer.contains("registered") {
                continue;
            }
            subject.ask(&format!("enable server fe/n{at}"));
            let client = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 5432\r\n";
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            subject.netns.enter(|| greeted(from, WITH_HEADER, client));
            seen.push(next(&heard).escape_ascii().to_string());
            subject.ask(&format!("disable server fe/n{at}"));
        }
        subject.stop();
        seen
    });
    assert!(
        seen.is_empty() || seen[0].ends_with("New server registered."),
        "{seen:#?}"
    );
}

/// The page of the statistics behind a proxy: the client of the header is in the log, and a connection without one ends.
#[test]
fn the_statistics_take_headers_as_haproxy() {
    let seen = both(|program| {
        let service = format!(
            "  server s 127.0.0.1:9\nlisten page\n  mode http\n  option httplog\n  bind {WITH_HEADER} accept-proxy\n  \
             bind 127.0.0.1:7003\n  stats enable\n  stats uri /\n"
        );
        let subject = Beside::start(program, Netns::loopback(), ("", &service));
        let ask = |to: SocketAddr, begin: &str| {
            subject.netns.enter(|| {
                let mut stream = client::connect(to);
                let request = format!("{begin}GET /;csv HTTP/1.0\r\n\r\n");
                // The other end may have closed.
                let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
                let (answer, _) = client::read_to_end(&mut stream);
                String::from_utf8_lossy(&answer).contains("200 OK")
            })
        };
        let mut seen = Vec::new();
        for (begin, is_client) in [
            (
                "PROXY TCP4 192.0.2.1 192.0.2.2 4711 5432\r\n",
                "192.0.2.1:4711",
            ),
            ("PROXY UNKNOWN\r\n", "127.0.0.1:"),
            ("", "127.0.0.1:"),
        ] {
            let is_page = ask(WITH_HEADER, begin);
            let line = subject.log.next_with(" page");
            let text = line.rsplit_once(": ").map_or("", |(_, text)| text);
            let error = if is_page { "" } else { text };
            let named = line.contains(is_client);
            seen.push(format!("{begin}: {is_page} {named} {error}"));
        }
        seen.push(ask(([127, 0, 0, 1], 7003).into(), "").to_string());
        let row = subject.stat();
        for column in ["stot", "conn_tot"] {
            seen.push(format!(
                "{column} {}",
                row.row("page", "FRONTEND").number(column)
            ));
        }
        subject.stop();
        seen
    });
    assert!(
        seen.is_empty() || seen[0].contains("true true"),
        "{seen:#?}"
    );
}
