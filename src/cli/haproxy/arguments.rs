//! HAProxy's command line: words → a request. Pure.
//!
//! As in HAProxy, most options are known by their first letter. Switches that only choose among means
//! of HAProxy's (`-de`, `-dM…`) are accepted and have no effect.

use super::help::MEMORY;
use crate::convert::Options;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `-v`, `-vv`, `-vq`, `-vqs`, `-vqb`.
    Version(Version),
    /// `-cc`: whether a condition of configuration files holds.
    Condition(String),
    /// `-dMhelp`.
    MemoryHelp,
    /// To run, or with `-c` to check.
    Run(Box<Arguments>),
}

/// How much of the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// `-v`.
    Lines,
    /// `-vv`.
    Features,
    /// `-vq`.
    Number,
    /// `-vqs`.
    ShortNumber,
    /// `-vqb`.
    Branch,
}

/// Why the command line is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The usage is printed.
    Usage,
    /// A sentence is, and then the usage.
    Misused(&'static str),
    /// A sentence is.
    Alert(String),
}

/// A run.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// `-f`, and what stands behind `--`.
    pub(super) files: Vec<PathBuf>,
    /// `-c`.
    pub(super) check: bool,
    /// `-W`, `-Ws`.
    pub(super) master_worker: bool,
    /// `-D`.
    pub(super) daemon: bool,
    /// `-db`, `-Ws`, `-d`.
    pub(super) foreground: bool,
    /// `-d`.
    pub(super) debug: bool,
    /// `-q`.
    pub(super) quiet: bool,
    /// `-V`.
    pub(super) verbose: bool,
    /// `-dW`.
    pub(super) zero_warning: bool,
    /// `-dD`.
    pub(super) diagnostic: bool,
    /// `-dC`: show the words of the files; `true`: with the numbers of lines.
    pub(super) dump: Option<bool>,
    /// `-dL`, `-dA`: list the files that the program was loaded from.
    pub(super) libraries: bool,
    /// `-dA`: copy them into this archive.
    pub(super) archive: Option<PathBuf>,
    /// `-dthelp`: say what may stand behind `-dt`, and end.
    pub(super) traces_help: bool,
    /// `-dK`: the classes of keywords to list.
    pub(super) keywords: Option<String>,
    /// `-p`.
    pub(super) pid_file: Option<PathBuf>,
    /// `-C`.
    pub(super) directory: Option<PathBuf>,
    /// `-n`.
    pub(super) maxconn: Option<u32>,
    /// `-m`.
    pub(super) memory: Option<String>,
    /// `-S`, each with what stands behind its address.
    pub(super) master_sockets: Vec<String>,
    /// The processes of `-sf` and `-st`.
    pub(super) old: Vec<i32>,
    /// `-st`: they are to end at once.
    pub(super) terminate: bool,
    /// `-x`.
    pub(super) sockets_of: Option<PathBuf>,
    /// How the files are converted.
    pub(super) convert: Options,
}

/// The words behind the program's name.
pub(super) fn parse(words: &[OsString]) -> Result<Request, Refused> {
    let mut arguments = Arguments::default();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        let Some(flag) = word.strip_prefix('-') else {
            return Err(Refused::Usage);
        };
        let mut letters = flag.chars();
        match (letters.next().unwrap_or_default(), letters.as_str()) {
            ('v', rest) => return Ok(Request::Version(version(rest))),
            ('d', rest) => {
                if rest == "t" {
                    let sources = words.next_if(|word| !starts_with_dash(word));
                    arguments.traces_help |= sources.is_some_and(|sources| sources == "help");
                }
                if let Some(help) = debugging(&mut arguments, rest)? {
                    return Ok(help);
                }
            }
            ('V', _) => arguments.verbose = true,
            ('c', rest) if rest.starts_with('c') => {
                let condition = words.next().ok_or(Refused::Usage)?;
                return Ok(Request::Condition(condition.to_string_lossy().into_owned()));
            }
            ('c', _) => arguments.check = true,
            ('D', _) => arguments.daemon = true,
            ('W', rest) => {
                arguments.master_worker = true;
                arguments.foreground |= rest.starts_with('s');
            }
            ('q', _) => arguments.quiet = true,
            ('4', _) => {}
            ('s', rest) if rest.starts_with(['f', 't']) => {
                arguments.terminate = rest.starts_with('t');
                while let Some(list) = words.next_if(|word| !starts_with_dash(word)) {
                    pids(&mut arguments.old, flag, &list.to_string_lossy())?;
                }
            }
            ('-', "") => arguments.files.extend(words.by_ref().map(PathBuf::from)),
            ('-', long) => converts(&mut arguments.convert, long)?,
            (letter, _) => {
                let missing = match letter {
                    'x' => Refused::Misused("Unix socket path expected with the -x flag"),
                    'S' => Refused::Misused(
                        "Socket and optional bind parameters expected with the -S flag",
                    ),
                    _ => Refused::Usage,
                };
                let value = words.next().ok_or(missing)?;
                with_value(&mut arguments, letter, value)?;
            }
        }
    }
    if arguments.files.is_empty() {
        return Err(Refused::Usage);
    }
    Ok(Request::Run(Box::new(arguments)))
}

