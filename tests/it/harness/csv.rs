//! The statistics as `/;csv` prints them, read by column names, as every consumer should.

use std::collections::HashMap;

/// A parsed page of `/;csv`.
#[derive(Debug, Clone)]
pub(crate) struct Csv {
    rows: Vec<HashMap<String, String>>,
    columns: Vec<String>,
}

impl Csv {
    /// Parses the text; panics where it breaks HAProxy's format.
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let header = lines.next().expect("a header line");
        let header = header
            .strip_prefix("# ")
            .unwrap_or_else(|| panic!("no header: {header}"));
        let columns: Vec<String> = split(header)
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        let rows = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let fields = split(line);
                assert!(fields.len() >= columns.len(), "short row: {line}");
                columns.iter().cloned().zip(fields).collect()
            })
            .collect();
        Self { rows, columns }
    }

    /// The column names in order.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// All rows in their order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(Row)
    }

    /// The row of `svname` in `pxname`; panics when there is none.
    #[track_caller]
    pub(crate) fn row(&self, pxname: &str, svname: &str) -> Row<'_> {
        self.find(pxname, svname).unwrap_or_else(|| {
            let names: Vec<_> = self
                .rows()
                .map(|row| format!("{}/{}", row.text("pxname"), row.text("svname")))
                .collect();
            panic!("no row {pxname}/{svname} among {names:?}")
        })
    }

    /// The row of `svname` in `pxname`, if there is one.
    pub(crate) fn find(&self, pxname: &str, svname: &str) -> Option<Row<'_>> {
        self.rows()
            .find(|row| row.text("pxname") == pxname && row.text("svname") == svname)
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a>(&'a HashMap<String, String>);

impl<'a> Row<'a> {
    /// The text of a column; panics for a column that is not there.
    #[track_caller]
    pub(crate) fn text(self, column: &str) -> &'a str {
        self.0
            .get(column)
            .unwrap_or_else(|| panic!("no column {column}"))
    }

    /// The number in a column. An empty field panics, because empty does not mean 0 in HAProxy.
    #[track_caller]
    pub(crate) fn number(self, column: &str) -> u64 {
        let text = self.text(column);
        text.parse()
            .unwrap_or_else(|_| panic!("{column} is {text:?}, not a number: {:?}", self.0))
    }

    /// The `status` column.
    #[track_caller]
    pub(crate) fn status(self) -> &'a str {
        self.text("status")
    }
}

/// Splits a line at its commas; quoted fields may hold commas and doubled quotes (RFC 4180).
fn split(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[test]
fn quoted_fields_keep_their_commas() {
    let csv = Csv::parse("# pxname,svname,status,last_chk,-,\nbe,s1,UP,\"a, \"\"b\"\"\",-,\n\n");
    assert_eq!(csv.row("be", "s1").text("last_chk"), "a, \"b\"");
    assert_eq!(
        csv.columns(),
        ["pxname", "svname", "status", "last_chk", "-"]
    );
}
