//! Single transitions, row by row. [`super::simulation`] covers their sequences.

use super::HealthAction::*;
use super::*;

const INTERVAL: Duration = Duration::from_secs(5);

const ON: HealthSettings = HealthSettings {
    check_interval: INTERVAL,
    check_timeout: Duration::from_secs(2),
    fall: 2,
    rise: 1,
    discovers: true,
};

/// One failed check takes the endpoint out.
const AT_ONCE: HealthSettings = HealthSettings { fall: 1, ..ON };

const OFF: HealthSettings = HealthSettings {
    discovers: false,
    ..ON
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn code(code: u16) -> CheckResult {
    CheckResult::Response {
        code,
        retry_after: secs(30),
        is_loading: false,
    }
}

const LOADING: CheckResult = CheckResult::Response {
    code: 503,
    retry_after: Duration::from_secs(30),
    is_loading: true,
};

const TIMED_OUT: CheckResult = CheckResult::Failed(ClientFault::TimedOut);
const LOST: Cause = Cause::of_traffic(olla_engine::exchange::Fault::Refused);
const REFUSED: CheckResult = CheckResult::Failed(ClientFault::Connect(ConnectFault::Refused));

/// An endpoint with a clock of its own.
struct Bench {
    health: Health,
    now: Instant,
    losses: u32,
}

impl Bench {
    fn new(settings: HealthSettings) -> Self {
        let now = Instant::now();
        Self {
            health: Health::new(settings, now),
            now,
            losses: 0,
        }
    }

    /// One that was checked once, with this result.
    fn checked(settings: HealthSettings, result: CheckResult) -> Self {
        let mut bench = Self::new(settings);
        let _ = bench.check(result);
        bench
    }

    fn on(&mut self, event: HealthEvent) -> HealthChange {
        self.health.on(event, self.now)
    }

    /// A check that takes a second.
    fn check(&mut self, result: CheckResult) -> HealthChange {
        self.check_for(secs(1), result)
    }

    fn check_for(&mut self, took: Duration, result: CheckResult) -> HealthChange {
        self.check_while(took, result, Meanwhile::default())
    }

    fn check_while(
        &mut self,
        took: Duration,
        result: CheckResult,
        meanwhile: Meanwhile,
    ) -> HealthChange {
        let began = self.now;
        self.now += took;
        let losses = self.losses;
        self.on(HealthEvent::CheckEnded {
            began,
            result,
            meanwhile,
            losses,
        })
    }

    /// Lets the time pass until the next check.
    fn wait(&mut self) {
        self.now = self.health.next_check();
    }

    fn lose(&mut self) -> HealthChange {
        self.losses += 1;
        let losses = self.losses;
        self.on(HealthEvent::Lost {
            cause: LOST,
            losses,
        })
    }

    fn configure(&mut self, settings: HealthSettings, is_changed: bool) -> HealthChange {
        self.on(HealthEvent::Configured {
            settings,
            is_changed,
        })
    }

    fn next_check_in(&self) -> Duration {
        self.health.next_check().saturating_duration_since(self.now)
    }
}

/// `from` and `to` of a change, and whether it is logged.
fn reported(change: &HealthChange) -> Option<(Status, Status, bool)> {
    change
        .transition
        .map(|change| (change.from, change.to, change.is_logged))
}

#[test]
fn each_result_leads_to_a_status() {
    let failed = CheckResult::Failed(ClientFault::Reset);
    let table = [
        (code(200), 0, Status::Healthy),
        (code(204), 10, Status::Healthy),
        (code(200), 11, Status::Busy),
        (code(401), 0, Status::ConfigError),
        (code(403), 11, Status::ConfigError),
        (code(429), 0, Status::RateLimited),
        (code(404), 0, Status::Unhealthy),
        (code(500), 11, Status::Unhealthy),
        (code(304), 0, Status::Unhealthy),
        (code(503), 0, Status::Unhealthy),
        (LOADING, 0, Status::Warming),
        (failed, 0, Status::Offline),
        (failed, 11, Status::Offline),
    ];
    for (result, took, want) in table {
        assert_eq!(status_after(result, secs(took)), want, "{result:?} {took}s");
    }
}

#[test]
fn the_first_check_decides_at_once() {
    let table = [
        (
            ON,
            code(200),
            Status::Healthy,
            false,
            &[Discover, PublishSoon][..],
            false,
        ),
        (OFF, code(200), Status::Healthy, false, &[PublishSoon], true),
        (ON, code(500), Status::Unhealthy, true, &[PublishSoon], true),
        (
            ON,
            CheckResult::Failed(ClientFault::Connect(ConnectFault::Unresolved)),
            Status::Offline,
            true,
            &[DeclareDead, PublishSoon],
            true,
        ),
    ];
    for (settings, result, status, is_logged, actions, is_settled) in table {
        let mut bench = Bench::new(settings);
        let change = bench.check(result);
        let want = Some((Status::Unknown, status, is_logged));
        assert_eq!(reported(&change), want, "{result:?}");
        assert_eq!(change.actions, actions, "{result:?}");
        assert_eq!(bench.health.is_settled(), is_settled, "{result:?}");
    }
}

#[test]
fn later_checks_report_what_differs() {
    let (good, bad) = (code(200), code(503));
    let table = [
        (good, good, None, &[PublishSoon][..]),
        (bad, bad, None, &[PublishSoon]),
        (
            good,
            bad,
            Some((Status::Healthy, Status::Unhealthy, true)),
            &[ForgetSessions, PublishSoon],
        ),
        (
            bad,
            good,
            Some((Status::Unhealthy, Status::Healthy, true)),
            &[ResetBreaker, Discover, PublishSoon],
        ),
        (
            bad,
            code(429),
            Some((Status::Unhealthy, Status::RateLimited, true)),
            &[PublishSoon],
        ),
    ];
    for (before, result, want, actions) in table {
        let mut bench = Bench::checked(AT_ONCE, before);
        let _ = bench.on(HealthEvent::Discovered);
        let change = bench.check(result);
        assert_eq!(reported(&change), want, "{before:?} {result:?}");
        assert_eq!(change.actions, actions, "{before:?} {result:?}");
    }
}

#[test]
fn a_transition_carries_what_the_log_says() {
    let mut bench = Bench::checked(AT_ONCE, code(200));
    let change = bench.check_for(secs(2), code(500));
    let want = Transition {
        from: Status::Healthy,
        to: Status::Unhealthy,
        cause: Cause::of_response(500, Some(crate::fleet::ErrorKind::Status)),
        response_time: Some(secs(2)),
        next_check_in: secs(3),
        is_logged: true,
    };
    assert_eq!(change.transition, Some(want));
    let change = bench.lose();
    let want = Transition {
        from: Status::Unhealthy,
        to: Status::Offline,
        cause: LOST,
        next_check_in: CAUSED_CHECK_DISTANCE,
        ..want
    };
    assert_eq!(change.transition, Some(want));
}

#[test]
fn a_failed_first_try_is_published_and_not_reported() {
    let mut bench = Bench::new(ON);
    assert_eq!(bench.health.status(), Status::Unknown);
    let change = bench.on(HealthEvent::TryFailed);
    assert_eq!(change, HealthChange::of(&[PublishSoon]));
    assert_eq!(bench.health.status(), Status::Offline);
    assert_eq!(bench.on(HealthEvent::TryFailed), HealthChange::default());
    assert!(!bench.health.is_settled());
    let change = bench.check(code(200));
    let want = Some((Status::Unknown, Status::Healthy, false));
    assert_eq!(reported(&change), want);
    let change = bench.on(HealthEvent::TryFailed);
    assert_eq!(change, HealthChange::default(), "the first check has ended");
}

#[test]
fn a_lost_connection_takes_the_endpoint_out_at_once() {
    let mut bench = Bench::checked(ON, code(200));
    let change = bench.lose();
    let want = Some((Status::Healthy, Status::Offline, true));
    assert_eq!(reported(&change), want);
    assert_eq!(change.actions, [Reschedule, PublishNow]);
    assert_eq!(bench.next_check_in(), CAUSED_CHECK_DISTANCE);
    assert_eq!(bench.health.failures(), 1);
    assert_eq!(bench.health.acknowledged_losses(), 1);
    let change = bench.lose();
    assert_eq!(change, HealthChange::default(), "the same failure");
    assert_eq!(bench.health.failures(), 1);
    assert_eq!(bench.health.acknowledged_losses(), 2);
    bench.wait();
    bench.now += secs(1);
    let change = bench.check(code(200));
    assert_eq!(
        change.actions,
        [Discover, PublishSoon],
        "no check has failed, so the breaker keeps its count"
    );
}

#[test]
fn only_a_check_that_counts_declares_an_endpoint_dead() {
    let reset = CheckResult::Failed(ClientFault::Reset);
    let declares = |change: &HealthChange| change.actions.contains(&DeclareDead);
    let mut bench = Bench::checked(ON, code(200));
    assert!(!declares(&bench.check(reset)), "it is still in use");
    assert!(declares(&bench.check(reset)));
    assert!(
        declares(&bench.check(reset)),
        "requests may have come since"
    );
    assert!(!declares(&bench.check(code(500))), "the server lives");
    // Live traffic takes it out while a check is under way, whose result is thrown away.
    for result in [code(200), reset, TIMED_OUT] {
        let mut bench = Bench::checked(ON, code(200));
        let (began, losses) = (bench.now, 1);
        assert!(!declares(&bench.lose()), "{result:?}");
        bench.now += secs(1);
        let change = bench.on(HealthEvent::CheckEnded {
            began,
            result,
            meanwhile: Meanwhile::default(),
            losses,
        });
        assert_eq!(change, HealthChange::default(), "{result:?}");
        assert_eq!(bench.health.status(), Status::Offline);
        bench.wait();
        assert!(declares(&bench.check(reset)), "{result:?}");
    }
}

#[test]
fn the_schedule_counts_from_the_start_of_a_check() {
    let mut bench = Bench::new(ON);
    for (failures, wait) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60)] {
        let began = bench.now;
        let _ = bench.check(code(500));
        assert_eq!(bench.health.failures(), failures);
        assert_eq!(bench.health.next_check(), began + secs(wait));
    }
    let began = bench.now;
    let _ = bench.check(code(200));
    assert_eq!(bench.health.failures(), 0);
    assert_eq!(bench.health.next_check(), began + INTERVAL);
}

