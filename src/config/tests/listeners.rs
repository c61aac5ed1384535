//! A configuration as a whole: whether anything listens, and where its servers lead.

use super::{diagnostics, load};
use crate::config::Severity;

const LISTEN: &str = "[[listen]]\nname = 'l'\nbind = '127.0.0.1:80'\n\
                      servers = [{ name = 's', address = '10.0.0.1:80' }]\n";

/// Code, line and rendered text of all diagnostics.
fn found(text: &str) -> Vec<(&'static str, usize, String)> {
    let found = diagnostics(load(text)).into_iter();
    found
        .map(|one| {
            let line = one.place.as_ref().map_or(0, |place| place.start().line);
            (one.code, line, one.render(false))
        })
        .collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    found(text).into_iter().map(|(code, ..)| code).collect()
}

/// Faults 8 and 32: a file without a service is not valid, whatever else it has.
#[test]
fn fault_08_without_a_listener_nothing_is_valid() {
    let cut_off = "stats = { bind = '127.0.0.1:8080' }\nruntime-api = { socket = '/run/x' }\n";
    let disabled = LISTEN.replace("name = 'l'", "name = 'l'\ndisabled = true");
    for text in [
        "",
        "\n",
        "# a comment\n",
        "include = []\n",
        cut_off,
        &disabled,
    ] {
        assert_eq!(codes(text), ["no-listener"], "{text}");
        let asked = format!("{text}\n[global]\nallow-no-listener = true\n");
        if !text.contains("disabled") {
            assert!(load(&asked).is_ok(), "{text}");
        }
        let refused = format!("{text}\n[global]\nallow-no-listener = false\n");
        assert_eq!(codes(&refused), ["no-listener"], "{text}");
    }
    // Another problem is reported instead, because it is the likely reason.
    let other = codes("[globl]\nthreads = 1\n");
    assert_eq!(other, ["unknown-key"]);
}

/// Fault 19: statistics without a password cause a warning.
#[test]
fn fault_19_open_statistics_are_warned_of() {
    let with = |stats: &str| codes(&format!("[stats]\n{stats}\n{LISTEN}"));
    for bind in [
        "'*:81'",
        "'[::]:81'",
        "'0.0.0.0:81'",
        "['127.0.0.1:81', { address = '*:82' }]",
    ] {
        assert_eq!(with(&format!("bind = {bind}")), ["open-stats"], "{bind}");
        assert!(
            with(&format!("bind = {bind}\nauth = 'a:b'")).is_empty(),
            "{bind}"
        );
    }
    for bind in [
        "'127.0.0.1:81'",
        "'10.0.0.1:81'",
        "{ address = '*:81', interface = 'eth1' }",
    ] {
        assert!(with(&format!("bind = {bind}")).is_empty(), "{bind}");
    }
}

#[test]
fn a_page_that_others_may_change_without_a_password_is_warned_of() {
    let with = |stats: &str| codes(&format!("[stats]\n{stats}\n{LISTEN}"));
    for bind in [
        "'*:81'",
        "'10.0.0.1:81'",
        "'[2001:db8::1]:81'",
        "['127.0.0.1:81', '10.0.0.1:82']",
        "{ address = '*:81', interface = 'eth1' }",
    ] {
        let admin = format!("bind = {bind}\nadmin = true");
        assert_eq!(with(&admin), ["open-admin"], "{bind}");
        assert!(with(&format!("{admin}\nauth = 'a:b'")).is_empty(), "{bind}");
        let open = with(&format!("bind = {bind}"));
        for less in ["false", "'localhost'"] {
            let found = with(&format!("bind = {bind}\nadmin = {less}"));
            assert_eq!(found, open, "{bind} {less}");
        }
    }
    for bind in [
        "'127.0.0.1:81'",
        "'127.9.9.9:81'",
        "'[::1]:81'",
        "{ address = '*:81', interface = 'lo' }",
    ] {
        let admin = format!("bind = {bind}\nadmin = true");
        assert!(with(&admin).is_empty(), "{bind}");
    }
    for bad in ["'yes'", "1", "'true'"] {
        let found = codes(&format!(
            "[stats]\nbind = '127.0.0.1:81'\nadmin = {bad}\n{LISTEN}"
        ));
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
    }
}

/// Fault 40: two rows with one name, and impossible ports.
#[test]
fn fault_40_names_of_rows_and_impossible_ports() {
    for name in ["FRONTEND", "BACKEND"] {
        let text = LISTEN.replace("'s'", &format!("'{name}'"));
        assert_eq!(codes(&text), ["name"]);
        let group = format!(
            "[node-group.g]\n{name} = '10.0.0.1'\n[[listen]]\nname = 'l'\nbind = '*:80'\n\
             nodes = 'g'\nport = 80"
        );
        assert_eq!(codes(&group), ["name"]);
    }
    assert!(codes(&LISTEN.replace("'s'", "'Frontend'")).is_empty());
    let with = |bind: &str, port: &str| {
        let text = LISTEN.replace("127.0.0.1:80", bind);
        found(&text.replace("10.0.0.1:80", &format!("10.0.0.1{port}")))
    };
    let said = with("*:9291", ":+60000");
    assert_eq!(
        (said.len(), said[0].0, said[0].1),
        (1, "no-port", 4),
        "{said:?}"
    );
    assert!(
        said[0].2.contains("no port 69291 for server `s`"),
        "{said:?}"
    );
    assert_eq!(with("*:80", ":-80")[0].0, "no-port");
    assert_eq!(with("*:80-82", ":-81")[0].0, "no-port");
    assert!(with("*:80", ":-79").is_empty() && with("*:5535", ":+60000").is_empty());
    assert!(with("*:0", ":+60000").is_empty());
}

