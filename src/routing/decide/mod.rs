//! The decision: from scope and model to candidates, or to a rejection.
//!
//! A table in code; the tests hold the contract's rows. What this module must not do: choose one
//! of the candidates, or know of breakers and rate limits.
//!
//! Contract: docs/contract/balancing.md#1, docs/contract/balancing.md#4 to
//! docs/contract/balancing.md#6, docs/contract/README.md#13

use super::aliases::{AliasId, AliasUse, Aliases};
use super::names::ModelIndex;
use super::rejection::{Fault, Reason, RoutingDecision, RoutingHeaders};
use super::scope::RouteScope;
use crate::config::{Fallback, NoModel, RoutingPlan, Strategy};
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::providers::MAX_NAME_BYTES;

/// The tables of one snapshot that a decision is based on.
#[derive(Debug, Clone, Copy)]
pub struct RoutingRules<'a> {
    /// The strategy and its options.
    pub routing: &'a RoutingPlan,
    /// The aliases.
    pub aliases: &'a Aliases,
    /// The endpoints of each model.
    pub models: &'a ModelIndex,
    /// Endpoints that list a model with the vision capability (docs/contract/balancing.md#4.4).
    pub vision: &'a EndpointSet,
}

/// The facts of a request that routing depends on.
#[derive(Debug, Clone, Copy)]
pub struct RoutingRequest<'a> {
    /// The endpoints that its prefix and path allow.
    pub scope: &'a RouteScope,
    /// Whether the prefix is a provider's.
    pub has_provider: bool,
    /// The name of the model, as the client wrote it.
    pub model: Option<&'a str>,
    /// Whether the client's key may not use that name, which is then unknown
    /// (docs/contract/access.md#6).
    pub is_hidden: bool,
    /// Whether it contains an image; used only if it names no model.
    pub images: bool,
    /// The outcome of the refresh for this request. Scope and models must be those after it.
    pub refresh: Refresh,
    /// What becomes of it without a model; `None` if its path needs none.
    pub no_model: Option<NoModel>,
}

/// The state of the refresh on a miss (docs/contract/balancing.md#5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// No refresh was requested yet.
    #[default]
    Before,
    /// At least one endpoint was listed.
    Done,
    /// No endpoint was listed.
    Failed,
}

/// The decision about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try the candidates.
    Route(Routed),
    /// Send an error without an attempt.
    Reject(Rejected),
    /// List the models of the routable endpoints in scope, within `discovery_timeout`, then decide
    /// again with the outcome.
    Refresh,
    /// An endpoint that could serve has not been checked yet: decide again with the next snapshot.
    /// After two seconds, decide with no endpoint left to wait for ([`super::scope::Standing`]).
    AwaitFirstCheck,
}

/// A request that has candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// Never empty.
    pub candidates: EndpointSet,
    /// The routing headers; `None` without a model.
    pub routing: Option<RoutingHeaders>,
    /// Set when the body's model is an alias.
    pub alias: Option<AliasUse>,
}

/// A request that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub fault: Fault,
    /// The routing headers; `None` if models played no part.
    pub routing: Option<RoutingHeaders>,
}

/// Decides. The first rule that applies wins (docs/contract/balancing.md#6).
pub fn decide(rules: &RoutingRules<'_>, ask: &RoutingRequest<'_>) -> Decision {
    let scope = ask.scope;
    if scope.configured.is_empty() && ask.has_provider {
        return reject(Fault::NoProvider, None);
    }
    if scope.routable.is_empty() {
        if !scope.unchecked.is_empty() {
            return Decision::AwaitFirstCheck;
        }
        let reason = ask.model.map(|_| none_routable_reason(rules.routing));
        let routing = reason.map(|reason| rejected(rules, reason));
        return reject(Fault::NoHealthy, routing);
    }
    match ask.model {
        Some(_) if ask.is_hidden => hidden(rules, ask),
        Some(model) => by_model(rules, ask, model),
        None => without_model(rules, ask),
    }
}

/// A request without a model goes on where the choice cannot be wrong
/// (docs/contract/balancing.md#2.1).
fn without_model(rules: &RoutingRules<'_>, ask: &RoutingRequest<'_>) -> Decision {
    let scope = ask.scope;
    let goes_on = match ask.no_model {
        None | Some(NoModel::Any) => true,
        Some(NoModel::Refuse) => false,
        Some(NoModel::Auto) if scope.configured.len() == 1 => true,
        // What the others list is not known yet.
        Some(NoModel::Auto) if !scope.unchecked.is_empty() => return Decision::AwaitFirstCheck,
        Some(NoModel::Auto) => rules.models.has_one_name(&scope.configured),
    };
    match goes_on {
        false => reject(Fault::ModelRequired, None),
        true => Decision::Route(Routed {
            candidates: hinted(rules, ask),
            routing: None,
            alias: None,
        }),
    }
}

