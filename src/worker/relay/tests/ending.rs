//! How sessions end: by order, by timeout, by reset; what is delivered before, and how long it takes.

use super::super::direction::is_no_memory;
use super::*;
use crate::live::Termination;
use std::num::NonZeroU64;

/// From an order to end a session until both sides are closed.
const ENDED_WITHIN: Duration = Duration::from_millis(200);

impl Fixture {
    /// Advances the engine's clock.
    fn pass(&mut self, time: Duration) {
        self.relay.engine.borrow_mut().pass(time);
    }

    /// Ends the sessions on the only server.
    fn kill(&mut self, cause: Cause) {
        let backend = self.snapshot.backends[0].as_ref().unwrap();
        let server = backend.servers[0].live.uid;
        self.relay
            .end_sessions(&ServerSet::new(vec![server]), cause);
    }

    /// `writers` write until no one takes anything more. Where their reader is not `slow` it reads on, and they
    /// write for a moment.
    fn fill(&mut self, writers: &[usize], slow: [bool; 2]) {
        let blocks = writers.iter().all(|&side| slow[1 - side]);
        let most = if blocks {
            TIMEOUT
        } else {
            Duration::from_millis(40)
        };
        let begun = Instant::now();
        let mut since = begun;
        while since.elapsed() < Duration::from_millis(20) && begun.elapsed() < most {
            let before = [self.ends[0].written, self.ends[1].written];
            for &side in writers {
                self.ends[side].write(side, 200_000);
            }
            self.turn();
            for (side, slow) in slow.into_iter().enumerate() {
                if !slow {
                    self.ends[side].read(side, 200_000);
                }
            }
            if before != [self.ends[0].written, self.ends[1].written] {
                since = Instant::now();
            }
        }
        assert!(begun.elapsed() < TIMEOUT, "not within {TIMEOUT:?}");
    }

    fn sides_pending(&self) -> [bool; 2] {
        let engine = self.relay.engine.borrow();
        engine.pending()
    }
}

/// Fault 2: a session that moves bulk went on after it had been ended by an order.
#[test]
fn fault_2_a_kill_reads_nothing_more_and_closes_both_sides() {
    for (kind, buffer) in [
        (Kind::Tcp, 8 * 1024),
        (Kind::Tcp, 512 * 1024),
        (Kind::Unix, 64 * 1024),
    ] {
        for writers in [&[0][..], &[1], &[0, 1]] {
            for slow in [[false; 2], [true; 2], [true, false], [false, true]] {
                let mut fixture = Fixture::of(kind, buffer, "");
                fixture.fill(writers, slow);
                let counted = fixture.counted();
                fixture.kill(Cause::Killed);
                let begun = Instant::now();
                while !fixture.is_over() {
                    assert!(
                        begun.elapsed() < ENDED_WITHIN,
                        "{kind:?} {buffer} {writers:?} {slow:?}"
                    );
                    for &side in writers {
                        fixture.ends[side].write(side, 100_000);
                    }
                    fixture.turn();
                    for (side, slow) in slow.into_iter().enumerate() {
                        if !slow {
                            fixture.ends[side].read(side, 200_000);
                        }
                    }
                }
                assert_eq!(
                    fixture.counted(),
                    counted,
                    "nothing was read after the order"
                );
                let ended = |f: &Fixture| f.ends.iter().all(|end| end.ended.is_some());
                fixture.until("both ends are told", ended);
                for (side, end) in fixture.ends.iter().enumerate() {
                    assert!(end.read <= counted[1 - side]);
                    if kind == Kind::Tcp {
                        assert_eq!(end.ended, Some(ErrorKind::ConnectionReset));
                    }
                }
            }
        }
    }
}

