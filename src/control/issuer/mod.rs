//! The keys of the token issuer: fetches them, or follows their file, and puts them in force.
//!
//! One task at a time fetches; whatever asks meanwhile gets the outcome of the same fetch. A set is
//! put in force whole or not at all.
//!
//! Contract: docs/contract/access.md#9

mod schedule;
pub(super) mod waiting;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::client::{self, BodyWanted};
use olla_engine::h1::emit;
use olla_engine::rt;
use url::Url;

use super::fetch::resolved;
use super::state::ControlState;
use crate::access::IssuerKeys;
use crate::config::{BaseUrl, JwksSource, JwtPlan, KeySet, SET_BYTES_MAX, Scheme, read_set};
use crate::format;
use crate::log::{Level, Value, events};
use crate::shared::{ReplyTo, ToCore};
use schedule::Schedule;

/// Name of the client of a fetch.
const AGENT: &str = concat!("olla-Discovery/", env!("CARGO_PKG_VERSION"));

/// Time limit of a fetch.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

/// Interval of looks at a file. A version is taken over when two looks have seen it, so that it is in
/// force within 2 s of its last write.
const LOOK: Duration = Duration::from_millis(750);

/// Follows the issuer of the configuration in force, for ever.
pub(super) async fn follow(state: &ControlState) {
    // Keys that were fetched from a URL stay in force over a reload that keeps the URL.
    let mut fetched: Option<(String, Instant)> = None;
    loop {
        let plan = Arc::clone(&state.config().plan.access);
        let jwt = plan.jwt.as_ref().filter(|_| plan.enabled);
        match jwt.map(|jwt| (jwt, &jwt.jwks)) {
            None => {
                fetched = None;
                keys(state).replace(None);
                keys(state).set_may_fetch(false);
                while Arc::ptr_eq(&state.config().plan.access, &plan) {
                    state.release_waiting();
                    state.issuer.woken.wait().await;
                }
            }
            Some((jwt, JwksSource::File { path, set })) => {
                let set = Arc::clone(set);
                fetched = None;
                follow_file(state, jwt, path, set).await;
            }
            Some((jwt, JwksSource::Url(url))) => {
                let last = fetched.take().filter(|(from, _)| from == url);
                let last = last.map(|(_, at)| at);
                let last = follow_url(state, jwt, url, last).await;
                fetched = last.map(|at| (url.clone(), at));
            }
        }
    }
}

fn keys(state: &ControlState) -> &IssuerKeys {
    state.common.access.issuer()
}

/// Whether the configuration still has this issuer.
fn is_current(state: &ControlState, jwt: &JwtPlan) -> bool {
    let plan = &state.config().plan.access;
    plan.enabled && plan.jwt.as_ref() == Some(jwt)
}

/// What tells a version of a file from another; `None` = there is no file.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len(), file.ino()))
}

/// Follows a file until the configuration changes.
async fn follow_file(state: &ControlState, jwt: &JwtPlan, path: &Path, set: Arc<KeySet>) {
    let issuer = keys(state);
    issuer.set_may_fetch(false);
    state.fetched(set);
    // A version that is written while the configuration is read has another stamp at the next look.
    let mut taken = stamp(path);
    let mut seen = taken;
    while is_current(state, jwt) {
        state.release_waiting();
        let _ = rt::timeout(LOOK, state.issuer.woken.wait()).await;
        let now = stamp(path);
        if now != taken && now == seen {
            taken = now;
            match read_set(path) {
                Ok(set) => state.fetched(Arc::new(set)),
                Err(error) => state.not_fetched(Level::Error, &error, None),
            }
        }
        seen = now;
    }
}

/// Fetches from a URL until the configuration changes. `last` is when the keys in force were fetched
/// from it, if they were; returns the same for the keys that are left.
async fn follow_url(
    state: &ControlState,
    jwt: &JwtPlan,
    url: &str,
    last: Option<Instant>,
) -> Option<Instant> {
    let issuer = keys(state);
    if last.is_none() {
        issuer.replace(None);
    }
    let mut schedule = Schedule::new(Instant::now(), (jwt.refresh, jwt.stale_limit), last);
    while is_current(state, jwt) {
        let now = Instant::now();
        if schedule.is_stale(now) && issuer.count() > 0 {
            issuer.replace(None);
        }
        let is_asked = !state.issuer.waiting.borrow().is_empty() && schedule.take_unknown(now);
        if is_asked || schedule.is_due(now) {
            // Requests that come meanwhile wait for the same fetch.
            issuer.set_may_fetch(true);
            let fetched = fetch(state, url).await;
            let now = Instant::now();
            if !is_current(state, jwt) {
                break;
            }
            match fetched {
                Ok(set) => {
                    schedule.succeeded(now);
                    state.fetched(Arc::new(set));
                }
                Err(error) => {
                    let pause = schedule.failed(now);
                    state.not_fetched(Level::Warn, &error, Some(pause));
                }
            }
        }
        let now = Instant::now();
        issuer.set_may_fetch(schedule.may_fetch_unknown(now));
        state.release_waiting();
        let pause = schedule.pause(now);
        if !pause.is_zero() {
            let _ = rt::timeout(pause, state.issuer.woken.wait()).await;
        }
    }
    schedule.last_success()
}

