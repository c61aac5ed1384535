//! `show events`: the sinks of events, and the events in memory, which a client can also follow. Admin thread.
//!
//! A client that follows holds its slot and nothing else: it reads from the bounded memory of the process
//! ([`RecentEvents`]), and when it is too slow it misses events, which it is told. As in HAProxy, whatever it sends ends
//! the following, and so does the end of what it sends.

use super::reply::{Reply, ReplyWriter};
use super::{CommandContext, DENIED, Sender};
use crate::config::model::ApiLevel;
use crate::log::events::RecentEvents;
use std::io;

/// The sink whose events are in memory, and the one whose are not; HAProxy's names.
const BUFFER: &str = "buf0";
const STDERR: &str = "stderr";

/// Bytes that are read from the memory at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// What is shown of the events in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Options {
    /// Those that come, too.
    wait: bool,
    /// Not those that are there.
    new: bool,
    /// A NUL ends each, not a line feed.
    zero: bool,
}

impl Options {
    fn parse(words: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        for word in words {
            match *word {
                "-w" => options.wait = true,
                "-n" => options.new = true,
                "-nw" | "-wn" => (options.wait, options.new) = (true, true),
                "-0" => options.zero = true,
                _ => return None,
            }
        }
        Some(options)
    }
}

/// `show events [<sink>] [-w] [-n] [-0]`.
pub(super) async fn show(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    sender: Sender<'_>,
    (args, level): (&[&str], ApiLevel),
) -> io::Result<()> {
    let answer = match args {
        [] => Reply::warning(sinks(&context.recent)),
        _ if level < ApiLevel::Operator => Reply::error(DENIED),
        [BUFFER, words @ ..] => match Options::parse(words) {
            Some(options) => return follow(context, reply, sender, options).await,
            None => Reply::error("unknown option\n"),
        },
        [STDERR, ..] => Reply::notice("Nothing to report for this sink\n"),
        _ => Reply::error("No such event sink\n"),
    };
    reply.send(answer).await
}

fn sinks(recent: &RecentEvents) -> String {
    let lost = recent.lost();
    format!(
        "Supported events sinks are listed below. Add -0(zero), -w(wait), -n(new). Any key to stop.\n\
         \x20   {STDERR:<10} : type=fd, {lost} dropped, standard error (fd#2)\n\
         \x20   {BUFFER:<10} : type=buffer, 0 dropped, in-memory ring buffer\n"
    )
}

/// Writes the events, and with `wait` those that come until the client sends something or has gone, the process stops,
/// or a reload has removed the socket.
async fn follow(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    sender: Sender<'_>,
    options: Options,
) -> io::Result<()> {
    let mut count = context.recent.count();
    let mut next = if options.new {
        *count.borrow_and_update()
    } else {
        0
    };
    let end = if options.zero { '\0' } else { '\n' };
    loop {
        // Before reading: what comes meanwhile changes it again.
        let _ = count.borrow_and_update();
        next = write(context, reply, (next, end)).await?;
        if !options.wait || sender.lines.has_more() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = context.shared.stop.cancelled() => return Ok(()),
            () = context.removed() => return Ok(()),
            () = sender.lines.drained() => return Ok(()),
            changed = count.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

/// Writes the events that there are, from number `next` on. Returns the number of the next one.
async fn write(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    (mut next, end): (u64, char),
) -> io::Result<u64> {
    // Not those that come while it writes: a slow client would be written to without end.
    let last = *context.recent.count().borrow();
    loop {
        let events = context.recent.from(next, CHUNK_BYTES);
        let mut text = String::new();
        // Of the first ones nobody has promised any.
        if events.missed > 0 && next > 0 {
            text = format!(
                "<4>{} events missed: they came too fast{end}",
                events.missed
            );
        }
        for line in &events.lines {
            text.push_str(line);
            text.push(end);
        }
        reply.write(&text).await?;
        next = events.next;
        if next >= last || events.lines.is_empty() {
            return Ok(next);
        }
        // The statistics have their turn between two chunks.
        if !context.shared.stop.is_cancelled() {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_haproxy() {
        let all = |wait, new, zero| Some(Options { wait, new, zero });
        for (words, options) in [
            (&[][..], all(false, false, false)),
            (&["-w", "-n", "-0"], all(true, true, true)),
            (&["-nw"], all(true, true, false)),
            (&["-wn", "-w"], all(true, true, false)),
            (&["-x"], None),
            (&["-w0"], None),
            (&["w"], None),
        ] {
            assert_eq!(Options::parse(words), options, "{words:?}");
        }
    }
}
