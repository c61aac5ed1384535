//! Stopping on a signal: results so far are written, and temporary things are removed.
//!
//! A thread waits for SIGINT and SIGTERM. Every measurement begins with starting a proxy; before that the
//! measuring thread calls [`check`].

use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM do not end this process: each makes [`check`] fail and calls `then`.
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
