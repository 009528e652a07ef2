//! The circuit breaker of each endpoint.
//!
//! It counts consecutive failures of live traffic and opens at the fifth, for 30 seconds; then
//! one request at a time probes whether the endpoint is back. Its state is three atomics of
//! [`Live`], shared by all cores. It is independent of the endpoint's health.
//!
//! `balance` reads the state and claims a probe when it picks an endpoint; the lease of the pick
//! reports the outcome. The contract defines what a failure is; a client that disconnects counts as
//! neither success nor failure.
//!
//! Contract: docs/contract/balancing.md#10

use std::sync::atomic::Ordering;

use crate::fleet::Live;

/// Consecutive failures that open the breaker.
pub(crate) const FAILURES_MAX: u32 = 5;
/// How long the breaker stays open.
pub(crate) const OPEN_MS: u64 = 30_000;
/// The time after which another request may probe although a probe has not ended.
pub(crate) const PROBE_MS: u64 = 30_000;

/// The state of a breaker for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Requests pass.
    Closed,
    /// It was open for long enough, and no probe is in flight.
    HalfOpen,
    /// No request passes.
    Open,
}

/// The right to be the probe of a half-open breaker, with the time at which it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BreakerProbe(u64);

/// The state of the breaker. Reading it changes nothing: a request to an endpoint with a half-open
/// breaker has to [`claim`] the probe.
pub(crate) fn state(live: &Live, now_ms: u64) -> State {
    match live.open_until_ms.load(Ordering::Acquire) {
        0 => State::Closed,
        until if now_ms < until => State::Open,
        _ if is_free(live.probe_since_ms.load(Ordering::Acquire), now_ms) => State::HalfOpen,
        _ => State::Open,
    }
}

/// The state of a breaker as pages and metrics show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// [`State::HalfOpen`] while a probe is in flight, too.
    pub(crate) state: State,
    /// Milliseconds on the process's clock at which it opened, and at which it lets a request
    /// through; `None` while it is closed.
    pub(crate) open_ms: Option<(u64, u64)>,
}

/// The state to show.
pub(crate) fn shown(live: &Live, now_ms: u64) -> Shown {
    let until = live.open_until_ms.load(Ordering::Acquire);
    let state = match until {
        0 => State::Closed,
        until if now_ms < until => State::Open,
        _ => State::HalfOpen,
    };
    Shown {
        state,
        open_ms: (until != 0).then(|| (until.saturating_sub(OPEN_MS), until)),
    }
}

impl State {
    /// The name on pages.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }

    /// The value of the metric.
    pub(crate) const fn as_number(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// Lets one request in: `Ok(None)` through a closed breaker, `Ok(Some)` as the probe of a
/// half-open one.
///
/// # Errors
/// The breaker is open, or another request has become the probe.
pub(crate) fn claim(live: &Live, now_ms: u64) -> Result<Option<BreakerProbe>, Refused> {
    let until = live.open_until_ms.load(Ordering::Acquire);
    if until == 0 {
        return Ok(None);
    }
    let before = live.probe_since_ms.load(Ordering::Acquire);
    if now_ms < until || !is_free(before, now_ms) {
        return Err(Refused);
    }
    // 0 means that there is no probe.
    let probe = BreakerProbe(now_ms.max(1));
    if !swap(live, before, probe.0) {
        return Err(Refused);
    }
    // Another core's probe may have ended between the first look and the claim.
    match live.open_until_ms.load(Ordering::Acquire) {
        0 => {
            release(live, probe);
            Ok(None)
        }
        until if now_ms < until => {
            release(live, probe);
            Err(Refused)
        }
        _ => Ok(Some(probe)),
    }
}

/// The breaker is open, or another request is the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// Releases the claim of a request that neither succeeded nor failed, so that the next request can
/// take it.
pub(crate) fn release(live: &Live, probe: BreakerProbe) {
    swap(live, probe.0, 0);
}

/// A complete response head has arrived, with any status. Costs two loads while the breaker is
/// closed and no failure is counted.
pub(crate) fn on_success(live: &Live) {
    if live.failures.load(Ordering::Relaxed) != 0 {
        live.failures.store(0, Ordering::Relaxed);
    }
    if live.open_until_ms.load(Ordering::Relaxed) != 0 {
        live.open_until_ms.store(0, Ordering::Release);
        live.probe_since_ms.store(0, Ordering::Release);
    }
}

/// A health check found the endpoint to be back.
pub(crate) fn reset(live: &Live) {
    on_success(live);
}

/// A request failed; it was the probe if it had claimed one. Failures of requests that began before
/// the breaker opened do not prolong the open state.
pub(crate) fn on_failure(live: &Live, now_ms: u64, probe: Option<BreakerProbe>) {
    // A probe that took too long was replaced by the next one and no longer counts.
    let decides = probe
        .is_some_and(|BreakerProbe(since)| live.probe_since_ms.load(Ordering::Acquire) == since);
    let counts = || live.open_until_ms.load(Ordering::Acquire) == 0;
    let last = || live.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX;
    if decides || (counts() && last()) {
        open(live, now_ms);
    }
}

/// The time is stored first: a core that then finds the slot free also finds the breaker open.
fn open(live: &Live, now_ms: u64) {
    live.open_until_ms
        .store(now_ms.saturating_add(OPEN_MS), Ordering::Release);
    live.probe_since_ms.store(0, Ordering::Release);
}

fn is_free(since: u64, now_ms: u64) -> bool {
    since == 0 || now_ms.saturating_sub(since) >= PROBE_MS
}

fn swap(live: &Live, from: u64, to: u64) -> bool {
    live.probe_since_ms
        .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opened(now_ms: u64) -> Live {
        let live = Live::default();
        (0..FAILURES_MAX).for_each(|_| on_failure(&live, now_ms, None));
        live
    }

    fn probe(live: &Live, now_ms: u64) -> BreakerProbe {
        claim(live, now_ms).unwrap().unwrap()
    }

    #[test]
    fn pages_show_since_when_and_until_when_it_is_open() {
        let live = Live::default();
        assert_eq!(shown(&live, 7).state, State::Closed);
        assert_eq!(shown(&live, 7).open_ms, None);
        let live = opened(7);
        let open_ms = Some((7, 7 + OPEN_MS));
        let state = State::Open;
        assert_eq!(shown(&live, 8), Shown { state, open_ms });
        let _probe = probe(&live, 7 + OPEN_MS);
        let state = State::HalfOpen;
        assert_eq!(shown(&live, 8 + OPEN_MS), Shown { state, open_ms });
    }

    #[test]
    fn the_fifth_failure_in_a_row_opens_it() {
        let live = Live::default();
        (0..4).for_each(|_| on_failure(&live, 7, None));
        assert_eq!(claim(&live, 7), Ok(None));
        on_success(&live);
        (0..4).for_each(|_| on_failure(&live, 8, None));
        assert_eq!(
            state(&live, 8),
            State::Closed,
            "a success begins the count anew"
        );
        on_failure(&live, 9, None);
        assert_eq!(state(&live, 9), State::Open);
        assert_eq!(claim(&live, 9), Err(Refused));
        assert_eq!(state(&live, 9 + OPEN_MS - 1), State::Open);
        assert_eq!(state(&live, 9 + OPEN_MS), State::HalfOpen);
    }

    #[test]
    fn one_probe_decides() {
        let live = opened(0);
        let first = probe(&live, OPEN_MS);
        assert_eq!(state(&live, OPEN_MS), State::Open);
        assert_eq!(claim(&live, OPEN_MS + 1), Err(Refused));
        on_failure(&live, OPEN_MS + 5, Some(first));
        assert_eq!(claim(&live, 2 * OPEN_MS + 4), Err(Refused), "another 30 s");
        let second = probe(&live, 2 * OPEN_MS + 5);
        on_success(&live);
        release(&live, second);
        assert_eq!(claim(&live, 2 * OPEN_MS + 6), Ok(None));
        (0..4).for_each(|_| on_failure(&live, 2 * OPEN_MS + 7, None));
        assert_eq!(state(&live, 2 * OPEN_MS + 8), State::Closed);
    }

    #[test]
    fn a_lost_probe_frees_its_slot() {
        let live = opened(0);
        let first = probe(&live, OPEN_MS);
        assert_eq!(claim(&live, OPEN_MS + PROBE_MS - 1), Err(Refused));
        let second = probe(&live, OPEN_MS + PROBE_MS);
        on_failure(&live, OPEN_MS + PROBE_MS, Some(first));
        release(&live, first);
        assert_eq!(
            claim(&live, OPEN_MS + PROBE_MS),
            Err(Refused),
            "the second is out"
        );
        on_failure(&live, OPEN_MS + PROBE_MS + 1, Some(second));
        assert_eq!(state(&live, OPEN_MS + PROBE_MS + OPEN_MS), State::Open);
    }

    #[test]
    fn a_probe_without_verdict_is_given_back() {
        let live = opened(0);
        let first = probe(&live, OPEN_MS);
        release(&live, first);
        assert_eq!(state(&live, OPEN_MS), State::HalfOpen);
    }

    #[test]
    fn an_endpoint_that_is_back_is_let_in_at_once() {
        let live = opened(0);
        reset(&live);
        assert_eq!(claim(&live, 1), Ok(None));
        (0..4).for_each(|_| on_failure(&live, 2, None));
        assert_eq!(state(&live, 2), State::Closed, "the count begins anew");
    }

    #[test]
    fn stragglers_prolong_nothing() {
        let live = opened(0);
        on_failure(&live, OPEN_MS - 1, None);
        let _probe = probe(&live, OPEN_MS);
        on_failure(&live, OPEN_MS + 1, None);
        assert_eq!(state(&live, OPEN_MS + PROBE_MS), State::HalfOpen);
    }

    #[test]
    fn many_cores_get_one_probe() {
        let live = opened(0);
        let claims: usize = std::thread::scope(|scope| {
            let claim = || usize::from(matches!(claim(&live, OPEN_MS), Ok(Some(_))));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(claims, 1);
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Wait(u64),
        Begin,
        Succeed,
        Fail,
        Leave,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0u64..40_000).prop_map(Event::Wait),
            Just(Event::Begin),
            Just(Event::Begin),
            Just(Event::Succeed),
            Just(Event::Fail),
            Just(Event::Fail),
            Just(Event::Leave),
        ];
        prop::collection::vec(event, 0..120)
    }

    proptest! {
        /// Whatever happens: at most one probe in any 30 s, none while it is open, and an open
        /// breaker gives everybody another chance in time.
        #[test]
        fn it_neither_floods_nor_forgets(events in events()) {
            let live = Live::default();
            let mut now = 0;
            let mut running: Vec<Option<BreakerProbe>> = Vec::new();
            for event in events {
                match event {
                    Event::Wait(ms) => now += ms,
                    Event::Begin => {
                        let until = live.open_until_ms.load(Ordering::Relaxed);
                        let expected = state(&live, now);
                        match claim(&live, now) {
                            Ok(probe) => {
                                let wanted = match probe {
                                    None => State::Closed,
                                    Some(_) => State::HalfOpen,
                                };
                                prop_assert_eq!(expected, wanted);
                                if probe.is_some() {
                                    prop_assert!(now >= until);
                                    prop_assert_eq!(claim(&live, now), Err(Refused));
                                }
                                running.push(probe);
                            }
                            Err(Refused) => prop_assert_eq!(expected, State::Open),
                        }
                    }
                    Event::Succeed => {
                        if running.pop().is_some() {
                            on_success(&live);
                            prop_assert_eq!(state(&live, now), State::Closed);
                        }
                    }
                    Event::Fail => {
                        if let Some(probe) = running.pop() {
                            on_failure(&live, now, probe);
                        }
                    }
                    Event::Leave => {
                        if let Some(Some(probe)) = running.pop() {
                            release(&live, probe);
                        }
                    }
                }
            }
            let late = now + OPEN_MS + PROBE_MS;
            prop_assert!(claim(&live, late).is_ok());
        }
    }
}
