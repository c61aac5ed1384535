//! What `-dM`, `-dt` and `-dK` say when they are asked for help.

use crate::config::haproxy;

/// The words of `-dM`, each with the one that takes it back.
pub(super) const MEMORY: [(&str, &str); 11] = [
    ("fail", "no-fail"),
    ("no-merge", "merge"),
    ("cold-first", "hot-first"),
    ("integrity", "no-integrity"),
    ("no-global", "global"),
    ("no-cache", "cache"),
    ("caller", "no-caller"),
    ("tag", "no-tag"),
    ("poison", "no-poison"),
    ("uaf", "no-uaf"),
    ("backup", "no-backup"),
];

/// What `-dMhelp` says.
pub(super) fn memory() -> String {
    let words = MEMORY.map(|(set, clear)| format!("    {set:<16}| {clear}\n"));
    format!(
        "-dM has no effect: rlb has no pools of memory to debug. A number may stand behind it,\n\
         and a list of these keywords with commas between them:\n\n\
         \x20   set             | clear\n  ------------------+------------------\n{}\n",
        words.concat()
    )
}

/// What `-dthelp` says.
pub(super) const TRACES: &str = "-dt has no effect: rlb has no traces. The names of any sources may stand behind it, with\n\
     levels and verbosities. -d writes events of the level DEBUG to stderr.\n";

/// The keywords of the classes in `list`, as `-dK` prints them.
pub(super) fn keywords(list: &str) -> String {
    let mut text = String::new();
    for class in list.split(',') {
        match class {
            "help" => text.push_str(
                "# List of supported keyword classes:\n\
                 all: list all keywords\n\
                 cfg: configuration keywords that are carried over\n",
            ),
            "cfg" | "all" => {
                text.push_str("# List of registered configuration keywords:\n");
                text.push_str(&haproxy::keywords());
            }
            _ => {}
        }
    }
    text
}
