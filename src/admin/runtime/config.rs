//! `reload dry-run` and `show config`: what the files would change, and what is in force. Admin thread; the
//! reload task answers.

use super::CommandContext;
use super::reply::Reply;
use super::set::{STOPPING, success};
use crate::control::reload::Shape;

/// `reload dry-run [json]`: `Success=1` or `Success=0`, then what a reload would change or why it would be
/// refused.
pub(super) async fn dry_run(context: &CommandContext, args: &[&str]) -> Reply {
    let shape = match args {
        [] => Shape::Lines,
        ["json"] => Shape::Json,
        _ => {
            let text = "Success=0\n--\nExpected 'reload dry-run' or 'reload dry-run json'.\n";
            return Reply::NotDone(text.to_owned());
        }
    };
    success(context.reload.compare(shape).await)
}

/// `show config`: the text of every file in force, as it was read.
pub(super) async fn show(context: &CommandContext) -> Reply {
    match context.reload.show().await {
        Some(answer) => Reply::Text(answer.lines.join("\n") + "\n"),
        None => Reply::error(STOPPING),
    }
}
