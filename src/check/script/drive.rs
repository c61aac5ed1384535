//! Runs a check with sockets: does what a [`Run`] says, until it has ended or its time is over.

use super::connection::{Connection, READ_MAX};
use super::tls::{self, TlsContexts};
use super::{Facts, Finding, Order, Phase, Run};
use crate::check::probe::{self, Outcome, ProbeOptions, Refusal, Target};
use crate::check::words;
use crate::config::model::SendProxy;
use crate::config::script::{Connect, Script};
use crate::live::CheckStatus;
use crate::sys::limits;
use std::cell::Cell;
use std::io;
use tokio::time::timeout;

/// What a check is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check<'a> {
    pub(super) script: &'a Script,
    pub(super) facts: &'a Facts,
    pub(super) target: &'a Target,
    /// Its `reset` is none.
    pub(super) options: ProbeOptions<'a>,
    /// Checks end with RST.
    pub(super) reset: bool,
    pub(super) tls: &'a TlsContexts,
}

/// Makes the check.
pub(super) async fn drive(check: Check<'_>) -> Outcome {
    let mut run = Run::new(check.script, check.facts);
    let phase = Cell::new(Phase::Connecting);
    let made = timeout(check.options.limit, steps(&check, &mut run, &phase)).await;
    match made {
        Ok(Ok(finding)) => verdict(finding),
        Ok(Err(error)) => Outcome::Local(error),
        Err(_) => verdict(run.timed_out(phase.get())),
    }
}

fn verdict(finding: Finding) -> Outcome {
    Outcome::Verdict {
        status: finding.status,
        code: finding.code,
        info: finding.info,
    }
}

/// Its steps. An error is local.
async fn steps(check: &Check<'_>, run: &mut Run<'_>, phase: &Cell<Phase>) -> io::Result<Finding> {
    let mut connection: Option<(Connection, bool)> = None;
    let mut buffer = [0; READ_MAX];
    let finding = loop {
        match (run.order(), &mut connection) {
            (Order::Done(finding), _) => break finding,
            (Order::Connect(connect), last) => {
                if let Some((last, by_reset)) = last.take() {
                    last.end(by_reset);
                }
                phase.set(Phase::Connecting);
                match connected(check, connect, phase).await? {
                    Ok(made) => *last = Some((made, check.reset && !connect.linger)),
                    Err((status, said)) => break run.not_connected(status, &said),
                }
                phase.set(Phase::Connected);
            }
            (Order::Send(bytes), Some((connection, _))) => {
                if let Err(error) = connection.send(&bytes).await
                    && let Some(finding) = run.failed(&judged(error)?)
                {
                    break finding;
                }
            }
            (Order::Receive(most), Some((connection, _))) => {
                let room = most.min(READ_MAX);
                match connection.receive(&mut buffer[..room]).await {
                    Ok(0) => run.ended(),
                    Ok(length) => run.received(&buffer[..length]),
                    Err(error) => {
                        if let Some(finding) = run.failed(&judged(error)?) {
                            break finding;
                        }
                    }
                }
            }
            (Order::Send(_) | Order::Receive(_), None) => {
                return Err(io::Error::other("a check sends before it has connected"));
            }
        }
    };
    if let Some((mut last, by_reset)) = connection {
        if finding.status.has_passed()
            && let Some(bytes) = run.farewell()
        {
            // The check has passed already.
            let _ = last.send(bytes).await;
        }
        last.end(by_reset);
    }
    Ok(finding)
}

/// The error, if it is not a local one.
fn judged(error: io::Error) -> io::Result<io::Error> {
    if limits::is_local(&error) {
        Err(error)
    } else {
        Ok(error)
    }
}

/// Connects for this step. The outer error is local, the inner one is HAProxy's status and words.
async fn connected(
    check: &Check<'_>,
    step: &Connect,
    phase: &Cell<Phase>,
) -> io::Result<Result<Connection, (CheckStatus, String)>> {
    let target = match (check.target, step.address, step.port) {
        (Target::Tcp(address), ip, port) => {
            let ip = ip.unwrap_or(address.ip());
            Target::Tcp((ip, port.unwrap_or(address.port())).into())
        }
        (Target::NoPort(address), ip, Some(port)) => {
            Target::Tcp((ip.unwrap_or(*address), port).into())
        }
        (Target::Unix(_), Some(ip), Some(port)) => Target::Tcp((ip, port).into()),
        (other, ..) => other.clone(),
    };
    let header = if step.send_proxy {
        if check.script.proxy_v2 {
            SendProxy::V2
        } else {
            SendProxy::V1
        }
    } else if step.default {
        check.options.header
    } else {
        SendProxy::Off
    };
    let socket = match probe::connection(&target, check.options).await? {
        Ok(socket) => socket,
        Err(Refusal { status, said }) => return Ok(Err((status, said))),
    };
    let bytes = probe::header(&socket, header);
    let mut connection = Connection::new(socket, &target)?;
    if !bytes.is_empty()
        && let Err(error) = connection.send(&bytes).await
    {
        let error = judged(error)?;
        return Ok(Err((CheckStatus::SocketError, words::of_error(&error))));
    }
    if check.script.speaks_tls(step) {
        phase.set(Phase::Handshake);
        let session = check.tls.begin(check.script, step, check.facts)?;
        if let Err(error) = connection.secure(session).await {
            let error = judged(error)?;
            let has_sni = tls::sni(check.script, step, check.facts).is_some();
            let said = tls::words(&error, has_sni).to_owned();
            connection.end(check.reset);
            return Ok(Err((CheckStatus::L6Response, said)));
        }
    }
    Ok(Ok(connection))
}
