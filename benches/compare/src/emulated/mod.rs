//! Counts every instruction of the proxies, the kernel's too, on machines whose processor counts none
//! (most virtual ones): the comparison runs in an emulated machine whose clock *is* the count.
//!
//! QEMU without hardware help, `-icount shift=0,sleep=off`: an instruction takes 1 ns of the guest's
//! time, waiting takes none. The CPU time of a process in the guest is then its instructions, user and
//! kernel. The guest is Debian's kernel with this program, rlb and its competitors in an initramfs:
//! no image, no root. `guest.rs` is the side inside, `clock.rs` tries the clock there; `machine.rs` is
//! QEMU, `image.rs` packs, `kernel.rs` finds the kernel.
//!
//! It has one processor however many threads the proxies have: with two, QEMU lets them take turns and
//! one clock count for both, so that each thread is charged for what ran in the other's turn.

mod clock;
pub mod guest;
mod image;
mod kernel;
mod machine;
mod wanted;

pub use wanted::{Args, Wanted};

use crate::interrupt;
use crate::measure::pause;
use crate::report;
use crate::results::Results;
use crate::workload::{BUSIEST, CALLS, INSTRUCTIONS, MACHINE};
use anyhow::{Context, Result, bail, ensure};
use guest::Note;
use machine::{Folder, Machine};
use std::fs;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longest silence of the guest: a workload takes it a minute on a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// How often it is looked whether this process was told to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Boots the machine, prints what it counts as it comes, then the table of ratios.
pub fn run(wanted: &Wanted) -> Result<()> {
    fs::create_dir_all(wanted.out)?;
    let folder = Folder::new(wanted.out)?;
    let kernel = match &wanted.args.kernel {
        Some(path) => path.clone(),
        None => kernel::debian(&wanted.out.join("kernel"))?,
    };
    let image = folder.path().join("initramfs");
    fs::write(&image, guest::image(wanted)?)?;
    interrupt::check()?;
    let mut machine = Machine::start(&kernel, &image, &wanted.args.append, folder.path())?;
    let setting = format!(
        "{}, preemption={}",
        machine.setting(),
        wanted.args.preemption
    );
    let mut results = Results::new(wanted.subjects, wanted.threads, wanted.rounds, setting);
    let counted = count(&mut machine, wanted, &mut results);
    drop(machine);
    let console = fs::read_to_string(folder.path().join("console")).unwrap_or_default();
    // A run that was cut short says what it has; profiles are written already.
    if !results.workloads().is_empty() {
        for figure in [INSTRUCTIONS, MACHINE, CALLS, BUSIEST] {
            print!("{}", results.matrix(figure));
        }
        eprintln!("written to {}", wanted.out.display());
    }
    counted.with_context(|| format!("its console: {console}"))
}

/// Takes the machine's notes until it has no more.
fn count(machine: &mut Machine, wanted: &Wanted, results: &mut Results) -> Result<()> {
    let lines = machine.lines()?;
    loop {
        let line = next(&lines)?;
        match serde_json::from_str(line.trim()).with_context(|| line.clone())? {
            Note::Clock { counted } => eprintln!("the clock counts instructions: {counted}"),
            Note::Figures(workload, subject, figures) => {
                eprintln!("{workload:<28} {subject:<16} {figures:.1?}");
                results.add(&workload, &subject, figures);
                report::write(results, wanted.out)?;
            }
            Note::Profile(workload, subject, text) => {
                let folder = wanted.out.join("profile");
                fs::create_dir_all(&folder)?;
                let file = folder.join(format!("{workload}, {subject}.txt"));
                fs::write(&file, text)?;
                eprintln!("written: {}", file.display());
            }
            Note::Failed(why) => bail!("in the guest: {why}"),
            Note::End => return Ok(()),
        }
    }
}

/// The next line of the guest, which may take [`SILENCE_MAX`]; a run that is interrupted ends here.
fn next(lines: &Receiver<String>) -> Result<String> {
    let deadline = Instant::now() + SILENCE_MAX;
    loop {
        interrupt::check()?;
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => return Ok(line),
            Err(RecvTimeoutError::Disconnected) => {
                // A signal from the terminal reaches QEMU too, and may end it first.
                pause(LOOK_EVERY);
                interrupt::check()?;
                bail!("the guest has ended");
            }
            Err(RecvTimeoutError::Timeout) => ensure!(
                Instant::now() < deadline,
                "the guest is silent for {SILENCE_MAX:?}"
            ),
        }
    }
}
