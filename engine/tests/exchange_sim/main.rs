//! A deterministic simulation of the exchange machine: a virtual upstream and a virtual client with
//! short reads, FIN, RST, timeouts, pool reuse, early responses, and clients that leave in every
//! window. A model that knows only what happened, not the machine's phases, says what is right.
//!
//! `cargo test` runs 256 seeds. `SIM_SEED=17` replays one and prints every step (with
//! `-- --nocapture`); `SIM_SEEDS=100000` widens the search. A failing seed is printed.

mod model;

use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use model::{Limits, Link, Model, Ms};
use olla_engine::bench::{Action, Event, Filling, Lifecycle, Phase};
use olla_engine::exchange::{ConnectFault, TlsFault};

const SEEDS: u64 = 2048;
const EXCHANGES_PER_SEED: usize = 8;
/// Far more events than any exchange has: a run that takes more does not end.
const STEPS_MAX: usize = 2_000;

/// The random numbers of one seed.
pub(crate) struct Rng(fastrand::Rng);

impl Rng {
    /// Generators of consecutive seeds begin alike, so the numbers come from one that is two forks
    /// away.
    fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed).fork().fork())
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0.u64(..n)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.usize(..of.len())]
    }
}

/// What the upstream side of one connection will do: pauses, and what follows each.
fn script(rng: &mut Rng, limits: Limits, reused: bool) -> Vec<(Ms, Event)> {
    let mut events = Vec::new();
    if !reused {
        if rng.percent(30) {
            events.push(Event::TlsBegun);
        }
        events.push(Event::Connected);
    }
    let connected = events.len();
    events.extend((0..rng.below(4)).map(|_| Event::RequestProgress));
    let sent = events.len();
    events.push(Event::RequestSent);
    if rng.percent(20) {
        events.push(Event::ResponseBytes);
    }
    let has_body = rng.percent(80);
    events.push(Event::ResponseHead {
        reusable: rng.percent(70),
        has_body,
    });
    if has_body {
        events.extend((0..rng.below(6)).map(|_| Event::ResponsePiece));
        events.push(Event::ResponseEnd);
    }
    if reused && rng.percent(30) {
        // It was dead; the request may have been sent before that shows.
        events.truncate(rng.below(2) as usize * (sent + 1));
        events.push(rng.pick(&[Event::UpstreamClosed, Event::UpstreamReset]));
        return events
            .into_iter()
            .map(|event| (rng.below(5), event))
            .collect();
    }
    match rng.below(10) {
        // An early response: the request is completed later, or never.
        0 => {
            let head = events.len().min(sent + 2) - 1;
            events.swap(sent, head);
            if rng.percent(50) {
                events.retain(|event| *event != Event::RequestSent);
            }
        }
        // Something goes wrong somewhere, or nothing more ever comes.
        1..6 => {
            let at = rng.below(events.len() as u64) as usize;
            events.truncate(at);
            disaster(rng, &mut events, connected, sent);
        }
        _ => {}
    }
    events
        .into_iter()
        .map(|event| (limits.pause(rng), event))
        .collect()
}

fn disaster(rng: &mut Rng, events: &mut Vec<Event>, connected: usize, sent: usize) {
    const CONNECT_FAULTS: [ConnectFault; 6] = [
        ConnectFault::Refused,
        ConnectFault::Unreachable,
        ConnectFault::Unresolved,
        ConnectFault::TimedOut,
        ConnectFault::Tls(TlsFault::UnknownIssuer),
        ConnectFault::Local,
    ];
    let end = rng.pick(&[Event::UpstreamClosed, Event::UpstreamReset]);
    if rng.percent(20) {
        return;
    }
    if events.len() < connected {
        let fault = Event::ConnectFailed(rng.pick(&CONNECT_FAULTS));
        events.push(if rng.percent(70) { fault } else { end });
    } else if events.len() <= sent && rng.percent(30) {
        events.push(Event::SendFailed);
        match rng.below(3) {
            0 => events.push(end),
            1 => events.extend([
                Event::ResponseHead {
                    reusable: true,
                    has_body: true,
                },
                Event::ResponseEnd,
            ]),
            _ => {}
        }
    } else {
        events.push(if rng.percent(25) {
            Event::Malformed
        } else {
            end
        });
    }
}

