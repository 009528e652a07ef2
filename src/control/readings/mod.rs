//! What the scheduler knows of endpoints from themselves: models in memory, slots, and how many
//! requests run and wait.
//!
//! One task looks through the endpoints a few times in an interval, because cores do not tell when
//! they use one. Each reading is a task of its own, so that no endpoint delays another, and a
//! failed one is no failure of the endpoint. [`due`] decides when, [`hear`] what follows.
//!
//! Contract: docs/contract/scheduling.md#3, docs/contract/scheduling.md#4,
//! docs/contract/scheduling.md#11; docs/contract/catalogue.md#3.3

mod due;
mod hear;

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use olla_engine::client::{BodyWanted, ClientFault, ClientResponse};
use olla_engine::rt;

use super::fetch::{DISCOVERY_AGENT, Get, get};
use super::member::FleetMember;
use super::state::ControlState;
use crate::clock::{millis, unix_millis};
use crate::fleet::Status;
use crate::log::{Level, Value};
use crate::providers;
use crate::providers::readings::{
    MAX_READING_BYTES, MemorySource, PageSource, ServedSlots, SlotsSource, parse_memory,
    parse_slots,
};
use due::{GIVEN_UP_MS, Intervals, MemoryFacts, PageFacts, PageOutcome, outcome_of};

/// Readings at the same time, which bounds what they hold of the memory. The others follow.
const AT_ONCE: usize = 32;

/// The time limit of a page of metrics (docs/contract/scheduling.md#4).
const PAGE_LIMIT: Duration = Duration::from_millis(500);

/// What is asked for within this time is one look at all endpoints.
const GATHER: Duration = Duration::from_millis(5);

/// A model is looked for this long after its time in memory is over: the server needs some to
/// unload it.
const EXPIRY_GAP_MS: u64 = 500;

/// After a failed reading of an endpoint of which a model leaves the memory, the pause until the
/// next.
const EXPIRY_RETRY_MS: u64 = 5000;

/// A document of an endpoint that is due.
enum Due {
    Memory(MemorySource),
    Page(PageSource),
    Slots(SlotsSource),
}

impl ControlState {
    /// A first byte came of a model that was not in the memory of an endpoint: others may have left
    /// it.
    pub(super) fn read_memory_at_once(&self, endpoint: u32) {
        if let Some(member) = self.member(endpoint)
            && member.profile().scheduling.memory.is_some()
        {
            member.readings.memory.want();
            self.readings.arrived.notify();
        }
    }

    /// The models of an endpoint were listed.
    pub(super) fn on_listed(&self, member: &FleetMember) {
        let (readings, models) = (&member.readings, member.models());
        if readings.is_another(&models) {
            member.load.forget_speed();
        }
        if member.status() == Status::Warming {
            hear::hear_warming(&member.load, &models, self.now_ms());
        }
        let profile = member.profile();
        if profile.scheduling.memory.is_some() && models.len() > 1 {
            readings.memory.want();
            self.readings.arrived.notify();
        }
        if profile.scheduling.slots.is_none() {
            // It may have been a server of another type.
            member.load.report_slots(None);
            member.serves(None);
        }
        self.want_slots(member);
    }

    fn want_slots(&self, member: &FleetMember) {
        if member.profile().scheduling.slots.is_some() {
            member.readings.slots.want();
            self.readings.arrived.notify();
        }
    }

    /// The status of an endpoint has changed, as was true at a time.
    pub(super) fn on_status(&self, member: &FleetMember, before: Status, at: Instant) {
        let news = hear::health_news(before, member.status());
        let at_ms = self.common.clock_ms(at);
        if news.loses_caches {
            member.load.restarted();
        }
        if news.came_back {
            member.readings.came_back.set(true);
        }
        if news.loads {
            hear::hear_warming(&member.load, &member.models(), at_ms);
        }
        if news.is_ready {
            if hear::hear_healthy(&member.load, &member.models(), at_ms) {
                self.reconsider();
            }
            self.want_slots(member);
        }
    }

    /// The intervals may have changed.
    pub(super) fn on_intervals(&self) {
        self.readings.arrived.notify();
    }

    fn now_ms(&self) -> u64 {
        self.common.clock_ms(Instant::now())
    }

