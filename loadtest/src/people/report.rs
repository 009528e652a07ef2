//! What the people and the engines report, together.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::PeopleOptions;
use super::response::Response;
use crate::clock::NS_PER_S;
use crate::fleet::ticks::{TICK_NS, Ticks};
use crate::report::{Times, counts_to_json};
use crate::wire::{Part, ResponseReader};

/// How long an engine may take for a page.
const PAGE_SECONDS_MAX: u64 = 5;

/// What became of the requests of a load.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) failed: BTreeMap<String, u64>,
    completed: u64,
    first_token: Times,
    end_to_end: Times,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
}

impl Tally {
    /// Counts a whole response.
    pub(super) fn completed(&mut self, response: &Response, due_ns: u64, now_ns: u64) {
        self.completed += 1;
        let first_ns = response.first_ns.unwrap_or(now_ns);
        self.first_token.record(first_ns - due_ns);
        self.end_to_end.record(now_ns - due_ns);
        let usage = response.usage.unwrap_or_default();
        self.prompt_tokens += usage.prompt_tokens;
        self.cached_tokens += usage.cached_tokens();
        self.output_tokens += usage.completion_tokens;
    }

    fn to_json(&self) -> Value {
        let failed: u64 = self.failed.values().sum();
        json!({
            "requests": self.requests,
            "completed": self.completed,
            "failed": failed,
            "unfinished": self.requests - self.completed - failed,
            "failures": counts_to_json(self.failed.iter().map(|(name, count)| (name, *count))),
            "first_token_us": self.first_token.to_json(),
            "end_to_end_us": self.end_to_end.to_json(),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "hit_share": self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64,
            "output_tokens": self.output_tokens,
        })
    }
}

/// The part of a report that the people know.
pub(super) fn of_loads<'a>(
    options: &PeopleOptions,
    seconds: f64,
    tallies: impl Iterator<Item = (&'a str, &'a Tally)>,
    late: &Times,
) -> Value {
    let loads: Map<_, _> = tallies
        .map(|(name, tally)| (name.to_owned(), tally.to_json()))
        .collect();
    json!({
        "tool": "people",
        "target": options.target.to_string(),
        "scenario": options.scenario.display().to_string(),
        "seed": options.seed,
        "seconds": seconds,
        "loads": loads,
        "late_us": late.to_json(),
    })
}

/// The engines behind the gateway, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Engines(Vec<EngineAddress>);

#[derive(Debug, Deserialize)]
struct EngineAddress {
    name: String,
    address: SocketAddr,
}

/// What `GET /fleet/stats` says of the slots.
#[derive(Debug, Deserialize)]
struct Running {
    first_tick: u64,
    values: Vec<u32>,
}

impl Engines {
    /// Reads the file that `fleet` has written.
    pub(super) fn read(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        Ok(Self(serde_json::from_slice(&std::fs::read(path)?)?))
    }

    /// Starts the load at all engines: they are in one process.
    pub(super) fn begin(&self) -> io::Result<()> {
        match self.0.first() {
            Some(engine) => page(engine.address, "POST", "/fleet/begin").map(|_| ()),
            None => Ok(()),
        }
    }

    /// Adds what the engines report.
    pub(super) fn report(&self, mut report: Value, in_flight: &Ticks) -> io::Result<Value> {
        let mut engines = Vec::new();
        let (mut running, mut slots) = (Vec::new(), 0);
        for EngineAddress { name, address } in &self.0 {
            let mut stats: Value = serde_json::from_slice(&page(*address, "GET", "/fleet/stats")?)?;
            let Running { first_tick, values } = serde_json::from_value(stats["running"].take())?;
            running.push(Ticks::recorded(first_tick, values));
            slots += stats["slots"].as_u64().unwrap_or(0);
            if let Some(fields) = stats.as_object_mut() {
                // One process, one lateness.
                fields.remove("running");
                report["engines_late_us"] = fields.remove("late_us").unwrap_or_default();
                fields.insert("name".to_owned(), name.as_str().into());
            }
            engines.push(stats);
        }
        if !engines.is_empty() {
            report["engines"] = engines.into();
            report["busy_while_waiting"] = busy_while_waiting(in_flight, &running, slots);
        }
        Ok(report)
    }
}

