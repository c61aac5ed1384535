use super::*;
use crate::stats::test_snapshot::seed;
use crate::worker::sessions::SideView;

fn asked(line: &str) -> Result<Request, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut request = parse(&words)?;
    resolve(&mut request.wanted, &seed(2))?;
    Ok(request)
}

fn refused(line: &str) -> String {
    asked(line).expect_err(line)
}

fn side(fd: i32) -> SideView {
    SideView {
        fd,
        closed: false,
        ended: false,
        shut: false,
        kept_alive: true,
        left: Some(Duration::from_millis(57_900)),
        pending_bytes: 0,
        spliced: false,
        local: Some("10.0.0.1:5432".parse().unwrap()),
        remote: Some("10.0.0.2:5432".parse().unwrap()),
    }
}

/// A session of 65 s with some traffic, and that instant.
fn established() -> (View, Instant) {
    let snapshot = seed(2);
    let now = Instant::now() + Duration::from_secs(3600);
    let frontend = snapshot.frontends.iter().flatten().next().unwrap();
    let backend = snapshot.backends.iter().flatten().next().unwrap();
    let view = View {
        id: SessionId::new(20, (2, 4)),
        peer: Some("[2001:db8::1]:4711".parse().unwrap()),
        accepted: now.checked_sub(Duration::from_secs(65)).unwrap(),
        frontend: Arc::clone(frontend),
        backend: Some(Arc::clone(&backend.spec)),
        server: Some(Arc::clone(&backend.servers[1].spec)),
        retries: 1,
        bytes_in: 123,
        bytes_out: 45_678,
        left: Some(Duration::from_millis(57_900)),
        client: 20,
        sides: Some([side(20), side(21)]),
    };
    (view, now)
}

fn line_of(view: &View, now: Instant) -> String {
    let mut text = String::new();
    write(&mut text, view, 2, (false, now));
    text
}

#[test]
fn a_line_has_haproxys_fields_in_its_order_and_then_ours() {
    let (view, now) = established();
    assert_eq!(
        line_of(&view, now),
        "0x52: proto=tcpv6 src=2001:db8::1:4711 fe=postgres be=postgres srv=node2 ts=00 epoch=0 \
         age=1m5s calls=0 rate=0 cpu=0 lat=0 rq[f=000000h,i=0,an=00h,ax=] \
         rp[f=000000h,i=0,an=00h,ax=] scf=[8,0h,fd=20,rex=57s,wex=] \
         scb=[8,1h,fd=21,rex=57s,wex=] exp=57s rc=1 c_exp= thr=2 bin=123 bout=45678 rqby=copy \
         rpby=copy\n"
    );
}

