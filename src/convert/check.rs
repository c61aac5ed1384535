//! What checks ask: `option tcp-check`, `option httpchk` and the like, and the rules of `tcp-check` and `http-check`.
//!
//! Each rule becomes a step as rlb writes it. One that has no counterpart leaves the whole check a connection alone, which
//! [`super::choice`] tells.

use super::check_request::{request, request_line};
use super::check_words::{
    Cursor, Pairs, Read, Unread, exact, format, hex, line_regex, missing, over, regex, text, wrong,
};
use super::context::Context;
use super::lexer::Word;
use super::proxy::{CheckKind, HttpRules, Proxy, Rule};
use super::report::{At, Outcome};
use super::sections::{Kind, Modifier, Statement};
use super::toml_string::quote;
use crate::config::haproxy::Place;
use crate::config::script::{BUFFER_MAX, StatusRanges};
use crate::config::tls::is_host_name;

/// The options that are a check that rlb has a type for, but for those of `tcp-check` and `httpchk`.
const PRESETS: [&str; 6] = [
    "redis-check",
    "ldap-check",
    "ssl-hello-chk",
    "pgsql-check",
    "mysql-check",
    "smtpchk",
];

/// `option WORD …`; whether it says what checks ask.
pub(super) fn option(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    keyword: &str,
) -> bool {
    let word = statement.word(1);
    let others = ["spop-check", "external-check"];
    let known = ["tcp-check", "httpchk"].contains(&word)
        || PRESETS.contains(&word)
        || others.contains(&word);
    if !known {
        return false;
    }
    if statement.modifier != Modifier::None {
        proxy.settings.check = CheckKind::Connection;
        context.kept(statement.at, keyword);
        return true;
    }
    let (kind, read) = match word {
        "tcp-check" => {
            own_rules(proxy, true);
            (CheckKind::Rules, Ok(()))
        }
        "httpchk" => {
            own_rules(proxy, false);
            let read = request_line(&statement.words[2..]);
            let request = read.map(|request| {
                // As in HAProxy nothing of an earlier line stays.
                let own = &mut proxy.settings.http.request;
                own.retain(|(key, _)| !["method", "uri", "version"].contains(key));
                over(own, request);
            });
            (CheckKind::Http, request)
        }
        _ if others.contains(&word) => {
            let row = context.index.find(Place::Proxy, &format!("option {word}"));
            let say = row.map_or("rlb does not have it", |row| row.say);
            (CheckKind::Other, missing(say))
        }
        _ => {
            let read = preset(word, &statement.words[2..]);
            (
                CheckKind::Preset,
                read.map(|pairs| proxy.settings.preset = pairs),
            )
        }
    };
    proxy.settings.check = kind;
    if matches!(kind, CheckKind::Preset | CheckKind::Other) {
        let replaced = [CheckKind::Preset, CheckKind::Other];
        let checks = &mut proxy.settings.checks;
        checks.retain(|(_, other, _)| !replaced.contains(other));
    }
    note(context, proxy, (statement.at, keyword), kind, read);
    true
}

/// `tcp-check …` and `http-check …`.
pub(super) fn rule(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    keyword: &str,
) {
    let is_tcp = statement.word(0) == "tcp-check";
    own_rules(proxy, is_tcp);
    let words = &statement.words[2.min(statement.words.len())..];
    let at = statement.at;
    let (kind, read) = if is_tcp {
        let read = tcp_rule(statement.word(1), words);
        let read = read.map(|step| proxy.settings.tcp_rules.push((step, at)));
        (CheckKind::Rules, read)
    } else {
        let read = http_rule(&mut proxy.settings.http, statement.word(1), words, at);
        (CheckKind::Http, read)
    };
    note(context, proxy, (statement.at, keyword), kind, read);
}

