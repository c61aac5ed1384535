//! The statistics as CSV: HAProxy's `show stat` and `/;csv`. Runs on the admin thread.
//!
//! Invariant: every line has as many fields as the header, and a comma after each, the last included; consumers
//! count them.

use super::columns::{COLUMNS, Value};
use super::row::Row;
use std::fmt::Write;

/// The header: `# pxname,svname,…,-,`.
pub(super) fn header(text: &mut String) {
    text.push_str("# ");
    for column in &COLUMNS {
        text.push_str(column.name);
        text.push(',');
    }
    text.push_str("-,\n");
}

/// The line of a row.
pub(super) fn line(text: &mut String, row: &Row<'_>) {
    for column in &COLUMNS {
        field(text, &column.value(row));
        text.push(',');
    }
    text.push_str("-,\n");
}

fn field(text: &mut String, value: &Value<'_>) {
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Absent => Ok(()),
        Value::Number(number) => write!(text, "{number}"),
        Value::Signed(number) => write!(text, "{number}"),
        Value::Fraction(number) => write!(text, "{number:?}"),
        Value::Text(value) => {
            quoted(text, value);
            Ok(())
        }
    };
}

/// As HAProxy: quoted when it contains a comma or a quote, and quotes are doubled. Line ends become spaces,
/// because consumers read line by line.
fn quoted(text: &mut String, value: &str) {
    let quote = value.contains([',', '"']);
    if quote {
        text.push('"');
    }
    for character in value.chars() {
        match character {
            '"' => text.push_str("\"\""),
            '\n' | '\r' => text.push(' '),
            other => text.push(other),
        }
    }
    if quote {
        text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::test_snapshot::{rows, seed, whole};
    use crate::stats::{Format, Table};

    #[test]
    fn fields_are_quoted_as_haproxy_does() {
        let mut text = String::new();
        for value in ["plain text", "a,b", "say \"x\"", "two\nlines"] {
            quoted(&mut text, value);
            text.push('|');
        }
        assert_eq!(text, "plain text|\"a,b\"|\"say \"\"x\"\"\"|two lines|");
    }

    #[test]
    fn every_line_has_the_fields_of_the_header() {
        let text = whole(Table::new(Format::Csv, rows(seed(3))));
        let mut lines = text.lines();
        let header = lines.next().unwrap();
        assert!(header.starts_with("# pxname,svname,qcur,qmax,"), "{header}");
        assert!(header.ends_with(",cache_hint_hits,-,"), "{header}");
        let fields = header.matches(',').count();
        assert_eq!(fields, 120);
        let mut count = 0;
        for line in lines {
            assert_eq!(line.matches(',').count(), fields, "{line}");
            assert!(line.ends_with(",-,"), "{line}");
            count += 1;
        }
        assert_eq!(count, 2 + 5);
    }

    #[test]
    fn a_server_row_reads_as_haproxys() {
        let text = whole(Table::new(Format::Csv, rows(seed(3))));
        let server = text
            .lines()
            .find(|line| line.starts_with("postgres,node1,"));
        assert_eq!(
            server.unwrap(),
            "postgres,node1,0,0,0,0,,0,0,0,,0,,0,0,0,0,UP 1/3,1,1,0,0,0,10,0,,1,3,1,,0,,2,0,,0,INI,,,,,\
             ,,,,,,,,0,0,,,,,-1,,,0,0,0,0,,,,Initializing,,2,3,2,,,,127.0.0.1:9,,tcp,,,,,,,,0,0,0,,,0,,\
             0,0,0,0,0,0,0,0,0,1,,,,0,,,,,,,,,,0,0,0,0,0,,-,"
        );
    }
}
