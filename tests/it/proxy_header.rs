//! PROXY headers of clients, beside HAProxy: both read the same file, get the same bytes, and are to log, count and
//! answer alike. What differs on purpose is in docs/differences.md and in `OTHERWISE`.

use crate::harness::client::{self, End, TIMEOUT, half_close};
use crate::harness::csv::Csv;
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, Rlb, STOP_WITHIN};
use crate::harness::runtime;
use crate::harness::syslog::Syslog;
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const BLOCK_4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 4, 87, 8, 174];

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short");
    [SIGNATURE, &[command, family], &length.to_be_bytes(), body].concat()
}

fn with_tlv(kind: u8, length: u16, value: &[u8]) -> Vec<u8> {
    let body = [&BLOCK_4[..], &[kind], &length.to_be_bytes(), value].concat();
    binary(0x21, 0x11, &body)
}

/// What clients send before `hello`, and behind what all of them end.
fn alike() -> Vec<Vec<u8>> {
    let lines = [
        "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n",
        "PROXY TCP4 01.2.3.4 5.6.7.8 0 2222\r\n",
        "PROXY TCP6 ::1 2001:db8::2 1111 2222\r\n",
        "PROXY TCP6 ::ffff:1.2.3.4 ::2 1 2\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY TCP6 1.2.3.4 ::2 1 2\r\n",
        "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ];
    let mut all: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    let v6: Vec<u8> = (0..36).collect();
    all.extend([
        binary(0x21, 0x11, &BLOCK_4),
        binary(0x21, 0x21, &v6),
        binary(0x20, 0x00, b""),
        binary(0x20, 0x00, b"\x04\0\x01a"),
        with_tlv(0xEA, 3, b"abc"),
        with_tlv(0xEA, 1024, &[b'x'; 1024]),
        binary(0x31, 0x11, &BLOCK_4),
        binary(0x22, 0x11, &BLOCK_4),
        binary(0x21, 0x11, &BLOCK_4[..11]),
        binary(0x20, 0x00, b"ab"),
    ]);
    all
}

/// What HAProxy refuses by other words than rlb, or takes: the words of each; empty: an answer.
fn otherwise() -> Vec<(Vec<u8>, &'static str, &'static str)> {
    const INVALID: &str = "Received an invalid PROXY protocol header";
    const OTHER: &str = "Received an unhandled protocol in the PROXY protocol header";
    vec![
        (b"PROXY UNKNOWN 1.2.3.4\r\n".to_vec(), OTHER, ""),
        (
            b"PROXY TCP4 999.2.3.4 5.6.7.8 1 2\r\n".to_vec(),
            "",
            INVALID,
        ),
        (b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n".to_vec(), "", INVALID),
        (
            b"PROXY TCP4 1.2.3.4 5.6.7.8 70000 2\r\n".to_vec(),
            "",
            INVALID,
        ),
        (b"PROXY TCP6 ::1 ::2 1 2 3\r\n".to_vec(), "", INVALID),
        (binary(0x20, 0x11, &BLOCK_4), INVALID, ""),
        (binary(0x21, 0x00, b""), INVALID, ""),
        (binary(0x21, 0x31, &[0; 216]), INVALID, ""),
    ]
}

/// One program with a file of HAProxy's.
struct Subject {
    process: Process,
    log: Syslog,
    folder: PathBuf,
}

/// Port of the frontend `fe`, of one that leaves out lines, of one with a rule, and of one without a header.
const FE: u16 = 7100;
const NULL: u16 = 7101;
const RULE: u16 = 7102;
const READY: u16 = 7103;

impl Subject {
    fn start(program: &Path, netns: &Netns, folder: &Path, server: SocketAddr) -> Self {
        let log = netns.enter(Syslog::udp);
        // HAProxy 2.6 has one timeout of clients, which holds here too.
        let timeouts = if needs::version(program) < (3, 0) {
            "timeout client 300ms"
        } else {
            "timeout client 1m\n  timeout client-hs 300ms"
        };
        let text = format!(
            "global\n  log {} format raw local0\n  stats socket {}/stats.sock level admin\n\
             defaults\n  mode tcp\n  log global\n  option tcplog\n  timeout connect 2s\n  \
             {timeouts}\n  timeout server 1m\n\
             frontend fe\n  bind 127.0.0.1:{FE} accept-proxy name b1\n  default_backend be\n\
             frontend null\n  bind 127.0.0.1:{NULL} accept-proxy name b2\n  option dontlognull\n  default_backend be\n\
             frontend rule\n  bind 127.0.0.1:{RULE} name b3\n  \
             tcp-request connection expect-proxy layer4 if {{ src 127.0.0.1/32 127.0.0.3 }}\n  \
             default_backend be\n\
             frontend ready\n  bind 127.0.0.1:{READY}\n  no log\n  default_backend be\n\
             backend be\n  server s1 {server}\n",
            log.address(),
            folder.display(),
        );
        fs::write(folder.join("haproxy.cfg"), text).expect("written");
        let mut command = Command::new(program);
        command
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(folder);
        let process = Process::start(command, Some(netns), false);
        netns.enter(|| {
            eventually_true(STOP_WITHIN, "it listens", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, READY)).is_ok()
            });
        });
        Self {
            process,
            log,
            folder: folder.to_owned(),
        }
    }

    /// What a client sees that sends `bytes`, and the line of its end.
    fn told(&self, port: u16, bytes: &[u8]) -> (String, String) {
        let mut stream = client::connect((Ipv4Addr::LOCALHOST, port).into());
        // In one piece, so that what comes behind a header that is refused is there too.
        let whole = [bytes, b"hello"].concat();
        stream.write_all(&whole).expect("sent");
        let seen = hear(&mut stream);
        (seen, self.line(&stream))
    }

    /// The next line, without what is another one in each run.
    fn line(&self, stream: &TcpStream) -> String {
        // rlb logs of every frontend or of none.
        let line = loop {
            let line = self.log.next_with(" [");
            if !line.contains("] ready ") {
                break line;
            }
        };
        let (client, rest) = line.split_once(" [").expect("it was looked for");
        let (_, rest) = rest.split_once("] ").expect("an end of the date");
        let own = stream.local_addr().expect("an address").to_string();
        let client = if client == own {
            "the socket's"
        } else {
            client
        };
        let words: Vec<&str> = rest.trim_end().split(' ').collect();
        match words[..] {
            [frontend, server, times, bytes, letters, ..] if times.contains('/') => {
                format!("{client} {frontend} {server} {bytes} {letters}")
            }
            _ => format!("{client} {rest}").trim_end().to_owned(),
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let text = runtime::ask(&self.folder.join("stats.sock"), "show stat");
        let csv = Csv::parse(&text);
        let columns = ["stot", "conn_tot", "ereq", "dreq", "bin", "bout", "eint"];
        let mut counters = Vec::new();
        for frontend in ["fe", "null", "rule"] {
            let row = csv.row(frontend, "FRONTEND");
            for column in columns {
                counters.push((format!("{frontend} {column}"), row.number(column)));
            }
        }
        counters
    }

    fn stop(mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(STOP_WITHIN);
    }
}

