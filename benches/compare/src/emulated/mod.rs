//! Counts every instruction of the proxies, the kernel's too, on machines whose processor counts none
//! (most virtual ones): the comparison runs in an emulated machine whose clock *is* the count.
//!
//! QEMU without hardware help, `-icount shift=0,sleep=off`: an instruction takes 1 ns of the guest's
//! time, waiting takes none. The CPU time of a process in the guest is then its instructions, user and
//! kernel. The guest is Debian's kernel with this program, rlb and its competitors in an initramfs:
//! no image, no root. `guest.rs` is the side inside; `image.rs` packs; `kernel.rs` finds the kernel.

pub mod guest;
mod image;
mod kernel;

use crate::report::Results;
use crate::subject::Subject;
use crate::workload::{CALLS, INSTRUCTIONS, MACHINE, Workload};
use anyhow::{Context, Result, bail};
use guest::Note;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Longest silence of the guest: a workload takes it a minute on a busy machine.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Lines from the guest that wait to be read; it waits when there are more.
const LINES_MAX: usize = 64;

/// The emulated processor: all that QEMU knows, without the instructions that copy any number of
/// bytes at once, of which every byte would count. The kernel then copies eight bytes with each.
const PROCESSOR: &str = "max,-erms,-fsrm";

/// Kernel arguments: the time stamp counter is the clock and is right (it counts instructions).
const KERNEL_ARGUMENTS: &str = "console=ttyS0 tsc=reliable tsc_early_khz=1000000 \
    random.trust_cpu=on panic=-1 quiet";

/// What is to be counted.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The guest's kernel; default: Debian's linux-image-cloud-amd64, downloaded once
    #[arg(long)]
    kernel: Option<PathBuf>,
    /// Let a process that is woken take the processor at once.
    ///
    /// Load and proxy share one processor here, so a proxy would then wake for every message. Without
    /// it the messages that wait at each wake-up are as many as for a busy proxy on its own core; with
    /// it the costs of a proxy that has little to do are seen.
    #[arg(long)]
    preemption: bool,
    /// Profiles in place of figures: the functions, user and kernel, with their share of the
    /// instructions, a file for each workload and subject; needs the package linux-perf
    #[arg(long)]
    profile: bool,
    /// Further kernel arguments, such as mitigations=off
    #[arg(long, default_value = "", value_name = "ARGUMENTS")]
    append: String,
}

/// What of the comparison is wanted, as the command line has it.
pub struct Wanted<'a> {
    /// The competitors.
    pub subjects: &'a [Subject],
    /// Names of the workloads.
    pub workloads: &'a [Workload],
    /// Rounds of each.
    pub rounds: usize,
    /// Small loads.
    pub quick: bool,
    /// How the machine is to be.
    pub args: &'a Args,
    /// The folder for the results.
    pub out: &'a Path,
}

/// Boots the machine, prints what it counts as it comes, then the table of ratios.
pub fn run(wanted: &Wanted) -> Result<()> {
    fs::create_dir_all(wanted.out)?;
    let kernel = match &wanted.args.kernel {
        Some(path) => path.clone(),
        None => kernel::debian(&wanted.out.join("kernel"))?,
    };
    let folder = wanted.out.join(format!("guest-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let image = folder.join("initramfs");
    fs::write(&image, guest::image(wanted)?)?;
    let mut machine = Machine::start(&kernel, &image, wanted.args, &folder)?;
    let setting = format!("QEMU -icount, -cpu {PROCESSOR}, {}", machine.setting);
    let mut results = Results::new(wanted.subjects, 1, wanted.rounds, setting);
    let counted = machine.count(wanted, &mut results);
    drop(machine);
    let console = fs::read_to_string(folder.join("console")).unwrap_or_default();
    fs::remove_dir_all(&folder)?;
    // A run that was cut short says what it has; profiles are written already.
    if !results.workloads().is_empty() {
        for figure in [INSTRUCTIONS, MACHINE, CALLS] {
            print!("{}", results.matrix(figure));
        }
        eprintln!("written to {}", wanted.out.display());
    }
    counted.with_context(|| format!("its console: {console}"))
}

/// The emulated machine; ended when dropped.
struct Machine {
    child: Child,
    /// Kernel and settings, for the record.
    setting: String,
}

impl Machine {
    /// Boots it. Its first serial line goes to a file, its second is for the notes.
    fn start(kernel: &Path, image: &Path, args: &Args, folder: &Path) -> Result<Self> {
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", "tcg", "-icount", "shift=0,sleep=off"])
            .args(["-smp", "1", "-m", "2048", "-cpu", PROCESSOR])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-kernel"])
            .arg(kernel)
            .arg("-initrd")
            .arg(image)
            .args(["-append", &format!("{KERNEL_ARGUMENTS} {}", args.append)])
            .arg("-serial")
            .arg(format!("file:{}", folder.join("console").display()))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("needs the package qemu-system-x86")?;
        let name = kernel.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            child,
            setting: format!("{name} {} preemption={}", args.append, args.preemption),
        })
    }

    /// Takes its notes until it has no more.
    fn count(&mut self, wanted: &Wanted, results: &mut Results) -> Result<()> {
        let stdout = self.child.stdout.take().context("stdout is piped")?;
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        loop {
            let line = lines
                .recv_timeout(SILENCE_MAX)
                .context("the guest has ended or is silent")?;
            match serde_json::from_str(line.trim()).with_context(|| line.clone())? {
                Note::Clock { counted } => eprintln!("the clock counts instructions: {counted}"),
                Note::Figures(workload, subject, figures) => {
                    eprintln!("{workload:<28} {subject:<16} {figures:.1?}");
                    results.add(&workload, &subject, figures);
                    results.write(wanted.out)?;
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
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
