//! HAProxy's typed lines, `S.3.1.4.scur.1:MGPV:u32:0`: kind of row, id of the proxy and of the server, position
//! and name of the column, process; its letters, its type, its value. Admin thread.

use super::columns::{COLUMNS, Value};
use super::row::{Kind, Row};
use std::fmt::Write;

/// The lines of a row, one per value.
pub(super) fn lines(text: &mut String, row: &Row<'_>) {
    let kind = match row.kind() {
        Kind::Frontend => 'F',
        Kind::Backend => 'B',
        Kind::Server => 'S',
    };
    let (proxy, service) = row.ids();
    for (position, column) in COLUMNS.iter().enumerate() {
        let value = column.value(row);
        if value == Value::Absent {
            continue;
        }
        let (letters, of) = column.typed(row.kind());
        let name = column.name;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{kind}.{proxy}.{service}.{position}.{name}.1:{letters}:{of}:"
        );
        self::value(text, &value);
        text.push('\n');
    }
}

/// A value. Line ends become spaces, because a value ends with its line.
pub(super) fn value(text: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Absent => Ok(()),
        Value::Number(number) => write!(text, "{number}"),
        Value::Signed(number) => write!(text, "{number}"),
        Value::Fraction(number) => write!(text, "{number:.6}"),
        Value::Text(value) => {
            text.extend(value.chars().map(|character| match character {
                '\n' | '\r' => ' ',
                other => other,
            }));
            Ok(())
        }
    };
}
