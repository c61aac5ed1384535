//! `use_backend SORRY if { nbsrv(BACKEND) lt 1 }`: `sorry-backend` of the backend, where that means the same.
//!
//! HAProxy asks the rule of a frontend; rlb's key is one of the backend, for all that lead to it. So all of them must have
//! the rule, it must be their only one, and it must ask about the backend that they lead to. (A proxy with another rule is
//! not carried over.)

use super::acl::Term;
use super::proxy::{Proxy, ServersLeft, SorryRule};
use super::report::{Outcome, Report};
use super::toml_string::quote;
use std::collections::{HashMap, HashSet};

impl ServersLeft {
    /// The condition of these words of an ACL, without its name.
    pub(super) fn of_words(words: &[&str]) -> Option<Self> {
        let [expression, patterns @ ..] = words else {
            return None;
        };
        let rest = expression.strip_prefix("nbsrv")?;
        let backend = match rest.strip_prefix('(') {
            None if rest.is_empty() => None,
            Some(rest) => Some(rest.strip_suffix(')')?).filter(|name| !name.is_empty()),
            None => return None,
        };
        if backend.is_some_and(|name| name.contains([',', '(', ')', '"', '\'', '\\'])) {
            return None;
        }
        let patterns = patterns.strip_prefix(&["-m", "int"]).unwrap_or(patterns);
        let any = match *patterns {
            ["lt", "1"] | ["le" | "eq", "0"] | ["0"] => false,
            ["gt", "0"] | ["ge", "1"] | ["-m", "bool"] => true,
            _ => return None,
        };
        Some(Self {
            backend: backend.map(str::to_owned),
            any,
        })
    }

