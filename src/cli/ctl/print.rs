//! Answers for people and for scripts. Pure.

use super::fields::{self, Fields};
use serde_json::{Map, Value, json};

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As they come.
    Raw,
    /// In aligned columns.
    Table,
    /// As a JSON object a command.
    Json,
}

/// The columns of `show stat` in a table, of more than a hundred.
const STAT_COLUMNS: [&str; 16] = [
    "pxname",
    "svname",
    "status",
    "weight",
    "lastchg",
    "qcur",
    "scur",
    "smax",
    "slim",
    "stot",
    "rate",
    "bin",
    "bout",
    "econ",
    "check_status",
    "addr",
];

/// The columns of `show sess` in a table.
const SESSION_COLUMNS: [&str; 9] = [
    "id", "proto", "src", "fe", "be", "srv", "age", "calls", "exp",
];

/// The command to send, so that its answer can be printed.
pub(super) fn asked(command: &str, format: Format) -> String {
    if format == Format::Json && is_typed(command) {
        format!("{command} typed")
    } else {
        command.to_owned()
    }
}

/// Whether the answer has types when it is asked for.
fn is_typed(command: &str) -> bool {
    let words = fields::words(command);
    let typed = matches!(words[..], ["show", "stat" | "info", ..]);
    typed && !words.iter().any(|word| ["json", "typed"].contains(word))
}

/// The answer to `command` in this format.
pub(super) fn shown(command: &str, text: &str, succeeded: bool, format: Format) -> String {
    match format {
        Format::Raw => text.to_owned(),
        Format::Json => format!("{}\n", object(command, text, succeeded)),
        Format::Table => match fields::fields(command, text) {
            Fields::Text => text.to_owned(),
            Fields::Values(values) => {
                let rows = values.into_iter().map(|(name, value)| vec![name, value]);
                aligned(None, &rows.collect::<Vec<_>>())
            }
            Fields::Table { columns, rows } => {
                let (columns, rows) = chosen(command, columns, rows);
                aligned(Some(&columns), &rows)
            }
        },
    }
}

/// The columns that people ask for first.
fn chosen(
    command: &str,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
) -> (Vec<String>, Vec<Vec<String>>) {
    let wanted: &[&str] = match fields::words(command)[..] {
        ["show", "stat", ..] => &STAT_COLUMNS,
        // The answer names columns with each session alone.
        ["show", "sess", ..] if rows.is_empty() => {
            return (SESSION_COLUMNS.map(str::to_owned).into(), rows);
        }
        ["show", "sess", ..] => &SESSION_COLUMNS,
        _ => return (columns, rows),
    };
    let place = |name: &&str| columns.iter().position(|column| column == name);
    let places: Vec<usize> = wanted.iter().filter_map(place).collect();
    let of = |row: &Vec<String>| places.iter().map(|place| row[*place].clone()).collect();
    (of(&columns), rows.iter().map(of).collect())
}

