//! The admission queue: requests that wait for a slot, in the order in which they get one.
//!
//! Pure: it knows flows and costs, and asks a function whether a request can start. A flow is a
//! client. Its service is counted relative to its weight; of the flows with the highest priority the
//! one with the least service goes first.
//!
//! Contract: docs/contract/scheduling.md#5

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustc_hash::FxHashMap;

/// Requests of one flow that may start before their turn, when the first of them cannot.
pub(crate) const CONSIDERED_MAX: usize = 16;

/// So many requests of the others a flow may be behind that has requests in progress when it begins
/// to wait. It is not idle, and the bursts of people beside a batch job are about as long: with none,
/// they wait for a third of a second in the median of the simulated `flood`; one that has been idle
/// saves nothing up.
const KEPT_TURNS: f64 = 32.0;

/// Flows whose service is remembered although none of their requests wait.
const IDLE_FLOWS_MAX: usize = 4096;

/// Priorities of policies: 0 to 9 (docs/contract/access.md#5).
const PRIORITIES: usize = 10;

/// The service of a request, in tokens: one of an output takes an endpoint about four times as long as
/// one of a prompt.
pub(crate) fn service_of(prompt: u64, output: f64) -> f64 {
    prompt as f64 + 4.0 * output
}

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowKey(pub u64);

/// The bounds of a queue; they come with each call, since a reload may change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueBounds {
    /// `queue.max_waiting`.
    pub waiting: usize,
    /// `queue.max_waiting_per_flow`.
    pub of_flow: usize,
}

/// The bound that a request does not fit in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// `queue.max_waiting`.
    All,
    /// `queue.max_waiting_per_flow`.
    Flow,
}

/// The place of a request in the order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueueStanding {
    /// Its client.
    pub flow: FlowKey,
    /// Its policy's priority.
    pub priority: u8,
    /// Its policy's weight.
    pub weight: u32,
    /// The service that it is expected to take: tokens of the prompt and four times those of the
    /// output.
    pub cost: f64,
    /// When it came, in milliseconds.
    pub since_ms: u64,
}

/// What a request that is considered does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It starts, and leaves the queue.
    Starts,
    /// It cannot start.
    Waits,
}

/// Names a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TicketId {
    flow: FlowKey,
    number: u64,
}

#[derive(Debug)]
struct Entry<W> {
    number: u64,
    standing: QueueStanding,
    what: W,
}

#[derive(Debug)]
struct Flow<W> {
    /// Service relative to weight.
    served: f64,
    /// The part of it that the last request to start was charged with.
    last: f64,
    /// Requests that were charged and are in progress: those whose [`Charge`] exists.
    running: Arc<AtomicU32>,
    waiting: VecDeque<Entry<W>>,
    used_ms: u64,
}

/// The queue. `W` is what is known of a request.
#[derive(Debug)]
pub(crate) struct Queue<W> {
    flows: FxHashMap<FlowKey, Flow<W>>,
    waiting: usize,
    next: u64,
    /// The service of the flow that was furthest when a request of it started, and the part of it
    /// that this request was charged with: where a flow begins when none waits.
    furthest: (f64, f64),
}

/// The order among requests of one priority: what is smaller goes first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Turn {
    priority: u8,
    served: f64,
    /// The number of the flow's first request, then its own.
    first: u64,
    number: u64,
    flow: FlowKey,
    at: usize,
}

impl Eq for Turn {}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |turn: &Self| (turn.first, turn.number);
        self.served
            .total_cmp(&other.served)
            .then(key(self).cmp(&key(other)))
    }
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self {
            flows: FxHashMap::default(),
            waiting: 0,
            next: 0,
            furthest: (0.0, 0.0),
        }
    }
}

