//! The snapshot that a core routes by: endpoints with their health and models, frozen.
//!
//! The control thread makes a new [`Fleet`] whenever something changed and hands it to every core;
//! a request keeps the one it began with. The only things in it that move are the counters of
//! [`Live`], which all cores share.
//!
//! contract: balancing 7, 10, 11; operations 2

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::catalogue::Catalogue;
use crate::config::{EndpointPlan, MAX_ENDPOINTS, Plan};
use crate::providers::{Profile, Profiles};

/// One frozen state of everything a request is routed by.
#[derive(Debug)]
pub struct Fleet {
    /// Counts snapshots; higher is newer.
    pub version: u64,
    /// The configuration in force.
    pub plan: Arc<Plan>,
    /// The provider profiles in force.
    pub profiles: Arc<Profiles>,
    /// In the order of the configuration. The place in this list is the endpoint's index, by which
    /// [`EndpointSet`] and the catalogue name it; it holds within one snapshot only.
    pub endpoints: Vec<Endpoint>,
    /// Who has which model, and the listings.
    pub catalogue: Arc<Catalogue>,
    /// Endpoints whose status is routable.
    pub routable: EndpointSet,
    /// Endpoints whose first check has not ended.
    pub unchecked: EndpointSet,
    /// Whether the first round of checks is over.
    pub started: bool,
}

/// One configured backend as it stands.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The same for one name and URL as long as the process lives, reloads included.
    pub id: u32,
    /// What was configured.
    pub plan: Arc<EndpointPlan>,
    /// How its kind of server is spoken to; for `auto` that of the detected type, else
    /// `openai-compatible`.
    pub profile: Arc<Profile>,
    /// Whether `type` is `auto` or absent: allowed in every scope (contract: balancing 3.1).
    pub is_auto: bool,
    /// What its last check said.
    pub status: Status,
    /// What the status pages show of its checks.
    pub health: Health,
    /// Where it can be reached, as last resolved; empty = never resolved.
    pub addresses: Arc<[SocketAddr]>,
    /// When its models were last listed with success.
    pub last_model_sync: Option<SystemTime>,
    /// Number of models in that listing.
    pub model_count: usize,
    /// How many of the failures to reach it ([`Live::lost`]) this status has taken into account.
    pub lost_heard: u32,
    /// Counters that all cores share.
    pub live: Arc<Live>,
}

impl Endpoint {
    /// Whether a core could not reach it and the status does not know of that yet.
    pub fn is_lost(&self) -> bool {
        self.live.lost() != self.lost_heard
    }

    /// The endpoint's unique name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// What `X-Olla-Backend-Type` shows (contract: README 4, surface 5.2).
    pub fn type_shown(&self) -> &str {
        if self.is_auto {
            &self.profile.name
        } else {
            &self.plan.kind_as_written
        }
    }
}

/// The state of an endpoint (contract: balancing 11, operations 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// A good check.
    Healthy,
    /// A good check that took more than ten seconds.
    Busy,
    /// Reserved; routable, never set by a check.
    Warming,
    /// Could not be reached, or did not speak HTTP.
    Offline,
    /// Answered a check with an error.
    Unhealthy,
    /// Never checked.
    #[default]
    Unknown,
    /// Refused the gateway's credentials.
    ConfigError,
    /// Asked to be left alone for a while.
    RateLimited,
}

impl Status {
    /// The word of the status pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Busy => "busy",
            Self::Warming => "warming",
            Self::Offline => "offline",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
            Self::ConfigError => "config_error",
            Self::RateLimited => "rate_limited",
        }
    }

    /// Whether requests may go to an endpoint of this status.
    pub const fn is_routable(self) -> bool {
        matches!(self, Self::Healthy | Self::Busy | Self::Warming)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The figures of an endpoint's checks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Health {
    /// When the last check ended; `None` before the first.
    pub checked_at: Option<SystemTime>,
    /// When the next one is due.
    pub next_check_at: Option<SystemTime>,
    /// How long the last check took.
    pub response_time: Option<Duration>,
    /// Failed checks and connection failures since the last good check.
    pub consecutive_failures: u32,
}

