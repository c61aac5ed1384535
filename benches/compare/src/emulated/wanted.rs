//! What the emulated machine counts, and its settings: the options of `… -- instructions`.

use crate::subject::Subject;
use crate::workload::Workload;
use std::path::{Path, PathBuf};

/// The options of the emulated machine.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The guest's kernel; default: Debian's linux-image-cloud-amd64, downloaded once
    #[arg(long)]
    pub kernel: Option<PathBuf>,
    /// Let a woken process preempt the running one.
    ///
    /// Load and proxy share one processor here, so with this option a proxy wakes for every message, and the
    /// figures show the cost of a proxy that has little to do. Without it, as many messages wait at each
    /// wake-up as for a busy proxy on its own core.
    #[arg(long)]
    pub preemption: bool,
    /// Profiles instead of figures: the functions, user and kernel, with their share of the instructions, in a
    /// file for each workload and subject; needs the package linux-perf
    #[arg(long)]
    pub profile: bool,
    /// Further kernel arguments, such as mitigations=off
    #[arg(long, default_value = "", value_name = "ARGUMENTS")]
    pub append: String,
}

/// What the command line asks for.
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
    /// The machine's settings.
    pub args: &'a Args,
    /// The folder for the results.
    pub out: &'a Path,
}
