//! Sample expressions and the patterns behind them, as in `acl NAME EXPRESSION PATTERN…` and `if { EXPRESSION PATTERN… }`:
//! what HAProxy refuses in them. Pure.
//!
//! rlb does not evaluate them. What is checked here is what HAProxy's parser says without anything from the machine that it
//! runs on: names, the form of patterns for numbers and addresses, and options. Files and maps are not looked at.

use super::sample_names::{Gives, asks_a_backend, fetch, is_converter};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The options of ACLs without a value.
const FLAGS: [&str; 3] = ["-i", "-n", "-M"];
/// The methods of `-m`.
const METHODS: &str = "found bool int ip bin len str beg sub dir dom end reg regm";

/// The backend that an expression asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks<'a> {
    /// None.
    Nothing,
    /// That of the proxy itself.
    Own,
    /// This one.
    Backend(&'a str),
}

/// Checks an expression and its patterns; the backend that it asks about.
///
/// # Errors
/// What HAProxy refuses, and at which word.
pub(super) fn check<'a>(words: &[&'a str]) -> Result<Asks<'a>, (usize, String)> {
    let [text, rest @ ..] = words else {
        return Err((0, "what is to be looked at is missing".to_owned()));
    };
    let (gives, asks) = expression(text).map_err(|problem| (0, problem))?;
    patterns(rest, gives).map_err(|(word, problem)| (word + 1, problem))?;
    Ok(asks)
}

/// Checks an expression: `FETCH[(ARGUMENTS)][,CONVERTER[(ARGUMENTS)]…]`. What it gives, and which backend it asks about.
///
/// # Errors
/// What HAProxy refuses.
pub(super) fn expression(text: &str) -> Result<(Gives, Asks<'_>), String> {
    let (name, arguments, mut rest) = call(text);
    let Some(gives) = fetch(name) else {
        return Err(format!("HAProxy has no sample fetch `{name}`"));
    };
    let asks = match arguments.map(|it| it.split(',').next().unwrap_or_default()) {
        _ if !asks_a_backend(name) => Asks::Nothing,
        None | Some("") => Asks::Own,
        Some(backend) => Asks::Backend(backend),
    };
    let mut gives = gives;
    while let Some(converters) = rest.strip_prefix(',') {
        // Behind a comma at its end the next word is a converter, which is not looked at.
        if converters.is_empty() {
            return Ok((Gives::Other, asks));
        }
        let (name, _, after) = call(converters);
        if !is_converter(name) {
            return Err(format!("HAProxy has no converter `{name}`"));
        }
        gives = Gives::Other;
        rest = after;
    }
    Ok((gives, asks))
}

/// Where an expression ends in a format: at the first `]` or white space outside of arguments.
pub(super) fn end_of_expression(text: &str) -> usize {
    let mut rest = text;
    loop {
        let Some(at) = rest.find(['(', ']', ' ', '\t']) else {
            return text.len();
        };
        if !rest[at..].starts_with('(') {
            return text.len() - rest.len() + at;
        }
        (_, _, rest) = call(&rest[at..]);
    }
}

/// A name, the arguments in parentheses behind it, and what follows.
fn call(text: &str) -> (&str, Option<&str>, &str) {
    let end = text.find(['(', ',']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let Some(inside) = rest.strip_prefix('(') else {
        return (name, None, rest);
    };
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', open) if open != Some('\'') => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (')', None) => return (name, Some(&inside[..at]), &inside[at + 1..]),
            _ => {}
        }
    }
    // What is not closed is not looked at.
    (name, Some(inside), "")
}

/// Checks the options and the patterns behind an expression.
fn patterns(words: &[&str], gives: Gives) -> Result<(), (usize, String)> {
    let mut gives = gives;
    let mut index = 0;
    while let Some(word) = words.get(index).filter(|word| word.starts_with('-')) {
        let value = words.get(index + 1).copied().unwrap_or_default();
        match *word {
            "--" => {
                index += 1;
                break;
            }
            flag if FLAGS.contains(&flag) => index += 1,
            "-f" | "-u" => index += 2,
            "-m" => {
                gives = match value {
                    "int" | "len" => Gives::Number,
                    "ip" => Gives::Address,
                    method if METHODS.split(' ').any(|word| word == method) => Gives::Other,
                    _ => {
                        let text = format!("HAProxy has no matching method `{value}`");
                        return Err((index + 1, text));
                    }
                };
                index += 2;
            }
            option => return Err((index, format!("HAProxy has no option `{option}` here"))),
        }
    }
    let mut operator = "eq";
    for (word, text) in words.iter().enumerate().skip(index) {
        if OPERATORS.contains(text) {
            operator = text;
        }
        let problem = match gives {
            Gives::Number if !is_number(text, operator) => format!("`{text}` is not a number"),
            Gives::Address if !can_be_address(text) => format!("`{text}` is not an address"),
            _ => continue,
        };
        return Err((word, problem));
    }
    Ok(())
}

