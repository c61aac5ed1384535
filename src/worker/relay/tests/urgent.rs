//! Urgent (out-of-band) data, which stops reads and splices.

use super::*;

/// Sends one urgent byte, the next of the stream of `side`.
fn write_urgent(fixture: &mut Fixture, side: usize) {
    let end = &mut fixture.ends[side];
    let [next] = bytes(side, end.written, 1)[..] else {
        unreachable!("one byte")
    };
    let stream = end.stream.as_ref().expect("open");
    let sent = retry(|| SockRef::from(stream).send_out_of_band(&[next]));
    assert_eq!(sent, 1);
    end.written += 1;
}

fn retry(mut send: impl FnMut() -> std::io::Result<usize>) -> usize {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match send() {
            Ok(count) => return count,
            Err(_) => assert!(Instant::now() < deadline, "nothing is taken"),
        }
    }
}

/// Writes `total` bytes of the stream of `side`. The relay works and both sides read, except for the last
/// `queued` bytes.
fn write_all(fixture: &mut Fixture, side: usize, total: usize, queued: usize) {
    let goal = fixture.ends[side].written + total as u64;
    let deadline = Instant::now() + TIMEOUT;
    while fixture.ends[side].written < goal {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}");
        let left = usize::try_from(goal - fixture.ends[side].written).unwrap();
        fixture.ends[side].write(side, left.min(100_000));
        if left > queued {
            fixture.turn();
            fixture.ends[1 - side].read(1 - side, 200_000);
        }
    }
}

/// Fault 41: a splice of 0 bytes at an urgent byte, with FIN after it, was taken for the end.
#[test]
fn fault_41_urgent_bytes_anywhere_in_bulk_lose_nothing() {
    const CHUNK: usize = CHUNK_MAX;
    let around = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17];
    for side in 0..2 {
        for bulk in [0, 900_000] {
            for before in around {
                for behind in [0, 1, 5_000, 100_000] {
                    let mut fixture = Fixture::with_buffers(512 * 1024);
                    write_all(&mut fixture, side, bulk, 0);
                    // What follows waits in the relay's receive queue together with FIN.
                    write_all(&mut fixture, side, before, before);
                    write_urgent(&mut fixture, side);
                    write_all(&mut fixture, side, behind, behind);
                    fixture.act(&Act::End(side));
                    fixture.until("the end has come", |f| f.ends[1 - side].ended.is_some());
                    let (written, read) = (fixture.ends[side].written, fixture.ends[1 - side].read);
                    let case = format!("side {side}, {bulk} + {before}, then {behind}");
                    assert_eq!(read, written, "{case}");
                    assert_eq!(
                        fixture.ends[1 - side].ended,
                        Some(ErrorKind::UnexpectedEof),
                        "{case}"
                    );
                    assert_eq!(fixture.counted()[side], written, "{case}");
                }
            }
        }
    }
}

/// Fault 41: the same with more than one, while everything flows.
#[test]
fn fault_41_urgent_bytes_again_and_again() {
    for side in 0..2 {
        let mut fixture = Fixture::with_buffers(512 * 1024);
        for round in 0..40 {
            write_all(&mut fixture, side, 30_011 * (round % 4), 0);
            write_urgent(&mut fixture, side);
        }
        fixture.act(&Act::End(side));
        fixture.until("the end has come", |f| f.ends[1 - side].ended.is_some());
        assert_eq!(fixture.ends[1 - side].read, fixture.ends[side].written);
    }
}

/// Fault 20: a read from a unix socket ends at a message that carries a descriptor. The rest was waited for
/// although no event came.
#[test]
fn fault_20_a_message_with_a_descriptor_does_not_stall_a_unix_session() {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    for side in 0..2 {
        let mut fixture = Fixture::of(Kind::Unix, 64 * 1024, "");
        let end = &mut fixture.ends[side];
        let stream = end.stream.as_mut().expect("open");
        let other = stream.try_clone().unwrap();
        let passed = [other.as_fd()];
        let bytes = bytes(side, 0, 3);
        stream.write_all(&bytes[..1]).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&passed)));
        let message = [IoSlice::new(&bytes[1..2])];
        sendmsg(stream.as_fd(), &message, &mut control, SendFlags::empty()).unwrap();
        stream.write_all(&bytes[2..]).unwrap();
        end.written = 3;
        fixture.until("all has come", |f| f.ends[1 - side].read == 3);
    }
}
