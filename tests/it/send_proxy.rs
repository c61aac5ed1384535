//! PROXY headers to servers: byte for byte HAProxy's, read by real programs, passed on by a chain, and kept over an
//! upgrade.

use crate::harness::client::{self, TIMEOUT, echo, reset};
use crate::harness::eventually::eventually_true;
use crate::harness::needs;
use crate::harness::netns::{CLIENT_ADDRESS, LB_ADDRESS, Lab, NODES, Netns};
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::{PROGRAM, Rlb, STOP_WITHIN, Start};
use crate::harness::runtime::ask;
use crate::lab::services::{Database, pgbench, success};
use crate::upgrade::{Next, upgrade};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};

/// Connections that are reported and not looked at.
const HEARD_MAX: usize = 1000;

/// A server that reports what each connection sends up to `hello`, which it answers, or up to its end.
pub(crate) fn heard() -> (Peer, Receiver<Vec<u8>>) {
    let (sender, receiver) = sync_channel(HEARD_MAX);
    let peer = Peer::start(Behaviour::script(move |mut stream: TcpStream| {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while !all.ends_with(b"hello") {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
            }
        }
        let greeted = all.ends_with(b"hello");
        // The test may be over.
        let _ = sender.send(all);
        if greeted {
            let _ = stream.write_all(b"world");
            let _ = stream.read(&mut buffer);
        }
    }));
    (peer, receiver)
}

pub(crate) fn next(receiver: &Receiver<Vec<u8>>) -> Vec<u8> {
    receiver.recv_timeout(TIMEOUT).expect("a connection")
}

/// A connection to `to` from this address, which sends `bytes` and `hello` and gets an answer.
pub(crate) fn greeted(from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("set");
    socket.bind(&from.into()).expect("bound");
    socket.connect(&to.into()).expect("connected");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).expect("set");
    stream.write_all(bytes).expect("sent");
    stream.write_all(b"hello").expect("sent");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("answered");
    // So that the next one may have the same port.
    reset(stream);
}

/// The words of each server, and where its listen listens.
const WORDS: [(&str, &str, &str); 7] = [
    ("send-proxy", "127.0.0.1:7200", ""),
    ("send-proxy-v2", "127.0.0.1:7201", ""),
    (
        "send-proxy-v2 proxy-v2-options crc32c",
        "127.0.0.1:7202",
        "",
    ),
    ("send-proxy", "[::1]:7203", ""),
    ("send-proxy-v2", "[::1]:7204", ""),
    ("send-proxy", "127.0.0.1:7205", "accept-proxy"),
    ("send-proxy-v2", "127.0.0.1:7206", "accept-proxy"),
];

/// The file: a listen for each of [`WORDS`], two with checks, and one that tells that it listens.
fn text(server: SocketAddr, checked: [SocketAddr; 2]) -> String {
    let mut text =
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n"
            .to_owned();
    for (at, (words, bind, more)) in WORDS.iter().enumerate() {
        let _ = writeln!(
            text,
            "listen l{at}\n  bind {bind} {more}\n  server s {server} {words}"
        );
    }
    let words = ["send-proxy", "check-send-proxy send-proxy-v2"];
    for (at, (words, address)) in words.iter().zip(checked).enumerate() {
        let port = 7210 + at;
        let _ = writeln!(
            text,
            "listen c{at}\n  bind 127.0.0.1:{port}\n  server s {address} {words} check inter 100ms"
        );
    }
    text.push_str("listen ready\n  bind 127.0.0.1:7220\n  server s 127.0.0.1:1\n");
    text
}

