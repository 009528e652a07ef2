//! The balancers: pick one endpoint of the candidates and count the request in the same step.
//!
//! A pick takes the candidates that the request has not tried, leaves out open breakers and
//! endpoints without rate tokens, chooses one, and counts the request as in flight. Cores share the
//! in-flight counts of [`crate::fleet::Live`] and one turn counter for each
//! set of candidates ([`Turns`]).
//!
//! Contract: docs/contract/balancing.md#7, docs/contract/surface.md#10.1

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustc_hash::FxHasher;

use super::rejection::Fault;
use crate::config::Balancer;
use crate::endpoint_set::EndpointSet;
use crate::fleet::breaker::{self, BreakerProbe, State};
use crate::fleet::{Endpoint, HEARD_STEP, Live, Status};
use crate::schedule::load;

/// Candidate sets that have a turn counter. There are about as many sets as pairs of a model and a
/// scope. Beyond this bound, a new set replaces the one with the fewest turns in its window.
const TURNS_MAX: usize = 1024;
/// Slots that may hold the counter of a set.
const WINDOW: usize = 8;

const _: () = assert!(TURNS_MAX.is_power_of_two() && WINDOW <= TURNS_MAX);

/// A turn counter for each set of candidates, shared by all cores. With a single counter, two
/// models that are requested alternately would each stay with one endpoint.
#[derive(Debug)]
pub struct Turns {
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the set; 0 = free.
    set: AtomicU64,
    /// Turns taken.
    taken: AtomicU64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            slots: (0..TURNS_MAX).map(|_| Slot::default()).collect(),
        }
    }
}

impl Turns {
    /// Takes a turn of a set: 0, 1, 2, …
    fn next(&self, set: &EndpointSet) -> u64 {
        self.slot(set)
            .map_or(0, |slot| slot.taken.fetch_add(1, Ordering::Relaxed))
    }

    /// The turn of a set that is next. Takes none.
    fn coming(&self, set: &EndpointSet) -> u64 {
        let hash = Self::hash(set);
        let slot = self
            .window(hash)
            .find(|slot| slot.set.load(Ordering::Relaxed) == hash);
        slot.map_or(0, |slot| slot.taken.load(Ordering::Relaxed))
    }

    /// Two sets with the same hash share their turns, which is harmless.
    fn hash(set: &EndpointSet) -> u64 {
        let mut hasher = FxHasher::default();
        set.hash(&mut hasher);
        spread(hasher.finish()) | 1
    }

    fn window(&self, hash: u64) -> impl Iterator<Item = &Slot> {
        let home = usize::try_from(hash >> 32).unwrap_or(0) % TURNS_MAX;
        (home..home + WINDOW).filter_map(|at| self.slots.get(at % TURNS_MAX))
    }

    fn slot(&self, set: &EndpointSet) -> Option<&Slot> {
        let hash = Self::hash(set);
        let window = || self.window(hash);
        if let Some(slot) = window().find(|slot| slot.set.load(Ordering::Relaxed) == hash) {
            return Some(slot);
        }
        for slot in window() {
            match slot
                .set
                .compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Some(slot),
                Err(other) if other == hash => return Some(slot),
                Err(_) => {}
            }
        }
        // The window is full: the set with the fewest turns is replaced.
        let slot = window().min_by_key(|slot| slot.taken.load(Ordering::Relaxed))?;
        slot.set.store(hash, Ordering::Relaxed);
        slot.taken.store(0, Ordering::Relaxed);
        Some(slot)
    }
}

/// Makes every bit of a number depend on every other (the finisher of SplitMix64).
fn spread(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The inputs of a pick.
#[derive(Debug, Clone, Copy)]
pub struct Picker<'a> {
    /// The endpoints of the snapshot that the indices refer to.
    pub endpoints: &'a [Endpoint],
    /// `proxy.load_balancer`.
    pub balancer: Balancer,
    /// Shared by all cores.
    pub turns: &'a Turns,
    /// Milliseconds on the process's clock.
    pub now_ms: u64,
    /// A random number, a new one for each pick.
    pub random: u64,
}

