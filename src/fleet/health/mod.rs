//! The health of one endpoint as a state machine without input or output: events and the time go
//! in, the resulting change and the necessary actions come out as data.
//!
//! The machine decides the status of an endpoint, when it is checked next, and whether requests may
//! still wait for its first check. It reads no clock, writes no log, and sends nothing: `control`
//! feeds it and executes the actions (`control::changes`). The breaker follows live traffic and
//! this machine follows checks; neither changes the other, except that an endpoint which recovers
//! begins with a closed breaker.
//!
//! Contract: docs/contract/observe.md#1; docs/contract/balancing.md#9, docs/contract/balancing.md#11,
//! docs/contract/balancing.md#12; docs/contract/README.md#13

mod check;
pub(crate) mod schedule;
#[cfg(test)]
mod simulation;
pub(crate) mod suspicion;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use olla_engine::client::ClientFault;
use olla_engine::exchange::ConnectFault;

use super::{Cause, Status};
pub(crate) use check::CheckResult;
use check::{is_timeout, status_after};
use schedule::backoff;

/// The longest time that requests wait for the first check of an endpoint, whether it has ended or
/// not (docs/contract/README.md#13).
pub(crate) const FIRST_CHECK_WAIT: Duration = Duration::from_secs(2);

/// The shortest time between two checks that failures of live traffic cause. Traffic can fail a
/// thousand times a second.
const CAUSED_CHECK_DISTANCE: Duration = Duration::from_millis(100);

/// The options that the machine follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthSettings {
    /// `check_interval` of the endpoint.
    pub(crate) check_interval: Duration,
    /// `check_timeout` of the endpoint.
    pub(crate) check_timeout: Duration,
    /// Failed checks in a row that take a routable endpoint out.
    pub(crate) fall: u32,
    /// Good checks in a row that bring it back.
    pub(crate) rise: u32,
    /// Whether models are discovered: an endpoint that recovers is then listed at once.
    pub(crate) discovers: bool,
}

/// What happened to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthEvent {
    /// The first try of a check that is still running failed.
    TryFailed,
    /// A check has ended.
    CheckEnded {
        /// When the check started.
        began: Instant,
        /// The outcome of its last try.
        result: CheckResult,
        /// What else was noticed while it ran.
        meanwhile: Meanwhile,
        /// The losses counted so far ([`Live::lost`](super::Live::lost)).
        losses: u32,
    },
    /// A request could not reach the endpoint.
    Lost {
        /// Why.
        cause: Cause,
        /// The losses counted so far, as in [`Self::CheckEnded`].
        losses: u32,
    },
    /// A check is wanted at once ([`suspicion::Suspicion`]).
    Suspected,
    /// The discovery that [`HealthAction::Discover`] requested has ended, with success or not.
    Discovered,
    /// A reload has put another configuration in force.
    Configured {
        /// The options now.
        settings: HealthSettings,
        /// Whether anything changed that checks or listings depend on.
        is_changed: bool,
    },
    /// [`FIRST_CHECK_WAIT`] has passed since the endpoint was added.
    FirstCheckOverdue,
    /// A reload has removed the endpoint. Later events change nothing.
    Removed,
}

/// What was noticed while a check ran, besides its result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Meanwhile {
    /// When bytes of a response last arrived from the endpoint.
    pub(crate) heard: Option<Instant>,
    /// How late this process was at most: the time for which it was due to run and did not.
    pub(crate) late: Duration,
}

/// What an event changed, and what has to be done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "its actions have to be executed"]
pub(crate) struct HealthChange {
    /// The new status, if it differs from the one reported last.
    pub(crate) transition: Option<Transition>,
    /// Whether the event is a check that says something about the endpoint.
    pub(crate) counts: bool,
    /// In the order of execution.
    pub(crate) actions: Vec<HealthAction>,
}

/// A change of status with everything that the log says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transition {
    /// The status before.
    pub(crate) from: Status,
    /// The status now.
    pub(crate) to: Status,
    /// What caused it.
    pub(crate) cause: Cause,
    /// How long the last check took, if there was one.
    pub(crate) response_time: Option<Duration>,
    /// The time until the next check.
    pub(crate) next_check_in: Duration,
    /// False for an endpoint that is healthy at its first check, which is the expected case.
    pub(crate) is_logged: bool,
}

