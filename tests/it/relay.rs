//! The relay: bytes, half-closes and resets in both directions, and its memory.

use crate::harness::client::{
    End, TIMEOUT, connect, connect_with_receive_buffer, echo, end_of, half_close, read_some,
    read_to_end, reset,
};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually, eventually_eq, eventually_true, pace_until};
use crate::harness::peer::{self, Behaviour, Peer};
use crate::harness::rlb::Rlb;
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The byte at `position` of the stream `seed`: reordering, loss and duplication are detected.
fn byte_at(seed: u64, position: u64) -> u8 {
    let mut mixed = (position / 8)
        .wrapping_add(seed)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^= mixed >> 29;
    mixed = mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed.to_le_bytes()[usize::try_from(position % 8).expect("below 8")]
}

fn stretch(seed: u64, from: u64, length: usize) -> Vec<u8> {
    (from..)
        .take(length)
        .map(|position| byte_at(seed, position))
        .collect()
}

/// Writes `total` bytes of the stream `seed` in pieces of 1 byte to 64 KB, then sends FIN.
fn write_in_pieces(stream: &mut TcpStream, seed: u64, total: u64) {
    let mut sizes = fastrand::Rng::with_seed(seed);
    let mut sent = 0;
    while sent < total {
        let size = if sizes.bool() {
            sizes.u64(1..=64)
        } else {
            sizes.u64(1..=65536)
        };
        let size = size.min(total - sent);
        let piece = stretch(seed, sent, usize::try_from(size).expect("small"));
        stream.write_all(&piece).expect("sent");
        sent += size;
    }
    half_close(stream);
}

/// Reads the stream `seed` to its end and compares every byte; how many there were.
fn read_and_compare(stream: &mut TcpStream, seed: u64) -> (u64, End) {
    let mut position = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match read_some(stream, &mut buffer) {
            Ok(0) => return (position, End::Eof),
            Ok(length) => {
                let expected = stretch(seed, position, length);
                assert!(
                    buffer[..length] == expected,
                    "stream {seed} differs after {position}"
                );
                position += length as u64;
            }
            Err(error) => return (position, end_of(&error)),
        }
    }
}

/// A server that gives its connection to the test.
fn handed_over() -> (Peer, Receiver<TcpStream>) {
    let (sender, receiver): (SyncSender<TcpStream>, _) = sync_channel(16);
    let peer = Peer::start(Behaviour::script(move |stream| {
        stream
            .set_read_timeout(Some(TIMEOUT))
            .expect("a read timeout can be set");
        stream
            .set_write_timeout(Some(TIMEOUT))
            .expect("a write timeout can be set");
        drop(sender.send(stream));
    }));
    (peer, receiver)
}

/// A session through rlb; the test has both ends.
fn session(config: Config) -> (Rlb, Peer, TcpStream, TcpStream) {
    let (peer, streams) = handed_over();
    let rlb = Rlb::start(&config.server_with(peer.address(), "check = false"));
    let client = connect(rlb.address());
    let server = streams
        .recv_timeout(TIMEOUT)
        .expect("the server is reached");
    (rlb, peer, client, server)
}

#[test]
fn bytes_of_every_write_size_arrive_both_ways_at_once() {
    const TOTAL: u64 = 8 << 20;
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    let mut client_writer = client.try_clone().expect("a descriptor");
    let mut server_writer = server.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(|| write_in_pieces(&mut client_writer, 1, TOTAL));
        scope.spawn(|| write_in_pieces(&mut server_writer, 2, TOTAL));
        scope.spawn(|| assert_eq!(read_and_compare(&mut server, 1), (TOTAL, End::Eof)));
        assert_eq!(read_and_compare(&mut client, 2), (TOTAL, End::Eof));
    });
    eventually_eq(TIMEOUT, &(TOTAL, TOTAL), || {
        (rlb.number("s1", "bin"), rlb.number("s1", "bout"))
    });
    rlb.stop();
}

#[test]
fn bulk_arrives_unchanged_in_one_direction() {
    const TOTAL: u64 = 256 << 20;
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    let block: Vec<u8> = stretch(7, 0, 1 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..TOTAL >> 20 {
                server.write_all(&block).expect("sent");
            }
            half_close(&server);
        });
        let mut position = 0;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = client.read(&mut buffer).expect("read");
            if length == 0 {
                break;
            }
            for piece in buffer[..length].chunks(1 << 12) {
                let at = position % block.len();
                let until_end = piece.len().min(block.len() - at);
                assert!(
                    piece[..until_end] == block[at..at + until_end],
                    "at {position}"
                );
                assert!(
                    piece[until_end..] == block[..piece.len() - until_end],
                    "at {position}"
                );
                position += piece.len();
            }
        }
        assert_eq!(position as u64, TOTAL);
    });
    rlb.stop_after((client, server));
}

