//! Load of event streams: are they whole, in order, each its own client's, and how late is each
//! event?
//!
//! The stub stamps every event with the time of sending, and both read the same clock, so the delay
//! of an event is what lies between the two: the gateway, two sockets, and the waiting of this
//! client for the processor. Streams start on a schedule that does not wait for slow ones (no
//! coordinated omission); their first event counts from the time they were due.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use mio::{Events, Poll, Token};
use serde_json::{Value, json};
use slab::Slab;

use crate::alarm::Alarm;
use crate::clock::{NS_PER_MS, NS_PER_S, now_ns};
use crate::events::{Event, EventSplitter};
use crate::link::{Failure, Link, SCRATCH_BYTES, Turn};
use crate::report::{self, Times};
use crate::scan::{number_of, string_of};
use crate::target::{Nonce, Nonces, Payload, RequestOptions};
use crate::wire::Part;

/// Pause between the planned end of a round's stream and the start of the next one, in nanoseconds.
const BETWEEN_ROUNDS_NS: u64 = 50 * NS_PER_MS;

const ALARM: Token = Token(usize::MAX);

/// How often streams are looked at for being overdue, in nanoseconds.
const SWEEP_NS: u64 = 250 * NS_PER_MS;

/// What `sse` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = SSE_HELP)]
pub struct SseOptions {
    /// The requests
    #[command(flatten)]
    pub request: RequestOptions,
    /// Streams at a time
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub streams: usize,
    /// Events of a stream
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub events: u32,
    /// Milliseconds between events
    #[arg(long, default_value_t = 20, value_name = "MS")]
    pub gap_ms: u64,
    /// How many times the streams are started
    #[arg(
        long,
        default_value_t = 1,
        value_name = "N",
        conflicts_with = "duration"
    )]
    pub rounds: u64,
    /// As many rounds as begin within this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,
    /// The streams of a round start evenly over this time, at most over the length of a round
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    pub ramp_ms: u64,
    /// How long a stream may be silent
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub timeout_ms: u64,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const SSE_HELP: &str = "\
Times:   first_byte_us and first_event_us count from the moment a stream was due; delay_us is from
         the stub's sending of an event to its arrival; gap_us lies between two arrivals.
Counts:  lost = events missing in streams that ended well; merged = events that came in the same
         read as the one before (a client short of processor time merges too: compare with a run
         without a gateway); bytes_lost, bytes_added = bytes of body missing or too many before an
         event.
Exit status 0 when every stream ended well and nothing was lost, swapped or reordered, else 1.";

/// Runs the load and returns the report.
///
/// # Errors
/// Only when epoll itself fails.
pub fn run(options: &SseOptions) -> io::Result<Value> {
    let mut load = Load::new(options)?;
    load.run()?;
    Ok(load.report())
}

/// True when a report is one of success, as the exit status says.
pub fn is_success(report: &Value) -> bool {
    const FAULTS: [&str; 6] = [
        "lost",
        "reordered",
        "nonces_wrong",
        "events_unknown",
        "bytes_lost",
        "bytes_added",
    ];
    report["streams_completed"] == report["streams_due"]
        && FAULTS.iter().all(|name| report[*name].as_u64() == Some(0))
}

struct Load<'a> {
    options: &'a SseOptions,
    poll: Poll,
    alarm: Alarm,
    payload: Payload,
    nonces: Nonces,
    streams: Slab<Stream>,
    /// Connections between two streams, the one used last on top.
    idle: Vec<usize>,
    schedule: Schedule,
    started: u64,
    in_flight: usize,
    start_ns: u64,
    end_ns: u64,
    tally: Tally,
}

/// When streams are due: `per_round` of them evenly over `ramp_ns`, every `period_ns`.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start_ns: u64,
    per_round: u64,
    total: u64,
    ramp_ns: u64,
    period_ns: u64,
}

struct Stream {
    link: Link,
    /// The last arrival, or the start.
    last_read_ns: u64,
    splitter: EventSplitter,
    progress: Progress,
}

