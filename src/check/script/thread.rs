//! The thread of the checks that ask more than a connection, so that thousands of them delay neither a TCP check nor the
//! control task. It begins with the first such check and ends with the last [`ScriptThread`].
//!
//! The task of a server still decides when its check begins and reports it; it hands over a [`Job`] and waits for the
//! outcome. When it does not wait any longer, the check ends without one.

use super::Facts;
use super::drive::{self, Check};
use super::tls::TlsContexts;
use crate::check::probe::{CheckOptions, Outcome, ProbeOptions, Target};
use crate::config::model::{SendProxy, ServerSocket, Source};
use crate::config::script::Script;
use crate::live::{GlobalLive, ServerLive};
use crate::sys::limits::DescriptorReserve;
use std::borrow::Cow;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{LocalSet, spawn_local};

/// Most checks that wait until the thread begins them. Their time runs from then on.
const JOBS_MAX: usize = 4096;

/// One check.
#[derive(Debug)]
pub(in crate::check) struct Job {
    pub(in crate::check) script: Arc<Script>,
    pub(in crate::check) facts: Facts,
    pub(in crate::check) target: Target,
    pub(in crate::check) limit: Duration,
    pub(in crate::check) header: SendProxy,
    /// It ends with RST.
    pub(in crate::check) reset: bool,
    pub(in crate::check) source: Option<Source>,
    pub(in crate::check) socket: Option<Arc<ServerSocket>>,
    pub(in crate::check) global: Arc<GlobalLive>,
    pub(in crate::check) live: Arc<ServerLive>,
    pub(in crate::check) reserve: Arc<DescriptorReserve>,
}

impl Job {
    async fn run(&self, tls: &TlsContexts) -> Outcome {
        let own = CheckOptions {
            source: self.source.as_ref(),
            socket: self.socket.as_deref(),
            global: &self.global,
            live: &self.live,
            names: (&self.facts.backend, &self.facts.server),
        };
        // It is read here, because the thread may wait for a file.
        let token = self
            .script
            .kube
            .as_ref()
            .and_then(|kube| kube.token_file.as_ref());
        let facts = match token.map(|path| tls.token(path)) {
            None => Cow::Borrowed(&self.facts),
            Some(Ok(token)) => Cow::Owned(Facts {
                token: Some(token),
                ..self.facts.clone()
            }),
            Some(Err(error)) => return Outcome::Local(error),
        };
        let has_own = self.source.is_some() || self.socket.is_some();
        let options = ProbeOptions {
            reserve: &self.reserve,
            reset: None,
            limit: self.limit,
            own: has_own.then_some(&own),
            kind: None,
            header: self.header,
        };
        drive::drive(Check {
            script: &self.script,
            facts: &facts,
            target: &self.target,
            options,
            reset: self.reset,
            tls,
        })
        .await
    }
}

/// The way to the thread.
#[derive(Debug)]
pub(in crate::check) struct ScriptThread(mpsc::Sender<(Job, oneshot::Sender<Outcome>)>);

impl ScriptThread {
    /// Begins it.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub(in crate::check) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        thread::Builder::new()
            .name("checks".to_owned())
            .spawn(move || LocalSet::new().block_on(&runtime, serve(receiver)))?;
        Ok(Self(sender))
    }

    /// The outcome of a check.
    pub(in crate::check) async fn check(&self, job: Job) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        if self.0.send((job, reply)).await.is_err() {
            return gone();
        }
        outcome.await.unwrap_or_else(|_| gone())
    }
}

fn gone() -> Outcome {
    Outcome::Local(io::Error::other(
        "the check has ended with an error of rlb's",
    ))
}

async fn serve(mut receiver: mpsc::Receiver<(Job, oneshot::Sender<Outcome>)>) {
    let tls = Rc::new(TlsContexts::default());
    while let Some((job, mut reply)) = receiver.recv().await {
        let tls = Rc::clone(&tls);
        spawn_local(async move {
            let outcome = tokio::select! {
                biased;
                () = reply.closed() => return,
                outcome = job.run(&tls) => outcome,
            };
            // Nobody waits for it any longer.
            let _ = reply.send(outcome);
        });
    }
}
