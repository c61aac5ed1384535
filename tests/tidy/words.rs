//! The private words that the sources once had and that no identifier may have again. CONTRIBUTING.md has the
//! rule and the words to use instead.

use super::{Source, files};

/// Old words. Each was a name of a type, a function or a module.
const OLD: &[&str] = &[
    "Account",
    "Arrival",
    "Arrivals",
    "Asked",
    "Asking",
    "Bench",
    "Bequest",
    "Books",
    "Climate",
    "Colleagues",
    "Cx",
    "Defeat",
    "Desk",
    "Door",
    "DoorChange",
    "Doors",
    "Entrance",
    "Estate",
    "FAREWELL_MAX",
    "Fate",
    "Flight",
    "Heir",
    "Inlet",
    "Lane",
    "Manner",
    "Office",
    "PATIENCE",
    "Patience",
    "Peaks",
    "Places",
    "Proof",
    "Reach",
    "Remembered",
    "Scene",
    "Spin",
    "Wish",
    "World",
    "bequest",
    "bets",
    "climate",
    "colleagues",
    "defeat",
    "desk",
    "door",
    "doors",
    "estate",
    "fell_short",
    "heir",
    "heirs_of",
    "look_back",
    "office",
    "overdue",
    "patience",
    "relieve",
    "set_patience",
    "step_aside",
    "take_charge",
    "unforgiven",
    "unproven",
    "world",
];

/// Where an old word is still a name, and how often at most; the counts may only fall.
const LEFT: &[(&str, &str)] = &[];

/// The identifiers of a line of Rust, without comments and text in quotation marks.
fn identifiers(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut quoted = false;
    let mut start = None;
    let bytes = line.as_bytes();
    for (at, byte) in line.bytes().enumerate() {
        let part = byte.is_ascii_alphanumeric() || byte == b'_';
        match (part && !quoted, start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                found.push(&line[begin..at]);
                start = None;
            }
            _ => {}
        }
        let escaped = at > 0 && bytes[at - 1] == b'\\';
        if byte == b'"' && !escaped {
            quoted = !quoted;
        }
        if !quoted && byte == b'/' && bytes.get(at + 1) == Some(&b'/') {
            return found;
        }
    }
    found.extend(start.map(|begin| &line[begin..]));
    found
}

/// The old words in a source, each with its line. The text of a string over several lines counts too.
fn old_words(source: &Source) -> Vec<(usize, &str)> {
    let lines = source.text.lines().enumerate();
    let words = lines.flat_map(|(index, line)| {
        let words = identifiers(line).into_iter();
        words.map(move |word| (index + 1, word))
    });
    words.filter(|(_, word)| OLD.contains(word)).collect()
}

#[test]
fn no_identifier_is_a_private_word() {
    let mut found = Vec::new();
    let mut left = Vec::new();
    for source in [
        "src",
        "tests/it",
        "tests/compare",
        "tests/differential",
        "benches",
        "fuzz",
    ]
    .iter()
    .flat_map(|dir| files(dir, &[".rs"]))
    {
        for (line, word) in old_words(&source) {
            let known = LEFT.iter().find(|it| **it == (&*source.path, word));
            match known {
                Some(known) => left.push(*known),
                None => found.push(format!("{}:{line}: {word}", source.path)),
            }
        }
    }
    assert!(
        found.is_empty(),
        "see CONTRIBUTING.md, Vocabulary: {found:#?}"
    );
    let gone: Vec<_> = LEFT.iter().filter(|it| !left.contains(it)).collect();
    assert!(gone.is_empty(), "take them off the list LEFT: {gone:?}");
}

#[test]
fn an_identifier_is_told_from_text() {
    let words = |line| identifiers(line).join(" ");
    assert_eq!(words("let desk = \"a \\\" door\"; // world"), "let desk");
    assert_eq!(words("fn a_b(c: D9)"), "fn a_b c D9");
    assert_eq!(words("x"), "x");
}
