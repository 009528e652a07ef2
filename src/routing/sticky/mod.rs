//! Sticky sessions: which endpoint served a conversation last.
//!
//! A key is made of a value that identifies a conversation and of its model, hashed with a seed of
//! the process, so hashes mean nothing outside of it. The store is bounded: the least recently used
//! entry is removed first, and entries expire when they have been idle for too long. All entries
//! are in one list behind one lock, because the oldest of all entries has to be found. The lock is
//! held for a look-up only, and the feature is off by default.
//!
//! What this module must not do: keep a value in clear, or decide whether an endpoint can serve.
//!
//! Contract: docs/contract/balancing.md#8, docs/contract/scheduling.md#7

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use twox_hash::XxHash3_64;

use crate::config::{StickyPlan, StickySource};
use crate::fleet::Endpoint;
use crate::inspect::{Opening, PromptParts};

/// Entries kept even when `max_sessions` sets no limit: about a hundred megabytes.
const SESSIONS_CEILING: usize = 2_000_000;

/// The values that a key can be made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The value of `X-Olla-Session-ID`.
    pub session: Option<&'a [u8]>,
    /// The body and where its parts are.
    pub prompt: Option<(&'a [u8], &'a PromptParts)>,
    /// The value of `Authorization`; with access on the name of the key, if there is one.
    pub authorization: Option<&'a [u8]>,
    /// The name of the key with access on; each key has sessions of its own
    /// (docs/contract/access.md#15).
    pub key: Option<&'a str>,
    /// The peer's own address.
    pub ip: IpAddr,
}

/// One conversation with one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StickyKey {
    hash: u64,
    source: StickySource,
}

impl StickyKey {
    /// The kind of value it was made of, for `X-Olla-Sticky-Key-Source`. `X-Olla-Session-ID` is
    /// echoed if, and only if, this is the session header.
    pub(crate) fn source(&self) -> StickySource {
        self.source
    }
}

/// The values of `X-Olla-Sticky-Session`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StickyOutcome {
    /// There was no entry.
    Miss,
    /// The entry's endpoint was used.
    Hit,
    /// The entry's endpoint could not be used; the entry names another now.
    Repin,
    /// No value was present to make a key of.
    Disabled,
}

impl StickyOutcome {
    /// The value of the header.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::Repin => "repin",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for StickyOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The bounds of the store. They come with each call, since a reload may change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    idle_ms_max: Option<u64>,
    sessions_max: usize,
}

impl Bounds {
    /// Those of a plan.
    pub(crate) fn of(plan: &StickyPlan) -> Self {
        let ceiling = plan.max_sessions.map_or(SESSIONS_CEILING, |max| max.get());
        Self {
            idle_ms_max: plan.idle_ttl.map(crate::clock::millis),
            sessions_max: ceiling.min(SESSIONS_CEILING),
        }
    }

    fn ended(&self, used_ms: u64, now_ms: u64) -> bool {
        self.idle_ms_max
            .is_some_and(|max| now_ms.saturating_sub(used_ms) >= max)
    }
}

/// The statistics of `/internal/stats/sticky`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StickyCounts {
    /// Entries now.
    pub active_sessions: usize,
    /// New entries.
    pub insertions: u64,
    /// Requests that used their entry.
    pub hits: u64,
    /// Requests that found none.
    pub misses: u64,
    /// Requests that overwrote theirs.
    pub repins: u64,
    /// Entries that went by size, by age, or with their endpoint.
    pub evictions: u64,
}

/// All conversations, for all cores.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    seed: RandomState,
    sessions: Mutex<Sessions>,
}

/// The session of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    key: Option<StickyKey>,
    /// The id of the endpoint that the entry named when the request came.
    pinned: Option<u32>,
    outcome: StickyOutcome,
}

impl Session {
    fn new(key: Option<StickyKey>, pinned: Option<u32>) -> Self {
        let outcome = match (key, pinned) {
            (None, _) => StickyOutcome::Disabled,
            (Some(_), None) => StickyOutcome::Miss,
            (Some(_), Some(_)) => StickyOutcome::Hit,
        };
        Self {
            key,
            pinned,
            outcome,
        }
    }

