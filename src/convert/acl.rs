//! Conditions of rules: `if A !B or { src 10.0.0.1 }`. Pure.
//!
//! As HAProxy's `parse_acl_cond`: what stands between braces is one term, and `!` negates the term that follows.

use super::sections::Statement;
use std::collections::HashSet;

/// One term of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term<'a> {
    /// It must not hold.
    pub(super) negated: bool,
    /// Its index among the words.
    pub(super) word: usize,
    /// The name of an ACL; `None`: it is written in braces.
    pub(super) name: Option<&'a str>,
}

/// The terms that must hold together, for each alternative.
///
/// # Errors
/// What HAProxy says of it.
pub(super) fn alternatives<'a>(words: &[&'a str]) -> Result<Vec<Vec<Term<'a>>>, String> {
    let (mut all, mut terms) = (Vec::new(), Vec::new());
    let mut negated = false;
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
            all.push(std::mem::take(&mut terms));
            negated = false;
            continue;
        }
        let name = if name == "{" {
            let end = words[index..].iter().position(|word| *word == "}");
            let end = end.ok_or_else(|| "a closing brace is missing".to_owned())?;
            index += end + 1;
            None
        } else {
            Some(name)
        };
        terms.push(Term {
            negated: std::mem::take(&mut negated),
            word,
            name,
        });
    }
    all.push(terms);
    Ok(all)
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

/// The first word of the condition that HAProxy does not know, where `known` are the ACLs of the statements before it,
/// and what is wrong with it.
pub(super) fn unknown(words: &[&str], known: &HashSet<String>) -> Option<(usize, String)> {
    let alternatives = match alternatives(words) {
        Ok(alternatives) => alternatives,
        Err(problem) => return Some((0, problem)),
    };
    let terms = alternatives.into_iter().flatten();
    let mut named = terms.filter_map(|term| Some((term.word, term.name?)));
    let (word, name) =
        named.find(|(_, name)| !PREDEFINED.contains(name) && !known.contains(*name))?;
    Some((word, format!("there is no ACL `{name}` before it")))
}

/// What is wrong behind the name of a backend, and at which word.
pub(super) fn behind_a_backend(
    statement: &Statement,
    known: &HashSet<String>,
) -> Option<(usize, String)> {
    match (statement.word(0), statement.word(2)) {
        (_, "") => None,
        ("use_backend", "if" | "unless") => {
            let words = statement.words[3..].iter();
            let words: Vec<&str> = words.map(|word| word.text.as_str()).collect();
            let (word, problem) = unknown(&words, known)?;
            Some((3 + word, problem))
        }
        ("use_backend", _) => Some((2, "only `if` and `unless` can follow the name".to_owned())),
        _ => Some((2, "nothing can follow the name".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<Vec<String>> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let one = |term: Term<'_>| {
            let not = if term.negated { "!" } else { "" };
            format!("{not}{}", term.name.unwrap_or("{}"))
        };
        let all = alternatives(&words).expect("it is valid").into_iter();
        all.map(|terms| terms.into_iter().map(one).collect())
            .collect()
    }

    #[test]
    fn conditions_are_read_as_by_haproxy() {
        for (text, expected) in [
            ("a", vec![vec!["a"]]),
            ("a !b or c", vec![vec!["a", "!b"], vec!["c"]]),
            ("! a !! b !!!c", vec![vec!["!a", "b", "!c"]]),
            ("a OR || !or b", vec![vec!["a"], vec![], vec![], vec!["b"]]),
            ("{ path or a } !{ b } c", vec![vec!["{}", "!{}", "c"]]),
            ("", vec![vec![]]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
        assert!(alternatives(&["{", "a"]).is_err());
    }

    #[test]
    fn an_acl_that_does_not_stand_before_it_is_found() {
        let known = HashSet::from(["mine".to_owned()]);
        let said = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            unknown(&words, &known)
        };
        assert_eq!(said("mine !TRUE or { other }"), None);
        let (word, text) = said("mine or !other").expect("it is not known");
        assert_eq!((word, &*text), (2, "there is no ACL `other` before it"));
        assert!(said("true").is_some() && said("{").is_some());
    }
}
