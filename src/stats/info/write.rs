//! The items as HAProxy's `show info` writes them: plain, typed, and as JSON.

use super::{Facts, ITEMS};
use crate::stats::{json, typed};
use std::fmt::Write;

/// The format of the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `Uptime_sec: 7`, or `7.Uptime_sec.1:MDPV:u32:7` if `typed`; if `described`, followed by the description
    /// in quotes.
    Lines {
        /// With position, process, letters and type.
        typed: bool,
        /// With the description.
        described: bool,
    },
    /// An array of objects.
    Json,
}

/// All items.
pub fn write(facts: &Facts<'_>, form: Form) -> String {
    match form {
        Form::Lines { typed, described } => lines(facts, typed, described),
        Form::Json => array(facts),
    }
}

fn lines(facts: &Facts<'_>, is_typed: bool, described: bool) -> String {
    let mut text = String::new();
    for item in &ITEMS {
        let (position, name, of) = (item.position, item.name, item.typed);
        // Writing to a string cannot fail.
        let _ = if is_typed {
            write!(text, "{position}.{name}.1:{of}:")
        } else {
            write!(text, "{name}: ")
        };
        typed::value(&mut text, &(item.value)(facts));
        if described {
            let _ = write!(text, ":\"{}\"", item.description);
        }
        text.push('\n');
    }
    text
}

fn array(facts: &Facts<'_>) -> String {
    let mut text = String::new();
    for item in &ITEMS {
        let (position, name) = (item.position, item.name);
        let (letters, of) = item.typed.split_once(':').unwrap_or((item.typed, "str"));
        let before = if text.is_empty() { '[' } else { ',' };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{before}{{\"field\":{{\"pos\":{position},\"name\":\"{name}\"}},\"processNum\":1,"
        );
        json::tagged(&mut text, (letters, of), &(item.value)(facts));
        text.push('}');
    }
    text.push_str("]\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::test_snapshot::seed;
    use crate::stats::{Process, Requests};
    use serde_json::Value;
    use std::time::Duration;

    const THEIRS: &str = include_str!("../testdata/haproxy-3.5-info.json");

    fn written(form: Form) -> String {
        let snapshot = seed(2);
        let process = Process::new(snapshot.global.start);
        let requests = Requests::default();
        let now = snapshot.global.start + Duration::from_secs(7);
        let facts = Facts {
            snapshot: &snapshot,
            process: &process,
            requests: &requests,
            now,
        };
        write(&facts, form)
    }

    #[test]
    fn json_has_haproxys_fields_tags_and_types() {
        let without_value = |text: &str| -> Vec<Value> {
            let mut all: Vec<Value> = serde_json::from_str(text).unwrap();
            for one in &mut all {
                one["value"]["value"].take();
            }
            all
        };
        assert_eq!(without_value(&written(Form::Json)), without_value(THEIRS));
    }

    #[test]
    fn lines_are_plain_or_typed_and_have_a_description_if_asked() {
        for (typed, described, line) in [
            (false, false, "Uptime_sec: 7\n"),
            (
                false,
                true,
                "Nbthread: 1:\"Number of started threads (global.nbthread)\"\n",
            ),
            (true, false, "8.Uptime_sec.1:MDPV:u32:7\n"),
            (true, true, "0.Name.1:POSV:str:rlb:\"Product name\"\n"),
        ] {
            let text = written(Form::Lines { typed, described });
            assert!(text.contains(line), "{line} in {text}");
            assert_eq!(text.lines().count(), ITEMS.len());
        }
    }
}