/// Why no endpoint was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// Every candidate has been tried, or its breaker is open.
    NoneLeft,
    /// The remaining candidates have no rate tokens.
    Throttled,
    /// The remaining candidates are full, and the request may wait.
    Full,
}

impl NoPick {
    /// The error of the request. `tried` tells whether there were attempts before.
    pub const fn fault(self, tried: bool) -> Fault {
        match self {
            Self::Throttled => Fault::Throttled,
            Self::NoneLeft | Self::Full if tried => Fault::BackendError,
            Self::NoneLeft | Self::Full => Fault::NoHealthy,
        }
    }
}

/// What becomes of the endpoint of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// The balancer picks.
    None,
    /// It is picked.
    Kept(usize),
    /// The balancer picks another, as long as there is one.
    Crowded(usize),
}

impl Pin {
    /// The endpoint, if it is picked and among these.
    pub(crate) fn kept(self, left: &EndpointSet) -> Option<usize> {
        match self {
            Self::Kept(index) if left.contains(index) => Some(index),
            _ => None,
        }
    }

    /// Those that the balancer picks from.
    pub(crate) fn others(self, left: EndpointSet) -> EndpointSet {
        let mut others = left;
        if let Self::Crowded(index) = self {
            others.remove(index);
        }
        if others.is_empty() { left } else { others }
    }
}

