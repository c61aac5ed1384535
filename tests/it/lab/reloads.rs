//! Reloads under load, and their effect on new connections, long streams, the memory of the machine, and the
//! state of a server that is DOWN. The same for rlb and for HAProxy.

use super::balancer::{BACKENDS, Kind, frontend, states, wait_states};
use super::load::{Load, Outcome, Report, visit};
use super::reloadable::{EXTRA_FRONTEND, EXTRA_SERVER, Reloadable, has_extras};
use super::scenarios::three_servers;
use super::services::{APP, scripted};
use super::streams::{Streamed, Streams, echo_server};
use crate::harness::eventually::pace_until;
use crate::harness::netns::Lab;
use crate::harness::peer::{Behaviour, Peer};
use crate::harness::process::Footprint;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// New connections a second.
const RATE: u32 = 200;

/// Long streams.
pub(crate) const STREAMS: usize = 50;

/// Time between two reloads.
const EVERY: Duration = Duration::from_millis(500);

/// Load before the first reload.
const BEFORE: Duration = Duration::from_secs(2);

/// Load after the last reload: longer than checks need to detect a node without power.
const AFTER: Duration = Duration::from_secs(5);

/// From this reload on memory may not grow any more.
const SETTLED: u32 = 10;

/// The answer of the server that is added and removed.
const EXTRA: &str = "extra\n";

/// Options of the reloads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReloadOptions {
    /// Number of reloads.
    pub(crate) reloads: u32,
    /// Whether a node is switched off and DOWN.
    pub(crate) dark: bool,
    /// How long a client waits before it gives up.
    pub(crate) timeout: Duration,
}

/// The results.
pub(crate) struct Reloads {
    /// The clients, from the first reload on.
    pub(crate) clients: Report,
    /// Clients of the additional frontend while it existed: served, failed.
    pub(crate) at_extra_frontend: (usize, usize),
    /// Answers of the additional server.
    pub(crate) by_extra_server: usize,
    /// The long streams.
    pub(crate) streams: Streamed,
    /// Reloads after which the node without power was UP.
    pub(crate) forgotten: u32,
    /// After the tenth reload.
    pub(crate) settled: Footprint,
    /// After the last one.
    pub(crate) last: Footprint,
}

impl Reloads {
    /// Connections without an answer, at any frontend and any time.
    pub(crate) fn failed(&self) -> usize {
        self.clients.failed + self.clients.failed_before + self.at_extra_frontend.1
    }
}

impl std::fmt::Display for Reloads {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (served, failed) = self.at_extra_frontend;
        writeln!(out, "{}", self.clients)?;
        writeln!(
            out,
            "  the frontend that comes and goes: {served} served, {failed} failed; \
             {} answers of the server that does",
            self.by_extra_server
        )?;
        writeln!(
            out,
            "  streams: {} of {:?} broken in {} messages each {:?}",
            self.streams.broken.len(),
            self.streams.held_by,
            self.streams.messages,
            self.streams.broken.first()
        )?;
        write!(
            out,
            "  the dark node was UP after {} reloads; {} then {}",
            self.forgotten, self.settled, self.last
        )
    }
}

/// Reloads twice a second under [`RATE`] new connections a second and [`STREAMS`] long streams. Each changes
/// the weight of a server, and either adds a frontend and a server and removes another, or the reverse.
pub(crate) fn reloads(kind: Kind, options: ReloadOptions) -> Reloads {
    let (mut lab, mut services) = three_servers();
    let mut peers: Vec<_> = (0..3).map(|node| Some(echo_server(&lab, node))).collect();
    let _extra = extra_server(&lab);
    let mut balancer = Reloadable::start(kind, &lab);
    let wait = |lab: &Lab, node01| {
        for (backend, _) in [BACKENDS[0], BACKENDS[2]] {
            wait_states(lab, backend, [node01, "UP", "UP"]);
        }
    };
    wait(&lab, "UP");
    if options.dark {
        lab.power_off(0);
        drop((services[0].take(), peers[0].take()));
        wait(&lab, "DOWN");
    }
    let streams = Streams::start(&lab, STREAMS);
    let load = Load::start(
        &lab.client,
        frontend(APP),
        kind.clients(RATE, options.timeout),
    );
    pace_until(Instant::now() + BEFORE);
    let fault = Instant::now();
    let (mut forgotten, mut settled, mut visits) = (0, balancer.footprint(), Vec::new());
    for round in 1..=options.reloads {
        pace_until(fault + EVERY * (round - 1));
        balancer.reload(round);
        if has_extras(round) {
            visits.push(visit(
                &lab.client,
                frontend(EXTRA_FRONTEND),
                options.timeout,
            ));
        }
        let state = &states(&lab, BACKENDS[0].0)[0];
        forgotten += u32::from(options.dark && state != "DOWN");
        if round == SETTLED {
            settled = balancer.footprint();
        }
    }
    let last = balancer.footprint();
    pace_until(Instant::now() + AFTER);
    let streams = streams.finish();
    let outcomes = load.finish();
    let visits = visits.into_iter().map(|it| it.join().expect("a visit"));
    let (served, failed): (Vec<_>, Vec<_>) = visits.partition(|it| it.answer.is_ok());
    balancer.stop();
    Reloads {
        clients: Report::of(&outcomes, fault),
        at_extra_frontend: (served.len(), failed.len()),
        by_extra_server: outcomes.iter().filter(|it| is_extras(it)).count(),
        streams,
        forgotten,
        settled,
        last,
    }
}

fn is_extras(outcome: &Outcome) -> bool {
    outcome.answer.as_deref() == Ok(EXTRA)
}

/// Reads a request to its end, answers, ends.
fn extra_server(lab: &Lab) -> Peer {
    let answer = Behaviour::script(|mut stream| {
        let mut request = Vec::new();
        let mut buffer = [0; 256];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 => request.extend_from_slice(&buffer[..length]),
                _ => return,
            }
        }
        drop(stream.write_all(EXTRA.as_bytes()));
    });
    scripted(lab, 2, EXTRA_SERVER, answer)
}