fn starts_with_dash(word: &OsStr) -> bool {
    word.to_string_lossy().starts_with('-')
}

fn version(rest: &str) -> Version {
    match rest {
        "q" => Version::Number,
        "qs" => Version::ShortNumber,
        "qb" => Version::Branch,
        _ if rest.starts_with('v') => Version::Features,
        _ => Version::Lines,
    }
}

/// `-d` and what stands behind it in the same word; what it explains instead of running.
fn debugging(arguments: &mut Arguments, rest: &str) -> Result<Option<Request>, Refused> {
    /// Means of HAProxy's: epoll, poll, splice, getaddrinfo, SO_REUSEPORT, CPUs, fast forward, forks, TLS
    /// verification, zero copy, names that do not resolve, kTLS.
    const WITHOUT_EFFECT: &str = "epSGRcFIVZrTkv";
    let mut letters = rest.chars();
    let letter = letters.next();
    let value = letters.as_str();
    match letter {
        Some('b') => arguments.foreground = true,
        Some('D') => arguments.diagnostic = true,
        Some('W') => arguments.zero_warning = true,
        Some('C') => {
            // As C's atoll.
            if value.starts_with(|c: char| ('1'..='9').contains(&c)) {
                let text = "-dC: rlb makes no names anonymous";
                return Err(Refused::Alert(text.to_owned()));
            }
            arguments.dump = Some(value.split(',').any(|word| word == "line"));
        }
        Some('A') if value.is_empty() => {
            let text = "-dA: missing output file name";
            return Err(Refused::Alert(text.to_owned()));
        }
        Some('A') => {
            arguments.libraries = true;
            arguments.archive = Some(PathBuf::from(value));
        }
        Some('L') => arguments.libraries = true,
        Some('K') => arguments.keywords = Some(value.to_owned()),
        Some('M') => return memory(value),
        // rlb has no traces.
        Some('t') => arguments.traces_help |= value == "help",
        Some(letter) if WITHOUT_EFFECT.contains(letter) => {}
        // As in HAProxy, what is not known is `-d`.
        None | Some(_) => {
            arguments.debug = true;
            arguments.foreground = true;
        }
    }
    Ok(None)
}

/// What stands behind `-dM`: a number, and words. Nothing of it has an effect.
fn memory(value: &str) -> Result<Option<Request>, Refused> {
    let (first, rest) = value.split_once(',').unwrap_or((value, ""));
    let words = if is_number(first) { rest } else { value };
    for word in words.split(',').filter(|word| !word.is_empty()) {
        if word == "help" {
            return Ok(Some(Request::MemoryHelp));
        }
        if !MEMORY
            .iter()
            .any(|(set, clear)| [*set, *clear].contains(&word))
        {
            let text = format!("-dM: unknown pool debugging feature <{word}>");
            return Err(Refused::Alert(text));
        }
    }
    Ok(None)
}

/// Whether C's strtol reads all of `text`, in the base that it says itself.
fn is_number(text: &str) -> bool {
    let text = text.trim_ascii_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let hexadecimal = ["0x", "0X"].iter().find_map(|it| digits.strip_prefix(it));
    let (digits, base) = match hexadecimal {
        Some(digits) => (digits, 16),
        None if digits.starts_with('0') => (digits, 8),
        None => (digits, 10),
    };
    !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(base))
}

