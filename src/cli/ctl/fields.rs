//! The fields of answers: tables, lists of values, sessions; and the commands of a line. Pure.

use serde_json::{Map, Number, Value};

/// What an answer holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fields {
    /// Rows under a header that begins with `#`, or sessions.
    Table {
        columns: Vec<String>,
        rows: Vec<Vec<String>>,
    },
    /// Lines of a name and a value, as of `show info`.
    Values(Vec<(String, String)>),
    /// Anything else.
    Text,
}

/// The commands of a line: `;` separates them, unless a backslash stands before it.
pub(super) fn commands(line: &str) -> Vec<String> {
    let mut commands = vec![String::new()];
    let mut escaped = false;
    for character in line.chars() {
        if character == ';' && !escaped {
            commands.push(String::new());
            continue;
        }
        escaped = character == '\\' && !escaped;
        if let Some(last) = commands.last_mut() {
            last.push(character);
        }
    }
    let commands = commands.iter().map(|one| one.trim().to_owned());
    commands.filter(|one| !one.is_empty()).collect()
}

/// The words of a command behind `@PID`.
pub(super) fn words(command: &str) -> Vec<&str> {
    let words = command.split_whitespace();
    words.skip_while(|word| word.starts_with('@')).collect()
}

/// Whether the answer goes on until something ends it.
pub(super) fn follows(command: &str) -> bool {
    match words(command)[..] {
        ["show", "events", _, ref options @ ..] => {
            options.iter().any(|it| ["-w", "-nw", "-wn"].contains(it))
        }
        _ => false,
    }
}

/// The fields of the answer to `command`.
pub(super) fn fields(command: &str, text: &str) -> Fields {
    let text = text.trim_end_matches('\n');
    let found = match words(command)[..] {
        ["show", "info", ..] => values(text),
        ["show", "sess", ..] => sessions(text),
        _ => table(text),
    };
    found.unwrap_or(Fields::Text)
}

/// `# a b c` or `# a,b,c,`, and lines of as many fields.
fn table(text: &str) -> Option<Fields> {
    let mut lines = text.lines();
    let mut header = lines.next()?;
    // `show servers state` begins with the version of its format.
    if header.bytes().all(|byte| byte.is_ascii_digit()) {
        header = lines.next()?;
    }
    let header = header.strip_prefix('#')?.trim_start();
    let rest = lines.collect::<Vec<_>>().join("\n");
    let (columns, rows) = if header.contains(',') {
        comma_separated(header, &rest)?
    } else {
        let split = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        (split(header), rest.lines().map(split).collect())
    };
    let whole = |row: &Vec<String>| row.len() == columns.len();
    rows.iter()
        .all(whole)
        .then_some(Fields::Table { columns, rows })
}

/// Columns and rows.
type Cells = (Vec<String>, Vec<Vec<String>>);

/// Every line ends with a comma.
fn comma_separated(header: &str, rest: &str) -> Option<Cells> {
    let ended = |mut fields: Vec<String>| {
        if fields.last().is_some_and(String::is_empty) {
            fields.pop();
        }
        fields
    };
    let columns = ended(header.split(',').map(str::to_owned).collect());
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(rest.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let mut fields: Vec<String> = record.ok()?.iter().map(str::to_owned).collect();
        if fields.len() == columns.len() + 1 {
            fields = ended(fields);
        }
        rows.push(fields);
    }
    Some((columns, rows))
}

/// `0x2a: proto=tcpv4 src=… rq[f=…] …`, one session a line.
fn sessions(text: &str) -> Option<Fields> {
    let mut columns = vec!["id".to_owned()];
    let mut sessions = Vec::new();
    for line in text.lines() {
        let (id, rest) = line.split_once(": ")?;
        let mut session = vec![("id".to_owned(), id.to_owned())];
        for field in rest.split_whitespace() {
            let (name, value) = match (field.find('='), field.find('[')) {
                (Some(equal), Some(bracket)) if bracket < equal => {
                    let inside = field[bracket + 1..].trim_end_matches(']');
                    (&field[..bracket], inside)
                }
                (Some(equal), _) => (&field[..equal], &field[equal + 1..]),
                (None, _) => return None,
            };
            if !columns.iter().any(|known| known == name) {
                columns.push(name.to_owned());
            }
            session.push((name.to_owned(), value.to_owned()));
        }
        sessions.push(session);
    }
    let cell = |session: &[(String, String)], column: &String| {
        let found = session.iter().find(|(name, _)| name == column);
        found.map_or_else(String::new, |(_, value)| value.clone())
    };
    let row = |session: &Vec<(String, String)>| {
        let cells = columns.iter().map(|column| cell(session, column));
        cells.collect()
    };
    let rows = sessions.iter().map(row).collect();
    Some(Fields::Table { columns, rows })
}

fn values(text: &str) -> Option<Fields> {
    let values = text.lines().map(|line| {
        // An empty value ends its line with the colon.
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim_start().to_owned()))
    });
    values.collect::<Option<_>>().map(Fields::Values)
}

