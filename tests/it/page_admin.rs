//! Changes of servers on the page of the statistics (`admin` of `[stats]`): over HTTP, beside HAProxy, and with a mouse in
//! Chromium (see [`needs`]).

use crate::harness::browser::row;
use crate::harness::client::{End, TIMEOUT, connect, echo, http_get, read_to_end};
use crate::harness::config::Config;
use crate::harness::csv::Csv;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::Rlb;
use crate::harness::runtime::Fixture;
use crate::harness::webdriver::Browser;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Servers of `be`: two with a check that hardly ever comes, one without.
fn config(address: SocketAddr) -> Config {
    let check = "check = { interval = \"1h\" }";
    Config::new()
        .server_with(address, check)
        .server_with(address, check)
        .server_with(address, "check = false")
}

/// The same with lines of `[stats]`.
fn with_stats(config: &Config, lines: &str) -> String {
    let text = config.to_string();
    assert!(text.contains("\n[stats]\n"), "{text}");
    text.replace("\n[stats]\n", &format!("\n[stats]\n{lines}\n"))
}

/// The answer to a POST with `lines` in its head: the status and where it leads.
fn post_with(address: SocketAddr, target: &str, lines: &str, body: &str) -> (u16, String) {
    let mut stream = connect(address);
    let length = body.len();
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n{lines}\r\n{body}"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let status = answer.split(' ').nth(1).and_then(|it| it.parse().ok());
    let location = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then_some(value)
    });
    let status = status.unwrap_or_else(|| panic!("no status: {answer}"));
    (status, location.unwrap_or_default().to_owned())
}

/// The result code of a POST to `/`.
fn post(address: SocketAddr, body: &str) -> String {
    let (status, location) = post_with(address, "/", "", body);
    assert_eq!(status, 303, "{body}");
    let code = location.strip_prefix("/;st=");
    code.unwrap_or_else(|| panic!("{location}")).to_owned()
}

/// The states of the servers of `be`, without the counters of checks.
fn states(address: SocketAddr) -> Vec<String> {
    let (status, text) = http_get(address, "/;csv;norefresh").expect("answers");
    assert_eq!(status, 200);
    let csv = Csv::parse(&text);
    let state = |server: &&str| {
        let status = csv.row("be", server).status().to_owned();
        status.split(' ').next().unwrap_or_default().to_owned()
    };
    ["s1", "s2", "s3"].iter().map(state).collect()
}