/// Puts what was read into the report.
fn note(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    (at, keyword): (At, &str),
    kind: CheckKind,
    read: Read<()>,
) {
    let say = match read {
        Ok(()) => None,
        Err(Unread::Missing(say)) => Some(say),
        Err(Unread::Wrong(problem)) => return context.report.error(at, keyword, problem),
    };
    // One that no check asks for is nothing that is missing.
    let entry = if say.is_none() {
        context.kept(at, keyword)
    } else {
        let text = "nothing that is carried over needs it";
        context.report.push(at, keyword, Outcome::NotNeeded, text)
    };
    proxy.settings.checks.push((entry, kind, say));
}

/// As in HAProxy a proxy has its own rules, once it has one, instead of those of its `defaults`.
fn own_rules(proxy: &mut Proxy, is_tcp: bool) {
    let index = usize::from(is_tcp);
    if std::mem::replace(&mut proxy.own_rules[index], true) {
        return;
    }
    let settings = &mut proxy.settings;
    if is_tcp {
        settings.tcp_rules.clear();
    } else {
        *settings.http = HttpRules::default();
    }
    let kind = if is_tcp {
        CheckKind::Rules
    } else {
        CheckKind::Http
    };
    if proxy.kind != Kind::Defaults {
        settings.checks.retain(|(_, other, _)| *other != kind);
    }
}

fn tcp_rule(verb: &str, words: &[Word]) -> Read<Pairs> {
    let mut words = Cursor::new(words);
    match verb {
        "connect" => connect(&mut words, false),
        "send" | "send-lf" | "send-binary" | "send-binary-lf" => {
            let value = words.value(verb)?;
            let pair = match verb {
                "send" => ("send", exact(value)?),
                "send-binary" => ("send-binary", hex(value)?),
                "send-lf" => ("send-lf", format(value)?),
                _ => ("send-binary-lf", format(value)?),
            };
            let mut pairs = vec![pair];
            comment_alone(&mut words, &mut pairs)?;
            Ok(pairs)
        }
        "expect" => expect(&mut words, false),
        "comment" => Ok(vec![("comment", text(words.value(verb)?)?)]),
        _ => other_verb("tcp-check", verb),
    }
}

/// What follows from a rule that neither sends nor waits.
fn other_verb<T>(what: &str, verb: &str) -> Read<T> {
    if ["set-var", "unset-var"]
        .iter()
        .any(|it| verb.starts_with(it))
    {
        return missing("checks have no variables");
    }
    wrong(format!("`{what}` has no `{verb}`"))
}

fn http_rule(rules: &mut HttpRules, verb: &str, words: &[Word], at: At) -> Read<()> {
    let mut words = Cursor::new(words);
    let rule = match verb {
        "disable-on-404" => {
            rules.disable_on_404 = true;
            return Ok(());
        }
        "send-state" => {
            rules.send_state = true;
            return Ok(());
        }
        "connect" => Rule::Step(connect(&mut words, true)?),
        "send" => {
            let (mut request, comment) = request(&mut words)?;
            let first = rules.rules.iter().all(|(rule, _)| match rule {
                Rule::Step(pairs) => ["connect", "comment"].contains(&pairs[0].0),
                Rule::Request(..) => false,
            });
            if first {
                // As in HAProxy it is one with that of `option httpchk`.
                over(&mut rules.request, request);
                Rule::Request(Pairs::new(), comment)
            } else {
                if request.is_empty() {
                    request.push(("uri", quote("/")));
                }
                Rule::Request(request, comment)
            }
        }
        "expect" => Rule::Step(expect(&mut words, true)?),
        "comment" => Rule::Step(vec![("comment", text(words.value(verb)?)?)]),
        _ => return other_verb("http-check", verb),
    };
    rules.rules.push((rule, at));
    Ok(())
}

/// A `comment` behind a rule, and nothing else.
fn comment_alone(words: &mut Cursor<'_>, pairs: &mut Pairs) -> Read<()> {
    while let Some(word) = words.next() {
        if word.text != "comment" {
            return wrong(format!("`{}` is not expected here", word.text));
        }
        let value = text(words.value("comment")?)?;
        over(pairs, vec![("comment", value)]);
    }
    Ok(())
}