/// What the machine's driver has to do after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HealthAction {
    /// Close the breaker and reset its count.
    ResetBreaker,
    /// Drop the sticky sessions pinned to the endpoint.
    ForgetSessions,
    /// A check found the endpoint dead: requests that wait for its response leave it
    /// (docs/contract/balancing.md#9.2).
    DeclareDead,
    /// Drop the endpoint's models.
    ForgetModels,
    /// The time of the next check has changed: set the timer anew.
    Reschedule,
    /// List the endpoint's models now, outside of the rounds.
    Discover,
    /// Publish a snapshot now: requests must stop using the endpoint.
    PublishNow,
    /// Publish a snapshot together with the changes that follow shortly.
    PublishSoon,
}

/// What is known of the endpoint's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// No check has ended yet, and no request has failed.
    Pending {
        /// The first try of the first check failed: the endpoint counts as offline
        /// until the remaining tries say otherwise, but that is not reported.
        is_unreachable: bool,
    },
    /// The last check or a failed request decided it.
    Decided(Status),
}

/// The health of one endpoint; see the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    settings: HealthSettings,
    added: Instant,
    verdict: Verdict,
    is_settled: bool,
    is_removed: bool,
    /// Failed checks and failed requests since the last good check.
    failures: u32,
    /// Good checks since the last failure.
    successes: u32,
    /// Whether checks have failed since the endpoint was last found routable by one.
    failed_checks: bool,
    /// When a failed request took the endpoint out, until a check decides.
    lost: Option<Instant>,
    last_check: Option<LastCheck>,
    next_check: Instant,
    /// The end of the time that a 429 asked for.
    not_before: Option<Instant>,
    /// When a reload last changed what is checked: an earlier check says nothing about that.
    configured: Option<Instant>,
    acknowledged_losses: u32,
}

/// The last check that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LastCheck {
    ended: Instant,
    took: Duration,
}

impl Health {
    /// An endpoint that was added at `now`; its first check is due at once.
    pub(crate) fn new(settings: HealthSettings, now: Instant) -> Self {
        Self {
            settings,
            added: now,
            verdict: Verdict::Pending {
                is_unreachable: false,
            },
            is_settled: false,
            is_removed: false,
            failures: 0,
            successes: 0,
            failed_checks: false,
            lost: None,
            last_check: None,
            next_check: now,
            not_before: None,
            configured: None,
            acknowledged_losses: 0,
        }
    }

    /// Takes in an event.
    pub(crate) fn on(&mut self, event: HealthEvent, now: Instant) -> HealthChange {
        if self.is_removed {
            return HealthChange::default();
        }
        match event {
            HealthEvent::TryFailed => self.try_failed(),
            HealthEvent::CheckEnded {
                began,
                result,
                meanwhile,
                losses,
            } => match self.doubt(began, result, meanwhile, now) {
                Some(next_check) => {
                    let is_outdated = self.is_outdated(began);
                    self.next_check = if is_outdated { now } else { next_check };
                    HealthChange::default()
                }
                None => {
                    self.acknowledged_losses = losses;
                    self.check_ended(began, result, now)
                }
            },
            HealthEvent::Lost { cause, losses } => {
                self.acknowledged_losses = losses;
                self.lost(cause, now)
            }
            HealthEvent::Suspected => self.suspected(now),
            HealthEvent::Discovered => {
                self.is_settled = true;
                HealthChange::of(&[HealthAction::PublishSoon])
            }
            HealthEvent::Configured {
                settings,
                is_changed,
            } => self.configured(settings, is_changed, now),
            HealthEvent::FirstCheckOverdue if self.is_settled => HealthChange::default(),
            HealthEvent::FirstCheckOverdue => HealthChange::of(&[HealthAction::PublishSoon]),
            HealthEvent::Removed => {
                self.is_removed = true;
                HealthChange::of(&[HealthAction::ForgetSessions, HealthAction::Reschedule])
            }
        }
    }

    fn try_failed(&mut self) -> HealthChange {
        match &mut self.verdict {
            Verdict::Pending { is_unreachable } if !*is_unreachable => {
                *is_unreachable = true;
                HealthChange::of(&[HealthAction::PublishSoon])
            }
            _ => HealthChange::default(),
        }
    }