/// The operators between numbers.
const OPERATORS: [&str; 5] = ["eq", "ge", "gt", "le", "lt"];

/// A number behind `operator`, a range of them, or an operator. Behind one that compares, HAProxy ignores what follows a
/// point.
fn is_number(text: &str, operator: &str) -> bool {
    let of_range = |c: char| c.is_ascii_digit() || c == ':' || c == '-';
    let has_digit = |text: &str| text.contains(|c: char| c.is_ascii_digit());
    let is_range = |text: &str| text.chars().all(of_range) && has_digit(text);
    let whole = match text.split_once('.') {
        Some((whole, _)) if operator != "eq" && !text.contains([':', '-']) => whole,
        _ => text,
    };
    is_range(whole) || OPERATORS.contains(&text)
}

/// An address or a network, or a name, which is looked up.
fn can_be_address(text: &str) -> bool {
    let (host, mask) = match text.split_once('/') {
        Some((host, mask)) => (host, Some(mask)),
        None => (text, None),
    };
    let bits = mask.map(str::parse::<u32>);
    if host.contains(':') {
        return host.parse::<Ipv6Addr>().is_ok() && !matches!(bits, Some(Ok(129..) | Err(_)));
    }
    // The system's library reads `10.1` as 10.0.0.1, and more.
    let parts = host.split('.').collect::<Vec<_>>();
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = parts.iter().all(digits) && parts.len() >= 4 && host.parse::<Ipv4Addr>().is_err();
    let dotted = mask.is_some_and(|mask| mask.parse::<Ipv4Addr>().is_ok());
    !wrong && (dotted || !matches!(bits, Some(Ok(33..) | Err(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<(usize, String)> {
        let words: Vec<&str> = text.split(' ').collect();
        check(&words).err()
    }

    #[test]
    fn what_haproxy_takes_is_taken() {
        for text in [
            "src 10.0.0.0/8 10.1 127.0.0.1 ::1 fd00::/8 10.0.0.0/255.0.0.0 localhost",
            "src -f /etc/lists/ours -n -i -u 7",
            "src -- -x.example",
            "src -m str -i a b",
            "src,lower x",
            "req.ssl_supported_groups, be2hex(:,2),lower -m sub 001d",
            "nbsrv(b) lt 1",
            "nbsrv(b) 1:5 7 ge 9",
            "be_sess_rate gt 1.5",
            "be_sess_rate eq 1 lt 5 2.x",
            "bc_src 1:5",
            "dst_port 80 443 1000-2000",
            "hdr(host),lower,map(/etc/x,\"a,b)\") -m str x",
            "hdr_beg(host) -i www.",
            "req.ssl_sni -m end .example",
            "str(a\\)b),concat(x) y",
            "lua.mine(3) x",
            "always_true",
            "always_true x",
            "req_ssl_ver gt 3",
            "path_len gt 100",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn what_haproxy_refuses_is_found() {
        for (text, word) in [
            ("srrc 10.0.0.1", 0),
            ("nosuch(x) y", 0),
            ("src,foo x", 0),
            ("src 300.1.1.1", 1),
            ("src 10.0.0.1 10.0.0.0/33", 2),
            ("src fd00::/129", 1),
            ("src -m foo 1", 2),
            ("src -x 1", 1),
            ("dst_port abc", 1),
            ("nbsrv(b) foo 1", 1),
            ("nbsrv(b) 1.5", 1),
            ("nbsrv(b) gt 1 eq 1.5", 4),
            ("nbsrv(b) gt x.5", 2),
            ("src -m int a", 3),
        ] {
            let found = said(text).map(|(word, _)| word);
            assert_eq!(found, Some(word), "{text}");
        }
        assert_eq!(check(&[]).map_err(|(word, _)| word), Err(0));
    }

    #[test]
    fn the_backend_is_found() {
        for (text, asks) in [
            ("nbsrv(b)", Asks::Backend("b")),
            ("nbsrv", Asks::Own),
            ("nbsrv()", Asks::Own),
            ("queue(b),add(1)", Asks::Backend("b")),
            ("src", Asks::Nothing),
        ] {
            assert_eq!(check(&[text]), Ok(asks), "{text}");
        }
    }
}
