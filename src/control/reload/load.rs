//! Reading the configuration for a reload, on a thread of its own, so that a large file or a slow
//! file system does not hold up health checks. Control thread, part of the reload task.
//!
//! Invariant: a load that does not end holds up its own reload for [`LOAD_MAX`] and no other one:
//! as long as it goes on, further loads are refused at once and no second thread waits.

use crate::config::model::Config;
use crate::config::{Diagnostic, Files, InputFiles, Limits, Load, Severity};
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// How long a load may take. All that a configuration may have is read in a fifth of it.
const LOAD_MAX: Duration = Duration::from_secs(10);

/// What is wrong, twice: a line each for the log, and as an operator is shown it.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) lines: Vec<Line>,
    pub(super) shown: Vec<String>,
}

/// A line for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    severity: Severity,
    pub(super) text: String,
}

impl Line {
    /// Writes it to the log, at the level of its severity.
    pub(super) fn log(&self) {
        let text = &self.text;
        match self.severity {
            Severity::Error => tracing::error!("reload: {text}"),
            Severity::Warning => tracing::warn!("reload: {text}"),
        }
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl From<Vec<String>> for Problems {
    fn from(shown: Vec<String>) -> Self {
        let lines = shown.iter().cloned().map(|text| Line {
            severity: Severity::Error,
            text,
        });
        Self {
            lines: lines.collect(),
            shown,
        }
    }
}

impl From<&[Diagnostic]> for Problems {
    fn from(diagnostics: &[Diagnostic]) -> Self {
        let lines = diagnostics.iter().map(|one| Line {
            severity: one.severity,
            text: one.line(),
        });
        Self {
            lines: lines.collect(),
            shown: diagnostics.iter().map(|one| one.render(false)).collect(),
        }
    }
}

/// A configuration that could be in force.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) warnings: Problems,
    pub(super) files: Files,
}

/// A load that was refused, and what it has read.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) problems: Problems,
    pub(super) files: Files,
}

/// Reads the configuration when asked.
#[derive(Debug)]
pub(super) struct Loading {
    input: InputFiles,
    limits: Limits,
    /// A load that was given up and has not ended.
    given_up: Option<JoinHandle<Load>>,
}

impl Loading {
    pub(super) fn new(input: InputFiles, limits: Limits) -> Self {
        Self {
            input,
            limits,
            given_up: None,
        }
    }

    /// Reads the configuration again.
    pub(super) async fn load(&mut self) -> Result<Loaded, Refused> {
        let (input, limits) = (self.input.clone(), self.limits.clone());
        self.run(LOAD_MAX, move || input.load(&limits)).await
    }

    async fn run(
        &mut self,
        limit: Duration,
        load: impl FnOnce() -> Load + Send + 'static,
    ) -> Result<Loaded, Refused> {
        let path = self.input.name();
        if self.given_up.take_if(|load| load.is_finished()).is_some() {
            tracing::info!("load ended that was given up");
        }
        if self.given_up.is_some() {
            let why = "an earlier load still waits for a file system";
            return Err(refused(format!(
                "cannot read {path} and its includes: {why}"
            )));
        }
        let mut load = spawn_blocking(load);
        match timeout(limit, &mut load).await {
            Ok(Ok(load)) => sort(load),
            Ok(Err(_)) => Err(refused(format!("reading {path} has panicked"))),
            Err(_) => {
                self.given_up = Some(load);
                let message = format!(
                    "cannot read {path} and its includes: the file system has not answered for \
                     {limit:?}"
                );
                Err(refused(message))
            }
        }
    }
}

fn refused(message: String) -> Refused {
    Refused {
        problems: vec![message].into(),
        files: Files::default(),
    }
}

fn sort(load: Load) -> Result<Loaded, Refused> {
    let files = load.files;
    match load.loaded {
        Ok((config, warnings)) => Ok(Loaded {
            config,
            warnings: warnings.as_slice().into(),
            files,
        }),
        Err(problems) => Err(Refused {
            problems: problems.as_slice().into(),
            files,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Fault 43: a load that does not end is reported and given up, and no second one joins it.
    #[tokio::test]
    async fn fault_43_a_load_that_does_not_end_is_given_up() {
        let mut loading = Loading::new(InputFiles::file("rlb.toml".into()), Limits::unknown());
        let nothing = || Load {
            loaded: Err(Vec::new()),
            files: Files::default(),
        };
        let (release, wait) = mpsc::sync_channel::<()>(0);
        let endless = move || {
            let _ = wait.recv();
            nothing()
        };
        let limit = Duration::from_millis(20);
        let refused = loading.run(limit, endless).await.unwrap_err();
        let said = &refused.problems.lines[0].text;
        assert!(
            said.contains("rlb.toml") && said.contains("not answered"),
            "{said}"
        );
        let refused = loading.run(LOAD_MAX, nothing).await.unwrap_err();
        let said = &refused.problems.lines[0].text;
        assert!(said.contains("an earlier load"), "{said}");
        drop(release);
        // The first load ends; then the next one runs, and its empty list is returned.
        let deadline = tokio::time::Instant::now() + LOAD_MAX;
        while !loading
            .given_up
            .as_ref()
            .is_some_and(JoinHandle::is_finished)
        {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        let refused = loading.run(LOAD_MAX, nothing).await.unwrap_err();
        assert!(refused.problems.lines.is_empty());
    }
}
