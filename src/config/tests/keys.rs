//! The declaration of each key against everything that is made from it: the schema, the documents, the
//! reference, values at and beyond the bounds, defaults, inheritance, HAProxy's names.

use super::{diagnostics, load};
use crate::config::keys::{Listed, TableKeys, tables};
use crate::config::model::Config;
use crate::config::{Diagnostic, Effect, Key, diff, schema};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("a file of the project")
}

/// The table with the definition `schema`.
fn table(schema: &str) -> &'static TableKeys {
    let mut all = tables().iter();
    let found = all.find(|table| table.schema == schema);
    found.unwrap_or_else(|| panic!("no table {schema}"))
}

/// The tables of the schema are the declared ones, with the same keys.
#[test]
fn every_table_of_the_schema_is_listed() {
    let mut declared: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for table in tables() {
        let keys = table.keys.iter().map(|listed| listed.key.name).collect();
        declared.insert(table.schema, keys);
    }
    let schema = schema();
    let mut found = BTreeMap::new();
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        if let Some(keys) = definition["properties"].as_object() {
            found.insert(name.as_str(), keys.keys().map(String::as_str).collect());
        }
    }
    assert_eq!(declared, found);
}

#[test]
fn every_key_says_what_it_is() {
    for table in tables() {
        for Listed { key, .. } in &table.keys {
            let what = format!("{} {}", table.place, key.name);
            assert!(key.text().ends_with('.'), "{what}: a sentence");
            assert!(!key.text().contains("  "), "{what}: on one line");
            assert!(!key.kind.is_empty(), "{what}");
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(key.name.chars().all(plain), "{what}");
        }
    }
}

/// The tables of docs/configuration.md (their heading and first cell), and the table of the file that each
/// describes.
const DOCUMENTED: &[(&str, &str, &str)] = &[
    ("## `global`", "key", "Global"),
    ("## `log`", "key", "Log"),
    ("## `log`", "key of a target", "LogTarget"),
    ("## `runtime-api`", "key", "RuntimeApi"),
    ("## `stats`", "key", "Stats"),
    ("## `stats`", "key of a page", "FurtherPage"),
    ("## `readiness`", "key", "Readiness"),
    ("## `frontend`", "key", "Frontend"),
    ("### `bind`", "key of a bind table", "Bind"),
    ("## `backend`", "key", "Backend"),
    ("## `backend`", "key of a server", "Server"),
    ("### `check`", "key of a check table", "Check"),
    ("### `check`", "key of a step", "CheckStep"),
    ("## `node-group`", "key of a node table", "Node"),
    ("### `timeout`", "key", "Timeouts"),
    ("### `keepalive`", "key", "Keepalive"),
];

/// The rows of that table: the cells of each by the titles of their columns.
fn documented(docs: &str, heading: &str, first: &str) -> Vec<BTreeMap<String, String>> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines = docs.lines().skip_while(|line| !line.starts_with(heading));
    let mut lines = lines.skip(1).take_while(|line| !line.starts_with("## "));
    let head = lines.find(|line| line.starts_with('|') && cells(line)[0] == first);
    let head = cells(head.unwrap_or_else(|| panic!("no table of {first} below {heading}")));
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| head.iter().cloned().zip(cells(row)).collect())
        .collect()
}

/// docs/configuration.md has a row for each key, with its type and its default.
#[test]
fn the_documents_list_every_key() {
    let docs = read("docs/configuration.md");
    for (heading, first, schema) in DOCUMENTED {
        let keys = &table(schema).keys;
        let mut left: BTreeSet<&str> = keys.iter().map(|listed| listed.key.name).collect();
        for row in documented(&docs, heading, first) {
            for name in row[*first]
                .split(',')
                .map(|name| name.trim().trim_matches('`'))
            {
                let what = format!("{heading}, {name}");
                assert!(left.remove(name), "{what}: twice, or not a key of {schema}");
                let listed = keys.iter().find(|listed| listed.key.name == name);
                agrees(&row, &listed.expect("it was in the set").key, &what);
            }
        }
        assert!(left.is_empty(), "{heading}, {first}: {left:?} are missing");
    }
    let defaults = docs.split("\n## `defaults`").nth(1).expect("the section");
    let defaults = defaults.split("\n### ").next().expect("its beginning");
    for Listed { key, .. } in &table("Defaults").keys {
        assert!(
            defaults.contains(&format!("`{}`", key.name)),
            "{}",
            key.name
        );
    }
}

