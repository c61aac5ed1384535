//! The program under the name `haproxy`: HAProxy's command line, messages, exit codes and signals, so
//! that a unit, a container or a script that starts HAProxy starts rlb with the same words.
//!
//! The files are converted as by `rlb run --haproxy`; what is not carried over is an error here too,
//! unless `--allow-degraded` or `--http=drop` stand on the command line. Main thread.

mod arguments;
mod help;
mod libraries;
mod messages;
mod old_processes;
mod version;

use super::limits;
use crate::app::{self, SignalMeaning, Start};
use crate::config::model::{Config, Source};
use crate::config::{Limits, Load};
use crate::control::handover::{self, Predecessor, Program};
use crate::convert::{
    self, Conversion, Converted, Dumped, HaproxyFiles, Input, NoListener, ProcessWords,
};
use crate::log::events::{self, EventFormat};
use crate::sys::identity::{Identity, Kept};
use crate::sys::launcher::{self, Launcher};
use crate::sys::{raw, users};
use arguments::{Arguments, Refused, Request};
use messages::Messages;
use rustix::process::{Signal, geteuid};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// The name.
const NAME: &str = "haproxy";

/// Exit code of files without an error in which nothing listens.
const EXIT_NO_LISTENER: u8 = 2;
/// The code of a problem of a configuration in which nothing listens.
const NO_LISTENER: &str = "no-listener";
/// Exit code of a condition that cannot be read.
const EXIT_CONDITION: u8 = 2;

/// What a shell adds to the number of the signal that has ended a process.
const SIGNALLED: u8 = 128;
/// The number of SIGINT.
const INTERRUPTED: u8 = 2;

/// How long writing the last events may take.
const FLUSH_MAX: Duration = Duration::from_millis(500);

/// The words of the command line when the program was started under the name `haproxy`.
pub(super) fn words() -> Option<Vec<OsString>> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().map(Path::new)?.file_name()?;
    (name == NAME).then_some(words)
}

/// Does what the words ask for.
pub(super) fn run(words: &[OsString]) -> ExitCode {
    // Those of a HAProxy master that executes this program are blocked.
    raw::unblock_signals();
    // The program that goes into the background is started by its own path. `pgrep -x haproxy` finds it too.
    let _ = rustix::thread::set_name(c"haproxy");
    let (name, rest) = words.split_first().unzip();
    let name = name.map_or(OsStr::new(NAME), OsString::as_os_str);
    let request = match arguments::parse(rest.unwrap_or_default()) {
        Ok(request) => request,
        Err(refused) => return refuse(&refused, name),
    };
    match request {
        Request::Version(which) => {
            print!("{}", version::text(which));
            ExitCode::SUCCESS
        }
        Request::MemoryHelp => {
            print_whole(&help::memory());
            ExitCode::SUCCESS
        }
        Request::Condition(text) => match convert::condition_holds(&text) {
            Ok(holds) => ExitCode::from(u8::from(!holds)),
            Err(why) => {
                let text = format!("config : Failed to evaluate condition: {why}");
                Messages::new(false).alert(&text);
                ExitCode::from(EXIT_CONDITION)
            }
        },
        Request::Run(arguments) => match run_or_check(&arguments, words) {
            Ok(code) => code,
            Err(Told) => ExitCode::FAILURE,
        },
    }
}

fn refuse(refused: &Refused, name: &OsStr) -> ExitCode {
    let usage = || {
        print!("{}", version::text(arguments::Version::Lines));
        eprint!("{}", version::usage(&name.to_string_lossy()));
    };
    match refused {
        Refused::Usage => usage(),
        Refused::Misused(why) => {
            Messages::new(false).alert(why);
            usage();
        }
        Refused::Alert(why) => Messages::new(false).alert(why),
    }
    ExitCode::FAILURE
}

/// What went wrong was told.
struct Told;

/// The process that has started this one, in one of the two ways in which rlb starts itself.
struct StartedBy {
    predecessor: Option<Predecessor>,
    launcher: Option<Launcher>,
}

impl StartedBy {
    fn of_this_process(messages: &Messages) -> Result<Self, Told> {
        let predecessor = or_alert(messages, "cannot take over", Predecessor::connect())?;
        // What the process before was started with is still in the environment.
        let launcher = match predecessor {
            Some(_) => Ok(None),
            None => Launcher::of_this_process(),
        };
        let launcher = or_alert(messages, "cannot go into the background", launcher)?;
        Ok(Self {
            predecessor,
            launcher,
        })
    }

    /// Whether it has done what is done once.
    fn is_rlb(&self) -> bool {
        self.predecessor.is_some() || self.launcher.is_some()
    }
}

fn or_alert<T>(messages: &Messages, what: &str, done: io::Result<T>) -> Result<T, Told> {
    done.map_err(|error| {
        messages.alert(&format!("[haproxy.main()] {what}: {error}"));
        Told
    })
}