#[test]
fn retry_after_delays_the_next_check() {
    let mut bench = Bench::new(ON);
    let _ = bench.check(CheckResult::Response {
        code: 429,
        retry_after: secs(90),
        is_loading: false,
    });
    assert_eq!(bench.next_check_in(), secs(90));
    let _ = bench.lose();
    assert_eq!(bench.next_check_in(), secs(90), "a loss cannot shorten it");
    let bench = Bench::checked(ON, code(503));
    assert_eq!(bench.next_check_in(), secs(4), "it belongs to a 429");
}

#[test]
fn a_changed_configuration_is_checked_and_listed_at_once() {
    let mut bench = Bench::checked(ON, code(429));
    let change = bench.configure(ON, true);
    assert_eq!(change, HealthChange::of(&[Reschedule]));
    assert_eq!(
        bench.next_check_in(),
        Duration::ZERO,
        "the 429 was another's"
    );
    assert_eq!(bench.health.status(), Status::RateLimited);
    let mut bench = Bench::checked(ON, code(200));
    let change = bench.configure(ON, true);
    assert_eq!(change, HealthChange::of(&[Reschedule, Discover]));
}

#[test]
fn a_check_older_than_the_configuration_is_repeated() {
    let mut bench = Bench::checked(AT_ONCE, code(200));
    let (began, losses) = (bench.now, 0);
    bench.now += secs(1);
    let _ = bench.configure(AT_ONCE, true);
    bench.now += secs(1);
    let change = bench.on(HealthEvent::CheckEnded {
        began,
        result: code(429),
        meanwhile: Meanwhile::default(),
        losses,
    });
    let want = Some((Status::Healthy, Status::RateLimited, true));
    assert_eq!(reported(&change), want);
    assert_eq!(bench.next_check_in(), Duration::ZERO);
    let _ = bench.check(code(200));
    assert_eq!(bench.next_check_in(), secs(4));
}

