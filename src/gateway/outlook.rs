//! What a dry run shows: the endpoint that the request would go to, and what is predicted of all
//! endpoints of its scope.
//!
//! The choice is made by the functions that choose for requests, over the candidates in the same
//! order; where those take something, it is only looked whether it is there. Among equals, and where
//! a balancer chooses at random, the outlook is one of the possible choices.
//!
//! Contract: docs/contract/scheduling.md#8

use std::cmp::Ordering;
use std::rc::Rc;

use olla_engine::handler::{Ask, Cx};
use serde::Serialize;

use super::exchange::Exchange;
use super::explain::{Choice, LEAST_TIME, millis};
use super::view::View;
use crate::config::Balancer;
use crate::dialects::Error;
use crate::endpoint_set::EndpointSet;
use crate::fleet::Endpoint;
use crate::routing::balance::{NoPick, Picker};
use crate::routing::decide::Decision;
use crate::routing::scope::RouteScope;
use crate::schedule::choose::Evaluated;
use crate::schedule::prompt::Prompt;

/// The most candidates that are shown.
const SHOWN_MAX: usize = 64;

#[derive(Serialize)]
struct Document<'o> {
    decision: Shown<'o>,
    candidates: Vec<CandidateShown<'o>>,
}

/// The decision.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'o> {
    Goes {
        endpoint: &'o str,
        choice: &'static str,
        queued: bool,
    },
    Refused {
        status: u16,
        code: &'o str,
    },
}

/// A candidate and the terms of its prediction.
#[derive(Serialize)]
struct CandidateShown<'o> {
    endpoint: &'o str,
    eligible: bool,
    why_not: Option<&'static str>,
    t_ms: u64,
    load_ms: u64,
    queue_ms: u64,
    prefill_ms: u64,
    decode_ms: u64,
    hit_tokens: u64,
    prompt_tokens: u64,
    slots: Option<u32>,
    running: u32,
    warmth: &'static str,
    capacity_tokens: u32,
    prefill_tps: u64,
    step_ms: f64,
}

/// Where a request would go.
struct Outlook {
    chosen: Evaluated,
    /// It would wait for a slot first.
    is_queued: bool,
}

/// What decides which endpoints come into question.
struct Standings {
    /// Those that exist for the key.
    fleet: Option<EndpointSet>,
    routable: EndpointSet,
    /// The key may not use the model.
    is_hidden: bool,
    /// Those that have the model, and speak what the request needs.
    having: EndpointSet,
    /// Those of them whose context holds the request.
    fitting: EndpointSet,
    /// Those of them whose breakers are not open.
    closed: EndpointSet,
    /// Those of them that cool down, if others are left.
    passed_over: EndpointSet,
}

impl Standings {
    /// Why an endpoint does not come into question; the first reason in the order of the checks.
    fn why_not(&self, index: usize) -> Option<&'static str> {
        let is_in = |set: &EndpointSet| set.contains(index);
        match self {
            Self {
                fleet: Some(fleet), ..
            } if !is_in(fleet) => Some("policy"),
            _ if !is_in(&self.routable) => Some("unhealthy"),
            _ if self.is_hidden => Some("policy"),
            _ if !is_in(&self.having) => Some("no_model"),
            _ if !is_in(&self.fitting) => Some("context"),
            _ if !is_in(&self.closed) => Some("breaker_open"),
            _ if is_in(&self.passed_over) => Some("cooling"),
            _ => None,
        }
    }
}

