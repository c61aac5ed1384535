//! The files that a run writes: every figure as JSON, and a chart.

use crate::chart;
use crate::results::Results;
use anyhow::Result;
use std::fs;
use std::path::Path;

/// Writes `results.json` and `chart.svg` into `folder`. It is called after every sample, so that an interrupted
/// run of hours leaves what it has measured. Each file is replaced atomically.
pub fn write(results: &Results, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let json = serde_json::to_string_pretty(results)?;
    for (name, content) in [
        ("results.json", json),
        ("chart.svg", chart::svg(&[results])),
    ] {
        let new = folder.join(format!("{name}.new"));
        fs::write(&new, content)?;
        fs::rename(new, folder.join(name))?;
    }
    Ok(())
}