/// Sends `hello`, to which the other end may have been closed.
fn hello(stream: &mut TcpStream) {
    let _ = stream.write_all(b"hello");
}

/// What a client gets: the answer, or how its connection ends.
fn hear(stream: &mut TcpStream) -> String {
    let mut answer = [0; 5];
    match stream.read_exact(&mut answer) {
        Ok(()) => {
            half_close(stream);
            let (rest, end) = client::read_to_end(stream);
            assert!(rest.is_empty() && end == End::Eof, "{rest:?} {end:?}");
            String::from_utf8_lossy(&answer).into_owned()
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "end".to_owned(),
        Err(error) => format!("{:?}", client::end_of(&error)),
    }
}

/// All that is compared: of each client what it gets and its line; then the counters.
/// `old`: HAProxy is older than 3.0, and lets a LOCAL header with a broken TLV pass.
fn compared(subject: &Subject, old: bool) -> Vec<String> {
    let mut seen = Vec::new();
    for bytes in alike() {
        if old && bytes.ends_with(b"\x20\x00\x00\x02ab") {
            continue;
        }
        let (got, line) = subject.told(FE, &bytes);
        seen.push(format!("{}: {got}, {line}", bytes.escape_ascii()));
    }
    // The end of the client, a reset, and silence.
    let stream = client::connect((Ipv4Addr::LOCALHOST, FE).into());
    half_close(&stream);
    seen.push(format!("ends: {}", subject.line(&stream)));
    let mut stream = client::connect((Ipv4Addr::LOCALHOST, FE).into());
    stream.write_all(b"PROXY TCP4 1.2").expect("sent");
    // HAProxy may have reset it.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    seen.push(format!("ends within: {}", subject.line(&stream)));
    let mut stream = client::connect((Ipv4Addr::LOCALHOST, FE).into());
    let silent = hear(&mut stream);
    seen.push(format!("is silent: {silent}, {}", subject.line(&stream)));
    // Without the line of a client that ends before its first byte.
    let stream = client::connect((Ipv4Addr::LOCALHOST, NULL).into());
    half_close(&stream);
    let (got, line) = subject.told(NULL, b"this is not a header at all");
    seen.push(format!("null: {got}, {line}"));
    // From the networks of the rule with a header, from others without.
    for (from, bytes) in [
        (1, &b"PROXY TCP4 9.9.9.9 5.6.7.8 1 2\r\n"[..]),
        (2, b""),
        (3, b"PROXY TCP4 9.9.9.9 5.6.7.8 1 2\r\n"),
        (3, b"this is not a header at all"),
    ] {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let own = SocketAddr::from(([127, 0, 0, from], 0));
        socket.bind(&own.into()).expect("bound");
        let to = SocketAddr::from(([127, 0, 0, 1], RULE));
        socket.connect(&to.into()).expect("connected");
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(TIMEOUT)).expect("set");
        let whole = [bytes, b"hello"].concat();
        stream.write_all(&whole).expect("sent");
        let got = hear(&mut stream);
        seen.push(format!("rule {from}: {got}, {}", subject.line(&stream)));
    }
    let counters = subject.counters().into_iter();
    seen.extend(counters.map(|(name, value)| format!("{name} {value}")));
    seen
}