/// What the servers hear from the connections of one program, and from its checks.
fn sent_by(program: &Path, netns: &Netns, folder: &Path) -> Vec<Vec<u8>> {
    let (server, heard_there) = netns.enter(heard);
    let checked = [(); 2].map(|()| netns.enter(heard));
    let addresses = checked.each_ref().map(|(peer, _)| peer.address());
    fs::write(
        folder.join("haproxy.cfg"),
        text(server.address(), addresses),
    )
    .expect("written");
    let mut command = Command::new(program);
    command
        .args(["-db", "-f", "haproxy.cfg"])
        .current_dir(folder);
    let mut process = Process::start(command, Some(netns), false);
    let mut sent = netns.enter(move || {
        let ready = SocketAddr::from((Ipv4Addr::LOCALHOST, 7220));
        eventually_true(STOP_WITHIN, "it listens", || {
            TcpStream::connect(ready).is_ok()
        });
        let mut sent = Vec::new();
        for (at, (_, bind, more)) in (0..).zip(WORDS) {
            let to: SocketAddr = bind.parse().expect("an address");
            let headers: &[&[u8]] = if more.is_empty() {
                &[b""]
            } else {
                &[
                    b"PROXY TCP4 192.0.2.1 192.0.2.2 3 4\r\n",
                    b"PROXY TCP6 2001:db8::1 2001:db8::2 3 4\r\n",
                    b"PROXY UNKNOWN\r\n",
                ]
            };
            for (number, header) in (0..).zip(headers) {
                // A port of its own for each: the proxy may not have seen the end of the one before.
                let from = SocketAddr::new(to.ip(), 7300 + 10 * at + number);
                greeted(from, to, header);
                sent.push(next(&heard_there));
            }
        }
        sent
    });
    for (peer, receiver) in &checked {
        let header = next(receiver);
        // The port of a check is another in each run.
        let text = String::from_utf8_lossy(&header);
        let ends = format!(" {}\r\n", peer.address().port());
        let begin = text.strip_suffix(&ends).and_then(|it| it.rsplit_once(' '));
        sent.push(begin.map_or(header.clone(), |(begin, _)| begin.into()));
    }
    process.signal(Signal::SIGTERM);
    process.wait(STOP_WITHIN);
    sent
}

#[test]
fn servers_get_the_headers_of_haproxys() {
    if !needs::root() {
        return;
    }
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    let netns = Netns::loopback();
    let folder = tempfile::tempdir().expect("a folder");
    let rlb = folder.path().join("haproxy");
    std::os::unix::fs::symlink(PROGRAM, &rlb).expect("a link");
    let shown = |sent: Vec<Vec<u8>>| -> Vec<String> {
        let sent = sent.iter().map(|it| it.escape_ascii().to_string());
        sent.collect()
    };
    let theirs = shown(sent_by(&haproxy, &netns, folder.path()));
    let ours = shown(sent_by(&rlb, &netns, folder.path()));
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 13);
    assert_eq!(
        ours[11..],
        [
            "PROXY TCP4 127.0.0.1 127.0.0.1",
            "\\r\\n\\r\\n\\x00\\r\\nQUIT\\n \\x00\\x00\\x00"
        ]
    );
    assert!(
        ours[0].starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 7300 7200"),
        "{ours:#?}"
    );
}

/// A listen of rlb's, with these keys of its bind and its server.
fn listen(name: &str, bind: SocketAddr, bind_keys: &str, server: SocketAddr, keys: &str) -> String {
    format!(
        "[[listen]]\nname = \"{name}\"\nbind = {{ address = \"{bind}\"{bind_keys} }}\n\
         servers = [{{ name = \"s\", address = \"{server}\"{keys} }}]\n"
    )
}

const ACCEPT: &str = ", accept-proxy = \"required\"";
const SEND: &str = ", send-proxy = \"v2\", proxy-v2-options = \"crc32c\"";

/// TLVs of the client's header arrive behind two balancers, checksum and padding anew.
#[test]
fn a_chain_passes_address_and_tlvs_on() {
    let (server, heard) = heard();
    let [near, far] = [(); 2].map(|()| ports::free());
    let near_text = listen("near", near, ACCEPT, far, SEND);
    let far_text = listen(
        "far",
        far,
        ACCEPT,
        server.address(),
        ", send-proxy = \"v2\"",
    );
    let near = (near, Rlb::start(&near_text));
    let _far = Rlb::start(&far_text);
    let block = [192, 0, 2, 1, 192, 0, 2, 2, 0, 3, 0, 4];
    let tlvs = b"\xEA\0\x03abc\x04\0\x02  \x02\0\x07example";
    let body = [&block[..], tlvs].concat();
    let header = |body: &[u8]| {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], body].concat()
    };
    let mut stream = client::connect(near.0);
    stream.write_all(&header(&body)).expect("sent");
    stream.write_all(b"hello").expect("sent");
    let kept = [&block[..], b"\xEA\0\x03abc\x02\0\x07example"].concat();
    let expected = [header(&kept), b"hello".to_vec()].concat();
    assert_eq!(
        next(&heard).escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

/// A header that is longer than the socket's buffer: the relay sends the rest before everything else.
#[test]
fn a_socket_without_room_for_a_header_gets_it_whole() {
    if !needs::root() {
        return;
    }
    let netns = Netns::loopback();
    netns.sysctl("ipv4/tcp_wmem", "4096 4096 4096");
    // With a small window the kernel puts few bytes into a segment, and so sees that its buffer is full.
    let listener = netns.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(2304).expect("set");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("bound");
        socket.listen(16).expect("listens");
        TcpListener::from(socket)
    });
    let server = listener.local_addr().expect("bound");
    let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 7240));
    let text = listen("l", bind, ACCEPT, server, ", send-proxy = \"v2\"");
    let _rlb = Start::new(&text).netns(&netns).ready();
    let value = [b'x'; 1024];
    let tlv = [&b"\xEA\x04\0"[..], &value].concat();
    let body = [
        &[192, 0, 2, 1, 192, 0, 2, 2, 0, 3, 0, 4][..],
        &tlv.repeat(15),
    ]
    .concat();
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    let header = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &body].concat();
    let stream = netns.enter(|| {
        let mut stream = client::connect(bind);
        stream.write_all(&header).expect("sent");
        stream.write_all(b"hello").expect("sent");
        stream
    });
    let (mut server, _) = listener.accept().expect("a connection");
    server.set_read_timeout(Some(TIMEOUT)).expect("set");
    let mut got = vec![0; header.len() + 5];
    server.read_exact(&mut got).expect("all of it");
    drop(stream);
    assert!(got == [header, b"hello".to_vec()].concat());
}