/// The origin of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Upstream,
    Client,
}

/// One exchange and the world around it.
struct Sim<'a> {
    rng: &'a mut Rng,
    limits: Limits,
    now: Ms,
    epoch: Instant,
    machine: Lifecycle,
    model: Model,
    /// What will happen: when, in which order among equals, from whom.
    queue: Vec<(Ms, u64, From, Event)>,
    order: u64,
    endpoints_left: usize,
    idle: &'a mut usize,
    /// The window in which the client leaves, if it does.
    leaves_in: Option<Phase>,
    seen: &'a mut BTreeSet<String>,
    prints_steps: bool,
}

impl Sim<'_> {
    fn at(&self, ms: Ms) -> Instant {
        self.epoch + Duration::from_millis(ms)
    }

    fn run(mut self) -> Ms {
        for _ in 0..STEPS_MAX {
            self.client_may_leave();
            if self.rng.percent(10) {
                self.fill();
            }
            self.step();
            if self.machine.phase() == Phase::Over {
                self.after_the_end();
                return self.now;
            }
        }
        panic!("the exchange does not end");
    }

    /// One event, or the next attempt.
    fn step(&mut self) {
        if self.machine.phase() == Phase::Choosing
            && (self.queue.is_empty() || self.rng.percent(50))
        {
            return self.choose();
        }
        // Nothing is read while the client does not take what was read.
        let blocked = |link: &Link| link.head.is_some_and(|head| head.blocked.is_some());
        let is_blocked = self.model.link.as_ref().is_some_and(blocked);
        let next = (0..self.queue.len())
            .filter(|place| !is_blocked || self.queue[*place].2 == From::Client)
            .min_by_key(|place| (self.queue[*place].0, self.queue[*place].1));
        let due = next.map(|place| self.queue[place].0);
        let deadline = self.model.deadline();
        // Timers are a little late, as real ones are; some come for no reason.
        if self.rng.percent(5) {
            self.feed(Event::Timer);
        } else if self.rng.percent(3) {
            self.feed(Event::EndpointDown);
        } else if let Some(deadline) = deadline
            && due.is_none_or(|at| deadline < at)
        {
            self.now = self.now.max(deadline + self.rng.below(3));
            self.feed(Event::Timer);
        } else if let Some(place) = next {
            let (at, _, _, event) = self.queue.swap_remove(place);
            self.now = self.now.max(at);
            self.feed(event);
        } else {
            panic!("waits for nothing in {:?}", self.machine.phase());
        }
    }

    /// The client has waited for too long.
    fn fill(&mut self) {
        let expected = self.model.expect_filling();
        let filling = self.machine.fill();
        self.say(&format!("filled: {filling:?}"));
        assert_eq!(filling, expected);
        assert_eq!(self.machine.has_own_head(), self.model.has_own_head);
        self.seen.insert(format!("filled {filling:?}"));
        self.check_deadline();
    }

    fn push(&mut self, at: Ms, from: From, event: Event) {
        self.order += 1;
        self.queue.push((at, self.order, from, event));
    }

    fn choose(&mut self) {
        self.now += self.limits.pause(self.rng);
        if self.endpoints_left == 0 {
            self.machine.respond_locally();
            self.deliver();
            return;
        }
        // After `RetryFresh` it ought to be a new one; the machine must hold even if it is not.
        let chance = if self.model.retrying { 30 } else { 80 };
        let reused = *self.idle > 0 && self.rng.percent(chance);
        if reused {
            *self.idle -= 1;
        }
        self.model.attempt(reused, self.now);
        self.machine.attempt(reused, self.at(self.now));
        self.say(&format!("attempt reused={reused}"));
        let mut at = self.now;
        for (pause, event) in script(self.rng, self.limits, reused) {
            at += pause;
            self.push(at, From::Upstream, event);
        }
    }

    fn feed(&mut self, event: Event) {
        let expected = self.model.expect(event, self.now);
        let action = self.machine.on(event, self.at(self.now));
        self.say(&format!(
            "{event:?} -> {action:?} {:?}",
            self.machine.phase()
        ));
        assert_eq!(action, expected, "{event:?} at {}", self.now);
        self.seen.insert(format!("{action:?}"));
        if matches!(event, Event::ClientLeft | Event::ClientStalled) {
            self.model.client_here = false;
        }
        if event == Event::Delivered {
            self.model.over = true;
        }
        if matches!(event, Event::ResponseHead { .. }) && self.gives_up(action) {
            return;
        }
        self.model.done(action);
        self.check_deadline();
        match action {
            Action::Continue if event == Event::ResponsePiece && self.rng.percent(20) => {
                self.block_client();
            }
            Action::Continue | Action::RetryFresh => {}
            Action::NextEndpoint(_) => self.endpoints_left -= 1,
            Action::Fail(_) => self.deliver(),
            Action::Finish { reuse_upstream } => {
                *self.idle += usize::from(reuse_upstream);
                self.deliver();
            }
            Action::Cut(_) | Action::Abandon | Action::Reset => {
                assert_eq!(self.machine.phase(), Phase::Over);
            }
        }
        if action != Action::Continue {
            // That connection is closed, or belongs to another request.
            self.queue.retain(|(_, _, from, _)| *from == From::Client);
        }
    }

    /// The head of a response is there: it is given up for another attempt, or passed on.
    fn gives_up(&mut self, action: Action) -> bool {
        if !matches!(action, Action::Continue | Action::Finish { .. }) {
            return false;
        }
        if self.rng.percent(15) {
            assert!(self.machine.give_up());
            assert_eq!(self.machine.phase(), Phase::Choosing);
            self.say("given up");
            self.seen.insert("given up".to_owned());
            if self.model.has_own_head {
                self.seen.insert("given up after a head".to_owned());
            }
            self.model.give_up();
            self.endpoints_left -= 1;
            self.queue.retain(|(_, _, from, _)| *from == From::Client);
            self.check_deadline();
            return true;
        }
        if self.rng.percent(15) {
            // It is held back until it is whole.
            self.seen.insert("held back".to_owned());
            return false;
        }
        self.machine.pass_on();
        self.model.client_has_bytes = true;
        self.model.begin_response();
        assert!(!self.machine.give_up());
        false
    }

    fn check_deadline(&self) {
        let expected = self.model.deadline().map(|ms| self.at(ms));
        assert_eq!(
            self.machine.deadline(),
            expected,
            "deadline at {}",
            self.now
        );
        let may_be_sent = matches!(
            self.machine.phase(),
            Phase::Choosing | Phase::Connecting | Phase::Sending | Phase::Waiting
        );
        assert!(!may_be_sent || !self.model.response_begun);
        assert!(self.machine.phase() != Phase::Responding || self.model.response_begun);
    }

    /// The client is slow: the write of the piece takes a while, or never ends.
    fn block_client(&mut self) {
        let at = self.now + self.limits.pause(self.rng);
        let ends = match self.rng.below(20) {
            0 => Event::ClientLeft,
            1 => Event::ClientStalled,
            _ => Event::ClientTook,
        };
        self.push(at, From::Client, ends);
        self.feed(Event::ClientBlocked);
    }

    /// The rest of the response, or an error, is being written to the client.
    fn deliver(&mut self) {
        if !self.model.client_has_bytes {
            self.model.begin_response();
        }
        self.model.delivering = true;
        let at = self.now + self.limits.pause(self.rng);
        self.push(at, From::Client, Event::Delivered);
    }

    fn client_may_leave(&mut self) {
        if self.leaves_in == Some(self.machine.phase()) {
            self.leaves_in = None;
            let at = self.now + self.rng.below(4);
            self.seen
                .insert(format!("leaves in {:?}", self.machine.phase()));
            self.push(at, From::Client, Event::ClientLeft);
        }
    }

    /// Whatever still comes, nothing is sent and nothing is awaited.
    fn after_the_end(&mut self) {
        let now = self.at(self.now);
        for event in [
            Event::Connected,
            Event::RequestSent,
            Event::UpstreamReset,
            Event::Timer,
        ] {
            self.machine.attempt(self.rng.percent(50), now);
            assert_eq!(self.machine.on(event, now), Action::Abandon);
        }
        assert_eq!(self.machine.fill(), Filling::Nothing);
        assert_eq!(self.machine.phase(), Phase::Over);
        assert_eq!(self.machine.deadline(), None);
    }

    fn say(&self, what: &str) {
        if self.prints_steps {
            println!("{:>6} ms  {what}", self.now);
        }
    }
}