    fn intervals(&self) -> Intervals {
        let plan = self.config().plan.proxy.least_time;
        Intervals {
            memory: plan.warmth_interval,
            page: plan.load_interval,
        }
    }
}

/// Reads the endpoints as they are due.
pub(super) async fn keep_reading(state: &Rc<ControlState>) {
    loop {
        let arrived = state.readings.arrived.wait();
        let has_arrived = match state.intervals().tick() {
            Some(tick) => rt::timeout(tick, arrived).await.is_some(),
            None => {
                arrived.await;
                true
            }
        };
        if has_arrived {
            rt::sleep(GATHER).await;
        }
        look_through(state);
    }
}

/// Begins the readings that are due, as many as are allowed.
fn look_through(state: &Rc<ControlState>) {
    let (now_ms, intervals) = (state.now_ms(), state.intervals());
    let members = state.endpoints.members.borrow();
    let first = state.readings.next.get();
    for place in 0..members.len() {
        let at = (first + place) % members.len();
        let Some(member) = members.get(at) else { break };
        while let Some(due) = due_of(member, intervals, now_ms) {
            if state.readings.in_progress.get() >= AT_ONCE {
                state.readings.next.set(at);
                return;
            }
            begin(state, member, due, now_ms);
        }
    }
}

/// A document of an endpoint that is due and not being read.
fn due_of(member: &FleetMember, intervals: Intervals, now_ms: u64) -> Option<Due> {
    // Most endpoints end here most of the time.
    let readings = &member.readings;
    let tolerance = intervals.tick().unwrap_or_default() / 2;
    let less = |interval: Option<Duration>| {
        interval.map(|interval| millis(interval.saturating_sub(tolerance)))
    };
    let memory = MemoryFacts {
        interval_ms: less(intervals.memory),
        models: member.model_count(),
        used_ms: member.load.used_ms(),
        began_ms: readings.memory.began_ms(),
        is_wanted: readings.memory.is_wanted(),
        expires_ms: readings.expires_ms.get(),
    };
    let page = PageFacts {
        interval_ms: less(intervals.page),
        running: member.load.running(),
        began_ms: readings.page.began_ms(),
        given_up_until_ms: readings.given_up_until_ms.get(),
    };
    let memory_is_due = memory.is_due(now_ms) && !readings.memory.is_in_progress();
    let page_is_due = page.is_due(now_ms) && !readings.page.is_in_progress();
    let slots_are_due = readings.slots.is_wanted() && !readings.slots.is_in_progress();
    if !(memory_is_due || page_is_due || slots_are_due) || !member.is_routable() {
        return None;
    }
    let profile = member.profile();
    let sources = &profile.scheduling;
    if slots_are_due && let Some(source) = &sources.slots {
        return Some(Due::Slots(source.clone()));
    }
    if memory_is_due && let Some(source) = &sources.memory {
        return Some(Due::Memory(source.clone()));
    }
    if page_is_due && let Some(source) = &sources.page {
        return Some(Due::Page(source.clone()));
    }
    None
}

fn begin(state: &Rc<ControlState>, member: &Rc<FleetMember>, due: Due, now_ms: u64) {
    let in_progress = &state.readings.in_progress;
    in_progress.set(in_progress.get() + 1);
    let (state, member) = (Rc::clone(state), Rc::clone(member));
    match &due {
        Due::Memory(_) => member.readings.memory.begin(now_ms),
        Due::Page(_) => member.readings.page.begin(now_ms),
        Due::Slots(_) => member.readings.slots.begin(now_ms),
    }
    rt::spawn(async move {
        match due {
            Due::Memory(source) => {
                let expired = member.readings.expires_ms.take();
                let is_read = read_memory(&state, &member, &source).await;
                if !is_read && expired.is_some() {
                    let again_ms = state.now_ms().saturating_add(EXPIRY_RETRY_MS);
                    member.readings.expires_ms.set(Some(again_ms));
                }
                member.readings.memory.end();
            }
            Due::Page(source) => {
                read_page(&state, &member, &source).await;
                member.readings.page.end();
            }
            Due::Slots(source) => {
                read_slots(&state, &member, &source).await;
                member.readings.slots.end();
            }
        }
        let in_progress = &state.readings.in_progress;
        in_progress.set(in_progress.get() - 1);
        if in_progress.get() + 1 == AT_ONCE {
            // Others may wait.
            state.readings.arrived.notify();
        }
    });
}

