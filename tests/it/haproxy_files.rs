//! Configurations of HAProxy's: `rlb convert`, `rlb run --haproxy` with its reloads, `rlb check` and
//! `rlb diff`.

use crate::harness::beside::{self, Beside};
use crate::harness::client::{hear, http_get};
use crate::harness::eventually::eventually_eq;
use crate::harness::needs;
use crate::harness::netns::Netns;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{STOP_WITHIN, Start, command};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

thread_local! {
    /// Where the service of a test is. HAProxy takes no port that the kernel chooses.
    static ADDRESS: SocketAddr = ports::free();
}

/// A service with these lines, over these servers.
fn haproxy(lines: &str, servers: &[SocketAddr]) -> String {
    let servers = servers.iter().enumerate();
    let servers: Vec<String> = servers
        .map(|(index, address)| format!("  server s{index} {address}\n"))
        .collect();
    let servers = servers.concat();
    let address = ADDRESS.with(|address| *address);
    format!(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n\
         listen fe\n  bind {address}\n{lines}{servers}"
    )
}

#[test]
fn a_file_of_haproxys_is_run_and_read_again_by_a_reload() {
    let peers = ["one", "two"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let [one, two] = [peers[0].address(), peers[1].address()];
    let mut rlb = Start::new(&haproxy("", &[one])).haproxy().ready();
    assert_eq!(hear(rlb.address()).0, "one");
    rlb.reload(&haproxy("", &[two]));
    assert_eq!(hear(rlb.address()).0, "two");
    // What would be weaker is refused, and what is in force stays.
    rlb.reload_refused(&haproxy("  balance url_param id\n", &[one, two]));
    let events = rlb.events().all().join("\n");
    assert!(
        events.contains("rlb.toml:8:3: not supported yet: balance"),
        "{events}"
    );
    rlb.reload_refused(&haproxy("  ballance roundrobin\n", &[one]));
    assert_eq!(hear(rlb.address()).0, "two");
    rlb.stop();
}

/// As in HAProxy the clients of IPv4 and of IPv6 come to different proxies at one port, and every port of a range and
/// every address of a runtime socket takes commands.
#[test]
fn binds_and_sockets_that_haproxy_opens_are_opened() {
    let peers = ["four", "six"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let [four, six] = peers.each_ref().map(Peer::address);
    let [port, one, two, three] = [(); 4].map(|()| ports::free().port());
    let text = format!(
        "global\n  stats socket localhost:{one} level user\n  stats socket 127.0.0.1:{two},*:{two} level admin\n  \
         stats socket ipv4@localhost:{three}-{three}\n{}\
         listen v4\n  bind *:{port}\n  server s {four}\nlisten v6\n  bind :::{port}\n  server s {six}\n",
        haproxy("", &[four])
    );
    let rlb = Start::new(&text).haproxy().ready();
    assert_eq!(hear(SocketAddr::from(([127, 0, 0, 1], port))).0, "four");
    assert_eq!(hear(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).0, "six");
    for (port, level) in [(one, "user"), (two, "admin"), (three, "operator")] {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        socket.write_all(b"show cli level\n").expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer.trim(), level, "{port}");
    }
    rlb.stop();
}

/// Binds of several proxies at one port or at one path, in rlb and in HAProxy: who gets which clients.
#[test]
fn binds_beside_each_other_get_the_clients_that_haproxy_gives_them() {
    let seen = beside::both(|program| {
        let netns = Netns::loopback();
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("a link");
        let [wide, narrow] =
            ["wide", "narrow"].map(|word| netns.enter(|| Peer::start(Behaviour::Says(word))));
        let service = format!(
            "  server s {wide}\n\
             listen wide\n  bind *:7001\n  bind *:7010-7012\n  bind :::7020-7022\n  bind 127.0.0.1:7030\n  \
             bind {folder}/link/socket\n  server s {wide}\n\
             listen narrow\n  bind 127.0.0.1:7001\n  bind 127.0.0.1:7011 id 9\n  bind :::7012\n  \
             bind 127.0.0.1:7021\n  bind *:7030 interface lo\n  bind {folder}/socket\n  server s {narrow}\n",
            wide = wide.address(),
            narrow = narrow.address(),
            folder = folder.path().display(),
        );
        let balancer = Beside::start(program, netns, ("", &service));
        let mut seen = Vec::new();
        for (host, port) in [
            ("127.0.0.1", 7001),
            ("127.0.0.2", 7001),
            ("127.0.0.1", 7010),
            ("127.0.0.1", 7011),
            ("127.0.0.2", 7011),
            ("127.0.0.1", 7012),
            ("::1", 7012),
            ("127.0.0.1", 7021),
            ("127.0.0.2", 7021),
            ("127.0.0.1", 7022),
            ("::1", 7021),
            ("127.0.0.1", 7030),
            ("127.0.0.2", 7030),
        ] {
            let address = SocketAddr::new(host.parse().expect("an address"), port);
            // Each of the workers' sockets has clients.
            for _ in 0..4 {
                let heard = balancer.netns.enter(|| hear(address)).0;
                seen.push(format!("{address} {heard}"));
            }
        }
        let mut stream = UnixStream::connect(folder.path().join("socket")).expect("connected");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("a word");
        seen.push(format!("the path {heard}"));
        balancer.stop();
        seen
    });
    let expected = [
        "127.0.0.1:7001 narrow",
        "127.0.0.2:7001 wide",
        "the path narrow",
    ];
    let has = |line: &&str| seen.iter().any(|seen| seen == line);
    assert!(seen.is_empty() || expected.iter().all(has), "{seen:?}");
}

/// A bind that has a part of another one's clients comes and goes by reloads, and stays over an upgrade.
#[test]
fn a_bind_beside_another_one_comes_and_goes() {
    let peers = ["wide", "narrow"].map(|word| Peer::start(Behaviour::Says(word)));
    let [wide, narrow] = peers.each_ref().map(Peer::address);
    let port = ports::free().port();
    let alone = format!(
        "{}listen wide\n  bind *:{port}\n  server s {wide}\n",
        haproxy("", &[wide])
    );
    let both = format!("{alone}listen narrow\n  bind 127.0.0.1:{port}\n  server s {narrow}\n");
    let heard = |last: u8| hear(SocketAddr::from(([127, 0, 0, last], port))).0;
    let mut rlb = Start::new(&both).haproxy().ready();
    for _ in 0..2 {
        assert_eq!(
            (heard(1), heard(2)),
            ("narrow".to_owned(), "wide".to_owned())
        );
        rlb.reload(&alone);
        // The bind that goes serves what still comes to it until it is closed.
        eventually_eq(STOP_WITHIN, &"wide".to_owned(), || heard(1));
        assert_eq!(heard(2), "wide");
        rlb.reload(&both);
        assert_eq!(
            (heard(1), heard(2)),
            ("narrow".to_owned(), "wide".to_owned())
        );
    }
    rlb.stop();
}

/// The rule for when the servers of the backend are gone is `sorry-backend`, in the file and in effect.
#[test]
fn a_rule_about_the_servers_left_leads_to_the_sorry_backend() {
    let peers = ["page", "web"].map(|word| Peer::start(Behaviour::SpeaksFirst(word)));
    let [page, web] = peers.each_ref().map(Peer::address);
    let port = ports::free().port();
    let text = |state: &str| {
        format!(
            "{}frontend own\n  bind 127.0.0.1:{port}\n  use_backend sorry if {{ nbsrv(web) lt 1 }}\n  \
             default_backend web\nbackend web\n  server s {web}{state}\nbackend sorry\n  server p {page}\n",
            haproxy("", &[page])
        )
    };
    let mut rlb = Start::new(&text("")).haproxy().ready();
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(hear(own).0, "web");
    rlb.reload(&text(" disabled"));
    assert_eq!(hear(own).0, "page");
    rlb.stop();
}

/// Each page of the statistics stays at its own addresses with its own path and users, over reloads too.
#[test]
fn each_page_of_the_statistics_keeps_its_path() {
    let [one, two] = [(); 2].map(|()| ports::free());
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let text = |second: &str| {
        let pages = format!(
            "listen one\n  mode http\n  bind {one}\n  stats enable\n  stats uri /a\n  stats hide-version\n\
             listen two\n  mode http\n  bind {two}\n  stats enable\n{second}"
        );
        format!("{}{pages}", haproxy("", &[nobody]))
    };
    let status = |address, path: &str| http_get(address, path).expect("an answer").0;
    let mut rlb = Start::new(&text("  stats uri /b\n")).haproxy().ready();
    let all = [(one, "/a"), (one, "/b"), (two, "/a"), (two, "/b")];
    let statuses = || all.map(|(address, path)| status(address, path));
    assert_eq!(statuses(), [200, 404, 404, 200]);
    let versions = [(one, "/a"), (two, "/b")].map(|(address, path)| {
        let (_, page) = http_get(address, path).expect("an answer");
        page.contains(env!("CARGO_PKG_VERSION"))
    });
    assert_eq!(versions, [false, true]);
    rlb.reload(&text("  stats uri /a\n  stats auth admin:secret\n"));
    // Nobody is told without a password what is there.
    assert_eq!(statuses(), [200, 404, 401, 401]);
    rlb.stop();
}

#[test]
fn a_start_with_what_is_not_carried_over_is_refused() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let text = haproxy("  balance url_param id\n", &[nobody, nobody]);
    let (status, said) = Start::new(&text).haproxy().exits();
    assert_eq!(status.code(), Some(78), "{said:#?}");
    assert!(said.join("\n").contains("not `url_param`"), "{said:#?}");
}

