//! Tests the clock of the emulated machine before anything is counted: CPU time must count instructions, for
//! one thread and for threads that compete for the processor.

use crate::measure::{cpu_ns, pause};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the kernel may take to choose its clock, and to finish its work after a boot.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Iterations of the loop that tests the clock.
const TURNS: u64 = 20_000_000;
/// Largest difference between two runs of the same loop: the timer's interrupts.
const DIFFERENCE_MAX: f64 = 0.005;
/// Largest part of the elapsed time that is charged to nobody, as a share and in ns.
const UNCOUNTED_MAX: (f64, f64) = (0.1, 5e6);

/// The same loop must always take the same time, and twice the time for twice the iterations: only a clock that
/// counts instructions does this. `threads` threads that run the loop at once must together take `threads`
/// times the time, and each must be charged with its own instructions only.
pub fn check(threads: usize) -> Result<String> {
    settle()?;
    // A kernel that has just booted still has work to do, which shares the processor with the loop.
    let begun = Instant::now();
    loop {
        match attempt(threads) {
            Err(_) if begun.elapsed() < SETTLE_MAX => {}
            result => return result,
        }
    }
}

fn attempt(threads: usize) -> Result<String> {
    let (first, again, twice) = (turns(TURNS)?, turns(TURNS)?, turns(2 * TURNS)?);
    let differs = |one: f64, other: f64| (one / other - 1.0).abs() > DIFFERENCE_MAX;
    let mut found = format!(
        "a loop of {TURNS} turns took {first}, {again} ns of CPU time, one of {} {twice} ns",
        2 * TURNS
    );
    let mut counts = !differs(first, again) && !differs(2.0 * first, twice);
    if threads > 1 {
        let together = at_once(threads)?;
        found.push_str(&format!(", {threads} at once {together} ns"));
        counts &= !differs(first * threads as f64, together);
    }
    ensure!(counts, "the clock does not count instructions: {found}");
    Ok(found)
}

/// Waits until the kernel uses the wanted clock: newer kernels begin with `tsc-early` and change a second or
/// two after the boot.
fn settle() -> Result<()> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let begun = Instant::now();
    loop {
        let source = fs::read_to_string(path).context("no clock source")?;
        let source = source.trim();
        if source == "tsc" {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < SETTLE_MAX,
            "the clock is {source}, not tsc"
        );
        pause(Duration::from_millis(10));
    }
}

fn spin(count: u64) {
    for turn in 0..count {
        black_box(turn);
    }
}

/// CPU time of the loop in ns; the monotonic clock must agree.
fn turns(count: u64) -> Result<f64> {
    let own = [std::process::id()];
    let begun = Instant::now();
    let before = cpu_ns(&own)?;
    spin(count);
    // The kernel updates a running process's CPU time when the process gives up the processor.
    std::thread::park_timeout(Duration::from_millis(1));
    let took = (cpu_ns(&own)? - before) as f64;
    agrees(begun, took)
}

/// CPU time in ns of this many threads that run the loop at the same time. The threads live until it is read,
/// because the kernel drops a thread's CPU time with the thread.
fn at_once(threads: usize) -> Result<f64> {
    let own = [std::process::id()];
    let (go, done, end) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let main = std::thread::current();
    std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    park_until(|| go.load(Ordering::Acquire));
                    spin(TURNS);
                    done.fetch_add(1, Ordering::AcqRel);
                    main.unpark();
                    park_until(|| end.load(Ordering::Acquire));
                })
            })
            .collect();
        let wake = |flag: &AtomicBool| {
            flag.store(true, Ordering::Release);
            started.iter().for_each(|thread| thread.thread().unpark());
        };
        // The threads have begun and are asleep.
        pause(Duration::from_millis(1));
        let begun = Instant::now();
        let before = cpu_ns(&own);
        wake(&go);
        park_until(|| done.load(Ordering::Acquire) == threads);
        // Waits until the last thread has given up the processor.
        pause(Duration::from_millis(1));
        let after = cpu_ns(&own);
        wake(&end);
        agrees(begun, (after? - before?) as f64)
    })
}

fn park_until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::park();
    }
}

/// `took`, when hardly more time has passed since `begun` than this process was charged with.
fn agrees(begun: Instant, took: f64) -> Result<f64> {
    let passed = begun.elapsed().as_nanos() as f64;
    let (share, rest) = UNCOUNTED_MAX;
    ensure!(
        passed >= took && passed < took * (1.0 + share) + rest,
        "the clocks differ: {took} ns of CPU time in {passed} ns"
    );
    Ok(took)
}
