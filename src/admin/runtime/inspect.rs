//! What people look at at night: `show activity`, `show threads`, `show fd`, `show startup-logs`, `show
//! default-server`. Admin thread. The forms are HAProxy's; what rlb does not have is left out.

use super::CommandContext;
use super::names;
use super::reply::{Reply, ReplyWriter};
use super::set::leading_number;
use crate::live::Gauge;
use rustix::param::clock_ticks_per_second;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// The letters for kinds of descriptors in `show fd`, and those that turn their meaning round.
const FD_KINDS: &str = "!-plcfbs";

/// Descriptors that are looked at in one turn.
const FDS_A_TURN: usize = 500;

/// `show activity`: counters, of all workers and of each.
pub(super) fn activity(context: &CommandContext) -> Reply {
    let snapshot = context.shared.snapshot.load_full();
    let global = &snapshot.global;
    #[expect(clippy::disallowed_methods, reason = "the date is what is shown")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let up = global.start.elapsed();
    let mut text = format!(
        "date_now: {}.{:06}\nuptime_now: {}.{:06}\n",
        now.as_secs(),
        now.subsec_micros(),
        up.as_secs(),
        up.subsec_micros()
    );
    let workers = context.workers.count();
    let mut line = |name: &str, values: Vec<u64>| {
        let total = values
            .iter()
            .fold(0, |sum: u64, one| sum.wrapping_add(*one));
        let each: Vec<String> = values.iter().map(u64::to_string).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}: {total} [ {} ]", each.join(" "));
    };
    let shards = || global.traffic.iter().take(workers);
    line("accepted", shards().map(|one| one.conn_tot.get()).collect());
    line(
        "curr_sess",
        global.load.workers().map(|one| one.get().into()).collect(),
    );
    line(
        "bytes_out",
        shards().map(|one| one.bytes_out.get()).collect(),
    );
    line(
        "spliced_bytes_out",
        shards().map(|one| one.spliced_out.get()).collect(),
    );
    line(
        "accept_paused",
        shards().map(|one| one.paused.get()).collect(),
    );
    Reply::Text(text)
}

/// `show threads`: every thread of the process, with its processor time.
pub(super) fn threads(context: &CommandContext) -> Reply {
    let snapshot = context.shared.snapshot.load_full();
    let sessions: Vec<u32> = snapshot.global.load.workers().map(Gauge::get).collect();
    let own = fs::read_link("/proc/thread-self").unwrap_or_default();
    let own = own
        .file_name()
        .and_then(|id| id.to_str()?.parse::<i32>().ok());
    let mut ids: Vec<i32> = match fs::read_dir("/proc/self/task") {
        Ok(list) => list
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect(),
        Err(error) => return Reply::error(format!("Threads are not shown: {error}.\n")),
    };
    ids.sort_unstable();
    let mut text = String::new();
    for (number, id) in (1..).zip(ids) {
        // It may have ended meanwhile.
        let Some(thread) = Thread::read(id) else {
            continue;
        };
        let mark = if Some(id) == own { '*' } else { ' ' };
        let Thread { name, state, ms } = thread;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{mark} Thread {number} : id={id} name={name} state={state} cpu_ms={ms}"
        );
        let worker = name
            .strip_prefix("worker-")
            .and_then(|it| it.parse::<usize>().ok());
        if let Some(sessions) = worker.and_then(|worker| sessions.get(worker)) {
            let _ = write!(text, " sess={sessions}");
        }
        text.push('\n');
    }
    Reply::Text(text)
}

/// A thread, from its `stat` in `/proc` (proc(5)).
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    name: String,
    state: String,
    /// Processor time in ms.
    ms: u64,
}

impl Thread {
    fn read(id: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?;
        Self::parse(&text, clock_ticks_per_second())
    }

