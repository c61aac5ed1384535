//! ACLs and rules: what HAProxy refuses in them. rlb evaluates none of them but those of the page of the statistics
//! ([`super::page`]).

use super::acl;
use super::context::Context;
use super::proxy::{Proxy, ServersLeft};
use super::report::At;
use super::sample::{self, Asks};
use super::sections::{Kind, Statement};
use super::sorry;

/// The actions of each kind of rule, as HAProxy 2.6 and 3.5 list them. What stands in parentheses belongs to none of the
/// names. `track-sc0` and the like, and those of Lua, are actions everywhere.
const ACTIONS: [(&str, &str); 9] = [
    (
        "tcp-request connection",
        "accept capture do-log expect-netscaler-cip expect-proxy reject sc-add-gpc sc-inc-gpc sc-inc-gpc0 \
         sc-inc-gpc1 sc-set-gpt sc-set-gpt0 set-dst set-dst-port set-fc-mark set-fc-tos set-mark set-src \
         set-src-port set-tos set-var set-var-fmt silent-drop unset-var",
    ),
    (
        "tcp-request session",
        "accept attach-srv capture do-log expect-netscaler-cip expect-proxy reject sc-add-gpc sc-inc-gpc \
         sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 set-dst set-dst-port set-fc-mark set-fc-tos set-mark \
         set-src set-src-port set-tos set-var set-var-fmt silent-drop unset-var",
    ),
    (
        "tcp-request content",
        "accept capture do-log do-resolve expect-netscaler-cip expect-proxy ot-group reject sc-add-gpc \
         sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 send-spoe-group set-bandwidth-limit \
         set-bc-mark set-bc-tos set-dst set-dst-port set-fc-mark set-fc-tos set-log-level set-mark set-nice \
         set-priority-class set-priority-offset set-retries set-src set-src-port set-tos set-var set-var-fmt \
         silent-drop switch-mode unset-var use-service",
    ),
    (
        "tcp-response content",
        "accept close do-log ot-group reject sc-add-gpc sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt \
         sc-set-gpt0 send-spoe-group set-bandwidth-limit set-fc-mark set-fc-tos set-log-level set-mark \
         set-nice set-tos set-var set-var-fmt silent-drop unset-var",
    ),
    (
        "http-request",
        "add-acl add-header add-headers-bin allow auth cache-use capture del-acl del-header del-headers-bin \
         del-map deny disable-l7-retry do-log do-resolve early-hint normalize-uri ot-group pause redirect \
         reject replace-header replace-path replace-pathq replace-uri replace-value return sc-add-gpc \
         sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 send-spoe-group set-bandwidth-limit \
         set-bc-mark set-bc-tos set-dst set-dst-port set-fc-mark set-fc-tos set-header set-headers-bin \
         set-log-level set-map set-mark set-method set-nice set-path set-pathq set-priority-class \
         set-priority-offset set-query set-retries set-src set-src-port set-timeout set-tos set-uri set-var \
         set-var-fmt silent-drop strict-mode tarpit unset-var use-service wait-for-body wait-for-handshake",
    ),
    (
        "http-response",
        "add-acl add-header add-headers-bin allow cache-store capture del-acl del-header del-headers-bin \
         del-map deny do-log ot-group pause redirect replace-header replace-value return sc-add-gpc \
         sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 send-spoe-group set-bandwidth-limit \
         set-fc-mark set-fc-tos set-header set-headers-bin set-log-level set-map set-mark set-nice set-status \
         set-timeout set-tos set-var set-var-fmt silent-drop strict-mode unset-var wait-for-body",
    ),
    (
        "http-after-response",
        "add-header add-headers-bin allow capture del-acl del-header del-headers-bin del-map do-log ot-group \
         replace-header replace-value sc-add-gpc sc-inc-gpc sc-inc-gpc0 sc-inc-gpc1 sc-set-gpt sc-set-gpt0 \
         set-header set-headers-bin set-log-level set-map set-status set-var set-var-fmt strict-mode \
         unset-var",
    ),
    (
        "tcp-check",
        "comment connect expect send send-binary send-binary-lf send-lf set-var set-var-fmt unset-var",
    ),
    (
        "http-check",
        "comment connect disable-on-404 expect send send-state set-var set-var-fmt unset-var",
    ),
];

/// Rules that a condition can follow.
const CONDITIONAL: [&str; 15] = [
    "block",
    "force-be-switch",
    "force-persist",
    "http-after-response",
    "http-request",
    "http-response",
    "ignore-persist",
    "monitor",
    "redirect",
    "stick",
    "tcp-request",
    "tcp-response",
    "use-server",
    "use_backend",
    "stats",
];

/// Rules of which the condition is needed, and its place.
const CONDITION_NEEDED: [(&str, usize); 5] = [
    ("force-be-switch", 1),
    ("force-persist", 1),
    ("ignore-persist", 1),
    ("monitor", 2),
    ("use-server", 2),
];