impl<W> Queue<W> {
    /// How many requests wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether none does.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// All requests that wait, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &W> {
        let flows = self.flows.values();
        flows.flat_map(|flow| flow.waiting.iter().map(|entry| &entry.what))
    }

    /// A request that waits.
    pub(crate) fn get_mut(&mut self, id: TicketId) -> Option<&mut W> {
        let flow = self.flows.get_mut(&id.flow)?;
        let at = place(&flow.waiting, id.number)?;
        flow.waiting.get_mut(at).map(|entry| &mut entry.what)
    }

    /// Whether one more request of a flow fits in.
    ///
    /// # Errors
    /// The bound that it does not fit in.
    pub(crate) fn room(&self, flow: FlowKey, bounds: QueueBounds) -> Result<(), Full> {
        if self.waiting >= bounds.waiting {
            return Err(Full::All);
        }
        let flow = self.flows.get(&flow);
        if flow.map_or(0, |flow| flow.waiting.len()) >= bounds.of_flow {
            return Err(Full::Flow);
        }
        Ok(())
    }

    /// Appends a request to its flow.
    ///
    /// # Errors
    /// The bound that it does not fit in.
    pub(crate) fn push(
        &mut self,
        standing: QueueStanding,
        bounds: QueueBounds,
        what: W,
    ) -> Result<TicketId, Full> {
        self.room(standing.flow, bounds)?;
        let flow = self.flows.get(&standing.flow);
        let is_active = flow.is_some_and(Flow::is_running);
        let least = self.least_begun(if is_active { KEPT_TURNS } else { 1.0 });
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        if flow.is_none() {
            self.forget_idle();
        }
        let flow = self.flow(standing.flow, standing.since_ms);
        if flow.waiting.is_empty() {
            // An idle flow saves nothing up.
            flow.served = flow.served.max(least);
            // Its credit is not another's: flows that begin one after another would add theirs up.
            flow.last = 0.0;
        }
        flow.waiting.push_back(Entry {
            number,
            standing,
            what,
        });
        Ok(TicketId {
            flow: standing.flow,
            number,
        })
    }

    /// Takes a request out that does not wait any longer. Returns it, and whether one behind it that
    /// was too far back in its flow is considered from now on.
    pub(crate) fn remove(&mut self, id: TicketId) -> Option<(W, bool)> {
        let flow = self.flows.get_mut(&id.flow)?;
        let at = place(&flow.waiting, id.number)?;
        let entry = flow.waiting.remove(at)?;
        self.waiting -= 1;
        let made_room = at < CONSIDERED_MAX && flow.waiting.len() >= CONSIDERED_MAX;
        Some((entry.what, made_room))
    }

    /// The requests that [`Self::drain`] considers if none starts.
    #[cfg(test)]
    pub(crate) fn considered(&self) -> impl Iterator<Item = &W> {
        let flows = self.flows.values();
        flows.flat_map(|flow| {
            flow.waiting
                .iter()
                .take(CONSIDERED_MAX)
                .map(|entry| &entry.what)
        })
    }

    /// Requests that were started and are in progress.
    #[cfg(test)]
    pub(crate) fn in_progress(&self) -> u32 {
        let flows = self.flows.values();
        flows.map(|flow| flow.running.load(Ordering::Relaxed)).sum()
    }

    /// Considers the requests that wait in their order. `start` says whether one can start; those
    /// that do are charged to their flows and handed to `started`.
    pub(crate) fn drain(
        &mut self,
        now_ms: u64,
        aging_ms: Option<u64>,
        mut start: impl FnMut(&mut W) -> Verdict,
        mut started: impl FnMut(W, Charge),
    ) {
        let mut order = Order::of(&self.flows);
        while let Some(turn) = order.next(&self.flows, now_ms, aging_ms) {
            let Some(flow) = self.flows.get_mut(&turn.flow) else {
                continue;
            };
            let Some(entry) = flow.waiting.get_mut(turn.at) else {
                continue;
            };
            let next = match start(&mut entry.what) {
                Verdict::Waits => turn.at + 1,
                Verdict::Starts => {
                    let Some(entry) = flow.waiting.remove(turn.at) else {
                        continue;
                    };
                    self.waiting -= 1;
                    flow.used_ms = now_ms;
                    flow.last = entry.standing.relative_cost();
                    flow.served += flow.last;
                    if flow.served - flow.last >= self.furthest.0 - self.furthest.1 {
                        self.furthest = (flow.served, flow.last);
                    }
                    order.oldest = None;
                    let charge = Charge {
                        flow: turn.flow,
                        weight: entry.standing.weight,
                        cost: entry.standing.cost,
                        _running: RunningGuard::new(&flow.running),
                    };
                    started(entry.what, charge);
                    turn.at
                }
            };
            if next < CONSIDERED_MAX {
                order.push(flow.turn(turn.flow, next));
            }
        }
    }

    /// The place of a request if all started in their turn: 1 for the one that is next.
    pub(crate) fn position(&self, id: TicketId, now_ms: u64, aging_ms: Option<u64>) -> usize {
        let mut order = Order::of(&self.flows);
        let mut served: FxHashMap<FlowKey, f64> = FxHashMap::default();
        let mut position = 0;
        while let Some(turn) = order.next(&self.flows, now_ms, aging_ms) {
            position += 1;
            if turn.flow == id.flow && turn.number == id.number {
                break;
            }
            let Some(flow) = self.flows.get(&turn.flow) else {
                continue;
            };
            let Some(entry) = flow.waiting.get(turn.at) else {
                continue;
            };
            let served = served.entry(turn.flow).or_insert(flow.served);
            *served += entry.standing.relative_cost();
            let next = flow.turn(turn.flow, turn.at + 1);
            order.push(next.map(|turn| Turn {
                served: *served,
                ..turn
            }));
        }
        position
    }

    /// A request that was started by [`Self::drain`] has ended: corrects what its flow was charged.
    /// A flow that took less than expected does not come before all others that wait.
    pub(crate) fn settle(&mut self, charge: &Charge, actual: f64) {
        let least = match self.waiting {
            0 => None,
            _ => self.least_served(Some(charge.flow)),
        };
        let Some(flow) = self.flows.get_mut(&charge.flow) else {
            return;
        };
        let before = flow.served;
        let after = before + (actual - charge.cost) / f64::from(charge.weight.max(1));
        flow.served = if after < before {
            after.max(least.map_or(after, |least| least.min(before)))
        } else {
            after
        };
    }

    /// The smallest service of the flows that wait.
    fn least_served(&self, except: Option<FlowKey>) -> Option<f64> {
        let waiting = self
            .flows
            .iter()
            .filter(|(key, flow)| !flow.waiting.is_empty() && Some(**key) != except);
        waiting.map(|(_, flow)| flow.served).min_by(f64::total_cmp)
    }

    /// What a flow that begins to wait is counted from: the smallest service of those that wait, less
    /// the request that such a flow started last, whose turn it still is. So a flow that waits seldom
    /// goes before the next request of one that always waits, and not after it. `turns` is how many
    /// such requests it may be behind. When none waits, it is counted from the flow that is furthest:
    /// otherwise one that had the fleet for itself would wait until a newcomer has had as much.
    fn least_begun(&self, turns: f64) -> f64 {
        if self.waiting == 0 {
            let (served, last) = self.furthest;
            return (served - turns * last).max(0.0);
        }
        let flows = self.flows.values();
        let waiting = flows.filter(|flow| !flow.waiting.is_empty());
        waiting
            .map(|flow| flow.served - turns * flow.last)
            .min_by(f64::total_cmp)
            .unwrap_or(0.0)
    }

    fn flow(&mut self, key: FlowKey, now_ms: u64) -> &mut Flow<W> {
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            served: 0.0,
            running: Arc::default(),
            last: 0.0,
            waiting: VecDeque::new(),
            used_ms: now_ms,
        });
        flow.used_ms = now_ms;
        flow
    }

    /// Forgets the half of the idle flows that were used longest ago, once there are too many.
    fn forget_idle(&mut self) {
        if self.flows.len() < IDLE_FLOWS_MAX {
            return;
        }
        let idle = self.flows.values().filter(|flow| !flow.is_used());
        let mut used: Vec<u64> = idle.map(|flow| flow.used_ms).collect();
        let middle = used.len() / 2;
        if middle == 0 {
            return;
        }
        let (_, newest, _) = used.select_nth_unstable(middle);
        let newest = *newest;
        self.flows
            .retain(|_, flow| flow.is_used() || flow.used_ms > newest);
    }
}