/// Counters of one endpoint that all cores share. Everything else a core counts for itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    /// Requests from the pick until their end.
    in_flight: AtomicU32,
    /// How often a core could not reach it; wraps.
    lost: AtomicU32,
    /// Consecutive failures of live traffic; the breaker's (contract: balancing 10).
    pub(crate) failures: AtomicU32,
    /// Milliseconds on the process's clock until which the breaker is open; 0 = closed.
    pub(crate) open_until_ms: AtomicU64,
    /// Milliseconds at which the half-open probe was let through; 0 = none is out.
    pub(crate) probe_since_ms: AtomicU64,
    /// Milliseconds on the process's clock until which it counts as not speaking the Messages API,
    /// although its type does (contract: translation 5); 0 = it does.
    no_messages_until_ms: AtomicU64,
}

impl Live {
    /// Requests in flight now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one more, if as many are in flight as the caller saw when it chose. False: another
    /// core was faster, choose again (contract: balancing 7, picking and counting are one step).
    pub fn try_begin(&self, seen: u32) -> bool {
        self.in_flight
            .compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Counts one more, whatever others do.
    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// It turned out not to speak the Messages API: remembered until then.
    pub fn refuse_messages(&self, until_ms: u64) {
        self.no_messages_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Its models have been listed again: it may be another server by now.
    pub fn forget_refusals(&self) {
        self.no_messages_until_ms.store(0, Ordering::Relaxed);
    }

    /// Whether it lately turned out not to speak the Messages API.
    pub fn refuses_messages(&self, now_ms: u64) -> bool {
        self.no_messages_until_ms.load(Ordering::Relaxed) > now_ms
    }

    /// A core could not reach the endpoint: all leave it out until the control thread has heard.
    pub fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Release);
    }

    /// Counts the calls of [`Self::lose`]; wraps.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Acquire)
    }

    /// Ends one that [`Self::begin`] or [`Self::try_begin`] counted.
    pub fn end(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "more ended than began");
    }
}

const WORDS: usize = MAX_ENDPOINTS / 64;

/// A set of endpoints of one snapshot, by index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EndpointSet([u64; WORDS]);

impl EndpointSet {
    /// Nothing.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The first `count` endpoints.
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// Adds one.
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Removes one.
    pub fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether it is in.
    pub fn contains(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether nothing is in.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// How many are in.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// What is in both.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= b);
        self
    }

    /// What is in either.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// What is in the first and not in the second.
    #[must_use]
    pub fn minus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= !b);
        self
    }

    /// The indices, ascending: the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    at * 64 + bit
                })
            })
        })
    }
}

impl FromIterator<usize> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::EMPTY;
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl fmt::Debug for EndpointSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_like_sets() {
        let a: EndpointSet = [0, 3, 63, 64, 200, 511].into_iter().collect();
        let b: EndpointSet = [3, 64, 65].into_iter().collect();
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 3, 63, 64, 200, 511]);
        assert_eq!(a.and(&b).iter().collect::<Vec<_>>(), [3, 64]);
        assert_eq!(a.or(&b).len(), 7);
        assert_eq!(a.minus(&b).iter().collect::<Vec<_>>(), [0, 63, 200, 511]);
        assert!(a.contains(511) && !a.contains(512) && !a.contains(1));
        assert!(EndpointSet::EMPTY.is_empty() && !b.is_empty());
        assert_eq!(EndpointSet::first(70).len(), 70);
        let mut c = b;
        c.remove(64);
        assert_eq!(c.iter().collect::<Vec<_>>(), [3, 65]);
    }

    #[test]
    fn a_pick_and_its_count_are_one_step() {
        let live = Live::default();
        let seen = live.in_flight();
        assert!(live.try_begin(seen));
        assert!(!live.try_begin(seen), "somebody was faster");
        live.begin();
        live.end();
        assert_eq!(live.in_flight(), 1);
    }

    #[test]
    fn a_loss_holds_until_it_was_heard() {
        let mut endpoint = crate::routing::testing::endpoint(0, "e", "vllm");
        assert!(!endpoint.is_lost());
        endpoint.live.lose();
        assert!(endpoint.is_lost());
        endpoint.lost_heard = endpoint.live.lost();
        assert!(!endpoint.is_lost());
    }
}
