//! Being told to stop: what was measured so far is to be written, and what was made to be removed.
//!
//! A thread of its own waits for SIGINT and SIGTERM. The measuring thread asks [`check`] before it
//! starts a proxy, which every measurement begins with.

use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on the first SIGINT or SIGTERM does not end this process; it makes [`check`] fail, and
/// `then` is called at this and at each further one.
///
/// # Errors
/// When the kernel refuses a handler or a thread.
pub fn watch(then: impl Fn() + Send + 'static) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = runtime.block_on(async {
        anyhow::Ok((
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ))
    })?;
    std::thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                INTERRUPTED.store(true, Ordering::Relaxed);
                then();
            }
        });
    })?;
    Ok(())
}

/// Fails when this process was told to stop.
pub fn check() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
