//! Instructions in user space per operation, for every subject: two runs under callgrind with different numbers
//! of operations, so that start and stop cancel out.

use super::running::Load;
use crate::callgrind;
use crate::measure;
use crate::subject::Subject;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Operations of the short run.
const FEW: u64 = 500;

/// Operations of the long run, when nothing else goes on.
pub const MANY: u64 = 2_500;

/// Instructions per operation of the load `arguments`, which has every option except `--operations`. The long
/// run does `many` operations, enough to outweigh other differences between the runs.
pub fn instructions(subject: &Subject, cores: usize, arguments: &str, many: u64) -> Result<f64> {
    let mut runs = Vec::new();
    for operations in [FEW, many] {
        let folder =
            std::env::temp_dir().join(format!("rlb-compare-{}-counts", std::process::id()));
        fs::create_dir_all(&folder)?;
        // nginx' worker writes its counts as another user.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        let running = subject.start_under_callgrind(&folder)?;
        let mut load = Load::start(
            &format!("{arguments} --operations {operations}"),
            &running,
            cores,
        )
        .with_context(|| running.output())?;
        let outcome = load.go().with_context(|| running.output())?;
        ensure!(outcome.broken == 0, "bytes came back broken");
        // Both runs must have seen the end of every connection.
        drop(load);
        measure::wait_until_quiet(&running.pids())?;
        drop(running);
        runs.push((operations, callgrind::take(&folder)?));
        fs::remove_dir_all(&folder)?;
    }
    Ok(callgrind::slope(runs[0], runs[1]))
}
