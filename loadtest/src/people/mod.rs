//! The users of a simulated fleet: conversations through a gateway, at times that do not depend on
//! how fast the responses are, and what became of them.
//!
//! What is said is the same in each run with a seed, so that gateways can be compared. Times count
//! from the moment a request was due (no coordinated omission).

mod conversation;
mod report;
mod response;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mio::{Events, Poll, Token};
use serde_json::Value;
use slab::Slab;

use crate::alarm::Alarm;
use crate::chance::Chance;
use crate::clock::{NS_PER_MS, NS_PER_S, now_ns};
use crate::fleet::scenario::{LoadSpec, Scenario};
use crate::fleet::ticks::Ticks;
use crate::link::{Failure, Link, SCRATCH_BYTES, Turn};
use crate::prose::Prose;
use crate::report::Times;
use crate::target::Payload;
use conversation::{Conversation, Destination};
use report::{Engines, Tally};
use response::Response;

const ALARM: Token = Token(usize::MAX);

/// Users begin within this time, in nanoseconds.
const USERS_BEGIN_NS: u64 = NS_PER_S / 2;

/// The pause of a user between two conversations, in nanoseconds.
const BETWEEN_NS: u64 = 5 * NS_PER_MS;

/// The same after a failure: a gateway that refuses must not be asked without end.
const AFTER_FAILURE_NS: u64 = 250 * NS_PER_MS;

/// A connection that was idle for longer is not used again, in nanoseconds: servers close them.
const IDLE_NS_MAX: u64 = 4 * NS_PER_S;

/// What `people` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = PEOPLE_HELP)]
pub struct PeopleOptions {
    /// The users, in a file such as loadtest/scenarios/chat.json
    #[arg(long, value_name = "FILE")]
    pub scenario: PathBuf,
    /// Address of the gateway
    #[arg(long, value_name = "IP:PORT")]
    pub target: SocketAddr,
    /// Path of the requests
    #[arg(
        long,
        default_value = "/olla/openai/v1/chat/completions",
        value_name = "PATH"
    )]
    pub path: String,
    /// Seed of what is said and when
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// How long requests are sent, in place of the scenario's
    #[arg(long, value_name = "S")]
    pub seconds: Option<f64>,
    /// How long responses are awaited after that
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    pub drain: f64,
    /// Deviation of the logarithm of output lengths, in place of the scenario's
    #[arg(long, value_name = "SIGMA")]
    pub noise: Option<f64>,
    /// Send the number of a key as `Authorization: Bearer fleet-key-N` instead of as an address
    #[arg(long)]
    pub bearer: bool,
    /// The engines, in the file that `fleet --addresses` has written: their counts are reported too
    #[arg(long, value_name = "FILE")]
    pub engines: Option<PathBuf>,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const PEOPLE_HELP: &str = "\
A load with a key sends `X-Forwarded-For: 10.9.0.N`, N being the number of the key from 1.
Times:   first_token_us and end_to_end_us count from the moment a request was due to the first event
         with text and to the end; late_us is how long after that moment this client sent it.
Counts:  unfinished = without a whole response when the run ends. hit_share = cached_tokens through
         prompt_tokens, both from `usage`.
busy_while_waiting = the mean share of all slots in use at the ticks (every 10 ms) at which, as at
         the tick before, more requests were under way than there were in slots.";

/// Runs the load and returns the report.
///
/// # Errors
/// A scenario that is none, engines that do not respond, or what the system says about epoll.
pub fn run(options: &PeopleOptions) -> io::Result<Value> {
    let mut scenario = Scenario::read(&options.scenario).map_err(io::Error::other)?;
    scenario.noise = options.noise.unwrap_or(scenario.noise);
    scenario.seconds = options.seconds.unwrap_or(scenario.seconds);
    let engines = Engines::read(options.engines.as_deref())?;
    engines.begin()?;
    let mut people = People::new(options, &scenario)?;
    people.run()?;
    engines.report(people.report(options), &people.in_flight_ticks)
}

/// Prints the report with a line for each load and engine, and writes it whole to `json` when that
/// is given; `-` is standard output in place of the lines.
///
/// # Errors
/// Those of the writing.
pub fn publish(report: &Value, json: Option<&Path>) -> io::Result<()> {
    match json {
        Some(path) if path != Path::new("-") => {
            crate::report::publish(&report::in_lines(report), None)?;
            std::fs::write(path, format!("{report}\n"))
        }
        Some(_) => crate::report::publish(report, json),
        None => crate::report::publish(&report::in_lines(report), None),
    }
}