/// Bodies, the result of HAProxy 2.6 and 3.5 for each in this order, and the states afterwards.
const ACTIONS: &[(&str, &str, [&str; 3])] = &[
    ("s=s1&action=maint&b=be", "DONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=maint&b=be", "DONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=disable&b=be", "NONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=stop&b=be", "DONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=enable&b=be", "DONE", ["DRAIN", "UP", "no"]),
    ("s=s1&action=enable&b=be", "NONE", ["DRAIN", "UP", "no"]),
    ("s=s1&action=stop&b=be", "NONE", ["DRAIN", "UP", "no"]),
    ("s=s1&action=start&b=be", "DONE", ["UP", "UP", "no"]),
    ("s=s1&action=start&b=be", "NONE", ["UP", "UP", "no"]),
    ("s=s1&action=disable&b=be", "DONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=ready&b=be", "DONE", ["UP", "UP", "no"]),
    ("s=s1&action=drain&b=be", "DONE", ["DRAIN", "UP", "no"]),
    ("s=s1&action=maint&b=be", "DONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=start&b=be", "NONE", ["MAINT", "UP", "no"]),
    ("s=s1&action=enable&b=be", "DONE", ["UP", "UP", "no"]),
    (
        "b=be&action=drain&s=s1&s=s2",
        "DONE",
        ["DRAIN", "DRAIN", "no"],
    ),
    (
        "s=s1&s=s2&s=s3&action=ready&b=be",
        "DONE",
        ["UP", "UP", "no"],
    ),
    (
        "s=s1&s=nosuch&action=maint&b=be",
        "PART",
        ["MAINT", "UP", "no"],
    ),
    ("s=%731&action=ready&b=%62e", "DONE", ["UP", "UP", "no"]),
    ("s=nosuch&action=maint&b=be", "ERRP", ["UP", "UP", "no"]),
    ("s=s+1&action=maint&b=be", "ERRP", ["UP", "UP", "no"]),
    ("s=s1&action=maint&b=nosuch", "ERRP", ["UP", "UP", "no"]),
    ("s=s1&action=maint&b=%2399", "ERRP", ["UP", "UP", "no"]),
    ("s=s1&action=maint&b=stats", "ERRP", ["UP", "UP", "no"]),
    ("s=s1&action=boom&b=be", "ERRP", ["UP", "UP", "no"]),
    ("s=s1&action=&b=be", "ERRP", ["UP", "UP", "no"]),
    ("s=s1&b=be", "NONE", ["UP", "UP", "no"]),
    ("s=s1&action=maint", "NONE", ["UP", "UP", "no"]),
    ("action=maint&b=be", "NONE", ["UP", "UP", "no"]),
    ("hello", "NONE", ["UP", "UP", "no"]),
    ("", "NONE", ["UP", "UP", "no"]),
    (
        "s=s1&action=maint&action=drain&b=nosuch&b=be",
        "DONE",
        ["DRAIN", "UP", "no"],
    ),
    (
        "x=1&s=s1&s=s1&action=ready&y&b=be&",
        "DONE",
        ["UP", "UP", "no"],
    ),
    ("s=s1&s=s3&action=dhlth&b=be", "DONE", ["no", "UP", "no"]),
    ("s=s1&action=dhlth&b=be", "DONE", ["no", "UP", "no"]),
    ("s=s3&action=dhlth&b=be", "NONE", ["no", "UP", "no"]),
    ("s=s1&action=ehlth&b=be", "DONE", ["UP", "UP", "no"]),
    ("s=s1&action=ehlth&b=be", "DONE", ["UP", "UP", "no"]),
    ("s=s3&action=ehlth&b=be", "NONE", ["UP", "UP", "no"]),
    (
        "s=s1&s=s2&action=hdown&b=be",
        "DONE",
        ["DOWN", "DOWN", "no"],
    ),
    ("s=s1&action=hnolb&b=be", "DONE", ["NOLB", "DOWN", "no"]),
    ("s=s1&s=s2&action=hrunn&b=be", "DONE", ["UP", "UP", "no"]),
    ("s=s3&action=hdown&b=be", "DONE", ["UP", "UP", "DOWN"]),
    ("s=s3&action=hrunn&b=be", "DONE", ["UP", "UP", "no"]),
    ("s=s1&action=dagent&b=be", "NONE", ["UP", "UP", "no"]),
    ("s=s1&action=eagent&b=be", "NONE", ["UP", "UP", "no"]),
    ("s=s1&action=arunn&b=be", "NONE", ["UP", "UP", "no"]),
    ("s=s1&action=adown&b=be", "NONE", ["UP", "UP", "no"]),
    ("s=s1&s=s2&action=shutdown&b=be", "DONE", ["UP", "UP", "no"]),
];

#[track_caller]
fn expect_actions(address: SocketAddr, who: &str) {
    for (body, code, expected) in ACTIONS {
        assert_eq!(post(address, body), *code, "{who}: {body}");
        assert_eq!(states(address), *expected, "{who}: {body}");
    }
    let long = "s=s1&".repeat(3_400);
    for (body, code) in [
        (format!("{long}action=maint&b=be"), "EXCD"),
        (format!("s={}&action=maint&b=be", "x".repeat(3_000)), "ERRP"),
        (format!("{}action=ready&b=be", &long[..14_000]), "DONE"),
    ] {
        assert_eq!(post(address, &body), code, "{who}: {} bytes", body.len());
    }
    assert_eq!(states(address), ["UP", "UP", "no"], "{who}");
}

#[test]
fn each_action_has_haproxys_result() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&with_stats(&config(peer.address()), "admin = true"));
    rlb.wait_status("s1", "UP");
    rlb.wait_status("s2", "UP");
    expect_actions(rlb.addresses("stats")[0], "rlb");
    rlb.stop_after(peer);
}

