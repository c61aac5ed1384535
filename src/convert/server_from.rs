//! `from` of a server and of a `default-server`, as in HAProxy 3.5: what they have before their other words.

use super::context::Context;
use super::proxy::ServerKeys;
use super::sections::Statement;
use crate::config::haproxy::Place;

/// `from ORIGIN`, which HAProxy 3.5 has before all other words. The index of the word behind it, or `first`.
pub(super) fn from(
    context: &mut Context<'_, '_>,
    keys: &mut ServerKeys,
    statement: &Statement,
    first: usize,
) -> usize {
    if statement.word(first) != "from" {
        return first;
    }
    let keyword = format!("{} from", statement.word(0));
    let origin = statement.word(first + 1);
    let known = ["be:", "srv:"].iter().any(|kind| origin.starts_with(kind));
    if !known && origin != "none" {
        let text = "`none`, `be:` or `srv:` is needed behind it";
        context.report.error(statement.at(first), keyword, text);
    } else if let Some(row) = context.index.find(Place::Server, "from another") {
        let mark = context.mark(statement.at(first), &keyword, row);
        keys.marks.push(mark);
    }
    first + 2
}
