//! The formats against recorded output of HAProxy, and the size of chunks.

use super::*;
use crate::stats::Filter;
use crate::stats::test_snapshot::{rows, seed, whole};
use std::collections::BTreeSet;

const TYPED: &str = include_str!("../testdata/haproxy-3.5-typed.txt");

#[test]
fn ten_thousand_servers_come_in_bounded_chunks() {
    for (format, separator) in [
        (Format::Csv, "\n"),
        (Format::Typed, "svname"),
        (Format::Json, "svname"),
    ] {
        let mut table = Table::new(format, rows(seed(10_000)));
        let mut count = 0;
        loop {
            let chunk = table.chunk();
            if chunk.is_empty() {
                break;
            }
            assert!(chunk.len() < CHUNK + 20_000, "{format:?}: {}", chunk.len());
            count += chunk.matches(separator).count();
        }
        let header = usize::from(format == Format::Csv);
        assert_eq!(count, header + 2 + 1 + 10_000 + 1, "{format:?}");
    }
}

/// Position, name, letters and type of each line in rows of `kind` with a server or proxy.
fn shapes(text: &str, kind: char) -> BTreeSet<String> {
    let ours = text.lines().filter(|line| line.starts_with(kind));
    ours.map(|line| {
        let (place, rest) = line.split_once(':').expect("a colon");
        let place: Vec<&str> = place.split('.').skip(3).collect();
        let rest: Vec<&str> = rest.splitn(3, ':').take(2).collect();
        format!("{} {}", place.join("."), rest.join(":"))
    })
    .collect()
}

#[test]
fn typed_lines_have_haproxys_positions_letters_and_types() {
    let text = whole(Table::new(Format::Typed, rows(seed(1))));
    assert!(
        text.contains("\nS.3.1.1.svname.1:KNSV:str:node1\n"),
        "{text}"
    );
    assert!(
        text.contains("\nS.3.1.17.status.1:SGPV:str:UP 1/3\n"),
        "{text}"
    );
    for kind in ['F', 'B', 'S'] {
        let (ours, theirs) = (shapes(&text, kind), shapes(TYPED, kind));
        let unknown: Vec<_> = ours.difference(&theirs).collect();
        // The stats proxy has a backend row here, whose HTTP figures no recorded backend has.
        let http = |shape: &&&String| {
            ["hrsp_", "req_tot", "cache_"]
                .iter()
                .any(|part| shape.contains(part))
        };
        let unknown: Vec<_> = unknown
            .iter()
            .filter(|shape| !(kind == 'B' && http(shape)))
            .collect();
        assert!(unknown.is_empty(), "{kind}: {unknown:?}");
    }
}

#[test]
fn json_has_haproxys_shape() {
    let text = whole(Table::new(Format::Json, rows(seed(2))));
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(6));
    let server = &all[3];
    let status = server.as_array().expect("a row").iter();
    let status = status.filter(|field| field["field"]["name"] == "status");
    let status: Vec<_> = status.collect();
    assert_eq!(
        status,
        [&serde_json::json!({
            "objType": "Server", "proxyId": 3, "id": 1,
            "field": { "pos": 17, "name": "status" }, "processNum": 1,
            "tags": { "origin": "Status", "nature": "Gauge", "scope": "Process" },
            "value": { "type": "str", "value": "UP 1/3" },
        })]
    );
    let schema: serde_json::Value = serde_json::from_str(&crate::stats::json::schema()).unwrap();
    assert_eq!(
        schema["oneOf"][1]["items"]["items"]["properties"]["value"]["type"],
        "object"
    );
}

#[test]
fn filters_hide_rows_and_the_backend_counts_servers() {
    let names = |filter: Filter| {
        let mut config = crate::stats::test_snapshot::config(3);
        config.backends[0].servers[1].disabled = true;
        let snapshot = crate::stats::test_snapshot::snapshot(&config);
        let csv = whole(Table::new(Format::Csv, rows(snapshot).filtered(filter)));
        let lines = csv.lines().skip(1);
        let fields = lines.map(|line| line.split(',').collect::<Vec<_>>());
        fields
            .map(|fields| format!("{}/{} {}", fields[0], fields[1], fields[17]))
            .collect::<Vec<_>>()
    };
    let up = Filter {
        up: true,
        scope: Some("gre".into()),
        ..Filter::default()
    };
    assert_eq!(
        names(up),
        [
            "postgres/FRONTEND OPEN",
            "postgres/node1 UP 1/3",
            "postgres/node3 UP 1/3",
            "postgres/BACKEND UP (2/3)"
        ]
    );
    let only = Filter {
        only: vec!["stats".into()],
        ..Filter::default()
    };
    assert_eq!(names(only), ["stats/FRONTEND OPEN", "stats/BACKEND UP"]);
    let no_maint = Filter {
        no_maint: true,
        ..Filter::default()
    };
    assert!(!names(no_maint).iter().any(|name| name.contains("node2")));
}
