//! A pick and the publishing of a snapshot: runs the library's criterion benches and reads their results.

use super::table::Table;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Name of the section.
pub const SECTION: &str = "a pick, a published snapshot";

/// What is read: criterion's folder, and the name of the figure.
const FIGURES: [(&str, &str); 8] = [
    ("pick/first/3", "3 servers"),
    ("pick/first/100", "100 servers"),
    ("pick/first/1000", "1000 servers"),
    ("pick/first/10000", "10000 servers"),
    ("snapshot_publish/1x10", "1 backend of 10 servers"),
    ("snapshot_publish/1000x10", "1000 backends of 10"),
    ("snapshot_publish/1x1000", "1 backend of 1000"),
    ("snapshot_publish/1x10000", "1 backend of 10000"),
];

/// Runs both benches and takes their medians.
pub fn measure(table: &mut Table) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let status = Command::new("cargo")
        .args(["bench", "--quiet", "--bench", "pick", "--bench", "snapshot"])
        .args(["--", "--quiet", "first|publish"])
        .current_dir(&root)
        .status()?;
    ensure!(status.success(), "the benches of the library have failed");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    for (folder, at) in FIGURES {
        let file = target
            .join("criterion")
            .join(folder)
            .join("new/estimates.json");
        let text = fs::read_to_string(&file)
            .with_context(|| format!("criterion has not written {}", file.display()))?;
        let estimates: serde_json::Value = serde_json::from_str(&text)?;
        let median = estimates["median"]["point_estimate"]
            .as_f64()
            .context("no median in criterion's estimates")?;
        let figure = if folder.starts_with("pick") {
            "ns/pick"
        } else {
            "ns/publish"
        };
        table.add((SECTION, at, "rlb"), figure, median);
    }
    Ok(())
}
