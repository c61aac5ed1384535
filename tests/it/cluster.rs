//! The kurl-ha cluster from nothing to three nodes, and its faults, through rlb. Needs root.

use crate::harness::browser::{browse, photograph, row};
use crate::harness::client::{End, hear, http_get};
use crate::harness::eventually::eventually_eq;
use crate::harness::needs;
use crate::harness::netns::{LB_ADDRESS, Lab};
use crate::harness::peer::Behaviour;
use crate::harness::rlb::STOP_WITHIN;
use crate::lab::balancer::{
    BACKENDS, Balancer, Kind, SERVERS, Variant, csv, frontend, wait_states,
};
use crate::lab::load::{Clients, Report};
use crate::lab::reloads::{ReloadOptions, STREAMS, reloads};
use crate::lab::scenarios::{
    Pinned, PowerOff, pinned_clients, power_off, service_stops, split, stopped,
};
use crate::lab::services::{
    APP, CONSOLE, Database, KUBE_API, http_through_lb, https_through_lb, nginx, pgbench, psql,
    scripted, success,
};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn the_seeds_cluster_from_nothing_to_three_nodes() {
    if !needs::root() {
        return;
    }
    let database = Database::create();
    let mut lab = Lab::new();
    let _rlb = Kind::Rlb.start(&lab);
    // Nothing is installed yet: nodes without power, every server down, clients rejected at once.
    for (backend, _) in BACKENDS {
        wait_states(&lab, backend, ["DOWN"; 3]);
        assert_eq!(csv(&lab).row(backend, "BACKEND").status(), "DOWN");
    }
    let start = Instant::now();
    assert_eq!(lab.client.enter(|| hear(frontend(APP))).0, "");
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        csv(&lab).row("app-direct-frontend", "FRONTEND").status(),
        "OPEN"
    );

    watched(&lab, 0);

    // The nodes start one by one, and on each the services one by one.
    let mut services = Vec::new();
    let mut databases = Vec::new();
    for node in 0..3 {
        lab.power_on(node);
        let expected =
            |up: usize| std::array::from_fn(|index| if index < up { "UP" } else { "DOWN" });
        for (backend, port) in BACKENDS {
            wait_states(&lab, backend, expected(node));
            match port {
                5432 => databases.push(database.start(&lab, node)),
                port => services.push(nginx(&lab, node, port)),
            }
            wait_states(&lab, backend, expected(node + 1));
            assert_eq!(
                csv(&lab).row(backend, "BACKEND").number("act"),
                node as u64 + 1
            );
        }
        let first_of_the_next = BACKENDS[0].0;
        wait_states(&lab, first_of_the_next, expected(node + 1));
        serves_from(&lab, node + 1);
        watched(&lab, node + 1);
    }
    let bench = [
        "--client=4",
        "--jobs=2",
        "--time=5",
        "--connect",
        "--no-vacuum",
    ];
    without_an_error(&pgbench(&lab, LB_ADDRESS, &bench));
    without_an_error(&pgbench(
        &lab,
        LB_ADDRESS,
        &["--client=8", "--time=3", "--no-vacuum"],
    ));
    let csv = csv(&lab);
    let sessions = SERVERS.map(|server| csv.row("postgres-backend", server).number("stot"));
    assert!(
        sessions.iter().max() <= sessions.iter().min().map(|it| it + 8).as_ref(),
        "{sessions:?}"
    );
    for (backend, _) in BACKENDS {
        assert_eq!(csv.row(backend, "BACKEND").number("eresp"), 0, "{backend}");
    }
}

/// A browser on the client's machine shows `up` nodes up and the others down.
fn watched(lab: &Lab, up: usize) {
    let Some(chromium) = needs::program("chromium") else {
        return;
    };
    let url = format!("http://{LB_ADDRESS}:8080/;norefresh");
    let page = lab
        .client
        .enter(|| browse(&chromium, &url, &["--dump-dom"]));
    for (backend, _) in BACKENDS {
        for (index, server) in SERVERS.iter().enumerate() {
            let expected = if index < up {
                "active_up"
            } else {
                "active_down"
            };
            let (class, _) = row(&page, &format!("{backend}/{server}"));
            assert_eq!(class, expected, "{backend}/{server}, {up} nodes up");
        }
    }
    let name = format!("cluster-{up}-nodes");
    lab.client
        .enter(|| photograph(&chromium, &url, &name, (1080, true)));
}

