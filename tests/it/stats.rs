//! The statistics listener: HAProxy's columns and rows, and hostile clients.

use crate::harness::client::{End, connect, echo, hear, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::eventually_eq;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::rlb::{Rlb, STOP_WITHIN};
use std::io::Write;
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