#[test]
fn bulk_is_spliced_and_the_statistics_tell() {
    const TOTAL: u64 = 64 << 20;
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    let process = |name: &str| {
        let (_, text) = rlb
            .http_get("/metrics")
            .expect("the stats listener answers");
        let name = format!("haproxy_process_{name} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name));
        value.map(|value| value.parse::<u64>().expect("a number"))
    };
    assert_eq!(process("pipes_used_total"), Some(0));
    assert!(process("max_pipes") >= Some(16));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let block = vec![7; 1 << 20];
            for _ in 0..TOTAL >> 20 {
                client.write_all(&block).expect("sent");
            }
            half_close(&client);
        });
        // The server does not read now, so the session keeps its pipe.
        eventually_eq(TIMEOUT, &Some(1), || process("pipes_used_total"));
        assert_eq!(read_to_end(&mut server).0.len() as u64, TOTAL);
    });
    drop((client, server));
    eventually_eq(TIMEOUT, &Some(0), || process("pipes_used_total"));
    assert_eq!(process("pipes_free_total"), Some(1));
    assert!(process("spliced_bytes_out_total") > Some(TOTAL / 2));
    assert!(
        process("bytes_out_total") > Some(TOTAL),
        "bytes to servers too"
    );
    rlb.stop();
}

#[test]
fn the_server_may_speak_first() {
    let peer = Peer::start(Behaviour::SpeaksFirst("220 ready\r\n"));
    let rlb = Rlb::start(&Config::new().server(peer.address()));
    let mut client = connect(rlb.address());
    let mut greeting = [0; 11];
    client
        .read_exact(&mut greeting)
        .expect("greeted before a word was said");
    assert_eq!(&greeting, b"220 ready\r\n");
    echo(&mut client, b"HELO");
    rlb.stop_after(client);
}

/// Less than the kernel delays an ACK to send it with data (40 ms).
const UNDELAYED_MAX: Duration = Duration::from_millis(30);

/// The quickest of several first exchanges. Each has a connection of its own, both ends of which leave Nagle's
/// algorithm on: the client writes `question` in these pieces, and the server then `answer`. When somebody
/// waits for a delayed ACK, none is quick.
///
/// rlb is stopped meanwhile, so that it finds the client's data together with the connection.
fn quickest_exchange(question: &[&[u8]], answer: &[&[u8]]) -> Duration {
    let (peer, streams) = handed_over();
    let config = Config::default().global("threads = 1");
    let rlb = Rlb::start(&config.server_with(peer.address(), "check = false"));
    let exchange = || {
        rlb.signal(Signal::SIGSTOP);
        eventually_true(TIMEOUT, "rlb is halted", || rlb.process.is_halted());
        let mut client = connect(rlb.address());
        client.set_nodelay(false).expect("Nagle's algorithm");
        write_pieces(&mut client, question);
        let begun = Instant::now();
        rlb.signal(Signal::SIGCONT);
        let mut server = streams.recv_timeout(TIMEOUT).expect("reached");
        server.set_nodelay(false).expect("Nagle's algorithm");
        read_pieces(&mut server, question);
        write_pieces(&mut server, answer);
        read_pieces(&mut client, answer);
        begun.elapsed()
    };
    let quickest = (0..10).map(|_| exchange()).min();
    rlb.stop();
    quickest.expect("there were some")
}

fn write_pieces(stream: &mut TcpStream, pieces: &[&[u8]]) {
    for piece in pieces {
        stream.write_all(piece).expect("sent");
    }
}

fn read_pieces(stream: &mut TcpStream, pieces: &[&[u8]]) {
    let all = pieces.concat();
    let mut received = vec![0; all.len()];
    stream.read_exact(&mut received).expect("received");
    assert_eq!(received, all);
}

#[test]
fn a_client_that_asks_in_two_pieces_does_not_wait_for_an_acknowledgement() {
    let took = quickest_exchange(&[b"ques", b"tion"], &[b"answer"]);
    assert!(took < UNDELAYED_MAX, "{took:?}");
}

