//! A program on a terminal: `script` (Debian's util-linux) gives it one.

use super::client::TIMEOUT;
use super::eventually::eventually_true;
use super::needs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// The program, its keys and its screen.
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a line of the shell, on a terminal of 120 columns and 40 rows. `None` and a message when `script` is
    /// missing.
    pub(crate) fn start(line: &str, environment: &[(&str, &str)]) -> Option<Self> {
        let script = needs::program("script")?;
        let line = format!("stty rows 40 cols 120; exec {line}");
        let mut command = Command::new(script);
        command
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let keys = child.stdin.take().expect("a pipe");
        let mut output = child.stdout.take().expect("a pipe");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&screen);
        // It ends with the program.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.extend_from_slice(&piece[..length]);
            }
        });
        Some(Self {
            child,
            keys,
            screen,
        })
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typed");
        self.keys.flush().expect("typed");
    }

    /// Waits until the screen has had this text.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) {
        eventually_true(TIMEOUT, text, || {
            let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&screen).contains(text)
        });
    }

    /// Waits for the end of the program; whether its status was 0.
    pub(crate) fn ended_well(mut self) -> bool {
        self.child.wait().expect("it ends").success()
    }
}