/// The same requests to HAProxy, so that the table is true.
#[test]
fn haproxy_has_the_same_results() {
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let (server, stats) = (peer.address(), ports::free());
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n timeout connect 2s\n timeout client 5s\n timeout server 5s\n\
         backend be\n mode tcp\n server s1 {server} check inter 1h\n server s2 {server} check inter 1h\n \
         server s3 {server}\n\
         listen stats\n mode http\n bind {stats}\n stats enable\n stats uri /\n stats admin if TRUE\n"
    );
    std::fs::write(&file, text).expect("written");
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    let process = Process::start(command, None, false);
    eventually_true(TIMEOUT, "HAProxy listens", || {
        TcpStream::connect(stats).is_ok()
    });
    expect_actions(stats, "HAProxy");
    drop(process);
}

/// A change on the page is one of an operator: logged with who made it, listed among the overrides, and kept by a reload.
#[test]
fn an_action_is_logged_and_listed_and_outlives_a_reload() {
    let peer = Peer::start(Behaviour::Echo);
    let mut fixture = Fixture::new(config(peer.address()), "admin");
    let lines = "admin = true\nauth = [\"ops:secret\"]";
    let text = with_stats(&fixture.config, "");
    let reload = |fixture: &mut Fixture, lines: &str| {
        let socket = format!(
            "[runtime-api]\nsocket = \"{}\"\n",
            fixture.socket().display()
        );
        let text = text.split("[runtime-api]").next().expect("a part");
        let text = text.replace("\n[stats]\n", &format!("\n[stats]\n{lines}\n"));
        fixture.rlb.reload(&format!("{text}{socket}"));
    };
    let stats = fixture.rlb.addresses("stats")[0];
    let body = "s=s1&s=gone&action=maint&b=be";
    assert_eq!(post(stats, body), "DENY", "before it is allowed");
    let refused = fixture.rlb.events().wait_for("\"page action refused\"");
    assert!(refused.contains("no right to change servers"), "{refused}");
    reload(&mut fixture, lines);
    assert_eq!(post_with(stats, "/", "", body).0, 401);
    let password = "Authorization: Basic b3BzOnNlY3JldA==\r\n";
    let evil = format!("{password}Origin: http://evil\r\n");
    // At most one event a second tells of refused requests.
    eventually_true(TIMEOUT, "an event about the other site", || {
        let (_, location) = post_with(stats, "/;up", &evil, body);
        assert_eq!(location, "/;st=DENY;up");
        let told = fixture.rlb.events().with("request of another site");
        !told.is_empty()
    });
    let (_, location) = post_with(stats, "/;up", password, body);
    assert_eq!(location, "/;st=PART;up");
    let told = fixture.rlb.events().wait_for("\"page action\"");
    for part in [
        "\"client\":\"127.0.0.1:",
        "\"user\":\"ops\"",
        "\"backend\":\"be\"",
        "\"action\":\"maint\"",
        "\"servers\":\"s1\"",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let failed = fixture.rlb.events().wait_for("\"page action failed\"");
    assert!(failed.contains("unknown: 1") && failed.contains("\"user\":\"ops\""));
    assert!(
        !fixture
            .rlb
            .events()
            .all()
            .iter()
            .any(|it| it.contains("secret"))
    );
    let health = "s=s2&action=hdown&b=be";
    assert_eq!(post_with(stats, "/", password, health).1, "/;st=DONE");
    fixture
        .rlb
        .events()
        .wait_for("Server be/s2 is DOWN, changed from Web interface.");
    let listed = fixture.ask("show overrides");
    assert!(
        listed.contains("server be/s1 state ready maint"),
        "{listed}"
    );
    reload(&mut fixture, "admin = \"localhost\"");
    assert_eq!(states(stats)[0], "MAINT");
    assert_eq!(post(stats, "s=s1&action=ready&b=be"), "DONE");
    let listed = fixture.ask("show overrides");
    assert!(!listed.contains("server be/s1 state"), "{listed}");
    reload(&mut fixture, "");
    assert_eq!(post(stats, body), "DENY");
    assert_eq!(states(stats)[0], "UP");
    fixture.rlb.stop_after(peer);
}

/// Proxies that the page does not show cannot be changed, and nothing is told about them.
#[test]
fn a_page_with_a_scope_changes_only_what_it_shows() {
    let peer = Peer::start(Behaviour::Echo);
    let config = config(peer.address()).table(&format!(
        "[[backend]]\nname = \"other\"\nservers = [ {{ name = \"s1\", address = \"{}\" }} ]",
        peer.address()
    ));
    let rlb = Rlb::start(&with_stats(&config, "admin = true\nscope = \"other\""));
    let stats = rlb.addresses("stats")[0];
    for backend in ["be", "nosuch", "stats"] {
        let body = format!("s=s1&action=maint&b={backend}");
        assert_eq!(post(stats, &body), "DENY", "{backend}");
    }
    assert_eq!(post(stats, "s=s1&action=maint&b=other"), "DONE");
    let (_, page) = rlb.http_get("/").expect("answers");
    assert!(page.contains("name=\"b\" value=\"other\"") && !page.contains("value=\"be\""));
    rlb.stop_after(peer);
}

/// The programs for a test with a mouse.
fn programs() -> Option<(std::path::PathBuf, std::path::PathBuf)> {
    needs::program("chromedriver").zip(needs::program("chromium"))
}

/// Checks servers of `be`, chooses an action, and applies it.
#[track_caller]
fn apply(browser: &Browser, servers: &[&str], action: &str) {
    for server in servers {
        browser.click(&format!("[id='be/{server}'] input[name=s]"));
    }
    let form = "form:has(input[name=b][value=be])";
    browser.click(&format!("{form} option[value={action}]"));
    browser.click(&format!("{form} input[type=submit]"));
}

/// The class and the status of a server of `be` on the page.
#[track_caller]
fn seen(browser: &Browser, server: &str) -> (String, String) {
    let (class, mut cells) = row(&browser.source(), &format!("be/{server}"));
    (class, cells.swap_remove(22))
}

#[test]
fn a_mouse_changes_servers_in_chromium() {
    let Some((driver, chromium)) = programs() else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let lines = "admin = true\nauth = \"ops:secret\"\nrefresh = \"1h\"";
    let rlb = Rlb::start(&with_stats(&config(peer.address()), lines));
    let stats = rlb.addresses("stats")[0];
    let browser = Browser::start((&driver, &chromium), 700);
    // The page that refreshes itself has no check boxes, and leads to one that has them.
    browser.open(&format!("http://ops:secret@{stats}/"));
    assert!(!browser.source().contains("checkbox"));
    browser.click("section:has([id=be]) p.act a");
    browser.wait_for("/;norefresh#be");
    let boxes = "return document.querySelectorAll('input[type=checkbox]').length";
    assert_eq!(browser.evaluate(boxes), 3);
    // In a narrow window what is needed is in sight.
    let hidden = "return [...document.querySelectorAll('input[type=checkbox], .act > :not([type=hidden])')].filter(one => { \
                  const box = one.getBoundingClientRect(); \
                  return box.left < 0 || box.right > innerWidth || box.width < 5; }).length";
    assert_eq!(browser.evaluate(hidden), 0);
    assert_eq!(browser.evaluate("return innerWidth <= 700"), true);
    apply(&browser, &["s1", "s2"], "maint");
    browser.wait_for("/;st=DONE;norefresh#be");
    let message = "[X] Action processed successfully.";
    assert_eq!(browser.text(".message"), message);
    // It is in sight at the table, too.
    let top = "return document.querySelector('.message').getBoundingClientRect().top";
    let top = browser.evaluate(top);
    assert!(
        top.as_f64().is_some_and(|it| (0.0..200.0).contains(&it)),
        "{top}"
    );
    for server in ["s1", "s2"] {
        let (class, shown) = seen(&browser, server);
        assert_eq!(class, "maintain");
        assert!(shown.ends_with(" MAINT"), "{shown}");
    }
    assert_eq!(seen(&browser, "s3").0, "active_no_check");
    browser.click(".message a");
    browser.wait_for("/;norefresh");
    assert!(!browser.source().contains(message));
    // In the view of one proxy the result is shown in that view.
    browser.open(&format!("http://{stats}/;norefresh;scope=be"));
    apply(&browser, &["s2", "s1"], "ready");
    browser.wait_for("/;st=DONE;norefresh;scope=be");
    for server in ["s1", "s2"] {
        let (_, shown) = seen(&browser, server);
        assert!(shown.ends_with("UP") || shown.contains("UP "), "{shown}");
    }
    // Nothing checked: HAProxy's answer.
    apply(&browser, &[], "drain");
    browser.wait_for("/;st=NONE;norefresh;scope=be");
    assert_eq!(browser.text(".message"), "[X] Nothing has changed.");
    let events = rlb.events().with("\"page action\"");
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|it| it.contains("\"user\":\"ops\"")));
    drop(browser);
    rlb.stop_after(peer);
}

