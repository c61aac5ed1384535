//! Conditions of rules: `if A !B or { src 10.0.0.1 }`. Pure.
//!
//! As HAProxy's `parse_acl_cond`: what stands between braces is one term, and `!` negates the term that follows.

use super::sample::{self, Asks};
use super::sections::Statement;
use std::collections::HashSet;

/// One term of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term<'a> {
    /// It must not hold.
    pub(super) negated: bool,
    /// The name of an ACL; `None`: it is written in braces.
    pub(super) name: Option<&'a str>,
    /// What stands in the braces.
    pub(super) inside: Vec<&'a str>,
    /// The backend that the braces ask about.
    pub(super) asks: Asks<'a>,
}

/// Terms that must hold together. There is at least one: HAProxy begins them with their first term.
type Suite<'a> = Vec<Term<'a>>;

/// The suites of a condition, of which one must hold; without any it does not hold. `known` are the ACLs of the
/// statements before it.
///
/// # Errors
/// What HAProxy says of it, and at which word.
pub(super) fn suites<'a>(
    words: &[&'a str],
    known: &HashSet<String>,
) -> Result<Vec<Suite<'a>>, (usize, String)> {
    let mut suites: Vec<Suite<'_>> = Vec::new();
    let (mut begins, mut negated) = (true, false);
    // HAProxy's list of words ends with an empty one.
    let end = words.iter().position(|word| word.is_empty());
    let words = &words[..end.unwrap_or(words.len())];
    let mut index = 0;
    while let Some(written) = words.get(index) {
        let word = index;
        index += 1;
        let name = written.trim_start_matches('!');
        negated ^= (written.len() - name.len()) % 2 == 1;
        if name.is_empty() {
            continue;
        }
        if name == "||" || name.eq_ignore_ascii_case("or") {
            (begins, negated) = (true, false);
            continue;
        }
        let (mut inside, mut asks) = (Vec::new(), Asks::Nothing);
        let name = if name == "{" {
            let end = words[index..].iter().position(|word| *word == "}");
            let end = end.ok_or_else(|| (word, "a closing brace is missing".to_owned()))?;
            if end == 0 {
                return Err((word, "nothing stands between the braces".to_owned()));
            }
            inside.extend_from_slice(&words[index..index + end]);
            let checked = sample::check(&inside);
            asks = checked.map_err(|(word, problem)| (index + word, problem))?;
            index += end + 1;
            None
        } else if PREDEFINED.contains(&name) || known.contains(name) {
            Some(name)
        } else {
            return Err((word, format!("there is no ACL `{name}` before it")));
        };
        let term = Term {
            negated: std::mem::take(&mut negated),
            name,
            inside,
            asks,
        };
        match suites.last_mut().filter(|_| !begins) {
            Some(suite) => suite.push(term),
            None => suites.push(vec![term]),
        }
        begins = false;
    }
    Ok(suites)
}

/// The ACLs that HAProxy has without a statement.
const PREDEFINED: [&str; 23] = [
    "TRUE",
    "FALSE",
    "LOCALHOST",
    "HTTP",
    "HTTP_1.0",
    "HTTP_1.1",
    "HTTP_2.0",
    "HTTP_3.0",
    "METH_CONNECT",
    "METH_DELETE",
    "METH_GET",
    "METH_HEAD",
    "METH_OPTIONS",
    "METH_POST",
    "METH_PUT",
    "METH_TRACE",
    "HTTP_URL_ABS",
    "HTTP_URL_SLASH",
    "HTTP_URL_STAR",
    "HTTP_CONTENT",
    "RDP_COOKIE",
    "REQ_CONTENT",
    "WAIT_END",
];

/// What is wrong behind the name of a backend, and at which word, but for the condition itself.
pub(super) fn behind_a_backend(statement: &Statement) -> Option<(usize, String)> {
    match (statement.word(0), statement.word(2)) {
        (_, "") | ("use_backend", "if" | "unless") => None,
        ("use_backend", _) => Some((2, "only `if` and `unless` can follow the name".to_owned())),
        _ => Some((2, "nothing can follow the name".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<Vec<String>> {
        let known = ["a", "b", "c"].map(str::to_owned).into();
        let words: Vec<&str> = text.split(' ').collect();
        let one = |term: Term<'_>| {
            let not = if term.negated { "!" } else { "" };
            format!("{not}{}", term.name.unwrap_or("{}"))
        };
        let all = suites(&words, &known).expect("it is valid").into_iter();
        all.map(|terms| terms.into_iter().map(one).collect())
            .collect()
    }

    #[test]
    fn conditions_are_read_as_by_haproxy() {
        for (text, expected) in [
            ("a", vec![vec!["a"]]),
            ("a !b or c", vec![vec!["a", "!b"], vec!["c"]]),
            ("! a !! b !!!c", vec![vec!["!a", "b", "!c"]]),
            ("a OR || !or b", vec![vec!["a"], vec!["b"]]),
            ("a or", vec![vec!["a"]]),
            ("|| a", vec![vec!["a"]]),
            ("a ! or", vec![vec!["a"]]),
            ("a or ! b or !", vec![vec!["a"], vec!["!b"]]),
            (
                "{ path or a } !{ src 10.0.0.1 } c",
                vec![vec!["{}", "!{}", "c"]],
            ),
            ("!", vec![]),
            ("or", vec![]),
            ("", vec![]),
            // The words end with an empty one.
            ("a  or b", vec![vec!["a"]]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_haproxy_refuses_in_a_condition_is_found() {
        let known = HashSet::from(["mine".to_owned()]);
        let said = |text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            suites(&words, &known).err()
        };
        assert_eq!(said("mine !TRUE or { path other }"), None);
        let (word, text) = said("mine or !other").expect("it is not known");
        assert_eq!((word, &*text), (2, "there is no ACL `other` before it"));
        let (word, text) = said("mine { src 1.1.1.1 300.1.1.1 }").expect("it is no address");
        assert_eq!((word, &*text), (4, "`300.1.1.1` is not an address"));
        for bad in [
            "true",
            "{",
            "{ a",
            "{ }",
            "mine { }",
            "{  }",
            "{ srrc 1.1.1.1 }",
        ] {
            assert!(said(bad).is_some(), "{bad}");
        }
    }
}
