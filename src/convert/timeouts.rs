//! The timeouts of a proxy: `timeout NAME TIME` and the old forms.

use super::context::{Context, keyword};
use super::proxy::Proxy;
use super::report::Outcome;
use super::sections::Statement;
use super::units::{Span, Unit};

/// Reads one. `false`: rlb has no such timeout.
pub(super) fn read(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    statement: &Statement,
) -> bool {
    let (which, index) = match statement.word(0) {
        "timeout" => (statement.word(1), 2),
        old => (old, 1),
    };
    let keyword = keyword(statement);
    let key = match which {
        "client" | "clitimeout" => "client",
        "server" | "srvtimeout" => "server",
        "connect" | "contimeout" => "connect",
        "client-fin" => "client-fin",
        "client-hs" => "client-hs",
        "server-fin" => "server-fin",
        "check" => "check",
        "queue" => "queue",
        "tunnel" => "tunnel",
        _ => return false,
    };
    if let Some(span) = context.span(statement, index, Unit::Milliseconds) {
        let entry = context.kept(statement.at, keyword);
        set(context, proxy, (key, span, entry));
    }
    true
}

/// Sets the timeout `key`. `entry`: where the report tells of it.
fn set(
    context: &mut Context<'_, '_>,
    proxy: &mut Proxy,
    (key, span, entry): (&'static str, Span, usize),
) {
    let change = |context: &mut Context<'_, '_>, text: &'static str| {
        context.report.raise(entry, Outcome::Changed, text, false);
    };
    match key {
        "tunnel" => {
            let text = "`client` and `server` hold for the whole session: they have this value \
                        where theirs is shorter";
            change(context, text);
            proxy.settings.tunnel = Some((span, entry));
            return;
        }
        "connect" if span.is_zero() => {
            let forever = Span {
                text: "24d".to_owned(),
                milliseconds: 24 * 86_400_000,
            };
            change(context, "for ever is 24 days");
            proxy.settings.timeouts.insert(key, forever);
            return;
        }
        "client-hs" if span.is_zero() => {
            proxy.settings.timeouts.remove(key);
            change(context, "0 stands for the default");
            return;
        }
        "queue" if span.is_zero() => {
            proxy.settings.timeouts.remove(key);
            change(context, "0 stands for the default, that of `connect`");
            return;
        }
        "check" if span.is_zero() => {
            proxy.settings.timeouts.remove(key);
            change(context, "a check has a timeout of its own");
            return;
        }
        _ => {}
    }
    proxy.settings.timeouts.insert(key, span);
}