fn run_or_check(arguments: &Arguments, words: &[OsString]) -> Result<ExitCode, Told> {
    let messages = Messages::new(arguments.quiet && !arguments.verbose);
    if let Some(started) = handover::start_next() {
        let what = "cannot start the process that is to take over";
        return or_alert(&messages, what, started).map(|()| ExitCode::SUCCESS);
    }
    // Before anything can change the program's path.
    let program = Program::of_this_process();
    let program = or_alert(&messages, "cannot tell where this program is", program)?;
    let started_by = StartedBy::of_this_process(&messages)?;
    if let (Some(directory), false) = (&arguments.directory, started_by.is_rlb()) {
        let what = format!("Could not change to directory {}", directory.display());
        or_alert(&messages, &what, std::env::set_current_dir(directory))?;
    }
    if let Some(numbers) = arguments.dump {
        return dump(arguments, numbers, &messages);
    }
    let result = checked(arguments, &messages);
    let checked = result.inspect_err(|Told| {
        if let Some(predecessor) = &started_by.predecessor {
            predecessor.refuse("the configuration is not valid: what it has logged says why");
        }
    })?;
    if !started_by.is_rlb() {
        show(arguments, &messages)?;
    }
    if arguments.traces_help {
        print_whole(help::TRACES);
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        return Ok(checked.verdict(arguments, &messages));
    }
    if checked.daemon(arguments) && !started_by.is_rlb() {
        let what = "Cannot fork";
        return or_alert(&messages, what, launcher::launch(words));
    }
    if let (Some(memory), false) = (&arguments.memory, started_by.is_rlb()) {
        let text = format!("-m {memory}: rlb limits its memory by `maxconn` alone");
        messages.notice(&text);
    }
    serve(arguments, checked, (program, started_by), &messages)
}

/// `-dC`: the words of the files, which are not judged.
fn dump(arguments: &Arguments, numbers: bool, messages: &Messages) -> Result<ExitCode, Told> {
    if let Some(why) = messages::unreadable(&arguments.files) {
        messages.alert(&why);
        return Err(Told);
    }
    let inputs = convert::read(&arguments.files);
    let inputs = inputs.map_err(|why| {
        messages.alert(&format!("config : {why}"));
        messages.alert("config : Fatal errors found in configuration.");
        Told
    })?;
    let mut broken = false;
    for part in convert::dump(&inputs, numbers, convert::of_this_process()) {
        match part {
            Dumped::Words(_) if messages.is_quiet() => {}
            Dumped::Words(text) => print_whole(&text),
            Dumped::Problem(text) => messages.alert(&format!("config : {text}")),
            Dumped::Broken(file) => {
                broken = true;
                let text = format!("config : Error(s) found in configuration file : {file}");
                messages.alert(&text);
            }
        }
    }
    if broken {
        messages.alert("config : Fatal errors found in configuration.");
        return Err(Told);
    }
    Ok(ExitCode::SUCCESS)
}

/// What `-dL`, `-dA` and `-dK` show of a program whose files are valid.
fn show(arguments: &Arguments, messages: &Messages) -> Result<(), Told> {
    if arguments.libraries {
        let files = or_alert(messages, "cannot list what is loaded", libraries::list())?;
        if let Some(path) = &arguments.archive {
            libraries::copy(&files, path).map_err(|failed| {
                messages.alert(&failed.to_string());
                Told
            })?;
        }
        messages.say("List of loaded object files:");
        let lines = files.iter().map(|file| format!("{}\n", file.display()));
        print_whole(&lines.collect::<String>());
    }
    if let Some(classes) = &arguments.keywords {
        print_whole(&help::keywords(classes));
    }
    Ok(())
}

