//! `rlb demo`: shows rlb with services and clients on one machine, without root and without other programs.
//!
//! Runs the ordinary program on the main thread with a configuration made in memory; nodes and clients are in
//! `demo`.

use super::{EXIT_CONFIG, limits};
use crate::app;
use crate::config::{Files, InputFiles, Loader};
use crate::demo::{Demo, Kind, LONG_MAX, NODES, Options, RATE, Tally};
use crate::log::events::{self, RecentEvents};
use humantime::format_duration;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Stands for the path of a configuration that was made in memory.
const NO_FILE: &str = "/dev/null/rlb-demo.toml";
/// How long writing the last events may take.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// Shortest period of the node that goes away: three checks must fail while it is away.
const BLINK_MIN: Duration = Duration::from_secs(1);

/// Arguments of `rlb demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// End by itself after this many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// How often one node goes away and comes back
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = blink)]
    blink: Duration,
}

fn blink(text: &str) -> Result<Duration, String> {
    let blink = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if blink < BLINK_MIN {
        return Err(format!("at least {}", format_duration(BLINK_MIN)));
    }
    Ok(blink)
}

pub(super) fn run(args: &Args) -> ExitCode {
    let log = match events::init(events::Options::default()) {
        Ok(log) => log,
        Err(error) => return failed(&error),
    };
    let options = Options {
        blink: args.blink,
        length: args.seconds.map(Duration::from_secs),
    };
    let demo = match Demo::start(options) {
        Ok(demo) => demo,
        Err(error) => return failed(&error),
    };
    let started = match load(&demo, log.recent()) {
        Ok(started) => started,
        Err(code) => return code,
    };
    // The output may be closed.
    let _ = writeln!(std::io::stdout(), "{}", guide(&demo, options));
    let result = app::run(started);
    log.flush(FLUSH_MAX);
    let tally = demo.stop();
    match result {
        Ok(_) => {
            let _ = writeln!(std::io::stdout(), "\n{}", summary(&tally));
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rlb: {error}");
    ExitCode::FAILURE
}

fn load(demo: &Demo, recent: RecentEvents) -> Result<app::RunOptions, ExitCode> {
    let limits = limits::of_this_machine();
    let loader = Loader {
        limits: limits.clone(),
        environment: &|_| None,
        disk: false,
    };
    match loader.load_text("demo", &demo.config()) {
        Ok((config, _)) => Ok(app::RunOptions {
            config,
            // There is no file: a reload reports that and changes nothing.
            input: InputFiles::file(NO_FILE.into()),
            files: Files::default(),
            limits,
            program: None,
            predecessor: None,
            start: app::Start {
                recent,
                ..app::Start::default()
            },
        }),
        Err(problems) => {
            for problem in &problems {
                eprintln!("{}", problem.render(false));
            }
            Err(ExitCode::from(EXIT_CONFIG))
        }
    }
}

/// The addresses to open and the commands to try.
fn guide(demo: &Demo, options: Options) -> String {
    let addresses = demo.addresses();
    let mut lines = vec![
        "rlb demo: four services over three nodes, all of it in this process.".to_owned(),
        String::new(),
        format!("  {:<14} http://{}/", "statistics", addresses.stats),
        format!("  {:<14} http://{}/;csv", "for programs", addresses.stats),
    ];
    for service in &addresses.services {
        let (name, address, port) = (service.name, service.frontend(), service.port);
        let how = match service.kind {
            Kind::Page => format!("http://{address}/"),
            Kind::Postgres => format!("psql -h 127.0.0.1 -p {port} -U demo -c 'select node'"),
            Kind::Echo => format!("nc 127.0.0.1 {port}   (says back what it is told; no TLS here)"),
        };
        lines.push(format!("  {name:<14} {how}"));
    }
    let (last, _) = NODES[NODES.len() - 1];
    lines.extend([
        String::new(),
        format!(
            "About {RATE} connections a second run through it, and {LONG_MAX} long ones. \
             Every {} {last}",
            format_duration(options.blink)
        ),
        format!(
            "goes away for {}: its rows turn DOWN and UP again, its long connections are cut and",
            format_duration(options.away())
        ),
        "opened anew, new connections go to the other nodes and none fails. Try:".to_owned(),
        String::new(),
        format!(
            "  for i in 1 2 3 4 5 6; do curl -s http://{}/ | grep This; done",
            addresses.services[0].frontend()
        ),
        String::new(),
        "Ctrl-C ends it and leaves nothing behind.".to_owned(),
    ]);
    lines.join("\n")
}

fn summary(tally: &Tally) -> String {
    format!(
        "{} connections answered, {} failed; {} long ones cut by the node that went away",
        tally.answered.load(Relaxed),
        tally.failed.load(Relaxed),
        tally.cut.load(Relaxed)
    )
}
