//! QEMU: its settings, its end, and the folder that it runs from. Dropping ends QEMU and removes the folder.
//! When this process is killed, the kernel kills QEMU, and the next run removes the folder.

use anyhow::{Context, Result};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};

const QEMU: &str = "qemu-system-x86_64";

/// Lines from the guest that may wait to be read; with more, the guest waits.
const LINES_MAX: usize = 64;

/// The emulated processor: everything that QEMU supports, except the instructions that copy any number of bytes
/// at once, because every byte would count as an instruction. The kernel then copies eight bytes with each
/// instruction.
const PROCESSOR: &str = "max,-erms,-fsrm";

/// Kernel arguments: the time stamp counter, which counts instructions, is the clock and is reliable.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 tsc=reliable tsc_early_khz=1000000 \
    random.trust_cpu=on panic=-1 quiet";

/// What the name of a [`Folder`] begins with; the PID of its process follows.
const FOLDER: &str = "guest-";

/// The folder for the machine's image and console; removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a folder in `parent`, and removes folders that killed processes have left there.
    pub fn new(parent: &Path) -> Result<Self> {
        for entry in fs::read_dir(parent)? {
            let entry = entry?;
            let name = entry.file_name();
            let pid = name
                .to_str()
                .and_then(|name| name.strip_prefix(FOLDER)?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let path = parent.join(format!("{FOLDER}{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The emulated machine; ended when dropped.
pub struct Machine {
    child: Child,
    setting: String,
}

impl Machine {
    /// Boots it. The first serial port goes to a file, the second carries the results.
    pub fn start(kernel: &Path, image: &Path, append: &str, folder: &Path) -> Result<Self> {
        let version = Command::new(QEMU)
            .arg("--version")
            .output()
            .context("needs the package qemu-system-x86")?
            .stdout;
        let version = String::from_utf8_lossy(&version);
        let version = version
            .split_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        // `setpriv` makes the kernel kill QEMU when the thread that starts it (the main thread) ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", QEMU])
            .args(["-accel", "tcg", "-icount", "shift=0,sleep=off"])
            .args(["-smp", "1", "-m", "2048", "-cpu", PROCESSOR])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-kernel"])
            .arg(kernel)
            .arg("-initrd")
            .arg(image)
            .args(["-append", &format!("{KERNEL_ARGUMENTS} {append}")])
            .arg("-serial")
            .arg(format!("file:{}", folder.join("console").display()))
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("needs setpriv, of the package util-linux")?;
        let kernel = kernel.file_name().unwrap_or_default().to_string_lossy();
        let arguments = [&kernel, append].join(" ");
        Ok(Self {
            child,
            setting: format!(
                "emulated by QEMU {} (-icount, -cpu {PROCESSOR}), {}",
                version.unwrap_or("?"),
                arguments.trim_end()
            ),
        })
    }

    /// Processor, kernel and its arguments, for the record.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// The guest's lines, until it ends.
    pub fn lines(&mut self) -> Result<Receiver<String>> {
        let stdout = self.child.stdout.take().context("lines are taken once")?;
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(lines)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::Folder;
    use std::fs;

    #[test]
    fn folders_of_killed_processes_go() {
        let parent = std::env::temp_dir().join(format!("rlb-compare-test-{}", std::process::id()));
        // No process has this PID, because it is above the kernel's PID_MAX_LIMIT.
        for name in ["guest-4194305", "guest-1", "kernel"] {
            fs::create_dir_all(parent.join(name).join("inside")).unwrap();
        }
        let folder = Folder::new(&parent).unwrap();
        assert!(folder.path().exists());
        assert!(!parent.join("guest-4194305").exists());
        assert!(parent.join("guest-1").exists() && parent.join("kernel").exists());
        drop(folder);
        assert!(
            !parent
                .join(format!("guest-{}", std::process::id()))
                .exists()
        );
        fs::remove_dir_all(parent).unwrap();
    }
}
