//! What happened to the simulated endpoint, and the contract's rules, written a second time.

use super::super::*;

/// What happened, kept apart from the machine.
pub(super) struct Model {
    /// The status that was reported last.
    pub(super) reported: Status,
    /// The first try of the first check failed, and nothing was decided since.
    pub(super) is_unreachable: bool,
    pub(super) is_checked: bool,
    /// Failures, failed checks and good checks in a row.
    pub(super) failures: u32,
    pub(super) bad: u32,
    pub(super) successes: u32,
    /// The last good check that decided, refused check and known loss, each with its number in the
    /// order of all.
    pub(super) good: Option<usize>,
    pub(super) refused: Option<usize>,
    pub(super) loss: Option<usize>,
    /// The time of a loss that no check has judged yet.
    pub(super) lost_at: Option<Instant>,
    /// Whether the last event was a check that said nothing, or one that brought the endpoint back
    /// after others had failed.
    pub(super) said_nothing: bool,
    pub(super) recovers: bool,
    /// The highest `fall` since the last failed check: a reload that lowers it decides nothing.
    pub(super) fall_before: u32,
    /// The end of the pause that the last 429 requested; a changed configuration ends it.
    pub(super) rest: Option<Instant>,
    /// The start of the back-off: of the last check, or the last known loss.
    pub(super) backoff_from: Instant,
    /// A configuration that no check has begun under yet.
    pub(super) unchecked_configuration: bool,
    /// The number of the last reload that changed something.
    pub(super) reload: usize,
    pub(super) acknowledged_losses: u32,
    pub(super) settled: bool,
    pub(super) settings: HealthSettings,
    pub(super) removed: bool,
}

impl Model {
    pub(super) fn new(settings: HealthSettings, start: Instant) -> Self {
        Self {
            reported: Status::Unknown,
            is_unreachable: false,
            is_checked: false,
            failures: 0,
            bad: 0,
            successes: 0,
            good: None,
            refused: None,
            loss: None,
            lost_at: None,
            said_nothing: false,
            recovers: false,
            fall_before: settings.fall,
            rest: None,
            backoff_from: start,
            unchecked_configuration: false,
            reload: 0,
            acknowledged_losses: 0,
            settled: false,
            settings,
            removed: false,
        }
    }

    /// Why a check counts for nothing (docs/contract/observe.md#1), written a second time.
    pub(super) fn says_nothing(
        &self,
        began: Instant,
        result: CheckResult,
        meanwhile: Meanwhile,
        now: Instant,
    ) -> Option<&'static str> {
        let local = CheckResult::Failed(ClientFault::Connect(ConnectFault::Local));
        let connect = CheckResult::Failed(ClientFault::Connect(ConnectFault::TimedOut));
        let timed_out = result == connect || result == CheckResult::Failed(ClientFault::TimedOut);
        let silence = meanwhile.heard.map(|at| now - at);
        if meanwhile.late > self.settings.check_timeout {
            Some("late")
        } else if result == local {
            Some("local")
        } else if timed_out && silence.is_some_and(|long| long <= self.settings.check_interval) {
            Some("heard")
        } else if self.lost_at.is_some_and(|at| began <= at) {
            Some("lost")
        } else {
            None
        }
    }

    /// The status that a check with this outcome decides, if it does.
    pub(super) fn judge(
        &mut self,
        status: Status,
        is_refused: bool,
        step: usize,
    ) -> Option<Status> {
        let is_first = !self.is_checked;
        let was_in_use = self.reported.is_routable();
        if status.is_routable() {
            (self.failures, self.successes) = (0, self.successes + 1);
            self.good = Some(step);
        } else {
            (self.failures, self.successes) = (self.failures + 1, 0);
            self.bad += 1;
            if is_refused {
                self.refused = Some(step);
            }
        }
        let enough = match (was_in_use, status.is_routable()) {
            (true, false) => is_refused || self.failures >= self.settings.fall,
            (false, true) => self.lost_at.is_some() || self.successes >= self.settings.rise,
            _ => true,
        };
        if !is_first && !enough {
            return None;
        }
        self.is_checked = true;
        self.is_unreachable = false;
        self.lost_at = None;
        self.fall_before = self.settings.fall;
        if status.is_routable() {
            self.recovers = self.bad > 0 && !was_in_use;
            self.bad = 0;
        }
        Some(status)
    }
}

pub(super) fn is_refused(result: CheckResult) -> bool {
    result == CheckResult::Failed(ClientFault::Connect(ConnectFault::Refused))
}

/// The table of the contract (balancing 11), written a second time.
pub(super) fn expected(result: CheckResult, took: Duration) -> Status {
    match result {
        CheckResult::Failed(_) => Status::Offline,
        CheckResult::Response {
            code: 401 | 403, ..
        } => Status::ConfigError,
        CheckResult::Response { code: 429, .. } => Status::RateLimited,
        CheckResult::Response {
            code: 503,
            is_loading: true,
            ..
        } => Status::Warming,
        CheckResult::Response { code, .. } if !(200..300).contains(&code) => Status::Unhealthy,
        CheckResult::Response { .. } if took > Duration::from_secs(10) => Status::Busy,
        CheckResult::Response { .. } => Status::Healthy,
    }
}

/// The longest wait of the contract's schedule (balancing 11), written a second time.
pub(super) fn longest_wait(interval: Duration, failures: u32) -> Duration {
    let factors = [1, 1, 2, 4, 8, 12];
    let factor = factors[factors.len().min(failures as usize + 1) - 1];
    (interval * factor).min(interval.max(Duration::from_secs(60)))
}
