//! At an upgrade the sessions go to the new process: no byte is lost or doubled, the old process ends, and each
//! session is counted and logged once. What cannot go over goes on in the old process.

use crate::harness::client::{TIMEOUT, connect, echo, half_close, read_some, read_to_end};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, pace_until};
use crate::harness::peer::{Behaviour, Peer, Refuses};
use crate::harness::ports;
use crate::harness::program_file;
use crate::harness::rlb::{PROGRAM, Rlb, STOP_WITHIN, Start};
use crate::harness::runtime::{Fixture, ask};
use crate::harness::stalls::Stalls;
use crate::upgrade::{Next, on, upgrade};
use nix::sys::signal::Signal;
use rlb::sys::channel::Channel;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The old process is to be gone within this time.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Byte number `n` of a stream.
fn byte(n: u64) -> u8 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()[4]
}

fn bytes(from: u64, count: usize) -> Vec<u8> {
    (from..).take(count).map(byte).collect()
}

/// Reads what is a stream from its beginning, to its end or up to `most` bytes; how many.
#[track_caller]
fn read_checked(stream: &mut TcpStream, most: u64) -> u64 {
    let mut buffer = vec![0; 64 * 1024];
    let mut read = 0;
    while read < most {
        let count = read_some(stream, &mut buffer).expect("a byte or the end");
        if count == 0 {
            break;
        }
        let wanted = bytes(read, count);
        assert!(buffer[..count] == wanted, "wrong bytes from {read} on");
        read += count as u64;
    }
    read
}

/// Bytes that a server sends to a client that does not read for a while: more than all buffers hold.
const STALLED: u64 = 8_000_000;

/// A server whose connections do what their first byte says.
///
/// With it the sum of what the quiet ones have read.
fn servers() -> (Peer, Arc<AtomicU64>) {
    let sum = Arc::new(AtomicU64::new(0));
    let heard = Arc::clone(&sum);
    let peer = Peer::start(Behaviour::script(move |mut stream| {
        let mut kind = [0];
        if stream.read_exact(&mut kind).is_err() {
            return;
        }
        match kind[0] {
            // Sends everything back, to the end.
            b'e' => {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count) = read_some(&mut stream, &mut buffer) {
                    if count == 0 || stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            }
            // Sends much, whether somebody reads or not.
            b'd' => {
                let mut sent = 0;
                while sent < STALLED && stream.write_all(&bytes(sent, 50_000)).is_ok() {
                    sent += 50_000;
                }
            }
            // Has nothing to say, and reads to the end.
            b's' => {
                half_close(&stream);
                heard.fetch_add(read_checked(&mut stream, u64::MAX), SeqCst);
            }
            _ => {}
        }
    }));
    (peer, sum)
}

/// A client that reads and writes on threads of its own until it is told to end.
struct Bulk {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<u64>; 2],
}

impl Bulk {
    /// In `both` directions at once, `chunk` bytes every so often; the server sends everything back.
    fn start(stream: TcpStream, chunk: usize, every: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut writer, mut reader) = (stream.try_clone().expect("a descriptor"), stream);
        let stopped = Arc::clone(&stop);
        let writing = std::thread::spawn(move || {
            writer.write_all(b"e").expect("sent");
            let (start, mut sent) = (Instant::now(), 0);
            for number in 1.. {
                if stopped.load(SeqCst) {
                    break;
                }
                writer.write_all(&bytes(sent, chunk)).expect("sent");
                sent += chunk as u64;
                pace_until(start + every * number);
            }
            half_close(&writer);
            sent
        });
        let reading = std::thread::spawn(move || read_checked(&mut reader, u64::MAX));
        Self {
            stop,
            threads: [writing, reading],
        }
    }

    /// Ends it: how many bytes went in each direction.
    #[track_caller]
    fn end(self) -> u64 {
        self.stop.store(true, SeqCst);
        let [sent, read] = self.threads.map(|it| it.join().expect("the right bytes"));
        assert_eq!(sent, read, "all comes back");
        read
    }
}