#[test]
fn discovery_is_switched_on_and_off() {
    let (good, bad) = (code(200), code(500));
    let table = [
        (ON, good, ON, false, &[][..]),
        (ON, good, OFF, false, &[ForgetModels]),
        (ON, good, OFF, true, &[Reschedule, ForgetModels]),
        (OFF, good, ON, false, &[Discover]),
        (OFF, good, ON, true, &[Reschedule, Discover]),
        (OFF, bad, ON, false, &[]),
        (OFF, good, OFF, true, &[Reschedule]),
    ];
    for (before, result, after, is_changed, actions) in table {
        let mut bench = Bench::checked(before, result);
        let change = bench.configure(after, is_changed);
        assert_eq!(change, HealthChange::of(actions), "{before:?} {after:?}");
    }
}

#[test]
fn requests_wait_two_seconds_for_the_first_check() {
    let mut bench = Bench::new(ON);
    let last = bench.now + FIRST_CHECK_WAIT - Duration::from_nanos(1);
    assert!(bench.health.is_awaited(last));
    assert!(!bench.health.is_awaited(bench.now + FIRST_CHECK_WAIT));
    let change = bench.on(HealthEvent::FirstCheckOverdue);
    assert_eq!(change, HealthChange::of(&[PublishSoon]));
    let _ = bench.check(code(200));
    let change = bench.on(HealthEvent::Discovered);
    assert_eq!(change, HealthChange::of(&[PublishSoon]));
    assert!(!bench.health.is_awaited(bench.now), "settled");
    let change = bench.on(HealthEvent::FirstCheckOverdue);
    assert_eq!(change, HealthChange::default());
}