struct People<'a> {
    loads: &'a [LoadSpec],
    keys: Vec<Option<usize>>,
    destination: Destination,
    target: SocketAddr,
    seed: u64,
    poll: Poll,
    alarm: Alarm,
    prose: Prose,
    conversations: Slab<Conversation>,
    exchanges: Slab<Exchange>,
    /// Connections between two requests, the one used last on top.
    idle: Vec<usize>,
    agenda: BinaryHeap<Reverse<(u64, u64, Entry)>>,
    entries: u64,
    /// Of each load: conversations begun, and when the next one arrives.
    begun: Vec<u64>,
    arrivals: Vec<Chance>,
    tallies: Vec<Tally>,
    in_flight: usize,
    in_flight_ticks: Ticks,
    late: Times,
    start_ns: u64,
    end_ns: u64,
    give_up_ns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    /// A conversation of this load arrives, and the next one is planned.
    Arrive(usize),
    /// A user of this load begins a conversation.
    Begin(usize),
    /// The next request of this conversation is due.
    Turn(usize),
}

/// A connection and the request on it.
#[derive(Debug)]
struct Exchange {
    link: Link,
    payload: Payload,
    /// `None` while the connection is idle.
    conversation: Option<usize>,
    response: Response,
    due_ns: u64,
    idle_since_ns: u64,
}

impl<'a> People<'a> {
    fn new(options: &PeopleOptions, scenario: &'a Scenario) -> io::Result<Self> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let loads = &scenario.load;
        let start_ns = now_ns();
        let end_ns = start_ns + ns_of_s(scenario.seconds);
        let mut people = Self {
            loads,
            keys: conversation::key_numbers(loads),
            destination: Destination {
                host: options.target.to_string(),
                path: options.path.clone(),
                bearer: options.bearer,
                noise: scenario.noise,
            },
            target: options.target,
            seed: options.seed,
            poll,
            alarm,
            prose: Prose::default(),
            conversations: Slab::new(),
            exchanges: Slab::new(),
            idle: Vec::new(),
            agenda: BinaryHeap::new(),
            entries: 0,
            begun: vec![0; loads.len()],
            arrivals: (0..loads.len())
                .map(|load| Chance::new(options.seed << 8 ^ load as u64))
                .collect(),
            tallies: loads.iter().map(|_| Tally::default()).collect(),
            in_flight: 0,
            in_flight_ticks: Ticks::new(start_ns),
            late: Times::default(),
            start_ns,
            end_ns,
            give_up_ns: end_ns + ns_of_s(options.drain),
        };
        people.plan_beginnings();
        Ok(people)
    }

    fn plan_beginnings(&mut self) {
        for load in 0..self.loads.len() {
            for _ in 0..self.loads[load].users {
                let after_ns = self.arrivals[load].unit() * USERS_BEGIN_NS as f64;
                self.plan(self.start_ns + after_ns as u64, Entry::Begin(load));
            }
            if self.loads[load].arrivals > 0.0 {
                self.plan_arrival(load, self.start_ns);
            }
        }
    }

    fn plan_arrival(&mut self, load: usize, last_ns: u64) {
        let gap = self.arrivals[load].exponential(1.0 / self.loads[load].arrivals);
        self.plan(last_ns + ns_of_s(gap), Entry::Arrive(load));
    }

