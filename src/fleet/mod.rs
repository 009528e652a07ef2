//! The snapshot that a core routes by: endpoints with their health and models, frozen.
//!
//! The control thread makes a new [`Fleet`] whenever something changed and hands it to every core;
//! a request keeps the one it began with. Only the counters of [`Live`], which all cores share,
//! change in it.
//!
//! Contract: docs/contract/balancing.md#7, docs/contract/balancing.md#10,
//! docs/contract/balancing.md#11; docs/contract/operations.md#2

pub(crate) mod breaker;
pub(crate) mod cooling;
pub(crate) mod fault;
pub(crate) mod health;
mod last_error;
mod live;
pub(crate) mod retry_after;
mod upstream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use olla_engine::limit::Bucket;

use crate::config::{AUTO, EndpointPlan, Plan};
use crate::endpoint_set::EndpointSet;
use crate::providers::Profile;
use crate::providers::figures::Extractor;
use crate::schedule::EndpointLoad;
use crate::schedule::load::NUMBERS_MAX;

pub(crate) use last_error::{Cause, ErrorKind, Errors, Failed, Failure, LastError};
pub(crate) use live::{HEARD_STEP, Live};
pub(crate) use upstream::{Upstream, own_fields};

/// A frozen state of everything that routing depends on.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// The number of the snapshot; a higher one is newer.
    pub version: u64,
    /// The configuration in force.
    pub plan: Arc<Plan>,
    /// In the order of the configuration. The place in this list is the endpoint's index, by which
    /// [`EndpointSet`] and the catalogue name it; it holds within one snapshot only.
    pub endpoints: Vec<Endpoint>,
    /// Endpoints with a routable status.
    pub routable: EndpointSet,
    /// Endpoints that have not ended their first check.
    pub unchecked: EndpointSet,
    /// Whether the first round of checks is over.
    pub started: bool,
}

/// One configured endpoint and its current state.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Identifies a name and URL while the process lives, across reloads too.
    pub id: u32,
    /// Identifies its idle connections. Changes when it is trusted otherwise, or found elsewhere.
    pub pool_key: u64,
    /// Its configuration.
    pub plan: Arc<EndpointPlan>,
    /// The profile of its kind of server; for `auto` that of the detected type, else
    /// `openai-compatible`.
    pub profile: Arc<Profile>,
    /// Whether `type` is `auto` or absent: allowed in every scope (docs/contract/balancing.md#3.1).
    pub is_auto: bool,
    /// The outcome of its last check.
    pub status: Status,
    /// What the status pages show of its checks.
    pub health: CheckFigures,
    /// Where it can be reached, as last resolved; empty = never resolved.
    pub addresses: Arc<[SocketAddr]>,
    /// When its models were last listed with success.
    pub last_model_sync: Option<SystemTime>,
    /// Number of models in that listing.
    pub model_count: usize,
    /// The number of losses ([`Live::lost`]) that the status takes into account.
    pub acknowledged_losses: u32,
    /// How requests to it are written.
    pub upstream: Arc<Upstream>,
    /// Its rate limit; `None` = no limit.
    pub bucket: Option<Arc<Bucket>>,
    /// Extracts token statistics from its responses.
    pub extractor: Arc<Extractor>,
    /// What failed last.
    pub(crate) errors: Errors,
    /// Counters that all cores share.
    pub live: Arc<Live>,
    /// What scheduling knows of it; all cores share it too.
    pub(crate) load: Arc<EndpointLoad>,
}

impl Endpoint {
    /// A healthy endpoint without models, addresses or limits, for tests and benchmarks.
    #[doc(hidden)]
    pub fn healthy(id: usize, plan: EndpointPlan, profile: Arc<Profile>) -> Self {
        Self {
            id: id as u32,
            pool_key: id as u64,
            is_auto: plan.kind == AUTO,
            extractor: Arc::new(Extractor::compile(&profile.name, &profile.metrics).0),
            profile,
            status: Status::Healthy,
            health: CheckFigures::default(),
            addresses: Arc::from([]),
            last_model_sync: None,
            model_count: 0,
            acknowledged_losses: 0,
            upstream: Arc::new(Upstream::new(&plan, Duration::ZERO, Duration::ZERO, None)),
            bucket: None,
            errors: Errors::default(),
            live: Arc::default(),
            load: Arc::new(EndpointLoad::new((id % usize::from(NUMBERS_MAX)) as u16, 0)),
            plan: Arc::new(plan),
        }
    }

    /// Whether a core could not reach it and the status does not know of that yet.
    pub fn is_lost(&self) -> bool {
        self.live.lost() != self.acknowledged_losses
    }

    /// Why it is not used, or what failed last (docs/contract/observe.md#1).
    pub(crate) fn last_error(&self) -> Option<LastError> {
        self.errors.latest(&self.live)
    }

    /// The endpoint's unique name.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// What `X-Olla-Backend-Type` shows (docs/contract/README.md#4, docs/contract/surface.md#5.2).
    pub fn type_shown(&self) -> &str {
        if self.is_auto {
            &self.profile.name
        } else {
            &self.plan.kind_as_written
        }
    }
}

/// The state of an endpoint (docs/contract/balancing.md#11, docs/contract/operations.md#2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Status {
    /// A good check.
    Healthy,
    /// A good check that took more than ten seconds.
    Busy,
    /// Responded to a check with a 503 that says that the model is being loaded.
    Warming,
    /// Could not be reached, or did not speak HTTP.
    Offline,
    /// Responded to a check with an error.
    Unhealthy,
    /// Never checked.
    #[default]
    Unknown,
    /// Refused the gateway's credentials.
    ConfigError,
    /// Rate limited: it responded with 429.
    RateLimited,
}

impl Status {
    /// The name on the status pages.
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

/// What the status pages show of an endpoint's checks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CheckFigures {
    /// When the last check ended; `None` before the first.
    pub checked_at: Option<SystemTime>,
    /// When the next one is due.
    pub next_check_at: Option<SystemTime>,
    /// How long the last check took.
    pub response_time: Option<Duration>,
    /// Failed checks and connection failures since the last good check.
    pub consecutive_failures: u32,
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_loss_holds_until_it_was_heard() {
        let mut endpoint = crate::routing::testing::endpoint(0, "e", "vllm");
        assert!(!endpoint.is_lost());
        endpoint.live.lose();
        assert!(endpoint.is_lost());
        endpoint.acknowledged_losses = endpoint.live.lost();
        assert!(!endpoint.is_lost());
    }
}