#[test]
fn a_removed_endpoint_does_not_change_any_more() {
    let mut bench = Bench::checked(ON, code(200));
    let change = bench.on(HealthEvent::Removed);
    assert_eq!(change, HealthChange::of(&[ForgetSessions, Reschedule]));
    assert!(bench.health.is_removed());
    assert_eq!(bench.lose(), HealthChange::default());
    assert_eq!(bench.check(code(500)), HealthChange::default());
    assert_eq!(bench.health.status(), Status::Healthy);
}

/// docs/contract/balancing.md#9.3
#[test]
fn a_suspect_is_checked_at_once_but_not_again_and_again() {
    let mut bench = Bench::checked(ON, code(200));
    let ended = bench.now;
    let soon = ended + CAUSED_CHECK_DISTANCE;
    let change = bench.on(HealthEvent::Suspected);
    assert_eq!(change.actions, [Reschedule]);
    assert_eq!((change.transition, bench.health.next_check()), (None, soon));
    assert_eq!(bench.on(HealthEvent::Suspected), HealthChange::default());
    let _ = bench.check(code(200));
    bench.now += secs(2);
    let change = bench.on(HealthEvent::Suspected);
    assert_eq!(change.actions, [Reschedule]);
    assert_eq!(bench.health.next_check(), bench.now);
    assert_eq!(bench.health.failures(), 0);
}

#[test]
fn an_endpoint_falls_and_rises_with_checks_in_a_row() {
    use Status::{Healthy, Offline, RateLimited, Unhealthy, Warming};
    let settings = |fall, rise| HealthSettings { fall, rise, ..ON };
    let (good, bad) = (code(200), code(500));
    let table = [
        // fall, rise, the checks after a first one, the status after each
        (
            2,
            1,
            good,
            &[(bad, Healthy), (bad, Unhealthy), (good, Healthy)][..],
        ),
        (
            2,
            1,
            good,
            &[(bad, Healthy), (good, Healthy), (bad, Healthy)],
        ),
        (2, 1, good, &[(TIMED_OUT, Healthy), (bad, Unhealthy)]),
        (2, 1, good, &[(bad, Healthy), (TIMED_OUT, Offline)]),
        (2, 1, good, &[(REFUSED, Offline)]),
        (10, 1, good, &[(bad, Healthy), (REFUSED, Offline)]),
        (
            2,
            1,
            good,
            &[(code(429), Healthy), (code(429), RateLimited)],
        ),
        (3, 2, bad, &[(good, Unhealthy), (good, Healthy)]),
        (
            3,
            2,
            bad,
            &[(good, Unhealthy), (bad, Unhealthy), (good, Unhealthy)],
        ),
        (1, 3, bad, &[(good, Unhealthy), (TIMED_OUT, Offline)]),
        (1, 1, good, &[(LOADING, Warming), (good, Healthy)]),
        (
            2,
            1,
            good,
            &[(bad, Healthy), (LOADING, Warming), (bad, Warming)],
        ),
        (2, 2, bad, &[(LOADING, Unhealthy), (LOADING, Warming)]),
    ];
    for (fall, rise, first, checks) in table {
        let mut bench = Bench::checked(settings(fall, rise), first);
        for (nth, (result, want)) in checks.iter().enumerate() {
            bench.wait();
            let _ = bench.check(*result);
            assert_eq!(
                bench.health.status(),
                *want,
                "{fall} {rise} {checks:?} {nth}"
            );
        }
    }
}

