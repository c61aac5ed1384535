//! New connections at a steady rate, while something happens to the balancer.

use super::client::TIMEOUT;
use super::eventually::pace_until;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// New connections at a steady rate, each with an echo; counts failures.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// `threads` times 50 a second.
    pub(crate) fn start(address: SocketAddr, threads: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let threads = (0..threads)
            .map(|thread| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || {
                    let start = Instant::now() + Duration::from_millis(5) * thread;
                    let mut failures = Vec::new();
                    for number in 0.. {
                        pace_until(start + Duration::from_millis(20) * number);
                        if stop.load(SeqCst) {
                            break;
                        }
                        match once(address) {
                            Ok(()) => drop(done.fetch_add(1, SeqCst)),
                            Err(error) => failures.push(error.to_string()),
                        }
                    }
                    failures
                })
            })
            .collect();
        Self {
            stop,
            done,
            threads,
        }
    }

    /// Ends it: how many were served, and the errors of the others.
    pub(crate) fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, SeqCst);
        let threads = self.threads.into_iter();
        let failures = threads.flat_map(|thread| thread.join().expect("a load thread"));
        let failures = failures.collect();
        (self.done.load(SeqCst), failures)
    }
}

fn once(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_nodelay(true)?;
    stream.write_all(b"hello")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)
}
