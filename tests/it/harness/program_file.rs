//! Files of programs that a test makes. Another process writes them: when this one did, a child that another test starts
//! meanwhile would have the file open for writing until it executes its own program, and the kernel executes no such
//! file (ETXTBSY).

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A script of this text that everyone may execute.
#[track_caller]
pub(crate) fn script(path: &Path, text: &str) {
    install(OsStr::new("/dev/stdin"), path, text);
}

/// A copy of `program` that everyone may execute.
#[track_caller]
pub(crate) fn copy(program: &str, path: &Path) {
    install(program.as_ref(), path, "");
}

#[track_caller]
fn install(from: &OsStr, to: &Path, input: &str) {
    let mut command = Command::new("install");
    let command = command.arg("--mode=755").arg(from).arg(to);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("it ends").success(), "{}", to.display());
}
