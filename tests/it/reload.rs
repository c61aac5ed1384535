//! Hot reload: what stays, what changes, what is refused, and fifty reloads in a row under load.

use crate::harness::client::{TIMEOUT, connect, echo, hear};
use crate::harness::config::Config;
use crate::harness::eventually::{eventually_eq, eventually_true, pace_until};
use crate::harness::load::Load;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::ports;
use crate::harness::rlb::{Rlb, STOP_WITHIN, command};
use crate::upgrade::Next;
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

fn one_server(peer: &Peer, keys: &str) -> Config {
    Config::new().server_with(peer.address(), keys)
}

#[test]
fn counters_sessions_and_the_socket_survive() {
    let peer = Peer::start(Behaviour::Echo);
    let config = one_server(&peer, "check = false");
    let mut rlb = Rlb::start(&config);
    let address = rlb.address();
    let mut stream = connect(address);
    echo(&mut stream, b"before");
    rlb.reload(&config.frontend("maxconn = 100").backend("retries = 1"));
    assert_eq!(
        rlb.address(),
        address,
        "port 0: a new socket would have another port"
    );
    echo(&mut stream, b"after");
    echo(&mut connect(address), b"and a new one");
    eventually_eq(STOP_WITHIN, &2, || rlb.number("FRONTEND", "stot"));
    assert_eq!(rlb.number("FRONTEND", "slim"), 100);
    // The second session has ended; the relay notices it at some time.
    eventually_eq(STOP_WITHIN, &1, || rlb.number("s1", "scur"));
    rlb.stop_after(stream);
}

#[test]
fn an_invalid_file_changes_nothing() {
    let peer = Peer::start(Behaviour::Echo);
    let config = one_server(&peer, "check = false");
    let mut rlb = Rlb::start(&config);
    rlb.reload_refused(&config.clone().frontend("bnd = 1"));
    assert!(!rlb.events().with("bnd").is_empty(), "says why");
    let get = |rlb: &Rlb, path| rlb.http_get(path).expect("answers").1;
    let metrics = get(&rlb, "/metrics");
    assert!(metrics.contains("\nrlb_reloads_total{result=\"failure\"} 1\n"));
    assert!(metrics.contains("\nrlb_last_reload_success 0\n"));
    let page = get(&rlb, "/");
    let alert = page
        .lines()
        .find(|line| line.contains("The last reload failed "));
    assert!(alert.is_some_and(|line| line.contains("bnd")), "{alert:?}");
    // An error of the system is known only in the prepare step, and changes nothing, either.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let more = config.clone().bind("127.0.0.1:0").bind(address);
    rlb.reload_refused(&more.server_with(peer.address(), "check = false"));
    assert!(
        !rlb.events().with(&address.to_string()).is_empty(),
        "says where"
    );
    echo(&mut connect(rlb.address()), b"served as before");
    assert!(
        rlb.csv().find("be", "s2").is_none(),
        "nothing of the refused file"
    );
    rlb.reload(&config.frontend("maxconn = 100"));
    assert!(get(&rlb, "/metrics").contains("\nrlb_last_reload_success 1\n"));
    assert!(!get(&rlb, "/").contains("The last reload failed "));
    rlb.stop();
}

#[test]
fn servers_come_and_go_and_their_sessions_stay() {
    let (one, two) = (
        Peer::start(Behaviour::SpeaksFirst("one")),
        Peer::start(Behaviour::SpeaksFirst("two")),
    );
    let only = |name: &str, peer: &Peer| {
        format!(
            "[stats]\nbind = \"127.0.0.1:0\"\n[[listen]]\nname = \"fe\"\nbind = \"127.0.0.1:0\"\n\
             servers = [{{ name = \"{name}\", address = \"{}\", check = true }}]\n",
            peer.address()
        )
    };
    let mut rlb = Rlb::start(&only("a", &one));
    let mut stream = connect(rlb.address());
    let mut word = [0; 3];
    stream.read_exact(&mut word).expect("a greeting");
    assert_eq!(&word, b"one");
    rlb.reload(&only("b", &two));
    echo(&mut stream, b"the removed server still serves it");
    for _ in 0..4 {
        let mut new = connect(rlb.address());
        new.read_exact(&mut word).expect("a greeting");
        assert_eq!(&word, b"two");
    }
    eventually_true(STOP_WITHIN, "the new server is checked", || {
        rlb.csv().row("fe", "b").text("check_status") == "L4OK"
    });
    let checks = one.accepted();
    assert!(
        rlb.csv().find("fe", "a").is_none(),
        "the removed one has no row"
    );
    rlb.reload(&only("b", &two));
    drop(stream);
    assert!(
        one.accepted() <= checks + 1,
        "the removed one is checked no more"
    );
    rlb.stop();
}