/// What a flow was charged for a request that started. The request is in progress as long as this
/// exists, however it ends.
#[derive(Debug)]
pub(crate) struct Charge {
    flow: FlowKey,
    weight: u32,
    cost: f64,
    _running: RunningGuard,
}

/// Counts a request of a flow as in progress until it is dropped.
#[derive(Debug)]
struct RunningGuard(Arc<AtomicU32>);

impl RunningGuard {
    fn new(running: &Arc<AtomicU32>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(running))
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl QueueStanding {
    fn relative_cost(&self) -> f64 {
        self.cost / f64::from(self.weight.max(1))
    }
}

impl<W> Flow<W> {
    /// Whether any of its requests waits or is in progress.
    fn is_used(&self) -> bool {
        !self.waiting.is_empty() || self.is_running()
    }

    fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    fn turn(&self, flow: FlowKey, at: usize) -> Option<Turn> {
        let entry = self.waiting.get(at)?;
        let first = self.waiting.front()?;
        Some(Turn {
            priority: entry.standing.priority,
            served: self.served,
            first: first.number,
            number: entry.number,
            flow,
            at,
        })
    }
}

/// The turns that are left, by priority.
///
/// Time lifts a whole priority: it goes before a higher one when its oldest request has waited long
/// enough, so that none starves. Among flows of one priority it decides nothing: there a backlog
/// would pass whoever comes later as soon as it is old, and service would be shared by patience.
struct Order {
    turns: [BinaryHeap<Reverse<Turn>>; PRIORITIES],
    /// Since when the oldest request of each priority waits; `None` = to be looked up.
    oldest: Option<[Option<u64>; PRIORITIES]>,
}

impl Order {
    /// The first request of each flow.
    fn of<W>(flows: &FxHashMap<FlowKey, Flow<W>>) -> Self {
        let mut order = Self {
            turns: Default::default(),
            oldest: None,
        };
        for (key, flow) in flows {
            order.push(flow.turn(*key, 0));
        }
        order
    }

