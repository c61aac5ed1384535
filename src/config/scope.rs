//! What reading a key needs: the place of the key, the report, and checks that many keys share.
//!
//! Each check takes a value as written and returns it converted, or reports why it is not valid.

#![expect(
    clippy::ref_option,
    reason = "a key is handed on as it stands, written or not"
)]

use crate::config::Limits;
use crate::config::diagnostic::{Diagnostic, Report};
use crate::config::key::Key;
use crate::config::script::TlsContext;
use crate::config::shapes::{Located, Maybe, Timespan};
use crate::config::source::{Place, Source};
use crate::config::tree::RemovedKeys;
use crate::config::units::{self, Problem};
use std::collections::HashSet;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

/// The file that is being read.
#[derive(Clone, Copy)]
pub(in crate::config) struct Scope<'a> {
    pub(in crate::config) source: &'a Arc<Source>,
    pub(in crate::config) removed: &'a RemovedKeys,
}

impl Scope<'_> {
    pub(in crate::config) fn place(&self, span: &Range<usize>) -> Place {
        Place::new(self.source, span.clone())
    }

    pub(in crate::config) fn of<T>(&self, value: &Located<T>) -> Place {
        self.place(&value.span)
    }
}

/// A value that was written, and its place.
#[derive(Debug, Clone)]
pub(in crate::config) struct Written<T> {
    pub(in crate::config) value: T,
    pub(in crate::config) place: Place,
}

/// The value that was written and its place, or the default.
pub(in crate::config) fn or_default<T: Copy>(
    written: Option<&Written<T>>,
    default: T,
) -> (T, Option<&Place>) {
    match written {
        Some(written) => (written.value, Some(&written.place)),
        None => (default, None),
    }
}

/// The report, and the limits of the machine.
pub(in crate::config) struct Validator<'a> {
    pub(in crate::config) report: &'a mut Report,
    pub(in crate::config) limits: &'a Limits,
    /// Worker threads.
    pub(in crate::config) threads: usize,
    /// Addresses to listen on so far, with ranges expanded.
    pub(in crate::config) binds: usize,
    /// Servers so far, of all backends.
    pub(in crate::config) servers: usize,
    /// Files that keys name are read, to see whether they are as they should be.
    pub(in crate::config) disk: bool,
    /// What such files were read for.
    pub(in crate::config) tls: HashSet<Arc<TlsContext>>,
}

impl Validator<'_> {
    /// A number within the bounds of its key.
    pub(in crate::config) fn number(
        &mut self,
        scope: Scope<'_>,
        key: &Key,
        value: &Maybe<i64>,
    ) -> Option<Written<u32>> {
        let (first, last) = key.bounds.unwrap_or((0, i64::from(u32::MAX)));
        self.number_within(scope, key.label(), value, first..=last)
    }

    /// A number within `range`, which must fit a `u32`.
    pub(in crate::config) fn number_within(
        &mut self,
        scope: Scope<'_>,
        key: &str,
        value: &Maybe<i64>,
        range: RangeInclusive<i64>,
    ) -> Option<Written<u32>> {
        let written = value.as_ref()?;
        let place = scope.of(written);
        let number = u32::try_from(written.value)
            .ok()
            .filter(|_| range.contains(&written.value));
        if let Some(value) = number {
            return Some(Written { value, place });
        }
        let (first, last) = range.into_inner();
        let message = format!("{key} {} is out of range", written.value);
        self.report.push(
            Diagnostic::error("out-of-range", message)
                .at(place)
                .label(expected(first, last))
                .maybe_hint(
                    (key == "maxconn" && written.value == 0)
                        .then(|| "leave it out for no limit but the descriptor limit".to_owned()),
                ),
        );
        None
    }

    /// A duration that may not be zero.
    pub(in crate::config) fn duration(
        &mut self,
        scope: Scope<'_>,
        key: &Key,
        value: &Maybe<Timespan>,
    ) -> Option<Written<Duration>> {
        let written = value.as_ref()?;
        let place = scope.of(written);
        if written.value.0.is_zero() {
            self.report.push(
                Diagnostic::error("out-of-range", format!("{} cannot be zero", key.label()))
                    .at(place)
                    .label("expected at least \"1ms\""),
            );
            return None;
        }
        Some(Written {
            value: written.value.0,
            place,
        })
    }

    /// An idle timeout. Zero switches it off, which causes a warning.
    pub(in crate::config) fn idle(
        &mut self,
        scope: Scope<'_>,
        key: &Key,
        value: &Maybe<Timespan>,
    ) -> Option<Written<Duration>> {
        let written = value.as_ref()?;
        let place = scope.of(written);
        if written.value.0.is_zero() {
            self.report.push(
                Diagnostic::warning("timeout-off", format!("{} is switched off", key.label()))
                    .at(place.clone())
                    .label("0 means for ever")
                    .hint("sessions whose peer says nothing pile up until maxconn is reached"),
            );
        }
        Some(Written {
            value: written.value.0,
            place,
        })
    }

    /// The name of a proxy, listener or server.
    pub(in crate::config) fn name(
        &mut self,
        scope: Scope<'_>,
        value: &Maybe<String>,
    ) -> Option<Arc<str>> {
        let written = value.as_ref()?;
        if let Err(problem) = units::name(&written.value) {
            self.problem(scope.of(written), "name", "expected a name", problem);
        }
        Some(written.value.as_str().into())
    }

    /// Reports the error of a parser in `units` about the string at `place`.
    pub(in crate::config) fn problem(
        &mut self,
        place: Place,
        code: &'static str,
        expected: &str,
        problem: Problem,
    ) {
        let diagnostic = Diagnostic::error(code, problem.message)
            .label(expected)
            .maybe_hint(problem.hint);
        self.report.push_quoting(place, diagnostic);
    }

    /// Reports that `what`, the table at `table`, lacks the key that `example` sets, unless the key was written
    /// and wrong.
    pub(in crate::config) fn missing(
        &mut self,
        scope: Scope<'_>,
        table: &Range<usize>,
        what: &str,
        example: &str,
    ) {
        let key = example.split(' ').next().unwrap_or_default();
        if !scope.removed.contains(table, key) {
            self.report.push(
                Diagnostic::error("missing-key", format!("{what} has no `{key}`"))
                    .at(scope.place(table))
                    .label(format!("expected a `{key}`"))
                    .hint(format!("add `{example}`")),
            );
        }
    }
}

/// "expected 1 to 5".
pub(in crate::config) fn expected(first: i64, last: i64) -> String {
    if first == last {
        format!("expected {first}")
    } else {
        format!("expected {first} to {last}")
    }
}

/// The value of a switch; `false` when it was not written.
pub(in crate::config) fn flag(switch: Option<&Written<bool>>) -> bool {
    switch.is_some_and(|written| written.value)
}