    /// The time of the next check if this one says nothing about the endpoint.
    fn doubt(
        &self,
        began: Instant,
        result: CheckResult,
        meanwhile: Meanwhile,
        now: Instant,
    ) -> Option<Instant> {
        let is_heard = || {
            let interval = self.settings.check_interval;
            meanwhile
                .heard
                .is_some_and(|at| now.saturating_duration_since(at) <= interval)
        };
        match result {
            // The result may tell of this process only.
            _ if meanwhile.late > self.settings.check_timeout => Some(now),
            CheckResult::Failed(ClientFault::Connect(ConnectFault::Local)) => {
                Some(self.due(began, self.failures))
            }
            CheckResult::Failed(fault) if is_timeout(fault) && is_heard() => {
                Some(self.due(began, self.failures))
            }
            // It may have met the endpoint before the connection was lost.
            _ if self.lost.is_some_and(|lost| began <= lost) => Some(self.caused(now)),
            _ => None,
        }
    }

    fn check_ended(&mut self, began: Instant, result: CheckResult, now: Instant) -> HealthChange {
        let took = now.saturating_duration_since(began);
        let from = self.reported();
        let to = status_after(result, took);
        let is_good = to.is_routable();
        let is_first = matches!(self.verdict, Verdict::Pending { .. });
        self.count(is_good);
        self.last_check = Some(LastCheck { ended: now, took });
        self.schedule_after(began, result, to, now);
        let decides = is_first || self.decides(result, from.is_routable(), is_good);
        if decides {
            self.verdict = Verdict::Decided(to);
            self.lost = None;
        }
        let mut change = HealthChange {
            counts: true,
            ..HealthChange::default()
        };
        if decides && is_good {
            let failed = std::mem::take(&mut self.failed_checks);
            if failed && !from.is_routable() {
                change.actions.push(HealthAction::ResetBreaker);
            }
        }
        if decides && from.is_routable() && !is_good {
            change.actions.push(HealthAction::ForgetSessions);
        }
        if decides && to == Status::Offline {
            change.actions.push(HealthAction::DeclareDead);
        }
        let is_news = !from.is_routable() || from == Status::Warming && to != Status::Warming;
        if !is_good || !self.settings.discovers {
            self.is_settled = true;
        } else if decides && is_news {
            change.actions.push(HealthAction::Discover);
        }
        change.actions.push(HealthAction::PublishSoon);
        change.transition = self.transition(from, result.cause(), now);
        if let Some(transition) = &mut change.transition {
            transition.is_logged = !is_first || !is_good || to == Status::Warming;
        }
        change
    }

    /// Whether a reload has changed what is checked since a check began.
    fn is_outdated(&self, began: Instant) -> bool {
        self.configured.is_some_and(|at| began <= at)
    }

    fn count(&mut self, is_good: bool) {
        if is_good {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            self.failed_checks = true;
        }
    }

    /// Whether a check decides the status (docs/contract/observe.md#1, flapping). An endpoint moves
    /// between routable statuses, and between the others, with every check.
    fn decides(&self, result: CheckResult, was_routable: bool, is_good: bool) -> bool {
        let is_refused = matches!(
            result,
            CheckResult::Failed(ClientFault::Connect(ConnectFault::Refused))
        );
        match (was_routable, is_good) {
            (true, true) | (false, false) => true,
            (true, false) => is_refused || self.failures >= self.settings.fall,
            // What a lost connection took out, one good check brings back.
            (false, true) => self.lost.is_some() || self.successes >= self.settings.rise,
        }
    }

    fn schedule_after(&mut self, began: Instant, result: CheckResult, to: Status, now: Instant) {
        if self.is_outdated(began) {
            // What the reload changed is still to be checked, whatever this result says.
            self.not_before = None;
            self.next_check = now;
            return;
        }
        self.not_before = match result {
            CheckResult::Response { retry_after, .. } if to == Status::RateLimited => {
                Some(now + retry_after)
            }
            _ => None,
        };
        self.next_check = self.due(began, self.failures);
    }

    fn lost(&mut self, cause: Cause, now: Instant) -> HealthChange {
        if self.status() == Status::Offline {
            // All requests that were in flight to it fail together, which is one failure.
            return HealthChange::default();
        }
        let from = self.reported();
        self.verdict = Verdict::Decided(Status::Offline);
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        self.lost = Some(now);
        self.next_check = self.caused(now);
        HealthChange {
            transition: self.transition(from, cause, now),
            actions: vec![HealthAction::Reschedule, HealthAction::PublishNow],
            counts: false,
        }
    }

