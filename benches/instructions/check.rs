//! The check task of one server that is up, with sockets of this machine: what a health check costs when
//! nothing changes. The guard runs it in its own process.

use rlb::check::probe::Target;
use rlb::check::schedule::IntervalKind;
use rlb::check::task::{self, CheckContext, CheckHandle, CheckParts, CheckedServer};
use rlb::config::model::{Check, CheckKind, SendProxy};
use rlb::live::{CheckReport, CheckStatus, GlobalLive, ServerLive, WorkerToken};
use rlb::state::{BackendId, ControlHandle};
use rlb::sys::limits::DescriptorReserve;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::{LocalSet, yield_now};
use tokio_util::sync::CancellationToken;

/// Interval of the periodic checks: none runs while the requested checks are counted.
const HOUR: Duration = Duration::from_secs(3_600);

/// Checks a server `times` times, at control's request, with sockets that end by RST.
///
/// # Errors
/// Those of the sockets; when a check has not passed, or control was told of one.
pub(crate) fn run(times: u64) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let handle = CheckHandle::new(
        IntervalKind::Normal,
        Some(Target::Tcp(listener.local_addr()?)),
    );
    let live = Arc::new(ServerLive::new(&Arc::default(), 2));
    let known = CheckReport {
        status: CheckStatus::L4Ok,
        duration: Some(HOUR),
        ..CheckReport::default()
    };
    live.check.store(known.clone());
    let (control, mut inbox) = ControlHandle::new();
    let context = CheckContext::new(CheckParts {
        control,
        reserve: Arc::new(DescriptorReserve::new()?),
        global: Arc::new(GlobalLive::new(Instant::now(), 2)),
        token: Rc::new(WorkerToken::new(1)),
        snapshot: None,
    });
    context.set_reset(true);
    let server = CheckedServer {
        backend: BackendId::first(0),
        backend_name: "b".into(),
        name: "s1".into(),
        live: Arc::clone(&live),
        check: check(),
        source: None,
        socket: None,
        handle: Rc::clone(&handle),
    };
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let first = Instant::now() + HOUR;
        let checks = tokio::task::spawn_local(task::run(server, context, first, stop.clone()));
        for _ in 0..times {
            live.check.store(known.clone());
            handle.check_now();
            while live.check.load().duration == known.duration {
                if inbox.try_recv().is_ok() {
                    return Err(io::Error::other("control was told of what is no news"));
                }
                yield_now().await;
            }
        }
        stop.cancel();
        checks.await.map_err(io::Error::other)
    })
}

fn check() -> Check {
    Check {
        kind: Some(CheckKind::Tcp),
        interval: HOUR,
        fast_interval: HOUR,
        down_interval: HOUR,
        rise: 2,
        fall: 3,
        timeout: Duration::from_secs(1),
        port: None,
        address: None,
        header: SendProxy::Off,
        script: None,
    }
}