impl Exchange {
    /// The response to a dry run whose request would be refused, or whose candidates are known.
    pub(super) fn outlook(&mut self, ask: &Ask<'_>, refusal: Option<Error>) -> Vec<u8> {
        let is_split = refusal.is_none();
        let outlook = match refusal {
            Some(error) => Err(error),
            None => self.look(ask.cx),
        };
        let chosen = outlook.as_ref().ok().map(|outlook| outlook.chosen.index);
        let candidates = self.evaluated(ask, is_split, chosen);
        let view = &self.view;
        let now_ms = self.gateway.common.clock_ms(ask.cx.now);
        let document = Document {
            decision: match &outlook {
                Ok(outlook) => Shown::Goes {
                    endpoint: view
                        .endpoint(outlook.chosen.index)
                        .map_or("", Endpoint::name),
                    choice: self.word(outlook),
                    queued: outlook.is_queued,
                },
                Err(error) => Shown::Refused {
                    status: error.status,
                    code: error.code,
                },
            },
            candidates: candidates
                .iter()
                .filter_map(|(why_not, seen)| self.shown(*why_not, seen, now_ms))
                .collect(),
        };
        // Nothing in it can fail to be written.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// Where the request would go. Takes nothing.
    ///
    /// # Errors
    /// It would be refused.
    fn look(&mut self, cx: &Cx<'_>) -> Result<Outlook, Error> {
        let view = Rc::clone(&self.view);
        let picked = self.pick_by(cx, |exchange, picker, candidates, tried| {
            exchange.look_among(cx, &view, picker, picker.left(candidates, tried))
        });
        let none = match picked {
            Ok(chosen) => {
                return Ok(Outlook {
                    chosen,
                    is_queued: false,
                });
            }
            Err(none) => none,
        };
        if none == NoPick::Full {
            let scheduler = &self.gateway.common.scheduler;
            if scheduler.room(self.flow(), &view.scheduling).is_err() {
                let message = "too many requests are waiting for a slot";
                return Err(Error::new(
                    503,
                    "service_unavailable",
                    "OVERLOADED",
                    message,
                ));
            }
            if let Some(chosen) = self.look_in_queue(cx, &view) {
                return Ok(Outlook {
                    chosen,
                    is_queued: true,
                });
            }
        }
        Err(self.rejected(cx, none.fault(false)))
    }

    /// The endpoint of these that would take the request now.
    fn look_among(
        &self,
        cx: &Cx<'_>,
        view: &View,
        picker: &Picker<'_>,
        mut left: EndpointSet,
    ) -> Result<Evaluated, NoPick> {
        let nanos = self.gateway.common.nanos(cx.now);
        let has_token = |index: usize| {
            let bucket = view.endpoint(index).and_then(|it| it.bucket.as_ref());
            bucket.is_none_or(|bucket| bucket.peek(nanos).admitted)
        };
        let mut throttled = false;
        while !left.is_empty() {
            let free = self.free(view, &left, picker.now_ms);
            let (chosen, starts) = match self.prompt() {
                Some(prompt) => self.soonest(cx, view, (left, prompt)),
                None => self.next_of(view, picker, &free).zip(Some(true)),
            }
            .ok_or(NoPick::Full)?;
            if !starts {
                return Err(NoPick::Full);
            }
            if has_token(chosen.index) {
                return Ok(chosen);
            }
            throttled = true;
            left.remove(chosen.index);
        }
        Err(match throttled {
            true => NoPick::Throttled,
            false => NoPick::NoneLeft,
        })
    }

    /// The endpoint that the request would wait for, as things stand.
    fn look_in_queue(&mut self, cx: &Cx<'_>, view: &View) -> Option<Evaluated> {
        let common = std::sync::Arc::clone(&self.gateway.common);
        let picker = Picker {
            endpoints: &view.snapshot.fleet.endpoints,
            balancer: view.plan().proxy.load_balancer,
            turns: &common.turns,
            now_ms: common.clock_ms(cx.now),
            random: self.gateway.random.number(),
        };
        let all = self.dialect.all(&self.candidates);
        let left = picker.left(&all, &self.skipped(cx.now));
        match self.prompt() {
            Some(prompt) => self
                .soonest(cx, view, (left, prompt))
                .map(|(chosen, _)| chosen),
            None => self.next_of(view, &picker, &left),
        }
    }

    /// The prompt, if an endpoint is chosen by what is predicted for it.
    fn prompt(&self) -> Option<&Prompt> {
        let prompt = self.kept.schedule.prompt.as_ref();
        prompt.filter(|_| self.takes_slot && self.predicts())
    }

    /// The endpoint where the first token would come soonest, and whether the request could begin
    /// there now.
    fn soonest(
        &self,
        cx: &Cx<'_>,
        view: &View,
        (left, prompt): (EndpointSet, &Prompt),
    ) -> Option<(Evaluated, bool)> {
        let pinned = self.pinned(view, left);
        let waits = view.plan().queue.enabled;
        self.choosing_by(cx, view, (left, prompt), |chooser, eligible, asked| {
            let chosen = chooser.choose_pinned(eligible, asked, pinned, |_| {})?;
            let starts = !waits || chooser.would_admit(eligible, &chosen);
            Some((chosen, starts))
        })
    }

    /// The endpoint that a balancer chooses next that does not predict.
    fn next_of(&self, view: &View, picker: &Picker<'_>, left: &EndpointSet) -> Option<Evaluated> {
        let pinned = self.pinned(view, *left).map(|(index, _)| index);
        let pin = picker.pin(pinned, left);
        let kept = pin.kept(left);
        let index = kept.or_else(|| picker.look_among(&pin.others(*left)))?;
        Some(self.unpredicted(index))
    }

    /// The word for the choice.
    fn word(&self, outlook: &Outlook) -> &'static str {
        let chosen = &outlook.chosen;
        let endpoint = self.view.leased(chosen.index);
        let choice = Choice {
            session: self
                .holding_session()
                .map(|session| session.outcome_at(endpoint.id)),
            was_ready: endpoint.load.warmth(chosen.model).is_ready(),
            has_waited: outlook.is_queued,
        };
        choice.word(chosen).unwrap_or_else(|| {
            match self.view.plan().proxy.load_balancer {
                Balancer::LeastTime if self.takes_slot => LEAST_TIME,
                // Requests that take no slot are not predicted.
                Balancer::LeastTime => Balancer::LeastConnections.as_str(),
                balancer => balancer.as_str(),
            }
        })
    }

