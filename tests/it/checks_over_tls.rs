//! Checks over TLS. HAProxy and rlb under its name run the same file against the same servers, and must tell the same of
//! them; and files are replaced while rlb runs.

use crate::checks_that_ask::{Case, OK, answers, ends, seen};
use crate::harness::beside;
use crate::harness::client::TIMEOUT;
use crate::harness::config::Config;
use crate::harness::eventually::eventually_eq;
use crate::harness::needs;
use crate::harness::netns::Lab;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, Start, command};
use crate::lab::services::nginx;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion,
};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// The path of a certificate of the tests.
macro_rules! file {
    ($name:literal) => {
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/", $name)
    };
}

/// A server over TLS.
#[derive(Clone)]
struct Secure {
    crt: &'static str,
    /// Clients must have a certificate of the authority of the tests.
    asks: bool,
    versions: &'static [&'static SupportedProtocolVersion],
    alpn: &'static [&'static [u8]],
}

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static OLDER: [&SupportedProtocolVersion; 1] = [&TLS12];

const GOOD: Secure = Secure {
    crt: file!("good.pem"),
    asks: false,
    versions: &BOTH,
    alpn: &[],
};

impl Secure {
    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = |path: &str| {
            let all = CertificateDer::pem_file_iter(path).expect("a file");
            all.collect::<Result<Vec<_>, _>>().expect("certificates")
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.versions)
            .expect("versions");
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates(file!("ca.pem")));
        let builder = if self.asks {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.crt).expect("a key");
        let config = builder.with_single_cert(certificates(self.crt), key);
        let mut config = config.expect("a certificate with its key");
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    /// Reads once, and answers with what `answer` makes of it and of the name that was asked for.
    fn answers(self, answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Behaviour {
        let config = self.config();
        Behaviour::script(move |stream: TcpStream| {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = StreamOwned::new(session, stream);
            let mut buffer = [0; 4096];
            if let Ok(length @ 1..) = stream.read(&mut buffer) {
                let asked = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let sni = stream.conn.server_name().unwrap_or_default().to_owned();
                drop(stream.write_all(answer(&asked, &sni).as_bytes()));
                while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
            }
        })
    }

    fn ok(self) -> Behaviour {
        self.answers(|_, _| String::from_utf8_lossy(OK).into_owned())
    }
}

/// An API server that is ready, to checks over TLS; to others it sends back what it receives.
pub(crate) fn api_server() -> Behaviour {
    let asked = GOOD.answers(|asked, _| {
        assert!(asked.starts_with("GET /readyz "), "{asked}");
        "HTTP/1.0 200 OK\r\n\r\nok".to_owned()
    });
    Behaviour::script(move |stream| {
        let mut first = [0];
        let is_tls = stream.peek(&mut first).is_ok_and(|length| length > 0) && first[0] == 0x16;
        if is_tls {
            asked.run(stream);
        } else {
            Behaviour::Echo.run(stream);
        }
    })
}

/// Reads once, sends this and ends.
fn says(words: &'static [u8]) -> Behaviour {
    Behaviour::script(move |mut stream| {
        if stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
            drop(stream.write_all(words));
        }
    })
}

const HTTP: &str = "option httpchk";
const TCP: &str = "option tcp-check";
const NONE: &str = "default-server check-ssl verify none";
const CA: &str = concat!("default-server check-ssl ca-file ", file!("ca.pem"));

