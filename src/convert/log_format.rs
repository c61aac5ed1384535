//! HAProxy's log formats, as `%ci:%cp [%[src,lower]]`: what HAProxy refuses in them. Pure.
//!
//! As HAProxy's `lf_expr_compile`: the names of items, the braces and brackets, and the sample expressions.

use super::sample;

/// The items of HAProxy 2.6 and 3.5.
const ALIASES: &str = "o OG B CC CS H ID ST T Ta Tc Th Ti Tl Tq Tr TR Td Ts Tt Tu Tw U ac b bc bi bp bq ci cp f fc fi fp \
     ft hr hrl hs hsl HM HP HPO HQ HU HV lc ms pid r rc rt s sc si sp sq sslc sslv t tr trg trl ts tsc";

/// Why HAProxy refuses a format; `None`: it takes it.
pub(super) fn refused(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        match item(&rest[at + 1..]) {
            Ok(after) => rest = after,
            Err(problem) => return Some(problem),
        }
    }
    None
}

/// Looks at what stands behind a `%`, and returns what follows it.
fn item(text: &str) -> Result<&str, String> {
    let mut rest = text;
    if let Some(inside) = rest.strip_prefix('(') {
        let (_, after) = inside
            .split_once(')')
            .ok_or("`)` is missing behind the name of an item")?;
        rest = after;
    }
    let mut has_flags = false;
    if let Some(inside) = rest.strip_prefix('{') {
        let (_, after) = inside
            .split_once('}')
            .ok_or("`}` is missing behind the flags of an item")?;
        (rest, has_flags) = (after, true);
    }
    if let Some(inside) = rest.strip_prefix('[') {
        return expression(inside);
    }
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
    let (name, after) = rest.split_at(end.unwrap_or(rest.len()));
    let first = rest.chars().next();
    match first {
        Some(c) if c.is_ascii_alphabetic() || (has_flags && c.is_ascii_digit()) => {
            if ALIASES.split_whitespace().any(|known| known == name) {
                return Ok(after);
            }
            Err(format!(
                "HAProxy has no `%{name}`: write `%%` for the character itself"
            ))
        }
        _ if has_flags => Err("the name of an item is missing behind its flags".to_owned()),
        None | Some(' ' | '\t' | '0'..='9') => {
            Err("a `%` without an item: write `%%` for the character itself".to_owned())
        }
        Some('%') => Ok(&rest[1..]),
        Some(_) => Ok(rest),
    }
}

/// Looks at a sample expression behind `%[`, and returns what follows its bracket.
fn expression(text: &str) -> Result<&str, String> {
    let end = sample::end_of_expression(text);
    let (written, after) = text.split_at(end);
    let after = after
        .strip_prefix(']')
        .ok_or_else(|| format!("`]` is missing behind `{written}`"))?;
    let checked = sample::expression(written);
    if written.ends_with(',') {
        return Err("HAProxy has no converter ``".to_owned());
    }
    checked.map(|_| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_haproxy_takes_is_taken() {
        for text in [
            "",
            "plain",
            "100%% %ci:%cp [%t] %{+Q}o %{+X,-Q}Ts %[src]",
            "%[src,lower,map(/etc/x,\"a]b)\")] %{+E}[hostname]",
            "%[str(a]b)]%(name)ci%(name:sint)[src_port]",
            "50%-",
            "%{}ci",
            "%[lua.mine(3)]",
            "a ] b } c ) d",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn what_haproxy_refuses_is_found() {
        for text in [
            "%zz",
            "%cix",
            "100%",
            "100% a",
            "%9",
            "%{+Q",
            "%{+Q}",
            "%{+Q} ci",
            "%{+Q}9",
            "%[src",
            "%[nosuch]",
            "%[src,nosuch]",
            "%[src,]",
            "%[src ]",
            "%[ src]",
            "%[]",
            "%(name",
        ] {
            assert!(refused(text).is_some(), "{text}");
        }
    }
}
