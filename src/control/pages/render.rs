//! Renders pages and listings from the newest snapshot and the statistics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::Pages;
use crate::access::IssuerKeys;
use crate::catalogue::{Catalogue, Lens};
use crate::clock::unix_millis;
use crate::control::host::process_facts;
use crate::dialects::{DialectRoute, Error, Operation, OwnAsk};
use crate::operations::conditional::{Page, RenderedPage};
use crate::operations::process::ProcessFacts;
use crate::operations::{
    Inputs, IssuerFacts, ModelFact, Route, SchedulingFacts, StateFacts, StickyFacts,
};
use crate::routing::sticky::Bounds;
use crate::shared::{Rendering, Snapshot, WantedPage};

fn issuer_facts(issuer: &IssuerKeys) -> IssuerFacts {
    let fetches = &issuer.fetches;
    IssuerFacts {
        is_up: fetches.is_up.load(Ordering::Relaxed),
        keys: issuer.count(),
        last_success_s: fetches.last_success_s.load(Ordering::Relaxed),
        ok: fetches.ok.load(Ordering::Relaxed),
        failed: fetches.failed.load(Ordering::Relaxed),
    }
}

impl Pages {
    /// What a client wants to see, as it is now.
    pub(super) fn rendering(&self, wanted: &WantedPage) -> Rendering {
        let snapshot = self.setup.broadcast.newest();
        match wanted {
            WantedPage::Page { route, query, gzip } => {
                let page = self.page(*route, query, &snapshot);
                Rendering::Page(Arc::new(RenderedPage::new(page, *gzip)))
            }
            WantedPage::Seen(lens, inner) => {
                let seen = snapshot.catalogue.seen_by(lens);
                match inner.as_deref() {
                    Some(inner) => self.listing(inner, &seen, Some(lens), &snapshot),
                    None => Rendering::Seen,
                }
            }
            _ => self.listing(wanted, &snapshot.catalogue, None, &snapshot),
        }
    }

    /// A listing of a catalogue, which is all of it or what a lens shows.
    fn listing(
        &self,
        wanted: &WantedPage,
        catalogue: &Catalogue,
        lens: Option<&Lens>,
        snapshot: &Snapshot,
    ) -> Rendering {
        match wanted {
            WantedPage::Models(query) => Rendering::Listing(catalogue.models(query)),
            WantedPage::Scoped(scoped) => Rendering::Listing(Ok(catalogue.scoped(scoped))),
            WantedPage::Own(route, rest) => {
                Rendering::Own(self.own(route, rest, catalogue, lens, snapshot))
            }
            WantedPage::Page { .. } | WantedPage::Seen(..) => Rendering::Seen,
        }
    }

    fn own(
        &self,
        route: &DialectRoute,
        rest: &[u8],
        catalogue: &Catalogue,
        lens: Option<&Lens>,
        snapshot: &Snapshot,
    ) -> Result<bytes::Bytes, Error> {
        let Operation::List(make) = route.operation else {
            return Err(Error::not_found());
        };
        let is_served = |name: &str| {
            let among = match lens {
                Some(_) => catalogue.routable(),
                None => snapshot.fleet.routable,
            };
            let on = snapshot.models.find(name, &among);
            !on.is_empty() && lens.is_none_or(|lens| lens.shows(name))
        };
        let made = make(&OwnAsk {
            rest,
            catalogue,
            is_served: &is_served,
            started: &self.setup.common.started_rfc3339,
            plan: &snapshot.fleet.plan,
        });
        made.map(Into::into)
    }

    fn page(&self, route: Route, query: &str, snapshot: &Snapshot) -> Page {
        let fleet = &snapshot.fleet;
        let named = match route {
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
        let process = match route {
            Route::Process | Route::Metrics => self.process_facts(snapshot),
            _ => ProcessFacts::default(),
        };
        let now = SystemTime::now();
        let outages = snapshot.missing.current(now);
        let scheduling = self.scheduling(route, snapshot);
        let inputs = Inputs {
            fleet,
            totals: &self.totals,
            models: &facts,
            sticky: self.sticky(snapshot),
            responses: self.setup.common.responses.counts(unix_millis(now)),
            state: StateFacts {
                usage_rejected: self.setup.common.usage_rejected.load(Ordering::Relaxed),
                ..self.setup.common.state.get()
            },
            scheduling: &scheduling,
            process: &process,
            build: &self.setup.process.build,
            started: self.setup.process.started,
            outages: &outages,
            now,
            clock_ms: self.setup.common.clock_ms(Instant::now()),
            held_bytes: self.setup.common.held_bytes.get() as u64,
            access: &snapshot.access,
            key_series: &self.setup.common.key_series,
            limited: &self.setup.common.limited,
            token_names: self.setup.common.access.book().token_names(),
            keys_file_ok: self
                .setup
                .common
                .access
                .keys_file_ok
                .load(Ordering::Relaxed),
            sessions: {
                let now_ms = self.setup.common.clock_ms(Instant::now());
                self.setup.common.sessions.count(now_ms)
            },
            issuer: snapshot
                .access
                .tokens
                .as_ref()
                .map(|_| issuer_facts(self.setup.common.access.issuer())),
            draining: self.setup.common.draining.load(Ordering::Relaxed),
        };
        route.page(query, &inputs)
    }

    fn scheduling<'s>(&'s self, route: Route, snapshot: &'s Snapshot) -> SchedulingFacts<'s> {
        if !route.shows_scheduling() {
            return SchedulingFacts::default();
        }
        let common = &self.setup.common;
        SchedulingFacts::new(
            common.scheduler.survey(),
            snapshot.models.all().chain(self.totals.model_names()),
            common.pages_given_up.load(Ordering::Relaxed),
        )
    }

    fn sticky(&self, snapshot: &Snapshot) -> StickyFacts {
        let plan = &snapshot.fleet.plan.proxy.sticky_sessions;
        if !plan.enabled {
            return StickyFacts::default();
        }
        let common = &self.setup.common;
        let now_ms = common.clock_ms(Instant::now());
        let figures = common.sticky.figures(Bounds::of(plan), now_ms);
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

    fn process_facts(&self, snapshot: &Snapshot) -> ProcessFacts {
        ProcessFacts {
            live_tasks: snapshot.fleet.endpoints.len() as u64,
            workers: self.setup.process.workers as u64,
            ..process_facts()
        }
    }
}