/// What the log has to say of a session: the client's port, and the bytes that went to the client.
type Logged = (u16, u64);

fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().expect("connected").port()
}

/// The session lines of a log.
fn logged(rlb: &Rlb) -> Vec<Logged> {
    let parse = |line: &String| {
        let port = line.split_once(" [")?.0.rsplit_once(':')?.1.parse().ok()?;
        let bytes = line.split(' ').nth(5)?.parse().ok()?;
        Some((port, bytes))
    };
    let mut sessions: Vec<Logged> = rlb.process.stdout.all().iter().filter_map(parse).collect();
    sessions.sort_unstable();
    sessions
}

fn sessions(socket: &Path) -> usize {
    let text = ask(socket, "show sess");
    text.lines().filter(|line| line.contains(" fe=fe ")).count()
}

/// The sum of a column over the two servers.
fn sum(rlb: &Rlb, column: &str) -> u64 {
    rlb.number("s1", column) + rlb.number("s2", column)
}

/// Sessions of every kind.
struct Sessions {
    idle: Vec<TcpStream>,
    /// The client has ended, or does not read.
    receiving: Vec<TcpStream>,
    /// The server has ended.
    sending: Vec<TcpStream>,
    bulk: Vec<(u16, Bulk)>,
}

impl Sessions {
    fn start(address: SocketAddr) -> Self {
        let open = |kind: &[u8]| {
            let mut stream = connect(address);
            stream.write_all(kind).expect("sent");
            stream
        };
        let mut idle: Vec<TcpStream> = (0..100).map(|_| open(b"e")).collect();
        for stream in &mut idle {
            echo(stream, b"12345");
        }
        let receiving: Vec<TcpStream> = (0..40).map(|_| open(b"d")).collect();
        receiving[..20].iter().for_each(half_close);
        let mut sending: Vec<TcpStream> = (0..20).map(|_| open(b"s")).collect();
        for stream in &mut sending {
            assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
            stream.write_all(&bytes(0, 1000)).expect("sent");
        }
        let bulk = |_| {
            let stream = connect(address);
            let every = Duration::from_millis(40);
            (port(&stream), Bulk::start(stream, 100_000, every))
        };
        Self {
            idle,
            receiving,
            sending,
            bulk: (0..20).map(bulk).collect(),
        }
    }

    fn count(&self) -> usize {
        self.idle.len() + self.receiving.len() + self.sending.len() + self.bulk.len()
    }

    /// Those that had nothing to do are used, after `upgrades` upgrades.
    fn talk(&mut self, upgrades: u64) {
        for stream in &mut self.idle {
            echo(stream, b"1234567");
        }
        for stream in &mut self.sending {
            let more = bytes(1000 * upgrades, 1000);
            stream.write_all(&more).expect("sent");
        }
    }

    /// Ends all: what is to be logged of them.
    fn end(self) -> Vec<Logged> {
        let bulk = self.bulk.into_iter();
        let mut wanted: Vec<Logged> = bulk.map(|(port, bulk)| (port, bulk.end())).collect();
        for mut stream in self.receiving {
            assert_eq!(read_checked(&mut stream, u64::MAX), STALLED);
            wanted.push((port(&stream), STALLED));
        }
        wanted.extend(self.idle.iter().map(|stream| (port(stream), 5 + 2 * 7)));
        wanted.extend(self.sending.iter().map(|stream| (port(stream), 0)));
        wanted.sort_unstable();
        wanted
    }
}

/// Each session is in the counters once, with its bytes.
fn counted_once(rlb: &Rlb, count: u64, to_clients: u64) {
    eventually_eq(TIMEOUT, &to_clients, || sum(rlb, "bout"));
    assert_eq!(["stot", "lbtot"].map(|it| sum(rlb, it)), [count; 2]);
    assert_eq!(rlb.number("FRONTEND", "conn_tot"), count);
    assert_eq!(rlb.number("BACKEND", "bout"), to_clients);
    for row in ["FRONTEND", "BACKEND", "s1", "s2"] {
        assert_eq!(rlb.number(row, "scur"), 0, "{row}");
    }
}