    fn push(&mut self, turn: Option<Turn>) {
        if let Some(turn) = turn {
            let level = usize::from(turn.priority).min(PRIORITIES - 1);
            if let Some(turns) = self.turns.get_mut(level) {
                turns.push(Reverse(turn));
            }
        }
    }

    /// Takes the next one.
    fn next<W>(
        &mut self,
        flows: &FxHashMap<FlowKey, Flow<W>>,
        now_ms: u64,
        aging_ms: Option<u64>,
    ) -> Option<Turn> {
        let levels = self.turns.iter().enumerate();
        let mut left = levels.filter(|(_, turns)| !turns.is_empty());
        let (first, _) = left.next()?;
        let level = match (left.next(), aging_ms) {
            (None, _) => first,
            (Some((second, _)), None) => left.next_back().map_or(second, |(last, _)| last),
            (Some(_), Some(aging)) => self.oldest_level(flows, now_ms, aging)?,
        };
        self.turns.get_mut(level)?.pop().map(|Reverse(turn)| turn)
    }

    /// Of the priorities that have a turn left, the highest with the steps that the oldest request
    /// of each has gained.
    #[cold]
    fn oldest_level<W>(
        &mut self,
        flows: &FxHashMap<FlowKey, Flow<W>>,
        now_ms: u64,
        aging_ms: u64,
    ) -> Option<usize> {
        // Once for all turns until a request starts: there may be thousands of flows.
        let oldest = *self.oldest.get_or_insert_with(|| oldest_of(flows));
        let levels = self.turns.iter().zip(oldest).enumerate();
        let left = levels.filter(|(_, (turns, _))| !turns.is_empty());
        let lifted = left.map(|(level, (_, oldest))| {
            let waited = oldest.map_or(0, |since| now_ms.saturating_sub(since));
            (level as u64 + waited / aging_ms.max(1), level)
        });
        lifted.max().map(|(_, level)| level)
    }
}

/// Since when the oldest request of each priority waits.
fn oldest_of<W>(flows: &FxHashMap<FlowKey, Flow<W>>) -> [Option<u64>; PRIORITIES] {
    let mut oldest = [None::<u64>; PRIORITIES];
    for entry in flows.values().filter_map(|flow| flow.waiting.front()) {
        let level = usize::from(entry.standing.priority).min(PRIORITIES - 1);
        if let Some(oldest) = oldest.get_mut(level) {
            let since = entry.standing.since_ms;
            *oldest = Some(oldest.map_or(since, |known| known.min(since)));
        }
    }
    oldest
}

fn place<W>(waiting: &VecDeque<Entry<W>>, number: u64) -> Option<usize> {
    waiting
        .binary_search_by_key(&number, |entry| entry.number)
        .ok()
}