#[expect(clippy::too_many_lines, reason = "a table")]
fn certificates() -> Vec<Case> {
    let old = || {
        Secure {
            crt: file!("old.pem"),
            ..GOOD
        }
        .ok()
    };
    let own = || {
        Secure {
            crt: file!("other.pem"),
            ..GOOD
        }
        .ok()
    };
    let revoked = || {
        Secure {
            crt: file!("revoked.pem"),
            ..GOOD
        }
        .ok()
    };
    vec![
        ("connected", GOOD.ok(), &[CA], "UP L6OK  9/3 "),
        ("tcp", GOOD.ok(), &[TCP, NONE], "UP L6OK  9/3 "),
        ("http", GOOD.ok(), &[HTTP, CA], "UP L7OK 200 15/3 "),
        (
            "name",
            GOOD.ok(),
            &[
                HTTP,
                concat!(
                    "default-server check-ssl check-sni node.test ca-file ",
                    file!("ca.pem")
                ),
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "other-name",
            GOOD.ok(),
            &[
                TCP,
                concat!(
                    "default-server check-ssl check-sni a.test ca-file ",
                    file!("ca.pem")
                ),
            ],
            "DOWN L6RSP  11/2 Server presented an SSL certificate different from the expected one at initial \
             connection step of tcp-check",
        ),
        (
            "other-host",
            GOOD.ok(),
            &[
                HTTP,
                concat!(
                    "default-server check-ssl verifyhost a.test ca-file ",
                    file!("ca.pem")
                ),
            ],
            "DOWN L6RSP  11/2 Server presented an SSL certificate different from the configured one",
        ),
        (
            "host",
            GOOD.ok(),
            &[
                HTTP,
                concat!(
                    "default-server check-ssl verifyhost node.test ca-file ",
                    file!("ca.pem")
                ),
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "unjudged",
            old(),
            &[
                HTTP,
                "default-server check-ssl verify none check-sni a.test verifyhost b.test",
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "expired",
            old(),
            &[HTTP, CA],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "other-authority",
            GOOD.ok(),
            &[
                HTTP,
                concat!("default-server check-ssl ca-file ", file!("other.pem")),
            ],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "own",
            own(),
            &[concat!(
                "default-server check-ssl check-sni node.test ca-file ",
                file!("other.pem")
            )],
            "UP L6OK  9/3 ",
        ),
        (
            "own-other-name",
            own(),
            &[concat!(
                "default-server check-ssl check-sni a.test ca-file ",
                file!("other.pem")
            )],
            "DOWN L6RSP  11/2 Server presented an SSL certificate different from the expected one",
        ),
        (
            "not-own",
            own(),
            &[CA],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        ("not-revoked-here", revoked(), &[CA], "UP L6OK  9/3 "),
        (
            "revoked",
            revoked(),
            &[concat!(
                "default-server check-ssl ca-file ",
                file!("ca.pem"),
                " crl-file ",
                file!("crl.pem")
            )],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "listed",
            GOOD.ok(),
            &[concat!(
                "default-server check-ssl ca-file ",
                file!("ca.pem"),
                " crl-file ",
                file!("crl.pem")
            )],
            "UP L6OK  9/3 ",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn sessions() -> Vec<Case> {
    let asks = || Secure { asks: true, ..GOOD };
    vec![
        (
            "client",
            asks().ok(),
            &[
                HTTP,
                concat!(
                    "default-server check-ssl verify none crt ",
                    file!("client.pem")
                ),
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "key-apart",
            asks().ok(),
            &[
                HTTP,
                concat!(
                    "default-server check-ssl verify none crt ",
                    file!("apart.pem")
                ),
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "other-client",
            asks().ok(),
            &[
                HTTP,
                concat!(
                    "default-server check-ssl verify none crt ",
                    file!("other.pem")
                ),
            ],
            "DOWN SOCKERR  5/2 SSL fatal error",
        ),
        (
            "no-client",
            asks().ok(),
            &[HTTP, NONE],
            "DOWN SOCKERR  5/2 SSL fatal error",
        ),
        ("no-client-yet", asks().ok(), &[NONE], "UP L6OK  9/3 "),
        (
            "newer",
            Secure {
                versions: &OLDER,
                ..GOOD
            }
            .ok(),
            &["default-server check-ssl verify none ssl-min-ver TLSv1.3"],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "older",
            Secure {
                versions: &OLDER,
                ..GOOD
            }
            .ok(),
            &[
                HTTP,
                "default-server check-ssl verify none ssl-max-ver TLSv1.2",
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "protocol",
            Secure {
                alpn: &[b"http/1.1"],
                ..GOOD
            }
            .ok(),
            &[
                HTTP,
                "default-server check-ssl verify none check-alpn http/1.1",
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "plain",
            says(b"HTTP/1.0 400 Bad Request\r\n\r\n"),
            &[HTTP, NONE],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "plain-rule",
            says(b"-ERR\r\n"),
            &[
                TCP,
                "tcp-check connect ssl comment why",
                "default-server verify none",
            ],
            "DOWN L6RSP  11/2 SSL handshake failure at step 1 of tcp-check (connect) comment: 'why'",
        ),
        (
            "silent",
            Behaviour::Sink,
            &[HTTP, NONE],
            "DOWN L6TOUT  10/2 ",
        ),
        (
            "silent-tcp",
            Behaviour::AcceptsThenStalls,
            &[TCP, NONE],
            "DOWN L6TOUT  10/2  at initial connection step of tcp-check",
        ),
        (
            "silent-rule",
            Behaviour::Sink,
            &[
                TCP,
                "tcp-check connect ssl",
                "tcp-check send x",
                "default-server verify none",
            ],
            "DOWN L6TOUT  10/2  at step 1 of tcp-check (connect)",
        ),
        (
            "ends",
            ends(),
            &[HTTP, NONE],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "alert",
            says(b"\x15\x03\x03\0\x02\x02\x28"),
            &[TCP, NONE],
            "DOWN L6RSP  11/2 SSL handshake failure at initial connection step of tcp-check",
        ),
        (
            "half",
            says(b"\x16\x03\x03\0\x50"),
            &[NONE],
            "DOWN L6RSP  11/2 SSL handshake failure",
        ),
        (
            "rule",
            GOOD.ok(),
            &[
                TCP,
                "tcp-check connect ssl sni node.test",
                concat!("default-server ca-file ", file!("ca.pem")),
            ],
            "UP L6OK  9/3 (tcp-check)",
        ),
        (
            "default-rule",
            GOOD.ok(),
            &[
                TCP,
                "tcp-check connect default",
                "tcp-check send x",
                "tcp-check expect string 200",
                NONE,
            ],
            "UP L7OK 0 15/3 (tcp-check)",
        ),
        (
            "clear-rule",
            answers(b"PONG"),
            &[
                TCP,
                "tcp-check connect",
                "tcp-check send x",
                "tcp-check expect string PONG",
                NONE,
            ],
            "UP L7OK 0 15/3 (tcp-check)",
        ),
        (
            "http-rule",
            GOOD.ok(),
            &[
                HTTP,
                "http-check connect ssl",
                "http-check send meth GET uri /healthz",
                "http-check expect status 200",
                "default-server verify none",
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "redis",
            GOOD.answers(|_, _| "+PONG\r\n".to_owned()),
            &["option redis-check", NONE],
            "UP L7OK 0 15/3 Redis server is ok",
        ),
    ]
}

#[test]
fn certificates_are_judged_as_haproxy_judges_them() {
    let cases = certificates();
    beside::both_since((3, 0), |program| seen(program, &cases));
}

#[test]
fn checks_over_tls_tell_what_haproxys_tell() {
    let cases = sessions();
    beside::both_since((3, 0), |program| seen(program, &cases));
}

/// Since 3.3 HAProxy asks for the server by the header `Host`, and expects its certificate to have that name.
#[test]
fn the_host_of_a_request_is_asked_for() {
    const HOST: &str = "http-check send meth GET uri / ver HTTP/1.1 hdr Host a.test:80";
    let cases: Vec<Case> = vec![
        (
            "host",
            GOOD.ok(),
            &[HTTP, HOST, CA],
            "DOWN L6RSP  11/2 Server presented an SSL certificate different from the expected one",
        ),
        (
            "no-host",
            GOOD.ok(),
            &[
                HTTP,
                HOST,
                concat!(
                    "default-server check-ssl no-check-sni-auto ca-file ",
                    file!("ca.pem")
                ),
            ],
            "UP L7OK 200 15/3 ",
        ),
        (
            "rule",
            GOOD.ok(),
            &[
                HTTP,
                "http-check connect ssl",
                HOST,
                concat!("default-server ca-file ", file!("ca.pem")),
            ],
            "UP L7OK 200 15/3 ",
        ),
    ];
    beside::both_since((3, 3), |program| seen(program, &cases));
}

/// What is shown of the first server.
fn shown(rlb: &Rlb) -> String {
    let csv = rlb.csv();
    let row = csv.row("be", "s1");
    let status = row.text("check_status").trim_start_matches("* ").to_owned();
    format!("{status} {}", row.text("last_chk"))
}

/// Puts `text` there at once, as what rotates certificates does.
fn replace(path: &Path, text: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("written");
    fs::rename(new, path).expect("renamed");
}

fn read(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
    fs::read(folder.join(name)).expect("a file")
}

/// Files are read again when they have changed; those that cannot be used change nothing, and are told of once.
#[test]
fn files_are_replaced_while_checks_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("ca.pem"), read("ca.pem")).expect("written");
    fs::write(path("crt.pem"), read("other.pem")).expect("written");
    let server = Secure { asks: true, ..GOOD };
    let peer = Peer::start(server.answers(|_, sni| format!("HTTP/1.0 200 {sni}\r\n\r\n")));
    let config = Config::new()
        .backend(&format!(
            "check = {{ type = \"http\", interval = \"50ms\", tls = true, sni = \"node.test\", ca-file = '{}', crt = '{}' }}",
            path("ca.pem").display(),
            path("crt.pem").display()
        ))
        .server(peer.address());
    let rlb = Rlb::start(&config);
    let becomes = |text: &str| eventually_eq(TIMEOUT, &text.to_owned(), || shown(&rlb));
    becomes("SOCKERR SSL fatal error");
    replace(&path("crt.pem"), &read("client.pem"));
    becomes("L7OK ");
    rlb.events().wait_for("TLS files of checks read again");
    replace(&path("ca.pem"), &read("other.pem"));
    becomes("L6RSP SSL handshake failure");
    replace(&path("ca.pem"), &read("ca.pem"));
    becomes("L7OK ");
    let accepted = peer.accepted();
    replace(&path("ca.pem"), b"broken");
    let event = rlb.events().wait_for("TLS files of checks not replaced");
    assert!(event.contains("it has no certificate in PEM"), "{event}");
    eventually_eq(TIMEOUT, &true, || peer.accepted() > accepted + 5);
    becomes("L7OK ");
    fs::remove_file(path("crt.pem")).expect("removed");
    eventually_eq(TIMEOUT, &2, || {
        rlb.events().with("TLS files of checks not replaced").len()
    });
    becomes("L7OK ");
    rlb.stop();
}

/// What is wrong with a file is said with the line that names it, and a reload to it is refused.
#[test]
fn a_file_that_cannot_be_used_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rlb.toml");
    let load = |keys: &str| {
        let text = format!(
            "[[listen]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nservers = [{{ name = \"s\", address = \"10.0.0.1:1\" }}]\n\
             [listen.check]\ntls = true\n{keys}\n"
        );
        fs::write(&path, text).expect("written");
        let output = command(&["check", path.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    fs::write(folder.path().join("ca.pem"), read("ca.pem")).expect("written");
    let good = load("ca-file = \"ca.pem\"\nsni = \"node.test\"");
    assert!(good.0, "{}", good.1);
    for (keys, expected) in [
        (
            "verify = \"none\"\n\nca-file = \"none.pem\"\ncrt = \"none.pem\"",
            "rlb.toml:10:7",
        ),
        ("\nca-file = \"none.pem\"", "No such file or directory"),
        ("\nca-file = \"none.pem\"", "rlb.toml:8:11"),
        (
            "ca-file = \"ca.pem\"\ncrl-file = \"ca.pem\"",
            "it has no list of revoked certificates in PEM",
        ),
        (
            "ca-file = \"ca.pem\"\ncrt = \"ca.pem\"",
            "it has no private key",
        ),
        ("ca-file = \"rlb.toml\"", "it has no certificate in PEM"),
    ] {
        let (is_good, said) = load(keys);
        assert!(!is_good && said.contains(expected), "{keys}: {said}");
    }
}

/// An API server that is not ready gets nothing new and keeps what it has; what it does not want to tell is no failure.
#[test]
#[expect(clippy::too_many_lines, reason = "one server, from state to state")]
fn an_api_server_is_asked_whether_it_is_ready() {
    const NOT_READY: &str =
        "HTTP/1.0 500 Internal Server Error\r\n\r\n[+]ping ok\n[-]etcd failed: reason withheld\n";
    const READY: &str = "HTTP/1.0 200 OK\r\n\r\nok";
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, "first\n").expect("written");
    let (wanted, is_ready) = (
        Arc::new(Mutex::new("first")),
        Arc::new(AtomicBool::new(true)),
    );
    let (of_server, ready) = (Arc::clone(&wanted), Arc::clone(&is_ready));
    let peer = Peer::start(GOOD.answers(move |asked, _| {
        let expected = format!(
            "Authorization: Bearer {}\r\n",
            of_server.lock().expect("not poisoned")
        );
        assert!(asked.starts_with("GET /readyz HTTP/1.0\r\n"), "{asked}");
        let answer = match (asked.contains(&expected), ready.load(Relaxed)) {
            (false, _) => "HTTP/1.0 401 Unauthorized\r\n\r\n",
            (true, true) => READY,
            (true, false) => NOT_READY,
        };
        answer.to_owned()
    }));
    let config = |more: &str| {
        Config::new()
            .backend(&format!(
                "check = {{ type = \"kube-apiserver\", interval = \"50ms\", verifyhost = \"127.0.0.1\", \
                 ca-file = '{}', token-file = '{}'{more} }}",
                file!("ca.pem"),
                token.display()
            ))
            .server(peer.address())
    };
    let mut rlb = Rlb::start(&config(""));
    let becomes = |rlb: &Rlb, status: &str, text: &str| {
        let expected = format!("{status} {text}");
        eventually_eq(TIMEOUT, &expected, || {
            format!("{} {}", rlb.status("s1"), shown(rlb))
        });
    };
    becomes(&rlb, "UP", "L7OK ");
    is_ready.store(false, Relaxed);
    becomes(&rlb, "NOLB", "L7OKC not ready: etcd");
    is_ready.store(true, Relaxed);
    becomes(&rlb, "UP", "L7OK ");
    // The token is rotated.
    *wanted.lock().expect("not poisoned") = "second";
    let refused = "401: the certificate or the token of the check is not accepted";
    becomes(&rlb, "UP", &format!("L7OK {refused}"));
    replace(&token, b"second");
    becomes(&rlb, "UP", "L7OK ");
    replace(&token, b"two words");
    rlb.events().wait_for("TLS files of checks not replaced");
    becomes(&rlb, "UP", "L7OK ");
    *wanted.lock().expect("not poisoned") = "third";
    rlb.reload_refused(&config(", unauthorized = \"down\""));
    replace(&token, b"second");
    rlb.reload(&config(", unauthorized = \"down\""));
    becomes(&rlb, "DOWN", &format!("L7STS {refused}"));
    // Down, it is no nearer to being up when it is not ready.
    is_ready.store(false, Relaxed);
    *wanted.lock().expect("not poisoned") = "second";
    becomes(&rlb, "DOWN", "L7STS not ready: etcd");
    is_ready.store(true, Relaxed);
    becomes(&rlb, "UP", "L7OK ");
    drop(peer);
    becomes(
        &rlb,
        "DOWN",
        "L4CON ECONNREFUSED returned by OS (Connection refused)",
    );
    rlb.stop();
}

/// nginx as it is.
#[test]
fn nginx_is_asked_over_tls() {
    const PORT: u16 = 6443;
    if !needs::root() || needs::program("nginx").is_none() {
        return;
    }
    let mut lab = Lab::new();
    lab.power_on(0);
    let web = nginx(&lab, 0, PORT);
    let address = SocketAddr::from(([10, 240, 0, 37], PORT));
    let config = Config::new()
        .backend("check = { type = \"http\", interval = \"200ms\", timeout = \"200ms\" }")
        .server_with(
            address,
            "check = { tls = true, verify = \"none\", expect-status = \"200\" }",
        )
        .server_with(address, "check = { uri = \"/\" }")
        .server_with(address, "check = { tls = true, ca-file = \"@system-ca\" }");
    let rlb = Start::new(&config).netns(&lab.lb).ready();
    let shown = |server: &str| {
        let csv = lab.lb.enter(|| rlb.csv());
        let row = csv.row("be", server);
        let status = row.text("check_status").trim_start_matches("* ").to_owned();
        format!("{status} {}", row.text("last_chk"))
    };
    for (server, text) in [
        ("s1", "L7OK "),
        ("s2", "L7STS Bad Request"),
        ("s3", "L6RSP SSL handshake failure"),
    ] {
        eventually_eq(2 * TIMEOUT, &text.to_owned(), || shown(server));
    }
    drop(web);
    rlb.stop();
}