/// Each line has the whole time of its session, which was more than a tenth of a second.
fn times_are_whole(rlb: &Rlb, began: Instant) {
    let most = u64::try_from(began.elapsed().as_millis()).expect("short");
    let lines = rlb.process.stdout.all();
    for line in lines.iter().filter(|line| line.contains(" be/s")) {
        let times = line.split(' ').nth(4).expect("times");
        let total = times.split('/').nth(2).and_then(|it| it.parse().ok());
        let total: u64 = total.expect("a time");
        assert!(total > 100 && total <= most, "{line}");
    }
}

#[test]
fn sessions_of_every_kind_move_twice_and_no_byte_is_lost() {
    let ((one, heard), (other, heard_too)) = (servers(), servers());
    let address = ports::free();
    let peers = [one, other];
    let config = on(address, &peers).stats_at(ports::free());
    let fixture = Fixture::new(config.log("stdout", "raw"), "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let began = Instant::now();
    let mut all = Sessions::start(address);
    let count = all.count();
    eventually_eq(TIMEOUT, &count, || sessions(&socket));

    let mut processes = Vec::new();
    for number in 1..=2 {
        assert!(upgrade(&socket).status.success());
        let (done, stalls) = (Instant::now(), Stalls::begin());
        processes.push(Next::logged(&rlb, number));
        if number == 1 {
            assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
        } else {
            eventually_true(STOP_WITHIN, "the second ends", || !processes[0].lives());
        }
        let gone = done.elapsed();
        let stalled = stalls.so_far();
        assert!(gone < GONE_WITHIN + stalled, "{gone:?}, {stalled:?}");
        assert_eq!(sessions(&socket), count);
        assert_eq!(rlb.number("FRONTEND", "scur"), count as u64);
        all.talk(number as u64);
    }
    assert_eq!(logged(&rlb), [], "no session has ended so far");

    let wanted = all.end();
    eventually_eq(TIMEOUT, &wanted, || logged(&rlb));
    let to_clients = wanted.iter().map(|(_, bytes)| bytes).sum();
    counted_once(&rlb, count as u64, to_clients);
    assert_eq!(heard.load(SeqCst) + heard_too.load(SeqCst), 20 * 3000);
    times_are_whole(&rlb, began);
    processes.pop().expect("two").stop();
}

/// The upgrade has another frontend: its session cannot go over, and goes on in the old process. The next process has
/// it again.
#[test]
fn what_the_new_process_does_not_have_stays_and_is_offered_to_the_next() {
    let peers = [Peer::start(Behaviour::Echo)];
    let (address, other) = (ports::free(), ports::free());
    let listen = format!(
        "[[listen]]\nname = \"other\"\nbind = \"{other}\"\n\
         servers = [{{ name = \"s\", address = \"{}\" }}]",
        peers[0].address()
    );
    let fixture = Fixture::new(on(address, &peers).stats_at(ports::free()), "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let both = fixture.config.clone().table(&listen);
    rlb.reload(&both);
    let mut moves: Vec<TcpStream> = (0..40).map(|_| connect(address)).collect();
    let mut stays: Vec<TcpStream> = (0..40).map(|_| connect(other)).collect();
    let talk = |streams: &mut Vec<TcpStream>| {
        for stream in streams {
            echo(stream, b"hello");
        }
    };
    talk(&mut moves);
    talk(&mut stays);

    rlb.rewrite(&fixture.config);
    assert!(upgrade(&socket).status.success());
    let second = Next::logged(&rlb, 1);
    eventually_eq(TIMEOUT, &40, || sessions(&socket));
    eventually_eq(TIMEOUT, &40, || rlb.metric("rlb_old_process_sessions"));
    talk(&mut moves);
    talk(&mut stays);
    assert!(rlb.process.ended().is_none(), "it has the others");
    let own = rlb.process.id();
    let left = ask(&socket, &format!("@!{own} show sess"));
    assert_eq!(left.matches(" fe=other ").count(), 40, "{left}");
    // What waits there to be stored would keep the other's socket open.
    rlb.notified("");
    // The first process finishes handshakes there for a moment.
    eventually_true(STOP_WITHIN, "nobody listens", || {
        !ports::is_listened_on(other)
    });

    rlb.rewrite(&both);
    assert!(upgrade(&socket).status.success());
    let third = Next::logged(&rlb, 2);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    eventually_true(STOP_WITHIN, "the end of the second", || !second.lives());
    talk(&mut moves);
    talk(&mut stays);
    let all = ask(&socket, "show sess");
    assert_eq!(all.matches(" fe=other ").count(), 40, "{all}");
    assert_eq!(all.matches(" fe=fe ").count(), 40, "{all}");
    eventually_eq(TIMEOUT, &(40 * 3 * 5), || rlb.number("BACKEND", "bin"));
    drop((moves, stays));
    third.stop();
}

/// A session that no server has answered goes over once one has.
#[test]
fn a_session_that_connects_moves_later() {
    let refuses = Refuses::start();
    let address = ports::free();
    let config = Config::new()
        .bind(address)
        .server_with(refuses.address(), "check = false");
    let fixture = Fixture::new(config.timeout("connect = \"30s\""), "admin");
    let socket = fixture.socket();
    let mut rlb = fixture.rlb;
    let mut stream = connect(address);
    eventually_eq(TIMEOUT, &1, || sessions(&socket));
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&rlb, 1);
    assert!(rlb.process.ended().is_none());
    let _peer = Peer::start_on(refuses, Behaviour::Echo);
    echo(&mut stream, b"answered");
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    echo(&mut stream, b"and moved");
    drop(stream);
    next.stop();
}

/// The silence of a session goes on in the new process, and an order ends it there.
#[test]
fn timeouts_and_orders_hold_for_sessions_that_have_moved() {
    let peers = [Peer::start(Behaviour::Echo)];
    let address = ports::free();
    let config = on(address, &peers).timeout("client = \"6s\"");
    let fixture = Fixture::new(config, "admin");
    let socket = fixture.socket();
    let mut streams = [connect(address), connect(address)];
    let began = Instant::now();
    for stream in &mut streams {
        echo(stream, b"hello");
    }
    assert!(upgrade(&socket).status.success());
    let next = Next::logged(&fixture.rlb, 1);
    eventually_eq(TIMEOUT, &2, || sessions(&socket));
    let table = ask(&socket, "show sess");
    let port = format!(":{} ", port(&streams[0]));
    let line = table.lines().find(|line| line.contains(&port));
    let id = line.and_then(|line| line.split(':').next()).expect(&table);
    assert_eq!(ask(&socket, &format!("shutdown session {id}")), "\n");
    let [first, second] = &mut streams;
    read_to_end(first);
    let least = Duration::from_millis(5900);
    assert!(began.elapsed() < least);
    read_to_end(second);
    let took = began.elapsed();
    // An upgrade takes a second and more here.
    assert!(took > least && took < Duration::from_secs(7), "{took:?}");
    next.stop();
}

/// Sessions of a process that is upgraded to [`impostor`].
const SESSIONS: usize = 60;

/// What [`impostor`] does with the first sessions that it is given.
const IMPOSTOR: &str = "RLB_IMPOSTOR";

/// A new process that does not take the sessions that it is given. It is started in place of the program.
#[test]
#[ignore = "the program of the tests below"]
fn impostor() {
    let Ok(does) = std::env::var(IMPOSTOR) else {
        return;
    };
    let channel = Channel::from_stdin().expect("the channel");
    let next = |channel: &Channel| channel.receive().expect("a message").expect("a message");
    let until = |wanted: &str| loop {
        let message = next(&channel);
        if message.text.lines().next() == Some(wanted) {
            return message;
        }
    };
    let send = |text: &str| channel.send(text, &[]).expect("sent");
    send(&format!("pid {}", std::process::id()));
    until("servers");
    send("ready");
    until("go");
    send("version\nnumber=2");
    let mut moving = until("moving");
    let moving = Channel::from_fd(moving.fds.pop().expect("a channel")).expect("a channel");
    let first = next(&moving);
    assert!(first.text.starts_with("move\nsessions="), "{}", first.text);
    assert!(first.fds.len() > 2);
    match &*does {
        // It returns, which closes the channels.
        "dies" => {}
        "hangs" => assert_eq!(next(&moving).text, "back"),
        // All but the first, or all once it can take some.
        "refuses" | "refuses later" => {
            let (mut message, mut offered) = (first, 0);
            let mut taken = usize::from(does == "refuses");
            if taken == 0 {
                moving.send("later\nreason=full", &[]).expect("sent");
                message = next(&moving);
            }
            loop {
                let count = (message.fds.len() - 1) / 2;
                let refused = (std::mem::take(&mut taken)..count).map(|it| it.to_string());
                let refused: Vec<String> = refused.collect();
                offered += count;
                assert!(offered <= SESSIONS, "offered again");
                let taken = format!("taken\nrefused={}", refused.join(","));
                moving.send(&taken, &[]).expect("sent");
                let Ok(Some(next)) = moving.receive() else {
                    return;
                };
                message = next;
            }
        }
        other => panic!("{other}"),
    }
}

/// Starts rlb with sessions that talk, and upgrades it to [`impostor`].
fn upgraded_to_an_impostor(does: &str) -> (Rlb, Vec<TcpStream>, Peer) {
    let peer = Peer::start(Behaviour::Echo);
    let address = ports::free();
    let config = Config::default()
        .global("threads = 1")
        .bind(address)
        .server_with(peer.address(), "check = false")
        .log("stdout", "raw");
    let dir = tempfile::tempdir().expect("a directory");
    let (path, script) = (dir.path().join("rlb"), dir.path().join("impostor"));
    symlink(PROGRAM, &path).expect("a link");
    let rlb = Start::new(&config).program(path.clone()).ready();
    let mut streams: Vec<TcpStream> = (0..SESSIONS).map(|_| connect(address)).collect();
    for stream in &mut streams {
        echo(stream, b"before");
    }
    let own = std::env::current_exe().expect("this program");
    let text = format!(
        "#!/bin/bash\nexec 3<&0\n{IMPOSTOR}='{does}' {} --exact upgrade_moves::impostor --ignored <&3 >/dev/null &\n",
        own.display()
    );
    program_file::script(&script, &text);
    std::fs::remove_file(&path).expect("a link");
    symlink(&script, &path).expect("a link");
    rlb.signal(Signal::SIGUSR2);
    rlb.events().wait_for("upgraded: process ");
    (rlb, streams, peer)
}

/// Sessions that were not taken go on in the old process, are offered again when the new one can take some later, and are logged by it once.
#[test]
fn a_new_process_that_ends_or_hangs_or_refuses_leaves_sessions_where_they_were() {
    for (does, event, lost) in [
        ("dies", "the new process takes no more sessions", 0),
        ("hangs", "the new process does not take sessions in time", 0),
        ("refuses", "\"refused\":59", 1),
        ("refuses later", "\"refused\":60", 0),
    ] {
        let (mut rlb, mut streams, _peer) = upgraded_to_an_impostor(does);
        rlb.events().wait_for(event);
        let mut served = 0;
        for stream in &mut streams {
            stream.write_all(b"after").expect("sent");
            let mut answer = [0; 5];
            served += usize::from(stream.read_exact(&mut answer).is_ok());
        }
        // One that was taken is the new process's.
        assert_eq!(served + lost, SESSIONS, "{does}");
        let mut wanted: Vec<Logged> = streams.iter().map(|it| (port(it), 11)).collect();
        drop(streams);
        let _ = rlb.process.wait(STOP_WITHIN);
        // Its last lines may not have been read yet.
        eventually_true(TIMEOUT, "the lines of the sessions", || {
            logged(&rlb).len() + lost >= SESSIONS
        });
        let logged = logged(&rlb);
        wanted.sort_unstable();
        wanted.retain(|it| lost == 0 || logged.contains(it));
        assert_eq!(logged, wanted, "{does}");
        assert_eq!(logged.len() + lost, SESSIONS);
    }
}