fn connect(words: &mut Cursor<'_>, is_http: bool) -> Read<Pairs> {
    let mut pairs: Pairs = vec![("connect", "true".to_owned())];
    while let Some(word) = words.next() {
        let name = &*word.text;
        let pair = match name {
            "default" => ("default", "true".to_owned()),
            "linger" => ("linger", "true".to_owned()),
            "send-proxy" => ("send-proxy", "true".to_owned()),
            "comment" => ("comment", text(words.value(name)?)?),
            "port" => {
                let value = words.value(name)?;
                match value.text.parse::<u16>() {
                    Ok(port) if port > 0 => ("port", port.to_string()),
                    _ if value.text.bytes().all(|byte| byte.is_ascii_digit()) => {
                        return wrong(format!("`{}` is no port", value.text));
                    }
                    _ => return missing("a check connects to a port that is a number"),
                }
            }
            "addr" => {
                let value = words.value(name)?;
                let (host, port) = address(&value.text)?;
                over(
                    &mut pairs,
                    port.into_iter().map(|it| ("port", it)).collect(),
                );
                ("address", host)
            }
            "ssl" => ("tls", "true".to_owned()),
            "sni" => {
                let value = words.value(name)?;
                if !is_host_name(&value.text) {
                    return missing("a check asks for the name of a host");
                }
                ("sni", text(value)?)
            }
            "alpn" => {
                let value = words.value(name)?;
                if is_http && value.text.split(',').any(|one| one == "h2") {
                    return missing("checks of HTTP are of version 1: leave `h2` out");
                }
                ("alpn", text(value)?)
            }
            "via-socks4" => return missing("rlb has no SOCKS4"),
            "proto" => {
                if ["none", "h1"].contains(&&*words.value(name)?.text) {
                    continue;
                }
                return missing("checks of HTTP are of version 1");
            }
            _ => return wrong(format!("`connect` has no `{name}`")),
        };
        over(&mut pairs, vec![pair]);
    }
    Ok(pairs)
}

/// An address of a rule as strings of TOML: the IP address, and the port if it has one.
fn address(text: &str) -> Read<(String, Option<String>)> {
    if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        return Ok((quote(&ip.to_string()), None));
    }
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) => Ok((
            quote(&address.ip().to_string()),
            Some(address.port().to_string()),
        )),
        Err(_) => missing("a check connects to an IP address"),
    }
}

fn expect(words: &mut Cursor<'_>, is_http: bool) -> Read<Pairs> {
    let mut pairs = Pairs::new();
    let mut negated = false;
    while let Some(word) = words.next() {
        let bare = word.text.trim_start_matches('!');
        negated ^= !(word.text.len() - bare.len()).is_multiple_of(2);
        let pair = match bare {
            "" => continue,
            "string" => ("expect-string", exact(words.value(bare)?)?),
            "rstring" => ("expect-rstring", line_regex(words.value(bare)?)?),
            "binary" if !is_http => ("expect-binary", hex(words.value(bare)?)?),
            "rbinary" if !is_http => ("expect-rbinary", regex(words.value(bare)?)?),
            "status" if is_http => {
                let value = words.value(bare)?;
                // HAProxy takes numbers that are no status, too: nothing has them.
                if let Err(problem) = StatusRanges::parse(&value.text) {
                    return missing(problem.message);
                }
                ("expect-status", quote(&value.text))
            }
            "rstatus" if is_http => ("expect-rstatus", regex(words.value(bare)?)?),
            "hdr" if is_http => {
                header(words, &mut pairs)?;
                continue;
            }
            "min-recv" => {
                let value = words.value(bare)?;
                let Ok(least) = value.text.parse::<i64>() else {
                    return wrong(format!("`{}` is no number", value.text));
                };
                if least < 0 {
                    continue;
                }
                let most = i64::try_from(BUFFER_MAX).unwrap_or(i64::MAX);
                ("min-recv", least.min(most).to_string())
            }
            "comment" => ("comment", text(words.value(bare)?)?),
            "on-success" => ("on-success", format(words.value(bare)?)?),
            "on-error" => ("on-error", format(words.value(bare)?)?),
            "ok-status" | "error-status" | "tout-status" => verdict(bare, words.value(bare)?)?,
            "fhdr" if is_http => return missing("checks compare the values between commas alone"),
            "string-lf" | "binary-lf" => return missing("checks wait for a text that is fixed"),
            "status-code" => return missing("checks take no number out of an answer"),
            _ => return wrong(format!("`expect` has no `{bare}`")),
        };
        over(&mut pairs, vec![pair]);
    }
    if !pairs.iter().any(|(key, _)| key.starts_with("expect-")) {
        return wrong("`expect` needs a pattern");
    }
    // The pattern first.
    pairs.sort_by_key(|(key, _)| !key.starts_with("expect-"));
    if negated {
        pairs.insert(1, ("not", "true".to_owned()));
    }
    Ok(pairs)
}

