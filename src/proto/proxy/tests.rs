//! Headers that HAProxy takes or refuses, and that what is written is read.

use super::*;
use proptest::prelude::*;

fn done(bytes: &[u8]) -> (Option<Addresses>, Vec<Tlv<'_>>, usize) {
    match parse(bytes) {
        Parsed::Done(header, length) => (header.addresses, header.tlvs.collect(), length),
        other => panic!("{other:?} for {bytes:?}"),
    }
}

fn addresses(source: &str, destination: &str) -> Addresses {
    Addresses {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn refused(bytes: &[u8]) -> Problem {
    match parse(bytes) {
        Parsed::Refused(problem) => problem,
        other => panic!("{other:?} for {bytes:?}"),
    }
}

/// A header of version 2 with this command, family and body.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [
        &v2::SIGNATURE[..],
        &[command, family],
        &length.to_be_bytes(),
        body,
    ]
    .concat()
}

const BLOCK_4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 4, 87, 8, 174];

/// A TLV behind the addresses of IPv4.
fn with_tlv(kind: u8, length: u16, value: &[u8]) -> Vec<u8> {
    let body = [&BLOCK_4[..], &[kind], &length.to_be_bytes(), value].concat();
    binary(0x21, 0x11, &body)
}

/// A line of this length. The longest of the protocol's document has 107 bytes.
fn line_of(length: usize) -> String {
    format!("PROXY UNKNOWN {:x<1$}\r\n", "", length - 16)
}

/// Each was sent to HAProxy 3.5 too; the ones where rlb differs are in docs/differences.md.
#[test]
fn lines_of_version_1_that_are_taken() {
    let known = addresses("1.2.3.4:1111", "5.6.7.8:2222");
    let longest = line_of(107);
    for (line, expected) in [
        (longest.as_str(), None),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n", Some(known)),
        ("PROXY TCP4 01.2.003.4 5.6.7.8 01111 2222\r\n", Some(known)),
        (
            "PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n",
            Some(addresses("1.2.3.4:0", "5.6.7.8:0")),
        ),
        (
            "PROXY TCP6 ::1 2001:db8::2 1111 65535\r\n",
            Some(addresses("[::1]:1111", "[2001:db8::2]:65535")),
        ),
        (
            "PROXY TCP6 ::ffff:1.2.3.4 ::2 1 2\r\n",
            Some(addresses("[::ffff:1.2.3.4]:1", "[::2]:2")),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN 1.2.3.4 and anything\r\n", None),
    ] {
        let bytes = format!("{line}hello");
        let (found, tlvs, length) = done(bytes.as_bytes());
        assert_eq!((found, length), (expected, line.len()), "{line}");
        assert!(tlvs.is_empty());
    }
}

#[test]
fn lines_of_version_1_that_are_refused() {
    use Problem::{Invalid, NotAHeader, OtherProtocol};
    let long = format!("PROXY TCP6 ::1 ::2 {}1 2\r\n", "0".repeat(200));
    let longer = line_of(108);
    for (line, problem) in [
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\n", Invalid),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r \n", Invalid),
        ("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", Invalid),
        ("PROXY TCP4 999.2.3.4 5.6.7.8 1 2\r\n", Invalid),
        ("PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n", Invalid),
        ("PROXY TCP4 1..3.4 5.6.7.8 1 2\r\n", Invalid),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 70000 2\r\n", Invalid),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", Invalid),
        ("PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n", Invalid),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Invalid),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Invalid),
        ("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", Invalid),
        ("PROXY TCP6 1.2.3.4 ::2 1 2\r\n", Invalid),
        ("PROXY TCP6 ::1 ::2 1 2 3\r\n", Invalid),
        (&long, Invalid),
        (&longer, Invalid),
        ("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", OtherProtocol),
        ("PROXY UNKNOWNS\r\n", OtherProtocol),
        ("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", NotAHeader),
        ("GET / HTTP/1.0\r\n\r\n", NotAHeader),
        ("G", NotAHeader),
    ] {
        assert_eq!(refused(line.as_bytes()), problem, "{line}");
    }
}