#[test]
fn a_line_has_the_pending_bytes_and_how_they_are_moved() {
    let (mut view, now) = established();
    let [client, server] = view.sides.as_mut().unwrap();
    // A download that the client does not take; the server has sent everything and FIN.
    client.pending_bytes = 65_536;
    server.spliced = true;
    server.ended = true;
    server.closed = true;
    let line = line_of(&view, now);
    for part in [
        " rq[f=000000h,i=0,an",
        " rp[f=000000h,i=65536,an",
        " scf=[8,0h,fd=20,rex=57s,wex=57s]",
        " scb=[10,1h,fd=21,rex=,wex=]",
        " rqby=copy rpby=splice\n",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}

#[test]
fn a_session_that_is_connecting_has_no_server_side_yet() {
    let (mut view, now) = established();
    view.sides = None;
    view.peer = None;
    view.left = Some(Duration::from_secs(4));
    let line = line_of(&view, now);
    for part in [
        ": proto=unix_stream src=unix:1 fe=",
        " scf=[8,0h,fd=20,rex=,wex=] scb=[5,1h,fd=-1,rex=,wex=] exp=4s rc=1 c_exp=4s thr=2 ",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    (view.backend, view.server) = (None, None);
    assert!(line_of(&view, now).contains(" be=<NONE> srv=<none> "));
}

#[test]
fn the_large_format_has_addresses_and_states() {
    let (mut view, now) = established();
    view.sides.as_mut().unwrap()[0].ended = true;
    let mut text = String::new();
    write(&mut text, &view, 2, (true, now));
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("0x52: ["), "{first}");
    assert!(
        first.ends_with("] id=82 proto=tcpv6 source=2001:db8::1:4711"),
        "{first}"
    );
    let date = &first[7..first.find(']').unwrap()];
    assert_eq!(date.len(), "23/Nov/2026:06:52:04.310144".len(), "{date}");
    let rest: Vec<&str> = lines.collect();
    assert_eq!(
        rest,
        [
            "  conn_retries=1, conn_exp=<NEVER>",
            "  frontend=postgres (id=3 mode=tcp) addr=10.0.0.1:5432",
            "  backend=postgres (id=3 mode=tcp) addr=10.0.0.1:5432",
            "  server=node2 (id=2) addr=10.0.0.2:5432",
            "  thread=2 age=1m5s exp=57s",
            "  scf state=EST fd=20 rex=57s fin-received keepalive",
            "  scb state=EST fd=21 rex=57s keepalive",
            "  req bytes=123 pending=0 by=copy",
            "  res bytes=45678 pending=0 by=copy",
        ]
    );
}

#[test]
fn selectors_and_options_are_read_as_haproxy_does() {
    let all = asked("").unwrap();
    assert!(!all.large && !all.wanted.details && all.wanted.id.is_none());
    let all = asked("all susp").unwrap();
    assert!(all.large && all.wanted.details && all.wanted.suspicious);
    let one = asked("0x2a").unwrap();
    assert!(one.large);
    assert_eq!(one.wanted.id.map(SessionId::number), Some(42));
    let old = asked("older 90").unwrap();
    assert!(old.large, "as in HAProxy, whose first word it is");
    assert_eq!(old.wanted.older, Duration::from_secs(90));
    let old = asked("susp older 5m").unwrap();
    assert!(!old.large && old.wanted.suspicious);
    assert_eq!(old.wanted.older, Duration::from_secs(300));
    let on = asked("server postgres/node2").unwrap().wanted;
    assert_eq!(
        (on.backend.as_deref(), on.server.as_deref()),
        (Some("postgres"), Some("node2"))
    );
    let of = asked("all frontend postgres").unwrap().wanted;
    assert_eq!(of.frontend.as_deref(), Some("postgres"));
    assert_eq!(
        asked("backend postgres").unwrap().wanted.backend.as_deref(),
        Some("postgres")
    );
}

#[test]
fn errors_have_haproxys_text() {
    for (line, answer) in [
        ("older", "Expects a minimum age (in seconds by default).\n"),
        ("older soon", "Invalid age.\n"),
        (
            "all nosuch",
            "Unsupported option 'nosuch', try 'help' for more info.\n",
        ),
        (
            "0x0",
            "Unsupported option '0x0', try 'help' for more info.\n",
        ),
        (
            "show-uri",
            "Unsupported option 'show-uri', try 'help' for more info.\n",
        ),
        ("server", "Missing server name (<backend>/<server>).\n"),
        ("server postgres", "Require 'backend/server'.\n"),
        ("server nosuch/node1", "No such backend.\n"),
        ("server postgres/nosuch", "No such server.\n"),
        ("backend", "Missing backend name.\n"),
        ("backend nosuch", "No such backend.\n"),
        ("frontend", "Missing frontend name.\n"),
        ("frontend nosuch", "No such frontend.\n"),
        ("frontend postgres backend postgres", ONE_OF),
        ("server postgres/node1 server postgres/node2", ONE_OF),
    ] {
        assert_eq!(refused(line), answer, "{line}");
    }
    assert!(refused("help").starts_with("Usage: show sess ["));
}
