//! `server-state-file`, `server-state-base` and `load-server-state-from-file`.

use super::{BackendSide, Half, once};
use crate::config::diagnostic::Diagnostic;
use crate::config::keys::GlobalLayer;
use crate::config::model::{Config, StateFiles, StatesFrom};
use crate::config::read::ParsedFile;
use crate::config::scope::Validator;
use std::collections::HashMap;
use std::path::PathBuf;

/// Checks that each file has a path of its own, from the root on, and that something is done with it.
pub(super) fn state_files(
    validator: &mut Validator<'_>,
    files: &[ParsedFile],
    backends: &[Half<'_, BackendSide<'_>>],
    config: &Config,
) {
    let of = StateFiles::of(&config.global);
    let mut begins = config.backends.iter();
    let is_read = begins.any(|it| it.load_server_state_from_file == StatesFrom::Global);
    match of.global() {
        Some(path) if path.is_relative() => {
            let message = format!("`server-state-file` has no folder: `{}`", path.display());
            let diagnostic = Diagnostic::error("path", message);
            let hint = "write a path that begins with `/`, or such a `server-state-base`";
            report_global(validator, files, diagnostic.hint(hint));
        }
        Some(_) if !is_read => {
            let message = "no backend begins with the states in `server-state-file`";
            let diagnostic = Diagnostic::warning("no-effect", message);
            let hint =
                "write `load-server-state-from-file = \"global\"` in [defaults] or in a backend";
            report_global(validator, files, diagnostic.hint(hint));
        }
        _ => {}
    }
    let mut taken: HashMap<PathBuf, String> = HashMap::new();
    taken.extend(of.global().map(|path| (path, "the process".to_owned())));
    for (half, backend) in backends.iter().zip(&config.backends) {
        let what = half.what();
        if backend.load_server_state_from_file == StatesFrom::Global && of.global().is_none() {
            let message = format!("{what} begins with the states in a file that is not named");
            let diagnostic = Diagnostic::warning("no-effect", message).at(half.place());
            let hint = "write `server-state-file` in [global]";
            validator.report.push(diagnostic.hint(hint));
        }
        let Some(path) = of.local(backend) else {
            continue;
        };
        let shown = path.display().to_string();
        let message = if path.is_relative() {
            Some(format!(
                "the file of states of {what} has no folder: `{shown}`"
            ))
        } else {
            let before = taken.insert(path, what.clone());
            before.map(|other| format!("{what} has the file of states of {other}: `{shown}`"))
        };
        if let Some(message) = message {
            let diagnostic = Diagnostic::error("path", message).at(half.place());
            let hint = "write a `server-state-file-name` that begins with `/`, or a `server-state-base` in [global]";
            validator.report.push(diagnostic.hint(hint));
        }
    }
}

/// Reports at `server-state-file`.
fn report_global(validator: &mut Validator<'_>, files: &[ParsedFile], diagnostic: Diagnostic) {
    let found = once::once(validator, files, "global", |file| &file.global);
    let layer = found.map(|(scope, table)| GlobalLayer::read(validator, scope, &table.value));
    let place = layer.and_then(|layer| layer.server_state_file);
    let diagnostic = match place {
        Some(written) => diagnostic.at(written.place),
        None => diagnostic,
    };
    validator.report.push(diagnostic);
}