    fn parse(text: &str, ticks: u64) -> Option<Self> {
        // The name may have any characters, brackets too.
        let (before, rest) = text.rsplit_once(") ")?;
        let (_, name) = before.split_once(" (")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks_of = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let used = ticks_of(11)? + ticks_of(12)?;
        Some(Self {
            name: name.to_owned(),
            state: (*fields.first()?).to_owned(),
            ms: used * 1000 / ticks.max(1),
        })
    }
}

/// The descriptor that `show fd` is asked for; `None`: all. HAProxy's words for kinds of descriptors select none here.
fn wanted_descriptor(args: &[&str]) -> Result<Option<i64>, &'static str> {
    let is_number = |word: &&str| word.starts_with(|it: char| it.is_ascii_digit() || it == '/');
    let kinds = args.iter().take_while(|word| !is_number(word));
    if kinds
        .clone()
        .any(|word| word.contains(|it| !FD_KINDS.contains(it)))
    {
        return Err("Invalid FD type\n");
    }
    let Some(word) = args.get(kinds.count()) else {
        return Ok(None);
    };
    let number = |text| leading_number(text).map(|(number, _)| number);
    match word.split_once('/') {
        None => Ok(number(word)),
        // There is one group of threads.
        Some((group, _)) if !group.is_empty() && number(group) != Some(1) => Err("Invalid TGID.\n"),
        Some((_, "")) => Ok(None),
        Some((_, text)) => Ok(Some(number(text).unwrap_or(0))),
    }
}

/// `show fd [<number>]`: the descriptors of the process and what they are.
pub(super) async fn descriptors(
    context: &CommandContext,
    reply: &mut ReplyWriter,
    args: &[&str],
) -> io::Result<()> {
    let wanted = match wanted_descriptor(args) {
        Ok(wanted) => wanted,
        Err(problem) => return reply.send(Reply::error(problem)).await,
    };
    let mut numbers: Vec<i64> = match wanted {
        Some(number) => vec![number],
        None => fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect(),
    };
    numbers.sort_unstable();
    for turn in numbers.chunks(FDS_A_TURN) {
        let mut text = String::new();
        for number in turn {
            let path = PathBuf::from(format!("/proc/self/fd/{number}"));
            // The one of the list, or one that was closed meanwhile.
            let Ok(target) = fs::read_link(path) else {
                continue;
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{number:>7} : {}", target.display());
        }
        reply.write(&text).await?;
        // The statistics have their turn between two chunks.
        if !context.shared.stop.is_cancelled() {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// `show default-server [<backend>]`: a server has no named defaults, so there is none to list.
pub(super) fn default_server(context: &CommandContext, args: &[&str]) -> Reply {
    let snapshot = context.shared.snapshot.load();
    match args.first() {
        Some(name) if names::backend(&snapshot, name).is_none() => {
            Reply::error("Can't find backend.\n")
        }
        _ => Reply::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each answer is that of HAProxy 3.5.
    #[test]
    fn a_descriptor_is_named_as_in_haproxy() {
        let invalid = Err("Invalid FD type\n");
        for (words, wanted) in [
            ("", Ok(None)),
            ("3", Ok(Some(3))),
            ("3x", Ok(Some(3))),
            ("3 foo", Ok(Some(3))),
            ("p", Ok(None)),
            ("! 4", Ok(Some(4))),
            ("l 3", Ok(Some(3))),
            ("/3", Ok(Some(3))),
            ("1/3", Ok(Some(3))),
            ("1/", Ok(None)),
            ("2/3", Err("Invalid TGID.\n")),
            ("foo", invalid),
            ("-1", invalid),
            ("p foo", invalid),
        ] {
            let args: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
            assert_eq!(wanted_descriptor(&args), wanted, "{words}");
        }
    }

    #[test]
    fn a_thread_is_read_whatever_its_name_is() {
        let line = "12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 20 0 0 20 0 1 0 99\n";
        let expected = Thread {
            name: "a) b (c".to_owned(),
            state: "S".to_owned(),
            ms: 500,
        };
        assert_eq!(Thread::parse(line, 100), Some(expected));
        assert_eq!(Thread::parse("12 (x) S 1", 100), None);
    }
}
