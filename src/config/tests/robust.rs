//! Nothing panics: mangled files, the seeds of the fuzz target, long and large files.

use super::{diagnostics, load};
use crate::config::diagnostic::DIAGNOSTICS_MAX;
use proptest::prelude::*;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Loads and renders everything, twice with the same result.
fn exercise(text: &str) {
    let found = diagnostics(load(text));
    for diagnostic in &found {
        let place = diagnostic.place.as_ref();
        assert!(place.is_none_or(|place| place.span.end <= text.len()));
        let _ = (
            diagnostic.render(true),
            diagnostic.to_json(),
            diagnostic.line(),
        );
    }
    assert_eq!(found, diagnostics(load(text)));
}

fn reference() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
    fs::read_to_string(path).expect("the reference")
}

#[test]
fn seeds_of_the_fuzz_target_do_not_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/config_toml");
    let mut count = 0;
    for seed in fs::read_dir(folder).expect("the seeds") {
        let bytes = fs::read(seed.expect("an entry").path()).expect("a seed");
        exercise(&String::from_utf8_lossy(&bytes));
        count += 1;
    }
    assert!(count > 0);
}

/// `text` with `what` in place of some of its bytes.
fn mangle(text: &str, at: prop::sample::Index, length: usize, what: &str) -> String {
    let mut start = at.index(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = (start + length).min(text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    format!("{}{what}{}", &text[..start], &text[end..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mangled_files_do_not_panic(
        cuts in prop::collection::vec(
            (any::<prop::sample::Index>(), 0usize..40, "[\\[\\]{}\"'=,\n #.$0-9a-z*:é-]{0,6}"),
            1..6,
        ),
    ) {
        let mut text = reference();
        for (at, length, what) in cuts {
            text = mangle(&text, at, length, &what);
        }
        exercise(&text);
    }

    #[test]
    fn any_text_does_not_panic(text in "\\PC{0,200}") {
        exercise(&text);
        exercise(&format!("[[listen]]\nname = '{text}'\nbind = '{text}'\nservers = [{{ name = 's', address = '{text}' }}]"));
    }
}

/// A file with more problems than are shown fails, and the number of the others is reported.
#[test]
fn many_problems_are_counted() {
    let mut text = String::new();
    for index in 0..DIAGNOSTICS_MAX + 10 {
        writeln!(text, "key{index} = 1").expect("a string");
    }
    let found = load(&text).expect_err("unknown keys");
    assert_eq!(found.len(), DIAGNOSTICS_MAX + 1);
    assert_eq!(
        found[DIAGNOSTICS_MAX].message,
        "10 more problems are not shown"
    );
    let mut text = String::new();
    for index in 0..DIAGNOSTICS_MAX + 10 {
        writeln!(text, "[[log.target]]\nto = {index}").expect("a string");
    }
    assert!(load(&text).is_err());
}

#[test]
fn port_ranges_are_bounded() {
    let found = load("[stats]\nbind = ['127.0.0.1:1-65535', '127.0.0.2:1-65535']")
        .expect_err("too many addresses");
    assert_eq!(found[0].code, "out-of-range", "{found:?}");
}