    /// A check is due at once, however often live traffic asks for one.
    fn suspected(&mut self, now: Instant) -> HealthChange {
        let due = self.caused(now);
        if due >= self.next_check {
            return HealthChange::default();
        }
        self.next_check = due;
        HealthChange::of(&[HealthAction::Reschedule])
    }

    fn configured(
        &mut self,
        settings: HealthSettings,
        is_changed: bool,
        now: Instant,
    ) -> HealthChange {
        let is_routable = self.status().is_routable();
        let is_switched_on = settings.discovers && !self.settings.discovers;
        let is_switched_off = !settings.discovers && self.settings.discovers;
        self.settings = settings;
        let mut actions = Vec::new();
        if is_changed {
            // Until the check has ended, the endpoint keeps its status.
            self.configured = Some(now);
            self.not_before = None;
            self.next_check = now;
            actions.push(HealthAction::Reschedule);
        }
        if is_switched_off {
            // Without discovery there are no models (docs/contract/catalogue.md#3.1).
            actions.push(HealthAction::ForgetModels);
        }
        if is_routable && settings.discovers && (is_changed || is_switched_on) {
            actions.push(HealthAction::Discover);
        }
        HealthChange::of(&actions)
    }

    /// When the next check is due by the back-off schedule, not before the end of a `Retry-After`.
    fn due(&self, from: Instant, failures: u32) -> Instant {
        self.rested(from + backoff(self.settings.check_interval, failures))
    }

    /// When a check is due that live traffic causes: at once.
    fn caused(&self, now: Instant) -> Instant {
        let last = self.last_check.map(|last| last.ended);
        let least = last.map_or(now, |last| last + CAUSED_CHECK_DISTANCE);
        self.rested(now.max(least))
    }

    fn rested(&self, due: Instant) -> Instant {
        self.not_before.map_or(due, |rest| due.max(rest))
    }

    fn transition(&self, from: Status, cause: Cause, now: Instant) -> Option<Transition> {
        let to = self.reported();
        (from != to).then(|| Transition {
            from,
            to,
            cause,
            response_time: self.response_time(),
            next_check_in: self.next_check.saturating_duration_since(now),
            is_logged: true,
        })
    }

    /// The status that transitions start from: unlike [`Self::status`] it ignores the first try.
    fn reported(&self) -> Status {
        match self.verdict {
            Verdict::Pending { .. } => Status::Unknown,
            Verdict::Decided(status) => status,
        }
    }

    /// The status.
    pub(crate) fn status(&self) -> Status {
        match self.verdict {
            Verdict::Pending {
                is_unreachable: true,
            } => Status::Offline,
            Verdict::Pending { .. } => Status::Unknown,
            Verdict::Decided(status) => status,
        }
    }

    /// Whether the first check has ended and, if it succeeded, the first discovery too.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Whether a reload has removed the endpoint.
    pub(crate) fn is_removed(&self) -> bool {
        self.is_removed
    }

    /// Whether requests may wait for the first check (docs/contract/README.md#13).
    pub(crate) fn is_awaited(&self, now: Instant) -> bool {
        !self.is_settled && now.saturating_duration_since(self.added) < FIRST_CHECK_WAIT
    }

    /// Failed checks and failed requests since the last good check.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// When the last check ended.
    pub(crate) fn last_check(&self) -> Option<Instant> {
        self.last_check.map(|last| last.ended)
    }

    /// How long the last check took, with all of its tries.
    pub(crate) fn response_time(&self) -> Option<Duration> {
        self.last_check.map(|last| last.took)
    }

    /// When the next check is due. While a check runs, the value is that of the running one.
    pub(crate) fn next_check(&self) -> Instant {
        self.next_check
    }

    /// The losses that the status takes into account
    /// ([`Endpoint::acknowledged_losses`](super::Endpoint::acknowledged_losses)).
    pub(crate) fn acknowledged_losses(&self) -> u32 {
        self.acknowledged_losses
    }
}

impl HealthChange {
    fn of(actions: &[HealthAction]) -> Self {
        Self {
            actions: actions.to_vec(),
            ..Self::default()
        }
    }
}