impl Picker<'_> {
    /// Picks one of the candidates that have not been tried, and counts it as in flight until the
    /// lease is dropped. `pinned` takes precedence over the balancer if it can be picked
    /// (docs/contract/balancing.md#8). `take_token` takes a rate token of an endpoint and says
    /// whether there was one; it is called once at the most for each endpoint.
    ///
    /// # Errors
    /// [`NoPick`]; nothing is counted then, and no token taken.
    pub fn pick(
        &self,
        candidates: &EndpointSet,
        tried: &EndpointSet,
        pinned: Option<usize>,
        mut take_token: impl FnMut(usize) -> bool,
    ) -> Result<Lease, NoPick> {
        let mut left = self.left(candidates, tried);
        let pin = self.pin(pinned, &left);
        let mut pinned = pin.kept(&left);
        let mut throttled = false;
        loop {
            let index = match pinned.take() {
                Some(index) => self.begin(index),
                None => self.choose(&self.preferred(pin.others(left))),
            };
            let Some((index, mut lease)) = index else {
                return Err(if throttled {
                    NoPick::Throttled
                } else {
                    NoPick::NoneLeft
                });
            };
            // Refused if another request has become the probe since the breakers were looked at.
            if let Ok(probe) = breaker::claim(&lease.live, self.now_ms) {
                lease.probe = probe;
                if take_token(index) {
                    return Ok(lease);
                }
                throttled = true;
            }
            left.remove(index);
        }
    }

    /// The candidates that have not been tried and whose breakers are not open.
    pub fn left(&self, candidates: &EndpointSet, tried: &EndpointSet) -> EndpointSet {
        let is_closed = |index: &usize| {
            self.endpoints
                .get(*index)
                .is_some_and(|endpoint| breaker::state(&endpoint.live, self.now_ms) != State::Open)
        };
        candidates.minus(tried).iter().filter(is_closed).collect()
    }

    /// Counts a request at an endpoint as in flight, if its breaker lets it pass.
    pub(crate) fn claim(&self, index: usize) -> Option<Lease> {
        let (_, mut lease) = self.begin(index)?;
        lease.probe = breaker::claim(&lease.live, self.now_ms).ok()?;
        Some(lease)
    }

    /// The endpoint that a balancer that does not predict chooses of these; counts nothing.
    pub(crate) fn choose_among(&self, left: &EndpointSet) -> Option<usize> {
        self.choose_by(left, |set| self.turns.next(set))
    }

    /// The one that it would choose next; takes no turn. Among endpoints that are chosen at random
    /// it is one of them.
    pub(crate) fn look_among(&self, left: &EndpointSet) -> Option<usize> {
        self.choose_by(left, |set| self.turns.coming(set))
    }

    fn choose_by(
        &self,
        left: &EndpointSet,
        turn: impl FnOnce(&EndpointSet) -> u64,
    ) -> Option<usize> {
        if left.len() == 1 {
            return left.iter().next();
        }
        let left = self.preferred(*left);
        let nth = |set: &EndpointSet| {
            let place = match set.len() {
                0 | 1 => 0,
                count => turn(&left) % u64::try_from(count).unwrap_or(u64::MAX),
            };
            set.iter().nth(usize::try_from(place).unwrap_or(0))
        };
        match self.balancer {
            Balancer::Priority => self.by_priority(&left),
            Balancer::RoundRobin => nth(&left),
            Balancer::LeastTime | Balancer::LeastConnections => nth(&self.fewest(&left)?.1),
        }
    }

    /// What becomes of the endpoint of a session among these: one that warms up is left while another
    /// is there, and so is one that has too many requests (docs/contract/scheduling.md#7).
    pub(crate) fn pin(&self, pinned: Option<usize>, left: &EndpointSet) -> Pin {
        let Some(index) = pinned.filter(|index| self.preferred(*left).contains(*index)) else {
            return Pin::None;
        };
        let in_flight = |index: usize| Some(self.endpoints.get(index)?.live.in_flight());
        let all = || left.iter().filter_map(in_flight);
        match in_flight(index).is_some_and(|own| load::is_crowded(own, all())) {
            true => Pin::Crowded(index),
            false => Pin::Kept(index),
        }
    }

    /// The set without the warming endpoints, while any other is left.
    fn preferred(&self, left: EndpointSet) -> EndpointSet {
        let is_warming = |index: &usize| {
            let endpoint = self.endpoints.get(*index);
            endpoint.is_some_and(|endpoint| endpoint.status == Status::Warming)
        };
        let warming: EndpointSet = left.iter().filter(is_warming).collect();
        let others = left.minus(&warming);
        if others.is_empty() { left } else { others }
    }

    fn choose(&self, left: &EndpointSet) -> Option<(usize, Lease)> {
        match self.balancer {
            Balancer::Priority => self.begin(self.by_priority(left)?),
            Balancer::RoundRobin => self.begin(self.nth(left, left.len())?),
            Balancer::LeastTime | Balancer::LeastConnections => self.by_connections(left),
        }
    }

    fn begin(&self, index: usize) -> Option<(usize, Lease)> {
        let live = &self.endpoints.get(index)?.live;
        live.begin();
        Some((index, Lease::new(index, live)))
    }

    /// The member of a set that has the next turn.
    fn nth(&self, set: &EndpointSet, count: usize) -> Option<usize> {
        let turn = match count {
            0 => return None,
            1 => 0,
            _ => self.turns.next(set) % u64::try_from(count).unwrap_or(u64::MAX),
        };
        set.iter().nth(usize::try_from(turn).unwrap_or(0))
    }

    /// The highest tier only; within it at random, weighted by status.
    fn by_priority(&self, left: &EndpointSet) -> Option<usize> {
        let of = |index: usize| self.endpoints.get(index);
        let top = left.iter().filter_map(of).map(|e| e.plan.priority).max()?;
        let tier = || {
            let all = left.iter().filter_map(|index| Some((index, of(index)?)));
            all.filter(|(_, endpoint)| endpoint.plan.priority == top)
        };
        let total: u64 = tier().map(|(_, endpoint)| weight(endpoint.status)).sum();
        // The high half of the product: a number below `total`, all but evenly.
        let mut point = u64::try_from((u128::from(self.random) * u128::from(total)) >> 64).ok()?;
        for (index, endpoint) in tier() {
            let weight = weight(endpoint.status);
            if point < weight {
                return Some(index);
            }
            point -= weight;
        }
        None
    }

    /// The endpoint with the fewest requests in flight; among equals, the one with the next turn.
    fn by_connections(&self, left: &EndpointSet) -> Option<(usize, Lease)> {
        // Each pick takes one turn, even if it has to retry because another core was faster.
        let mut turn = None;
        loop {
            let (fewest, tied) = self.fewest(left)?;
            let index = match tied.len() {
                1 => tied.iter().next()?,
                count => {
                    let turn = *turn.get_or_insert_with(|| self.turns.next(left));
                    let place = turn % u64::try_from(count).unwrap_or(u64::MAX);
                    tied.iter().nth(usize::try_from(place).unwrap_or(0))?
                }
            };
            if let Some(lease) = self.begin_if(index, fewest) {
                return Some((index, lease));
            }
        }
    }

    /// The smallest number in flight, and the endpoints that have it; `None` for an empty set.
    fn fewest(&self, left: &EndpointSet) -> Option<(u32, EndpointSet)> {
        let mut fewest = u32::MAX;
        let mut tied = EndpointSet::EMPTY;
        for index in left.iter() {
            let in_flight = self.endpoints.get(index)?.live.in_flight();
            if in_flight < fewest {
                fewest = in_flight;
                tied = EndpointSet::EMPTY;
            }
            if in_flight == fewest {
                tied.insert(index);
            }
        }
        (!tied.is_empty()).then_some((fewest, tied))
    }

    /// Counts a request only if the number in flight is still `seen`. So counts rise one at a time,
    /// and in a burst no endpoint gets two requests ahead of another.
    fn begin_if(&self, index: usize, seen: u32) -> Option<Lease> {
        let live = &self.endpoints.get(index)?.live;
        live.try_begin(seen).then(|| Lease::new(index, live))
    }
}

