//! Keep-alive JSON load, with the checks that a load generator usually leaves out: every response
//! must carry the nonce of its own request.
//!
//! Closed loop: each connection sends its next request when it has its response. With a rate, open
//! loop: requests are due on a fixed schedule, and latency counts from the time a
//! request was due, not from when a connection was free to send it (no coordinated omission).
//! Failures are counted by kind and the connection is made again after a pause, so a run survives a
//! restart of what it measures.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use mio::{Events, Poll, Token};
use serde_json::{Value, json};

use crate::alarm::Alarm;
use crate::clock::{NS_PER_MS, NS_PER_S, now_ns};
use crate::link::{Failure, Link, SCRATCH_BYTES, Turn};
use crate::report::{self, Times};
use crate::scan::string_of;
use crate::target::{Nonce, Nonces, Payload, RequestOptions};
use crate::wire::Part;

/// First and longest pause before a connection is made again, in nanoseconds.
const PAUSE_NS: (u64, u64) = (10 * NS_PER_MS, 500 * NS_PER_MS);

const ALARM: Token = Token(usize::MAX);

/// The interval at which overdue responses are looked for, in nanoseconds.
const SWEEP_NS: u64 = 100 * NS_PER_MS;

/// What `chat` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = CHAT_HELP)]
pub struct ChatOptions {
    /// The requests
    #[command(flatten)]
    pub request: RequestOptions,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub connections: usize,
    /// Stop after this many requests
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    pub requests: Option<u64>,
    /// Stop starting requests after this many seconds (10 when --requests is not given)
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// Requests each second over all connections, on a schedule; without it, as fast as responses
    /// come
    #[arg(long, value_name = "R")]
    pub rate: Option<f64>,
    /// Send a nonce with each request and check it in the response
    #[arg(long)]
    pub nonce: bool,
    /// How long a response may take
    #[arg(long, default_value_t = 30_000, value_name = "MS")]
    pub timeout_ms: u64,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const CHAT_HELP: &str = "\
Exit status 0 when at least one response arrived and none was mixed up, else 1.
With --rate, `latency_us` counts from the moment a request was due and `service_us` from the moment
it was sent; without it the two are the same and only the first is reported.";

/// Runs the load and returns the report.
///
/// # Errors
/// Only when epoll itself fails.
pub fn run(options: &ChatOptions) -> io::Result<Value> {
    let mut load = Load::new(options)?;
    load.run()?;
    Ok(load.report())
}

/// True when a report is one of success, as the exit status says.
pub fn is_success(report: &Value) -> bool {
    let zero = |name: &str| report[name].as_u64().unwrap_or(0) == 0;
    zero("nonces_wrong") && zero("nonces_missing") && !zero("answers")
}

struct Load<'a> {
    options: &'a ChatOptions,
    poll: Poll,
    alarm: Alarm,
    payload: Payload,
    nonces: Nonces,
    slots: Vec<Slot>,
    /// Slots that can take a request, the one used last on top.
    free: Vec<usize>,
    /// Slots that wait before they connect again.
    paused: BinaryHeap<Reverse<(u64, usize)>>,
    /// When requests not yet sent were due (open loop).
    backlog: VecDeque<u64>,
    start_ns: u64,
    /// Nothing is started from here on.
    stop_ns: u64,
    /// Requests that have become due, or in a closed loop been sent.
    begun: u64,
    last_answer_ns: u64,
    tally: Tally,
}

#[derive(Default)]
struct Slot {
    link: Option<Link>,
    nonce: Nonce,
    due_ns: u64,
    sent_ns: u64,
    pause_ns: u64,
    /// The response's body, kept only to look for the nonce.
    body: Vec<u8>,
}

#[derive(Default)]
struct Tally {
    latency: Times,
    service: Times,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<Failure, u64>,
    body_bytes: u64,
    nonces_wrong: u64,
    nonces_missing: u64,
    closed_idle: u64,
}