/// What one stream has to bring, and what it has brought.
#[derive(Debug, Default)]
struct Progress {
    nonce: Nonce,
    /// When the stream was due to start.
    due_ns: u64,
    /// Arrival of the last event.
    event_ns: Option<u64>,
    untouched: bool,
    events: u64,
    next_seq: u64,
    /// Bytes of body missing so far; negative when there are too many.
    drift: i64,
    done: bool,
}

#[derive(Default)]
struct Tally {
    first_byte: Times,
    first_event: Times,
    delay: Times,
    gap: Times,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<Failure, u64>,
    completed: u64,
    events: u64,
    lost: u64,
    merged: u64,
    reordered: u64,
    events_unknown: u64,
    nonces_wrong: u64,
    bytes_lost: u64,
    bytes_added: u64,
}

impl Schedule {
    fn new(options: &SseOptions, start_ns: u64) -> Self {
        let lasting_ns = u64::from(options.events) * options.gap_ms * NS_PER_MS;
        let period_ns = lasting_ns + BETWEEN_ROUNDS_NS;
        let rounds = match options.duration {
            // A cast from a float saturates.
            Some(seconds) => ((seconds * NS_PER_S as f64) as u64)
                .div_ceil(period_ns)
                .max(1),
            None => options.rounds,
        };
        let per_round = options.streams.max(1) as u64;
        let ramp_ns = (options.ramp_ms * NS_PER_MS).min(period_ns);
        Self {
            start_ns,
            per_round,
            total: per_round.saturating_mul(rounds),
            ramp_ns,
            period_ns,
        }
    }

    /// When stream `number` is due, none after the last.
    fn due(&self, number: u64) -> Option<u64> {
        let (round, place) = (number / self.per_round, number % self.per_round);
        let ns = round * self.period_ns + self.ramp_ns * place / self.per_round;
        (number < self.total).then_some(self.start_ns + ns)
    }
}