/// Columns of one width each, two blanks apart; numbers end below each other.
fn aligned(header: Option<&Vec<String>>, rows: &[Vec<String>]) -> String {
    let count = header.into_iter().chain(rows).map(Vec::len).max();
    let count = count.unwrap_or(0);
    let width = |column: usize| {
        let cells = header.into_iter().chain(rows);
        let cells = cells.filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let number = |cell: &String| {
        cell.bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    let right = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column));
        header.is_some() && cells.all(number)
    };
    let right: Vec<bool> = (0..count).map(right).collect();
    let mut out = String::new();
    for row in header.into_iter().chain(rows) {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let missing = widths[column].saturating_sub(cell.chars().count());
            let blanks = " ".repeat(missing);
            let gap = if column == 0 { "" } else { "  " };
            line.push_str(gap);
            if right[column] {
                line.push_str(&blanks);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&blanks);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// What scripts get: the rows or values of the answer, or its text.
fn object(command: &str, text: &str, succeeded: bool) -> Value {
    let mut object = Map::new();
    object.insert("command".to_owned(), command.into());
    object.insert("succeeded".to_owned(), succeeded.into());
    let (name, value) = content(command, text);
    object.insert(name.to_owned(), value);
    Value::Object(object)
}

fn content(command: &str, text: &str) -> (&'static str, Value) {
    let text = text.trim_end_matches('\n');
    let typed = is_typed(command).then(|| fields::typed(text)).flatten();
    if let Some(mut rows) = typed {
        let info = matches!(fields::words(command)[..], ["show", "info", ..]);
        return match rows.len() {
            1 if info => ("values", rows.remove(0).into()),
            _ => ("rows", rows.into()),
        };
    }
    if fields::words(command).contains(&"json")
        && let Ok(value) = serde_json::from_str(text)
    {
        return ("json", value);
    }
    match fields::fields(command, text) {
        Fields::Table { columns, rows } => {
            let row = |row: Vec<String>| -> Value {
                let cells = columns.iter().cloned().zip(row);
                Value::Object(cells.map(|(column, cell)| (column, cell.into())).collect())
            };
            ("rows", rows.into_iter().map(row).collect())
        }
        Fields::Values(values) => {
            let values = values.into_iter().map(|(name, value)| (name, value.into()));
            ("values", Value::Object(values.collect()))
        }
        Fields::Text => ("text", json!(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let text = "# pxname,svname,scur,pid,status,\nweb,FRONTEND,7,1,OPEN,\nb,s1,12,1,,\n\n";
        let table = shown("show stat", text, true, Format::Table);
        let expected = "pxname  svname    status  scur\n\
                        web     FRONTEND  OPEN       7\n\
                        b       s1                  12\n";
        assert_eq!(table, expected);
        let values = shown("show info", "Pid: 7\nUptime: 5\n\n", true, Format::Table);
        assert_eq!(values, "Pid     7\nUptime  5\n");
        let none = "id  proto  src  fe  be  srv  age  calls  exp\n";
        assert_eq!(shown("show sess", "\n", true, Format::Table), none);
        let text = "No such proxy.\n\n";
        assert_eq!(shown("show stat x", text, false, Format::Table), text);
        assert_eq!(shown("show stat", text, true, Format::Raw), text);
    }

    #[test]
    fn each_command_is_an_object() {
        let shown = |command: &str, text: &str, succeeded| -> Value {
            let line = shown(command, text, succeeded, Format::Json);
            assert_eq!(line.lines().count(), 1, "{line}");
            serde_json::from_str(&line).unwrap()
        };
        assert_eq!(
            shown("show backend", "# name\na\n\n", true),
            json!({"command": "show backend", "succeeded": true, "rows": [{"name": "a"}]})
        );
        assert_eq!(
            shown("show info", "6.Pid.1:SGPV:u32:4711\n\n", true),
            json!({"command": "show info", "succeeded": true, "values": {"Pid": 4711}})
        );
        assert_eq!(
            shown("show stat", "F.2.0.4.scur.1:MGPV:u32:3\n\n", true)["rows"],
            json!([{"scur": 3}])
        );
        assert_eq!(
            shown("show stat json", "[[]]\n\n", true)["json"],
            json!([[]])
        );
        assert_eq!(
            shown("get weight a/x", "No such server.\n\n", false),
            json!({"command": "get weight a/x", "succeeded": false, "text": "No such server."})
        );
        // A backend without sessions, and a command without an answer.
        assert_eq!(shown("show sess", "\n", true)["rows"], json!([]));
        assert_eq!(shown("enable server a/s1", "\n", true)["text"], "");
    }

    #[test]
    fn types_are_asked_for() {
        let asked = |command| asked(command, Format::Json);
        assert_eq!(asked("show stat a 4 -1"), "show stat a 4 -1 typed");
        assert_eq!(asked("@!7 show info"), "@!7 show info typed");
        for command in ["show stat json", "show info typed", "show servers conn"] {
            assert_eq!(asked(command), command);
        }
        assert_eq!(super::asked("show stat", Format::Table), "show stat");
    }
}
