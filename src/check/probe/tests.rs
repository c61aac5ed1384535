//! Probes of real sockets on loopback that accept, refuse, do not answer, or are full.

use super::*;
use crate::state::test_config::{check, server};
use std::net::{Ipv4Addr, TcpListener};

const LIMIT: Duration = Duration::from_secs(5);

async fn ask(target: Target, limit: Duration, reset: bool) -> (CheckStatus, String) {
    let idle = IdleSockets::default();
    ask_with(target, limit, reset.then_some(&idle)).await
}

async fn ask_with(
    target: Target,
    limit: Duration,
    reset: Option<&IdleSockets>,
) -> (CheckStatus, String) {
    ask_as(Some(CheckKind::Tcp), target, limit, reset).await
}

async fn ask_as(
    kind: Option<CheckKind>,
    target: Target,
    limit: Duration,
    reset: Option<&IdleSockets>,
) -> (CheckStatus, String) {
    let reserve = DescriptorReserve::new().unwrap();
    let options = ProbeOptions {
        reserve: &reserve,
        reset,
        limit,
        own: None,
        kind,
        header: SendProxy::Off,
    };
    match probe(&target, options).await {
        Outcome::Verdict { status, info, .. } => (status, info),
        Outcome::Local(error) => panic!("a shortage in a test: {error}"),
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A listener whose accept queue is full: it does not answer any more.
fn deaf() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fillers = (0..4)
        .map(|_| {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&address);
            filler
        })
        .collect();
    (listener, fillers, address.as_socket().unwrap())
}

#[tokio::test]
async fn a_listener_passes() {
    let (_listener, address) = listener();
    let answer = ask(Target::Tcp(address), LIMIT, false).await;
    assert_eq!(answer, (CheckStatus::L4Ok, String::new()));
}

#[tokio::test]
async fn a_closed_port_is_refused_in_haproxys_words() {
    let (listener, address) = listener();
    drop(listener);
    let (status, info) = ask(Target::Tcp(address), LIMIT, false).await;
    assert_eq!(status, CheckStatus::L4Con);
    assert_eq!(
        info,
        "ECONNREFUSED returned by OS (Connection refused) at initial connection step of tcp-check"
    );
}