/// Fault 2: an order that ended sessions had no effect until the relay's next tick, a tenth of a second later.
#[test]
fn fault_2_an_order_to_end_wakes_the_relay() {
    let (session, snapshot, worker_stats, ends) = session(SOCKET_BUFFER);
    in_a_reactor(worker_stats, async |relay, _| {
        session.go(&relay);
        // The client sends more than the server and the kernel take.
        let [mut client, server] = ends;
        let bytes = vec![1; 100_000];
        client.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while relay.engine.borrow().pending() == [false; 2] {
            assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
            let _ = client.write(&bytes);
            yield_now().await;
        }
        let uid = snapshot.backends[0].as_ref().unwrap().servers[0].live.uid;
        let begun = Instant::now();
        relay.end_sessions(&ServerSet::new(vec![uid]), Cause::Killed);
        relay.empty().await;
        assert!(begun.elapsed() < ENDED_WITHIN, "{:?}", begun.elapsed());
        drop(server);
    });
}

/// Fault 39: the side that does not take its bytes times out, not the side that rlb does not read from
/// meanwhile.
#[test]
fn fault_39_only_the_side_that_is_waited_for_times_out() {
    let keys = "timeout = { client = '10s', server = '20s' }";
    for (kind, buffer) in [
        (Kind::Tcp, 8 * 1024),
        (Kind::Tcp, 512 * 1024),
        (Kind::Unix, 64 * 1024),
    ] {
        let mut fixture = Fixture::of(kind, buffer, keys);
        fixture.fill(&[0], [true; 2]);
        assert_eq!(fixture.sides_pending(), [false, true]);
        fixture.pass(Duration::from_millis(17_500));
        fixture.turn();
        assert!(!fixture.is_over(), "the client is not read from");
        fixture.pass(Duration::from_secs(3));
        fixture.turn();
        assert!(fixture.is_over(), "the server takes nothing");
        let frontend = fixture.snapshot.frontends[0].as_ref().unwrap();
        let traffic = &frontend.live.traffic;
        assert_eq!(traffic.sum(|shard| &shard.srv_abrt), 1);
        assert_eq!(traffic.sum(|shard| &shard.cli_abrt), 0);
    }
}

/// Fault 39: once the other side takes bytes again, the silence of the side that sent them counts from
/// then on.
#[test]
fn fault_39_a_side_that_was_not_read_from_has_its_whole_timeout_again() {
    let keys = "timeout = { client = '10s', server = '1h' }";
    let mut fixture = Fixture::of(Kind::Tcp, 512 * 1024, keys);
    fixture.fill(&[0], [true; 2]);
    fixture.pass(Duration::from_secs(60));
    fixture.turn();
    fixture.until("the server has all", |f| {
        f.ends[1].read == f.ends[0].written
    });
    fixture.pass(Duration::from_millis(7_500));
    fixture.turn();
    assert!(!fixture.is_over());
    fixture.pass(Duration::from_millis(3_500));
    fixture.turn();
    assert!(fixture.is_over(), "and no more than that");
}

/// Fault 39: when neither side takes its bytes, the session ends when both timeouts are over, counted from the
/// last byte.
#[test]
fn fault_39_the_shorter_timeout_does_not_restart_the_longer() {
    let keys = "timeout = { client = '10s', server = '20s' }";
    for buffer in [8 * 1024, 512 * 1024] {
        let mut fixture = Fixture::of(Kind::Tcp, buffer, keys);
        fixture.fill(&[0, 1], [true; 2]);
        for _ in 0..2 {
            fixture.pass(Duration::from_millis(9_500));
            fixture.turn();
            assert!(!fixture.is_over());
        }
        fixture.pass(Duration::from_secs(2));
        fixture.turn();
        assert!(fixture.is_over());
    }
}

/// Fault 39: a side that has pending bytes and takes none is waited for from the last byte that it took, also
/// when it sends data or FIN meanwhile.
#[test]
fn fault_39_a_side_that_sends_and_takes_nothing_is_waited_for_once() {
    let keys = "timeout = { client = '10s', server = '1h' }";
    for act in [Act::Write(0, 100), Act::End(0)] {
        // Of TCP the kernel may have room for a segment more once the peer has said something.
        let mut fixture = Fixture::of(Kind::Unix, 64 * 1024, keys);
        fixture.fill(&[1], [true; 2]);
        assert_eq!(fixture.sides_pending(), [true, false]);
        fixture.pass(Duration::from_millis(7_500));
        fixture.act(&act);
        let sent = fixture.ends[0].written;
        fixture.turn();
        fixture.ends[1].read(1, 1000);
        assert_eq!(fixture.ends[1].read, sent, "it was heard");
        fixture.pass(Duration::from_secs(3));
        fixture.turn();
        assert!(fixture.is_over(), "{act:?}");
    }
}