fn run(seed: u64, prints_steps: bool, seen: &mut BTreeSet<String>) {
    const WINDOWS: [Phase; 6] = [
        Phase::Choosing,
        Phase::Connecting,
        Phase::Sending,
        Phase::Waiting,
        Phase::Responding,
        Phase::Delivering,
    ];
    let mut rng = Rng::new(seed);
    let epoch = Instant::now();
    let mut now = 0;
    let mut idle = rng.below(8) as usize;
    for number in 0..EXCHANGES_PER_SEED {
        let limits = Limits::draw(&mut rng);
        if prints_steps {
            println!("--- exchange {number}: {limits:?}, {idle} idle connections");
        }
        let sim = Sim {
            limits,
            now,
            epoch,
            machine: Lifecycle::new(limits.timeouts(), epoch + Duration::from_millis(now)),
            model: Model::new(limits, now),
            queue: Vec::new(),
            order: 0,
            endpoints_left: 1 + rng.below(4) as usize,
            idle: &mut idle,
            leaves_in: rng.percent(25).then(|| rng.pick(&WINDOWS)),
            seen,
            prints_steps,
            rng: &mut rng,
        };
        now = sim.run();
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

#[test]
fn simulation() {
    let mut seen = BTreeSet::new();
    if let Some(seed) = number("SIM_SEED") {
        return run(seed, true, &mut seen);
    }
    for seed in 0..number("SIM_SEEDS").unwrap_or(SEEDS) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, false, &mut seen)));
        if let Err(panic) = outcome {
            eprintln!("exchange_sim: seed {seed} fails; replay it with SIM_SEED={seed}");
            resume_unwind(panic);
        }
    }
    // The simulation is worth something only if it gets everywhere.
    const NEEDED: &str = "Abandon; Reset; Continue; RetryFresh; NextEndpoint(Refused); \
        NextEndpoint(ConnectTimeout); NextEndpoint(TlsTimeout); NextEndpoint(Reset); \
        NextEndpoint(Closed); NextEndpoint(Dropped(Closed)); NextEndpoint(Dropped(Reset)); NextEndpoint(Down); Fail(HeaderTimeout); Fail(SendTimeout); Fail(ResponseTimeout); \
        Fail(HeadCut(Closed)); Fail(HeadCut(Reset)); Fail(Malformed); Fail(Local); Cut(ReadTimeout); Cut(ResponseTimeout); \
        Cut(WriteTimeout); Cut(Reset); Cut(Closed); Cut(Malformed); \
        Finish { reuse_upstream: true }; Finish { reuse_upstream: false }; leaves in Choosing; \
        leaves in Connecting; leaves in Sending; leaves in Waiting; leaves in Responding; \
        leaves in Delivering; given up; given up after a head; held back; filled Nothing; \
        filled Head; filled More";
    for needed in NEEDED.split("; ") {
        assert!(seen.contains(needed), "no seed came to {needed}: {seen:#?}");
    }
}
