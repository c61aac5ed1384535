//! Whatever a client sends, the runtime socket's grammar does not panic: seeds of the fuzz target, random
//! bytes, and mangled commands.

use super::{LINE_BYTES_MAX, exercise_line};
use proptest::prelude::*;
use std::path::Path;

#[test]
fn seeds_of_the_fuzz_target_do_not_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/runtime_command");
    let mut count = 0;
    for seed in std::fs::read_dir(folder).unwrap() {
        exercise_line(&std::fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 5, "{count}");
    exercise_line(&b";".repeat(LINE_BYTES_MAX));
    exercise_line(&b"\\".repeat(LINE_BYTES_MAX));
}

/// Parts of commands, and others.
const PIECES: [&str; 30] = [
    "set",
    "server",
    "show",
    "stat",
    "servers",
    "state",
    "weight",
    "get",
    "info",
    "help",
    "shutdown",
    "sessions",
    "session",
    "sess",
    "older",
    "susp",
    "all",
    "0x2a",
    "b/s",
    "be",
    "-1",
    "256",
    "50%",
    "99999999999999999999",
    ";",
    "\\",
    " ",
    "\t",
    "typed",
    "\u{e9}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        exercise_line(&bytes);
    }

    #[test]
    fn mangled_commands(
        pieces in prop::collection::vec((prop::sample::select(&PIECES[..]), any::<bool>()), 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut line = Vec::new();
        for (piece, blank) in pieces {
            line.extend_from_slice(piece.as_bytes());
            if blank {
                line.push(b' ');
            }
        }
        if !line.is_empty() {
            let at = cut.index(line.len());
            exercise_line(&line[..at]);
            line[at] ^= 0x80;
        }
        exercise_line(&line);
    }
}