#[test]
fn check_and_diff_take_files_of_haproxys() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let other = SocketAddr::from(([127, 0, 0, 1], 10));
    let (good, weak, toml) = (path("good.cfg"), path("weak.cfg"), path("rlb.toml"));
    fs::write(&good, haproxy("", &[nobody])).expect("written");
    let weak_lines = "  balance url_param id\n";
    fs::write(&weak, haproxy(weak_lines, &[nobody, other])).expect("written");
    let said = |arguments: &[&str]| {
        let output = command(arguments);
        let [out, err] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        (output.status.code(), out, err)
    };

    let (code, out, _) = said(&["check", "--haproxy", &good]);
    assert_eq!((code, out), (Some(0), format!("{good} is valid\n")));
    let (code, _, err) = said(&["check", "--haproxy", &weak]);
    assert_eq!(code, Some(78));
    assert!(err.contains("not `url_param`"), "{err}");
    assert_eq!(
        said(&["check", "--haproxy", &weak, "--allow-degraded"]).0,
        Some(0)
    );
    let (code, _, err) = said(&["check", &good]);
    assert_eq!(code, Some(78));
    assert!(err.contains("rlb convert"), "{err}");
    assert_eq!(said(&["check", &good, "--allow-degraded"]).0, Some(2));

    let (code, converted, err) = said(&["convert", &good]);
    assert_eq!(code, Some(0), "{err}");
    fs::write(&toml, &converted).expect("written");
    assert_eq!(said(&["check", &toml]).0, Some(0));
    assert_eq!(said(&["convert", &weak]).0, Some(1));
    let (code, json, _) = said(&["convert", "--format", "json", &weak]);
    assert_eq!(code, Some(1));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["changes-traffic"], true);
    assert!(json["toml"].as_str().is_some());
    assert_eq!(said(&["convert", &path("none.cfg")]).0, Some(78));

    let differs = [
        "diff",
        "--config",
        &toml,
        "--allow-degraded",
        "--haproxy",
        &weak,
    ];
    let (code, out, err) = said(&differs);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("s1"), "{out}");
}

