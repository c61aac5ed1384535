use super::*;
use crate::convert::environment::Environment;

fn process(name: &str) -> Option<String> {
    match name {
        "ONE" => Some("1".to_owned()),
        "TWO" => Some("a b".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn words(line: &str) -> Vec<String> {
    let environment = Environment::new(&process, &[]);
    let words = split(line.as_bytes(), &environment).unwrap_or_else(|it| panic!("{line}: {it:?}"));
    words.into_iter().map(|word| word.text).collect()
}

fn problem(line: &str) -> (String, usize) {
    let environment = Environment::new(&process, &[]);
    let problem = split(line.as_bytes(), &environment).expect_err(line);
    (problem.message, problem.column)
}

#[test]
fn a_line_is_split_as_haproxy_splits_it() {
    for (line, meant) in [
        ("", &[][..]),
        ("  # all of it", &[]),
        ("a b\tc", &["a", "b", "c"]),
        ("a b # c", &["a", "b"]),
        ("a b#c", &["a", "b"]),
        (r"a\ b c\#d", &["a b", "c#d"]),
        (r#""a b" 'c d' e"f g"h"#, &["a b", "c d", "ef gh"]),
        (r#"'a\ b' "a\ b""#, &[r"a\ b", "a b"]),
        (r"a\\b a\1 a\", &[r"a\b", r"a\1", r"a\"]),
        (r"a\tb\r\n \x41", &["a\tb\r\n", "A"]),
        (r#"a "" b"#, &["a", "", "b"]),
        ("a b\rc d", &["a", "b"]),
        (r#""x#y" 'x#y'"#, &["x#y", "x#y"]),
        (
            r#""$ONE" "${ONE}2" $ONE '$ONE'"#,
            &["1", "12", "$ONE", "$ONE"],
        ),
        (r#""${NONE-7}" "${EMPTY-7}x""#, &["7", "x"]),
        (r#""$TWO" "${TWO[*]}""#, &["a b", "a", "b"]),
        (r#"a "${NONE[*]}" b"#, &["a", "b"]),
        (r#""\$ONE""#, &["$ONE"]),
        ("ä ö", &["ä", "ö"]),
    ] {
        assert_eq!(words(line), meant, "{line}");
    }
}

#[test]
fn bytes_that_are_no_utf_8_are_latin_1() {
    let environment = Environment::new(&process, &[]);
    let words = split(b"caf\xe9 \xc3\xa9", &environment).expect("words");
    assert_eq!((&*words[0].text, &*words[1].text), ("café", "é"));
}

/// Each line could double a value: a short file took all memory.
#[test]
fn variables_fill_in_no_more_than_a_bound() {
    let mut environment = Environment::new(&process, &[]);
    let value = "x".repeat(FILLED_MAX / 2);
    environment.set("HALF", &value);
    let twice = split(br#"a "${HALF}${HALF}""#, &environment).expect("it fits");
    assert_eq!(twice[1].text.len(), 2 * value.len());
    let more = split(br#"a "${HALF}${HALF}${HALF}""#, &environment);
    assert!(more.is_err_and(|problem| problem.message.contains("more than")));
}

#[test]
fn what_cannot_be_read_has_its_place() {
    for (line, column) in [
        ("a 'b", 3),
        ("ä \"b c", 3),
        (r#"a "${ONE""#, 4),
        (r#"a "${ONE-x""#, 4),
        (r#"a "$1""#, 5),
        (r"a \x4", 3),
        (r#"a "${ONE[1]}""#, 9),
        (r#"a "$.NOTHING""#, 5),
    ] {
        assert_eq!(problem(line).1, column, "{line}: {}", problem(line).0);
    }
    let many = "a ".repeat(WORDS_MAX + 1);
    assert!(problem(&many).0.contains("more than 64"));
}

#[test]
fn a_variable_is_remembered_by_its_name() {
    let environment = Environment::new(&process, &[]);
    let line = br#"":$ONE" "${NONE-x}:${ONE}" "${NONE}" plain"#;
    let words = split(line, &environment).expect("words");
    let written: Vec<Option<&str>> = words.iter().map(|it| it.written.as_deref()).collect();
    assert_eq!(
        written,
        [
            Some(":${ONE}"),
            Some("${NONE-x}:${ONE}"),
            Some("${NONE}"),
            None
        ]
    );
    assert_eq!(words[2].unset.as_deref(), Some("NONE"));
    assert_eq!(words[3].column, 38);
}

proptest::proptest! {
    #[test]
    fn no_line_is_too_strange(line: Vec<u8>) {
        let environment = Environment::new(&process, &[]);
        if let Err(problem) = split(&line, &environment) {
            assert!(problem.column <= line.len() + 1);
        }
    }
}