/// Fault 49: the words of `option tcp-check` are there where the configuration has it.
#[tokio::test]
async fn fault_49_a_check_alone_has_no_words_of_tcp_check() {
    let (listener, address) = listener();
    drop(listener);
    let refused = ask_as(None, Target::Tcp(address), LIMIT, None).await;
    let text = "ECONNREFUSED returned by OS (Connection refused)";
    assert_eq!(refused, (CheckStatus::L4Con, text.into()));
    let (_listener, _fillers, address) = deaf();
    let silent = ask_as(None, Target::Tcp(address), Duration::from_millis(100), None).await;
    assert_eq!(silent, (CheckStatus::L4Timeout, String::new()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let refused = ask_as(None, Target::Unix(path), LIMIT, None).await;
    let text = "General socket error (Connection refused)";
    assert_eq!(refused, (CheckStatus::SocketError, text.into()));
}

#[tokio::test]
async fn silence_times_out_with_the_words_of_haproxy() {
    let (_listener, _fillers, address) = deaf();
    let (status, info) = ask(Target::Tcp(address), Duration::from_millis(100), false).await;
    assert_eq!(status, CheckStatus::L4Timeout);
    assert_eq!(info, " at initial connection step of tcp-check");
}

#[tokio::test]
async fn a_check_that_ends_with_fin_reaches_the_accept_queue() {
    use std::io::Read;
    let (listener, address) = listener();
    ask(Target::Tcp(address), LIMIT, false).await;
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}

#[tokio::test]
async fn a_check_that_ends_with_rst_does_not_reach_the_accept_queue() {
    let (listener, address) = listener();
    let answer = ask(Target::Tcp(address), LIMIT, true).await;
    assert_eq!(answer.0, CheckStatus::L4Ok);
    // The next connection is the first in the queue.
    let next = std::net::TcpStream::connect(address).unwrap();
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer, next.local_addr().unwrap());
}

#[tokio::test]
async fn a_socket_that_was_reset_serves_the_next_check_whatever_that_finds() {
    use std::net::Ipv6Addr;
    use std::os::fd::AsRawFd;
    let (_up, up) = listener();
    let up_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let (closed, down) = listener();
    drop(closed);
    let idle = IdleSockets::default();
    let ask = async |address| ask_with(Target::Tcp(address), LIMIT, Some(&idle)).await.0;
    let kept = |of: &RefCell<Vec<Socket>>| -> Vec<_> {
        of.borrow().iter().map(AsRawFd::as_raw_fd).collect()
    };
    assert_eq!(ask(up).await, CheckStatus::L4Ok);
    let first = kept(&idle.v4);
    assert_eq!(first.len(), 1);
    for _ in 0..100 {
        assert_eq!(ask(up).await, CheckStatus::L4Ok);
        assert_eq!(kept(&idle.v4), first, "the same socket");
    }
    let v6 = up_v6.local_addr().unwrap();
    assert_eq!(ask(v6).await, CheckStatus::L4Ok);
    assert_eq!((kept(&idle.v4), kept(&idle.v6).len()), (first, 1));
    assert_eq!(ask(down).await, CheckStatus::L4Con);
    assert!(
        kept(&idle.v4).is_empty(),
        "only one that was connected is kept"
    );
    assert_eq!(ask(up).await, CheckStatus::L4Ok);
}

#[tokio::test]
async fn an_answer_that_comes_later_is_waited_for() {
    comes_later(None).await;
}

#[tokio::test]
async fn a_socket_that_was_reset_waits_as_a_new_one() {
    let (_listener, address) = listener();
    let idle = IdleSockets::default();
    ask_with(Target::Tcp(address), LIMIT, Some(&idle)).await;
    assert_eq!(idle.v4.borrow().len(), 1);
    comes_later(Some(&idle)).await;
    let (_listener, _fillers, address) = deaf();
    let limit = Duration::from_millis(100);
    let answer = ask_with(Target::Tcp(address), limit, Some(&idle)).await;
    assert_eq!(answer.0, CheckStatus::L4Timeout);
    assert!(
        idle.v4.borrow().is_empty(),
        "the one that was not answered is closed"
    );
}

/// An answer that is there already costs no wait in the runtime.
#[tokio::test]
async fn the_answer_of_this_machine_is_there_at_once() {
    let (_listener, address) = listener();
    let mut at_once = 0;
    for _ in 0..20 {
        tokio::select! {
            biased;
            answer = ask(Target::Tcp(address), LIMIT, true) => {
                assert_eq!(answer.0, CheckStatus::L4Ok);
                at_once += 1;
            }
            () = std::future::ready(()) => {}
        }
    }
    // A busy kernel may delay its network work sometimes.
    assert!(at_once >= 10, "{at_once} of 20");
}

/// A probe of a server that does not answer when it begins, and then does.
async fn comes_later(reset: Option<&IdleSockets>) {
    let (listener, _fillers, address) = deaf();
    listener.set_nonblocking(true).unwrap();
    let begun = std::time::Instant::now();
    // The queue is full when the probe begins. Then it is emptied, and the kernel answers the repeated SYN a
    // second later.
    let answer = tokio::select! {
        biased;
        answer = ask_with(Target::Tcp(address), LIMIT, reset) => answer,
        () = async {
            loop {
                let _ = listener.accept();
                tokio::task::yield_now().await;
            }
        } => unreachable!("it goes on"),
    };
    assert_eq!(answer, (CheckStatus::L4Ok, String::new()));
    assert!(
        begun.elapsed() > Duration::from_millis(500),
        "it had to wait"
    );
}

#[tokio::test]
async fn a_check_never_passes_by_connecting_to_itself() {
    // Binds the target's port as the source port, which the kernel does by chance.
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let answer = join(&socket, address).await.unwrap();
    let error = answer.unwrap_err().expect("an error of the system");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
}

#[tokio::test]
async fn unix_sockets_are_checked_by_path_and_by_name() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let missing = ask(Target::Unix(path.clone()), LIMIT, false).await;
    assert_eq!(missing.0, CheckStatus::SocketError);
    assert_eq!(
        missing.1,
        "General socket error (No such file or directory) at initial connection step of tcp-check"
    );
    let _listener = UnixListener::bind(&path).unwrap();
    assert_eq!(
        ask(Target::Unix(path), LIMIT, false).await.0,
        CheckStatus::L4Ok
    );
    let name = format!("rlb-test-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let target = Target::Unix(format!("@{name}").into());
    assert_eq!(ask(target, LIMIT, false).await.0, CheckStatus::L4Ok);
}

#[tokio::test]
async fn a_full_unix_queue_is_no_answer_and_not_a_local_shortage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    socket.listen(0).unwrap();
    let _filler = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let answer = ask(Target::Unix(path), Duration::from_millis(100), false).await;
    assert_eq!(answer.0, CheckStatus::L4Timeout);
}