    /// The index of the endpoint to use, if it is a candidate; `None` too when this snapshot
    /// does not have it any more.
    pub(crate) fn pinned(&self, endpoints: &[Endpoint]) -> Option<usize> {
        let pinned = self.pinned?;
        endpoints.iter().position(|endpoint| endpoint.id == pinned)
    }

    /// Whether it is known by the beginning of its conversation.
    pub(crate) fn is_of_prompt(&self) -> bool {
        self.key
            .is_some_and(|key| key.source == StickySource::PrefixHash)
    }

    /// The key, if there is one.
    pub(crate) fn key(&self) -> Option<StickyKey> {
        self.key
    }

    /// The outcome if an endpoint, by its id, is picked.
    pub(crate) fn outcome_at(&self, endpoint: u32) -> StickyOutcome {
        match (self.key, self.pinned) {
            (None, _) => StickyOutcome::Disabled,
            (Some(_), None) => StickyOutcome::Miss,
            (Some(_), Some(pinned)) if pinned == endpoint => StickyOutcome::Hit,
            (Some(_), Some(_)) => StickyOutcome::Repin,
        }
    }

    /// The outcome, once an endpoint has been picked.
    pub(crate) fn outcome(&self) -> StickyOutcome {
        self.outcome
    }
}

impl Sticky {
    /// The key of a request, from the first configured source that has something to give.
    pub(crate) fn key(
        &self,
        plan: &StickyPlan,
        sources: &Sources<'_>,
        model: Option<&str>,
    ) -> Option<StickyKey> {
        let ip = match sources.ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        plan.key_sources.iter().find_map(|source| {
            let opening;
            let value = match source {
                StickySource::SessionHeader => sources.session,
                StickySource::PrefixHash => {
                    let (body, parts) = sources.prompt?;
                    opening = hash(Opening::of(body, parts)?);
                    Some(&opening[..])
                }
                StickySource::AuthHeader => sources.authorization,
                StickySource::Ip => Some(&ip[..]),
            };
            let value = value.filter(|value| !value.is_empty())?;
            let mut hasher = self.seed.build_hasher();
            hasher.write(source.as_str().as_bytes());
            hasher.write_usize(value.len());
            hasher.write(value);
            if let Some(key) = sources.key {
                hasher.write(key.as_bytes());
                // No name has this byte, nor has the name of a model that follows.
                hasher.write_u8(0);
            }
            // A request without a model has the key of an empty name.
            for c in model.unwrap_or("").chars().flat_map(char::to_lowercase) {
                hasher.write_u32(u32::from(c));
            }
            Some(StickyKey {
                hash: hasher.finish(),
                source: *source,
            })
        })
    }

    /// Looks a key up. Call it once for a request, and only when it has candidates: what is
    /// rejected leaves no trace.
    pub(crate) fn open(&self, key: Option<StickyKey>, bounds: Bounds, now_ms: u64) -> Session {
        let pinned = key.and_then(|key| {
            let mut sessions = self.lock();
            sessions.expire(bounds, now_ms);
            sessions.find(key.hash).map(|node| node.endpoint)
        });
        Session::new(key, pinned)
    }

    /// The same, and the store stays as it is.
    pub(crate) fn look(&self, key: Option<StickyKey>, bounds: Bounds, now_ms: u64) -> Session {
        let pinned = key.and_then(|key| {
            let sessions = self.lock();
            let node = sessions.find(key.hash);
            let is_there = |node: &&Node| !bounds.ended(node.used_ms, now_ms);
            node.filter(is_there).map(|node| node.endpoint)
        });
        Session::new(key, pinned)
    }

    /// Notes that an endpoint, by its id, was picked: at each attempt, so that requests of one
    /// conversation that come meanwhile go the same way.
    pub(crate) fn picked(&self, session: &mut Session, endpoint: u32, bounds: Bounds, now_ms: u64) {
        let Some(key) = session.key else {
            return;
        };
        session.outcome = session.outcome_at(endpoint);
        self.lock().put(key.hash, endpoint, bounds, now_ms);
    }

    /// Counts a request's outcome: once, when its response begins or it has failed for good.
    pub(crate) fn count(&self, session: &Session) {
        let mut sessions = self.lock();
        let figures = &mut sessions.figures;
        match session.outcome {
            StickyOutcome::Hit => figures.hits += 1,
            StickyOutcome::Miss => figures.misses += 1,
            StickyOutcome::Repin => figures.repins += 1,
            StickyOutcome::Disabled => {}
        }
    }