#[test]
fn headers_are_taken_refused_logged_and_counted_as_by_haproxy() {
    if !needs::root() {
        return;
    }
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    let netns = Netns::loopback();
    let server = netns.enter(|| Peer::start(Behaviour::Echo));
    let folder: TempDir = tempfile::tempdir().expect("a folder");
    let rlb = folder.path().join("haproxy");
    std::os::unix::fs::symlink(PROGRAM, &rlb).expect("a link");
    let old = needs::version(&haproxy) < (3, 0);
    let run = |program: &Path| {
        let subject = Subject::start(program, &netns, folder.path(), server.address());
        let seen = netns.enter(|| {
            let seen = compared(&subject, old);
            let rest = otherwise().into_iter();
            let rest: Vec<_> = rest.map(|(bytes, ..)| subject.told(FE, &bytes)).collect();
            (seen, rest)
        });
        subject.stop();
        seen
    };
    let (theirs, their_rest) = run(&haproxy);
    let (ours, our_rest) = run(&rlb);
    assert_eq!(ours, theirs);
    assert!(
        ours.iter()
            .any(|line| line.contains("9.9.9.9:1 rule be/s1 5 --")),
        "{ours:#?}"
    );
    for (((bytes, at_haproxy, here), theirs), ours) in
        otherwise().into_iter().zip(their_rest).zip(our_rest)
    {
        // What is expected of HAProxy is what 3.5 does.
        let theirs = (!old).then_some((at_haproxy, theirs));
        for (expected, (got, line)) in theirs.into_iter().chain([(here, ours)]) {
            let shown = bytes.escape_ascii();
            assert_eq!(got == "hello", expected.is_empty(), "{shown}: {got} {line}");
            assert!(line.ends_with(expected), "{shown}: {line}");
        }
    }
}