fn verdict(name: &str, word: &Word) -> Read<(&'static str, String)> {
    let (key, known): (_, &[&str]) = match name {
        "ok-status" => ("ok-status", &["L7OK", "L7OKC", "L6OK", "L4OK"]),
        "error-status" => (
            "error-status",
            &["L7RSP", "L7STS", "L7OKC", "L6RSP", "L4CON"],
        ),
        _ => ("tout-status", &["L7TOUT", "L6TOUT", "L4TOUT"]),
    };
    let upper = word.text.to_ascii_uppercase();
    if known.contains(&&*upper) {
        Ok((key, quote(&upper)))
    } else {
        wrong(format!("HAProxy has no `{}` for it", word.text))
    }
}

/// `hdr name NAME [value [-m METHOD] VALUE]`.
fn header(words: &mut Cursor<'_>, pairs: &mut Pairs) -> Read<()> {
    if words.next().is_none_or(|word| word.text != "name") {
        return missing("checks know a header by its name");
    }
    if words.peek() == "-m" {
        return missing("checks know a header by its whole name");
    }
    let name = words.value("name")?;
    over(pairs, vec![("expect-header", text(name)?)]);
    if words.peek() != "value" {
        if words.peek() == "value-lf" {
            return missing("checks wait for a value that is fixed");
        }
        return Ok(());
    }
    words.next();
    let mut method = "str";
    if words.peek() == "-m" {
        words.next();
        method = &words.value("-m")?.text;
        if !["str", "beg", "end", "sub", "reg"].contains(&method) {
            return wrong(format!("HAProxy has no `-m {method}` here"));
        }
    }
    let value = words.value("value")?;
    let written = if method == "reg" {
        regex(value)?
    } else {
        text(value)?
    };
    over(pairs, vec![("header-value", written)]);
    if method != "str" {
        over(pairs, vec![("header-match", quote(method))]);
    }
    Ok(())
}

/// The keys of a check that HAProxy has a name for.
fn preset(word: &str, words: &[Word]) -> Read<Pairs> {
    let typed = |name: &str| vec![("type", quote(name))];
    let argument = |index: usize| words.get(index).map_or("", |word| &*word.text);
    let user = |what: &str| match (argument(0), words.get(1)) {
        ("user", Some(user)) => Ok(("user", text(user)?)),
        _ => wrong(format!("`{what}` needs `user` and a name")),
    };
    Ok(match word {
        "redis-check" => typed("redis"),
        "ldap-check" => typed("ldap"),
        "ssl-hello-chk" => typed("tls-hello"),
        "pgsql-check" => {
            let mut pairs = typed("postgres");
            pairs.push(user("pgsql-check")?);
            pairs
        }
        "mysql-check" => {
            let mut pairs = typed("mysql");
            if !words.is_empty() {
                pairs.push(user("mysql-check")?);
            }
            match argument(2) {
                "" | "post-41" => {}
                login @ ("pre-41" | "post-80") => pairs.push(("mysql-login", quote(login))),
                other => return wrong(format!("`mysql-check` has no `{other}`")),
            }
            pairs
        }
        _ => {
            let mut pairs = typed("smtp");
            if ["HELO", "EHLO"].contains(&argument(0)) && !argument(1).is_empty() {
                let hello = format!("{} {}", argument(0), argument(1));
                pairs.push(("hello", quote(&super::address::escaped(&hello))));
            }
            pairs
        }
    })
}