#[test]
fn a_mouse_ends_the_sessions_of_a_server_in_chromium() {
    let Some((driver, chromium)) = programs() else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&with_stats(
        &config(peer.address()),
        "admin = \"localhost\"",
    ));
    let mut sessions: Vec<TcpStream> = (0..3).map(|_| connect(rlb.address())).collect();
    for session in &mut sessions {
        echo(session, b"before");
    }
    eventually_eq(TIMEOUT, &1, || rlb.number("s1", "scur"));
    let browser = Browser::start((&driver, &chromium), 1500);
    browser.open(&format!("http://{}/", rlb.addresses("stats")[0]));
    apply(&browser, &["s1"], "shutdown");
    browser.wait_for("/;st=DONE");
    assert_eq!(
        browser.text(".message"),
        "[X] Action processed successfully."
    );
    eventually_eq(TIMEOUT, &0, || rlb.number("s1", "scur"));
    assert_eq!(rlb.number("s2", "scur") + rlb.number("s3", "scur"), 2);
    let mut ended = 0;
    for session in &mut sessions {
        let sent = session.write_all(b"after");
        let mut answer = [0; 5];
        if sent.is_err() || session.read_exact(&mut answer).is_err() {
            ended += 1;
            assert_ne!(read_to_end(session).1, End::Silence);
        }
    }
    assert_eq!(ended, 1);
    drop(browser);
    rlb.stop_after((sessions, peer));
}

