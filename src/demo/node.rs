//! The nodes: each listens for every service, and the last one goes away and comes back.
//!
//! Invariant: a node that is away has neither a listener nor a connection.

use super::addresses::{self, Addresses, Kind, Listeners, NODES, Service};
use super::{Options, http, postgres};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Connections that one service of one node serves at a time; others are closed.
const SESSIONS_MAX: usize = 1024;
/// Bytes that the echo service reads at a time.
const ECHO_MAX: usize = 4096;
/// Pause after a failed accept (no descriptors), and before a port is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// All nodes, not started yet.
pub(super) struct Nodes {
    services: [Service; 4],
    listeners: Listeners,
}

impl Nodes {
    pub(super) fn new(addresses: &Addresses, listeners: Listeners) -> Self {
        Self {
            services: addresses.services,
            listeners,
        }
    }

    /// Runs all nodes, and stops the last one once per period.
    pub(super) async fn blink(self, options: Options) {
        let Self {
            services,
            listeners,
        } = self;
        let mut nodes = Vec::new();
        for ((name, _), listeners) in NODES.into_iter().zip(listeners) {
            nodes.push(run(name, &services, listeners));
        }
        let Some(mut last) = nodes.pop() else {
            return;
        };
        let (name, address) = NODES[NODES.len() - 1];
        loop {
            tokio::time::sleep(options.there()).await;
            tracing::info!("demo: {name} goes away");
            // Its tasks own its listeners and connections.
            drop(last);
            tokio::time::sleep(options.away()).await;
            let listeners = rebind(address, &services).await;
            tracing::info!("demo: {name} comes back");
            last = run(name, &services, listeners);
        }
    }
}

/// Binds the ports of a node again.
async fn rebind(address: Ipv4Addr, services: &[Service]) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for service in services {
        loop {
            match addresses::bind(address, service.port) {
                Ok(listener) => break listeners.push(listener),
                // Another process has taken it: the node stays away until it is free.
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
    listeners
}

/// Starts a node; dropping the set ends it.
fn run(name: &'static str, services: &[Service], listeners: Vec<TcpListener>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (service, listener) in services.iter().zip(listeners) {
        tasks.spawn_local(accept(name, *service, listener));
    }
    tasks
}

async fn accept(node: &'static str, service: Service, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "demo: {node} cannot listen"),
    };
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if sessions.len() < SESSIONS_MAX => {
                    sessions.spawn_local(serve(node, service, stream));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(RETRY).await,
            },
            Some(_) = sessions.join_next() => {}
        }
    }
}

/// Serves one connection. Errors on it are the client's.
async fn serve(node: &'static str, service: Service, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = match service.kind {
        Kind::Page => http::serve(node, service.name, stream).await,
        Kind::Postgres => postgres::serve(node, stream).await,
        Kind::Echo => echo(stream).await,
    };
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; ECHO_MAX];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