    /// Nothing begins after the end.
    fn plan(&mut self, due_ns: u64, entry: Entry) {
        if due_ns < self.end_ns {
            self.entries += 1;
            self.agenda.push(Reverse((due_ns, self.entries, entry)));
        }
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        loop {
            let now = now_ns();
            if now >= self.give_up_ns || (now >= self.end_ns && self.in_flight == 0) {
                return Ok(());
            }
            let last_ns = if now < self.end_ns {
                self.end_ns
            } else {
                self.give_up_ns
            };
            let next = self.agenda.peek().map(|Reverse((due, ..))| *due);
            self.alarm.set(next.unwrap_or(last_ns).min(last_ns))?;
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let closed = event.is_read_closed() || event.is_error();
                self.on_ready(event.token().0, closed, &mut scratch);
            }
            let now = now_ns();
            while let Some(&Reverse((due_ns, _, entry))) = self.agenda.peek()
                && due_ns <= now
            {
                self.agenda.pop();
                self.enter(due_ns, entry);
            }
        }
    }

    fn enter(&mut self, due_ns: u64, entry: Entry) {
        let conversation = match entry {
            Entry::Arrive(load) => {
                self.plan_arrival(load, due_ns);
                self.begin_conversation(load)
            }
            Entry::Begin(load) => self.begin_conversation(load),
            Entry::Turn(conversation) => conversation,
        };
        self.send(due_ns, conversation);
    }

    fn begin_conversation(&mut self, load: usize) -> usize {
        self.begun[load] += 1;
        let (spec, number) = (&self.loads[load], self.begun[load]);
        let conversation = Conversation::begin(load, spec, self.seed, number, &self.prose);
        self.conversations.insert(conversation)
    }

    /// Sends the next request of a conversation.
    fn send(&mut self, due_ns: u64, conversation: usize) {
        let load = self.conversations[conversation].load;
        let (spec, key) = (&self.loads[load], self.keys[load]);
        let request = self.conversations[conversation].next_request(
            spec,
            key,
            &self.destination,
            &self.prose,
        );
        self.tallies[load].requests += 1;
        self.in_flight += 1;
        let now = now_ns();
        self.in_flight_ticks.set(now, self.in_flight as u32);
        self.late.record((now - due_ns).max(1));
        let slot = match self.connection(now) {
            Ok(slot) => slot,
            Err(error) => {
                return self
                    .end_conversation(conversation, Err(Failure::from(&error).name().to_owned()));
            }
        };
        let exchange = &mut self.exchanges[slot];
        exchange.payload = Payload::whole(request);
        exchange.conversation = Some(conversation);
        exchange.response = Response::default();
        exchange.due_ns = due_ns;
        if let Err(failure) = exchange.link.begin(&exchange.payload, Default::default()) {
            self.exchanges.remove(slot);
            self.end_conversation(conversation, Err(failure.name().to_owned()));
        }
    }

    /// An idle connection, or a new one.
    fn connection(&mut self, now: u64) -> io::Result<usize> {
        if let Some(slot) = self.idle.pop() {
            if now - self.exchanges[slot].idle_since_ns <= IDLE_NS_MAX {
                return Ok(slot);
            }
            // The others were idle for longer still.
            self.exchanges.remove(slot);
            for slot in std::mem::take(&mut self.idle) {
                self.exchanges.remove(slot);
            }
        }
        let entry = self.exchanges.vacant_entry();
        let slot = entry.key();
        entry.insert(Exchange {
            link: Link::open(self.target, self.poll.registry(), Token(slot))?,
            payload: Payload::whole(Vec::new()),
            conversation: None,
            response: Response::default(),
            due_ns: 0,
            idle_since_ns: 0,
        });
        Ok(slot)
    }

    fn on_ready(&mut self, slot: usize, closed: bool, scratch: &mut [u8]) {
        let Some(exchange) = self.exchanges.get_mut(slot) else {
            return;
        };
        let now = now_ns();
        let Exchange {
            link,
            payload,
            response,
            ..
        } = exchange;
        let turn = link.turn(payload, scratch, closed, |part| response.take(part, now));
        let keep = match turn {
            Turn::Pending => return,
            Turn::Complete { keep, .. } => keep,
            Turn::ClosedIdle | Turn::Failed(_) => false,
        };
        let response = std::mem::take(&mut exchange.response);
        let (conversation, due_ns) = (exchange.conversation.take(), exchange.due_ns);
        if keep {
            exchange.idle_since_ns = now;
            self.idle.push(slot);
        } else {
            self.idle.retain(|one| *one != slot);
            self.exchanges.remove(slot);
        }
        let Some(conversation) = conversation else {
            return;
        };
        let outcome = match (turn, response.failure()) {
            (Turn::Failed(failure), _) => Err(failure.name().to_owned()),
            (_, Some(failure)) => Err(failure),
            (_, None) => Ok(()),
        };
        if outcome.is_ok() {
            let load = self.conversations[conversation].load;
            self.tallies[load].completed(&response, due_ns, now);
            if let Some(pause_ns) =
                self.conversations[conversation].take_response(&self.loads[load], &response.text)
            {
                self.sub_in_flight(now);
                self.plan(now + pause_ns, Entry::Turn(conversation));
                return;
            }
        }
        self.end_conversation(conversation, outcome);
    }

    /// Ends a conversation, after its last response or after a failure.
    fn end_conversation(&mut self, conversation: usize, outcome: Result<(), String>) {
        let now = now_ns();
        self.sub_in_flight(now);
        let Conversation { load, .. } = self.conversations.remove(conversation);
        let pause_ns = if outcome.is_ok() {
            BETWEEN_NS
        } else {
            AFTER_FAILURE_NS
        };
        if let Err(failure) = outcome {
            *self.tallies[load].failed.entry(failure).or_default() += 1;
        }
        if self.loads[load].users > 0 {
            self.plan(now + pause_ns, Entry::Begin(load));
        }
    }

    fn sub_in_flight(&mut self, now: u64) {
        self.in_flight -= 1;
        self.in_flight_ticks.set(now, self.in_flight as u32);
    }

    fn report(&mut self, options: &PeopleOptions) -> Value {
        self.in_flight_ticks.fill(now_ns().min(self.end_ns));
        let seconds = (self.end_ns - self.start_ns) as f64 / NS_PER_S as f64;
        let names = self.loads.iter().map(|load| load.name.as_str());
        report::of_loads(options, seconds, names.zip(&self.tallies), &self.late)
    }
}

fn ns_of_s(seconds: f64) -> u64 {
    (seconds * NS_PER_S as f64) as u64
}