    /// The condition of a rule, whose words begin with `if` or `unless`, when it is one term; and the name of its ACL.
    pub(super) fn of_rule(
        word: &str,
        suites: &[Vec<Term<'_>>],
        proxy: &Proxy,
    ) -> Option<(Self, Option<String>)> {
        let [suite] = suites else { return None };
        let [term] = &suite[..] else { return None };
        let mut condition = match term.name {
            None => Self::of_words(&term.inside)?,
            Some(name) => proxy.server_acls.get(name)?.clone()?,
        };
        condition.any ^= term.negated ^ (word == "unless");
        Some((condition, term.name.map(str::to_owned)))
    }
}

/// Notes an `acl`. Of several of one name one must hold, which is no such condition.
pub(super) fn note_acl(proxy: &mut Proxy, name: &str, words: &[&str]) {
    let condition = ServersLeft::of_words(words);
    let known = proxy.acls.contains(name);
    if known && let Some(condition) = proxy.server_acls.get_mut(name) {
        *condition = None;
    } else if !known && condition.is_some() {
        proxy.server_acls.insert(name.to_owned(), condition);
    }
}

/// Notes the rule of which `entry` tells.
pub(super) fn note_rule(
    proxy: &mut Proxy,
    condition: Option<(ServersLeft, Option<String>)>,
    entry: usize,
) {
    let condition = condition.filter(|(condition, _)| !condition.any);
    proxy.sorry_rule = condition.map(|(condition, acl)| SorryRule {
        condition,
        acl,
        entry,
    });
}

/// The proxy is over. As in HAProxy a line of an ACL behind the rule is a part of the ACL, too: then the rule asks more.
pub(super) fn forget_acls(proxy: &mut Proxy) {
    let acls = std::mem::take(&mut proxy.server_acls);
    let is_whole = |name: &String| acls.get(name).is_some_and(Option::is_some);
    proxy
        .sorry_rule
        .take_if(|rule| !rule.acl.as_ref().is_none_or(is_whole));
}

/// What the rules of the proxies that lead to a backend become.
struct Led {
    /// Positions of these proxies.
    by: Vec<usize>,
    /// Where all of them lead otherwise; `None`: not all have such a rule, or not the same.
    sorry: Option<String>,
}

/// Makes the rules that mean the same `sorry-backend` of their backends.
pub(super) fn settle(proxies: &mut [Proxy], report: &mut Report) {
    if proxies.iter().all(|proxy| proxy.sorry_rule.is_none()) {
        return;
    }
    let mut led: HashMap<String, Led> = HashMap::new();
    for (index, proxy) in proxies.iter().enumerate() {
        let sorry = sorry_of(proxy);
        if !proxy.is_front() {
            continue;
        }
        let target = proxy.target().unwrap_or(&proxy.name);
        let one = led.entry(target.to_owned()).or_insert_with(|| Led {
            by: Vec::new(),
            sorry: sorry.map(str::to_owned),
        });
        one.by.push(index);
        one.sorry = one.sorry.take().filter(|one| sorry == Some(one));
    }
    let mut wanted = led;
    wanted.retain(|backend, led| led.sorry.as_ref().is_some_and(|sorry| sorry != backend));
    // A backend that stands in for another has none itself: HAProxy would not ask about it.
    let stand_in: HashSet<String> = wanted
        .values()
        .filter_map(|led| led.sorry.clone())
        .collect();
    wanted.retain(|backend, _| !stand_in.contains(backend));
    let exist: HashSet<String> = proxies
        .iter()
        .filter(|proxy| proxy.is_back())
        .map(|proxy| proxy.name.clone())
        .collect();
    for (backend, led) in wanted {
        let Some(sorry) = led.sorry.filter(|sorry| exist.contains(sorry)) else {
            continue;
        };
        let mut all = proxies.iter_mut();
        let Some(found) = all.find(|proxy| proxy.is_back() && proxy.name == backend) else {
            continue;
        };
        found.settings.keys.insert("sorry-backend", quote(&sorry));
        for index in led.by {
            let proxy = &mut proxies[index];
            let Some(rule) = proxy.sorry_rule.take() else {
                continue;
            };
            proxy.settings.marks.retain(|mark| mark.entry != rule.entry);
            proxy.sorry_backend = Some(sorry.clone());
            let entry = &mut report.entries[rule.entry];
            entry.outcome = Outcome::Changed;
            entry.text = format!("it is `sorry-backend` of `{backend}`").into();
        }
    }
}

/// The backend of the rule of `proxy`, if it is the only one, and asks about the backend that the proxy leads to.
fn sorry_of(proxy: &Proxy) -> Option<&str> {
    let rule = proxy.sorry_rule.as_ref()?;
    let [(sorry, _)] = &proxy.routes[..] else {
        return None;
    };
    let target = proxy.target().unwrap_or(&proxy.name);
    let asked = rule.condition.backend.as_deref().unwrap_or(&proxy.name);
    (asked == target && !sorry.contains("%[")).then_some(sorry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_about_the_servers_left_are_recognised() {
        let condition = |text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            ServersLeft::of_words(&words).map(|one| (one.backend, one.any))
        };
        let of = |name: &str, any| Some((Some(name.to_owned()), any));
        for (text, expected) in [
            ("nbsrv(b) lt 1", of("b", false)),
            ("nbsrv(b) eq 0", of("b", false)),
            ("nbsrv(b) 0", of("b", false)),
            ("nbsrv(b) le 0", of("b", false)),
            ("nbsrv(b) -m int lt 1", of("b", false)),
            ("nbsrv(b) gt 0", of("b", true)),
            ("nbsrv(b) ge 1", of("b", true)),
            ("nbsrv(b) -m bool", of("b", true)),
            ("nbsrv lt 1", Some((None, false))),
            ("nbsrv() lt 1", Some((None, false))),
            ("nbsrv(b) lt 2", None),
            ("nbsrv(b) 0 1", None),
            ("nbsrv(b)", None),
            ("nbsrv(b),add(1) lt 1", None),
            ("nbsrvx(b) lt 1", None),
            ("be_conn(b) lt 1", None),
        ] {
            assert_eq!(condition(text), expected, "{text}");
        }
    }
}
