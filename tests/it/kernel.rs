//! The kernel facts that rlb relies on, tested on the kernel alone. When one of these fails on a new kernel,
//! the module that it names is wrong there, whatever other tests show.

use crate::harness::client::{TIMEOUT, half_close, reset};
use crate::harness::eventually::eventually_true;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// The relay's interest in a client, and in a server (with `OUT`).
const IN: EventFlags = EventFlags::IN
    .union(EventFlags::PRI)
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);

/// No event for this long means that there is none: on one machine an event comes at once.
const QUIET: Duration = Duration::from_millis(30);

/// Both ends of a connection; the first does not block.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let far = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (near, _) = listener.accept().expect("accepted");
    near.set_nonblocking(true).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    (near, far)
}

/// An epoll instance that watches one socket.
struct Watch(OwnedFd);

impl Watch {
    fn new(socket: impl AsFd, interest: EventFlags) -> Self {
        let instance = epoll::create(CreateFlags::CLOEXEC).expect("a descriptor");
        epoll::add(&instance, socket, EventData::new_u64(0), interest).expect("added");
        Self(instance)
    }

    /// The flags of the next event; empty when none comes within `timeout`.
    fn next(&self, timeout: Duration) -> EventFlags {
        let mut events: Vec<Event> = Vec::with_capacity(4);
        let limit = rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).expect("short"),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let spare = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&self.0, spare, Some(&limit)).expect("it can be waited");
        events
            .first()
            .map_or(EventFlags::empty(), |event| event.flags)
    }

    fn expect(&self, flag: EventFlags) {
        let begun = Instant::now();
        while begun.elapsed() < TIMEOUT {
            if self.next(TIMEOUT).contains(flag) {
                return;
            }
        }
        panic!("no event with {flag:?}");
    }
}

fn recv(socket: &TcpStream, most: usize) -> Result<usize, Errno> {
    let mut buffer = vec![0; most];
    rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()).map(|(count, _)| count)
}

/// Fills the send queue of `socket` until no more is taken. Returns the bytes that were taken.
fn fill(socket: &TcpStream) -> usize {
    let block = vec![1; 1 << 16];
    let mut taken = 0;
    while let Ok(count) = rustix::net::send(socket, &block, SendFlags::NOSIGNAL) {
        taken += count;
    }
    taken
}

/// Waits until this many bytes can be read.
fn await_queued(socket: &TcpStream, count: usize) {
    eventually_true(TIMEOUT, "the bytes have come", || {
        let mut buffer = vec![0; count + 1];
        rustix::net::recv(socket, &mut buffer[..], RecvFlags::PEEK)
            .is_ok_and(|(queued, _)| queued >= count)
    });
}

#[test]
fn a_short_read_has_emptied_the_queue_and_what_comes_next_makes_an_event() {
    // worker/relay/direction.rs
    let (near, mut far) = connection();
    let watch = Watch::new(&near, IN);
    far.write_all(b"first").expect("sent");
    watch.expect(EventFlags::IN);
    assert_eq!(recv(&near, 100), Ok(5), "shorter than asked for");
    assert_eq!(watch.next(QUIET), EventFlags::empty());
    far.write_all(b"next").expect("sent");
    watch.expect(EventFlags::IN);
    assert_eq!(recv(&near, 100), Ok(4));
}

#[test]
fn an_end_behind_the_last_data_makes_no_event_of_its_own_but_was_told() {
    // worker/relay/direction.rs: read on after a short read once RDHUP was seen.
    let (near, mut far) = connection();
    far.write_all(b"last").expect("sent");
    half_close(&far);
    await_queued(&near, 4);
    let watch = Watch::new(&near, IN);
    watch.expect(EventFlags::RDHUP);
    assert_eq!(recv(&near, 100), Ok(4));
    assert_eq!(
        watch.next(QUIET),
        EventFlags::empty(),
        "no event for the end"
    );
    assert_eq!(recv(&near, 100), Ok(0), "and it is there");
}

#[test]
fn a_read_stops_at_urgent_data_which_was_told() {
    // worker/relay/direction.rs: a short read proves nothing once PRI was seen.
    let (near, far) = connection();
    let watch = Watch::new(&near, IN);
    let far = SockRef::from(&far);
    far.send(b"before").expect("sent");
    far.send_out_of_band(b"!").expect("sent");
    far.send(b"behind").expect("sent");
    watch.expect(EventFlags::PRI);
    sockopt::set_socket_oobinline(&near, true).expect("a TCP socket");
    await_queued(&near, 6);
    assert_eq!(recv(&near, 100), Ok(6), "up to the mark");
    await_queued(&near, 7);
    assert_eq!(recv(&near, 100), Ok(7), "the urgent byte in its place");
}