#[test]
fn headers_of_version_2_that_are_taken() {
    let known = Some(addresses("1.2.3.4:1111", "5.6.7.8:2222"));
    let with_long = with_tlv(0xEA, 1024, &[b'x'; 1024]);
    for (bytes, expected, tlvs) in [
        (binary(0x21, 0x11, &BLOCK_4), known, 0),
        (with_tlv(0xEA, 3, b"abc"), known, 1),
        (with_long, known, 1),
        (binary(0x20, 0x00, b""), None, 0),
        (binary(0x20, 0x00, b"\x04\0\x01a"), None, 1),
        (binary(0x20, 0x11, &BLOCK_4), None, 0),
        (binary(0x20, 0x11, b""), None, 0),
        (binary(0x20, 0x41, b""), None, 0),
        (binary(0x20, 0xF1, b"\x04\0\x01a"), None, 1),
        (binary(0x21, 0x00, b""), None, 0),
        (binary(0x21, 0x00, b"\x04\0\x01a"), None, 1),
        (binary(0x21, 0x12, &BLOCK_4), None, 0),
        (binary(0x21, 0x31, &[0; 216]), None, 0),
    ] {
        let length = bytes.len();
        let more = [bytes, b"hello".to_vec()].concat();
        let (found, found_tlvs, found_length) = done(&more);
        assert_eq!((found, found_length), (expected, length), "{more:?}");
        assert_eq!(found_tlvs.len(), tlvs, "{more:?}");
    }
    let v6 = [&[0; 15][..], &[1], &[2; 16], &[0, 1, 0, 2]].concat();
    let (found, ..) = done(&binary(0x21, 0x21, &v6));
    let expected = addresses("[::1]:1", "[202:202:202:202:202:202:202:202]:2");
    assert_eq!(found, Some(expected));
}

#[test]
fn headers_of_version_2_that_are_refused() {
    let invalid = [
        binary(0x22, 0x11, &BLOCK_4),
        binary(0x21, 0x11, &BLOCK_4[..11]),
        binary(0x21, 0x99, &BLOCK_4),
        binary(0x20, 0x00, b"ab"),
        with_tlv(0xEA, 4, b"abc"),
        with_tlv(0xEA, 1025, &[b'x'; 1025]),
        with_tlv(tlv::AUTHORITY, 256, &[b'x'; 256]),
        with_tlv(tlv::UNIQUE_ID, 129, &[b'x'; 129]),
        with_tlv(tlv::CRC32C, 3, b"abc"),
        with_tlv(tlv::CRC32C, 4, b"abcd"),
        binary(0x21, 0x11, &[0; HEADER_MAX - 15]),
    ];
    for bytes in invalid {
        assert_eq!(refused(&bytes), Problem::Invalid, "{bytes:?}");
    }
    let third = binary(0x31, 0x11, &BLOCK_4);
    assert_eq!(refused(&third), Problem::NotAHeader);
}

/// The value of `hash_crc32c` for the digits (RFC 3720, B.4 has others).
#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c::crc32c(&[b"1234", b"56789"]), 0xE306_9283);
    assert_eq!(crc32c::crc32c(&[&[0; 32]]), 0x8A91_36AA);
}

#[test]
fn a_changed_bit_fails_the_checksum() {
    let mut out = Vec::new();
    let known = addresses("1.2.3.4:1111", "5.6.7.8:2222");
    write_v2(&mut out, Some(known), Tlvs::default(), true);
    assert_eq!(done(&out).0, Some(known));
    // Byte 28 says that there is a checksum.
    for at in (16..out.len()).filter(|at| *at != 28) {
        out[at] ^= 1;
        assert!(!matches!(parse(&out), Parsed::Done(..)), "byte {at}");
        out[at] ^= 1;
    }
}