impl<'a> Load<'a> {
    fn new(options: &'a ChatOptions) -> io::Result<Self> {
        let connections = options.connections.max(1);
        let poll = Poll::new()?;
        let start_ns = now_ns();
        let seconds = match (options.duration, options.requests) {
            (Some(seconds), _) => seconds,
            (None, None) => 10.0,
            (None, Some(_)) => f64::INFINITY,
        };
        Ok(Self {
            options,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            payload: Payload::render(&options.request, false, options.nonce),
            nonces: Nonces::new(start_ns),
            slots: std::iter::repeat_with(Slot::default)
                .take(connections)
                .collect(),
            free: (0..connections).rev().collect(),
            paused: BinaryHeap::new(),
            backlog: VecDeque::new(),
            start_ns,
            // A cast from a float saturates.
            stop_ns: start_ns.saturating_add((seconds * NS_PER_S as f64) as u64),
            begun: 0,
            last_answer_ns: start_ns,
            tally: Tally::default(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut sweep_ns = self.start_ns + SWEEP_NS;
        loop {
            let now = now_ns();
            self.resume(now);
            self.start_due(now);
            if self.is_over(now) {
                return Ok(());
            }
            if now >= sweep_ns {
                self.sweep(now);
                sweep_ns = now + SWEEP_NS;
            }
            let wakers = [
                Some(sweep_ns),
                self.next_due(),
                self.paused.peek().map(|p| p.0.0),
            ];
            self.alarm
                .set(wakers.into_iter().flatten().min().unwrap_or(sweep_ns))?;
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let closed = event.is_read_closed() || event.is_error();
                self.on_ready(event.token().0, closed, &mut scratch);
            }
        }
    }

    /// Returns slots to use when their pause is over.
    fn resume(&mut self, now: u64) {
        while let Some(&Reverse((at, slot))) = self.paused.peek() {
            if at > now {
                return;
            }
            self.paused.pop();
            self.free.push(slot);
        }
    }

    /// Starts the requests that are due on the slots that are free.
    fn start_due(&mut self, now: u64) {
        if self.options.rate.is_some() {
            while self.next_due().is_some_and(|due| due <= now) {
                self.backlog.extend(self.next_due());
                self.begun += 1;
            }
            while let (Some(&due), Some(&slot)) = (self.backlog.front(), self.free.last()) {
                self.backlog.pop_front();
                self.free.pop();
                self.start(slot, due);
            }
        } else {
            while now < self.stop_ns && self.has_budget() {
                let Some(slot) = self.free.pop() else { return };
                self.begun += 1;
                self.start(slot, now_ns());
            }
        }
    }

    fn has_budget(&self) -> bool {
        self.options.requests.is_none_or(|limit| self.begun < limit)
    }

    /// When the next request of an open loop is due.
    fn next_due(&self) -> Option<u64> {
        let rate = self.options.rate?;
        let due = self.start_ns + (self.begun as f64 / rate * NS_PER_S as f64) as u64;
        (due < self.stop_ns && self.has_budget()).then_some(due)
    }

    fn is_over(&self, now: u64) -> bool {
        let nothing_to_start = match self.options.rate {
            // What is still unsent when the time is up stays so, and is reported.
            Some(_) => {
                now >= self.stop_ns || (self.next_due().is_none() && self.backlog.is_empty())
            }
            None => now >= self.stop_ns || !self.has_budget(),
        };
        nothing_to_start && self.free.len() + self.paused.len() == self.slots.len()
    }

    fn start(&mut self, slot: usize, due_ns: u64) {
        let nonce = self.nonces.next_nonce();
        let state = &mut self.slots[slot];
        state.nonce = nonce;
        state.due_ns = due_ns;
        state.sent_ns = now_ns();
        state.body.clear();
        if state.link.is_none() {
            let target = &self.options.request.url;
            match Link::open_to(target, self.poll.registry(), Token(slot)) {
                Ok(link) => state.link = Some(link),
                Err(error) => return self.fail(slot, Failure::from(&error)),
            }
        }
        let begun = match &mut state.link {
            Some(link) => link.begin(&self.payload, nonce),
            None => Ok(()),
        };
        if let Err(failure) = begun {
            self.fail(slot, failure);
        }
    }

    fn on_ready(&mut self, slot: usize, closed: bool, scratch: &mut [u8]) {
        let keep_body = self.options.nonce;
        let state = &mut self.slots[slot];
        let Some(link) = &mut state.link else { return };
        let (body, body_bytes) = (&mut state.body, &mut self.tally.body_bytes);
        let turn = link.turn(&self.payload, scratch, closed, |part| {
            if let Part::Data(data) = part {
                *body_bytes += data.len() as u64;
                if keep_body {
                    body.extend_from_slice(data);
                }
            }
        });
        match turn {
            Turn::Pending => {}
            Turn::Complete { status, keep } => {
                self.on_response(slot, status);
                if !keep {
                    self.slots[slot].link = None;
                }
                self.free.push(slot);
            }
            Turn::ClosedIdle => {
                self.tally.closed_idle += 1;
                state.link = None;
            }
            Turn::Failed(failure) if link.is_busy() => self.fail(slot, failure),
            // Unexpected bytes between two exchanges.
            Turn::Failed(failure) => {
                *self.tally.failures.entry(failure).or_default() += 1;
                state.link = None;
            }
        }
    }

    fn on_response(&mut self, slot: usize, status: u16) {
        let state = &mut self.slots[slot];
        let now = now_ns();
        self.last_answer_ns = now;
        self.tally.latency.record(now - state.due_ns);
        self.tally.service.record(now - state.sent_ns);
        *self.tally.statuses.entry(status).or_default() += 1;
        state.pause_ns = 0;
        if self.options.nonce && status == 200 {
            match string_of(&state.body, "\"nonce\"") {
                Some(nonce) if nonce == state.nonce => {}
                Some(_) => self.tally.nonces_wrong += 1,
                None => self.tally.nonces_missing += 1,
            }
        }
    }

    fn fail(&mut self, slot: usize, failure: Failure) {
        *self.tally.failures.entry(failure).or_default() += 1;
        let state = &mut self.slots[slot];
        state.link = None;
        state.pause_ns = (state.pause_ns * 2).clamp(PAUSE_NS.0, PAUSE_NS.1);
        self.paused.push(Reverse((now_ns() + state.pause_ns, slot)));
    }

    fn sweep(&mut self, now: u64) {
        let patience = self.options.timeout_ms * NS_PER_MS;
        for slot in 0..self.slots.len() {
            let state = &self.slots[slot];
            let busy = state.link.as_ref().is_some_and(Link::is_busy);
            if busy && now.saturating_sub(state.sent_ns) > patience {
                self.fail(slot, Failure::Timeout);
            }
        }
    }

    fn report(&self) -> Value {
        let Tally {
            statuses, failures, ..
        } = &self.tally;
        let seconds = self.last_answer_ns.saturating_sub(self.start_ns) as f64 / NS_PER_S as f64;
        let responses = self.tally.latency.count();
        let mut report = json!({
            "tool": "chat",
            "url": self.options.request.url.to_string(),
            "connections": self.slots.len(),
            "request_bytes": self.payload.length(),
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "answers": responses,
            "answers_per_second": report::rate(responses, seconds),
            "body_bytes": self.tally.body_bytes,
            "statuses": report::counts_to_json(statuses.iter().map(|(status, n)| (*status, *n))),
            "failures": report::counts_to_json(failures.iter().map(|(kind, n)| (kind.name(), *n))),
            "closed_idle": self.tally.closed_idle,
            "latency_us": self.tally.latency.to_json(),
        });
        if self.options.nonce {
            report["nonces_wrong"] = self.tally.nonces_wrong.into();
            report["nonces_missing"] = self.tally.nonces_missing.into();
        }
        if self.options.rate.is_some() {
            report["unsent"] = self.backlog.len().into();
            report["service_us"] = self.tally.service.to_json();
        }
        report
    }
}
