//! The meaning of valid files.

use super::{diagnostics, limits, load, load_with};
use crate::config::Limits;
use crate::config::descriptors::{capacity, needed};
use crate::config::model::{
    BindAddress, Check, CheckKind, Config, Facility, Keepalive, LogFormat, LogSink, SendProxy,
    ServerAddress, ServerPort, Severity,
};
use std::net::IpAddr;
use std::time::Duration;

#[track_caller]
fn config(text: &str) -> Config {
    // Most of these texts have no service.
    let text = if text.contains("[global]") {
        text.replacen("[global]", "[global]\nallow-no-listener = true", 1)
    } else {
        format!("{text}\n[global]\nallow-no-listener = true\n")
    };
    match load(&text) {
        Ok((config, _)) => config,
        Err(found) => panic!(
            "{}",
            found.iter().map(|d| d.render(false)).collect::<String>()
        ),
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// The table of defaults.
#[test]
fn defaults_are_the_documented_ones() {
    let config = config(
        "[[listen]]\nname = 'l'\nbind = '*:80'\ncheck = true\n\
         servers = [{ name = 's', address = '10.0.0.1:80' }]",
    );
    assert_eq!((config.global.threads, config.global.maxconn), (2, None));
    assert_eq!(
        (config.stats, config.log.targets.len(), &*config.log.tag),
        (None, 0, "rlb")
    );
    let (frontend, backend) = (&config.frontends[0], &config.backends[0]);
    let keepalive = Keepalive {
        idle: 10 * SECOND,
        interval: 5 * SECOND,
        probes: 3,
    };
    assert_eq!(frontend.timeout_client, Some(3600 * SECOND));
    // Fault 7: a session waits for an answer that is being computed as long as an open session.
    assert_eq!(frontend.timeout_client_fin, Some(3600 * SECOND));
    assert_eq!(frontend.keepalive, Some(keepalive));
    assert_eq!(backend.timeout_server, Some(3600 * SECOND));
    assert_eq!(backend.timeout_server_fin, Some(3600 * SECOND));
    assert_eq!(backend.timeout_connect, 5 * SECOND);
    assert_eq!(backend.connect_attempt, Duration::from_millis(300));
    assert_eq!((backend.retries, backend.keepalive), (3, Some(keepalive)));
    let check = Check {
        kind: None,
        interval: 2 * SECOND,
        fast_interval: 2 * SECOND,
        down_interval: 2 * SECOND,
        rise: 2,
        fall: 3,
        timeout: SECOND,
        port: None,
        address: None,
        header: SendProxy::Off,
        script: None,
    };
    assert_eq!(backend.servers[0].check, Some(check));
    assert_eq!((backend.servers[0].weight, backend.servers[0].id), (1, 1));
}

/// A shorter setting shortens the defaults that depend on it, instead of contradicting them.
#[test]
fn defaults_follow_what_they_depend_on() {
    let config = config(
        "[defaults]\ntimeout = { client = '5s', server = '5s', connect = '100ms' }\n\
         check = { interval = '500ms' }\n\
         [[listen]]\nname = 'l'\nbind = '*:80'\nservers = [{ name = 's', address = 'a:80' }]",
    );
    let backend = &config.backends[0];
    assert_eq!(config.frontends[0].timeout_client_fin, Some(5 * SECOND));
    assert_eq!(backend.timeout_server_fin, Some(5 * SECOND));
    // Half of it: a second server is asked while there is time.
    assert_eq!(backend.connect_attempt, Duration::from_millis(50));
    let check = backend.servers[0].check.as_ref().expect("a check");
    assert_eq!(check.timeout, Duration::from_millis(500));
    assert_eq!(check.fast_interval, Duration::from_millis(500));
}

/// The nearest layer wins, key by key.
#[test]
fn checks_are_layered() {
    let config = config(
        "[defaults]\ntimeout = { check = '900ms' }\n\
         check = { interval = '5s', rise = 4, fall = 4 }\ndefault-server = { check = { rise = 5 } }\n\
         [[listen]]\nname = 'l'\nbind = '*:80'\ncheck = { fall = 6 }\n\
         default-server = { check = { down-interval = '9s' }, weight = 7, on-marked-down = 'shutdown-sessions' }\n\
         servers = [\n{ name = 'a', address = 'a:80', check = { rise = 1, port = 8 } },\n\
         { name = 'b', address = 'b:80', check = false, weight = 0, on-marked-down = 'none' },\n\
         { name = 'c', address = 'c:80', check = 'tcp' },\n]",
    );
    let servers = &config.backends[0].servers;
    let of = |index: usize| servers[index].check.clone();
    let a = of(0).expect("a check");
    assert_eq!((a.rise, a.fall, a.port), (1, 6, Some(8)));
    assert_eq!((a.interval, a.down_interval), (5 * SECOND, 9 * SECOND));
    assert_eq!(a.timeout, Duration::from_millis(900));
    assert_eq!(of(1), None);
    assert_eq!(of(2).map(|c| (c.rise, c.fall)), Some((5, 6)));
    // Fault 49: what asks for a connection without a word of `option tcp-check`, and with it.
    assert_eq!(
        (a.kind, of(2).and_then(|c| c.kind)),
        (None, Some(CheckKind::Tcp))
    );
    assert_eq!(
        servers.iter().map(|s| s.weight).collect::<Vec<_>>(),
        [7, 0, 7]
    );
    let down: Vec<bool> = servers
        .iter()
        .map(|s| s.shutdown_sessions_on_down)
        .collect();
    assert_eq!(down, [true, false, true]);
}

/// A backend without `check` has none, and neither has one with `false`, whatever the defaults are.
#[test]
fn checks_are_off_unless_asked_for() {
    let text = "[[listen]]\nname = 'l'\nbind = '*:80'\nCHECK\n\
                servers = [{ name = 's', address = 'a:80' }]";
    assert_eq!(
        config(&text.replace("CHECK", "")).backends[0].servers[0].check,
        None
    );
    let off = format!(
        "[defaults]\ncheck = true\n{}",
        text.replace("CHECK", "check = false")
    );
    assert_eq!(config(&off).backends[0].servers[0].check, None);
}

#[test]
fn idle_timeouts_can_be_off() {
    let config = config(
        "[[listen]]\nname = 'l'\nbind = '*:80'\nkeepalive = false\n\
         timeout = { client = '0s', server = '0s', client-fin = '0s' }\n\
         servers = [{ name = 's', address = 'a:80' }]",
    );
    let frontend = &config.frontends[0];
    assert_eq!(
        (frontend.timeout_client, frontend.timeout_client_fin),
        (None, None)
    );
    assert_eq!(config.backends[0].timeout_server, None);
    assert_eq!(config.backends[0].timeout_server_fin, None);
    assert_eq!(
        (frontend.keepalive, config.backends[0].keepalive),
        (None, None)
    );
}

/// Ids are counted in file order from 2, without those that were written; the statistics come first.
#[test]
fn proxies_are_numbered_and_ordered() {
    let text = "[[backend]]\nname = 'b'\n[[listen]]\nname = 'l'\nbind = '*:1'\n\
                [[frontend]]\nname = 'f'\nid = 3\nbind = '*:2'\ndefault-backend = 'b'\n\
                [[backend]]\nname = 'f'\n";
    let config = config(&format!("{text}[stats]\nbind = '*:3'"));
    assert_eq!(config.stats.as_ref().map(|stats| stats.id), Some(2));
    let front: Vec<_> = config
        .frontends
        .iter()
        .map(|f| (&*f.name, f.id, f.order))
        .collect();
    let back: Vec<_> = config
        .backends
        .iter()
        .map(|b| (&*b.name, b.id, b.order))
        .collect();
    assert_eq!(front, [("l", 5, 2), ("f", 3, 4)]);
    assert_eq!(back, [("b", 4, 1), ("l", 5, 3), ("f", 6, 5)]);
    assert_eq!(config.frontends[0].default_backend.0, 1);
    assert_eq!(config.frontends[1].default_backend.0, 0);
    // Without statistics 2 is free.
    assert_eq!(super::load(text).expect("valid").0.backends[0].id, 2);
}

#[test]
fn binds_are_expanded_and_numbered() {
    let config = config(
        "[[listen]]\nname = 'l'\nbacklog = 9\nbind = ['*:80', ':81', '[::1]:82', \
         { address = '127.0.0.1:90-92', name = 'r', id = 2, backlog = 5 }, \
         { address = 'unix:@x' }, { address = 'unix:/run/x', mode = '0660' }]\n\
         servers = [{ name = 's', address = 'a:80' }]",
    );
    let binds = &config.frontends[0].binds;
    let shown: Vec<String> = binds
        .iter()
        .map(|bind| {
            let address = match &bind.address {
                BindAddress::Tcp(address) => address.to_string(),
                BindAddress::Unix(path) => path.display().to_string(),
                BindAddress::Descriptor(number) => format!("fd@{number}"),
            };
            format!("{} {} {address} {:?}", bind.id, bind.name, bind.backlog)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "1 *:80 0.0.0.0:80 Some(9)",
            "5 :81 0.0.0.0:81 Some(9)",
            "6 [::1]:82 [::1]:82 Some(9)",
            "2 r:90 127.0.0.1:90 Some(5)",
            "3 r:91 127.0.0.1:91 Some(5)",
            "4 r:92 127.0.0.1:92 Some(5)",
            "7 unix:@x @x Some(9)",
            "8 unix:/run/x /run/x Some(9)",
        ]
    );
    assert_eq!(binds[7].mode, Some(0o660));
}

#[test]
fn servers_have_addresses() {
    let config = config(
        "[[listen]]\nname = 'l'\nbind = '*:80'\nservers = [\n\
         { name = 'a', address = '10.0.0.1:5432' },\n{ name = 'b', id = 1, address = '[::1]:80' },\n\
         { name = 'c', address = 'db.example:80' },\n{ name = 'd', address = '10.0.0.1' },\n\
         { name = 'e', address = 'x:+1000' },\n{ name = 'f', address = '[::1]:-10' },\n\
         { name = 'g', address = 'unix:/run/g' },\n]",
    );
    // One that has an id counts too, as in HAProxy: no server has 3.
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let expected = [
        (
            2,
            ServerAddress::Ip(ip("10.0.0.1"), ServerPort::Fixed(5432)),
        ),
        (1, ServerAddress::Ip(ip("::1"), ServerPort::Fixed(80))),
        (
            4,
            ServerAddress::Name("db.example".into(), ServerPort::Fixed(80)),
        ),
        (
            5,
            ServerAddress::Ip(ip("10.0.0.1"), ServerPort::FromClient(0)),
        ),
        (
            6,
            ServerAddress::Name("x".into(), ServerPort::FromClient(1000)),
        ),
        (7, ServerAddress::Ip(ip("::1"), ServerPort::FromClient(-10))),
        (8, ServerAddress::Unix("/run/g".into())),
    ];
    let found = config.backends[0]
        .servers
        .iter()
        .map(|s| (s.id, s.address.clone()));
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

/// In the order of the file, not of the names.
#[test]
fn node_groups_become_servers() {
    let config = config(
        "[node-group.g]\nzulu = '10.0.0.1'\nalpha = { host = 'two', weight = 3, backup = true }\n\
         [[listen]]\nname = 'l'\nbind = '*:80'\nnodes = 'g'\nport = 99\n\
         servers = [{ name = 'x', address = 'x:1' }]",
    );
    let servers = &config.backends[0].servers;
    let names: Vec<_> = servers
        .iter()
        .map(|s| (&*s.name, s.id, s.weight, s.backup))
        .collect();
    assert_eq!(
        names,
        [
            ("x", 1, 1, false),
            ("zulu", 2, 1, false),
            ("alpha", 3, 3, true)
        ]
    );
    assert_eq!(
        servers[2].address,
        ServerAddress::Name("two".into(), ServerPort::Fixed(99))
    );
}

#[test]
fn fullconn_is_a_tenth_of_what_leads_there() {
    let text = "[global]\nmaxconn = 1000\n\
                [[frontend]]\nname = 'f'\nmaxconn = 101\nbind = '*:1'\ndefault-backend = 'b'\n\
                [[frontend]]\nname = 'g'\nbind = '*:2'\ndefault-backend = 'b'\n\
                [[backend]]\nname = 'b'\n[[backend]]\nname = 'c'\nfullconn = 7\n\
                [[backend]]\nname = 'd'\n[[listen]]\nname = 'e'\nmaxconn = 3\nbind = '*:3'";
    let fullconn = |config: &Config| -> Vec<u32> {
        config
            .backends
            .iter()
            .map(|backend| backend.fullconn)
            .collect()
    };
    assert_eq!(fullconn(&config(text)), [111, 7, 1, 1]);
    // Without a global one: what the descriptors allow, (2512 - 512) / 2 = 1000.
    let small = Limits {
        nofile: Some(2512),
        ..limits()
    };
    let (config, _) = load_with(&text.replace("maxconn = 1000", ""), small).expect("valid");
    assert_eq!(fullconn(&config), [111, 7, 1, 1]);
}

/// Fault 35: descriptors of everything else are counted before those of sessions.
#[test]
fn fault_35_sessions_are_what_the_descriptors_leave() {
    let text = |threads: u32, ports: &str, checks: &str| {
        let servers = (0..40).map(|n| format!("{{name='s{n}',address='127.0.0.1:1'{checks}}}"));
        let servers: Vec<_> = servers.collect();
        config(&format!(
            "[global]\nthreads = {threads}\n[[listen]]\nname = 'l'\nbind = '127.0.0.1:{ports}'\n\
             servers = [{}]",
            servers.join(",")
        ))
    };
    let fits = |config: &Config, nofile| capacity(config, nofile).map(|it| it.maxconn);
    let one = text(1, "4000", "");
    // Where little is needed, a quarter and at most 512 are still kept from sessions.
    assert_eq!(fits(&one, 20_000), Ok(9744));
    assert_eq!(fits(&one, 1024), Ok(384));
    assert_eq!(fits(&one, u64::MAX), Ok(u32::MAX));
    // 8 × 40 listening sockets, 8 workers and their pipes.
    let many = text(8, "4000-4039", "");
    let (binds, pipes) = (8 * 40, 2 * 8 * 8);
    assert_eq!(capacity(&many, 1024).map(|it| it.pipes), Ok(8));
    assert_eq!(needed(&many, 1024), 32 + 8 * 10 + binds + 16 + 16 + pipes);
    assert_eq!(fits(&many, 1024), Ok(216));
    let checked = text(1, "4000", ",check=true");
    assert_eq!(needed(&checked, 256), needed(&one, 256) + 40);
    // Not all configured checks run at once.
    assert_eq!(needed(&checked, 100), needed(&one, 100) + 25);
    // Fault 36: one sentence when not even one session fits.
    for nofile in [0, 1, 16, 32, 48, 64] {
        let error = capacity(&one, nofile).unwrap_err().to_string();
        assert!(error.contains(&format!("limit of {nofile} file descriptors is too low")));
    }
    assert!(fits(&one, 128).is_ok());
}

#[test]
fn log_targets_have_a_fitting_format() {
    let config = config(
        "[log]\ntag = 'haproxy'\n[[log.target]]\nto = 'stderr'\n[[log.target]]\nto = 'udp:[::1]'\n\
         [[log.target]]\nto = 'unix:/dev/log'\nformat = 'rfc5424'\nfacility = 'daemon'\n\
         level = 'err'\n[[log.target]]\nto = 'file:/var/log/rlb.log'",
    );
    let targets = &config.log.targets;
    let formats: Vec<_> = targets.iter().map(|target| target.format).collect();
    assert_eq!(
        formats,
        [
            LogFormat::Raw,
            LogFormat::Rfc3164,
            LogFormat::Rfc5424,
            LogFormat::Raw,
        ]
    );
    assert_eq!(
        targets[1].sink,
        LogSink::Udp("[::1]:514".parse().expect("an address"))
    );
    assert_eq!(
        (targets[0].facility, targets[0].level),
        (Facility(16), Severity::Info)
    );
    assert_eq!(
        (targets[2].facility, targets[2].level),
        (Facility(3), Severity::Err)
    );
}

#[test]
fn strings_take_values_from_elsewhere() {
    let config =
        config("[global]\nnode = '${SET}'\ndescription = 'a ${UNSET-b c} $${SET} $ {x} ${SET}'\n");
    assert_eq!(config.global.node.as_deref(), Some("from-environment"));
    let description = config.global.description.expect("a description");
    assert_eq!(&*description, "a b c ${SET} $ {x} from-environment");
}

/// As HAProxy 2.6 allows: a frontend and a backend may have the same name.
#[test]
fn a_frontend_and_a_backend_may_share_a_name() {
    let text = "[[frontend]]\nname = 'x'\nbind = '*:1'\ndefault-backend = 'x'\n\
                [[backend]]\nname = 'x'\nservers = [{ name = 's', address = 'a:1' }]";
    assert!(diagnostics(load(text)).is_empty());
}

/// A slow start is inherited, 0 takes it away, and one at the start must have a time.
#[test]
fn slow_starts() {
    let text = |defaults: &str| {
        format!(
            "[[listen]]\nname = 'l'\nbind = '*:80'\ndefault-server = {{ {defaults} }}\nservers = [\n\
             {{ name = 'a', address = '10.0.0.1:80' }},\n\
             {{ name = 'b', address = '10.0.0.2:80', slowstart = '0s' }}]"
        )
    };
    let found = config(&text("slowstart = '1500ms'"));
    let times = found.backends[0].servers.iter().map(|it| it.slowstart);
    let expected = [Duration::from_millis(1500), Duration::ZERO];
    assert_eq!(times.collect::<Vec<_>>(), expected);
    let warnings = |defaults: &str| {
        let (_, found) = load(&text(defaults)).expect("no error");
        let codes = found.iter().map(|it| it.code);
        codes.collect::<Vec<_>>()
    };
    assert_eq!(warnings("slowstart = '1s'"), [""; 0]);
    // Of the server that has none.
    let at_start = "slowstart = '1s', slowstart-at-start = true";
    assert_eq!(warnings(at_start), ["no-meaning"]);
}

/// As in HAProxy they are for the servers that have TCP.
#[test]
fn socket_options_of_a_default_server_are_not_those_of_a_unix_socket() {
    let config = config(
        "[[listen]]\nname = 'l'\nbind = '*:80'\ncheck = false\n\
         default-server = { tcp-ut = '3s', mptcp = true }\nservers = [\n\
         { name = 'a', address = '10.0.0.1:80' },\n\
         { name = 'b', address = 'unix:/run/b' },\n]",
    );
    let servers = &config.backends[0].servers;
    let socket = servers[0].socket.as_ref().expect("it has options");
    assert_eq!((socket.tcp_ut, socket.mptcp), (Some(3 * SECOND), true));
    assert_eq!(servers[1].socket, None);
}
