//! One look at every endpoint without a running gateway, for `olla check --probe`: its health
//! check, its listing, and its version. The requests and their judgement are those of the gateway.
//!
//! Contract: docs/contract/observe.md#1

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use olla_engine::rt::{self, Bell, Listening, Wanted};

use super::discover::{ask, each, no_models, read};
use super::fetch::Network;
use super::member::FleetMember;
use super::probe::{once, result_of};
use super::resolve::Resolver;
use super::trust::Trusts;
use crate::config::Plan;
use crate::fleet::health::CheckResult;
use crate::fleet::{ErrorKind, Failure, Status};
use crate::providers::{self, Profile, Profiles, version};
use crate::schedule::EndpointLoad;

/// Endpoints that are asked at the same time.
const AT_ONCE: usize = 64;

/// The longest time for the listing of one endpoint, the detection of its type included.
const LISTING_TIME_MAX: Duration = Duration::from_secs(10);

/// The time limit for the version of one endpoint.
const VERSION_TIME_MAX: Duration = Duration::from_secs(2);

/// What one endpoint has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surveyed {
    /// Its name.
    pub(crate) name: String,
    /// Its type, the detected one for `auto`.
    pub(crate) kind: String,
    /// Its URL for display.
    pub(crate) url: String,
    /// The status that the gateway would start with.
    pub(crate) status: Status,
    /// Duration of the health check, if there was a response.
    pub(crate) latency: Option<Duration>,
    /// Number of models, after its filter; `None` = not listed.
    pub(crate) models: Option<usize>,
    /// The version that its server reports.
    pub(crate) version: Option<String>,
    /// Its errors: kind and message.
    pub(crate) errors: Vec<String>,
    /// Whether it cannot serve, or a request to it has failed.
    pub(crate) has_failed: bool,
}

/// Asks every endpoint of a plan once. The result has the order of the configuration.
///
/// # Errors
/// When there is no event loop.
pub(crate) fn survey(plan: Arc<Plan>, profiles: Arc<Profiles>) -> io::Result<Vec<Surveyed>> {
    let (bell, resolved) = Bell::new()?;
    rt::run(Wanted::Epoll, |_| all(plan, profiles, bell, resolved))
}

/// What the requests share.
struct Survey {
    plan: Arc<Plan>,
    profiles: Arc<Profiles>,
    network: Network,
    found: RefCell<Vec<Option<Surveyed>>>,
}

async fn all(
    plan: Arc<Plan>,
    profiles: Arc<Profiles>,
    bell: Bell,
    resolved: Listening,
) -> Vec<Surveyed> {
    let number = plan.discovery.endpoints.len();
    let survey = Rc::new(Survey {
        network: Network {
            resolver: Resolver::start(bell, plan.dns.stale),
            trusts: Trusts::new(None),
        },
        plan,
        profiles,
        found: RefCell::new(vec![None; number]),
    });
    let resolving = Rc::clone(&survey);
    rt::spawn(async move {
        let _ = resolved
            .listen(|| resolving.network.resolver.deliver())
            .await;
    });
    let shared = Rc::clone(&survey);
    each((0..number).collect(), AT_ONCE, move |at: usize| {
        let survey = Rc::clone(&shared);
        async move {
            let surveyed = survey.one(at).await;
            if let Some(place) = survey.found.borrow_mut().get_mut(at) {
                *place = surveyed;
            }
        }
    })
    .await;
    survey.found.take().into_iter().flatten().collect()
}

impl Survey {
    async fn one(&self, at: usize) -> Option<Surveyed> {
        let endpoint = self.plan.discovery.endpoints.get(at)?;
        let id = u32::try_from(at).unwrap_or(u32::MAX);
        let load = EndpointLoad::new(0, 0);
        let member = FleetMember::new(id, endpoint, &self.plan, &self.profiles, (None, load));
        let began = Instant::now();
        let response = once(&self.network, &member).await;
        let took = began.elapsed();
        let result = result_of(&member, response);
        let mut surveyed = checked(&member, result, took);
        // An endpoint that cannot be reached or loads its model has no more to say.
        let is_up = matches!(result, CheckResult::Response { .. });
        if is_up && surveyed.status != Status::Warming {
            let profile = self.list(&member, &mut surveyed).await;
            surveyed.version = self.version(&member, &profile).await;
        }
        Some(surveyed)
    }

    /// Notes the models of an endpoint, and returns its profile.
    async fn list(&self, member: &FleetMember, surveyed: &mut Surveyed) -> Arc<Profile> {
        let discovery = &self.plan.discovery.model_discovery;
        if !discovery.enabled {
            return member.profile();
        }
        let plan = member.plan();
        let limit = discovery.timeout.min(LISTING_TIME_MAX);
        let listing = read(&self.network, &self.profiles, member, &plan, limit);
        match rt::timeout(limit, listing).await {
            Some(Ok((profile, models))) => {
                surveyed.kind.clone_from(&profile.name);
                surveyed.models = Some(models.len());
                if models.is_empty() {
                    surveyed.note(&no_models(member));
                }
                return profile;
            }
            Some(Err(failure)) => match &failure.error {
                Some(error) => surveyed.note(error),
                None => surveyed.fail(failure.reason),
            },
            None => surveyed.note(&Failure {
                kind: ErrorKind::Timeout,
                message: format!("no model list within {} seconds", limit.as_secs_f32()),
                url: plan.url.display.clone(),
                status: None,
            }),
        }
        member.profile()
    }

    /// The version of a server. A server that reports none has not failed.
    async fn version(&self, member: &FleetMember, profile: &Profile) -> Option<String> {
        let question = version::question(&profile.name)?;
        let target = providers::target(&member.plan().url, question.path).ok()?;
        let reply = ask(&self.network, member, target, VERSION_TIME_MAX).await;
        question.read(&reply.ok()?.body)
    }
}

/// An endpoint after its health check.
fn checked(member: &FleetMember, result: CheckResult, took: Duration) -> Surveyed {
    let plan = member.plan();
    let status = result.first_status(took);
    let mut surveyed = Surveyed {
        name: plan.name.clone(),
        kind: plan.kind.clone(),
        url: plan.url.display.clone(),
        status,
        latency: matches!(result, CheckResult::Response { .. }).then_some(took),
        models: None,
        version: None,
        errors: Vec::new(),
        has_failed: !status.is_routable(),
    };
    match (member.judged(result), result) {
        (Err(failure), _) => surveyed.note(&failure),
        // A fault of this machine says nothing about the endpoint, but nothing was checked.
        (Ok(()), CheckResult::Failed(fault)) => surveyed.fail(fault.as_str().to_owned()),
        (Ok(()), CheckResult::Response { .. }) => {}
    }
    surveyed
}

impl Surveyed {
    /// Notes an error. An endpoint that loads its model, or lists none, has not failed
    /// (docs/contract/observe.md#1).
    fn note(&mut self, failure: &Failure) {
        let remark = format!("{}: {}", failure.kind.as_str(), failure.message);
        let is_failure = !matches!(failure.kind, ErrorKind::Loading | ErrorKind::NoModels);
        self.has_failed |= is_failure;
        if !self.errors.contains(&remark) {
            self.errors.push(remark);
        }
    }

    fn fail(&mut self, reason: String) {
        self.has_failed = true;
        self.errors.push(reason);
    }
}
