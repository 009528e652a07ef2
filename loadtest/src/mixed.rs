//! A steady mixture of JSON requests and event streams, with a line for what became of each.
//!
//! Open loop: a request is due when it is due, on an idle connection or a new one, whatever has
//! become of those before. Nothing is sent twice here, so that a nonce that a backend sees twice
//! was repeated by the gateway.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use mio::{Events, Poll, Token};
use serde_json::{Value, json};
use slab::Slab;

use crate::alarm::Alarm;
use crate::clock::{NS_PER_MS, NS_PER_S, now_ns};
use crate::events::EventSplitter;
use crate::link::{Failure, Link, SCRATCH_BYTES, Turn};
use crate::report;
use crate::scan::{number_of, string_of};
use crate::target::{Nonce, Nonces, Payload, RequestOptions};
use crate::wire::Part;

const ALARM: Token = Token(usize::MAX);

/// The interval at which overdue responses are looked for, in nanoseconds.
const SWEEP_NS: u64 = 100 * NS_PER_MS;

/// The most of a JSON response that is kept, in bytes: enough for a nonce or an error.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What `mixed` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = MIXED_HELP)]
pub struct MixedOptions {
    /// The requests
    #[command(flatten)]
    pub request: RequestOptions,
    /// Requests each second
    #[arg(long, default_value_t = 2000.0, value_name = "R")]
    pub rate: f64,
    /// Stop starting requests after this many seconds
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    pub duration: f64,
    /// Of a hundred requests, how many are for event streams
    #[arg(long, default_value_t = 30, value_name = "N")]
    pub streams_percent: u64,
    /// Events asked for in each stream
    #[arg(long, default_value_t = 10)]
    pub events: u32,
    /// Milliseconds between the events
    #[arg(long, default_value_t = 20)]
    pub gap_ms: u64,
    /// How long a response may take
    #[arg(long, default_value_t = 20_000, value_name = "MS")]
    pub timeout_ms: u64,
    /// Write a line for each request
    #[arg(long, value_name = "FILE")]
    pub outcomes: PathBuf,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const MIXED_HELP: &str = "\
Each line: time due, time of the end (CLOCK_MONOTONIC in ns), nonce, `json` or `stream`, outcome:
  whole                  200, and everything that was asked for
  broken                 a response that began and visibly did not end
  short                  a response that looks complete and is not
  mixed-up               a response to another request
  STATUS/CODE            any other status, with the `code` of its error if there is one
  none/FAILURE           no response began: refused, reset, closed_early, other
  overdue                not at its end in time
Exit status 0 when the load could be made.";

/// Makes the load and returns the counts.
///
/// # Errors
/// When epoll fails or the outcomes cannot be written.
pub fn run(options: &MixedOptions) -> io::Result<Value> {
    let mut load = Load::new(options)?;
    load.run()?;
    load.outcomes.flush()?;
    Ok(json!({
        "tool": "mixed",
        "requests": load.started,
        "late": load.late,
        "outcomes": report::counts_to_json(load.counts),
    }))
}

struct Load<'a> {
    options: &'a MixedOptions,
    poll: Poll,
    alarm: Alarm,
    outcomes: BufWriter<File>,
    plain: Payload,
    streamed: Payload,
    nonces: Nonces,
    slots: Slab<Slot>,
    idle: Vec<usize>,
    counts: std::collections::BTreeMap<String, u64>,
    start_ns: u64,
    started: u64,
    /// Requests sent more than 50 ms after they were due: the load is too much for the machine.
    late: u64,
}

struct Slot {
    link: Link,
    nonce: Nonce,
    due_ns: u64,
    received: Received,
}

/// The received part of a response.
#[derive(Default)]
struct Received {
    stream: bool,
    status: Option<u16>,
    body: Vec<u8>,
    splitter: EventSplitter,
    events: u64,
    in_order: bool,
    done: bool,
    foreign: bool,
}