/// The options of `rlb convert`, which HAProxy does not have.
fn converts(options: &mut Options, long: &str) -> Result<(), Refused> {
    match long {
        "allow-degraded" => options.allow_degraded = true,
        "http=drop" => options.http_drop = true,
        "haproxy-defaults" => options.haproxy_defaults = true,
        _ => return Err(Refused::Usage),
    }
    Ok(())
}

/// Process ids, separated by blanks.
fn pids(old: &mut Vec<i32>, flag: &str, list: &str) -> Result<(), Refused> {
    let mut any = false;
    for text in list.split_ascii_whitespace() {
        any = true;
        match text.parse::<i32>() {
            Ok(pid) if pid > 0 => old.push(pid),
            Ok(_) => return Err(Refused::Usage),
            Err(_) => {
                let text = format!("-{flag} option: some bytes unconsumed in PID list {{{text}}}");
                return Err(Refused::Alert(text));
            }
        }
    }
    if any { Ok(()) } else { Err(Refused::Usage) }
}

fn with_value(arguments: &mut Arguments, letter: char, value: &OsStr) -> Result<(), Refused> {
    let text = || value.to_string_lossy().into_owned();
    // As C's atol: what is not a number is 0, and 0 asks for nothing.
    let number = || {
        let text = text();
        let end = text.find(|c: char| !c.is_ascii_digit());
        let number: u64 = text[..end.unwrap_or(text.len())].parse().unwrap_or(0);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        (number > 0).then_some(number)
    };
    match letter {
        'f' => arguments.files.push(PathBuf::from(value)),
        'p' => arguments.pid_file = Some(PathBuf::from(value)),
        'C' => arguments.directory = Some(PathBuf::from(value)),
        'n' => arguments.maxconn = number(),
        'N' => arguments.convert.frontend_maxconn = number(),
        'm' => arguments.memory = Some(text()),
        'S' => arguments.master_sockets.push(text()),
        'x' => arguments.sockets_of = Some(PathBuf::from(value)),
        // The name of this peer: rlb has no peers.
        'L' => {}
        _ => return Err(Refused::Usage),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Result<Request, Refused> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&words)
    }

    fn run(line: &str) -> Arguments {
        match request(line) {
            Ok(Request::Run(arguments)) => *arguments,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_unit_the_container_and_the_pod_are_understood() {
        let unit = run("-Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/m.sock");
        assert!(unit.master_worker && unit.foreground && !unit.daemon);
        assert_eq!(unit.files, [PathBuf::from("/etc/haproxy/haproxy.cfg")]);
        assert_eq!(unit.pid_file, Some("/run/haproxy.pid".into()));
        assert_eq!(unit.master_sockets, ["/run/m.sock"]);
        let check = run("-f a.cfg -c -q -S /run/m.sock");
        assert!(check.check && check.quiet);
        let container = run("-W -db -f /usr/local/etc/haproxy/haproxy.cfg");
        assert!(container.master_worker && container.foreground);
    }

    #[test]
    fn files_stand_behind_f_and_behind_two_dashes() {
        let files = run("-f a -f b -- c d").files;
        let names = ["a", "b", "c", "d"].map(PathBuf::from);
        assert_eq!(files, names);
        assert_eq!(request("-c"), Err(Refused::Usage));
        assert_eq!(request("a.cfg"), Err(Refused::Usage));
        assert_eq!(request("-f"), Err(Refused::Usage));
        assert_eq!(request("-k a -f b"), Err(Refused::Usage));
    }

    #[test]
    fn old_processes_are_a_list_of_words_or_of_lines() {
        assert_eq!(run("-f a -sf 1 2 -D").old, [1, 2]);
        assert_eq!(run("-f a -D -sf").old, [0; 0]);
        let words = ["-f", "a", "-st", "3\n4"].map(OsString::from);
        let Ok(Request::Run(arguments)) = parse(&words) else {
            panic!("it is a run");
        };
        assert_eq!((arguments.old, arguments.terminate), (vec![3, 4], true));
        let text = "-sf option: some bytes unconsumed in PID list {abc}";
        assert_eq!(
            request("-f a -sf abc"),
            Err(Refused::Alert(text.to_owned()))
        );
        assert_eq!(request("-f a -sf 0"), Err(Refused::Usage));
    }

    #[test]
    fn debugging_switches_have_no_effect_but_a_few() {
        let plain = run("-f a");
        for switch in [
            "-dM",
            "-dMno-merge",
            "-de",
            "-dS",
            "-dR",
            "-dV",
            "-dM5,fail,no-merge",
            "-dM0x50",
            "-dM0X50,tag",
            "-dM-5",
            "-dM+5,",
            "-dM010",
            "-dM,,",
            "-dM99999999999999999999",
            "-dM,tag",
            "-dt",
            "-dth1:user",
        ] {
            assert_eq!(run(&format!("-f a {switch}")), plain, "{switch}");
        }
        assert_eq!(run("-dt h1 -f a"), plain);
        assert!(run("-f a -d").debug && run("-f a -dx").debug);
        assert!(run("-f a -db").foreground && run("-f a -dW").zero_warning);
        assert!(run("-f a -dD").diagnostic);
    }

    #[test]
    fn what_is_shown_is_told_from_what_runs() {
        for switch in ["-dMhelp", "-dMfail,help -f a"] {
            assert_eq!(request(switch), Ok(Request::MemoryHelp), "{switch}");
        }
        for switch in ["-dthelp", "-dt help"] {
            assert!(run(&format!("{switch} -f a")).traces_help, "{switch}");
        }
        for (switch, text) in [
            ("-dA", "-dA: missing output file name"),
            ("-dMfoo", "-dM: unknown pool debugging feature <foo>"),
            ("-dM5x", "-dM: unknown pool debugging feature <5x>"),
            ("-dM5a", "-dM: unknown pool debugging feature <5a>"),
            ("-dM08", "-dM: unknown pool debugging feature <08>"),
            ("-dM0x", "-dM: unknown pool debugging feature <0x>"),
            ("-dM-,tag", "-dM: unknown pool debugging feature <->"),
            ("-dC7", "-dC: rlb makes no names anonymous"),
        ] {
            let refused = Err(Refused::Alert(text.to_owned()));
            assert_eq!(request(&format!("-f a {switch}")), refused, "{switch}");
        }
        assert_eq!(run("-f a -dC").dump, Some(false));
        assert_eq!(run("-f a -dC0,line").dump, Some(true));
        assert_eq!(run("-f a -dKcfg").keywords.as_deref(), Some("cfg"));
        assert!(run("-f a -dL").libraries);
        let archive = run("-f a -dA/tmp/x");
        assert!(archive.libraries && archive.archive == Some("/tmp/x".into()));
    }

    #[test]
    fn values_are_read_as_by_atol() {
        let all = run("-f a -n 2000 -N 12x -m 16 -L peer -C /etc -x /run/s");
        assert_eq!(all.maxconn, Some(2000));
        assert_eq!(all.convert.frontend_maxconn, Some(12));
        assert_eq!(all.memory.as_deref(), Some("16"));
        assert_eq!(all.directory, Some("/etc".into()));
        assert_eq!(all.sockets_of, Some("/run/s".into()));
        assert_eq!(run("-f a -n none").maxconn, None);
        assert!(matches!(request("-f a -x"), Err(Refused::Misused(_))));
    }

    #[test]
    fn versions_and_conditions_end_the_list() {
        for (word, version) in [
            ("-v", Version::Lines),
            ("-vv", Version::Features),
            ("-vq", Version::Number),
            ("-vqs", Version::ShortNumber),
            ("-vqb", Version::Branch),
        ] {
            assert_eq!(request(word), Ok(Request::Version(version)));
        }
        let condition = Request::Condition("feature(EPOLL)".to_owned());
        assert_eq!(request("-cc feature(EPOLL)"), Ok(condition));
        assert_eq!(request("-cc"), Err(Refused::Usage));
    }

    #[test]
    fn the_options_of_convert_are_taken() {
        let options = run("-f a --allow-degraded --http=drop --haproxy-defaults").convert;
        assert!(options.allow_degraded && options.http_drop && options.haproxy_defaults);
        assert_eq!(request("-f a --other"), Err(Refused::Usage));
    }
}