/// Prints `text`. A reader that has seen enough (head) is no failure.
fn print_whole(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Files that could be run.
struct Checked {
    files: HaproxyFiles,
    limits: Limits,
    load: Load,
    process: ProcessWords,
    listens: bool,
}

/// Reads, converts and loads the files, and tells what is wrong with them.
fn checked(arguments: &Arguments, messages: &Messages) -> Result<Checked, Told> {
    if let Some(why) = messages::unreadable(&arguments.files) {
        messages.alert(&why);
        return Err(Told);
    }
    if !arguments.master_sockets.is_empty() && !arguments.master_worker {
        let text = "config : a master CLI socket was defined, but master-worker mode (-W) is not \
                    enabled.";
        messages.warning(text);
    }
    let mut options = arguments.convert;
    // A check only says that nothing would listen.
    options.log_tag = Some("haproxy");
    options.no_listener = if arguments.check || arguments.master_worker {
        NoListener::Accepted
    } else {
        NoListener::OfMaster
    };
    let files = HaproxyFiles {
        paths: arguments.files.clone(),
        more: arguments.statements(),
        options,
    };
    let limits = limits::of_this_machine();
    let Converted { load, conversion } = files.load(&limits);
    let Some(conversion) = conversion else {
        if let Err(problems) = &load.loaded {
            for problem in problems {
                messages.alert(&problem.message);
            }
        }
        return Err(Told);
    };
    let Conversion {
        report,
        process,
        listens,
        ..
    } = conversion;
    messages.tell_report(&report, arguments.verbose || arguments.diagnostic);
    let (Ok((_, problems)) | Err(problems)) = &load.loaded;
    if !listens && problems.iter().any(|problem| problem.code == NO_LISTENER) {
        messages.alert(
            "[haproxy.main()] No enabled listener found (check for 'bind' directives) ! Exiting.",
        );
        return Err(Told);
    }
    messages.tell_load(problems);
    if load.loaded.is_err() {
        messages.alert("config : Fatal errors found in configuration.");
        return Err(Told);
    }
    if identity_of(&process, messages).is_err() {
        messages.alert("config : Fatal errors found in configuration.");
        return Err(Told);
    }
    if messages.warned() && (arguments.zero_warning || process.zero_warning) {
        let text = "config : Some warnings were found and 'zero-warning' is set. Aborting.";
        messages.alert(text);
        return Err(Told);
    }
    Ok(Checked {
        files,
        limits,
        load,
        process,
        listens,
    })
}

impl Checked {
    /// What `-c` says of it.
    fn verdict(&self, arguments: &Arguments, messages: &Messages) -> ExitCode {
        if messages.warned() {
            messages.say("Warnings were found.");
        }
        // HAProxy's master process always listens.
        if self.listens || arguments.master_worker || self.process.master_worker {
            messages.say("Configuration file is valid");
            ExitCode::SUCCESS
        } else {
            messages.say(
                "Configuration file has no error but will not start (no listener) => exit(2).",
            );
            ExitCode::from(EXIT_NO_LISTENER)
        }
    }

    /// Whether it is to run in the background.
    fn daemon(&self, arguments: &Arguments) -> bool {
        arguments.daemon || (self.process.daemon && !arguments.foreground)
    }
}

impl Arguments {
    /// The options that are statements of a configuration.
    fn statements(&self) -> Option<Input> {
        let maxconn = self.maxconn.map(|number| format!("  maxconn {number}\n"));
        let sockets = self.master_sockets.iter().filter(|_| self.master_worker);
        let sockets = sockets.map(|socket| {
            let words: Vec<String> = socket.split(',').map(quoted).collect();
            let has_level = words.iter().any(|word| word == "level");
            let level = if has_level { "" } else { " level admin" };
            format!("  stats socket {}{level}\n", words.join(" "))
        });
        let lines: String = maxconn.into_iter().chain(sockets).collect();
        (!lines.is_empty()).then(|| Input {
            name: "command line".to_owned(),
            bytes: format!("global\n{lines}").into_bytes(),
        })
    }

    fn level(&self) -> LevelFilter {
        if self.debug {
            LevelFilter::DEBUG
        } else if self.quiet && !self.verbose {
            LevelFilter::WARN
        } else {
            LevelFilter::INFO
        }
    }
}

/// A word of a command line as a word of a statement.
fn quoted(word: &str) -> String {
    let special = |c: char| matches!(c, ' ' | '#' | '\'' | '"' | '\\');
    let parts = word.chars().flat_map(|c| {
        let backslash = special(c).then_some('\\');
        backslash.into_iter().chain([c])
    });
    parts.collect()
}

/// Runs until a signal or an upgrade ends it.
fn serve(
    arguments: &Arguments,
    checked: Checked,
    (program, started_by): (Program, StartedBy),
    messages: &Messages,
) -> Result<ExitCode, Told> {
    let StartedBy {
        predecessor,
        launcher,
    } = started_by;
    let log = events::init(events::Options {
        format: EventFormat::Human,
        level: arguments.level(),
    });
    let log = or_alert(
        messages,
        "cannot write events",
        log.map_err(io::Error::other),
    )?;
    let daemon = checked.daemon(arguments);
    let Checked {
        files,
        limits,
        load,
        process,
        ..
    } = checked;
    let Ok((config, _)) = load.loaded else {
        return Err(Told);
    };
    let identity = identity(&process, messages)?;
    use_capabilities(&config, (identity, kept(&process)), messages)?;
    let reloads = arguments.master_worker || process.master_worker;
    let pid_file = arguments.pid_file.clone();
    let pid_file = pid_file.or_else(|| process.pid_file.map(PathBuf::from));
    // The process before has dealt with them.
    let old = match predecessor {
        None => arguments.old_processes(messages)?,
        Some(_) => None,
    };
    log.recent().begin_start(&messages.take_told());
    let options = app::RunOptions {
        config,
        input: files.input(),
        files: load.files,
        limits,
        program: Some(program),
        predecessor: predecessor.clone(),
        start: Start {
            signals: SignalMeaning::Haproxy { reloads },
            old,
            pid_file: pid_file.filter(|_| daemon || reloads),
            launcher: launcher.map(|launcher| (launcher, log.clone())),
            recent: log.recent(),
            identity,
        },
    };
    let ended = app::run(options);
    log.flush(FLUSH_MAX);
    let code = |signal| exit_code(signal, reloads);
    ended.map(code).map_err(|error| {
        if let Some(predecessor) = predecessor {
            predecessor.refuse(&error.to_string());
        }
        tell_failure(&error, messages);
        Told
    })
}

/// Puts capabilities into force that are kept. Refuses a configuration that needs others than those, where root is given up.
fn use_capabilities(
    config: &Config,
    (identity, kept): (Option<Identity>, Kept),
    messages: &Messages,
) -> Result<(), Told> {
    if identity.is_some_and(Identity::gives_up_root)
        && let Some(missing) = missing(config, kept)
    {
        // HAProxy's words.
        let text =
            "Some configuration options require full privileges, so global.uid cannot be changed.";
        messages.alert(&format!("[haproxy.main()] {text}"));
        messages.alert(&format!(
            "[haproxy.main()] write 'setcap {missing}' in the 'global' section."
        ));
        return Err(Told);
    }
    let what = "Cannot use the capabilities of `setcap`";
    or_alert(messages, what, kept.use_permitted())
}

/// The capability for connections to servers that is given up with root, unless it is among `kept`.
fn missing(config: &Config, kept: Kept) -> Option<&'static str> {
    let foreign = |source: &Option<Source>| {
        let mut addresses = source.iter().flat_map(|source| source.iter());
        addresses.any(|address| address.usesrc.is_some())
    };
    let servers = || config.backends.iter().flat_map(|it| &it.servers);
    let mut sources = config.backends.iter().map(|backend| &backend.source);
    let foreign = sources.any(foreign) || servers().any(|server| foreign(&server.source));
    let moved = servers().any(|server| {
        let socket = server.socket.as_ref();
        socket.is_some_and(|socket| socket.namespace.is_some())
    });
    if foreign && !kept.has_foreign_addresses() {
        return Some("cap_net_admin");
    }
    (moved && !kept.has_namespaces()).then_some("cap_sys_admin")
}