/// The announced address stays over a reload and an upgrade, and no byte of the session is lost.
#[test]
fn an_upgrade_keeps_the_announced_address() {
    let server = Peer::start(Behaviour::Echo);
    let (bind, stats) = (ports::free(), ports::free());
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("api.sock");
    let text = format!(
        "[stats]\nbind = \"{stats}\"\n[runtime-api]\nsocket = \"{}\"\n{}",
        socket.display(),
        listen("l", bind, ACCEPT, server.address(), "")
    );
    let mut rlb = Rlb::start(&text);
    let mut stream = client::connect(bind);
    stream
        .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.2 4711 4\r\n")
        .expect("sent");
    echo(&mut stream, b"before");
    rlb.reload(&text.replace("required\"", "required\", backlog = 99"));
    echo(&mut stream, b"reloaded");
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    eventually_true(TIMEOUT, "the session is the new process's", || {
        ask(&socket, "show sess").contains("192.0.2.7:4711")
    });
    echo(&mut stream, b"upgraded");
    drop((next, stream));
}

/// nginx with a server that reads headers, and a proxy that writes them.
struct Nginx {
    process: Process,
    _folder: tempfile::TempDir,
}

impl Nginx {
    fn start(http: SocketAddr, stream: SocketAddr, to: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display();
        let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
        let load = if module.is_file() {
            format!("load_module {};", module.display())
        } else {
            String::new()
        };
        let text = format!(
            "{load} daemon off; master_process off; pid {path}/pid; error_log {path}/log;\nevents {{ }}\n\
             http {{ access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p; \
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             server {{ listen {http} proxy_protocol; location / {{ return 200 \
             \"$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_port\"; }} }} }}\n\
             stream {{ server {{ listen {stream}; proxy_pass {to}; proxy_protocol on; }} }}\n"
        );
        fs::write(folder.path().join("nginx.conf"), text).expect("written");
        let mut command = Command::new("nginx");
        command
            .arg("-p")
            .arg(folder.path())
            .args(["-c", "nginx.conf"]);
        let process = Process::start(command, None, false);
        for address in [http, stream] {
            eventually_true(TIMEOUT, "nginx listens", || {
                TcpStream::connect(address).is_ok()
            });
        }
        Self {
            process,
            _folder: folder,
        }
    }
}