#[test]
fn what_is_written_is_haproxys() {
    let mut out = Vec::new();
    write_v1(&mut out, None);
    write_v1(&mut out, Some(addresses("1.2.3.4:5", "6.7.8.9:10")));
    write_v1(&mut out, Some(addresses("1.2.3.4:5", "[::1]:10")));
    let text = std::str::from_utf8(&out).unwrap();
    assert_eq!(
        text,
        "PROXY UNKNOWN\r\nPROXY TCP4 1.2.3.4 6.7.8.9 5 10\r\nPROXY TCP6 ::ffff:1.2.3.4 ::1 5 10\r\n"
    );
    out.clear();
    write_v2(&mut out, None, Tlvs::default(), false);
    assert_eq!(out, binary(0x20, 0, b""));
    out.clear();
    let known = addresses("1.2.3.4:1111", "5.6.7.8:2222");
    let tlvs = Tlvs::new(b"\xEA\0\x03abc");
    write_v2(&mut out, Some(known), tlvs, false);
    assert_eq!(out, with_tlv(0xEA, 3, b"abc"));
}

/// TLVs that would make a header too long for the next reader are left out, not the header.
#[test]
fn a_header_has_a_bound() {
    let value = [b'x'; TLV_VALUE_MAX];
    let many = (0..40).map(|_| Tlv {
        kind: 0xEA,
        value: &value,
    });
    let mut out = Vec::new();
    write_v2(&mut out, None, many, true);
    let (_, tlvs, length) = done(&out);
    assert!(length <= HEADER_MAX && tlvs.len() == 16, "{length}");

    // What is left behind fifteen of them has just room for one more, and a checksum takes 7 bytes of it.
    let room = HEADER_MAX - 16 - 15 * (3 + TLV_VALUE_MAX);
    for (crc, spare, kept) in [(false, 0, 16), (true, 7, 17), (true, 6, 16)] {
        let sizes = [TLV_VALUE_MAX; 15].into_iter().chain([room - 3 - spare]);
        let fill = sizes.map(|size| Tlv {
            kind: 0xEA,
            value: &value[..size],
        });
        let mut out = Vec::new();
        write_v2(&mut out, None, fill, crc);
        let (_, tlvs, length) = done(&out);
        assert_eq!(tlvs.len(), kept, "{length}");
        assert_eq!(length == HEADER_MAX, spare != 6, "{length}");
    }
}

fn any_addresses() -> impl Strategy<Value = Option<Addresses>> {
    let any = || (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from);
    let both = (any(), any()).prop_map(|(source, destination)| Addresses {
        source,
        destination,
    });
    proptest::option::of(both)
}

proptest! {
    /// Of what is written the reader gets the same, however it is cut into pieces.
    #[test]
    fn what_is_written_is_read(
        sent in any_addresses(),
        tlvs in proptest::collection::vec((6_u8.., proptest::collection::vec(any::<u8>(), 0..1025)), 0..8),
        crc in any::<bool>(),
        second in any::<bool>(),
        after in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let tlvs: Vec<Tlv<'_>> = tlvs.iter().map(|(kind, value)| Tlv { kind: *kind, value }).collect();
        let mut out = Vec::new();
        if second {
            write_v2(&mut out, sent, tlvs.iter().copied(), crc);
        } else {
            write_v1(&mut out, sent);
        }
        let length = out.len();
        for cut in 0..length {
            let least = match parse(&out[..cut]) {
                Parsed::NeedMore(least) => least,
                other => panic!("{other:?}"),
            };
            prop_assert!(least > cut && least <= length);
        }
        out.extend(after);
        let (found, found_tlvs, found_length) = done(&out);
        prop_assert_eq!(found, sent.map(of_one_family));
        prop_assert_eq!(found_length, length);
        if second {
            prop_assert_eq!(&found_tlvs[..tlvs.len()], &tlvs[..]);
            prop_assert_eq!(found_tlvs.len(), tlvs.len() + usize::from(crc));
        }
    }

    /// No bytes behind a header or behind the begin of one change the answer.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..300), second in any::<bool>()) {
        let begin: &[u8] = if second { &v2::SIGNATURE } else { v1::BEGIN };
        let bytes = [begin, &bytes].concat();
        match parse(&bytes) {
            Parsed::NeedMore(least) => prop_assert!(least > bytes.len() && least <= HEADER_MAX),
            Parsed::Done(_, length) => prop_assert!(length <= bytes.len()),
            Parsed::Refused(problem) => {
                let more = [&bytes[..], b"more"].concat();
                prop_assert_eq!(parse(&more), Parsed::Refused(problem));
            }
        }
    }
}