/// Fault 39: when one side times out, the other still receives its bytes.
#[test]
fn a_timeout_of_one_side_still_delivers_the_bytes_of_the_other() {
    let keys = "timeout = { client = '10s', server = '20s' }";
    let mut fixture = Fixture::of(Kind::Tcp, 8 * 1024, keys);
    fixture.fill(&[0, 1], [true; 2]);
    assert_eq!(fixture.sides_pending(), [true, true]);
    let counted = fixture.counted();
    fixture.pass(Duration::from_secs(11));
    fixture.turn();
    assert!(!fixture.is_over(), "the server still has bytes to take");
    let deadline = Instant::now() + TIMEOUT;
    while !fixture.is_over() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        fixture.turn();
        fixture.ends[1].read(1, 200_000);
    }
    fixture.until("the end has come", |f| f.ends[1].ended.is_some());
    assert_eq!(fixture.ends[1].read, counted[0]);
}

/// A session whose server has sent everything and FIN. The relay has read it all, but the client has not taken
/// it. Until then the client reads `step` bytes at a time; `None` if it took the last bytes at once.
fn answered(step: usize) -> Option<Fixture> {
    let mut fixture = Fixture::with_buffers(8 * 1024);
    fixture.act(&Act::End(0));
    fixture.fill(&[1], [true, false]);
    fixture.act(&Act::End(1));
    let deadline = Instant::now() + TIMEOUT;
    while fixture.counted()[1] < fixture.ends[1].written {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        fixture.ends[0].read(0, step);
        fixture.turn();
    }
    (fixture.sides_pending() == [true, false]).then_some(fixture)
}

/// A server that has answered and sent FIN resets the connection for what comes after. The client has its whole
/// timeout to take the answer, and receives FIN.
#[test]
fn a_reset_after_fin_loses_nothing_for_a_slow_client() {
    let mut fixture = (1..40).find_map(|step| answered(step * 500)).unwrap();
    let stream = fixture.ends[1].stream.take().unwrap();
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    fixture.turn();
    fixture.pass(Duration::from_secs(5));
    fixture.turn();
    assert!(!fixture.is_over());
    fixture.until("the client has the end", |f| f.ends[0].ended.is_some());
    assert_eq!(fixture.ends[0].ended, Some(ErrorKind::UnexpectedEof));
    assert_eq!(fixture.ends[0].read, fixture.ends[1].written);
}

/// Fault 21: when the kernel has no memory for a write, no event tells that it has some again.
#[test]
fn fault_21_a_write_that_lacked_memory_is_tried_again_by_time() {
    let mut fixture = Fixture::with_buffers(8 * 1024);
    fixture.fill(&[0], [true; 2]);
    assert_eq!(fixture.sides_pending(), [false, true]);
    let deadline = Instant::now() + TIMEOUT;
    let counted = fixture.counted()[0];
    while fixture.ends[1].read < counted {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        fixture.ends[1].read(1, 200_000);
        // By time alone, without events.
        let mut engine = fixture.relay.engine.borrow_mut();
        engine.lacks_memory();
        engine.tick();
    }
}

#[test]
fn what_the_kernel_says_when_it_lacks_memory_is_not_a_dead_peer() {
    use rustix::io::Errno;
    assert!([Errno::NOBUFS, Errno::NOMEM].into_iter().all(is_no_memory));
    assert!(
        ![Errno::PIPE, Errno::CONNRESET, Errno::AGAIN]
            .into_iter()
            .any(is_no_memory)
    );
}