/// A page on another port with a form that leads to rlb, until dropped.
struct OtherSite {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl OtherSite {
    fn start(stats: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let page = format!(
            "<!DOCTYPE html><form method=post action=\"http://{stats}/\">\
             <input type=hidden name=s value=s1><input type=hidden name=action value=maint>\
             <input type=hidden name=b value=be><input type=submit></form>"
        );
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(SeqCst) {
                    return;
                }
                let (Ok(stream), page) = (stream, page.clone()) else {
                    continue;
                };
                // A browser may open a connection that it does not use.
                std::thread::spawn(move || show(stream, &page));
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }
}

/// Answers one request with `page`.
fn show(mut stream: TcpStream, page: &str) {
    if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
        let length = page.len();
        // An error means that the browser has gone.
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{page}"
        );
    }
}

impl Drop for OtherSite {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn a_form_of_another_site_is_refused_in_chromium() {
    let Some((driver, chromium)) = programs() else {
        return;
    };
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&with_stats(&config(peer.address()), "admin = true"));
    let stats = rlb.addresses("stats")[0];
    let other = OtherSite::start(stats);
    let browser = Browser::start((&driver, &chromium), 1500);
    // The other site knows the page, and another port of this machine is the same site to a browser.
    browser.open(&format!("http://{stats}/"));
    browser.open(&format!("http://{}/", other.address));
    browser.click("input[type=submit]");
    browser.wait_for(&format!("http://{stats}/;st=DENY"));
    assert_eq!(browser.text(".message"), "[X] Action denied.");
    assert_ne!(states(stats)[0], "MAINT");
    rlb.events().wait_for("request of another site");
    // The page itself may.
    apply(&browser, &["s1"], "maint");
    browser.wait_for("/;st=DONE");
    assert_eq!(states(stats)[0], "MAINT");
    drop((browser, other));
    rlb.stop_after(peer);
}