/// A configuration whose bind has these keys.
fn with_bind(servers: &[SocketAddr], keys: &str, rest: &str) -> String {
    let servers: Vec<String> = servers
        .iter()
        .enumerate()
        .map(|(at, address)| format!("{{ name = \"s{at}\", address = \"{address}\" }}"))
        .collect();
    format!(
        "[global]\nthreads = 2\n[stats]\nbind = \"127.0.0.1:0\"\n[defaults]\n\
         timeout = {{ client-hs = \"500ms\" }}\n[[frontend]]\nname = \"fe\"\n\
         bind = {{ address = \"127.0.0.1:0\", {keys} }}\ndefault-backend = \"be\"\n\
         [[backend]]\nname = \"be\"\nservers = [{}]\n{rest}\n",
        servers.join(", ")
    )
}

/// The answer to `hello` behind `bytes`.
fn answered(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = client::connect(address);
    stream.write_all(bytes).expect("sent");
    hello(&mut stream);
    hear(&mut stream)
}

/// With an optional header, whoever sends none is served, and whoever sends a wrong one is not.
#[test]
fn an_optional_header_may_be_missing() {
    let peer = Peer::start(Behaviour::Echo);
    let keys = "accept-proxy = \"optional\", accept-proxy-from = [\"127.0.0.0/8\"]";
    let rlb = Rlb::start(&with_bind(&[peer.address()], keys, ""));
    assert_eq!(answered(rlb.address(), b""), "hello");
    let header = b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n";
    assert_eq!(answered(rlb.address(), header), "hello");
    assert_eq!(
        answered(rlb.address(), b"PROXY TCP4 1.2.3.4 x\r\n"),
        "Reset"
    );
    // A begin of one that does not go on, and nothing at all, are served after the wait.
    let mut stream = client::connect(rlb.address());
    stream.write_all(b"PROXY").expect("sent");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"PROXY");
    // Without a wait where the client sends nothing more.
    let mut ended = client::connect(rlb.address());
    ended.write_all(b"P").expect("sent");
    client::half_close(&ended);
    assert_eq!(client::read_to_end(&mut ended), (b"P".to_vec(), End::Eof));
    assert_eq!(
        (
            rlb.number("FRONTEND", "stot"),
            rlb.number("FRONTEND", "conn_tot")
        ),
        (4, 5)
    );
}

/// A header that comes in pieces is waited for: HAProxy refuses it. What follows is the server's, also in bulk.
#[test]
fn a_header_may_come_in_pieces_and_bulk_may_follow() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&with_bind(
        &[peer.address()],
        "accept-proxy = \"required\"",
        "",
    ));
    for header in [
        b"PROXY TCP6 2001:db8::1 ::2 1 2\r\n".to_vec(),
        with_tlv(0xEA, 1024, &[b'x'; 1024]),
    ] {
        let mut stream = client::connect(rlb.address());
        for piece in header.chunks(header.len().div_ceil(7)) {
            stream.write_all(piece).expect("sent");
            let unread = || rlb.number("FRONTEND", "conn_tot") > 0;
            eventually_true(STOP_WITHIN, "it has come", unread);
        }
        let bulk: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let mut sender = stream.try_clone().expect("a copy");
        let sent = bulk.clone();
        let sending = std::thread::spawn(move || {
            sender.write_all(&sent).expect("sent");
            half_close(&sender);
        });
        let (got, end) = client::read_to_end(&mut stream);
        sending.join().expect("sent");
        assert!(
            got == bulk && end == End::Eof,
            "{} bytes, {end:?}",
            got.len()
        );
    }
}

