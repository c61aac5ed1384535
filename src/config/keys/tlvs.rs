//! The kind of `proxy-v2-tlvs`: TLVs that a PROXY header to a server has.

use super::kinds::{Absent, Kind, Plain, Read};
use crate::config::diagnostic::Diagnostic;
use crate::config::key::Key;
use crate::config::own_tlv::{OwnTlv, OwnTlvs};
use crate::config::scope::{Scope, Validator, Written};
use crate::config::shapes::OneOrMany;
use std::sync::Arc;

/// Most of them.
const TLVS_MAX: usize = 64;

/// A TLV as `"0xE1=%[src]"`, or a list of them. An empty text stands for none.
#[derive(Debug)]
pub struct TlvList;

impl Kind for TlvList {
    type Field = Option<OneOrMany<String>>;
    type Default = &'static str;
    const WORD: &'static str = "TLV or list";

    fn default_text(default: &'static str) -> String {
        default.to_owned()
    }
}

impl Plain for TlvList {
    type Value = OwnTlvs;
    type Meant = OwnTlvs;

    fn meant(value: Option<OwnTlvs>, _: &'static str) -> OwnTlvs {
        value.unwrap_or_else(|| Arc::new([]))
    }

    fn show(meant: &OwnTlvs) -> String {
        let texts: Vec<String> = meant.iter().map(ToString::to_string).collect();
        texts.join(", ")
    }
}

impl Absent for TlvList {
    fn is_absent(value: &OwnTlvs) -> bool {
        value.is_empty()
    }
}

impl Read for TlvList {
    fn read(
        validator: &mut Validator<'_>,
        scope: Scope<'_>,
        key: &Key,
        field: &Option<OneOrMany<String>>,
    ) -> Option<Written<OwnTlvs>> {
        let written = field.as_ref()?;
        let Some(first) = written.0.first() else {
            let message = format!("{} is an empty list", key.label());
            let problem = Diagnostic::error("value", message);
            validator
                .report
                .push(problem.hint("leave it out, or write \"\""));
            return None;
        };
        let place = scope.of(first);
        if written.0.len() > TLVS_MAX {
            let message = format!("{} has more than {TLVS_MAX} TLVs", key.label());
            validator
                .report
                .push(Diagnostic::error("value", message).at(place));
            return None;
        }
        let is_none = written.0.len() == 1 && first.value.is_empty();
        let texts = written.0.iter().filter(|_| !is_none);
        let all: Vec<Option<OwnTlv>> = texts
            .map(|text| match OwnTlv::parse(&text.value) {
                Ok(one) => Some(one),
                Err(problem) => {
                    let expected = "expected a TLV as \"0xE1=%[src]\"";
                    validator.problem(scope.of(text), "value", expected, problem);
                    None
                }
            })
            .collect();
        let value: Option<OwnTlvs> = all.into_iter().collect();
        Some(Written {
            value: value?,
            place,
        })
    }
}