impl ControlState {
    /// Puts keys in force.
    fn fetched(&self, set: Arc<KeySet>) {
        let count = set.len() as u64;
        let issuer = keys(self);
        issuer.replace(Some(set));
        let fetches = &issuer.fetches;
        fetches.ok.fetch_add(1, Ordering::Relaxed);
        fetches.is_up.store(true, Ordering::Relaxed);
        let now_s = crate::clock::unix_millis(SystemTime::now()) / 1000;
        fetches.last_success_s.store(now_s, Ordering::Relaxed);
        let fields = [("keys", Value::Num(count))];
        self.logger
            .emit(Level::Info, events::SIGNING_KEYS_FETCHED, &fields);
    }

    /// Keeps the keys that are in force.
    fn not_fetched(&self, level: Level, error: &str, pause: Option<Duration>) {
        let fetches = &keys(self).fetches;
        fetches.failed.fetch_add(1, Ordering::Relaxed);
        fetches.is_up.store(false, Ordering::Relaxed);
        let last_s = fetches.last_success_s.load(Ordering::Relaxed);
        let last = format::instant(SystemTime::UNIX_EPOCH + Duration::from_secs(last_s));
        let mut fields = vec![("error", Value::Str(error))];
        if last_s > 0 {
            fields.push(("last_success", Value::Str(&last)));
        }
        if let Some(pause) = pause {
            let next = self.common.clock_ms(Instant::now() + pause);
            fetches.next_try_ms.store(next, Ordering::Relaxed);
            fields.push(("next_try_s", Value::Num(pause.as_secs())));
        }
        self.logger
            .emit(level, events::SIGNING_KEYS_NOT_FETCHED, &fields);
    }

    /// Lets all requests go on that wait for new keys.
    fn release_waiting(&self) {
        for ReplyTo { core, ticket } in self.issuer.waiting.take() {
            self.outlet
                .cores
                .send(core, ToCore::IssuerKeysTried { ticket });
        }
    }
}

/// Fetches a set: one request, no redirects, 200 only.
async fn fetch(state: &ControlState, url: &str) -> Result<KeySet, String> {
    let end = Instant::now() + FETCH_LIMIT;
    let left = || end.saturating_duration_since(Instant::now());
    // Both were valid when the configuration was read.
    let base = BaseUrl::parse(url).map_err(|_| "the URL cannot be used".to_owned())?;
    let url = Url::parse(url.trim()).map_err(|error| error.to_string())?;
    let network = &state.network;
    let addresses = resolved(&network.resolver, &base.host, base.port, left()).await;
    let addresses = addresses.map_err(|fault| fault.as_str().to_owned())?;
    let tls = (base.scheme == Scheme::Https).then(|| network.trusts.of_host(&base.host));
    let mut request = Vec::with_capacity(512);
    request.extend_from_slice(b"GET ");
    request.extend_from_slice(url.path().as_bytes());
    if let Some(query) = url.query() {
        request.push(b'?');
        request.extend_from_slice(query.as_bytes());
    }
    request.extend_from_slice(b" HTTP/1.1\r\n");
    emit::field(&mut request, b"Host", base.host_header.as_bytes());
    emit::field(&mut request, b"User-Agent", AGENT.as_bytes());
    emit::field(&mut request, b"Accept", b"application/json");
    emit::field(&mut request, b"Connection", b"close");
    request.extend_from_slice(b"\r\n");
    let body = BodyWanted::Whole(SET_BYTES_MAX);
    let response = client::send(&addresses, tls.as_ref(), &request, left(), body).await;
    let response = response.map_err(|fault| {
        network.resolver.doubt(&base.host, base.port);
        fault.as_str().to_owned()
    })?;
    if response.status != 200 {
        return Err(format!("expected status 200, got {}", response.status));
    }
    KeySet::parse(&response.body).map_err(|fault| fault.to_string())
}
