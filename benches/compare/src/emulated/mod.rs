//! Counts every instruction of the proxies, the kernel's too, on machines that do not count them (most virtual
//! ones): the comparison runs in an emulated machine whose clock counts instructions.
//!
//! QEMU without hardware help, `-icount shift=0,sleep=off`: an instruction takes 1 ns of the guest's time,
//! waiting takes none. The CPU time of a process in the guest is therefore the number of its instructions, user
//! and kernel. The guest is Debian's kernel with this program, rlb and the other subjects in an initramfs: it
//! needs no disk image and no root. `guest.rs` runs inside, where `clock.rs` tests the clock; `machine.rs` is
//! QEMU, `image.rs` builds the initramfs, `kernel.rs` finds the kernel.
//!
//! The guest has one processor whatever the number of the proxies' threads: with two, QEMU runs them in turn
//! with one clock for both, and each thread is charged with the other's instructions too.

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
use crate::workload::{BUSIEST, CALLS, INSTRUCTIONS, MACHINE, MOST_QUEUED, RESIDENT, USED};
use anyhow::{Context, Result, bail, ensure};
use guest::Note;
use machine::{Folder, Machine};
use std::fs;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longest silence of the guest: on a busy machine a workload takes a minute.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// How often it checks whether this process was told to stop.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Boots the machine, prints the figures as they come, then the table of ratios.
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
    results.configured(wanted.workloads, wanted.subjects);
    let counted = count(&mut machine, wanted, &mut results);
    drop(machine);
    let console = fs::read_to_string(folder.path().join("console")).unwrap_or_default();
    // An interrupted run reports what it has; profiles are written already.
    if !results.workloads().is_empty() {
        for figure in [
            INSTRUCTIONS,
            MACHINE,
            CALLS,
            BUSIEST,
            RESIDENT,
            USED,
            MOST_QUEUED,
        ] {
            print!("{}", results.matrix(figure));
        }
        eprintln!("written to {}", wanted.out.display());
    }
    counted.with_context(|| format!("its console: {console}"))
}

/// Reads the machine's results until there are no more.
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

/// The next line of the guest, which may take [`SILENCE_MAX`]; an interrupted run ends here.
fn next(lines: &Receiver<String>) -> Result<String> {
    let deadline = Instant::now() + SILENCE_MAX;
    loop {
        interrupt::check()?;
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => return Ok(line),
            Err(RecvTimeoutError::Disconnected) => {
                // A signal from the terminal also reaches QEMU, and may end QEMU first.
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