/// HAProxy takes any bytes: a file in Latin-1 is recognised too.
#[test]
fn check_recognises_a_file_of_haproxys_in_latin_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("haproxy.cfg");
    let text = haproxy("", &[]).into_bytes();
    let text = [b"# gepr\xfcft\n".to_vec(), text].concat();
    fs::write(&path, text).expect("written");
    let output = command(&["check", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("is a configuration of HAProxy"), "{said}");
    assert!(said.contains("rlb convert"), "{said}");
}

/// Inputs of the converter that HAProxy takes, though rlb refuses them: why.
const TAKEN_BY_HAPROXY: &[(&str, &str)] = &[];

/// Inputs of the converter that are refused by HAProxy 2.6, though rlb takes them: why.
const REFUSED_BY_HAPROXY: &[(&str, &str)] = &[
    ("addresses-short", "words of newer versions"),
    ("bind-tls", "the certificate is missing"),
    ("binds-inherited", "nobody passes the descriptors"),
    (
        "check-httpchk-forms",
        "a host behind the version came with 3.0, headers there went with it",
    ),
    (
        "conditions",
        "a line that a condition leaves out may hold anything",
    ),
    ("unique-ids", "`setcap` and `fc_pp_tlv` came with 2.9"),
    ("http-passing", "the file of an error page is missing"),
    (
        "missing-things",
        "words of newer versions and of older ones",
    ),
    ("old-http-words", "words of older versions"),
    (
        "check-tls",
        "the files are missing, and it has words of newer versions",
    ),
    ("check-tls-global", "the file of an authority is missing"),
    ("old-words", "words of older versions"),
    ("options", "the file of an error page is missing"),
    ("proxy-headers", "a timeout of newer versions"),
    ("rates-refused", "a word of newer versions"),
    ("rates", "the server that is tracked is missing"),
    (
        "socket-options",
        "words of newer versions; nobody passes the descriptor, and the namespace is missing",
    ),
    ("same-path", "a word of newer versions"),
    ("sections-others", "the file of an error page is missing"),
    ("server-words-of-3-5", "words of newer versions"),
    ("servers", "the name of a server does not resolve"),
    ("servers-inert", "the resolvers are missing"),
    ("servers-twice", "names that stand twice get a number"),
    ("stats-guarded", "the list of users is missing"),
    ("stats-twice", "words of older versions"),
    ("syntax-bom", "a byte order mark is left out"),
    ("syntax-no-final-newline", "a missing line feed is left out"),
    (
        "stats-socket-closed",
        "`harden.reject-privileged-ports` is newer",
    ),
    (
        "stats-socket-closed-allowed",
        "`harden.reject-privileged-ports` is newer",
    ),
];