/// The share of an endpoint in its tier, in tenths (docs/contract/balancing.md#7).
const fn weight(status: Status) -> u64 {
    match status {
        Status::Busy => 3,
        Status::Warming => 1,
        _ => 10,
    }
}

/// One attempt at an endpoint: in flight until it is dropped.
///
/// Report the outcome with [`Self::succeeded`] or [`Self::failed`]. If it is dropped without, as
/// when the client disconnects, nothing is recorded about the endpoint.
#[derive(Debug)]
#[must_use = "dropping it ends the attempt"]
pub struct Lease {
    endpoint: usize,
    live: Arc<Live>,
    probe: Option<BreakerProbe>,
    /// When the arrival of bytes was last noted.
    heard: Option<Instant>,
}

impl Lease {
    /// For an endpoint where the request is counted already.
    fn new(endpoint: usize, live: &Arc<Live>) -> Self {
        Self {
            endpoint,
            live: Arc::clone(live),
            probe: None,
            heard: None,
        }
    }

    /// Bytes of a response have arrived: the endpoint lives (docs/contract/observe.md#1).
    pub fn heard(&mut self, now: Instant, clock_ms: impl FnOnce(Instant) -> u64) {
        if self
            .heard
            .is_none_or(|at| now.saturating_duration_since(at) >= HEARD_STEP)
        {
            self.heard = Some(now);
            self.live.hear(clock_ms(now));
        }
    }

    /// The endpoint's index in the snapshot of the pick.
    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// A complete response head has arrived, with any status.
    pub fn succeeded(&mut self) {
        self.probe = None;
        breaker::on_success(&self.live);
    }

    /// The attempt failed before there was a response, or the response was malformed or late
    /// (docs/contract/balancing.md#10).
    pub fn failed(&mut self, now_ms: u64) {
        breaker::on_failure(&self.live, now_ms, self.probe.take());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(probe) = self.probe {
            breaker::release(&self.live, probe);
        }
        self.live.end();
    }
}

#[cfg(test)]
mod tests;