#[test]
fn data_that_came_before_a_reset_is_read_and_the_error_comes_last() {
    // worker/relay/direction.rs, lifecycle.rs
    let (near, mut far) = connection();
    far.write_all(b"said").expect("sent");
    await_queued(&near, 4);
    let watch = Watch::new(&near, IN);
    reset(far);
    watch.expect(EventFlags::ERR);
    assert_eq!(recv(&near, 100), Ok(4));
    assert_eq!(recv(&near, 100), Err(Errno::CONNRESET));
}

#[test]
fn a_connecting_socket_is_silent_until_its_answer() {
    // worker/relay/connecting.rs. A full accept queue gives no answer.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    listener.bind(&any.into()).expect("a port");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("bound");
    let connecting = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        // In progress.
        let _ = socket.connect(&address);
        socket
    };
    let interest = IN | EventFlags::OUT;
    let queue = [connecting(), connecting(), connecting()];
    let watches = queue.each_ref().map(|socket| Watch::new(socket, interest));
    let answered = watches.iter().filter(|watch| {
        let flags = watch.next(Duration::from_millis(200));
        assert!(flags.is_empty() || flags == EventFlags::OUT, "{flags:?}");
        !flags.is_empty()
    });
    // The queue holds one more than its length.
    assert_eq!(answered.count(), 1, "the others have no event");
    drop(listener);
    let refused = connecting();
    Watch::new(&refused, interest).expect(EventFlags::ERR);
    assert!(sockopt::socket_error(&refused).expect("a socket").is_err());
}

#[test]
fn write_interest_tells_once_and_then_only_after_a_short_write() {
    // worker/relay/engine.rs: a server's socket has it from the beginning.
    let (near, mut far) = connection();
    let watch = Watch::new(&near, IN | EventFlags::OUT);
    watch.expect(EventFlags::OUT);
    rustix::net::send(&near, b"taken whole", SendFlags::NOSIGNAL).expect("sent");
    let mut heard = [0; 11];
    far.read_exact(&mut heard).expect("arrived");
    assert_eq!(
        watch.next(QUIET),
        EventFlags::empty(),
        "no edge for a whole write"
    );
    fill(&near);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut all = vec![0; 1 << 20];
            far.set_read_timeout(Some(Duration::from_secs(1)))
                .expect("a socket");
            while far.read(&mut all).is_ok_and(|count| count > 0) {}
        });
        watch.expect(EventFlags::OUT);
        half_close(&near);
    });
}

#[test]
fn a_change_of_interest_tells_what_is_true_already() {
    // worker/relay/engine.rs: between a short write and the change nothing is lost.
    let (near, _far) = connection();
    let watch = Watch::new(&near, IN);
    assert_eq!(watch.next(QUIET), EventFlags::empty());
    epoll::modify(&watch.0, &near, EventData::new_u64(0), IN | EventFlags::OUT).expect("changed");
    watch.expect(EventFlags::OUT);
}

#[test]
fn a_closed_descriptor_has_left_its_epoll_instance() {
    // worker/relay/engine.rs: no deregistration before a close.
    let (near, mut far) = connection();
    let watch = Watch::new(&near, IN);
    drop(near);
    // Ends with a reset, which is not reported either.
    let _ = far.write_all(b"late");
    assert_eq!(watch.next(QUIET), EventFlags::empty());
}

#[test]
fn an_empty_pipe_that_takes_nothing_means_that_the_source_has_nothing() {
    // worker/relay/splice.rs
    let (near, mut far) = connection();
    let (out, into) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
    let flags = SpliceFlags::NONBLOCK;
    let splice = |most| rustix::pipe::splice(&near, None, &into, None, most, flags);
    assert_eq!(splice(1 << 16), Err(Errno::AGAIN));
    far.write_all(b"some").expect("sent");
    await_queued(&near, 4);
    assert_eq!(splice(1 << 16), Ok(4));
    let mut taken = [0; 8];
    assert_eq!(rustix::io::read(&out, &mut taken), Ok(4));
    half_close(&far);
    eventually_true(TIMEOUT, "the end is seen", || splice(1 << 16) == Ok(0));
}

#[test]
fn a_pipe_may_be_full_of_less_than_its_size() {
    // worker/relay/splice.rs: a short splice proves nothing about the source. On a busy machine the sender
    // merges small writes, and all of them fit: then it is tried again.
    eventually_true(TIMEOUT, "a pipe full of small fragments", || {
        let (near, mut far) = connection();
        let (_out, into) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        let size = fcntl_setpipe_size(&into, 16 * 4096).expect("set");
        for _ in 0..200 {
            // Each a segment, and so a fragment.
            far.write_all(&[7; 100]).expect("sent");
            std::thread::yield_now();
        }
        await_queued(&near, 20_000);
        let mut moved = 0;
        while let Ok(count) =
            rustix::pipe::splice(&near, None, &into, None, size, SpliceFlags::NONBLOCK)
        {
            moved += count;
        }
        assert!(moved < size, "{moved} of {size} fit");
        // The source had more.
        recv(&near, 100).is_ok()
    });
}