/// Every service is served by each of the first `nodes` nodes.
fn serves_from(lab: &Lab, nodes: usize) {
    let all = |ask: &dyn Fn() -> String| (0..nodes).map(|_| ask()).collect::<BTreeSet<_>>();
    let expected: BTreeSet<String> = (1..=nodes).map(|node| format!("node0{node}")).collect();
    assert_eq!(all(&|| http_through_lb(lab, APP)), expected);
    assert_eq!(all(&|| http_through_lb(lab, CONSOLE)), expected);
    assert_eq!(all(&|| https_through_lb(lab)), expected);
    let addresses = all(&|| {
        let output = psql(lab, LB_ADDRESS, "select host(inet_server_addr())");
        success(&output);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    assert_eq!(addresses.len(), nodes, "{addresses:?}");
}

#[track_caller]
fn without_an_error(output: &std::process::Output) {
    success(output);
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = said
        .lines()
        .find(|line| line.starts_with("number of failed transactions"));
    assert!(failed.is_none_or(|line| line.contains(": 0 (")), "{said}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!errors.contains("error"), "{errors}");
}

#[test]
fn a_stopped_service_costs_nobody_anything() {
    if !needs::root() {
        return;
    }
    let report = service_stops(Kind::Rlb);
    eprintln!("service stopped: {report}");
    costs_nothing(&report);
}

/// What a stopped service costs: the requests that it had.
#[track_caller]
fn costs_nothing(report: &Report) {
    assert!(report.failed + report.failed_before <= 2, "{report}");
    assert_eq!(report.slow, 0, "{report}");
}

/// A control: the same minute through HAProxy with its original configuration must show losses that rlb does
/// not have; otherwise the test setup detects nothing.
#[test]
fn the_laboratory_sees_what_the_seeds_haproxy_loses() {
    if !needs::root() {
        return;
    }
    let report = service_stops(Kind::Haproxy);
    eprintln!("service stopped, HAProxy: {report}");
    assert!(report.failed > 20, "{report}");
}

#[test]
fn a_node_without_power_costs_nobody_a_second() {
    if !needs::root() {
        return;
    }
    let result = power_off(Kind::Rlb);
    eprintln!("power off: {}", result.off);
    eprintln!(
        "power on: {}; serves after {:?}",
        result.on, result.serves_again_after
    );
    costs_no_second(&result);
}

/// What a node without power costs: the requests that it had.
#[track_caller]
fn costs_no_second(result: &PowerOff) {
    assert_eq!(
        (result.off.failed, result.off.slow),
        (0, 0),
        "{}",
        result.off
    );
    assert!(
        result.off.clean_after <= Duration::from_secs(1),
        "{}",
        result.off
    );
    assert_eq!((result.on.failed, result.on.slow), (0, 0), "{}", result.on);
    assert!(
        result.serves_again_after < Duration::from_secs(10),
        "{:?}",
        result.serves_again_after
    );
}

/// The clients of the variants. What a node without power has of them is not waited for.
const FEW: Clients = Clients {
    per_second: 50,
    timeout: Duration::from_secs(5),
    pause: Duration::ZERO,
    burst: 1,
    addresses: 0,
};

/// The least busy server; one by the client's address, of sixteen; and servers that take one session each while five clients
/// come at once, who keep two servers busy for three quarters of the time.
static VARIANTS: [(&str, Variant); 3] = [
    (
        "leastconn",
        Variant {
            defaults: "balance = \"leastconn\"",
            backend: "",
            clients: FEW,
        },
    ),
    (
        "source",
        Variant {
            defaults: "balance = \"source\"",
            backend: "",
            clients: Clients {
                addresses: 16,
                ..FEW
            },
        },
    ),
    (
        "queues",
        Variant {
            defaults: "",
            backend: "default-server = { maxconn = 1, on-marked-down = \"shutdown-sessions\" }",
            clients: Clients {
                pause: Duration::from_millis(25),
                burst: 5,
                ..FEW
            },
        },
    ),
];

/// The same faults and the same bounds as with `roundrobin`, all at once.
#[test]
fn other_ways_to_choose_and_full_servers_cost_nobody_more() {
    if !needs::root() {
        return;
    }
    let options = ReloadOptions {
        reloads: 8,
        dark: true,
        timeout: FEW.timeout,
    };
    std::thread::scope(|scope| {
        for (name, variant) in &VARIANTS {
            let kind = Kind::Variant(variant);
            scope.spawn(move || {
                let report = service_stops(kind);
                eprintln!("{name}, service stopped: {report}");
                costs_nothing(&report);
            });
            scope.spawn(move || {
                let result = power_off(kind);
                let (off, on, waiting) = (result.off, result.on, result.most_waiting);
                eprintln!("{name}, power off: {off}; on: {on}; {waiting} have waited");
                costs_no_second(&result);
                assert_eq!(waiting > 0, *name == "queues", "{waiting} have waited");
            });
            scope.spawn(move || {
                let result = reloads(kind, options);
                eprintln!("{name}, reloads in the dark: {result}");
                assert_eq!(result.forgotten, 0, "the dark node stays DOWN");
                assert_eq!((result.failed(), result.clients.slow), (0, 0), "{result}");
                assert!(result.clients.begun >= 300, "{result}");
                assert_eq!(result.at_extra_frontend.0, 4, "{result}");
                assert_eq!(result.streams.broken, Vec::<String>::new());
                assert!(result.streams.messages >= 50, "{result}");
            });
        }
    });
}

/// One process keeps serving and keeps health: no client is sent to the node that is known to be down.
#[test]
fn fifty_reloads_while_a_node_is_dark_cost_nobody_anything() {
    if !needs::root() {
        return;
    }
    let options = ReloadOptions {
        reloads: 50,
        dark: true,
        timeout: Duration::from_secs(10),
    };
    let result = reloads(Kind::Rlb, options);
    eprintln!("reloads in the dark: {result}");
    assert_eq!(result.forgotten, 0, "the dark node stays DOWN");
    assert_eq!((result.failed(), result.clients.slow), (0, 0), "{result}");
    assert!(result.clients.begun >= 4500, "{result}");
    assert_eq!(result.at_extra_frontend.0, 25, "{result}");
    assert!(result.by_extra_server > 100, "{result}");
    assert_eq!(result.streams.broken, Vec::<String>::new());
    let [_, _, leaving] = result.streams.held_by;
    assert!(
        leaving >= STREAMS / 4,
        "on the server that leaves: {result}"
    );
    assert!(result.streams.messages >= 200, "{result}");
    assert_eq!(result.last.processes, 1, "{result}");
    let grown = result
        .last
        .anonymous_kb
        .saturating_sub(result.settled.anonymous_kb);
    assert!(grown <= 2048, "{grown} kB: {result}");
}

/// The same, shorter, through Debian's HAProxy with its unit's reload: for comparison, and as proof that this
/// load detects the losses of a reload.
#[test]
fn haproxy_beside_it_loses_what_rlb_does_not() {
    if !needs::root() {
        return;
    }
    let options = ReloadOptions {
        reloads: 10,
        dark: true,
        timeout: Duration::from_secs(3),
    };
    let (haproxy, rlb) = (reloads(Kind::Haproxy, options), reloads(Kind::Rlb, options));
    eprintln!("HAProxy: {haproxy}\nrlb: {rlb}");
    for result in [&haproxy, &rlb] {
        assert!(result.clients.begun >= 1500, "{result}");
        assert!(result.by_extra_server > 0, "{result}");
        assert!(result.streams.messages > 50, "{result}");
    }
    assert!(haproxy.failed() > 20, "a dark node that is UP: {haproxy}");
    assert_eq!(rlb.failed(), 0, "{rlb}");
    assert!(rlb.streams.broken.len() <= haproxy.streams.broken.len());
    assert!(rlb.last.processes < haproxy.last.processes);
}

#[test]
fn a_stop_under_load_breaks_no_session_and_keeps_nobody_waiting() {
    if !needs::root() {
        return;
    }
    let result = stopped();
    let report = result.report;
    eprintln!("stopped: {report}");
    assert_eq!(report.failed_before, 0, "{report}");
    assert_eq!(report.slow, 0, "{report}");
    // Rejected at once, so that clients go elsewhere.
    let refused = result.refused;
    assert_eq!(refused.failed, refused.begun, "{refused}");
    assert!(refused.begun > 50, "{refused}");
    assert!(report.longest < Duration::from_secs(1), "{report}");
    assert!(result.held.contains("node0"), "{}", result.held);
    assert_eq!(result.code, Some(0));
}

#[test]
fn clients_of_a_node_without_power_are_told_by_a_reset_within_35_s() {
    if !needs::root() {
        return;
    }
    for (kind, after, end) in pinned_clients(Kind::Rlb, Duration::from_secs(60)) {
        eprintln!("pinned, {kind:?}: {end:?} after {after:?}");
        assert_eq!(end, End::Reset, "{kind:?} after {after:?}");
        assert!(after <= Duration::from_secs(35), "{kind:?} after {after:?}");
    }
}

#[test]
fn a_split_of_12_s_kills_nothing() {
    if !needs::root() {
        return;
    }
    assert_eq!(split(Kind::Rlb), Vec::<Pinned>::new());
}

#[test]
fn a_client_may_live_on_a_node_that_is_also_its_server() {
    if !needs::root() {
        return;
    }
    let mut lab = Lab::new();
    for node in 0..3 {
        lab.power_on(node);
    }
    let _services: Vec<_> = (0..3).map(|node| nginx(&lab, node, KUBE_API)).collect();
    let _rlb = Kind::Rlb.start(&lab);
    wait_states(&lab, "kube-api-backend", ["UP"; 3]);
    lab.node(0).enter(|| {
        for round in 0..6 {
            // The first bytes of a TLS client; any answer of the server is sufficient.
            let mut stream = crate::harness::client::connect(frontend(KUBE_API));
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            assert!(answer.contains("HTTPS port"), "round {round}: {answer:?}");
        }
    });
}

#[test]
fn used_up_source_ports_are_nobodys_fault_but_ours() {
    if !needs::root() {
        return;
    }
    let mut lab = Lab::new();
    let _peers: Vec<_> = (0..3)
        .map(|node| {
            lab.power_on(node);
            scripted(&lab, node, CONSOLE, Behaviour::SpeaksFirst("!"))
        })
        .collect();
    let mut rlb = Kind::Rlb.start(&lab);
    wait_states(&lab, "replicated-backend", ["UP"; 3]);
    lab.lb.sysctl("ipv4/ip_local_port_range", "40000 40019");
    let begun = Instant::now();
    let streams = lab.client.enter(|| {
        let mut streams = Vec::new();
        for _ in 0..120 {
            streams.push(crate::harness::client::connect(frontend(CONSOLE)));
        }
        streams
    });
    crate::harness::eventually::steadily(Duration::from_secs(8), "a false DOWN", || {
        BACKENDS.iter().take(3).skip(2).all(|(backend, _)| {
            let csv = csv(&lab);
            SERVERS
                .iter()
                .all(|server| csv.row(backend, server).status() == "UP")
        })
    });
    // Fault 25: the shortage is a metric and one event a second, with the address and the cure.
    let stats = format!("{LB_ADDRESS}:8080").parse().expect("an address");
    let metrics = lab.client.enter(|| http_get(stats, "/metrics"));
    let (_, metrics) = metrics.expect("the statistics answer");
    let counted = |name: &str| {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.is_some_and(|value| value.trim() != "0")
    };
    let ports = "cause=\"source_ports\"}";
    assert!(counted(&format!(
        "rlb_shortages_total{{step=\"connect\",{ports}"
    )));
    let proxy = "proxy=\"replicated-backend\"";
    assert!(counted(&format!(
        "rlb_backend_failed_sessions_total{{{proxy},{ports}"
    )));
    if let Balancer::Rlb(rlb) = &rlb {
        let events = rlb.events().all();
        let told = |line: &&String| {
            line.contains("no free source ports towards 10.240.0.")
                && line.contains("ip_local_port_range")
        };
        let told = events.iter().filter(told).count() as u64;
        assert!(
            (1..=begun.elapsed().as_secs() + 2).contains(&told),
            "{events:#?}"
        );
    }
    drop(streams);
    lab.lb.sysctl("ipv4/ip_local_port_range", "32768 60999");
    eventually_eq(STOP_WITHIN, &"!".to_owned(), || {
        lab.client.enter(|| {
            let mut stream = crate::harness::client::connect(frontend(CONSOLE));
            let mut word = [0];
            drop(stream.read(&mut word));
            String::from_utf8_lossy(&word)
                .trim_end_matches('\0')
                .to_owned()
        })
    });
    rlb.lives();
}
