//! The command line of the comparison.

use crate::subject::{self, Subject};
use crate::workload::Workload;
use crate::{emulated, load};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Compares rlb with HAProxy, nginx and a direct connection under the same load
#[derive(Parser)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Sub>,
    /// Few rounds and small loads: some two minutes for the comparison. Leaves out "haproxy splice" unless it
    /// is named; user space, stalled readers and changed configurations only for rlb and
    /// "haproxy tuned"
    #[arg(long, global = true)]
    pub quick: bool,
    /// Rounds; default 15, with --quick 2; for growth 5 and 1; for instructions, which repeat, 2 and 1
    #[arg(long, global = true)]
    pub rounds: Option<usize>,
    /// Only workloads, or sections of growth, whose name contains one of these; "=NAME" is the whole
    /// name
    #[arg(long, value_name = "WORD", global = true)]
    pub only: Vec<String>,
    /// Only subjects whose name contains one of these; "=NAME" is the whole name
    #[arg(long, value_name = "WORD", global = true)]
    pub subjects: Vec<String>,
    /// Worker threads of each proxy, each on its own core; the emulated machine has only one core
    #[arg(long, default_value_t = 1, global = true)]
    pub cores: usize,
    /// The rlb to measure; default: target/release/rlb, built when missing
    #[arg(long, global = true)]
    pub rlb: Option<PathBuf>,
    /// Folder for results.json and chart.svg, or growth.json
    #[arg(long, default_value = "target/compare", global = true)]
    pub out: PathBuf,
}

// What runs instead of the comparison.
#[derive(Subcommand)]
pub enum Sub {
    /// How the cost of one more session, server or frontend grows with their number
    Growth,
    /// Count every instruction, user and kernel, in an emulated machine; needs no root, but the Debian
    /// packages qemu-system-x86 and busybox-static
    Instructions(emulated::Args),
    /// Draw a chart of one or several results.json; a figure that two of them have is taken from the first
    Chart {
        /// The results, then the SVG to write
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
    },
    /// Internal: the part of "instructions" that runs in the emulated machine
    #[command(hide = true)]
    Inside {
        /// Profiles instead of figures
        #[arg(long)]
        profile: bool,
    },
    /// Internal: produce load against an address and print the outcome as JSON
    #[command(hide = true)]
    Load(load::Args),
    /// Internal: the servers behind the proxies
    #[command(hide = true)]
    Serve {
        /// Ports on 127.0.0.1
        ports: Vec<u16>,
    },
}

impl Cli {
    /// Whether one of these words of the command line names this; no words name everything.
    pub fn named(words: &[String], name: &str) -> bool {
        let matches = |word: &String| match word.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(word.as_str()),
        };
        words.is_empty() || words.iter().any(matches)
    }

    /// The subjects that are wanted, each with `cores` worker threads.
    pub fn subjects(&self, cores: usize) -> Result<Vec<Subject>> {
        let mut all = Subject::all(self.rlb.clone(), cores)?;
        all.retain(|subject| Self::named(&self.subjects, subject.name));
        Ok(all)
    }

    /// The same without the subject that shows least, unless subjects are named.
    pub fn telling_subjects(&self) -> Result<Vec<Subject>> {
        let mut subjects = self.subjects(self.cores)?;
        subjects.retain(|subject| !self.subjects.is_empty() || subject.name != subject::BETWEEN);
        Ok(subjects)
    }

    /// Those of `all` that are wanted.
    pub fn workloads(&self, mut all: Vec<Workload>) -> Vec<Workload> {
        all.retain(|workload| Self::named(&self.only, workload.name));
        all
    }
}
