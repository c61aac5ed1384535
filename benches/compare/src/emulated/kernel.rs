//! The guest's kernel: Debian's own, downloaded and unpacked once, never installed.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Depends on the newest kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The kernel in `folder`; downloads it when there is none.
pub fn debian(folder: &Path) -> Result<PathBuf> {
    if let Some(kernel) = unpacked(folder) {
        return Ok(kernel);
    }
    fs::create_dir_all(folder)?;
    let depends = output(Command::new("apt-cache").args(["depends", PACKAGE]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .map(|version| format!("linux-image-{version}"))
        .with_context(|| format!("apt knows no {PACKAGE}; --kernel names another kernel"))?;
    output(
        Command::new("apt-get")
            .args(["download", "-qq", &package])
            .current_dir(folder),
    )?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("-x").args([&path, folder]))?;
            fs::remove_file(path)?;
        }
    }
    unpacked(folder).context("the package has no kernel")
}

fn unpacked(folder: &Path) -> Option<PathBuf> {
    let mut kernels: Vec<PathBuf> = fs::read_dir(folder.join("boot"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .collect();
    kernels.sort();
    kernels.pop()
}

fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
