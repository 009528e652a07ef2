//! A small made-up world for the tests of the pages.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::conditional::Page;
use super::process::ProcessFacts;
use super::stats::{AttemptEnd, Outcome, Recorder, RequestEnd, ServedBy, Totals};
use super::version::Links;
use super::{Build, Inputs, IssuerFacts, ModelFact, SchedulingFacts, StateFacts, StickyFacts};
use crate::access::{Access, KeySeries, LimitCounts};
use crate::config::{BaseUrl, ConfigInputs, EndpointPlan, Env, FileFormat, plan_from_str};
use crate::dialects::responses::StoreCounts;
use crate::endpoint_set::EndpointSet;
use crate::fleet::{Endpoint, Fleet, Status};
use crate::providers::figures::ProviderFigures;
use crate::providers::{MetricsExtraction, Parser, Profile};

pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) recorder: Recorder,
    totals: Totals,
    pub(super) models: Vec<ModelFact<'static>>,
    pub(super) sticky: StickyFacts,
    pub(super) scheduling: SchedulingFacts<'static>,
    pub(super) responses: StoreCounts,
    pub(super) process: ProcessFacts,
    pub(super) build: Build,
    pub(super) figures: Option<ProviderFigures<'static>>,
    pub(super) now: SystemTime,
    pub(super) outages: Vec<(&'static str, SystemTime)>,
    pub(super) draining: bool,
    pub(super) held_bytes: u64,
    pub(super) access: Access,
    pub(super) key_series: KeySeries,
    pub(super) limited: LimitCounts,
}

impl World {
    /// At 2026-04-15T10:30:00Z, up for 2 h 5 min, without endpoints.
    pub(super) fn new() -> Self {
        let env = Env::default();
        let plan = plan_from_str(
            "[discovery.static]\nendpoints = []\n",
            FileFormat::Toml,
            None,
            &ConfigInputs {
                env: &env,
                cwd: std::path::Path::new("."),
                types: &[],
                admits: &|_, _| true,
            },
        );
        Self {
            fleet: Fleet {
                version: 1,
                plan: Arc::new(plan.plan.unwrap()),
                endpoints: Vec::new(),
                routable: EndpointSet::EMPTY,
                unchecked: EndpointSet::EMPTY,
                started: true,
            },
            recorder: Recorder::default(),
            totals: Totals::new(1),
            models: Vec::new(),
            sticky: StickyFacts::default(),
            scheduling: SchedulingFacts::default(),
            responses: StoreCounts::default(),
            process: ProcessFacts::default(),
            build: build(),
            figures: None,
            now: UNIX_EPOCH + Duration::from_secs(1_776_249_000),
            outages: Vec::new(),
            draining: false,
            held_bytes: 0,
            access: Access::default(),
            key_series: KeySeries::default(),
            limited: LimitCounts::default(),
        }
    }

    /// So many seconds after now.
    pub(super) fn at(&self, seconds: i64) -> SystemTime {
        let span = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            self.now - span
        } else {
            self.now + span
        }
    }

    pub(super) fn endpoint(&mut self, name: &str, url: &str, priority: u32, status: Status) {
        let id = self.fleet.endpoints.len();
        let plan = endpoint_plan(name, url, priority);
        let mut endpoint = Endpoint::healthy(id, plan, Arc::new(profile()));
        endpoint.status = status;
        self.fleet.endpoints.push(endpoint);
    }

    /// The endpoint's last and next check, in seconds from now.
    pub(super) fn checked(&mut self, index: usize, last: i64, next: i64) {
        let (last, next) = (self.at(last), self.at(next));
        let health = &mut self.fleet.endpoints[index].health;
        health.checked_at = Some(last);
        health.next_check_at = Some(next);
    }

    /// One request that made one attempt, with the first byte after 1.5 ms.
    pub(super) fn request(
        &mut self,
        model: &str,
        endpoint: u32,
        outcome: Outcome,
        status: u16,
        bytes: u64,
        latency_ms: u64,
    ) {
        self.recorder.attempt(&AttemptEnd {
            endpoint_id: endpoint,
            model: Some(model),
            outcome,
            status: Some(status),
            bytes,
            latency_ms,
            first_byte_us: Some(1500),
            at_ms: 1,
        });
        self.recorder.request(&RequestEnd {
            request_id: "id",
            method: "POST",
            path: "/olla/proxy/v1/chat/completions",
            retries: 0,
            model: Some(model),
            endpoint_id: Some(endpoint),
            client: [127, 0, 0, 1].into(),
            outcome,
            status: Some(status),
            bytes,
            latency_ms,
            first_byte_us: Some(1500),
            route: ServedBy::Hit,
            routing: None,
            streaming: true,
            figures: self.figures.as_ref(),
        });
    }

    /// The figures, with all that was recorded merged at the present time.
    pub(super) fn totals(&mut self) -> &mut Totals {
        if let Some(delta) = self.recorder.take() {
            self.totals.merge(delta, self.now);
        }
        &mut self.totals
    }

    pub(super) fn inputs(&mut self) -> Inputs<'_> {
        self.totals();
        Inputs {
            fleet: &self.fleet,
            totals: &self.totals,
            models: &self.models,
            sticky: self.sticky,
            scheduling: &self.scheduling,
            responses: self.responses,
            process: &self.process,
            build: &self.build,
            started: UNIX_EPOCH + Duration::from_secs(1_776_249_000 - 7500),
            now: self.now,
            outages: &self.outages,
            clock_ms: CLOCK_MS,
            draining: self.draining,
            held_bytes: self.held_bytes,
            access: &self.access,
            key_series: &self.key_series,
            limited: &self.limited,
            token_names: 3,
            keys_file_ok: true,
            state: StateFacts::default(),
            sessions: 0,
            issuer: Some(IssuerFacts::default()),
        }
    }
}

/// Now, in milliseconds of the process's clock.
pub(super) const CLOCK_MS: u64 = 7_500_001;

/// A JSON page as a value.
pub(super) fn value(page: &Page) -> serde_json::Value {
    serde_json::from_slice(&page.body).unwrap()
}

fn build() -> Build {
    let text = str::to_owned;
    Build {
        name: text("olla"),
        version: text("1.2.3"),
        edition: text("edge"),
        description: text("gateway"),
        commit: text("abc"),
        date: text("2026-04-01"),
        compiler: text("rustc 1.95.0"),
        os: text("linux"),
        arch: text("x86_64"),
        links: Links {
            homepage: text("h"),
            documentation: text("d"),
            releases: text("r"),
        },
    }
}

fn endpoint_plan(name: &str, url: &str, priority: u32) -> EndpointPlan {
    EndpointPlan {
        priority,
        ..EndpointPlan::new(name, BaseUrl::parse(url).unwrap(), "vllm")
    }
}

fn profile() -> Profile {
    Profile {
        name: "vllm".to_owned(),
        display_name: String::new(),
        description: String::new(),
        version: String::new(),
        prefixes: Vec::new(),
        type_aliases: Vec::new(),
        openai_compatible: true,
        paths: Vec::new(),
        health_path: String::new(),
        discovery_path: String::new(),
        native_listing_path: None,
        chat_path: String::new(),
        completions_path: String::new(),
        embeddings_path: String::new(),
        anthropic: None,
        responses: Default::default(),
        speaks_ollama: false,
        parser: Parser::Vllm,
        loading_texts: Vec::new(),
        embedding_patterns: Vec::new(),
        vision_patterns: Vec::new(),
        metrics: MetricsExtraction::default(),
        scheduling: Default::default(),
    }
}