#[test]
fn a_dead_server_stays_down_across_reloads() {
    let alive = Peer::start(Behaviour::Echo);
    let dead = ports::free();
    let config = Config::new()
        .backend("check = { interval = \"100ms\" }")
        .server(alive.address())
        .server(dead);
    let mut rlb = Rlb::start(&config);
    rlb.wait_status("s2", "DOWN");
    let downs = rlb.number("s2", "chkdown");
    rlb.reload(&config.clone().backend("retries = 2"));
    assert_eq!(rlb.status("s2"), "DOWN", "not believed to be up again");
    assert_eq!(rlb.number("s2", "chkdown"), downs);
    // At another address it may be up.
    let back = Peer::start(Behaviour::Echo);
    rlb.reload(
        &Config::new()
            .backend("check = { interval = \"100ms\" }")
            .server(alive.address())
            .server(back.address()),
    );
    rlb.wait_status("s2", "UP");
    rlb.stop();
}

#[test]
fn weights_and_the_round_robin_go_on() {
    let (one, two) = (
        Peer::start(Behaviour::Says("1")),
        Peer::start(Behaviour::Says("2")),
    );
    let config = |weight: u32| {
        Config::new()
            .server_with(one.address(), &format!("check = false, weight = {weight}"))
            .server_with(two.address(), "check = false")
    };
    let mut rlb = Rlb::start(&config(1));
    let mut heard = String::new();
    for round in 0..6 {
        // The order goes on over a reload between any two connections.
        rlb.reload(&config(1).frontend(&format!("maxconn = {}", 100 + round)));
        heard += &hear(rlb.address()).0;
    }
    assert!(heard == "121212" || heard == "212121", "{heard}");
    rlb.reload(&config(3));
    let heard: String = (0..8).map(|_| hear(rlb.address()).0).collect();
    assert_eq!(heard.matches('1').count(), 6, "{heard}");
    rlb.stop();
}

#[test]
fn frontends_and_binds_come_go_and_move() {
    let peer = Peer::start(Behaviour::Echo);
    let (first, second) = (ports::free(), ports::free());
    let text = |frontends: &[(&str, &[SocketAddr])]| {
        let mut text = String::from("[stats]\nbind = \"127.0.0.1:0\"\n");
        for (name, binds) in frontends {
            let binds: Vec<String> = binds.iter().map(ToString::to_string).collect();
            let _ = write!(
                text,
                "[[frontend]]\nname = \"{name}\"\nbind = {binds:?}\ndefault-backend = \"be\"\n"
            );
        }
        let _ = write!(
            text,
            "[[backend]]\nname = \"be\"\nservers = [{{ name = \"s1\", address = \"{}\" }}]\n",
            peer.address()
        );
        text
    };
    let mut rlb = Rlb::start(&text(&[("a", &[first])]));
    let mut stream = connect(first);
    echo(&mut stream, b"old");
    rlb.reload(&text(&[("a", &[first]), ("b", &[second])]));
    echo(&mut connect(second), b"the new frontend");
    // The socket moves to another frontend, whose name is new.
    rlb.reload(&text(&[("c", &[first, second])]));
    echo(&mut stream, b"a session of a frontend that is gone");
    for _ in 0..8 {
        echo(&mut connect(first), b"moved");
        echo(&mut connect(second), b"moved");
    }
    // Sockets that were moved have new descriptors in every worker, and the old ones are closed.
    eventually_true(STOP_WITHIN, "sessions of the new frontend", || {
        rlb.csv().row("c", "FRONTEND").number("stot") >= 14
    });
    rlb.reload(&text(&[("c", &[first])]));
    eventually_true(STOP_WITHIN, "the removed address is closed", || {
        TcpStream::connect_timeout(&second, TIMEOUT).is_err()
    });
    echo(&mut stream, b"still there");
    echo(&mut connect(first), b"still served");
    // Back to all addresses, beside the existing one.
    let wildcard = SocketAddr::new("0.0.0.0".parse().expect("an address"), first.port());
    rlb.reload(&text(&[("c", &[wildcard])]));
    for _ in 0..8 {
        echo(&mut connect(first), b"by the wildcard");
    }
    rlb.stop_after(stream);
}

