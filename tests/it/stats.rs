//! The statistics listener: HAProxy's columns and rows, and hostile clients.

use crate::harness::client::{End, connect, echo, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true};
use crate::harness::needs;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::process::Process;
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use crate::harness::runtime::Fixture;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// The columns of HAProxy 3.x up to the marker; rlb's own follow.
const COLUMNS: &str = "\
    pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,\
    eresp,wretr,wredis,status,weight,act,bck,chkfail,chkdown,lastchg,downtime,\
    qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,rate_max,\
    check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,\
    hrsp_5xx,hrsp_other,hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,\
    comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,ctime,rtime,\
    ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,\
    check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,\
    conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,connect,reuse,\
    cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,\
    eint,idle_conn_cur,safe_conn_cur,used_conn_cur,need_conn_est,uweight,\
    agg_server_status,agg_server_check_status,agg_check_status,srid,sess_other,h1sess,\
    h2sess,h3sess,req_other,h1req,h2req,h3req,proto,priv_idle_cur,reqbin,reqbout,\
    resbin,resbout,cache_hint_hits";

#[test]
fn the_columns_are_haproxys_and_ours_come_after_the_marker() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let rlb = Rlb::start(&Config::new().server(peer.address()));
    let csv = rlb.csv();
    let columns: Vec<&str> = csv.columns().iter().map(String::as_str).collect();
    let expected: Vec<&str> = COLUMNS.split(',').collect();
    assert_eq!(columns[..expected.len()], expected);
    assert_eq!(columns[expected.len()], "-");
    assert!(
        columns[expected.len() + 1..]
            .iter()
            .all(|name| name.starts_with("rlb_")),
        "{:?}",
        &columns[expected.len()..]
    );
    let (_, text) = rlb.http_get("/;csv").expect("answers");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(
        lines.iter().all(|line| line.ends_with(',')),
        "every line ends in a comma"
    );
    let rows: Vec<String> = lines[1..]
        .iter()
        .map(|line| line.splitn(3, ',').take(2).collect::<Vec<_>>().join("/"))
        .collect();
    assert_eq!(rows[0], "stats/FRONTEND", "{rows:?}");
    let ours: Vec<&String> = rows
        .iter()
        .filter(|row| !row.starts_with("stats/"))
        .collect();
    assert_eq!(ours, ["fe/FRONTEND", "be/s1", "be/BACKEND"]);
    rlb.stop();
}

#[test]
fn a_row_has_what_its_kind_has_and_nothing_else() {
    let peer = Peer::start(Behaviour::Says("hello"));
    let config = Config::new().server_with(peer.address(), "check = false");
    let legends = "[stats]\nshow-legends = true\n";
    let rlb = Rlb::start(&config.to_string().replace("[stats]\n", legends));
    for _ in 0..3 {
        assert_eq!(hear(rlb.address()), ("hello".to_owned(), End::Eof));
    }
    eventually_eq(STOP_WITHIN, &(3, 15), || {
        (
            rlb.number("FRONTEND", "stot"),
            rlb.number("FRONTEND", "bout"),
        )
    });
    let csv = rlb.csv();
    let rows = [
        csv.row("fe", "FRONTEND"),
        csv.row("be", "s1"),
        csv.row("be", "BACKEND"),
    ];
    let [frontend, server, backend] = rows;
    assert_eq!(rows.map(|row| row.number("type")), [0, 2, 1]);
    assert_eq!(rows.map(|row| row.text("mode")), ["tcp"; 3]);
    assert_eq!((frontend.status(), backend.status()), ("OPEN", "UP"));
    assert_eq!(backend.text("algo"), "roundrobin");
    assert_eq!(server.text("addr"), peer.address().to_string());
    assert_eq!((server.number("sid"), backend.number("sid")), (1, 0));
    assert_eq!(
        (frontend.number("conn_tot"), backend.number("connect")),
        (3, 3)
    );
    // Empty does not mean 0: a frontend has no queue, an unchecked server no check.
    assert_eq!((frontend.text("qcur"), frontend.text("econ")), ("", ""));
    assert_eq!(
        (server.text("chkfail"), server.text("check_status")),
        ("", "")
    );
    assert_eq!((server.number("qcur"), server.number("econ")), (0, 0));
    assert!(backend.number("lastsess") <= 10);
    rlb.stop();
}