impl<'a> Load<'a> {
    fn new(options: &'a MixedOptions) -> io::Result<Self> {
        let start_ns = now_ns();
        let poll = Poll::new()?;
        let streamed = options.request.streaming(options.events, options.gap_ms);
        Ok(Self {
            options,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            outcomes: BufWriter::new(File::create(&options.outcomes)?),
            plain: Payload::render(&options.request, false, true),
            streamed: Payload::render(&streamed, true, true),
            nonces: Nonces::new(start_ns),
            slots: Slab::new(),
            idle: Vec::new(),
            counts: std::collections::BTreeMap::new(),
            start_ns,
            started: 0,
            late: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut sweep_ns = self.start_ns + SWEEP_NS;
        loop {
            let now = now_ns();
            while let Some(due) = self.next_due().filter(|due| *due <= now) {
                self.start(due, now)?;
            }
            let busy = self.slots.len() > self.idle.len();
            if self.next_due().is_none() && !busy {
                return Ok(());
            }
            if now >= sweep_ns {
                self.sweep(now)?;
                sweep_ns = now + SWEEP_NS;
            }
            let next = self.next_due().unwrap_or(sweep_ns).min(sweep_ns);
            self.alarm.set(next)?;
            match self.poll.poll(&mut ready, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in ready.iter().filter(|event| event.token() != ALARM) {
                let closed = event.is_read_closed() || event.is_error();
                self.on_ready(event.token().0, closed, &mut scratch)?;
            }
        }
    }

    fn next_due(&self) -> Option<u64> {
        let seconds = self.started as f64 / self.options.rate;
        let ahead_ns = (seconds * NS_PER_S as f64) as u64;
        (seconds < self.options.duration).then_some(self.start_ns + ahead_ns)
    }

    fn start(&mut self, due_ns: u64, now: u64) -> io::Result<()> {
        let nonce = self.nonces.next_nonce();
        // Spread over the hundred, so that no second has more streams than another.
        let stream = (self.started * 37) % 100 < self.options.streams_percent;
        self.started += 1;
        self.late += u64::from(now.saturating_sub(due_ns) > 50 * NS_PER_MS);
        let received = Received {
            stream,
            in_order: true,
            ..Received::default()
        };
        let key = match self.idle.pop() {
            Some(key) => {
                let slot = &mut self.slots[key];
                (slot.nonce, slot.due_ns, slot.received) = (nonce, due_ns, received);
                key
            }
            None => {
                let entry = self.slots.vacant_entry();
                let target = &self.options.request.url;
                match Link::open_to(target, self.poll.registry(), Token(entry.key())) {
                    Ok(link) => {
                        let key = entry.key();
                        entry.insert(Slot {
                            link,
                            nonce,
                            due_ns,
                            received,
                        });
                        key
                    }
                    Err(error) => {
                        let outcome = format!("none/{}", Failure::from(&error).name());
                        return self.record_outcome(due_ns, &nonce, stream, outcome);
                    }
                }
            }
        };
        let payload = if stream { &self.streamed } else { &self.plain };
        match self.slots[key].link.begin(payload, nonce) {
            Ok(()) => Ok(()),
            Err(failure) => self.end(key, Some(failure), false),
        }
    }

    fn on_ready(&mut self, key: usize, closed: bool, scratch: &mut [u8]) -> io::Result<()> {
        let Some(slot) = self.slots.get_mut(key) else {
            return Ok(());
        };
        let Slot {
            link,
            nonce,
            received,
            ..
        } = slot;
        let payload = if received.stream {
            &self.streamed
        } else {
            &self.plain
        };
        let turn = link.turn(payload, scratch, closed, |part| received.take(part, nonce));
        match turn {
            Turn::Pending => Ok(()),
            Turn::Complete { keep, .. } => self.end(key, None, keep),
            Turn::Failed(failure) if link.is_busy() => self.end(key, Some(failure), false),
            Turn::ClosedIdle | Turn::Failed(_) => {
                self.idle.retain(|idle| *idle != key);
                self.slots.remove(key);
                Ok(())
            }
        }
    }

    /// Notes what became of the request and gives its connection back, or up.
    fn end(&mut self, key: usize, failure: Option<Failure>, keep: bool) -> io::Result<()> {
        let slot = &mut self.slots[key];
        let (due_ns, nonce, stream) = (slot.due_ns, slot.nonce, slot.received.stream);
        let outcome = slot.received.outcome(failure, &nonce, self.options.events);
        if keep {
            self.idle.push(key);
        } else {
            self.slots.remove(key);
        }
        self.record_outcome(due_ns, &nonce, stream, outcome)
    }

    fn record_outcome(
        &mut self,
        due_ns: u64,
        nonce: &Nonce,
        stream: bool,
        outcome: String,
    ) -> io::Result<()> {
        let kind = if stream { "stream" } else { "json" };
        let nonce = String::from_utf8_lossy(nonce);
        writeln!(
            self.outcomes,
            "{due_ns} {} {nonce} {kind} {outcome}",
            now_ns()
        )?;
        *self.counts.entry(outcome).or_default() += 1;
        Ok(())
    }

    fn sweep(&mut self, now: u64) -> io::Result<()> {
        let patience = self.options.timeout_ms * NS_PER_MS;
        let overdue =
            |slot: &Slot| slot.link.is_busy() && now.saturating_sub(slot.due_ns) > patience;
        let keys: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| overdue(slot))
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.end(key, Some(Failure::Timeout), false)?;
        }
        Ok(())
    }
}

impl Received {
    fn take(&mut self, part: Part<'_>, nonce: &Nonce) {
        match part {
            Part::Head(head) => self.status = Some(head.status),
            Part::Data(data) if self.stream && self.status == Some(200) => {
                let (events, in_order) = (&mut self.events, &mut self.in_order);
                let (done, foreign) = (&mut self.done, &mut self.foreign);
                self.splitter.feed(data, |event| {
                    if event.data == b"[DONE]" {
                        *done = true;
                        return;
                    }
                    *in_order &= number_of(event.data, "\"seq\"") == Some(*events);
                    *foreign |= string_of(event.data, "\"nonce\"") != Some(nonce);
                    *events += 1;
                });
            }
            Part::Data(data) => {
                let room = BODY_BYTES_MAX.saturating_sub(self.body.len());
                self.body.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
    }

    fn outcome(&self, failure: Option<Failure>, nonce: &Nonce, events: u32) -> String {
        match (failure, self.status) {
            (Some(Failure::Timeout), _) => "overdue".to_owned(),
            (Some(failure), None) => format!("none/{}", failure.name()),
            (Some(_), Some(_)) => "broken".to_owned(),
            (None, Some(200)) => self.outcome_of_body(nonce, events).to_owned(),
            (None, status) => {
                let code = string_of(&self.body, "\"code\"").unwrap_or(b"-");
                format!(
                    "{}/{}",
                    status.unwrap_or(0),
                    String::from_utf8_lossy(code).replace(char::is_whitespace, "_")
                )
            }
        }
    }

    /// Of a response that looks whole.
    fn outcome_of_body(&self, nonce: &Nonce, events: u32) -> &'static str {
        let nonce_sent_back = string_of(&self.body, "\"nonce\"");
        let whole = if self.stream {
            self.done && self.in_order && self.events == u64::from(events)
        } else {
            nonce_sent_back.is_some() && self.body.ends_with(b"}")
        };
        if self.foreign || nonce_sent_back.is_some_and(|found| found != nonce) {
            "mixed-up"
        } else if whole {
            "whole"
        } else {
            "short"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Framing, ResponseHead};

    const NONCE: &Nonce = b"0123456789abcdef";

    fn received(stream: bool, status: u16, body: &str) -> Received {
        let mut received = Received {
            stream,
            in_order: true,
            ..Received::default()
        };
        let head = ResponseHead {
            status,
            close: false,
            framing: Framing::Chunked,
        };
        received.take(Part::Head(head), NONCE);
        received.take(Part::Data(body.as_bytes()), NONCE);
        received
    }

    #[test]
    fn tells_what_became_of_an_answer() {
        let event =
            |seq: u32| format!("data: {{\"seq\":{seq},\"nonce\":\"0123456789abcdef\"}}\n\n");
        let (one, two) = (event(0), event(1));
        let done = "data: [DONE]\n\n";
        let table = [
            (true, 200, format!("{one}{two}{done}"), None, "whole"),
            (true, 200, format!("{one}{done}"), None, "short"),
            (true, 200, format!("{one}{two}"), None, "short"),
            (true, 200, format!("{two}{one}{done}"), None, "short"),
            (
                true,
                200,
                one.replace('9', "8") + &two + done,
                None,
                "mixed-up",
            ),
            (true, 200, one.clone(), Some(Failure::Truncated), "broken"),
            (
                false,
                200,
                r#"{"nonce":"0123456789abcdef"}"#.to_owned(),
                None,
                "whole",
            ),
            (false, 200, r#"{"nonce":"x"}"#.to_owned(), None, "mixed-up"),
            (false, 200, "{}".to_owned(), None, "short"),
            (
                false,
                502,
                r#"{"error":{"code":"BACKEND_ERROR"}}"#.to_owned(),
                None,
                "502/BACKEND_ERROR",
            ),
            (false, 200, String::new(), Some(Failure::Timeout), "overdue"),
        ];
        for (stream, status, body, failure, want) in table {
            assert_eq!(
                received(stream, status, &body).outcome(failure, NONCE, 2),
                want,
                "{body}"
            );
        }
        let silent = Received::default();
        assert_eq!(silent.outcome(Some(Failure::Reset), NONCE, 2), "none/reset");
    }
}