#[test]
fn a_server_that_answers_in_two_pieces_does_not_wait_for_an_acknowledgement() {
    let took = quickest_exchange(&[b"question"], &[b"ans", b"wer"]);
    assert!(took < UNDELAYED_MAX, "{took:?}");
}

#[test]
fn a_server_that_speaks_first_does_not_wait_for_an_acknowledgement() {
    let took = quickest_exchange(&[], &[b"220 ", b"ready\r\n"]);
    assert!(took < UNDELAYED_MAX, "{took:?}");
}

#[test]
fn the_client_may_end_its_half_first() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    client.write_all(b"question").expect("sent");
    half_close(&client);
    assert_eq!(read_to_end(&mut server), (b"question".to_vec(), End::Eof));
    // The other direction stays open: the answer comes after FIN of the question.
    server.write_all(&stretch(3, 0, 1 << 20)).expect("sent");
    drop(server);
    assert_eq!(read_and_compare(&mut client, 3), (1 << 20, End::Eof));
    rlb.stop();
}

#[test]
fn the_server_may_end_its_half_first() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    server.write_all(b"farewell").expect("sent");
    half_close(&server);
    assert_eq!(read_to_end(&mut client), (b"farewell".to_vec(), End::Eof));
    client.write_all(&stretch(4, 0, 1 << 20)).expect("sent");
    drop(client);
    assert_eq!(read_and_compare(&mut server, 4), (1 << 20, End::Eof));
    rlb.stop();
}

/// One byte in each direction, so that the session is established: if a server resets earlier, the balancer
/// only tries again.
fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"?").expect("sent");
    server.read_exact(&mut [0]).expect("received");
    server.write_all(b"!").expect("sent");
    client.read_exact(&mut [0]).expect("received");
}

#[test]
fn a_reset_of_the_client_reaches_the_server_as_a_reset() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    exchange(&mut client, &mut server);
    reset(client);
    assert_eq!(read_to_end(&mut server).1, End::Reset);
    rlb.stop();
}

#[test]
fn a_reset_of_the_server_reaches_the_client_as_a_reset() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    exchange(&mut client, &mut server);
    reset(server);
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    rlb.stop();
}

#[test]
fn a_reset_after_a_half_close_is_still_a_reset() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    exchange(&mut client, &mut server);
    half_close(&client);
    reset(server);
    assert_eq!(read_to_end(&mut client).1, End::Reset);
    rlb.stop();
}

#[test]
fn a_reset_never_overtakes_bytes_that_were_already_read() {
    const TOTAL: u64 = 64 << 10;
    let (peer, streams) = handed_over();
    let rlb = Rlb::start(&Config::new().server_with(peer.address(), "check = false"));
    for round in 0..10 {
        // A small window: most of the bytes are in the balancer when the reset comes.
        let mut client = connect_with_receive_buffer(rlb.address(), 4096);
        let mut server = streams
            .recv_timeout(TIMEOUT)
            .expect("the server is reached");
        let before = rlb.number("s1", "bout");
        server
            .write_all(&stretch(round, 0, 64 << 10))
            .expect("sent");
        eventually_true(TIMEOUT, "rlb has read everything", || {
            rlb.number("s1", "bout") >= before + TOTAL && peer::unacknowledged(&server) == 0
        });
        reset(server);
        assert_eq!(
            read_and_compare(&mut client, round),
            (TOTAL, End::Reset),
            "round {round}"
        );
    }
    rlb.stop();
}

#[test]
fn a_reset_of_the_client_never_overtakes_its_own_bytes() {
    const TOTAL: u64 = 64 << 10;
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    client.write_all(&stretch(9, 0, 64 << 10)).expect("sent");
    eventually_true(TIMEOUT, "rlb has read everything", || {
        rlb.number("s1", "bin") >= TOTAL && peer::unacknowledged(&client) == 0
    });
    reset(client);
    assert_eq!(read_and_compare(&mut server, 9), (TOTAL, End::Reset));
    rlb.stop();
}