/// The report with a line for each load and engine, for people.
pub(super) fn in_lines(report: &Value) -> Value {
    const TIMES: [&str; 2] = ["first_token_us", "end_to_end_us"];
    let without = |value: &Value, names: &[&str]| {
        let fields = value.as_object().into_iter().flatten();
        let kept = fields.filter(|(name, _)| !names.contains(&name.as_str()));
        Value::Object(
            kept.map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
    };
    let mut lines = without(report, &["loads", "engines"]);
    for (name, load) in report["loads"].as_object().into_iter().flatten() {
        lines[name] = without(load, &TIMES);
        for (times, what) in TIMES.into_iter().zip(["first token", "end to end"]) {
            lines[format!("{name}, {what}")] = load[times].clone();
        }
    }
    for engine in report["engines"].as_array().into_iter().flatten() {
        let name = engine["name"].as_str().unwrap_or_default();
        lines[name] = without(engine, &["name", "by_second"]);
    }
    lines
}

/// The share of all slots that are in use while a request waits, wherever that is. A request on its
/// way would seem to wait, so it counts from the second tick on.
fn busy_while_waiting(in_flight: &Ticks, running: &[Ticks], slots: u64) -> Value {
    let (mut ticks, mut busy, mut waited) = (0_u64, 0_u64, false);
    let first = in_flight.first();
    for tick in first..first + in_flight.values().len() as u64 {
        let sum: Option<u32> = running.iter().map(|one| one.at(tick)).sum();
        let (Some(sum), Some(all)) = (sum, in_flight.at(tick)) else {
            continue;
        };
        let waits = all > sum;
        if waits && waited {
            ticks += 1;
            busy += u64::from(sum);
        }
        waited = waits;
    }
    json!({
        "seconds": ticks as f64 * TICK_NS as f64 / NS_PER_S as f64,
        "share": (ticks > 0).then(|| busy as f64 / (ticks * slots.max(1)) as f64),
    })
}

/// The body of a page of an engine.
fn page(address: SocketAddr, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(PAGE_SECONDS_MAX)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut reader = ResponseReader::default();
    let (mut status, mut body) = (0, Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        let done = reader.feed(&buffer[..count], |part| match part {
            Part::Head(head) => status = head.status,
            Part::Data(data) => body.extend_from_slice(data),
        });
        match done {
            Ok(true) if status == 200 => return Ok(body),
            Ok(false) if count > 0 => {}
            _ => {
                let what = format!("{address}: {method} {path}: status {status}");
                return Err(io::Error::other(what));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_count_while_something_waits_for_two_ticks() {
        let ticks = |values: &[u32]| Ticks::recorded(100, values.to_vec());
        let table = [
            ([&[4, 4, 4][..], &[1, 1, 1], &[1, 1, 1]], json!(0.5)),
            ([&[4, 4, 4], &[2, 2, 2], &[1, 2, 1]], Value::Null),
            ([&[9, 9, 9, 9], &[2, 2, 0, 1], &[2, 2, 2, 2]], json!(0.75)),
            ([&[2, 2, 2], &[1, 1, 1], &[1, 1, 1]], Value::Null),
        ];
        for (row, want) in table {
            let [in_flight, one, other] = row.map(ticks);
            let got = busy_while_waiting(&in_flight, &[one, other], 4);
            assert_eq!(got["share"], want, "{row:?}");
        }
    }

    #[test]
    fn lines_have_every_load_and_engine() {
        let report = json!({"tool": "people", "loads": {"chat": {"requests": 1,
            "first_token_us": {"p50": 1}, "end_to_end_us": null}},
            "engines": [{"name": "e0", "loads": 2, "by_second": [1]}]});
        let want = json!({"tool": "people", "chat": {"requests": 1},
            "chat, first token": {"p50": 1}, "chat, end to end": null, "e0": {"loads": 2}});
        assert_eq!(in_lines(&report), want);
    }

    #[test]
    fn a_tally_adds_up() {
        let mut tally = Tally {
            requests: 5,
            ..Tally::default()
        };
        tally.failed.insert("503 X".to_owned(), 2);
        tally.completed(&Response::default(), 1_000, 5_000);
        let json = tally.to_json();
        assert_eq!(
            (&json["failed"], &json["unfinished"]),
            (&json!(2), &json!(2))
        );
        assert_eq!(json["end_to_end_us"]["max"], 4.0);
        assert_eq!(json["hit_share"], 0.0);
    }
}
