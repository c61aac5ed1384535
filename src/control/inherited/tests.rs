//! Which sockets belong to a bind, how many there are afterwards, and what the store is told.

use super::*;
use crate::config::{Limits, Loader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// A frontend that listens on `bind`.
fn config(bind: &str) -> Config {
    let text = format!(
        "[[frontend]]\nname = \"fe\"\nbind = [{bind}]\ndefault-backend = \"be\"\n\
         [[backend]]\nname = \"be\"\nservers = [{{ name = \"s\", address = \"127.0.0.1:1\" }}]\n"
    );
    let loader = Loader {
        limits: Limits::unknown(),
        environment: &|_| None,
        disk: false,
    };
    loader.load_text("test", &text).expect("valid").0
}

fn options(bind: &Bind) -> Options {
    Options {
        address: match &bind.address {
            BindAddress::Tcp(address) => Address::Tcp(*address),
            BindAddress::Unix(path) => Address::Unix(path.clone()),
            BindAddress::Descriptor(number) => Address::Descriptor(*number),
        },
        backlog: 16,
        v6only: bind.v6only,
        interface: None,
        freebind: false,
        tcp: socket::TcpOptions::default(),
        namespace: None,
        mptcp: false,
        mode: None,
        owner: (None, None),
        keepalive: None,
        listens: true,
        join: false,
    }
}

/// Some shards of a port of the kernel's choice, as another process would have left them.
fn shards(count: usize) -> (SocketAddr, Vec<PassedSocket>) {
    let mut any = options(&config("\"127.0.0.1:1\"").frontends[0].binds[0]);
    any.address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let sockets = socket::listen(&any, count).unwrap();
    let address = sockets[0].local_addr().unwrap().as_socket().unwrap();
    let received = sockets.into_iter().map(|socket| PassedSocket {
        name: "left".to_owned(),
        socket,
    });
    (address, received.collect())
}

/// Whether `socket` listens where and as `bind` says.
fn belongs(socket: &Socket, bind: &Bind) -> bool {
    let address = ListenAddress::of(socket, true);
    address.is_some() && address == ListenAddress::of_bind(bind) && fits(socket, bind)
}

struct Manager {
    socket: UnixDatagram,
    _dir: tempfile::TempDir,
    client: ServiceManager,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            _dir: dir,
            client: ServiceManager::at(path).unwrap(),
        }
    }

    /// What it was told so far, a message an entry.
    fn told(&self) -> Vec<String> {
        assert!(self.client.flush(Duration::from_secs(10)));
        let mut text = [0; 512];
        std::iter::from_fn(|| {
            self.socket
                .recv(&mut text)
                .ok()
                .map(|length| (length, text))
        })
        .map(|(length, text)| String::from_utf8_lossy(&text[..length]).into_owned())
        .collect()
    }
}

fn listen(inherited: &mut Inherited, config: &Config, count: usize) -> Vec<Socket> {
    let bind = &config.frontends[0].binds[0];
    inherited.listen(bind, &options(bind), count).unwrap()
}

#[test]
fn what_was_passed_is_used_and_what_waits_in_it_is_kept() {
    for (passed, workers) in [(1, 3), (2, 2), (3, 1)] {
        let (address, received) = shards(passed);
        let clients: Vec<_> = (0..8)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let config = config(&format!("\"{address}\""));
        let mut inherited = Inherited::sort(received, &config, ServiceManager::none());
        let sockets = listen(&mut inherited, &config, workers);
        assert_eq!(sockets.len(), passed.max(workers));
        let waiting: usize = sockets
            .iter()
            .map(|socket| std::iter::from_fn(|| socket::accept(socket).ok()).count())
            .sum();
        assert_eq!(
            waiting,
            clients.len(),
            "{passed} sockets, {workers} workers"
        );
    }
}

