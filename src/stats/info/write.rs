//! The items as HAProxy's `show info` writes them: plain, typed, and as JSON.

use super::{Facts, ITEMS, Item, Value};
use crate::stats::{json, typed};
use std::fmt::Write;

/// The format of the items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Form {
    /// How an item is written.
    pub layout: Layout,
    /// Followed by the description in quotes; not in JSON.
    pub described: bool,
    /// Rates and times as decimal fractions.
    pub exact: bool,
}

/// How an item is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// `Uptime_sec: 7`
    #[default]
    Plain,
    /// `8.Uptime_sec.1:MDPV:u32:7`, with position, process, letters and type.
    Typed,
    /// An object in an array.
    Json,
}

/// All items.
pub fn write(facts: &Facts<'_>, form: Form) -> String {
    if form.layout == Layout::Json {
        array(facts, form.exact)
    } else {
        lines(facts, form)
    }
}

/// Items that are decimal fractions when they are to be exact, as in HAProxy.
const FRACTIONS: [&str; 6] = [
    "Uptime_sec",
    "ConnRate",
    "SessRate",
    "CompressBpsIn",
    "CompressBpsOut",
    "Start_time_sec",
];

/// The type and the value of an item.
fn value<'a>(facts: &'a Facts<'_>, item: &Item, exact: bool) -> (&'static str, Value<'a>) {
    let of = item.typed.split_once(':').map_or("str", |(_, of)| of);
    if !exact || !FRACTIONS.contains(&item.name) {
        return (of, (item.value)(facts));
    }
    let value = match item.name {
        "Uptime_sec" => Value::Fraction(facts.uptime_exact()),
        _ => (item.value)(facts),
    };
    ("flt", value)
}

fn lines(facts: &Facts<'_>, form: Form) -> String {
    let mut text = String::new();
    for item in &ITEMS {
        let (position, name) = (item.position, item.name);
        let (of, value) = value(facts, item, form.exact);
        // Writing to a string cannot fail.
        let _ = if form.layout == Layout::Typed {
            let letters = item.typed.split(':').next().unwrap_or_default();
            write!(text, "{position}.{name}.1:{letters}:{of}:")
        } else {
            write!(text, "{name}: ")
        };
        typed::value(&mut text, &value);
        if form.described {
            let _ = write!(text, ":\"{}\"", item.description);
        }
        text.push('\n');
    }
    text
}

fn array(facts: &Facts<'_>, exact: bool) -> String {
    let mut text = String::new();
    for item in &ITEMS {
        let (position, name) = (item.position, item.name);
        let letters = item.typed.split(':').next().unwrap_or_default();
        let (of, value) = value(facts, item, exact);
        let before = if text.is_empty() { '[' } else { ',' };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{before}{{\"field\":{{\"pos\":{position},\"name\":\"{name}\"}},\"processNum\":1,"
        );
        json::tagged(&mut text, (letters, of), &value);
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
    use serde_json::Value as Json;
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
        let without_value = |text: &str| -> Vec<Json> {
            let mut all: Vec<Json> = serde_json::from_str(text).unwrap();
            for one in &mut all {
                one["value"]["value"].take();
            }
            all
        };
        let json = Form {
            layout: Layout::Json,
            ..Form::default()
        };
        assert_eq!(without_value(&written(json)), without_value(THEIRS));
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
            (true, true, "0.Name.1:POSV:str:HAProxy:\"Product name\"\n"),
        ] {
            let text = written(Form {
                layout: if typed { Layout::Typed } else { Layout::Plain },
                described,
                ..Form::default()
            });
            assert!(text.contains(line), "{line} in {text}");
            assert_eq!(text.lines().count(), ITEMS.len());
        }
    }

    /// tools.md 5: `float`.
    #[test]
    fn exact_items_have_haproxys_type() {
        let exact = Form {
            exact: true,
            ..Form::default()
        };
        let text = written(Form {
            layout: Layout::Typed,
            ..exact
        });
        for line in [
            "8.Uptime_sec.1:MDPV:flt:7.000000\n",
            "26.ConnRate.1:MRPV:flt:0\n",
            "15.Maxconn.1:CLPV:u32:2000\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let json = written(Form {
            layout: Layout::Json,
            ..exact
        });
        let json: Json = serde_json::from_str(&json).unwrap();
        let uptime = &json[8]["value"];
        assert_eq!(uptime, &serde_json::json!({ "type": "flt", "value": 7.0 }));
    }
}