#[test]
fn the_check_s_own_address_and_port_come_first() {
    let ip = |last| std::net::IpAddr::from([10, 0, 0, last]);
    let of = |port: Option<u16>, address, endpoint: &Endpoint| {
        let mut spec = server("s");
        spec.check = Some(crate::config::model::Check {
            port,
            address,
            ..check()
        });
        Target::of(&spec, endpoint)
    };
    let fixed = Endpoint::Ip(ip(1), ServerPort::Fixed(80));
    let from_client = Endpoint::Ip(ip(1), ServerPort::FromClient(0));
    let unix = Endpoint::Unix("/s".into());
    let tcp = |last, port| Target::Tcp((ip(last), port).into());
    assert_eq!(of(None, None, &fixed), tcp(1, 80));
    assert_eq!(of(Some(81), None, &fixed), tcp(1, 81));
    assert_eq!(of(None, Some(ip(2)), &fixed), tcp(2, 80));
    assert_eq!(of(Some(81), Some(ip(2)), &from_client), tcp(2, 81));
    assert_eq!(of(None, None, &from_client), Target::NoPort(ip(1)));
    assert_eq!(of(None, None, &unix), Target::Unix("/s".into()));
    assert_eq!(of(Some(81), Some(ip(2)), &unix), tcp(2, 81));
}

#[test]
fn errors_in_haproxys_words() {
    let target = Target::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
    let said = |code| {
        let error = io::Error::from_raw_os_error(code);
        blame(&target, &error)
    };
    let unreachable = "ENETUNREACH returned by OS (No route to host)".to_owned();
    assert_eq!(said(libc::EHOSTUNREACH), (CheckStatus::L4Con, unreachable));
    let other = "General socket error (Connection timed out)".to_owned();
    assert_eq!(said(libc::ETIMEDOUT), (CheckStatus::L4Con, other));
}

#[test]
fn a_check_asks_where_the_traffic_goes_unless_it_names_another_address_or_port() {
    let of = |change: fn(&mut crate::config::model::Check)| {
        let mut spec = crate::state::test_config::server("s1");
        change(spec.check.as_mut().unwrap());
        Target::is_of_traffic(&spec)
    };
    assert!(of(|_| {}));
    assert!(of(|check| check.port = Some(9)), "its own");
    assert!(!of(|check| check.port = Some(10)));
    assert!(of(|check| check.address = Some([127, 0, 0, 1].into())));
    assert!(!of(|check| check.address = Some([127, 0, 0, 2].into())));
}
