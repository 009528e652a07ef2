//! The internal pages, made where the figures are.

use std::time::{Instant, SystemTime};

use super::State;
use super::link::{PageAsk, Rendered};
use crate::operations::conditional::{Asked, answer};
use crate::operations::process::{ProcTexts, ProcessFacts};
use crate::operations::{Inputs, ModelFact, Route, StickyFacts};
use crate::routing::sticky::Bounds;

impl State {
    /// A page for one client.
    pub(super) fn page(&self, ask: &PageAsk) -> Rendered {
        let snapshot = self.broadcast.newest();
        let fleet = &snapshot.fleet;
        let named = match ask.route {
            Route::Models => fleet.catalogue.named_models(),
            _ => Vec::new(),
        };
        let facts: Vec<ModelFact<'_>> = named
            .iter()
            .map(|model| ModelFact {
                name: model.name,
                endpoints: model.endpoints,
                last_seen: model.last_seen,
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
            draining: self.common.draining.load(std::sync::atomic::Ordering::Relaxed),
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
        let now_ms = crate::gateway::clock_ms(self.common.start, Instant::now());
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
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (status, stat) = (read("/proc/self/status"), read("/proc/self/stat"));
        let (limits, meminfo) = (read("/proc/self/limits"), read("/proc/meminfo"));
        let group = read("/sys/fs/cgroup/memory.max");
        let mut facts = ProcessFacts::read(&ProcTexts {
            status: &status,
            stat: &stat,
            limits: &limits,
            meminfo: &meminfo,
            cgroup_memory_max: &group,
        });
        facts.open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64);
        facts.live_tasks = self.members.borrow().len() as u64;
        facts.cpus = olla_engine::rt::sys::cpus().len() as u64;
        facts.workers = self.about.workers as u64;
        facts
    }
}