#[test]
fn urgent_data_does_not_kill_a_session() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    client.write_all(b"before ").expect("sent");
    socket2::SockRef::from(&client)
        .send_out_of_band(b"!")
        .expect("sent");
    client.write_all(b"after").expect("sent");
    // The urgent byte itself may be dropped or delivered in line; no other byte may be lost.
    let mut seen = Vec::new();
    let mut buffer = [0; 64];
    while !seen.ends_with(b"after") {
        let length = server.read(&mut buffer).expect("the session lives");
        assert!(length > 0, "the session ended after {seen:?}");
        seen.extend_from_slice(&buffer[..length]);
    }
    seen.retain(|&byte| byte != b'!');
    assert_eq!(String::from_utf8(seen).expect("text"), "before after");
    socket2::SockRef::from(&server)
        .send_out_of_band(b"!")
        .expect("sent");
    server.write_all(b"answer").expect("sent");
    half_close(&server);
    let (mut answer, end) = read_to_end(&mut client);
    answer.retain(|&byte| byte != b'!');
    assert_eq!((answer.as_slice(), end), (b"answer".as_slice(), End::Eof));
    rlb.stop_after((client, server));
}

#[test]
fn slow_readers_cost_little_memory() {
    const READERS: u64 = 200;
    const PER_SESSION_KB_MAX: u64 = 36;
    let peer = Peer::start(Behaviour::script(|mut stream| {
        let block = vec![b'x'; 64 << 10];
        // 100 MB for each, as long as the client takes them.
        for _ in 0..1600 {
            if stream.write_all(&block).is_err() {
                return;
            }
        }
    }));
    let rlb = Rlb::start(&Config::new().server_with(peer.address(), "check = false"));
    let mut first = connect(rlb.address());
    first
        .read_exact(&mut [0; 4096])
        .expect("the relay has worked once");
    let before = rlb.process.memory_kb("RssAnon");
    let mut clients: Vec<TcpStream> = (0..READERS)
        .map(|_| connect_with_receive_buffer(rlb.address(), 64 << 10))
        .collect();
    let mut highest = 0;
    let mut buffer = vec![0; 32 << 10];
    for _ in 0..20 {
        for client in &mut clients {
            client.read_exact(&mut buffer).expect("bytes come");
        }
        highest = highest.max(rlb.process.memory_kb("RssAnon"));
    }
    // Then all of them stop reading, until no byte moves any more.
    let mut moved = rlb.number("s1", "bout");
    let mut quiet_since = Instant::now();
    eventually_true(Duration::from_secs(30), "the servers are held back", || {
        let now = rlb.number("s1", "bout");
        if now != moved {
            moved = now;
            quiet_since = Instant::now();
        }
        quiet_since.elapsed() > Duration::from_millis(500)
    });
    highest = highest.max(rlb.process.memory_kb("RssAnon"));
    let per_session = highest.saturating_sub(before) / READERS;
    eprintln!("slow readers: {per_session} KB resident a session");
    assert!(
        per_session <= PER_SESSION_KB_MAX,
        "{per_session} KB a session"
    );
    drop((clients, first));
    rlb.stop();
}

#[test]
fn a_peer_that_reads_nothing_for_120_s_survives() {
    const TOTAL: u64 = 16 << 20;
    let length = Duration::from_secs(120);
    let config = Config::new()
        .timeout("client = \"1h\"")
        .timeout("server = \"1h\"");
    let (rlb, _peer, mut client, mut server) = session(config);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Longer than the silence, but bounded: a failed test must end, too.
            let timeout = Some(length + TIMEOUT);
            server
                .set_write_timeout(timeout)
                .expect("a write timeout can be set");
            server
                .write_all(&stretch(5, 0, 16 << 20))
                .expect("the session lives");
            half_close(&server);
        });
        pace_until(Instant::now() + length);
        assert_eq!(rlb.number("FRONTEND", "scur"), 1, "the session lives");
        assert_eq!(read_and_compare(&mut client, 5), (TOTAL, End::Eof));
    });
    rlb.stop_after((client, server));
}

#[test]
fn bytes_are_counted_while_a_session_lasts() {
    let (rlb, _peer, mut client, mut server) = session(Config::new());
    client.write_all(b"12345").expect("sent");
    server.read_exact(&mut [0; 5]).expect("received");
    server.write_all(b"123").expect("sent");
    client.read_exact(&mut [0; 3]).expect("received");
    let counted = eventually(TIMEOUT, "bytes of a session that lasts", || {
        let csv = rlb.csv();
        let rows = [
            csv.row("fe", "FRONTEND"),
            csv.row("be", "s1"),
            csv.row("be", "BACKEND"),
        ];
        rows.iter()
            .all(|row| (row.number("bin"), row.number("bout")) == (5, 3))
            .then(|| rows.map(|row| row.number("scur")))
    });
    assert_eq!(counted, [1, 1, 1]);
    rlb.stop_after((client, server));
}