/// curl and nginx as clients of rlb, nginx as its server: each version, and the true port of the client.
#[test]
fn nginx_and_curl_are_peers() {
    if needs::program("nginx").is_none() || needs::program("curl").is_none() {
        return;
    }
    let [http, stream, v1, v2, chained, plain] = [(); 6].map(|()| ports::free());
    let text = [
        listen("v1", v1, "", http, ", send-proxy = \"v1\", check = true"),
        listen("v2", v2, "", http, ", send-proxy = \"v2\", check = true"),
        listen("chained", chained, ACCEPT, http, SEND),
        listen("plain", plain, ACCEPT, http, ", send-proxy = \"v1\""),
    ]
    .concat();
    let mut nginx = Nginx::start(http, stream, chained);
    let rlb = Rlb::start(&text);
    let said = |to: SocketAddr| {
        let mut stream = client::connect(to);
        let own = stream.local_addr().expect("bound");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let (answer, _) = client::read_to_end(&mut stream);
        let answer = String::from_utf8(answer).expect("text");
        let body = answer.rsplit("\r\n").next().unwrap_or_default().to_owned();
        (body, own)
    };
    for (to, port) in [(v1, v1), (v2, v2), (stream, stream)] {
        let (body, own) = said(to);
        assert_eq!(body, format!("{own} {}", port.port()));
    }
    for to in [chained, plain] {
        let output = Command::new("curl")
            .args(["-s", "--haproxy-protocol", "-w", " %{local_port}"])
            .arg(format!("http://{to}/"))
            .output()
            .expect("curl starts");
        let text = String::from_utf8(output.stdout).expect("text");
        let port = text.rsplit(' ').next().unwrap_or_default().to_owned();
        let own = SocketAddr::new(
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            port.parse().expect("a port"),
        );
        assert_eq!(text, format!("{own} {} {port}", to.port()));
    }
    drop(rlb);
    nginx.process.signal(Signal::SIGTERM);
    nginx.process.wait(TIMEOUT);
}

/// rlb and HAProxy in front of each other, with a checksum: what one writes the other reads.
#[test]
fn haproxy_is_a_peer_on_both_sides() {
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    let (server, heard) = heard();
    let [first, second, third] = [(); 3].map(|()| ports::free());
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n\
         listen l\n  bind {second} accept-proxy\n  server s {third} send-proxy-v2 proxy-v2-options crc32c\n"
    );
    fs::write(folder.path().join("haproxy.cfg"), text).expect("written");
    let mut command = Command::new(haproxy);
    command
        .args(["-db", "-f", "haproxy.cfg"])
        .current_dir(&folder);
    let mut process = Process::start(command, None, false);
    let text = [
        listen("first", first, "", second, SEND),
        listen(
            "third",
            third,
            ACCEPT,
            server.address(),
            ", send-proxy = \"v1\"",
        ),
    ]
    .concat();
    let rlb = Rlb::start(&text);
    eventually_true(TIMEOUT, "HAProxy listens", || {
        TcpListener::bind(second).is_err()
    });
    let mut stream = client::connect(first);
    let own = stream.local_addr().expect("bound");
    stream.write_all(b"hello").expect("sent");
    let expected = format!(
        "PROXY TCP4 {} {} {} {}\r\nhello",
        own.ip(),
        first.ip(),
        own.port(),
        first.port()
    );
    assert_eq!(String::from_utf8_lossy(&next(&heard)), expected);
    drop(rlb);
    process.signal(Signal::SIGTERM);
    process.wait(TIMEOUT);
}

/// PostgreSQL behind a chain of two balancers, one of which reloads and the other is upgraded under load: no transaction
/// fails, and the second one logs the client's own address.
#[test]
fn postgres_is_served_behind_a_chain() {
    if !needs::root() || needs::program("pgbench").is_none() {
        return;
    }
    let mut lab = Lab::new();
    lab.power_on(0);
    let database = Database::create();
    let _postgres = database.start(&lab, 0);
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("api.sock");
    let at = |text: &str| -> SocketAddr { text.parse().expect("an address") };
    let (inner, server) = (at("127.0.0.1:6000"), at(&format!("{}:5432", NODES[0].1)));
    let near_text = listen("near", at("0.0.0.0:5432"), "", inner, SEND);
    let far_text = format!(
        "[runtime-api]\nsocket = \"{}\"\n[[log.target]]\nto = \"stdout\"\nformat = \"raw\"\n{}",
        socket.display(),
        listen("far", inner, ACCEPT, server, "")
    );
    let far = Start::new(&far_text).netns(&lab.lb).ready();
    let mut near = Start::new(&near_text).netns(&lab.lb).ready();
    let load = ["--no-vacuum", "--client=4", "--connect", "--time=3"];
    std::thread::scope(|scope| {
        let running = scope.spawn(|| success(&pgbench(&lab, LB_ADDRESS, &load)));
        near.reload(&near_text.replace("crc32c", "none"));
        assert!(upgrade(&socket).status.success());
        running.join().expect("no transaction fails");
    });
    let next = Next::logged(&far, 1);
    let lines = far.process.stdout.with(" far far/s ");
    let own = format!("{CLIENT_ADDRESS}:");
    assert!(lines.len() > 8, "{lines:#?}");
    let wrong: Vec<&String> = lines
        .iter()
        .filter(|line| !line.starts_with(&own) || !line.contains(" -- "))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    drop((near, next));
}