#[test]
fn a_raised_limit_lets_those_in_who_wait() {
    let peer = Peer::start(Behaviour::Echo);
    let config = one_server(&peer, "check = false").frontend("backlog = 100");
    let mut rlb = Rlb::start(&config.clone().frontend("maxconn = 1"));
    let mut first = connect(rlb.address());
    echo(&mut first, b"served");
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| connect(rlb.address())).collect();
    rlb.reload(&config.frontend("maxconn = 10"));
    for stream in &mut waiting {
        echo(stream, b"served too, though nobody left");
    }
    rlb.stop_after((first, waiting));
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_applies() {
    let peer = Peer::start(Behaviour::Echo);
    let mut rlb = Rlb::start(&one_server(&peer, "check = false"));
    let more = one_server(&peer, "check = false").frontend("maxconn = 77");
    let more = more.to_string().replace("threads = 2", "threads = 1");
    rlb.reload(&more);
    assert_eq!(rlb.events().with("needs a restart").len(), 1);
    assert_eq!(rlb.number("FRONTEND", "slim"), 77);
    rlb.reload(&more);
    assert_eq!(
        rlb.events().with("needs a restart").len(),
        2,
        "until there is one"
    );
    rlb.stop();
}

#[test]
fn a_watched_file_is_reloaded_when_it_changes() {
    let peer = Peer::start(Behaviour::Echo);
    let config = one_server(&peer, "check = false").global("watch = true");
    let rlb = Rlb::start(&config);
    for (round, maxconn) in [41, 42].into_iter().enumerate() {
        let changed = config.clone().frontend(&format!("maxconn = {maxconn}"));
        if round == 0 {
            rlb.rewrite(&changed);
        } else {
            std::fs::write(rlb.config_path(), changed.to_string()).expect("written in place");
        }
        eventually_eq(STOP_WITHIN, &maxconn, || rlb.number("FRONTEND", "slim"));
    }
    rlb.rewrite(&config.clone().frontend("maxcon = 1"));
    rlb.events().wait_for("reload refused");
    assert_eq!(rlb.number("FRONTEND", "slim"), 42);
    rlb.stop();
}

/// As Kubernetes mounts a `ConfigMap`: the file is a link through `..data`, which is a link to the directory of
/// one version. Only `..data` is ever replaced.
#[test]
fn a_watched_config_map_is_reloaded_when_its_version_is_swapped() {
    let peer = Peer::start(Behaviour::Echo);
    let config = one_server(&peer, "check = false").global("watch = true");
    let rlb = Rlb::start(&config);
    let path = rlb.config_path();
    let mount = path.parent().expect("in a directory");
    let put = |link: &str, to: &str| {
        let new = mount.join("..new");
        symlink(to, &new).expect("a link");
        std::fs::rename(&new, mount.join(link)).expect("replaced");
    };
    for maxconn in [41, 42, 43] {
        let version = format!("..{maxconn}");
        let text = config.clone().frontend(&format!("maxconn = {maxconn}"));
        std::fs::create_dir(mount.join(&version)).expect("a directory");
        std::fs::write(mount.join(&version).join("rlb.toml"), text.to_string()).expect("written");
        put("..data", &version);
        if maxconn == 41 {
            put("rlb.toml", "..data/rlb.toml");
        }
        eventually_eq(STOP_WITHIN, &maxconn, || rlb.number("FRONTEND", "slim"));
    }
    rlb.stop();
}

