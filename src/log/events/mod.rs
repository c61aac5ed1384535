//! Events for people: the `tracing` subscriber of the process, which writes to stderr.
//!
//! The start sets it up once; every thread writes to it, except the workers' hot path. Invariant: an event
//! never waits for the reader of stderr. What stderr does not take waits in a bounded buffer
//! (`output::PENDING_MAX`), which a thread of its own writes. Above that bound events are dropped, and the next
//! one that can be written tells how many.

mod recent;

pub use recent::{RecentEvents, start_line};

use super::output::{Destination, Output};
use jiff::{Timestamp, Zoned};
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};

/// Target of events whose message says everything in words, for scripts that look for those words.
/// The fields beside it are for programs: text has the message alone, JSON has both.
pub const IN_WORDS: &str = "in-words";

/// The format of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EventFormat {
    /// Text: for a terminal, or with priorities when stderr is the journal of systemd.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Arguments of [`init`].
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The format.
    pub format: EventFormat,
    /// Least severe level that is written.
    pub level: LevelFilter,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: EventFormat::Human,
            level: LevelFilter::INFO,
        }
    }
}

/// The format after stderr was examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Local time, level, text; coloured on a terminal.
    Plain { ansi: bool },
    /// `<6>` and text: journald adds the time and reads the priority from the prefix.
    Journal,
    /// One object per line, time in UTC.
    Json,
}

/// Pause before stderr is tried again: the first one, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Writes events; flushed before the process exits.
#[derive(Debug, Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
    style: Style,
    recent: RecentEvents,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified when something waits for stderr.
    waits: Condvar,
}

#[derive(Debug)]
struct State {
    output: Output,
    /// Events dropped and not reported yet.
    lost: u64,
}

/// Sends the events of the whole process to stderr from now on.
///
/// # Errors
/// When another subscriber is set already, or no thread can be started.
pub fn init(options: Options) -> Result<EventLog, InitError> {
    let stderr = io::stderr();
    let style = match options.format {
        EventFormat::Json => Style::Json,
        EventFormat::Human if is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) => {
            Style::Journal
        }
        EventFormat::Human => Style::Plain {
            // https://no-color.org: any value but the empty one.
            ansi: stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        },
    };
    let log = EventLog::new(Output::new(Destination::Stderr), style);
    log.drain()?;
    tracing::subscriber::set_global_default(subscriber(log.clone(), options.level))?;
    Ok(log)
}

/// Why events cannot be sent to stderr.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Another subscriber is set.
    #[error(transparent)]
    Subscriber(#[from] SetGlobalDefaultError),
    /// The thread that writes the buffer cannot start.
    #[error("events: no thread: {0}")]
    Thread(#[from] io::Error),
}

/// Whether `journal_stream` (`device:inode`, set by systemd) is this process's stderr.
fn is_journal(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|value| value.split_once(':')) else {
        return false;
    };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else {
        return false;
    };
    File::from(stderr)
        .metadata()
        .is_ok_and(|ours| device.parse() == Ok(ours.dev()) && inode.parse() == Ok(ours.ino()))
}

fn subscriber(log: EventLog, level: LevelFilter) -> impl Subscriber + Send + Sync {
    let layer = tracing_subscriber::fmt::layer();
    let recent = log.recent.clone();
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.style {
        Style::Json => Box::new(
            layer
                .json()
                .flatten_event(true)
                .with_target(false)
                .with_current_span(false)
                .with_span_list(false)
                .with_timer(Utc)
                .with_writer(log),
        ),
        style => Box::new(
            layer
                .with_ansi(style == Style::Plain { ansi: true })
                .event_format(Text(style))
                .with_writer(log),
        ),
    };
    // An operator asks for these, however little is written.
    let recent = recent.with_filter(level.max(LevelFilter::INFO));
    Registry::default()
        .with(layer.with_filter(level))
        .with(recent)
}