    /// Drops the entries of an endpoint, by its id, that a health check has found not routable.
    /// Walks over all entries.
    pub(crate) fn purge(&self, endpoint: u32) {
        self.lock().purge(endpoint);
    }

    /// The statistics now.
    pub(crate) fn figures(&self, bounds: Bounds, now_ms: u64) -> StickyCounts {
        let mut sessions = self.lock();
        sessions.expire(bounds, now_ms);
        StickyCounts {
            active_sessions: sessions.places.len(),
            ..sessions.figures
        }
    }

    /// A panic ends the process, so a poisoned lock is never seen.
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of a conversation, which may be long, in the form of a value.
fn hash(opening: Opening<'_>) -> [u8; 16] {
    let mut hashes = [0; 16];
    let (system, user) = hashes.split_at_mut(8);
    system.copy_from_slice(&XxHash3_64::oneshot(opening.system).to_le_bytes());
    user.copy_from_slice(&XxHash3_64::oneshot(opening.user).to_le_bytes());
    hashes
}

/// No node.
const NIL: u32 = u32::MAX;

const _: () = assert!(SESSIONS_CEILING < NIL as usize);

/// Entries in the order of their last use, as a list through a slab.
#[derive(Debug)]
struct Sessions {
    places: FxHashMap<u64, u32>,
    nodes: Vec<Node>,
    newest: u32,
    oldest: u32,
    /// The first free node; they are linked by `older`.
    free: u32,
    figures: StickyCounts,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    key: u64,
    used_ms: u64,
    endpoint: u32,
    newer: u32,
    older: u32,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            places: FxHashMap::default(),
            nodes: Vec::new(),
            newest: NIL,
            oldest: NIL,
            free: NIL,
            figures: StickyCounts::default(),
        }
    }
}

impl Sessions {
    fn find(&self, key: u64) -> Option<&Node> {
        self.node(*self.places.get(&key)?)
    }

    fn put(&mut self, key: u64, endpoint: u32, bounds: Bounds, now_ms: u64) {
        let place = match self.places.get(&key) {
            Some(place) => {
                let place = *place;
                self.unlink(place);
                place
            }
            None => {
                while self.places.len() >= bounds.sessions_max && self.oldest != NIL {
                    self.evict(self.oldest);
                }
                self.figures.insertions += 1;
                let place = self.fresh();
                self.places.insert(key, place);
                place
            }
        };
        let older = self.newest;
        let node = Node {
            key,
            used_ms: now_ms,
            endpoint,
            newer: NIL,
            older,
        };
        if let Some(slot) = self.node_mut(place) {
            *slot = node;
        }
        self.newest = place;
        match self.node_mut(older) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
    }

    /// The oldest entries end first, since each use moves an entry to the front.
    fn expire(&mut self, bounds: Bounds, now_ms: u64) {
        while let Some(node) = self.node(self.oldest) {
            if !bounds.ended(node.used_ms, now_ms) {
                return;
            }
            self.evict(self.oldest);
        }
    }

    fn purge(&mut self, endpoint: u32) {
        let mut place = self.oldest;
        while let Some(node) = self.node(place) {
            let next = node.newer;
            if node.endpoint == endpoint {
                self.evict(place);
            }
            place = next;
        }
    }

    fn evict(&mut self, place: u32) {
        let Some(key) = self.node(place).map(|node| node.key) else {
            return;
        };
        self.unlink(place);
        self.places.remove(&key);
        self.figures.evictions += 1;
        let free = self.free;
        if let Some(node) = self.node_mut(place) {
            node.older = free;
        }
        self.free = place;
    }

    /// A place for a node, which the caller fills.
    fn fresh(&mut self) -> u32 {
        if let Some(node) = self.node(self.free) {
            let (place, next) = (self.free, node.older);
            self.free = next;
            return place;
        }
        let place = u32::try_from(self.nodes.len()).unwrap_or(NIL);
        self.nodes.push(Node {
            key: 0,
            used_ms: 0,
            endpoint: 0,
            newer: NIL,
            older: NIL,
        });
        place
    }

    fn unlink(&mut self, place: u32) {
        let Some((newer, older)) = self.node(place).map(|node| (node.newer, node.older)) else {
            return;
        };
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.node_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(usize::try_from(place).ok()?)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests;