/// The address of the header is the one of `show sess` and of `balance = "source"`, and its port that of a server
/// without one.
#[test]
fn the_header_is_the_client_everywhere() {
    let peers: Vec<Peer> = ["0", "1", "2"]
        .into_iter()
        .map(|word| Peer::start(Behaviour::SpeaksFirst(word)))
        .collect();
    let addresses: Vec<SocketAddr> = peers.iter().map(Peer::address).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("api.sock");
    let text = with_bind(&addresses, "accept-proxy = \"required\"", "")
        .replace("name = \"be\"\n", "name = \"be\"\nbalance = \"source\"\n");
    let port = addresses[1].port();
    let text = format!(
        "{text}[runtime-api]\nsocket = \"{}\"\n[[listen]]\nname = \"portless\"\n\
         bind = {{ address = \"127.0.0.1:0\", accept-proxy = \"required\" }}\n\
         servers = [{{ name = \"s\", address = \"127.0.0.1:+1\" }}]\n",
        socket.display()
    );
    let rlb = Rlb::start(&text);
    let first = |address: SocketAddr, header: String| {
        let mut stream = client::connect(address);
        stream.write_all(header.as_bytes()).expect("sent");
        let mut word = [0];
        stream.read_exact(&mut word).expect("a word");
        (word, stream)
    };
    let source = |ip: IpAddr| format!("PROXY TCP4 {ip} 5.6.7.8 4711 2\r\n");
    let mut used = std::collections::HashSet::new();
    for last in 1..40 {
        let ip = IpAddr::from([192, 0, 2, last]);
        let (word, _stream) = first(rlb.address(), source(ip));
        let (again, _stream) = first(rlb.address(), source(ip));
        assert_eq!(word, again, "{ip}");
        used.insert(word);
    }
    assert_eq!(
        used.len(),
        3,
        "the header decides, not the socket's address"
    );
    let (_, stream) = first(rlb.address(), source([192, 0, 2, 200].into()));
    let shown = runtime::ask(&socket, "show sess");
    assert!(shown.contains("192.0.2.200:4711"), "{shown}");
    drop(stream);
    let portless = rlb.addresses("portless")[0];
    let header = format!("PROXY TCP4 1.2.3.4 5.6.7.8 1 {}\r\n", port - 1);
    assert_eq!(first(portless, header).0, *b"1");
}

/// A reload that demands a header, or no longer, holds for the next connection; those that are there go on.
#[test]
fn a_reload_changes_what_the_next_client_sends() {
    let peer = Peer::start(Behaviour::Echo);
    let text = |keys: &str| with_bind(&[peer.address()], keys, "");
    let without = text("backlog = 100");
    let mut rlb = Rlb::start(&without);
    let address = rlb.address();
    let mut old = client::connect(address);
    client::echo(&mut old, b"before");
    // The port stays: it is the kernel's choice for `:0` over reloads too.
    rlb.reload(&text("accept-proxy = \"required\", backlog = 100"));
    assert_eq!(answered(address, b""), "Reset");
    assert_eq!(answered(address, b"PROXY UNKNOWN\r\n"), "hello");
    client::echo(&mut old, b"after");
    rlb.reload(&without);
    assert_eq!(answered(address, b""), "hello");
}

/// A session that waits for its header ends by an operator's order, and holds no stop up.
#[test]
fn a_stop_does_not_wait_for_a_header() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&with_bind(
        &[peer.address()],
        "accept-proxy = \"required\"",
        "",
    ));
    let mut stream = client::connect(rlb.address());
    eventually_true(STOP_WITHIN, "it is accepted", || {
        rlb.number("FRONTEND", "conn_tot") == 1
    });
    rlb.signal(Signal::SIGINT);
    let (_, end) = client::read_to_end(&mut stream);
    assert_ne!(end, End::Silence);
}