impl<'a> Load<'a> {
    fn new(options: &'a SseOptions) -> io::Result<Self> {
        let start_ns = now_ns();
        let poll = Poll::new()?;
        let request = options.request.streaming(options.events, options.gap_ms);
        Ok(Self {
            options,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            payload: Payload::render(&request, true, true),
            nonces: Nonces::new(start_ns),
            streams: Slab::with_capacity(options.streams),
            idle: Vec::new(),
            schedule: Schedule::new(options, start_ns),
            started: 0,
            in_flight: 0,
            start_ns,
            end_ns: start_ns,
            tally: Tally::default(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut sweep_ns = self.start_ns + SWEEP_NS;
        loop {
            let now = now_ns();
            while let Some(due) = self.schedule.due(self.started).filter(|due| *due <= now) {
                self.started += 1;
                self.start(due);
            }
            let next_due = self.schedule.due(self.started);
            if next_due.is_none() && self.in_flight == 0 {
                return Ok(());
            }
            if now >= sweep_ns {
                self.sweep(now);
                sweep_ns = now + SWEEP_NS;
            }
            self.alarm
                .set(next_due.map_or(sweep_ns, |due| due.min(sweep_ns)))?;
            match self.poll.poll(&mut ready, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in ready.iter().filter(|event| event.token() != ALARM) {
                let closed = event.is_read_closed() || event.is_error();
                self.on_ready(event.token().0, closed, &mut scratch);
            }
        }
    }

    /// Starts a stream on an idle connection, or on a new one: none waits for another to end.
    fn start(&mut self, due_ns: u64) {
        let nonce = self.nonces.next_nonce();
        self.in_flight += 1;
        let key = match self.idle.pop() {
            Some(key) => key,
            None => {
                let entry = self.streams.vacant_entry();
                let target = &self.options.request.url;
                match Link::open_to(target, self.poll.registry(), Token(entry.key())) {
                    Ok(link) => {
                        let key = entry.key();
                        entry.insert(Stream::new(link));
                        key
                    }
                    Err(error) => return self.count_failure(Failure::from(&error)),
                }
            }
        };
        let stream = &mut self.streams[key];
        stream.last_read_ns = now_ns();
        stream.splitter = EventSplitter::default();
        stream.progress = Progress {
            nonce,
            due_ns,
            untouched: true,
            ..Progress::default()
        };
        if let Err(failure) = stream.link.begin(&self.payload, nonce) {
            self.streams.remove(key);
            self.count_failure(failure);
        }
    }

    fn on_ready(&mut self, key: usize, closed: bool, scratch: &mut [u8]) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let Stream {
            link,
            last_read_ns,
            splitter,
            progress,
        } = stream;
        let tally = &mut self.tally;
        let mut is_event_stream = false;
        let turn = link.turn(&self.payload, scratch, closed, |part| {
            // The clock is read once for each piece: what came together arrived together.
            let now = now_ns();
            *last_read_ns = now;
            if std::mem::replace(&mut progress.untouched, false) {
                tally.first_byte.record(now.saturating_sub(progress.due_ns));
            }
            if let Part::Data(data) = part {
                is_event_stream = true;
                splitter.feed(data, |event| tally.on_event(progress, &event, now));
            }
        });
        match turn {
            Turn::Pending => {}
            Turn::ClosedIdle => self.drop_idle(key),
            Turn::Failed(failure) => {
                if link.is_busy() {
                    self.count_failure(failure);
                    self.streams.remove(key);
                } else {
                    *self.tally.failures.entry(failure).or_default() += 1;
                    self.drop_idle(key);
                }
            }
            Turn::Complete { status, keep } => {
                let whole = progress.done && splitter.is_between_events();
                let events = progress.events;
                *self.tally.statuses.entry(status).or_default() += 1;
                if whole {
                    self.end_ns = now_ns();
                    self.in_flight -= 1;
                    self.tally.completed += 1;
                    self.tally.lost += u64::from(self.options.events).saturating_sub(events);
                } else {
                    self.count_failure(Failure::NoDone);
                }
                if keep {
                    self.idle.push(key);
                } else {
                    self.streams.remove(key);
                }
            }
        }
    }

    fn drop_idle(&mut self, key: usize) {
        self.idle.retain(|idle| *idle != key);
        self.streams.remove(key);
    }

    /// Counts a stream that failed.
    fn count_failure(&mut self, failure: Failure) {
        self.in_flight -= 1;
        self.end_ns = now_ns();
        *self.tally.failures.entry(failure).or_default() += 1;
    }

    fn sweep(&mut self, now: u64) {
        let patience = self.options.timeout_ms * NS_PER_MS;
        let overdue = |stream: &Stream| {
            stream.link.is_busy() && now.saturating_sub(stream.last_read_ns) > patience
        };
        let keys: Vec<_> = self
            .streams
            .iter()
            .filter(|(_, stream)| overdue(stream))
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.streams.remove(key);
            self.count_failure(Failure::Timeout);
        }
    }

    fn report(&self) -> Value {
        let tally = &self.tally;
        let Tally {
            statuses, failures, ..
        } = tally;
        let seconds = self.end_ns.saturating_sub(self.start_ns) as f64 / NS_PER_S as f64;
        json!({
            "tool": "sse",
            "url": self.options.request.url.to_string(),
            "seconds": (seconds * 1000.0).round() / 1000.0,
            "streams_due": self.schedule.total,
            "streams_completed": tally.completed,
            "statuses": report::counts_to_json(statuses.iter().map(|(status, n)| (*status, *n))),
            "failures": report::counts_to_json(failures.iter().map(|(kind, n)| (kind.name(), *n))),
            "events": tally.events,
            "events_per_second": report::rate(tally.events, seconds),
            "lost": tally.lost,
            "merged": tally.merged,
            "reordered": tally.reordered,
            "events_unknown": tally.events_unknown,
            "nonces_wrong": tally.nonces_wrong,
            "bytes_lost": tally.bytes_lost,
            "bytes_added": tally.bytes_added,
            "first_byte_us": tally.first_byte.to_json(),
            "first_event_us": tally.first_event.to_json(),
            "delay_us": tally.delay.to_json(),
            "gap_us": tally.gap.to_json(),
        })
    }
}

impl Stream {
    fn new(link: Link) -> Self {
        Self {
            link,
            last_read_ns: 0,
            splitter: EventSplitter::default(),
            progress: Progress::default(),
        }
    }
}

impl Tally {
    fn on_event(&mut self, progress: &mut Progress, event: &Event<'_>, now: u64) {
        if event.data == b"[DONE]" {
            progress.done = true;
            return;
        }
        let number = |key| number_of(event.data, key);
        let (Some(seq), Some(sent_ns), Some(at)) =
            (number("\"seq\""), number("\"sent_ns\""), number("\"at\""))
        else {
            self.events_unknown += 1;
            return;
        };
        self.events += 1;
        progress.events += 1;
        self.delay.record(now.saturating_sub(sent_ns));
        match progress.event_ns.replace(now) {
            None => self.first_event.record(now.saturating_sub(progress.due_ns)),
            Some(before) => {
                self.merged += u64::from(before == now);
                self.gap.record(now - before);
            }
        }
        self.reordered += u64::from(seq < progress.next_seq);
        progress.next_seq = progress.next_seq.max(seq + 1);
        if string_of(event.data, "\"nonce\"") != Some(&progress.nonce) {
            self.nonces_wrong += 1;
        }
        let drift = at.cast_signed().wrapping_sub(event.at.cast_signed());
        let change = drift.wrapping_sub(progress.drift);
        progress.drift = drift;
        if change > 0 {
            self.bytes_lost += change.unsigned_abs();
        } else {
            self.bytes_added += change.unsigned_abs();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, sent_ns: u64, at: u64, nonce: &str) -> String {
        format!(r#"{{"choices":[],"seq":{seq},"sent_ns":{sent_ns},"at":{at},"nonce":"{nonce}"}}"#)
    }

    #[test]
    fn counts_what_a_gateway_did_to_the_events() {
        const NONCE: Nonce = *b"0123456789abcdef";
        let nonce = "0123456789abcdef";
        let mut tally = Tally::default();
        let mut progress = Progress {
            nonce: NONCE,
            due_ns: 100,
            ..Progress::default()
        };
        let mut take = |data: &str, at: u64, now: u64| {
            tally.on_event(
                &mut progress,
                &Event {
                    data: data.as_bytes(),
                    at,
                },
                now,
            );
        };
        take(&event(0, 1_000, 0, nonce), 0, 3_000);
        take(&event(1, 4_000, 50, nonce), 50, 6_000);
        // In the same read as the one before, after ten bytes that are missing.
        take(&event(3, 5_000, 110, nonce), 100, 6_000);
        take(&event(2, 5_000, 160, nonce), 150, 7_000);
        take(&event(4, 6_000, 200, "another"), 200, 8_000);
        take(r#"{"choices":[]}"#, 250, 9_000);
        take("[DONE]", 300, 9_500);
        assert_eq!((tally.events, tally.merged, tally.reordered), (5, 1, 1));
        assert_eq!((tally.nonces_wrong, tally.events_unknown), (1, 1));
        assert_eq!((tally.bytes_lost, tally.bytes_added), (10, 10));
        assert_eq!(tally.first_event.to_json()["max"], 2.9);
        assert_eq!((tally.delay.count(), tally.gap.count()), (5, 4));
        assert!(progress.done);
    }

    #[test]
    fn streams_are_due_evenly_in_each_round() {
        let schedule = Schedule {
            start_ns: 10,
            per_round: 4,
            total: 8,
            ramp_ns: 100,
            period_ns: 500,
        };
        let due: Vec<_> = (0..9).map(|number| schedule.due(number)).collect();
        let want = [10, 35, 60, 85, 510, 535, 560, 585].map(Some);
        assert_eq!(due[..8], want);
        assert_eq!(due[8], None);
    }
}