/// One request for a document of an endpoint.
async fn ask(
    state: &ControlState,
    member: &FleetMember,
    path: &str,
    limit: Duration,
) -> Result<ClientResponse, ClientFault> {
    let target = providers::target(&member.plan().url, path).map_err(|_| ClientFault::Malformed)?;
    let request = Get {
        member,
        target,
        fields: &[
            ("User-Agent", DISCOVERY_AGENT),
            ("Accept", "application/json, text/plain, */*"),
        ],
        limit,
        body: BodyWanted::Whole(MAX_READING_BYTES),
    };
    get(&state.network, request).await
}

/// Returns whether the list was read.
async fn read_memory(state: &ControlState, member: &FleetMember, source: &MemorySource) -> bool {
    let plan = member.plan();
    let at_ms = state.now_ms();
    let response = ask(state, member, &source.path, plan.check_timeout).await;
    let response = response.ok().filter(|response| response.status == 200);
    let unix_ms = unix_millis(SystemTime::now());
    let reading = response
        .filter(|_| !member.is_removed())
        .and_then(|response| parse_memory(source, &response.body, unix_ms).ok());
    let Some(reading) = reading else {
        return false;
    };
    if let Some(expires_ms) = reading.expires_ms {
        let left_ms = expires_ms.saturating_sub(unix_ms);
        let at_ms = state.now_ms().saturating_add(left_ms);
        let at_ms = at_ms.saturating_add(EXPIRY_GAP_MS);
        member.readings.expires_ms.set(Some(at_ms));
    }
    let told_context = plan.context_length.is_none();
    let asked = (at_ms, told_context);
    if hear::hear_memory(&member.load, &member.models(), &reading, asked) {
        state.reconsider();
    }
    true
}

async fn read_page(state: &ControlState, member: &FleetMember, source: &PageSource) {
    let before = member.load.running();
    let response = ask(state, member, &source.path, PAGE_LIMIT).await;
    let readings = &member.readings;
    match outcome_of(source, response) {
        PageOutcome::Read(requests) => {
            readings.is_warned.set(false);
            readings.given_up_until_ms.set(None);
            let Some(interval) = state.intervals().page else {
                return;
            };
            // A request that began or ended meanwhile is none of another client.
            let own = before.max(member.load.running());
            let counts = (requests.running, requests.waiting, own);
            member.load.read(counts, state.now_ms(), millis(interval));
            // There may be more slots; with fewer, one that waits may be served sooner elsewhere.
            state.reconsider();
        }
        PageOutcome::Away => {}
        PageOutcome::Absent(status) => {
            give_up(state, member, Level::Info, &format!("HTTP status {status}"));
        }
        PageOutcome::Useless(reason) => give_up(state, member, Level::Warn, &reason),
    }
}

/// Does not read the page of an endpoint for a while.
fn give_up(state: &ControlState, member: &FleetMember, level: Level, reason: &str) {
    let readings = &member.readings;
    let until_ms = state.now_ms().saturating_add(GIVEN_UP_MS);
    readings.given_up_until_ms.set(Some(until_ms));
    state.common.pages_given_up.fetch_add(1, Ordering::Relaxed);
    if !readings.is_warned.replace(true) {
        let fields = [
            ("endpoint", Value::Str(&member.plan().name)),
            ("reason", Value::Str(reason)),
            ("next_try_s", Value::Num(GIVEN_UP_MS / 1000)),
        ];
        let message = "Endpoint metrics cannot be read";
        state.logger.emit(level, message, &fields);
    }
}

async fn read_slots(state: &ControlState, member: &FleetMember, source: &SlotsSource) {
    let limit = member.plan().check_timeout;
    let response = ask(state, member, &source.path, limit).await;
    // What it said before holds until it says something else.
    let Ok(response) = response else { return };
    let served = match response.status {
        200 => parse_slots(source, &response.body).unwrap_or_default(),
        _ => ServedSlots::default(),
    };
    if member.is_removed() {
        return;
    }
    let before = member.load.slots();
    member.load.report_slots(served.slots);
    if member.load.slots() != before {
        state.reconsider();
    }
    if member.serves(served.context) {
        state.models_changed();
        state.publish_soon();
    }
}