/// Whether a row has the declared type and default.
fn agrees(row: &BTreeMap<String, String>, key: &Key, what: &str) {
    let cell = |head: &str| row.get(head).map(|cell| cell.replace('`', ""));
    let default = (key.default)();
    if let Some(said) = cell("default").filter(|said| !said.is_empty() && said != "see below") {
        let more = said.strip_prefix(default.as_str());
        let same = more.is_some_and(|more| more.is_empty() || more.starts_with(','));
        assert!(same, "{what}: the default is {default}, not {said}");
    }
    let Some(kind) = cell("type").filter(|kind| !kind.is_empty()) else {
        return;
    };
    match key.bounds.filter(|_| key.kind == "number") {
        Some((least, most)) => {
            let said = [format!("number ≥ {least}"), format!("{least} to {most}")];
            assert!(said.contains(&kind), "{what}: {said:?}, not {kind}");
        }
        None => assert_eq!(kind, key.kind, "{what}"),
    }
}

/// config/reference.toml has each key of each table, active or behind a `#`.
#[test]
fn the_reference_has_every_key() {
    let text = read("config/reference.toml");
    // A key behind a `#` counts by its name only.
    let mut hidden = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        let name = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
        let bare = line.strip_prefix("# ").filter(|rest| {
            let word = |c: char| c.is_ascii_lowercase() || c == '-';
            rest.contains(" = ") && name(rest).chars().all(word)
        });
        if line.starts_with('[') {
            seen.clear();
            hidden.extend([line, "\n"]);
        } else if let Some(rest) = bare.filter(|rest| seen.insert(name(rest))) {
            hidden.extend([&name(rest), " = true\n"]);
        }
    }
    let mut found = BTreeSet::new();
    for text in [text, hidden] {
        let root: toml::Table = text.parse().expect("it is TOML");
        gather(&schema(), &schema(), &toml::Value::Table(root), &mut found);
    }
    for table in tables() {
        for Listed { key, .. } in &table.keys {
            // A key of several tables is declared once and shown once.
            let shown = |(_, name): &(String, String)| name == key.name;
            let own = found
                .iter()
                .any(|(schema, name)| schema == table.schema && name == key.name);
            let shared = ["Listen", "Defaults", "ServerDefaults"].contains(&table.schema);
            assert!(
                own || shared && found.iter().any(shown),
                "{} of {} is not in config/reference.toml",
                key.name,
                table.place
            );
        }
    }
}

/// Collects the keys of `value`, each with the definition of its table in the schema.
fn gather(
    root: &serde_json::Value,
    schema: &serde_json::Value,
    value: &toml::Value,
    found: &mut BTreeSet<(String, String)>,
) {
    if let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|it| it.strip_prefix("#/$defs/"))
    {
        if let (toml::Value::Table(table), true) = (value, root["$defs"][name]["type"] == "object")
        {
            found.extend(table.keys().map(|key| (name.to_owned(), key.clone())));
        }
        gather(root, &root["$defs"][name], value, found);
    }
    for one in schema["anyOf"].as_array().into_iter().flatten() {
        gather(root, one, value, found);
    }
    match value {
        toml::Value::Array(items) if schema.get("items").is_some() => {
            for item in items {
                gather(root, &schema["items"], item, found);
            }
        }
        toml::Value::Table(table) => {
            for (key, value) in table {
                if let Some(below) = schema["properties"].get(key) {
                    gather(root, below, value, found);
                } else if schema["additionalProperties"].is_object() {
                    gather(root, &schema["additionalProperties"], value, found);
                }
            }
        }
        _ => {}
    }
}

/// A valid configuration with `line` (`key = value`, or nothing) in the table with that definition.
fn file(schema: &str, line: &str) -> String {
    file_with(&[(schema, line)])
}