/// The scope, narrowed to endpoints with vision for a request with images, unless there are none.
fn hinted(rules: &RoutingRules<'_>, ask: &RoutingRequest<'_>) -> EndpointSet {
    let scope = ask.scope.routable;
    let seeing = scope.and(rules.vision);
    if ask.images && !seeing.is_empty() {
        seeing
    } else {
        scope
    }
}

/// The order of the look-up is that of docs/contract/balancing.md#4.3: aliases by name, real models,
/// then what covers a name that nothing has.
fn by_model(rules: &RoutingRules<'_>, ask: &RoutingRequest<'_>, model: &str) -> Decision {
    let scope = ask.scope;
    let named = rules.aliases.named(model);
    if let Some(routed) = named.and_then(|alias| by_alias(rules, scope, alias)) {
        return routed;
    }
    let available = rules.models.find(model, &scope.routable);
    if !available.is_empty() {
        return route(
            rules,
            available,
            RoutingDecision::Routed,
            found(rules, ask.refresh),
        );
    }
    if !scope.unchecked.is_empty() {
        return Decision::AwaitFirstCheck;
    }
    let is_known = !rules.models.find(model, &scope.configured).is_empty();
    let alias = match named {
        None if !is_known => rules.aliases.covering(model),
        _ => named,
    };
    let Some(alias) = alias else {
        return missing(rules, ask, model, is_known);
    };
    if named.is_none()
        && let Some(routed) = by_alias(rules, scope, alias)
    {
        return routed;
    }
    // An alias is known when a model that it stands for is.
    let targets = rules
        .aliases
        .endpoints(alias, rules.models, &scope.configured);
    let is_known = is_known || !targets.is_empty();
    if named.is_none() && rules.aliases.is_pattern(alias) {
        // A pattern fits names that no endpoint will ever list.
        return not_available(rules, ask, is_known, false);
    }
    missing(rules, ask, model, is_known)
}

/// A name that the key may not use gets what a name gets that nothing has. Nothing is refreshed for
/// it, and no strategy falls back.
fn hidden(rules: &RoutingRules<'_>, ask: &RoutingRequest<'_>) -> Decision {
    if !ask.scope.unchecked.is_empty() {
        return Decision::AwaitFirstCheck;
    }
    reject_model(rules, Fault::ModelNotFound, "model_not_found")
}

/// A model that is not available, perhaps because its endpoint got it since it was last listed: the
/// lists are refreshed first, under `discovery` also for a model that is known.
fn missing(
    rules: &RoutingRules<'_>,
    ask: &RoutingRequest<'_>,
    model: &str,
    known: bool,
) -> Decision {
    let may_refresh = rules.routing.discovery_refresh_on_miss;
    let may_help = rules.routing.strategy == Strategy::Discovery || !known;
    let is_listable = model.len() <= MAX_NAME_BYTES;
    if may_refresh && may_help && is_listable && ask.refresh == Refresh::Before {
        return Decision::Refresh;
    }
    not_available(rules, ask, known, may_refresh)
}

/// The route of an alias; `None` if no routable endpoint has one of its models.
fn by_alias(rules: &RoutingRules<'_>, scope: &RouteScope, alias: AliasId) -> Option<Decision> {
    let candidates = rules
        .aliases
        .endpoints(alias, rules.models, &scope.routable);
    if candidates.is_empty() {
        return None;
    }
    let reason = Reason::Alias {
        alias,
        endpoints: candidates.len(),
    };
    Some(Decision::Route(Routed {
        candidates,
        routing: Some(RoutingHeaders {
            strategy: "alias",
            verdict: RoutingDecision::Routed,
            reason,
        }),
        alias: Some(AliasUse::new(alias, scope.routable)),
    }))
}