/// Fault 44: servers that are this process itself.
#[test]
fn fault_44_a_server_that_is_its_own_frontend_is_warned_of() {
    let with = |bind: &str, address: &str| {
        let text = LISTEN.replace("127.0.0.1:80", bind);
        found(&text.replace("10.0.0.1:80", address))
    };
    for (bind, address) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "localhost:80"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("*:80", "127.0.0.1:80"),
        ("[::]:80", "[::1]:80"),
        ("10.0.0.7:80", "10.0.0.7:80"),
        ("10.0.0.7:80", "[::ffff:10.0.0.7]:80"),
        ("unix:/run/x", "unix:/run/x"),
    ] {
        let said = with(bind, address);
        assert_eq!(
            (said.len(), said[0].0, said[0].1),
            (1, "loop", 4),
            "{bind} {address} {said:?}"
        );
        assert!(said[0].2.contains("listen `l` itself"), "{said:?}");
    }
    for (bind, address) in [
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("*:80", "10.0.0.1:80"),
        ("*:0", "127.0.0.1"),
        ("127.0.0.1:80", "127.0.0.1:+1"),
    ] {
        assert!(with(bind, address).is_empty(), "{bind} {address}");
    }
    // In a loop; a chain is not one.
    let chain = |last: u16| {
        let one = |name: &str, bind: u16, server: u16| {
            format!(
                "[[listen]]\nname = '{name}'\nbind = '127.0.0.1:{bind}'\n\
                 servers = [{{ name = 's', address = '127.0.0.1:{server}' }}]\n"
            )
        };
        one("a", 1, 2) + &one("b", 2, 3) + &one("c", 3, last)
    };
    assert!(found(&chain(4)).is_empty());
    let said = found(&chain(1));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].2.contains("of listen `c` leads back to listen `a`"),
        "{said:?}"
    );
    let loaded = load(&chain(1)).expect("a warning");
    assert_eq!(loaded.1[0].severity, Severity::Warning);
}

/// Fault 30: hints that were wrong.
#[test]
fn fault_30_hints_lead_where_they_say() {
    let hint = |text: &str| {
        let found = diagnostics(load(text));
        found
            .iter()
            .map(|one| one.render(false) + "\n")
            .collect::<String>()
    };
    let server = LISTEN.replace("address = ", "addr = ");
    let said = hint(&server);
    assert!(
        said.contains("`address`") && !said.contains("`check`"),
        "{said}"
    );
    for text in [
        format!("stats = \"socket /run/x level admin\"\n{LISTEN}"),
        format!("[global]\nstats = \"socket /run/x\"\n{LISTEN}"),
    ] {
        assert!(hint(&text).contains("[runtime-api]"), "{}", hint(&text));
    }
    let named = hint("[frontend.web]\nbind = '*:80'");
    assert!(
        named.contains("write [[frontend]] and `name = \"web\"`"),
        "{named}"
    );
    let servers = hint("[backend.servers]\ns1 = '10.0.0.1:80'");
    assert!(
        servers.contains("write [[backend]] with its `name`, and `servers`"),
        "{servers}"
    );
    let http = hint(&format!("{LISTEN}http-reuse = 'safe'"));
    assert!(
        http.contains("keyword of HAProxy's that is no key of rlb's"),
        "{http}"
    );
    let one = hint(&format!(
        "[stats]\nbind = '127.0.0.1:1'\n[readiness]\nrequire = {{ l = 2 }}\n{LISTEN}"
    ));
    assert!(
        one.contains("expected 1") && !one.contains("1 to 1"),
        "{one}"
    );
}

/// Fault 30: a file in HAProxy's format, which operators of HAProxy try first.
#[test]
fn fault_30_a_file_of_haproxys_is_recognised() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("haproxy.cfg");
    let seed = include_str!("../../../tests/it/lab/seed-haproxy.cfg");
    for text in [
        seed,
        "\n# x\nlisten a\n  bind *:80\n",
        ".if defined(X)\n.endif\n",
        "global\n",
    ] {
        std::fs::write(&path, text).expect("written");
        let found = diagnostics(crate::config::load(&path));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].code, "haproxy-file");
        let said = found[0].render(false);
        assert!(
            said.contains("a configuration of HAProxy") && said.contains("[[listen]]"),
            "{said}"
        );
    }
    for text in ["global = { threads = 1 }\n", "[global]\n", "globals\n", ""] {
        std::fs::write(&path, text).expect("written");
        let found = diagnostics(crate::config::load(&path));
        assert!(found.iter().all(|one| one.code != "haproxy-file"), "{text}");
    }
}
