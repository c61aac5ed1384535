//! The processes of this service: `show proc`, and commands for another process, as on HAProxy's master socket.
//! Admin thread.
//!
//! `@!PID COMMAND` runs a command in an old process that still has sessions after an upgrade. rlb has no master, so
//! `@1`, `@0` and `@master` are the process that serves. The answer is copied as it is; the old process ends it.

use super::CommandContext;
use super::access::{LOGGED_CHARS_MAX, Peer, printable};
use super::reply::{Reply, ReplyWriter};
use std::fmt::Write;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long each part of another process's answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that are copied at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// The process that a command is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// This one.
    Own,
    /// That with this number.
    Process(u32),
    /// None, by this prefix.
    Unknown(&'a str),
}

/// The target of a command and the command itself; `None` when it has no prefix.
pub(super) fn addressed(command: &str) -> Option<(Target<'_>, &str)> {
    let text = command.trim_start().strip_prefix('@')?;
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (prefix, rest) = text.split_at(end);
    let target = match (prefix, prefix.strip_prefix('!')) {
        ("0" | "1" | "master", _) => Target::Own,
        (_, Some(pid)) => match pid.parse() {
            Ok(pid) if pid == std::process::id() => Target::Own,
            Ok(pid) => Target::Process(pid),
            Err(_) => Target::Unknown(prefix),
        },
        _ => Target::Unknown(prefix),
    };
    Some((target, rest.trim_start()))
}

/// Runs a command in another process and copies its answer, which ends with an empty line.
pub(super) async fn forward(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    peer: &Peer,
    (target, command): (Target<'_>, &str),
) -> io::Result<()> {
    let pid = match target {
        Target::Process(pid) => pid,
        Target::Own => return Ok(()),
        Target::Unknown(prefix) => return fail(reply, not_found(prefix)).await,
    };
    let level = context.level(peer).min(reply.level_max);
    let asker = peer.asker(context.path(peer), (level, reply.severity.name()));
    let stream = match context
        .shared
        .reserve
        .with(|| context.old_processes.connect(pid, &asker))
    {
        Ok(stream) => UnixStream::from_std(stream)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fail(reply, not_found(&format!("!{pid}"))).await;
        }
        Err(error) => {
            return fail(reply, format!("Process {pid} cannot be asked: {error}\n")).await;
        }
    };
    let copied = copy(stream, command, reply).await?;
    if copied == 0 {
        return fail(reply, format!("Process {pid} does not answer.\n")).await;
    }
    Ok(())
}

/// Sends `command` and copies the answer; the number of its bytes. An answer that stops is cut off.
async fn copy(mut stream: UnixStream, command: &str, reply: &mut ReplyWriter) -> io::Result<usize> {
    let line = format!("{command}\n");
    if stream.write_all(line.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
        return Ok(0);
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut copied = 0;
    loop {
        match timeout(ANSWER_MAX, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => return Ok(copied),
            Ok(Ok(length)) => {
                reply.write_bytes(&buffer[..length]).await?;
                copied += length;
            }
        }
    }
}

/// HAProxy's answer.
fn not_found(prefix: &str) -> String {
    let prefix = printable(prefix, LOGGED_CHARS_MAX);
    format!("Can't find the target PID matching the prefix '@{prefix}'\n")
}

async fn fail(reply: &mut ReplyWriter, problem: String) -> io::Result<()> {
    reply.send(Reply::error(problem)).await?;
    reply.end().await
}

/// `show proc`: HAProxy's table. This process is its master and its worker in one.
pub(super) fn show(context: &CommandContext) -> String {
    let shared = &context.shared;
    let snapshot = shared.snapshot.load();
    let (global, pid) = (&snapshot.global, shared.process.pid);
    let reloads = &global.reloads;
    let reloads = format!(
        "{} [failed: {}]",
        reloads.succeeded.load(Relaxed),
        reloads.failed.load(Relaxed)
    );
    let (version, up) = (env!("CARGO_PKG_VERSION"), global.start.elapsed());
    let mut text = String::new();
    row(
        &mut text,
        ["#<PID>", "<type>", "<reloads>", "<uptime>", "<version>"].map(str::to_owned),
    );
    let own = |kind: &str, reloads: &str| {
        [
            pid.to_string(),
            kind.to_owned(),
            reloads.to_owned(),
            uptime(up),
            version.to_owned(),
        ]
    };
    row(&mut text, own("master", &reloads));
    text.push_str("# workers\n");
    row(&mut text, own("worker", "0"));
    let old = global.old_processes.load();
    if !old.is_empty() {
        text.push_str("# old workers\n");
    }
    let now = Instant::now();
    for process in old.iter() {
        let up = now.saturating_duration_since(process.started);
        let columns = [
            process.pid.to_string(),
            "worker".to_owned(),
            process.upgrades.to_string(),
            uptime(up),
            process.version.to_string(),
        ];
        row(&mut text, columns);
    }
    text
}

fn row(text: &mut String, columns: [String; 5]) {
    let [pid, kind, reloads, uptime, version] = columns;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{pid:<15} {kind:<15} {reloads:<15} {uptime:<15} {version:<15}"
    );
}

/// `1d02h03m04s`.
fn uptime(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    format!(
        "{days}d{hours:02}h{:02}m{:02}s",
        seconds / 60 % 60,
        seconds % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_names_a_process() {
        let own = format!("@!{} show info", std::process::id());
        for (command, expected) in [
            ("show info", None),
            ("@1 show info", Some((Target::Own, "show info"))),
            (" @master  show info", Some((Target::Own, "show info"))),
            (&own, Some((Target::Own, "show info"))),
            (
                "@!4294967295 a\\;b",
                Some((Target::Process(u32::MAX), "a\\;b")),
            ),
            ("@!x show info", Some((Target::Unknown("!x"), "show info"))),
            ("@2 show info", Some((Target::Unknown("2"), "show info"))),
            ("@1", Some((Target::Own, ""))),
        ] {
            assert_eq!(addressed(command), expected, "{command}");
        }
    }

    #[test]
    fn an_uptime_is_written_as_by_haproxy() {
        assert_eq!(uptime(Duration::from_secs(127)), "0d00h02m07s");
        assert_eq!(uptime(Duration::from_secs(93_784)), "1d02h03m04s");
    }
}