/// The typed answers of `show stat` and `show info`: for each row its values with their types.
pub(super) fn typed(text: &str) -> Option<Vec<Map<String, Value>>> {
    let mut rows: Vec<(String, Map<String, Value>)> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        // `S.3.1.4.scur.1:MGPV:u32:0`, `6.Pid.1:SGPV:u32:4711`
        let mut parts = line.splitn(4, ':');
        let (id, _, of, value) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let parts: Vec<&str> = id.split('.').collect();
        let (row, name) = match parts[..] {
            [kind, proxy, service, _, name, _] => (format!("{kind}.{proxy}.{service}"), name),
            [_, name, _] => (String::new(), name),
            _ => return None,
        };
        if rows.last().is_none_or(|(known, _)| *known != row) {
            rows.push((row, Map::new()));
        }
        if let Some((_, map)) = rows.last_mut() {
            map.insert(name.to_owned(), typed_value(of, value));
        }
    }
    Some(rows.into_iter().map(|(_, map)| map).collect())
}

fn typed_value(of: &str, value: &str) -> Value {
    let number = match of {
        "u32" | "u64" => value.parse::<u64>().ok().map(Number::from),
        "s32" | "s64" => value.parse::<i64>().ok().map(Number::from),
        "flt" => value.parse().ok().and_then(Number::from_f64),
        _ => None,
    };
    number.map_or_else(|| value.into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|field| (*field).to_owned()).collect()
    }

    #[test]
    fn a_line_is_split_at_semicolons() {
        assert_eq!(commands(" show info ; ;help"), ["show info", "help"]);
        assert_eq!(commands(r"echo a\;b;help"), [r"echo a\;b", "help"]);
        assert_eq!(commands(r"echo a\\;help"), [r"echo a\\", "help"]);
    }

    #[test]
    fn tables_have_a_header() {
        let rows = |columns: &[&str], rows: &[&[&str]]| Fields::Table {
            columns: owned(columns),
            rows: rows.iter().map(|row| owned(row)).collect(),
        };
        for (command, text, expected) in [
            (
                "show backend",
                "# name\nstats\na\n\n",
                rows(&["name"], &[&["stats"], &["a"]]),
            ),
            (
                "show servers state",
                "1\n# be_id be_name\n3 a\n\n",
                rows(&["be_id", "be_name"], &[&["3", "a"]]),
            ),
            (
                "@!7 show stat",
                "# pxname,svname,last_chk,\na,s1,\"x, \"\"y\"\"\",\na,s2,,\n\n",
                rows(
                    &["pxname", "svname", "last_chk"],
                    &[&["a", "s1", "x, \"y\""], &["a", "s2", ""]],
                ),
            ),
            (
                "show sess",
                "0x1: proto=tcpv4 rq[f=848000h,i=0] age=3s\n0x2: proto=unix age=1s exp=\n\n",
                rows(
                    &["id", "proto", "rq", "age", "exp"],
                    &[
                        &["0x1", "tcpv4", "f=848000h,i=0", "3s", ""],
                        &["0x2", "unix", "", "1s", ""],
                    ],
                ),
            ),
            (
                "show info",
                "Pid: 7\nnode:\nUptime: 0d 0h00m05s\n\n",
                Fields::Values(vec![
                    ("Pid".to_owned(), "7".to_owned()),
                    ("node".to_owned(), String::new()),
                    ("Uptime".to_owned(), "0d 0h00m05s".to_owned()),
                ]),
            ),
        ] {
            assert_eq!(fields(command, text), expected, "{command}");
        }
    }

    #[test]
    fn what_is_no_table_is_text() {
        for (command, text) in [
            ("show version", "3.0.0\n\n"),
            ("get weight a/s1", "1 (initial 1)\n\n"),
            ("show servers state x", "Can't find backend.\n"),
            ("show stat x", "No such proxy.\n\n"),
            ("show info", "Permission denied\n\n"),
            ("show sess 0x1", "0x1: [28/Nov] id=1\n  flags=0x2\n\n"),
            ("show backend", "# a b\n1\n\n"),
            ("show stat", ""),
        ] {
            assert_eq!(fields(command, text), Fields::Text, "{command}: {text:?}");
        }
    }

    #[test]
    fn typed_values_keep_their_types() {
        let text = "F.2.0.0.pxname.1:KNSV:str:80\nF.2.0.4.scur.1:MGPV:u32:3\n\
                    S.2.1.0.pxname.1:KNSV:str:a:b\nS.2.1.9.lastsess.1:MAPP:s32:-1\n\n";
        let rows = typed(text).map(Value::from);
        let expected = serde_json::json!([
            {"pxname": "80", "scur": 3},
            {"pxname": "a:b", "lastsess": -1},
        ]);
        assert_eq!(rows, Some(expected));
        assert_eq!(typed("No such proxy.\n\n"), None);
    }
}