/// Checks an `acl`. Whether HAProxy takes it.
pub(super) fn acl(context: &mut Context<'_, '_>, proxy: &mut Proxy, statement: &Statement) -> bool {
    let name = statement.word(1);
    let permitted = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let problem = if name.is_empty() {
        Some("its name is missing".to_owned())
    } else if name.eq_ignore_ascii_case("or") {
        Some("`or` stands between conditions, and is no name".to_owned())
    } else {
        let wrong = name.chars().find(|c| !permitted(*c));
        wrong.map(|c| format!("`{c}` cannot stand in the name of an ACL"))
    };
    if let Some(problem) = problem {
        context.report.error(statement.at(1), "acl", problem);
        return false;
    }
    if is_unset(statement) {
        return true;
    }
    let words = statement.words[2..].iter();
    let words: Vec<&str> = words.map(|word| word.text.as_str()).collect();
    match sample::check(&words) {
        Ok(asked) => {
            sorry::note_acl(proxy, name, &words);
            asks(context, proxy, (statement.at(2), "acl"), asked)
        }
        Err((word, problem)) => {
            context.report.error(statement.at(2 + word), "acl", problem);
            false
        }
    }
}

/// Checks the action and the condition of a rule. Whether HAProxy takes it.
pub(super) fn rule(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
    keyword: &str,
) -> bool {
    if is_unset(statement) {
        return true;
    }
    if let Some((word, problem)) = wrong_action(statement).or_else(|| missing(statement)) {
        context.report.error(statement.at(word), keyword, problem);
        return false;
    }
    if !CONDITIONAL.contains(&statement.word(0)) {
        return true;
    }
    let mut words = statement.words.iter().skip(1);
    let Some(at) = words.position(|word| ["if", "unless"].contains(&word.text.as_str())) else {
        return true;
    };
    let first = at + 2;
    let condition = statement.words[first..].iter();
    let condition: Vec<&str> = condition.map(|word| word.text.as_str()).collect();
    let suites = match acl::suites(&condition, &proxy.acls) {
        Ok(suites) => suites,
        Err((word, problem)) => {
            let at = statement.at(first + word);
            context.report.error(at, keyword, problem);
            return false;
        }
    };
    let asked = suites.iter().flatten().map(|term| term.asks);
    let asked: Vec<Asks<'_>> = asked.filter(|asked| *asked != Asks::Nothing).collect();
    let place = (statement.at(first), statement_word(statement));
    let mut all = asked.into_iter();
    all.all(|asked| asks(context, proxy, place, asked))
}

/// The condition of a `use_backend`, if it is about the servers that can be used alone.
pub(super) fn servers_left(
    proxy: &Proxy,
    statement: &Statement,
) -> Option<(ServersLeft, Option<String>)> {
    if is_unset(statement) {
        return None;
    }
    let words = statement.words.get(3..)?.iter();
    let words: Vec<&str> = words.map(|word| word.text.as_str()).collect();
    let suites = acl::suites(&words, &proxy.acls).ok()?;
    ServersLeft::of_rule(statement.word(2), &suites, proxy)
}

fn is_unset(statement: &Statement) -> bool {
    statement.words.iter().any(|word| word.unset.is_some())
}

/// The first word of a rule, for all time.
fn statement_word(statement: &Statement) -> &'static str {
    let mut words = CONDITIONAL.into_iter();
    words
        .find(|word| *word == statement.word(0))
        .unwrap_or("acl")
}

/// Why the action of a rule is none.
fn wrong_action(statement: &Statement) -> Option<(usize, String)> {
    let (first, second) = (statement.word(0), statement.word(1));
    let phase = format!("{first} {second}");
    let mut rows = ACTIONS.iter();
    let row = rows.find(|(rule, _)| *rule == phase || *rule == first);
    let Some((rule, actions)) = row else {
        let is_rule = ["tcp-request", "tcp-response"].contains(&first);
        let wrong = is_rule && second != "inspect-delay";
        return wrong.then(|| (1, format!("HAProxy has no `{second}` behind `{first}`")));
    };
    let place = rule.split(' ').count();
    let written = statement.word(place);
    let name = written.split('(').next().unwrap_or_default();
    let others = ["track-sc", "lua."];
    let known = actions.split_whitespace().any(|action| action == name)
        || others.iter().any(|begin| name.starts_with(begin));
    if !known {
        let text = match name {
            "" => "what it does is missing".to_owned(),
            name => format!("HAProxy has no `{name}` behind `{rule}`"),
        };
        return Some((place, text));
    }
    let alone = first.starts_with("tcp-re") && ["accept", "reject"].contains(&name);
    let behind = statement.word(place + 1);
    let wrong = alone && !["", "if", "unless"].contains(&behind);
    wrong.then(|| (place + 1, "only `if` and `unless` can follow it".to_owned()))
}

/// Why a rule without a condition is none.
fn missing(statement: &Statement) -> Option<(usize, String)> {
    let first = statement.word(0);
    let (_, place) = CONDITION_NEEDED.iter().find(|(rule, _)| *rule == first)?;
    let word = statement.word(*place);
    let wrong = !["if", "unless"].contains(&word);
    wrong.then(|| {
        (
            *place,
            "`if` or `unless` and a condition are needed".to_owned(),
        )
    })
}

/// Notes the backend that a condition asks about, which must exist. Whether HAProxy takes it.
fn asks(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    (at, keyword): (At, &'static str),
    asked: Asks<'_>,
) -> bool {
    match asked {
        Asks::Backend(name) => proxy.named.push((name.to_owned(), at, keyword)),
        Asks::Own if proxy.kind == Kind::Frontend => {
            let text = "the name of a backend is missing: a frontend has no servers";
            context.report.error(at, keyword, text);
            return false;
        }
        Asks::Own | Asks::Nothing => {}
    }
    true
}
