//! Keep-alive connections that are opened, used once, and held: for measuring what an idle
//! connection takes in a gateway.
//!
//! So many requests are in progress at a time and no more: that keeps a gateway from opening as many
//! upstream connections as there are clients. When every connection has its response, the line
//! `holding N` says so; the connections then stay as they are until the standard input ends.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use crate::alarm::Alarm;
use crate::clock::{NS_PER_MS, now_ns};
use crate::link::{Failure, Link, SCRATCH_BYTES, Turn};
use crate::report;
use crate::target::{Nonces, Payload, RequestOptions};

const ALARM: Token = Token(usize::MAX);
const INPUT: Token = Token(usize::MAX - 1);

/// The interval at which overdue responses are looked for, in nanoseconds.
const SWEEP_NS: u64 = 100 * NS_PER_MS;

/// What `idle` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = IDLE_HELP)]
pub struct IdleOptions {
    /// The requests
    #[command(flatten)]
    pub request: RequestOptions,
    /// Connections to hold
    #[arg(long, default_value_t = 3000, value_name = "N")]
    pub connections: usize,
    /// Requests in progress at a time
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub at_once: usize,
    /// How long a response may take
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub timeout_ms: u64,
    /// Write the report as JSON; `-` prints it in place of the table
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

const IDLE_HELP: &str = "\
The standard input must be a pipe or a terminal; its end ends the run. The line `holding N` is
printed when every connection has had its response or failed.
Exit status 0 when every request got status 200 and every connection was open at the end, else 1.";

/// Opens the connections, holds them, and returns the report.
///
/// # Errors
/// When epoll fails, or when the standard input cannot be watched, such as a file.
pub fn run(options: &IdleOptions) -> io::Result<Value> {
    let mut crowd = Crowd::new(options)?;
    crowd.run()?;
    Ok(crowd.report())
}

/// True when a report is one of success, as the exit status says.
pub fn is_success(report: &Value) -> bool {
    report["open"] == report["connections"] && report["statuses"]["200"] == report["connections"]
}

struct Crowd<'a> {
    options: &'a IdleOptions,
    poll: Poll,
    alarm: Alarm,
    payload: Payload,
    nonces: Nonces,
    members: Vec<Member>,
    /// Connections with a request in progress.
    busy: usize,
    closed_idle: u64,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<Failure, u64>,
}

/// A connection, none once it has ended, and when its request was sent.
struct Member {
    link: Option<Link>,
    sent_ns: u64,
}

impl<'a> Crowd<'a> {
    fn new(options: &'a IdleOptions) -> io::Result<Self> {
        let poll = Poll::new()?;
        let input = io::stdin().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&input), INPUT, Interest::READABLE)?;
        Ok(Self {
            options,
            alarm: Alarm::new(poll.registry(), ALARM)?,
            poll,
            payload: Payload::render(&options.request, false, true),
            nonces: Nonces::new(now_ns()),
            members: Vec::with_capacity(options.connections),
            busy: 0,
            closed_idle: 0,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut announced = false;
        loop {
            while self.members.len() < self.options.connections && self.busy < self.at_once() {
                self.start();
            }
            if !announced && self.busy == 0 {
                announced = true;
                writeln!(io::stdout(), "holding {}", self.open())?;
            }
            self.alarm.set(now_ns() + SWEEP_NS)?;
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    ALARM => self.sweep(),
                    INPUT => {
                        if event.is_read_closed() || has_ended(&mut scratch)? {
                            return Ok(());
                        }
                    }
                    Token(member) => {
                        let closed = event.is_read_closed() || event.is_error();
                        self.on_ready(member, closed, &mut scratch);
                    }
                }
            }
        }
    }

    fn at_once(&self) -> usize {
        self.options.at_once.max(1)
    }

    fn open(&self) -> usize {
        let is_open = |member: &&Member| member.link.is_some();
        self.members.iter().filter(is_open).count()
    }

    fn start(&mut self) {
        let token = Token(self.members.len());
        let target = &self.options.request.url;
        let nonce = self.nonces.next_nonce();
        let begun = Link::open_to(target, self.poll.registry(), token)
            .map_err(|error| Failure::from(&error))
            .and_then(|mut link| link.begin(&self.payload, nonce).map(|()| link));
        let link = match begun {
            Ok(link) => Some(link),
            Err(failure) => {
                *self.failures.entry(failure).or_default() += 1;
                None
            }
        };
        self.busy += usize::from(link.is_some());
        self.members.push(Member {
            link,
            sent_ns: now_ns(),
        });
    }

    fn on_ready(&mut self, member: usize, closed: bool, scratch: &mut [u8]) {
        let Some(member) = self.members.get_mut(member) else {
            return;
        };
        let Some(link) = &mut member.link else { return };
        let was_busy = link.is_busy();
        let turn = link.turn(&self.payload, scratch, closed, |_| {});
        match turn {
            Turn::Pending => return,
            Turn::Complete { status, keep } => {
                *self.statuses.entry(status).or_default() += 1;
                if !keep {
                    member.link = None;
                }
            }
            Turn::ClosedIdle => {
                self.closed_idle += 1;
                member.link = None;
            }
            Turn::Failed(failure) => {
                *self.failures.entry(failure).or_default() += 1;
                member.link = None;
            }
        }
        self.busy -= usize::from(was_busy);
    }

    fn sweep(&mut self) {
        let patience = self.options.timeout_ms * NS_PER_MS;
        let now = now_ns();
        for member in &mut self.members {
            let busy = member.link.as_ref().is_some_and(Link::is_busy);
            if busy && now.saturating_sub(member.sent_ns) > patience {
                member.link = None;
                self.busy -= 1;
                *self.failures.entry(Failure::Timeout).or_default() += 1;
            }
        }
    }

    fn report(&self) -> Value {
        let (statuses, failures) = (&self.statuses, &self.failures);
        json!({
            "tool": "idle",
            "url": self.options.request.url.to_string(),
            "connections": self.options.connections,
            "open": self.open(),
            "closed_idle": self.closed_idle,
            "statuses": report::counts_to_json(statuses.iter().map(|(status, n)| (*status, *n))),
            "failures": report::counts_to_json(failures.iter().map(|(kind, n)| (kind.name(), *n))),
        })
    }
}

/// Reads what came on the standard input, which has no meaning; true at its end.
fn has_ended(scratch: &mut [u8]) -> io::Result<bool> {
    match io::stdin().lock().read(scratch) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
        other => other.map(|count| count == 0),
    }
}