    /// The endpoints of the scope, those that come into question first, in the order of T.
    fn evaluated(
        &mut self,
        ask: &Ask<'_>,
        is_split: bool,
        chosen: Option<usize>,
    ) -> Vec<(Option<&'static str>, Evaluated)> {
        let view = Rc::clone(&self.view);
        let all = self.scope_within(&ask.request, false, None);
        let scope = self.scope(&ask.request, false);
        let standings = self.standings(ask, (&all, &scope), is_split);
        if self.kept.schedule.prompt.is_none() {
            self.measure(ask);
        }
        let prompt = self.kept.schedule.prompt.clone();
        let prompt = prompt.unwrap_or_else(|| Prompt::size(self.body(ask.body), &self.findings));
        let mut list = Vec::new();
        let set = all.configured;
        self.choosing_by(ask.cx, &view, (set, &prompt), |chooser, eligible, asked| {
            chooser.evaluate_each(eligible, asked, |seen| {
                let why_not = standings.why_not(seen.index);
                list.push((why_not.filter(|_| chosen != Some(seen.index)), *seen));
            });
        });
        let rank = |(why_not, seen): &(Option<&str>, Evaluated)| (why_not.is_some(), seen.total());
        list.sort_by(|one, other| {
            let ((one_is_out, one), (other_is_out, other)) = (rank(one), rank(other));
            let by_time = || one.partial_cmp(&other).unwrap_or(Ordering::Equal);
            one_is_out.cmp(&other_is_out).then_with(by_time)
        });
        let place = list.iter().position(|(_, seen)| chosen == Some(seen.index));
        if let Some(place) = place.filter(|place| *place >= SHOWN_MAX) {
            // Of very many, not all are evaluated for the choice: it need not be one of the best.
            list.swap(place, SHOWN_MAX - 1);
        }
        list.truncate(SHOWN_MAX);
        list
    }

    fn standings(
        &mut self,
        ask: &Ask<'_>,
        (all, scope): (&RouteScope, &RouteScope),
        is_split: bool,
    ) -> Standings {
        let now = ask.cx.now;
        let mut having = match self.decision(&ask.request, scope) {
            Decision::Route(routed) => {
                self.alias = routed.alias;
                routed.candidates
            }
            _ => self.having_model(scope),
        };
        let mut fitting = self.fitting(&having, now);
        if is_split {
            let spoken = self.dialect.all(&fitting);
            having = having.minus(&fitting.minus(&spoken));
            fitting = spoken;
        }
        let common = &self.gateway.common;
        let picker = Picker {
            endpoints: &self.view.snapshot.fleet.endpoints,
            balancer: self.view.plan().proxy.load_balancer,
            turns: &common.turns,
            now_ms: common.clock_ms(now),
            random: 0,
        };
        let closed = picker.left(&fitting, &EndpointSet::EMPTY);
        let cooling = self.cooling(picker.now_ms);
        Standings {
            fleet: self.fleet(),
            routable: all.routable,
            is_hidden: self.is_hidden(scope),
            having,
            fitting,
            closed,
            passed_over: match closed.minus(&cooling).is_empty() {
                true => EndpointSet::EMPTY,
                false => cooling,
            },
        }
    }

    /// The endpoints of a scope that have the model of a request that finds none of them.
    fn having_model(&self, scope: &RouteScope) -> EndpointSet {
        let Some(model) = self.model() else {
            return scope.configured;
        };
        let snapshot = &self.view.snapshot;
        let name = self.looked_up(model, scope);
        let (aliases, models) = (&snapshot.aliases, &snapshot.models);
        let having = models.find(name, &scope.configured);
        match aliases.named(name) {
            Some(alias) => having.or(&aliases.endpoints(alias, models, &scope.configured)),
            None => having,
        }
    }

    fn shown(
        &self,
        why_not: Option<&'static str>,
        seen: &Evaluated,
        now_ms: u64,
    ) -> Option<CandidateShown<'_>> {
        let endpoint = self.view.endpoint(seen.index)?;
        let load = &endpoint.load;
        let place = self.gateway.common.scheduler.place(load, seen.model);
        let configured = load.cache_tokens();
        let terms = &seen.terms;
        Some(CandidateShown {
            endpoint: endpoint.name(),
            eligible: why_not.is_none(),
            why_not,
            t_ms: millis(terms.total()),
            load_ms: millis(terms.load),
            queue_ms: millis(terms.queue),
            prefill_ms: millis(terms.prefill),
            decode_ms: millis(terms.decode),
            hit_tokens: seen.needs.hit,
            prompt_tokens: seen.needs.prompt,
            slots: load.slots(),
            running: load.running_with_others(now_ms),
            warmth: place.warmth().as_str(),
            capacity_tokens: place
                .pair
                .map_or(configured, |pair| pair.capacity(configured)),
            prefill_tps: f64::from(place.prefill(now_ms)).round() as u64,
            step_ms: (f64::from(place.step(now_ms)) * 100_000.0).round() / 100.0,
        })
    }
}