/// The inputs of the converter's tests are valid for HAProxy where rlb takes them, and refused where rlb
/// refuses them.
#[test]
fn haproxy_takes_the_inputs_that_rlb_takes() {
    let Some(program) = needs::program("haproxy") else {
        return;
    };
    let version = Command::new(&program)
        .arg("-v")
        .output()
        .expect("it starts");
    let is_2_6 = String::from_utf8_lossy(&version.stdout).contains("version 2.6.");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/convert");
    let variables = [
        ("HOST", "10.1.1.1"),
        ("BIND_IP", "127.0.0.2"),
        ("PORT", "8080"),
        ("PORT2", "8081"),
        ("NUMBER", "500"),
        ("SPAN", "30s"),
        ("FLAGS", "check weight 7"),
        ("PASSWORD", "secret"),
        ("FD", "5"),
        ("SYSLOG", "10.5.5.5"),
    ];
    let mut differ = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|ending| ending != "cfg") {
            continue;
        }
        seen += 1;
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let report = fs::read_to_string(path.with_extension("report")).expect("a report");
        let taken = !report.ends_with("exit 78\n");
        let checked = Command::new(&program)
            .args(["-c", "-f"])
            .arg(&path)
            .envs(variables)
            .output()
            .expect("it starts");
        // 2: valid, and nothing listens.
        let valid = matches!(checked.status.code(), Some(0 | 2));
        let is_in = |list: &[(&str, &str)]| list.iter().any(|(other, _)| *other == name);
        let excepted = is_in(REFUSED_BY_HAPROXY);
        let expected = (taken && !excepted) || is_in(TAKEN_BY_HAPROXY);
        // Other versions take more and less.
        if valid != expected && (is_2_6 || !excepted) {
            let said = String::from_utf8_lossy(&checked.stderr).into_owned();
            differ.push(format!("{name}: rlb takes it: {taken}; HAProxy: {said}"));
        }
    }
    assert!(seen >= 80, "{seen} inputs");
    assert!(differ.is_empty(), "{differ:#?}");
}
