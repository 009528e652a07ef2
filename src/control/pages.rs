//! The internal pages, made where the figures are.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::rt;

use super::host::{cgroup_memory_max, read};
use super::{Signal, State};
use crate::catalogue::Scoped;
use crate::operations::conditional::{Asked, answer};
use crate::operations::process::{ProcTexts, ProcessFacts};
use crate::operations::{Inputs, ModelFact, Route, StickyFacts};
use crate::routing::sticky::Bounds;
use crate::shared::{Address, ListingAsk, PageAsk, Rendered, ToCore};

/// How long a page waits for what the cores have counted since they last told.
const COUNTS_WAIT: Duration = Duration::from_millis(30);

/// An asking of all cores for what they have counted.
pub(super) struct Round {
    number: u64,
    left: usize,
    over: Rc<Signal>,
}

impl State {
    /// Makes a page and sends it. One that shows figures asks the cores for the newest first.
    pub(super) fn make_page(self: &Rc<Self>, ask: Box<PageAsk>, reply: Address) {
        if !ask.route.shows_figures() {
            self.send_page(&ask, reply);
            return;
        }
        let number = self.next_round.replace(self.next_round.get() + 1);
        let left = self.mailboxes.ask_for_counts(number);
        let over = Rc::new(Signal::default());
        self.rounds.borrow_mut().push(Round {
            number,
            left,
            over: Rc::clone(&over),
        });
        let state = Rc::clone(self);
        rt::spawn(async move {
            let _ = rt::timeout(COUNTS_WAIT, over.wait()).await;
            state
                .rounds
                .borrow_mut()
                .retain(|round| round.number != number);
            state.send_page(&ask, reply);
        });
    }

    /// Writes a long listing and sends it.
    pub(super) fn make_listing(&self, ask: &ListingAsk, reply: Address) {
        let snapshot = self.broadcast.newest();
        let fleet = &snapshot.fleet;
        let listing = match ask {
            ListingAsk::Models(query) => Some(fleet.catalogue.models(query)),
            ListingAsk::Scoped(prefix, rest) => Scoped::at(&fleet.profiles, prefix, rest)
                .map(|scoped| Ok(fleet.catalogue.scoped(scoped))),
        };
        let ticket = reply.ticket;
        let letter = ToCore::Listing { ticket, listing };
        self.mailboxes.send(reply.core, letter);
    }

    /// A core has told what it had.
    pub(super) fn handed_over(&self, number: u64) {
        let mut rounds = self.rounds.borrow_mut();
        if let Some(round) = rounds.iter_mut().find(|round| round.number == number) {
            round.left = round.left.saturating_sub(1);
            if round.left == 0 {
                round.over.notify();
            }
        }
    }

    fn send_page(&self, ask: &PageAsk, reply: Address) {
        let page = Box::new(self.page(ask));
        self.mailboxes.send(
            reply.core,
            ToCore::Page {
                ticket: reply.ticket,
                page,
            },
        );
    }

    /// A page for one client.
    fn page(&self, ask: &PageAsk) -> Rendered {
        let snapshot = self.broadcast.newest();
        let fleet = &snapshot.fleet;
        let named = match ask.route {
            Route::Models => fleet.catalogue.named_models(),
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
                family: model.family.unwrap_or_default(),
                size: model.size.unwrap_or_default(),
                params: model.params.unwrap_or_default(),
                quant: model.quant.unwrap_or_default(),
                aliases: &model.aliases,
                capabilities: &model.capabilities,
            })
            .collect();
        let process = match ask.route {
            Route::Process | Route::Metrics => self.process(),
            _ => ProcessFacts::default(),
        };
        let totals = self.totals.borrow();
        let inputs = Inputs {
            fleet,
            totals: &totals,
            models: &facts,
            sticky: self.sticky(),
            process: &process,
            build: &self.about.build,
            started: self.about.started,
            now: SystemTime::now(),
            draining: self
                .common
                .draining
                .load(std::sync::atomic::Ordering::Relaxed),
        };
        let page = ask.route.page(&ask.query, &inputs);
        answer(
            page,
            &Asked {
                if_none_match: ask.if_none_match.as_deref(),
                accept_encoding: ask.accept_encoding.as_deref(),
                ..Asked::default()
            },
        )
    }

    fn sticky(&self) -> StickyFacts {
        let plan = self.plan.borrow();
        let plan = &plan.proxy.sticky_sessions;
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

    fn process(&self) -> ProcessFacts {
        ProcessFacts {
            live_tasks: self.members.borrow().len() as u64,
            workers: self.about.workers as u64,
            ..process_facts()
        }
    }
}

/// What the operating system says of this process.
pub fn process_facts() -> ProcessFacts {
    let (status, stat) = (read("/proc/self/status"), read("/proc/self/stat"));
    let (limits, meminfo) = (read("/proc/self/limits"), read("/proc/meminfo"));
    let group = cgroup_memory_max();
    let facts = ProcessFacts::read(&ProcTexts {
        status: &status,
        stat: &stat,
        limits: &limits,
        meminfo: &meminfo,
        cgroup_memory_max: &group,
    });
    ProcessFacts {
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
        cpus: rt::sys::cpus().len() as u64,
        ..facts
    }
}
