//! A load in its own process, on other cores than the proxy's.

use crate::load::Outcome;
use crate::subject::{Running, beside};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

/// A running load.
pub struct Load {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    /// Starts it and waits until all its connections are open.
    pub fn start(arguments: &str, running: &Running, cores: usize) -> Result<Self> {
        let mut child = beside(cores)?
            .arg("load")
            .args(["--target", &running.target.to_string()])
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        ensure!(line == "begin\n", "the load did not begin");
        Ok(Self { child, stdout })
    }

    /// Starts the load and waits for its result. Its connections stay open until it is dropped.
    pub fn go(&mut self) -> Result<Outcome> {
        let stdin = self.child.stdin.as_mut().context("stdin is piped")?;
        stdin.write_all(b"go\n")?;
        let mut text = String::new();
        self.stdout.read_line(&mut text)?;
        serde_json::from_str(&text).context("the load failed")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
