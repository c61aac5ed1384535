//! The keys of PROXY headers: what they mean, and what of them has no meaning.

use super::{diagnostics, load};
use crate::config::model::{AcceptProxy, Config, SendProxy};
use std::time::Duration;

fn config(binds: &str, server: &str, more: &str) -> Config {
    let text = text(binds, server, more);
    load(&text).unwrap_or_else(|found| panic!("{found:#?}")).0
}

fn text(binds: &str, server: &str, more: &str) -> String {
    format!(
        "[[listen]]\nname = 'l'\nbind = {binds}\n{more}\n\
         servers = [{{ name = 's', address = '10.0.0.1:80'{server} }}]\n"
    )
}

#[track_caller]
fn refused(binds: &str, server: &str, part: &str) {
    let found = diagnostics(load(&text(binds, server, "")));
    let shown: Vec<String> = found.iter().map(|one| one.render(false)).collect();
    assert!(shown.iter().any(|one| one.contains(part)), "{shown:#?}");
}

#[test]
fn a_bind_demands_a_header() {
    let keys = "{ address = '*:80', accept-proxy = 'required', accept-proxy-from = ['10.0.0.0/8', '::1'] }";
    let read = config(keys, "", "");
    let bind = &read.frontends[0].binds[0];
    assert_eq!(bind.accept_proxy, AcceptProxy::Required);
    let shown: Vec<String> = bind
        .accept_proxy_from
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, ["10.0.0.0/8", "::1/128"]);
    let one = "{ address = '*:80', accept-proxy = 'optional', accept-proxy-from = '10.0.0.1' }";
    let read = config(one, "", "");
    assert_eq!(read.frontends[0].binds[0].accept_proxy_from.len(), 1);
    assert_eq!(
        config("'*:80'", "", "").frontends[0].binds[0].accept_proxy,
        AcceptProxy::Off
    );
}

#[test]
fn a_header_is_waited_for_at_most_as_long_as_a_client() {
    let wait = |more: &str| config("'*:80'", "", more).frontends[0].timeout_client_hs;
    assert_eq!(wait(""), Duration::from_secs(10));
    assert_eq!(
        wait("timeout = { client = '2s', server = '2s' }"),
        Duration::from_secs(2)
    );
    assert_eq!(
        wait("timeout = { client-hs = '30s' }"),
        Duration::from_secs(30)
    );
}

#[test]
fn a_check_has_the_header_of_its_server() {
    let header = |server: &str| {
        let read = config("'*:80'", server, "");
        let server = &read.backends[0].servers[0];
        server.check.as_ref().map(|check| check.header)
    };
    for (server, expected) in [
        (", check = true", SendProxy::Off),
        (", check = true, send-proxy = 'v2'", SendProxy::V2),
        (", check = { port = 81 }, send-proxy = 'v2'", SendProxy::Off),
        (
            ", check = { address = '10.0.0.9' }, send-proxy = 'v1'",
            SendProxy::Off,
        ),
        (
            ", check = { port = 81, send-proxy = true }, send-proxy = 'v2'",
            SendProxy::V2,
        ),
        (
            ", check = { send-proxy = false }, send-proxy = 'v2'",
            SendProxy::Off,
        ),
        (", check = { send-proxy = true }", SendProxy::V1),
    ] {
        assert_eq!(header(server), Some(expected), "{server}");
    }
}

#[test]
fn what_has_no_meaning_or_is_not_safe_is_refused() {
    let bind = |keys: &str| format!("{{ address = '*:80', {keys} }}");
    refused(
        &bind("accept-proxy-from = ['10.0.0.0/8']"),
        "",
        "without `accept-proxy`",
    );
    refused(
        &bind("accept-proxy = 'optional'"),
        "",
        "every client could claim any address",
    );
    refused(&bind("accept-proxy = true"), "", "a word in quotes");
    let wrong = "accept-proxy = 'required', accept-proxy-from = ['10.0.0.0/33']";
    refused(&bind(wrong), "", "has more than 32 bits");
    let unix =
        "{ address = 'unix:/run/l', accept-proxy = 'required', accept-proxy-from = '10.0.0.0/8' }";
    refused(unix, "", "has no meaning for a unix socket");
    refused(
        "'*:80'",
        ", proxy-v2-options = 'crc32c'",
        "without `send-proxy",
    );
    refused("'*:80'", ", send-proxy = 'v3'", "`v1`, `v2`");
    refused(
        "'*:80'",
        ", send-proxy = 'v2', proxy-v2-options = 'ssl'",
        "`unique-id`",
    );
}

#[test]
fn the_statistics_may_demand_a_header() {
    let binds = "[stats]\nbind = { address = '127.0.0.1:81', accept-proxy = 'required' }\n\
                 [[stats.page]]\nbind = { address = '127.0.0.1:82', accept-proxy = 'optional', \
                 accept-proxy-from = '127.0.0.2' }\n";
    let (read, _) = load(&format!("{binds}{}", text("'*:80'", "", ""))).unwrap();
    let binds = read.stats.unwrap().binds;
    let accept = [AcceptProxy::Required, AcceptProxy::Optional];
    assert_eq!([binds[0].accept_proxy, binds[1].accept_proxy], accept);
    assert_eq!(binds[1].accept_proxy_from.len(), 1);
}

#[test]
fn ids_are_made_by_formats() {
    let read = config(
        "'*:80'",
        ", send-proxy = 'v2', proxy-v2-options = 'crc32c,unique-id'",
        "unique-id-format = '%{+X}o %ci_%rt'\nlog-suffix = '%ID'",
    );
    let options = read.backends[0].servers[0].proxy_v2_options;
    assert!(options.unique_id() && options.crc32c());
    let frontend = &read.frontends[0];
    let format = frontend.unique_id_format.as_ref().unwrap();
    assert_eq!(format.text(), "%{+X}o %ci_%rt");
    let told = |server: &str, more: &str| -> Vec<String> {
        let found = diagnostics(load(&text("'*:80'", server, more)));
        found.iter().map(|one| one.render(false)).collect()
    };
    for (server, more, part) in [
        ("", "unique-id-format = '%ID'", "the unique id itself"),
        ("", "unique-id-format = '%Tt'", "`%Tt` is not known"),
        ("", "log-suffix = '%ID'", "there is no `unique-id-format`"),
        (
            ", send-proxy = 'v2', proxy-v2-options = 'unique-id'",
            "",
            "has no `unique-id-format`",
        ),
    ] {
        let told = told(server, more);
        assert!(
            told.iter().any(|one| one.contains(part)),
            "{part}: {told:#?}"
        );
    }
}