#[test]
fn nonsense_and_silence_end_and_the_page_still_answers() {
    let peer = Peer::start(Behaviour::Echo);
    let rlb = Rlb::start(&Config::new().server(peer.address()));
    let stats = rlb.addresses("stats")[0];
    let mut nonsense = connect(stats);
    nonsense
        .write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        .expect("sent");
    let (answer, end) = read_to_end(&mut nonsense);
    assert_ne!(end, End::Silence);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
        "{answer:?}"
    );

    // Many clients that never finish their request: first some, then as many as there are slots (fault 24).
    let start = Instant::now();
    let mut slow = Vec::new();
    for (count, within) in [(50, 500), (200, 500)] {
        while slow.len() < count {
            let mut stream = connect(stats);
            let timeout = Some(Duration::from_secs(20));
            stream.set_read_timeout(timeout).expect("set");
            stream.write_all(b"GET / HT").expect("sent");
            slow.push(stream);
        }
        // When all slots are taken, the client that was silent the longest is disconnected.
        let asked = Instant::now();
        assert_eq!(rlb.http_get("/healthz").expect("answers").0, 200);
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(within), "{count}: {took:?}");
    }
    let mut session = connect(rlb.address());
    echo(&mut session, b"traffic does not notice");
    for stream in &mut slow {
        assert_ne!(read_to_end(stream).1, End::Silence);
    }
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    echo(&mut session, b"nor afterwards");
    rlb.stop_after(session);
}

/// Fault 42: answers are whole for clients that half-close behind their request, and for those of the
/// runtime socket; HAProxy's beside rlb's, for 100 proxies of 20 servers.
#[test]
fn fault_42_clients_that_half_close_get_whole_answers_as_from_haproxy() {
    let Some(haproxy) = needs::haproxy() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (stats, socket) = (ports::free(), dir.path().join("admin.sock"));
    let mut theirs = format!(
        "global\n stats socket {}\ndefaults\n mode tcp\n timeout client 1m\n timeout server 1m\n \
         timeout connect 5s\nfrontend stats\n mode http\n bind {stats}\n stats enable\n stats uri /\n",
        socket.display()
    );
    let mut ours = Config::new();
    for number in 0..100 {
        let bind = dir.path().join(format!("{number}.sock"));
        let (mut servers, mut lines) = (String::new(), String::new());
        for server in 0..20 {
            let _ = writeln!(lines, " server s{server} 127.0.0.1:9");
            let _ = write!(
                servers,
                "{{ name = \"s{server}\", address = \"127.0.0.1:9\", check = false }},"
            );
        }
        let _ = write!(
            theirs,
            "listen l{number}\n bind unix@{}\n{lines}",
            bind.display()
        );
        ours = ours.table(&format!(
            "[[listen]]\nname = \"l{number}\"\nbind = \"127.0.0.1:0\"\nservers = [{servers}]"
        ));
    }
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, theirs).expect("written");
    let mut command = Command::new(haproxy);
    command.arg("-db").arg("-f").arg(&file);
    let process = Process::start(command, None, false);
    eventually_true(STOP_WITHIN, "HAProxy listens", || {
        ports::is_listened_on(stats)
    });
    let fixture = Fixture::new(
        ours.server("127.0.0.1:9".parse().expect("an address")),
        "admin",
    );
    let sides = [
        ("HAProxy", stats, socket),
        ("rlb", fixture.rlb.addresses("stats")[0], fixture.socket()),
    ];
    for (name, stats, socket) in sides {
        for round in 0..20 {
            for head in [
                "HTTP/1.0\r\n",
                "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n",
            ] {
                let request = format!("GET /;csv {head}\r\n");
                let answer = half_closing(connect(stats), &request);
                let rows = answer.matches("\nl").count();
                assert_eq!(rows, 100 * 22, "{name}, round {round}, {head:?}");
                assert!(answer.contains("\nl99,BACKEND,"), "{name}, {head:?}");
            }
            let stream = UnixStream::connect(&socket).expect("the socket");
            let answer = half_closing(stream, "show stat\n");
            let rows = answer.matches("\nl").count();
            assert_eq!(rows, 100 * 22, "{name}, round {round}, runtime socket");
        }
    }
    drop(process);
    fixture.rlb.stop();
}

/// A stream of which the writing half can be ended.
trait HalfClose: Read + Write {
    fn half_close(&self);
}

impl HalfClose for TcpStream {
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("a half-close");
    }
}

impl HalfClose for UnixStream {
    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("a half-close");
    }
}

/// The answer to a request behind which the client's half ends.
fn half_closing(mut stream: impl HalfClose, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("sent");
    stream.half_close();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("answered and closed");
    answer
}
