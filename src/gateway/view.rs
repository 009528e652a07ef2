//! A core's view of a snapshot: the snapshot, and values that are derived from it once instead of
//! for each request. Requests share it by `Rc`, so the reference counter stays on this core.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use olla_engine::exchange::Timeouts;
use olla_engine::handler::Limits;
use olla_engine::limit::Nanos;

use super::cors::Cors;
use crate::access::{Policy, names};
use crate::config::{LogLevel, Plan};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::inspect::Wanted;
use crate::routing::sticky::Bounds;
use crate::schedule::scheduler::Settings;
use crate::shared::Snapshot;

/// Room beyond the configured limit. Part of it is for bytes that do not count: `Host`, spaces and
/// line ends. The rest lets most heads over the limit be parsed, so that the error has the form and
/// headers of their route.
const HEAD_SLACK_BYTES: u64 = 64 << 10;

/// Policies whose fleets a core remembers: keys may have fields of their own, and few send requests
/// at a time.
const FLEETS_MAX: usize = 64;

/// A core's view of a snapshot; see the module's documentation.
#[derive(Debug)]
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) cors: Cors,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) sticky: Option<Bounds>,
    pub(super) body_max: Option<u64>,
    pub(super) logs_requests: bool,
    /// What scheduling depends on.
    pub(super) scheduling: Settings,
    /// The endpoints by their numbers in placements.
    numbers: Vec<(u16, u16)>,
    /// The fleets of policies that do not allow every endpoint, as far as requests needed them.
    fleets: RefCell<Vec<(Arc<Policy>, EndpointSet)>>,
    /// Endpoints that were lost since the snapshot was built, and the value of the counter that
    /// this is based on.
    lost: Cell<(u64, EndpointSet)>,
}

impl View {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        let plan = &snapshot.fleet.plan;
        let sticky = &plan.proxy.sticky_sessions;
        let numbered = snapshot.fleet.endpoints.iter().zip(0..);
        let mut numbers: Vec<_> = numbered
            .map(|(endpoint, index)| (endpoint.load.number(), index))
            .collect();
        numbers.sort_unstable();
        Self {
            scheduling: Settings::of(plan),
            numbers,
            cors: Cors::new(&plan.server.cors, snapshot.access.enabled),
            limits: limits(plan),
            timeouts: timeouts(plan),
            sticky: sticky.enabled.then(|| Bounds::of(sticky)),
            body_max: plan.server.request_limits.max_body_size,
            logs_requests: plan.server.request_logging
                && matches!(plan.logging.level, LogLevel::Debug | LogLevel::Info),
            fleets: RefCell::default(),
            // The counter never has this value, so the first request looks.
            lost: Cell::new((u64::MAX, EndpointSet::EMPTY)),
            snapshot,
        }
    }

    /// Takes a token of an endpoint's own limit, if it has one (docs/contract/surface.md#10.1).
    pub(super) fn take_token(&self, index: usize, now: impl FnOnce() -> Nanos) -> bool {
        let bucket = self
            .endpoint(index)
            .and_then(|endpoint| endpoint.bucket.as_ref());
        bucket.is_none_or(|bucket| bucket.take(now()).admitted)
    }

    /// Endpoints that some core could not reach, where the status does not show it yet. `losses`
    /// counts these events.
    pub(super) fn lost(&self, losses: &AtomicU64) -> EndpointSet {
        let now = losses.load(Ordering::Acquire);
        let (seen, lost) = self.lost.get();
        if seen == now {
            return lost;
        }
        let endpoints = self.snapshot.fleet.endpoints.iter().enumerate();
        let lost = endpoints
            .filter(|(_, endpoint)| endpoint.is_lost())
            .map(|(index, _)| index)
            .collect();
        self.lost.set((now, lost));
        lost
    }

    /// The endpoints that a policy allows; `None` = all.
    pub(super) fn fleet_of(&self, policy: &Arc<Policy>) -> Option<EndpointSet> {
        let globs = &policy.fields.endpoints;
        if names::allows_every(globs) {
            return None;
        }
        let mut fleets = self.fleets.borrow_mut();
        let known = fleets.iter().find(|(known, _)| Arc::ptr_eq(known, policy));
        if let Some((_, fleet)) = known {
            return Some(*fleet);
        }
        let endpoints = self.snapshot.fleet.endpoints.iter().enumerate();
        let allowed = endpoints.filter(|(_, endpoint)| names::allows(globs, endpoint.name()));
        let fleet: EndpointSet = allowed.map(|(index, _)| index).collect();
        if fleets.len() >= FLEETS_MAX {
            fleets.clear();
        }
        fleets.push((Arc::clone(policy), fleet));
        Some(fleet)
    }

    /// The index of the endpoint with a number in placements.
    pub(super) fn index_of_number(&self, number: u16) -> Option<usize> {
        let at = self
            .numbers
            .binary_search_by_key(&number, |(known, _)| *known);
        let (_, index) = self.numbers.get(at.ok()?)?;
        Some(usize::from(*index))
    }

    /// Whether requests have the same candidates by another view.
    pub(super) fn routes_like(&self, other: &Self) -> bool {
        let (one, other) = (&self.snapshot, &other.snapshot);
        let ids = |snapshot: &Snapshot| {
            let endpoints = snapshot.fleet.endpoints.iter();
            endpoints.map(|endpoint| endpoint.id).collect::<Vec<_>>()
        };
        Arc::ptr_eq(&one.fleet.plan, &other.fleet.plan)
            && Arc::ptr_eq(&one.models, &other.models)
            && one.fleet.routable == other.fleet.routable
            && ids(one) == ids(other)
    }

    /// An endpoint by its index.
    pub(super) fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.snapshot.fleet.endpoints.get(index)
    }

    /// An endpoint by the index that a lease of this view names.
    ///
    /// # Panics
    /// When the lease is another view's.
    pub(super) fn leased(&self, index: usize) -> &Endpoint {
        &self.snapshot.fleet.endpoints[index]
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.snapshot.fleet.plan
    }

    /// What the inspector looks for in a body, with `tally` also what its tokens are estimated by.
    pub(super) fn wanted(&self, path: &[u8], tally: bool) -> Wanted {
        Wanted {
            name_key: path.ends_with(b"/api/show"),
            vision: true,
            tally,
            prompt: true,
        }
    }
}

fn limits(plan: &Plan) -> Limits {
    let server = &plan.server;
    let head = server
        .request_limits
        .max_header_size
        .saturating_add(HEAD_SLACK_BYTES);
    Limits {
        head_bytes_max: usize::try_from(head)
            .unwrap_or(usize::MAX)
            .min(olla_engine::limits::REQUEST_HEAD_BYTES_CEILING),
        head_timeout: server.read_header_timeout,
        body_pause_max: server.read_timeout,
        body_rate_min: server.min_body_rate,
        idle_timeout: server.idle_timeout,
        stall_timeout: server.stall_timeout,
    }
}

fn timeouts(plan: &Plan) -> Timeouts {
    let proxy = &plan.proxy;
    Timeouts {
        connect: proxy.connection_timeout,
        tls: proxy.tls_handshake_timeout,
        response_header: proxy.response_header_timeout,
        read: proxy.read_timeout,
        response: proxy.response_timeout,
        attempt: None,
        write: plan.server.write_timeout,
    }
}