/// What is kept when root is given up.
fn kept(process: &ProcessWords) -> Kept {
    Kept::named(process.capabilities.iter().map(String::as_str))
}

/// Whom a process that was started as root is to become, which it must be able to.
fn identity(process: &ProcessWords, messages: &Messages) -> Result<Option<Identity>, Told> {
    let identity = identity_of(process, messages)?;
    if let Some(identity) = identity {
        let what = "Cannot set the user and the group of `global`";
        or_alert(messages, what, identity.may_take())?;
    }
    Ok(identity)
}

/// Whom a process that was started as root is to become. Names have to exist only then.
fn identity_of(process: &ProcessWords, messages: &Messages) -> Result<Option<Identity>, Told> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let find = |what: &str, text: Option<&String>, find: fn(&str) -> io::Result<u32>| {
        let number = text.map(|text| find(text)).transpose();
        number.map_err(|error| {
            messages.alert(&format!("config : cannot find {what} id for {error}"));
            Told
        })
    };
    let user = find("user", process.user.as_ref(), users::user)?;
    let group = find("group", process.group.as_ref(), users::group)?;
    Ok(Identity::to_take(user, group, kept(process)))
}

/// Ends the process as HAProxy ends: without `-W` by the signal that has ended it at once, so that this does not
/// return. With it, HAProxy's master reports only an interrupt.
fn exit_code(signal: Option<Signal>, reloads: bool) -> ExitCode {
    match signal {
        Some(signal) if !reloads => {
            raw::end_by(signal);
            // The kernel does not end the first process of a container by a signal.
            ExitCode::from(SIGNALLED + u8::try_from(signal.as_raw()).unwrap_or_default())
        }
        Some(Signal::INT) => ExitCode::from(SIGNALLED + INTERRUPTED),
        Some(_) | None => ExitCode::SUCCESS,
    }
}

fn tell_failure(error: &app::Error, messages: &Messages) {
    let app::Error::Listen(problems) = error else {
        return messages.alert(&format!("[haproxy.main()] {error}"));
    };
    for problem in problems {
        messages.alert(&format!("Binding for proxy {problem}"));
    }
    messages.alert("[haproxy.main()] Some protocols failed to start their listeners! Exiting.");
}