#[test]
fn loading_is_no_failure() {
    let mut bench = Bench::checked(ON, LOADING);
    assert_eq!(bench.health.status(), Status::Warming);
    assert_eq!(bench.health.failures(), 0);
    assert_eq!(bench.next_check_in(), INTERVAL - secs(1));
    let change = bench.check(code(200));
    assert_eq!(change.actions, [Discover, PublishSoon], "all is loaded now");
    let mut bench = Bench::checked(ON, REFUSED);
    let change = bench.check(LOADING);
    let want = Some((Status::Offline, Status::Warming, true));
    assert_eq!(reported(&change), want);
    assert_eq!(change.actions, [ResetBreaker, Discover, PublishSoon]);
    let change = bench.check(LOADING);
    assert_eq!(change.actions, [PublishSoon], "listed already");
}

#[test]
fn a_time_out_counts_for_nothing_while_bytes_arrive() {
    let table = [
        // the result, how long ago bytes arrived, whether the check counts
        (TIMED_OUT, Some(secs(0)), false),
        (TIMED_OUT, Some(INTERVAL), false),
        (TIMED_OUT, Some(INTERVAL + secs(1)), true),
        (TIMED_OUT, None, true),
        (
            CheckResult::Failed(ClientFault::Connect(ConnectFault::TimedOut)),
            Some(secs(1)),
            false,
        ),
        (REFUSED, Some(secs(0)), true),
        (code(500), Some(secs(0)), true),
        (
            CheckResult::Failed(ClientFault::Connect(ConnectFault::Local)),
            None,
            false,
        ),
    ];
    for (result, ago, counts) in table {
        let mut bench = Bench::checked(AT_ONCE, code(200));
        bench.now += secs(60);
        let heard = ago.map(|ago| bench.now + secs(2) - ago);
        let late = Duration::ZERO;
        let change = bench.check_while(secs(2), result, Meanwhile { heard, late });
        let is_out = !bench.health.status().is_routable();
        assert_eq!(is_out, counts, "{result:?} {ago:?}");
        if !counts {
            assert_eq!(change, HealthChange::default());
            assert_eq!(bench.health.failures(), 0);
            assert_eq!(bench.next_check_in(), INTERVAL - secs(2));
        }
    }
}

#[test]
fn a_late_process_throws_its_results_away() {
    for (late, counts) in [(secs(2), true), (secs(3), false)] {
        for result in [TIMED_OUT, code(500), REFUSED] {
            let mut bench = Bench::checked(AT_ONCE, code(200));
            let change = bench.check_while(secs(4), result, Meanwhile { heard: None, late });
            assert_eq!(change.transition.is_some(), counts, "{late:?} {result:?}");
            if !counts {
                assert_eq!(bench.next_check_in(), Duration::ZERO);
            }
        }
    }
}

#[test]
fn a_lost_connection_is_checked_at_once() {
    let settings = HealthSettings { rise: 3, ..ON };
    let mut bench = Bench::checked(settings, code(200));
    bench.now += secs(1);
    let began = bench.now;
    bench.now += secs(1);
    let _ = bench.lose();
    let change = bench.on(HealthEvent::CheckEnded {
        began,
        result: code(200),
        meanwhile: Meanwhile::default(),
        losses: 1,
    });
    assert_eq!(change, HealthChange::default(), "it began before the loss");
    assert_eq!(bench.health.status(), Status::Offline);
    assert_eq!(bench.next_check_in(), Duration::ZERO);
    bench.now += secs(1);
    let change = bench.check(code(200));
    let want = Some((Status::Offline, Status::Healthy, true));
    assert_eq!(reported(&change), want, "whatever rise says");
    let _ = bench.lose();
    bench.wait();
    bench.now += secs(1);
    let _ = bench.check(code(500));
    bench.wait();
    let _ = bench.check(code(200));
    assert_eq!(
        bench.health.status(),
        Status::Unhealthy,
        "rise counts again"
    );
}
