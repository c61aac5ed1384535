//! The last result of a server's health check, as the statistics show it.

use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// HAProxy's check status codes (its `enum healthcheck_status`), with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CheckStatus {
    /// `UNK`
    Unknown = 0,
    /// `INI`: configured, no result yet.
    Initializing = 1,
    /// `HANA`: failed connects of sessions have counted as a failed check (`observe`).
    HealthAnalyze = 4,
    /// `SOCKERR`: a local failure, or a reset after the connection was established.
    SocketError = 5,
    /// `L4OK`
    L4Ok = 6,
    /// `L4TOUT`
    L4Timeout = 7,
    /// `L4CON`: refused or unreachable.
    L4Con = 8,
    /// `L6OK`: a step of a check names it (`ok-status`), or a TLS hello was answered.
    L6Ok = 9,
    /// `L6TOUT`
    L6Timeout = 10,
    /// `L6RSP`
    L6Response = 11,
    /// `L7TOUT`: no answer in time.
    L7Timeout = 12,
    /// `L7RSP`: an answer that is not what the check waits for.
    L7Response = 13,
    /// `L7OK`
    L7Ok = 15,
    /// `L7OKC`: the server is not to get new sessions.
    L7OkConditional = 16,
    /// `L7STS`: an answer in which the server says no.
    L7Status = 17,
}

impl CheckStatus {
    /// The code, as in the `check_status` column.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unknown => "UNK",
            Self::Initializing => "INI",
            Self::HealthAnalyze => "HANA",
            Self::SocketError => "SOCKERR",
            Self::L4Ok => "L4OK",
            Self::L4Timeout => "L4TOUT",
            Self::L4Con => "L4CON",
            Self::L6Ok => "L6OK",
            Self::L6Timeout => "L6TOUT",
            Self::L6Response => "L6RSP",
            Self::L7Timeout => "L7TOUT",
            Self::L7Response => "L7RSP",
            Self::L7Ok => "L7OK",
            Self::L7OkConditional => "L7OKC",
            Self::L7Status => "L7STS",
        }
    }

    /// The text, as in the `check_desc` column and in log lines.
    pub fn description(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Initializing => "Initializing",
            Self::HealthAnalyze => "Health analyze",
            Self::SocketError => "Socket error",
            Self::L4Ok => "Layer4 check passed",
            Self::L4Timeout => "Layer4 timeout",
            Self::L4Con => "Layer4 connection problem",
            Self::L6Ok => "Layer6 check passed",
            Self::L6Timeout => "Layer6 timeout",
            Self::L6Response => "Layer6 invalid response",
            Self::L7Timeout => "Layer7 timeout",
            Self::L7Response => "Layer7 invalid response",
            Self::L7Ok => "Layer7 check passed",
            Self::L7OkConditional => "Layer7 check conditionally passed",
            Self::L7Status => "Layer7 wrong status",
        }
    }

    /// Whether the check has passed, conditionally too.
    pub fn has_passed(self) -> bool {
        matches!(
            self,
            Self::L4Ok | Self::L6Ok | Self::L7Ok | Self::L7OkConditional
        )
    }

    /// Whether the answer has a number, which is shown (`check_code`).
    pub fn has_code(self) -> bool {
        matches!(self, Self::L7Ok | Self::L7OkConditional | Self::L7Status)
    }
}

/// What the statistics show of a server's last check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Verdict of the last finished check.
    pub status: CheckStatus,
    /// How long it took; `None` before the first, and if it was none ([`CheckStatus::HealthAnalyze`]).
    pub duration: Option<Duration>,
    /// The number that the answer had, if its status has one: a status of HTTP, an error of MySQL.
    pub code: u16,
    /// What the system or the server said, in HAProxy's wording; empty for a passed check of a connection.
    pub info: String,
    /// A check is running now (`* ` before the status).
    pub in_progress: bool,
}

impl Default for CheckReport {
    fn default() -> Self {
        Self {
            status: CheckStatus::Initializing,
            duration: None,
            code: 0,
            info: String::new(),
            in_progress: false,
        }
    }
}

impl CheckReport {
    /// Its number, if it has one.
    pub fn code(&self) -> Option<u16> {
        self.status.has_code().then_some(self.code)
    }
}

/// Stands for a duration when the last check has not passed.
const NOT_PASSED: u64 = u64::MAX;