#[test]
fn a_splice_stops_at_urgent_data_for_ever() {
    // worker/relay/splice.rs: such a direction is copied.
    let (near, far) = connection();
    let (_out, into) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
    let far = SockRef::from(&far);
    sockopt::set_socket_oobinline(&near, true).expect("a TCP socket");
    far.send_out_of_band(b"!").expect("sent");
    far.send(b"behind").expect("sent");
    await_queued(&near, 1);
    let most = fcntl_getpipe_size(&into).expect("a pipe");
    for _ in 0..3 {
        let moved = rustix::pipe::splice(&near, None, &into, None, most, SpliceFlags::NONBLOCK);
        assert!(moved.is_err() || moved == Ok(0), "{moved:?}");
    }
    assert!(recv(&near, 100).is_ok(), "a read goes on");
}

#[test]
fn a_splice_of_nothing_is_no_end_where_urgent_data_waits() {
    // worker/relay/direction.rs: a read tells which. Fault 41.
    let (near, far) = connection();
    let (_out, into) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
    sockopt::set_socket_oobinline(&near, true).expect("a TCP socket");
    let sender = SockRef::from(&far);
    sender.send_out_of_band(b"!").expect("sent");
    sender.send(b"behind").expect("sent");
    half_close(&far);
    await_queued(&near, 1);
    eventually_true(TIMEOUT, "the end has come too", || {
        let flags = SpliceFlags::NONBLOCK;
        rustix::pipe::splice(&near, None, &into, None, 100, flags) == Ok(0)
    });
    assert_eq!(recv(&near, 100), Ok(7), "and this is no end");
}

#[test]
fn a_read_from_a_unix_socket_ends_at_a_message_with_a_descriptor() {
    // worker/relay/direction.rs: a short read proves nothing there. Fault 20.
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, sendmsg};
    let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
    near.set_nonblocking(true).expect("a socket");
    let read = || {
        let mut buffer = [0; 100];
        rustix::net::recv(&near, &mut buffer[..], RecvFlags::empty()).map(|(count, _)| count)
    };
    let passed = [far.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
    let message = [std::io::IoSlice::new(b"with")];
    sendmsg(&far, &message, &mut control, SendFlags::empty()).expect("sent");
    rustix::net::send(&far, b"behind", SendFlags::empty()).expect("sent");
    assert_eq!(read(), Ok(4), "shorter than asked for");
    assert_eq!(read(), Ok(6), "and there was more");
    assert_eq!(read(), Err(Errno::AGAIN));
}

#[test]
fn a_linger_of_zero_discards_what_was_not_acknowledged() {
    // worker/relay/lifecycle.rs: it is set only when nothing is.
    let (near, mut far) = connection();
    // So that not everything fits on the other side.
    let small = |far: &TcpStream| SockRef::from(far).set_recv_buffer_size(1 << 16);
    small(&far).expect("a socket");
    let filled = fill(&near);
    SockRef::from(&near)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
    let queued = {
        let mut sum = 0;
        let mut buffer = vec![0; 1 << 16];
        drop(near);
        loop {
            match far.read(&mut buffer) {
                Ok(0) => panic!("an orderly end"),
                Ok(count) => sum += count,
                Err(_) => break sum,
            }
        }
    };
    assert!(queued < filled, "{queued} of {filled} came");
    let (near, mut far) = connection();
    small(&far).expect("a socket");
    let filled = fill(&near);
    near.set_nonblocking(false).expect("a socket");
    drop(near);
    let mut whole = Vec::new();
    far.read_to_end(&mut whole).expect("an orderly end");
    assert_eq!(whole.len(), filled);
}

#[test]
fn closing_a_shard_resets_the_connections_in_its_queue() {
    // sys/socket.rs, worker/accept.rs: listening sockets stay over reloads, and a stop accepts what is queued.
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let shard = |address: &SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_port(true).expect("a socket");
        socket.bind(&(*address).into()).expect("a port");
        socket.listen(64).expect("listening");
        socket
    };
    let first = shard(&any);
    let address = first.local_addr().expect("bound").as_socket().expect("IP");
    let second = shard(&address);
    let clients: Vec<TcpStream> = (0..32)
        .map(|_| TcpStream::connect(address).expect("queued"))
        .collect();
    drop(second);
    let lost = clients.into_iter().filter(|client| {
        client.set_nonblocking(true).expect("a socket");
        recv(client, 1) == Err(Errno::CONNRESET)
    });
    let lost = lost.count();
    assert!(lost > 0 && lost < 32, "{lost} of 32 were queued there");
    drop(first);
}