impl EventLog {
    fn new(output: Output, style: Style) -> Self {
        let shared = Shared {
            state: Mutex::new(State { output, lost: 0 }),
            waits: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            style,
            recent: RecentEvents::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that writes what stderr did not take at once; otherwise the last event of a burst
    /// would wait for the next one. It sleeps while nothing waits, and ends with the process.
    fn drain(&self) -> io::Result<()> {
        let log = self.clone();
        let drain = move || {
            let mut retry = RETRY.0;
            loop {
                let state = log
                    .shared
                    .waits
                    .wait_while(log.state(), |state| !state.output.waits());
                drop(state);
                thread::park_timeout(retry);
                let written = log.catch_up(&mut log.state());
                retry = if written {
                    RETRY.0
                } else {
                    RETRY.1.min(retry * 2)
                };
            }
        };
        let builder = thread::Builder::new().name("events".to_owned());
        builder.spawn(drain).map(drop)
    }

    /// The events in memory.
    pub fn recent(&self) -> RecentEvents {
        self.recent.clone()
    }

    /// Whether events are read by people as they are written: what has several lines may be printed.
    pub fn is_for_people(&self) -> bool {
        matches!(self.style, Style::Plain { .. })
    }

    /// Writes what waits, for at most `limit`. Called before the process exits.
    pub fn flush(&self, limit: Duration) {
        self.state().output.flush_until(Instant::now() + limit);
    }

    /// Writes no more: whoever started the process in the background waits for the end of its stderr.
    pub fn leave_stderr(&self) {
        let nothing = Destination::File("/dev/null".into());
        self.state().output = Output::new(nothing);
    }

    fn line(&self, line: &[u8]) {
        let mut state = self.state();
        self.catch_up(&mut state);
        state.output.push(line, false);
        let written = state.output.flush();
        let lost = state.output.losses().lines;
        state.lost += lost;
        self.recent.add_lost(lost);
        drop(state);
        if !written {
            self.shared.waits.notify_one();
        }
    }

    /// Writes what waits, and then how many events were dropped meanwhile. `true`: nothing waits.
    fn catch_up(&self, state: &mut State) -> bool {
        let written = state.output.flush();
        if !written || state.lost == 0 {
            return written;
        }
        let told = self.lost_line(state.lost);
        state.lost = 0;
        state.output.push(told.as_bytes(), false);
        state.output.flush()
    }

    fn lost_line(&self, lost: u64) -> String {
        let text = "events lost: nobody read stderr";
        match self.style {
            Style::Plain { .. } => format!("{}  WARN {text} lost={lost}\n", local_time()),
            Style::Journal => format!("<4>{text} lost={lost}\n"),
            Style::Json => format!(
                "{{\"timestamp\":\"{:.3}\",\"level\":\"WARN\",\"message\":\"{text}\",\"lost\":{lost}}}\n",
                Timestamp::now()
            ),
        }
    }
}

impl<'a> MakeWriter<'a> for EventLog {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The formatter writes a whole event at once.
impl Write for EventLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `2026-11-22 06:51:57.996`, local.
fn local_time() -> String {
    Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// RFC 3339, UTC, milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:.3}", Timestamp::now())
    }
}

/// The two text formats.
struct Text(Style);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.0 == Style::Journal {
            write!(writer, "<{}>", priority(level))?;
        } else {
            write!(writer, "{} ", local_time())?;
            if writer.has_ansi_escapes() {
                write!(writer, "\x1b[{}m{level:>5}\x1b[0m ", colour(level))?;
            } else {
                write!(writer, "{level:>5} ")?;
            }
        }
        if event.metadata().target() == IN_WORDS {
            let mut message = Message {
                writer: writer.by_ref(),
                result: Ok(()),
            };
            event.record(&mut message);
            message.result?;
        } else {
            context.format_fields(writer.by_ref(), event)?;
        }
        writeln!(writer)
    }
}

/// Writes the message of an event and none of its fields.
struct Message<'a> {
    writer: Writer<'a>,
    result: fmt::Result,
}

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.result = write!(self.writer, "{value:?}");
        }
    }
}

/// Priority by syslog's numbers, which journald takes (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// SGR code of a level.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

#[cfg(test)]
mod tests;
