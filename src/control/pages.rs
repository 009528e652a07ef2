//! The internal pages, rendered where the statistics are collected.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::rt;

use super::host::process_facts;
use super::signal::Signal;
use super::state::{ControlState, CountRound};
use crate::operations::conditional::{PageHeaders, answer};
use crate::operations::process::ProcessFacts;
use crate::operations::{Inputs, ModelFact, Route, StickyFacts};
use crate::routing::sticky::Bounds;
use crate::shared::{ListingRequest, PageRequest, PageResponse, ReplyTo, ToCore};

/// How long a page waits for the counts that the cores have not reported yet.
const COUNTS_WAIT: Duration = Duration::from_millis(30);

impl ControlState {
    /// Renders a page and sends it. Pages with statistics collect the newest counts first.
    pub(super) fn make_page(self: &Rc<Self>, request: Box<PageRequest>, reply_to: ReplyTo) {
        if !request.route.shows_figures() {
            self.send_page(&request, reply_to);
            return;
        }
        let number = self.counts.next.get();
        self.counts.next.set(number + 1);
        let missing = self.outlet.cores.request_counts(number);
        let over = Rc::new(Signal::default());
        self.counts.running.borrow_mut().push(CountRound {
            number,
            missing,
            over: Rc::clone(&over),
        });
        let state = Rc::clone(self);
        rt::spawn(async move {
            let _ = rt::timeout(COUNTS_WAIT, over.wait()).await;
            let mut running = state.counts.running.borrow_mut();
            running.retain(|round| round.number != number);
            drop(running);
            state.send_page(&request, reply_to);
        });
    }

    /// Renders a long listing and sends it.
    pub(super) fn make_listing(&self, request: &ListingRequest, reply_to: ReplyTo) {
        let snapshot = self.outlet.broadcast.newest();
        let catalogue = &snapshot.catalogue;
        let listing = match request {
            ListingRequest::Models(query) => Some(catalogue.models(query)),
            ListingRequest::Scoped(scoped) => Some(Ok(catalogue.scoped(scoped))),
        };
        let ticket = reply_to.ticket;
        let listing = ToCore::Listing { ticket, listing };
        self.outlet.cores.send(reply_to.core, listing);
    }

    /// A core has reported its counts.
    pub(super) fn counts_flushed(&self, number: u64) {
        let mut running = self.counts.running.borrow_mut();
        if let Some(round) = running.iter_mut().find(|round| round.number == number) {
            round.missing = round.missing.saturating_sub(1);
            if round.missing == 0 {
                round.over.notify();
            }
        }
    }

    fn send_page(&self, request: &PageRequest, reply_to: ReplyTo) {
        let page = Box::new(self.page(request));
        self.outlet.cores.send(
            reply_to.core,
            ToCore::Page {
                ticket: reply_to.ticket,
                page,
            },
        );
    }

    /// A page for one client.
    fn page(&self, request: &PageRequest) -> PageResponse {
        let snapshot = self.outlet.broadcast.newest();
        let fleet = &snapshot.fleet;
        let named = match request.route {
            Route::Models => snapshot.catalogue.named_models(),
            _ => Vec::new(),
        };
        let synced_at = |at: usize| fleet.endpoints.get(at)?.last_model_sync;
        let facts: Vec<ModelFact<'_>> = named
            .iter()
            .map(|model| ModelFact {
                name: model.name,
                endpoints: model.endpoints,
                last_seen: model.endpoints.iter().filter_map(synced_at).max(),
                kind: model.kind.as_str(),
                family: model.family.unwrap_or(""),
                size: model.size.unwrap_or(0),
                params: model.params.unwrap_or(""),
                quant: model.quant.unwrap_or(""),
                aliases: &model.aliases,
                capabilities: &model.capabilities,
            })
            .collect();
        let process = match request.route {
            Route::Process | Route::Metrics => self.process_facts(),
            _ => ProcessFacts::default(),
        };
        let totals = self.totals.borrow();
        let inputs = Inputs {
            fleet,
            totals: &totals,
            models: &facts,
            sticky: self.sticky(),
            process: &process,
            build: &self.process.build,
            started: self.process.started,
            now: SystemTime::now(),
            draining: self
                .common
                .draining
                .load(std::sync::atomic::Ordering::Relaxed),
        };
        let page = request.route.page(&request.query, &inputs);
        answer(
            page,
            &PageHeaders {
                if_none_match: request.if_none_match.as_deref(),
                accept_encoding: request.accept_encoding.as_deref(),
                ..PageHeaders::default()
            },
        )
    }

    fn sticky(&self) -> StickyFacts {
        let config = self.config();
        let plan = &config.plan.proxy.sticky_sessions;
        if !plan.enabled {
            return StickyFacts::default();
        }
        let now_ms = self.common.clock_ms(Instant::now());
        let figures = self.common.sticky.figures(Bounds::of(plan), now_ms);
        StickyFacts {
            enabled: true,
            active_sessions: figures.active_sessions as u64,
            insertions: figures.insertions,
            hits: figures.hits,
            misses: figures.misses,
            evictions: figures.evictions,
            repins: figures.repins,
            max_sessions: plan.max_sessions.map_or(0, |max| max.get() as u64),
            idle_ttl_seconds: plan.idle_ttl.map_or(0, |ttl| ttl.as_secs()),
        }
    }

    fn process_facts(&self) -> ProcessFacts {
        ProcessFacts {
            live_tasks: self.endpoints.members.borrow().len() as u64,
            workers: self.process.workers as u64,
            ..process_facts()
        }
    }
}