/// The last check of a server. Only the control thread writes it, any thread may read it.
///
/// Most checks pass, as the one before did, and differ only in their duration. So the duration is kept beside
/// the report, and such a check makes no new report.
#[derive(Debug)]
pub struct LastCheck {
    report: ArcSwap<CheckReport>,
    /// How long the last check took, ns, if it passed; otherwise [`NOT_PASSED`].
    passed_in: AtomicU64,
    in_progress: AtomicBool,
}

impl Default for LastCheck {
    fn default() -> Self {
        Self {
            report: ArcSwap::default(),
            passed_in: AtomicU64::new(NOT_PASSED),
            in_progress: AtomicBool::new(false),
        }
    }
}

impl LastCheck {
    /// What the statistics show now.
    pub fn load(&self) -> CheckReport {
        let mut report = CheckReport::clone(&self.report.load());
        let nanos = self.passed_in.load(Relaxed);
        // The two are not read atomically, but a duration is only ever that of a passed check.
        if report.status.has_passed() && nanos != NOT_PASSED {
            report.duration = Some(Duration::from_nanos(nanos));
        }
        report.in_progress = self.in_progress.load(Relaxed);
        report
    }

    /// The verdict of the last finished check.
    pub fn status(&self) -> CheckStatus {
        self.report.load().status
    }

    /// A check has begun.
    pub fn begin(&self) {
        self.in_progress.store(true, Relaxed);
    }

    /// The check has ended without a verdict.
    pub fn give_up(&self) {
        self.in_progress.store(false, Relaxed);
    }

    /// The check has passed after `took`. Returns `false` and changes nothing if the one before had not passed.
    pub fn passed_again(&self, took: Duration) -> bool {
        let again = self.passed_in.load(Relaxed) != NOT_PASSED;
        if again {
            self.passed_in.store(nanos(took), Relaxed);
            self.in_progress.store(false, Relaxed);
        }
        again
    }

    /// The next check that passes makes a report, whatever the last one has said.
    pub fn forget_pass(&self) {
        self.passed_in.store(NOT_PASSED, Relaxed);
    }

    /// Whether the last check has ended with the same.
    pub fn was(&self, status: CheckStatus, code: u16, info: &str) -> bool {
        let last = self.report.load();
        last.status == status && last.code == code && last.info == info
    }

    /// Replaces the last check.
    pub fn store(&self, report: CheckReport) {
        let passed = match report.duration {
            Some(took) if report.status.has_passed() => nanos(took),
            _ => NOT_PASSED,
        };
        self.in_progress.store(report.in_progress, Relaxed);
        self.report.store(Arc::new(report));
        self.passed_in.store(passed, Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NOT_PASSED - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: CheckStatus, millis: u64) -> CheckReport {
        CheckReport {
            status,
            duration: Some(Duration::from_millis(millis)),
            code: 0,
            info: String::new(),
            in_progress: false,
        }
    }

    #[test]
    fn a_check_that_passes_again_changes_the_duration_and_makes_no_report() {
        let last = LastCheck::default();
        last.store(report(CheckStatus::L4Ok, 3));
        let stored = Arc::as_ptr(&last.report.load());
        last.begin();
        assert!(last.load().in_progress);
        assert!(last.passed_again(Duration::from_millis(4)));
        assert_eq!(last.load(), report(CheckStatus::L4Ok, 4));
        assert_eq!(Arc::as_ptr(&last.report.load()), stored);
    }

    #[test]
    fn the_first_pass_and_the_first_after_a_failure_make_a_report() {
        let last = LastCheck::default();
        assert!(!last.passed_again(Duration::ZERO));
        assert_eq!(last.load(), CheckReport::default());
        last.store(report(CheckStatus::L4Ok, 3));
        last.store(report(CheckStatus::L4Con, 1));
        assert!(!last.passed_again(Duration::ZERO));
        assert_eq!(last.load(), report(CheckStatus::L4Con, 1));
    }

    #[test]
    fn a_check_without_a_verdict_leaves_the_last_one() {
        let last = LastCheck::default();
        last.store(report(CheckStatus::L4Timeout, 1_000));
        last.begin();
        last.give_up();
        assert_eq!(last.load(), report(CheckStatus::L4Timeout, 1_000));
    }
}