#[test]
fn diff_tells_what_a_reload_then_does() {
    let peer = Peer::start(Behaviour::Echo);
    let config = one_server(&peer, "check = false");
    let rlb = Rlb::start(&config);
    let path = rlb.config_path();
    let new = path.with_file_name("new.toml");
    let diff = |text: &Config, more: &[&str]| {
        std::fs::write(&new, text.to_string()).expect("written");
        let (old, new) = (path.to_str(), new.to_str());
        let files = ["diff", "--config"].map(Some).into_iter().chain([old, new]);
        let files = files.map(|it| it.expect("a UTF-8 path"));
        let output = command(&files.chain(more.iter().copied()).collect::<Vec<_>>());
        let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).expect("text"));
        (output.status.code(), said)
    };
    let more = config.clone().server_with(peer.address(), "weight = 2");
    let more = more.frontend("maxconn = 9");
    let (code, [said, _]) = diff(&more, &[]);
    assert_eq!(code, Some(0));
    let change = "~ frontend fe: maxconn none -> 9";
    assert!(
        said.contains(change) && said.contains("+ server be/s2"),
        "{said}"
    );
    let (code, [said, _]) = diff(&more, &["--format", "json"]);
    assert_eq!(code, Some(0));
    let json: serde_json::Value = serde_json::from_str(&said).expect("one JSON object");
    let changes = json["changes"].as_array().expect("a list").iter();
    let names: Vec<_> = changes.map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["fe", "be", "be/s2"].map(Some), "{json:#}");
    let (code, [said, why]) = diff(&config.clone().frontend("maxcon = 9"), &[]);
    assert_eq!((code, said.as_str()), (Some(78), ""));
    assert!(why.contains("maxcon"), "{why}");
    // It was only a dry run.
    assert!(rlb.events().with("reload").is_empty());
    assert!(rlb.csv().find("be", "s2").is_none());
    rlb.stop();
}

#[test]
fn a_reload_that_loses_a_backend_is_taken_back() {
    let peer = Peer::start(Behaviour::Echo);
    let config = |address: SocketAddr| {
        Config::new()
            .global("rollback-window = \"30s\"")
            .backend("check = { interval = \"100ms\" }")
            .server(address)
    };
    let mut rlb = Rlb::start(&config(peer.address()));
    rlb.wait_status("s1", "UP");
    rlb.reload(&config(ports::free()));
    rlb.events().wait_for("rolled back");
    rlb.wait_status("s1", "UP");
    echo(&mut connect(rlb.address()), b"as before");
    rlb.stop();
}

#[test]
fn fifty_reloads_under_load_lose_nothing() {
    let peers: Vec<Peer> = (0..3).map(|_| Peer::start(Behaviour::Echo)).collect();
    let extra = ports::free();
    let config = |round: u32| {
        let mut config = Config::new().backend("check = { interval = \"500ms\" }");
        for (index, peer) in (0..).zip(&peers) {
            // Every other time one of three servers is missing.
            if index != 2 || round.is_multiple_of(2) {
                let weight = 1 + (round + index) % 3;
                config = config.server_with(peer.address(), &format!("weight = {weight}"));
            }
        }
        let mut text = config.to_string();
        if round % 2 == 1 {
            let _ = write!(
                text,
                "[[frontend]]\nname = \"extra-{}\"\nbind = \"{extra}\"\n\
                 default-backend = \"be\"\n",
                round % 4
            );
        }
        text
    };
    let mut rlb = Rlb::start(&config(0));
    let address = rlb.address();
    let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    let load = Load::start(address, 4);
    let (mut memory, start) = (0, Instant::now());
    for round in 1..=50 {
        pace_until(start + Duration::from_millis(100) * round);
        rlb.reload(&config(round));
        if round % 2 == 1 {
            echo(&mut connect(extra), b"the frontend that came");
        }
        for stream in &mut streams {
            echo(stream, format!("round {round}").as_bytes());
        }
        if round == 10 {
            memory = rlb.process.memory_kb("RssAnon");
        }
    }
    let grown = rlb.process.memory_kb("RssAnon").saturating_sub(memory);
    let (served, failures) = load.end();
    eprintln!("{served} served, {grown} kB more between the 10th and the 50th reload");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(served > 500, "{served}");
    assert!(grown <= 2048, "{grown} kB");
    let sessions = rlb.number("FRONTEND", "stot");
    assert_eq!(
        sessions,
        served + 50,
        "every connection is counted, since the start"
    );
    rlb.stop_after(streams);
}