#[test]
fn only_what_we_have_opened_is_stored_under_the_name_of_its_address() {
    let manager = Manager::new();
    let (address, received) = shards(2);
    let config = config(&format!("\"{address}\""));
    let mut inherited = Inherited::sort(received, &config, manager.client.clone());
    let _sockets = listen(&mut inherited, &config, 3);
    inherited.store();
    let name = format!("tcp-127.0.0.1_{}", address.port());
    assert_eq!(
        manager.told(),
        [format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0")]
    );

    let any = self::config("\"127.0.0.1:0\"");
    let mut inherited = Inherited::sort(Vec::new(), &any, manager.client.clone());
    let _sockets = listen(&mut inherited, &any, 2);
    inherited.store();
    assert_eq!(manager.told(), Vec::<String>::new(), "a port of the day");
}

#[test]
fn what_is_configured_no_more_is_closed_before_anything_is_opened() {
    let manager = Manager::new();
    let (address, received) = shards(2);
    let elsewhere = config("\"127.0.0.1:1\"");
    let mut inherited = Inherited::sort(received, &elsewhere, manager.client.clone());
    inherited.forget();
    assert!(inherited.sockets.is_empty());
    assert!(TcpListener::bind(address).is_ok(), "the port is free");
    assert_eq!(manager.told(), ["FDSTOREREMOVE=1\nFDNAME=left"]);
}

#[test]
fn a_socket_that_listens_otherwise_does_not_belong() {
    let v6: SocketAddr = "[::]:0".parse().unwrap();
    let listener = TcpListener::bind(v6).unwrap();
    let address = listener.local_addr().unwrap();
    let only = format!("{{ address = \"{address}\", v6only = true }}");
    let both = format!("{{ address = \"{address}\", v6only = false }}");
    let socket = Socket::from(listener);
    let bind = |text: &str| config(text).frontends[0].binds[0].clone();
    assert!(belongs(&socket, &bind(&both)));
    assert!(belongs(&socket, &bind(&format!("\"{address}\""))));
    assert!(!belongs(&socket, &bind(&only)));
    let mptcp = format!("{{ address = \"{address}\", mptcp = true }}");
    assert!(!belongs(&socket, &bind(&mptcp)), "it speaks TCP alone");

    let unbound = Socket::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let there = unbound.local_addr().unwrap().as_socket().unwrap();
    assert!(!belongs(&unbound, &bind(&format!("\"{there}\""))), "UDP");
}

#[test]
fn a_unix_socket_belongs_as_long_as_its_file_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let bind_to = |path: &Path| {
        let text = format!("\"unix:{}\"", path.display());
        config(&text).frontends[0].binds[0].clone()
    };
    let bind = bind_to(&path);
    let socket = socket::listen(&options(&bind), 1).unwrap().remove(0);
    assert!(belongs(&socket, &bind));
    assert!(!belongs(&socket, &bind_to(&dir.path().join("t"))));
    std::fs::remove_file(&path).unwrap();
    assert!(!belongs(&socket, &bind));
}

#[test]
fn abstract_names_are_told_apart() {
    let named = |name: &str| {
        config(&format!("\"unix:@rlb-{}-{name}\"", std::process::id())).frontends[0].binds[0]
            .clone()
    };
    let (one, other) = (named("one"), named("other"));
    let socket = socket::listen(&options(&one), 1).unwrap().remove(0);
    assert!(belongs(&socket, &one));
    assert!(!belongs(&socket, &other));
}

/// Fault 34: a file that stands where a unix socket was is not that socket.
#[test]
fn a_unix_socket_does_not_belong_when_another_file_has_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let bind = config(&format!("\"unix:{}\"", path.display())).frontends[0].binds[0].clone();
    let socket = socket::listen(&options(&bind), 1).unwrap().remove(0);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(!belongs(&socket, &bind));
}

/// Fault 10: a connection that waits in a socket of the new process alone is lost when the old one stays
/// in charge.
#[test]
fn while_the_process_before_is_in_charge_its_sockets_are_shared_and_not_joined() {
    let (address, received) = shards(1);
    let first = received[0].socket.try_clone().unwrap();
    let config = config(&format!("\"{address}\""));
    let mut inherited = Inherited::sort(received, &config, ServiceManager::none());
    inherited.shared = true;
    let sockets = listen(&mut inherited, &config, 3);
    assert_eq!(sockets.len(), 3);
    let clients: Vec<_> = (0..16)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    drop(sockets);
    let waiting = std::iter::from_fn(|| socket::accept(&first).ok()).count();
    assert_eq!(waiting, clients.len(), "all wait in the old one's socket");
}

/// The socket of a disabled frontend was closed as one that is not configured, and another was bound beside it.
#[test]
fn a_socket_that_does_not_listen_for_a_while_is_taken_over_as_it_is() {
    let (address, received) = shards(1);
    let first = received[0].socket.try_clone().unwrap();
    socket::suspend(&first).unwrap();
    let config = config(&format!("\"{address}\""));
    let mut inherited = Inherited::sort(received, &config, ServiceManager::none());
    inherited.shared = true;
    assert_eq!(inherited.unused(), Some(&[][..]));
    let sockets = listen(&mut inherited, &config, 2);
    assert!(
        !first.is_listener().unwrap(),
        "the old process is in charge"
    );
    socket::resume(&sockets[1], 16).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    assert!(socket::accept(&first).is_ok(), "it is the same socket");

    // After a crash nobody knows that its frontend was disabled.
    socket::suspend(&first).unwrap();
    let passed = PassedSocket {
        name: "left".to_owned(),
        socket: first.try_clone().unwrap(),
    };
    let mut inherited = Inherited::sort(vec![passed], &config, ServiceManager::none());
    let _sockets = listen(&mut inherited, &config, 1);
    assert!(first.is_listener().unwrap());

    // Nobody else has the duplicate of another program's: it may be any socket.
    let connected = Socket::from(TcpStream::connect(address).unwrap());
    assert_eq!(ListenAddress::of(&connected, true), None);
    socket::suspend(&first).unwrap();
    assert_eq!(ListenAddress::of(&first, false), None);
}
