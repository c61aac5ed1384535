//! Long streams through the admin console's port: opened once, with ten messages a second, and every returned
//! byte is compared.

use super::balancer::frontend;
use super::services::{CONSOLE, scripted};
use crate::harness::client::{End, connect, half_close, read_to_end};
use crate::harness::eventually::pace_until;
use crate::harness::netns::Lab;
use crate::harness::peer::{Behaviour, Peer};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two messages of a stream.
const BEAT: Duration = Duration::from_millis(100);

/// Bytes of a message; every tenth one has the second size, which fills buffers and may be spliced.
const MESSAGE: [usize; 2] = [1024, 32 * 1024];

/// The first message of each node's server.
const GREETINGS: [&str; 3] = ["1", "2", "3"];

/// Starts a node's server: it sends its name, then echoes.
pub(crate) fn echo_server(lab: &Lab, node: usize) -> Peer {
    scripted(lab, node, CONSOLE, Behaviour::SpeaksFirst(GREETINGS[node]))
}

/// Running streams.
pub(crate) struct Streams {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Streamed>,
}

/// The results of the streams.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// How many streams each node had.
    pub(crate) held_by: [usize; 3],
    /// The errors of those that broke.
    pub(crate) broken: Vec<String>,
    /// Messages that were answered on every stream that did not break.
    pub(crate) messages: u64,
}

impl Streams {
    /// Opens `count` streams from the client's machine and begins to send.
    pub(crate) fn start(lab: &Lab, count: usize) -> Self {
        let mut streamed = Streamed::default();
        let streams: Vec<(usize, TcpStream)> = lab.client.enter(|| {
            let open = |index| (index, connect(frontend(CONSOLE)));
            (0..count).map(open).collect()
        });
        let mut alive = Vec::new();
        for (index, mut stream) in streams {
            let mut word = [0];
            stream.read_exact(&mut word).expect("greeted");
            let node = GREETINGS.iter().position(|it| it.as_bytes() == word);
            streamed.held_by[node.expect("a node's greeting")] += 1;
            alive.push((index, stream));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || speak(alive, streamed, &theirs));
        Self { stop, thread }
    }

    /// Ends them in order, and returns the results.
    pub(crate) fn finish(self) -> Streamed {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the streams' thread lives")
    }
}

fn speak(
    mut alive: Vec<(usize, TcpStream)>,
    mut streamed: Streamed,
    stop: &AtomicBool,
) -> Streamed {
    let mut broken = Vec::new();
    let mut beat = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let number = streamed.messages;
        let of = |index| message(index, number);
        // All send before the first one reads.
        keep(&mut alive, &mut broken, |index, stream| {
            stream.write_all(&of(index)).map_err(|it| it.to_string())
        });
        keep(&mut alive, &mut broken, |index, stream| {
            let mut answer = vec![0; of(index).len()];
            let heard = stream.read_exact(&mut answer);
            heard.map_err(|it| it.to_string())?;
            (answer == of(index))
                .then_some(())
                .ok_or_else(|| "other bytes".to_owned())
        });
        streamed.messages += 1;
        beat += BEAT;
        pace_until(beat);
    }
    keep(&mut alive, &mut broken, |_, stream| {
        half_close(stream);
        match read_to_end(stream) {
            (rest, End::Eof) if rest.is_empty() => Ok(()),
            (rest, end) => Err(format!("{} bytes more, then {end:?}", rest.len())),
        }
    });
    streamed.broken = broken;
    streamed
}

/// Keeps the streams for which `act` succeeds, and the errors of the others.
fn keep(
    alive: &mut Vec<(usize, TcpStream)>,
    broken: &mut Vec<String>,
    act: impl Fn(usize, &mut TcpStream) -> Result<(), String>,
) {
    alive.retain_mut(|(index, stream)| match act(*index, stream) {
        Ok(()) => true,
        Err(why) => {
            broken.push(format!("stream {index}: {why}"));
            false
        }
    });
}

/// Bytes that differ from those of any other stream and any neighbouring message.
fn message(stream: usize, number: u64) -> Vec<u8> {
    let length = MESSAGE[usize::from(number % 10 == 9)];
    let seed = stream * 7 + usize::try_from(number % 256).expect("below 256") * 13;
    (0..length)
        .map(|at| u8::try_from((seed + at * 31) % 256).expect("below 256"))
        .collect()
}