/// The same with a line in each of several tables.
fn file_with(lines: &[(&str, &str)]) -> String {
    let mut at: BTreeMap<&str, &str> = lines.iter().copied().collect();
    let mut at = |name: &str| at.remove(name).unwrap_or_default().to_owned();
    let comma = |line: String| {
        if line.is_empty() {
            line
        } else {
            format!(", {line}")
        }
    };
    let server = format!(
        "{{ name = 's', address = '10.0.0.1:80'{} }}",
        comma(at("Server"))
    );
    format!(
        "[global]\n{}\n[log]\n{}\n[[log.target]]\nto = 'stdout'\n{}\n[stats]\nbind = '127.0.0.1:9000'\n{}\n\
         [[stats.page]]\nbind = '127.0.0.1:9001'\n{}\n\
         [readiness]\n{}\n[runtime-api]\nsocket = '/run/x'\n\
         sockets = {{ socket = '/run/y'{} }}\n{}\n\
         [check.x1]\ntype = 'tcp'\nsteps = [{{ connect = true{} }}]\n\
         [defaults]\n{}\n[node-group.g]\nn = {{ host = '10.0.0.2'{} }}\n\
         [[frontend]]\nname = 'f'\nbind = {{ address = '[::]:80'{} }}\ndefault-backend = 'b'\n\
         timeout = {{ {} }}\n{}\n\
         [[backend]]\nname = 'b'\nservers = [{server}]\nnodes = 'g'\nport = 80\n\
         check = {{ {} }}\ndefault-server = {{ {} }}\ntimeout = {{ {} }}\n{}\n\
         [[listen]]\nname = 'l'\nbind = '*:81'\nservers = [{{ name = 's', address = 'a:1' }}]\n\
         timeout = {{ {} }}\nkeepalive = {{ {} }}\nsource = {{ {} }}\n{}\n\
         [[listen]]\nname = 'l2'\nbind = '*:82'\ncheck = {{ use = 'x1' }}\nservers = [{{ name = 's', address = 'a:1' }}]\n",
        at("Global"),
        at("Log"),
        at("LogTarget"),
        at("Stats"),
        at("FurtherPage"),
        at("Readiness"),
        comma(at("RuntimeSocket")),
        at("RuntimeApi"),
        comma(at("CheckStep")),
        at("Defaults"),
        comma(at("Node")),
        comma(at("Bind")),
        at("FrontendTimeouts"),
        at("Frontend"),
        at("Check"),
        at("ServerDefaults"),
        at("BackendTimeouts"),
        at("Backend"),
        at("Timeouts"),
        at("Keepalive"),
        at("Source"),
        at("Listen"),
    )
}

/// Whether a problem is caused by the frame: it has the key already, or the value contradicts another.
fn is_the_frames(problem: &Diagnostic) -> bool {
    problem.message == "duplicate key" || ["timeouts", "no-meaning"].contains(&problem.code)
}

/// The loaded configuration; `None` when the frame does not allow the key.
fn config(schema: &str, line: &str) -> Option<Config> {
    config_with(&[(schema, line)])
}

fn config_with(lines: &[(&str, &str)]) -> Option<Config> {
    match load(&file_with(lines)) {
        Ok((config, _)) => Some(config),
        Err(found) if found.iter().all(is_the_frames) => None,
        Err(found) => panic!("{lines:?}: {found:#?}"),
    }
}