/// Fault 23: the key of a session that had ended while it drained stayed in the list of those that drain, and
/// the next session with that key was treated like it.
#[test]
fn fault_23_the_next_session_with_the_same_key_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.fill(&[1], [true; 2]);
    fixture.kill(Cause::Killed);
    assert!(!fixture.is_over(), "it drains");
    fixture.relay.end_all(Cause::Killed);
    assert!(fixture.is_over());
    let (next, _snapshot, _stats, ends) = session(SOCKET_BUFFER);
    next.go(&fixture.relay);
    fixture.pass(Duration::from_secs(5));
    fixture.turn();
    assert!(!fixture.is_over(), "the next one lives");
    assert!(!fixture.relay.engine.borrow().needs_recheck());
    drop(ends);
}

#[derive(Debug, Clone)]
enum Event {
    Act(Act),
    Reset(usize),
    Kill,
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => act().prop_map(Event::Act),
        10 => (0usize..2).prop_map(|side| Event::Act(Act::Write(side, 300_000))),
        1 => (0usize..2).prop_map(Event::Reset),
        1 => Just(Event::Kill),
        3 => prop_oneof![1u64..300, 900u64..5000].prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// Events in any order, spliced and copied: every byte is right (each read checks them), nothing is read
    /// from a side after an order to end, and every session ends.
    #[test]
    fn every_session_ends_and_no_byte_is_wrong(
        events in prop::collection::vec(event(), 1..120), large: bool, unix: bool
    ) {
        let kind = if unix { Kind::Unix } else { Kind::Tcp };
        let buffer = if large { 512 * 1024 } else { 8 * 1024 };
        let keys = "timeout = { client = '3s', server = '4s', client-fin = '1s', server-fin = '2s' }";
        let mut fixture = Fixture::of(kind, buffer, keys);
        let mut killed: Option<[u64; 2]> = None;
        let mut disturbed = false;
        for event in &events {
            match event {
                Event::Act(act) => fixture.act(act),
                Event::Reset(side) => {
                    disturbed = true;
                    if let Some(stream) = fixture.ends[*side].stream.take() {
                        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                    }
                }
                Event::Kill => {
                    if killed.is_none() && !fixture.is_over() {
                        killed = Some(fixture.counted());
                    }
                    fixture.kill(Cause::Killed);
                }
                Event::Pass(ms) => {
                    disturbed |= *ms >= 900;
                    fixture.pass(Duration::from_millis(*ms));
                    fixture.turn();
                }
            }
            if let Some(counted) = killed {
                prop_assert_eq!(fixture.counted(), counted, "nothing is read after the order");
            }
        }
        for side in 0..2 {
            fixture.act(&Act::End(side));
        }
        fixture.until("the session has ended", Fixture::is_over);
        for side in 0..2 {
            if fixture.ends[side].stream.is_some() {
                fixture.until("the end has come", |f| f.ends[side].ended.is_some());
            }
            let (read, counted) = (fixture.ends[side].read, fixture.counted()[1 - side]);
            prop_assert!(read <= counted);
            if !disturbed && killed.is_none() {
                prop_assert_eq!(read, fixture.ends[1 - side].written);
            }
        }
    }
}

/// As in HAProxy the connect time begins when the client's header is there.
#[test]
fn the_time_that_a_header_took_is_no_connect_time() {
    let (session, snapshot, worker_stats, _ends) = session(SOCKET_BUFFER);
    let mut stats = session.stats;
    stats.connect = NonZeroU64::new(100_000_000);
    stats.delays_mut().handshake = 30;
    stats.finish(&Termination::normal(), &worker_stats);
    let backend = snapshot.backends[0].as_ref().unwrap();
    let traffic = &backend.servers[0].live.traffic;
    assert_eq!(traffic.max(|shard| &shard.ctime_max), 70);
}

/// A session that a tick serves may have more to do than its share; no event tells of that.
#[test]
fn what_a_tick_leaves_is_gone_on_with_without_an_event() {
    let mut fixture = Fixture::with_buffers(8 * 1024);
    fixture.fill(&[0], [true; 2]);
    let relay = Rc::clone(&fixture.relay);
    {
        let mut engine = relay.engine.borrow_mut();
        engine.lacks_memory();
        engine.set_share(0);
    }
    // There is room for what the kernel had no memory for.
    fixture.ends[1].read(1, 200_000);
    relay.tick(Instant::now() + TIMEOUT);
    assert!(relay.is_unfinished());
}