/// Faults 3, 4 and 10: reloads that rename and remove services, and an upgrade at last, cost no client of an
/// address that is listened on throughout, although most clients wait at `maxconn`.
#[test]
fn fault_3_4_10_fifty_reloads_that_rename_and_remove_services_lose_nobody() {
    // Four sessions at a time, of 20 ms each: 200 a second.
    const SESSION: Duration = Duration::from_millis(20);
    let peer = Peer::start(Behaviour::script(|mut stream| {
        let mut word = [0; 5];
        while stream.read_exact(&mut word).is_ok() {
            pace_until(Instant::now() + SESSION);
            if stream.write_all(&word).is_err() {
                return;
            }
        }
    }));
    let (address, extra) = (ports::free(), ports::free());
    let has_extra = |round: u32| round % 4 < 2;
    let config = |round: u32| {
        let mut text = String::from("[global]\nthreads = 2\n[stats]\nbind = [\"127.0.0.1:0\"]\n");
        let mut services = vec![(address, format!("service-{round}"))];
        if has_extra(round) {
            services.insert(0, (extra, format!("extra-{}", round % 8)));
        }
        for (bind, name) in services {
            let keys = format!("bind = \"{bind}\"\nmaxconn = 4\nbacklog = 1024\n");
            let servers = format!(
                "servers = [{{ name = \"s1\", address = \"{}\", check = false }}]\n",
                peer.address()
            );
            let service = if round.is_multiple_of(3) {
                format!(
                    "[[frontend]]\nname = \"{name}\"\n{keys}default-backend = \"of-{name}\"\n\
                     [[backend]]\nname = \"of-{name}\"\n{servers}"
                )
            } else {
                format!("[[listen]]\nname = \"{name}\"\n{keys}{servers}")
            };
            text.push_str(&service);
        }
        text
    };
    let mut rlb = Rlb::start(&config(0));
    let load = Load::start(address, 16);
    let (mut full, start) = (0, Instant::now());
    for round in 1..=50 {
        pace_until(start + Duration::from_millis(100) * round);
        let name = format!("service-{}", round - 1);
        full += u32::from(rlb.csv().row(&name, "FRONTEND").number("scur") >= 4);
        rlb.reload(&config(round));
        if has_extra(round) {
            echo(&mut connect(extra), b"hello");
        }
    }
    rlb.signal(Signal::SIGUSR2);
    let next = Next::of(&rlb);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let took = start.elapsed();
    let (served, failures) = load.end();
    eprintln!("{served} served in {took:?}; before {full} of 50 reloads clients waited");
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(served > 500, "{served}");
    assert!(full > 25, "{full}");
    next.stop();
}

/// The same load, and a stop instead of a reload.
#[test]
fn a_stop_under_load_loses_no_stream() {
    let peers: Vec<Peer> = (0..3).map(|_| Peer::start(Behaviour::Echo)).collect();
    let config = Config::new().global("hard-stop-after = \"60s\"");
    let config = peers.iter().fold(config, |config, peer| {
        config.server_with(peer.address(), "check = false")
    });
    let mut rlb = Rlb::start(&config);
    let address = rlb.address();
    let mut streams: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    let load = Load::start(address, 4);
    let start = Instant::now();
    for round in 1..=30 {
        pace_until(start + Duration::from_millis(100) * round);
        if round == 10 {
            rlb.signal(Signal::SIGTERM);
        }
        for stream in &mut streams {
            echo(stream, format!("round {round}").as_bytes());
        }
    }
    assert!(rlb.process.ended().is_none(), "it waits for its streams");
    drop(streams);
    assert_eq!(rlb.process.wait(STOP_WITHIN).code(), Some(0));
    let (served, failures) = load.end();
    assert!(served > 100, "{served}");
    // Connections that came too late are refused; none was accepted and then lost.
    let lost: Vec<_> = failures
        .iter()
        .filter(|why| !why.contains("refused"))
        .collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn a_reload_gives_back_the_memory_of_what_it_replaced() {
    let config = |weight: u32| {
        let mut config = Config::new();
        for server in 0..4_000 {
            let (high, low) = (server / 250, server % 250);
            let keys = format!("weight = {weight}, check = false");
            config = config.server_with(format!("127.1.{high}.{low}:1"), &keys);
        }
        config
    };
    let mut rlb = Rlb::start(&config(1));
    let before = rlb.process.memory_kb("RssAnon");
    for weight in 2..5 {
        rlb.reload(&config(weight));
    }
    // The changes of thousands of servers do not displace other log lines.
    let events = rlb.events();
    assert_eq!(events.with("reload: ~ server").len(), 3 * 100);
    assert_eq!(events.with("reload: and 3900 more changes").len(), 3);
    // A third more is fragmentation of the allocator; two configurations would be twice as much.
    let most = before + before / 3;
    eventually_true(TIMEOUT, "the memory is given back", || {
        rlb.process.memory_kb("RssAnon") <= most
    });
    rlb.stop();
}