/// A key that is written with its default has no effect.
#[test]
fn a_key_at_its_default_changes_nothing() {
    let mut tried = 0;
    for table in tables() {
        let plain = config(table.schema, "").expect("the frame is valid");
        for Listed { key, .. } in &table.keys {
            let default = (key.default)();
            let quoted = default.starts_with('"') && !default.contains(' ');
            let plain_value = default.parse::<i64>().is_ok() || default.parse::<bool>().is_ok();
            if !quoted && !plain_value {
                continue;
            }
            let line = format!("{} = {default}", key.name);
            assert_eq!(config(table.schema, &line), Some(plain.clone()), "{line}");
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
}

/// Numbers are accepted up to both bounds and refused beyond them.
#[test]
fn declared_bounds_hold() {
    let mut tried = 0;
    for table in tables() {
        for Listed { key, .. } in &table.keys {
            let Some((least, most)) = key.bounds.filter(|_| key.kind == "number") else {
                continue;
            };
            for (value, valid) in [
                (least - 1, false),
                (least, true),
                (most, true),
                (most + 1, false),
            ] {
                let found = diagnostics(load(&file(
                    table.schema,
                    &format!("{} = {value}", key.name),
                )));
                if found.iter().any(|one| one.message == "duplicate key") {
                    continue;
                }
                let refused = found.iter().any(|one| one.code == "out-of-range");
                assert_eq!(refused, !valid, "{} = {value}: {found:#?}", key.name);
                tried += 1;
            }
        }
    }
    assert!(tried > 80, "{tried}");
}

/// A value other than the default. A new kind of key needs a line here.
#[expect(clippy::match_same_arms, reason = "one arm, one reason")]
#[expect(clippy::too_many_lines, reason = "a table")]
fn sample(schema: &str, key: &Key) -> Option<String> {
    let text = match (key.kind, key.name) {
        ("number", "hash-balance-factor") => "150",
        ("number", "maglev-table-size") => "257",
        ("number", _) => {
            let (least, most) = key.bounds.expect("a number has bounds");
            return Some(7.clamp(least, most).to_string());
        }
        ("switch or table", _) => "false",
        ("switch", "upgrade-moves-sessions") => "false",
        (kind, _) if kind.starts_with("switch") => "true",
        ("duration", _) => "\"3s\"",
        ("name" | "name or list", "scope") => "\"f\"",
        // It needs a port, and a port needs it.
        ("name", "nodes") => return None,
        ("name", "sorry-backend") => "\"l2\"",
        ("name", _) => "\"x1\"",
        ("string", "hello") => "\"EHLO a\"",
        ("string", "mode") => "\"0640\"",
        ("string", "interface") => "\"lo\"",
        ("string", name) if name.starts_with("server-state-") => "\"/x1\"",
        ("string", _) => "\"x1\"",
        ("string or list", "auth") => "\"a:b\"",
        ("path", "uri" | "ca-file" | "crl-file" | "crt" | "key" | "token-file") => "\"/x1\"",
        ("name or address", _) => "\"10.0.0.9\"",
        ("names", _) => "\"http/1.1\"",
        ("version of TLS", "ssl-min-ver") => "\"TLSv1.3\"",
        ("version of TLS", _) => "\"TLSv1.2\"",
        ("word", "verify") => "\"none\"",
        ("word", "unauthorized") => "\"down\"",
        ("IP address", _) => "\"10.0.0.9\"",
        ("word", "format") => "\"rfc5424\"",
        ("word", "facility") => "\"local1\"",
        ("word", "level") if schema == "LogTarget" => "\"err\"",
        ("word", "level") => "\"user\"",
        ("word", "on-marked-down") => "\"shutdown-sessions\"",
        ("word", "on-marked-up") => "\"shutdown-backup-sessions\"",
        ("word", "observe") => "\"layer4\"",
        ("word", "on-error") => "\"mark-down\"",
        ("word", "init-state") => "\"down\"",
        ("word", "load-server-state-from-file") => "\"global\"",
        ("word", "type") => "\"tcp\"",
        ("word", "mysql-login") => "\"pre-41\"",
        ("word", "ok-status") => "\"L6OK\"",
        ("word", "error-status") => "\"L7STS\"",
        ("word", "tout-status") => "\"L6TOUT\"",
        ("word", "header-match") => "\"beg\"",
        ("word", "method" | "expect-header") => "\"GET\"",
        ("hexadecimal digits", _) => "\"00ff\"",
        ("regular expression", _) => "\"^a\"",
        ("status codes", _) => "\"200\"",
        ("version of HTTP", _) => "\"HTTP/1.1\"",
        ("format", _) if schema == "CheckStep" => "\"%[srv_name]\"",
        ("word", "usesrc") => "\"clientip\"",
        ("word", "balance") => "\"source\"",
        ("word", "hash-type") => "\"consistent\"",
        ("word", "hash-preserve-affinity") => "\"maxconn\"",
        ("word", "no-server") => "\"reset\"",
        ("word", "hash-key") => "\"addr\"",
        ("expression", _) => "\"dst_port\"",
        ("word", "accept-proxy") => "\"required\"",
        ("word", "send-proxy") => "\"v2\"",
        ("word", "proxy-v2-options") => "\"crc32c\"",
        ("format", _) => "\"%ci\"",
        ("TLV or list", _) => "\"0xE1=%ci\"",
        ("network or list", _) => "\"10.0.0.0/8\"",
        ("table", "require") => "{ b = 1 }",
        // The keys below are tested as a table of their own.
        ("table" | "list of tables", _) => return None,
        // The frame has them.
        ("address" | "address or name" | "address, table or list" | "path", _) => return None,
        ("string or list", _) => return None,
        other => panic!("a sample of {other:?} of {schema}"),
    };
    Some(text.to_owned())
}

/// An inherited key has the same meaning in the table that it is inherited from.
#[test]
fn inherited_keys_are_inherited() {
    let mut tried = 0;
    for (schema, from) in [
        ("Frontend", "Defaults"),
        ("Backend", "Defaults"),
        ("Server", "ServerDefaults"),
        ("Node", "ServerDefaults"),
    ] {
        let place = table(from).place;
        for Listed { key, from: said } in &table(schema).keys {
            let inherited = table(from)
                .keys
                .iter()
                .any(|listed| listed.key.name == key.name);
            if said.is_empty() {
                continue;
            }
            assert!(
                inherited && place.contains(said),
                "{} from {said}",
                key.name
            );
            let Some(value) = sample(schema, key) else {
                continue;
            };
            let line = format!("{} = {value}", key.name);
            let (own, above) = (config(schema, &line), config(from, &line));
            let (Some(own), Some(above)) = (own, above) else {
                continue;
            };
            let f = |config: &Config| format!("{:?}", config.frontends[0]);
            let b = |config: &Config| format!("{:?}", config.backends[0]);
            match schema {
                "Frontend" => assert_eq!(f(&own), f(&above), "{line}"),
                "Backend" => assert_eq!(b(&own), b(&above), "{line}"),
                _ => {
                    let index = usize::from(schema == "Node");
                    let of = |config: &Config| config.backends[0].servers[index].clone();
                    assert_eq!(of(&own), of(&above), "{line}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 10, "{tried}");
}

/// The value with which a table that has inherited another one is as if nothing was written. `None`: its default is
/// another key's value, which can be written, or what can be written is the same in other words (`source = "*"`).
fn undone(key: &Key) -> Option<String> {
    let default = (key.default)();
    let quoted = default.starts_with('"') && !default.contains(' ');
    if quoted || default.parse::<i64>().is_ok() || default.parse::<bool>().is_ok() {
        return Some(default);
    }
    let text = match key.name {
        "maxconn" | "rate-limit-sessions" | "retry-budget" | "port" => "0",
        "tcp-ut" => "\"0s\"",
        "cc" | "namespace" | "unique-id-format" | "log-suffix" | "proxy-v2-tlvs" | "sni" | "alpn"
        | "verifyhost" | "crl-file" | "crt" | "key" => "\"\"",
        "address" => "\"0.0.0.0\"",
        "tls" => "false",
        "sni-auto" => "true",
        "verify" => "\"required\"",
        "ca-file" => "\"@system-ca\"",
        "ssl-min-ver" => "\"TLSv1.2\"",
        "ssl-max-ver" => "\"TLSv1.3\"",
        "client-fin" | "client-hs" | "server-fin" | "queue" | "check" | "fast-interval"
        | "down-interval" | "timeout" | "send-proxy" | "source"
        // A table that says what is asked says all of it.
        | "use" | "steps" | "method" | "uri" | "version" | "headers" | "body" | "expect-status"
        | "disable-on-404" | "send-state" | "user" | "mysql-login" | "hello" | "token-file" | "unauthorized" => return None,
        name => panic!("what undoes an inherited `{name}`?"),
    };
    Some(text.to_owned())
}

/// What is inherited can be undone: there is a value for each key with which a table is as if nothing was inherited.
#[test]
fn what_is_inherited_can_be_undone() {
    let mut tried = 0;
    for (schema, from, within) in [
        ("Frontend", "Defaults", ""),
        ("FrontendTimeouts", "Defaults", "timeout"),
        ("Backend", "Defaults", ""),
        ("BackendTimeouts", "Defaults", "timeout"),
        ("Check", "Defaults", "check"),
        ("Server", "ServerDefaults", ""),
        ("Node", "ServerDefaults", ""),
    ] {
        let of = |config: &Config| {
            if schema.starts_with("Frontend") {
                format!("{:?}", config.frontends[0])
            } else if schema == "Node" {
                format!("{:?}", config.backends[0].servers[1])
            } else if schema == "Server" {
                format!("{:?}", config.backends[0].servers[0])
            } else {
                format!("{:?}", config.backends[0])
            }
        };
        for Listed { key, from: said } in &table(schema).keys {
            let inherited = !within.is_empty() || !said.is_empty();
            let (Some(value), true) = (sample(schema, key), inherited) else {
                continue;
            };
            let Some(undone) = undone(key) else { continue };
            let above = format!("{} = {value}", key.name);
            let above = match within {
                "" => above,
                within => format!("{within} = {{ {above} }}"),
            };
            let own = format!("{} = {undone}", key.name);
            let (Some(plain), Some(inherits), Some(undone)) = (
                config_with(&[]),
                config(from, &above),
                config_with(&[(from, &above), (schema, &own)]),
            ) else {
                continue;
            };
            let what = format!("{above} in {from}, {own} in {schema}");
            if of(&inherits) != of(&plain) {
                assert_eq!(of(&undone), of(&plain), "{what}");
                tried += 1;
            }
        }
    }
    assert!(tried > 40, "{tried}");
}

/// A value other than the default changes the configuration, appears in a comparison, and is applied by a
/// reload unless its declaration requires a restart.
#[test]
fn a_reload_does_what_is_declared() {
    let (mut tried, mut silent) = (0, Vec::new());
    for table in tables() {
        let old = config(table.schema, "").expect("the frame is valid");
        for Listed { key, .. } in &table.keys {
            let Some(value) = sample(table.schema, key) else {
                continue;
            };
            let line = format!("{} = {value}", key.name);
            let Some(new) = config(table.schema, &line) else {
                continue;
            };
            if new == old {
                silent.push(format!("{}.{}", table.schema, key.name));
                continue;
            }
            let changes = diff::plan(&old, &new);
            assert!(!changes.is_empty(), "{line} in {}", table.schema);
            let restarts = changes.restarts().count() > 0;
            assert_eq!(restarts, key.reload == Effect::Restart, "{line}");
            let applied = diff::applicable(&old, new.clone());
            assert_eq!(applied == new, !restarts, "{line}");
            tried += 1;
        }
    }
    assert_eq!(silent, SILENT);
    assert!(tried > 80, "{tried}");
}

/// Keys that change nothing in the frame: they show something that does not exist, enable the check that the
/// backend has already, or say more about `hold-down`, which is not there.
const SILENT: &[&str] = &[
    "Stats.show-desc",
    "FurtherPage.show-desc",
    "Server.check",
    "Server.hold-down-max",
    "Server.flap-window",
    "Timeouts.check",
    "ServerDefaults.check",
    "ServerDefaults.hold-down-max",
    "ServerDefaults.flap-window",
    "Node.check",
    "Node.hold-down-max",
    "Node.flap-window",
];

/// HAProxy's name for a key gives a hint with the key.
#[test]
fn haproxys_words_lead_to_the_key() {
    let mut tried = 0;
    for (schema, words) in [
        ("Global", vec!["nbthread"]),
        ("Stats", vec!["stats-uri", "stats_realm"]),
        ("Check", vec!["inter", "fastinter", "downinter"]),
        ("Timeouts", vec!["clitimeout", "srvtimeout", "contimeout"]),
    ] {
        for word in words {
            let keys = &table(schema).keys;
            let key = keys.iter().map(|listed| listed.key).find(|key| {
                let plain = word.replace('_', "-");
                key.haproxy.iter().any(|it| it.replace(' ', "-") == plain)
            });
            let key = key.unwrap_or_else(|| panic!("{word} is declared"));
            let found = diagnostics(load(&format!("[defaults]\n{word} = 1\n")));
            let hint = found[0].hint.clone().unwrap_or_default();
            assert!(hint.contains(key.name), "{word}: {hint}");
            tried += 1;
        }
    }
    assert!(tried > 8, "{tried}");
}