fn found(rules: &RoutingRules<'_>, refresh: Refresh) -> &'static str {
    match (rules.routing.strategy, refresh) {
        (Strategy::Discovery, Refresh::Before) => "model_found_no_refresh",
        _ => "model_found",
    }
}

/// The rows of the strategies' table in which the model is not available.
fn not_available(
    rules: &RoutingRules<'_>,
    ask: &RoutingRequest<'_>,
    known: bool,
    refreshes: bool,
) -> Decision {
    let fallback = rules.routing.fallback_behavior;
    let gone = |reason| reject_model(rules, Fault::ModelUnavailable, reason);
    let missing = || reject_model(rules, Fault::ModelNotFound, "model_not_found");
    let fall_back = |reason| route(rules, ask.scope.routable, RoutingDecision::Fallback, reason);
    match (rules.routing.strategy, fallback) {
        (Strategy::Strict, _) if known => gone("model_unavailable"),
        (Strategy::Strict, _) => missing(),
        (Strategy::Optimistic, Fallback::All) if known => fall_back("all_healthy_fallback"),
        (Strategy::Optimistic, Fallback::All) => fall_back("model_not_found_fallback"),
        (Strategy::Optimistic, _) if !known => missing(),
        (Strategy::Optimistic, Fallback::None) => gone("model_unavailable_no_fallback"),
        (Strategy::Optimistic, Fallback::CompatibleOnly) => {
            gone("model_unavailable_compatible_only")
        }
        (Strategy::Discovery, _) if !refreshes => gone("model_unavailable_no_refresh"),
        (Strategy::Discovery, _) => match (ask.refresh, fallback) {
            // Without a refresh the name is too long to be in a list.
            (Refresh::Before | Refresh::Done, Fallback::All) => {
                fall_back("all_healthy_after_discovery")
            }
            (Refresh::Before | Refresh::Done, _) if known => {
                gone("model_unavailable_after_discovery")
            }
            (Refresh::Before | Refresh::Done, _) => missing(),
            (Refresh::Failed, Fallback::All) => fall_back("discovery_failed_all_fallback"),
            (Refresh::Failed, Fallback::None) => gone("discovery_failed_no_fallback"),
            (Refresh::Failed, Fallback::CompatibleOnly) => gone("discovery_failed_compatible_only"),
        },
    }
}

/// The reason when no endpoint in scope is routable, so that there is no fallback and no refresh.
fn none_routable_reason(routing: &RoutingPlan) -> &'static str {
    match (routing.strategy, routing.fallback_behavior) {
        (Strategy::Strict, _) | (Strategy::Optimistic, Fallback::All) => "model_unavailable",
        (Strategy::Optimistic, Fallback::None) => "model_unavailable_no_fallback",
        (Strategy::Optimistic, Fallback::CompatibleOnly) => "model_unavailable_compatible_only",
        (Strategy::Discovery, _) if routing.discovery_refresh_on_miss => {
            "no_healthy_after_discovery"
        }
        (Strategy::Discovery, _) => "model_unavailable_no_refresh",
    }
}

fn headers(
    rules: &RoutingRules<'_>,
    verdict: RoutingDecision,
    reason: &'static str,
) -> RoutingHeaders {
    RoutingHeaders {
        strategy: rules.routing.strategy.as_str(),
        verdict,
        reason: Reason::Word(reason),
    }
}

fn rejected(rules: &RoutingRules<'_>, reason: &'static str) -> RoutingHeaders {
    headers(rules, RoutingDecision::Rejected, reason)
}

fn route(
    rules: &RoutingRules<'_>,
    candidates: EndpointSet,
    verdict: RoutingDecision,
    reason: &'static str,
) -> Decision {
    Decision::Route(Routed {
        candidates,
        routing: Some(headers(rules, verdict, reason)),
        alias: None,
    })
}

fn reject(fault: Fault, routing: Option<RoutingHeaders>) -> Decision {
    Decision::Reject(Rejected { fault, routing })
}

fn reject_model(rules: &RoutingRules<'_>, fault: Fault, reason: &'static str) -> Decision {
    reject(fault, Some(rejected(rules, reason)))
}

/// The endpoint that Ollama's model management is forwarded to: the one that the request's
/// `X-Olla-Endpoint` names, or the only routable one. `scope` is that of the prefix, whatever the
/// path (docs/contract/README.md#5).
pub(crate) fn decide_management(
    endpoints: &[Endpoint],
    scope: &RouteScope,
    named: Option<&[u8]>,
) -> Decision {
    if scope.configured.is_empty() {
        return reject(Fault::NoProvider, None);
    }
    let (candidates, unchecked) = match named {
        None => (scope.routable, scope.unchecked),
        Some(name) => {
            let one: EndpointSet = scope
                .configured
                .iter()
                .filter(|index| {
                    let endpoint = endpoints.get(*index);
                    endpoint.is_some_and(|endpoint| endpoint.name().as_bytes() == name)
                })
                .collect();
            if one.is_empty() {
                return reject(Fault::EndpointUnknown, None);
            }
            (one.and(&scope.routable), one.and(&scope.unchecked))
        }
    };
    match candidates.len() {
        // Which endpoint is the only one is known once all have been checked.
        0 | 1 if !unchecked.is_empty() => Decision::AwaitFirstCheck,
        0 => reject(Fault::NoHealthy, None),
        1 => Decision::Route(Routed {
            candidates,
            routing: None,
            alias: None,
        }),
        _ => reject(Fault::EndpointNeeded, None),
    }
}

#[cfg(test)]
mod tests;
