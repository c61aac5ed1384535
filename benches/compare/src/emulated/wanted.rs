//! What the emulated machine is to count, and how it is to be: the options of `… -- instructions`.

use crate::subject::Subject;
use crate::workload::Workload;
use std::path::{Path, PathBuf};

/// What is to be counted.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The guest's kernel; default: Debian's linux-image-cloud-amd64, downloaded once
    #[arg(long)]
    pub kernel: Option<PathBuf>,
    /// Let a process that is woken take the processor at once.
    ///
    /// Load and proxy share one processor here, so a proxy would then wake for every message. Without
    /// it the messages that wait at each wake-up are as many as for a busy proxy on its own core; with
    /// it the costs of a proxy that has little to do are seen.
    #[arg(long)]
    pub preemption: bool,
    /// Profiles in place of figures: the functions, user and kernel, with their share of the
    /// instructions, a file for each workload and subject; needs the package linux-perf
    #[arg(long)]
    pub profile: bool,
    /// Further kernel arguments, such as mitigations=off
    #[arg(long, default_value = "", value_name = "ARGUMENTS")]
    pub append: String,
}

/// What of the comparison is wanted, as the command line has it.
pub struct Wanted<'a> {
    /// The competitors.
    pub subjects: &'a [Subject],
    /// Names of the workloads.
    pub workloads: &'a [Workload],
    /// Rounds of each.
    pub rounds: usize,
    /// Worker threads of each proxy, all on the one processor.
    pub threads: usize,
    /// Small loads.
    pub quick: bool,
    /// How the machine is to be.
    pub args: &'a Args,
    /// The folder for the results.
    pub out: &'a Path,
}
