//! The stub LLM server: one thread, one epoll, responses rendered beforehand. Cheap enough that
//! the gateway in front of it is what is measured; it misbehaves on request.
//!
//! Whole requests are read before the response. A connection has one timer at most: for the
//! delay before a response or for the next event of a stream. The next event is due a gap after the
//! last one *was due*, so a late one does not slow the stream down.

mod ask;
mod record;
mod reply;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::clock::{NS_PER_MS, now_ns};
use crate::wire::RequestReader;
use ask::{Ask, BadStubField, Defaults, Fault};
use record::Record;
use reply::{BROKEN_CHUNK, Replies, Route, STREAM_END, STREAM_HEAD, StubEvent};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Connections that fill a backlog of zero: the kernel takes one more than it says, and drops the
/// first packets of all others.
const FILLERS: usize = 4;

const LISTENER: Token = Token(usize::MAX);

/// What `stub` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = STUB_HELP)]
pub struct StubOptions {
    /// Address to listen on; with port 0 the kernel chooses one. The first line of output names it
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// A model to list; may be repeated, the first one is named in responses
    #[arg(long = "model", default_value = "stub-model", value_name = "NAME")]
    pub models: Vec<String>,
    /// Events of a stream
    #[arg(long, default_value_t = 20)]
    pub events: u32,
    /// Milliseconds between the events of a stream
    #[arg(long, default_value_t = 20)]
    pub gap_ms: u64,
    /// Milliseconds before a response
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
    /// Append a line for everything that is seen: for the checks of a test
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

const STUB_HELP: &str = "\
Routes: GET / /health /v1/models /api/tags /stub/counters, POST /v1/chat/completions
/v1/completions /v1/embeddings /api/chat.
POST /stub/fault {...} sets the fields of `stub` for every request that follows, GET ones (health
checks) too; {} ends that. It knows one more fault, drop: as if all packets were lost, except on
connections that have not been used for anything else.

Fields of a request's body, found by scanning it:
  \"nonce\":\"x\"     echoed in the response and in each event (letters, digits, - _ .)
  \"stream\":true   an event stream in chunks, one write for each event; each event carries its
                  number `seq`, the time of sending `sent_ns` (CLOCK_MONOTONIC) and the bytes of
                  body before it, `at`
  \"stub\":{...}    for this request: events, gap_ms, delay_ms, event_bytes (length of the
                  text added to each event), tools (true), and
                  fault: reset | close | hang | cut | bad_chunk | status_500 | slow | busy";

/// The server, bound but not yet running.
#[derive(Debug)]
pub struct Stub {
    poll: Poll,
    listener: TcpListener,
    conns: Slab<Conn>,
    timers: BinaryHeap<Reverse<Timer>>,
    defaults: Defaults,
    replies: Replies,
    record: Record,
    counters: Counters,
    accepted: u64,
    /// While connections are not established: those that fill the queue.
    fillers: Vec<TcpStream>,
}

/// A connection's next moment. `serial` distinguishes it from an earlier connection in the same slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    due_ns: u64,
    slot: usize,
    serial: u64,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    serial: u64,
    reader: RequestReader,
    out: Vec<u8>,
    /// Bytes of `out` that have been sent.
    sent: usize,
    close_when_sent: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Waiting for a whole request.
    Reading,
    /// Waiting for the time to respond.
    Delayed(Route, Ask),
    Streaming(StreamState),
    /// The request of this nonce never gets a response.
    Hung(Option<String>),
}

#[derive(Debug)]
struct StreamState {
    ask: Ask,
    seq: u32,
    due_ns: u64,
    /// Bytes of body sent so far.
    at: u64,
}

#[derive(Debug, Default)]
struct Counters {
    requests: [u64; Route::ALL.len()],
    streams_started: u64,
    streams_completed: u64,
    /// Ended by a fault that was asked for.
    streams_broken: u64,
    /// Left by the client.
    streams_aborted: u64,
    /// Left by the client before the first byte of a response.
    requests_aborted: u64,
    requests_malformed: u64,
    faults: u64,
}

/// What becomes of a connection after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
}

impl Stub {
    /// Binds the listener.
    ///
    /// # Errors
    /// What the system says about the address, or about epoll.
    pub fn bind(options: &StubOptions) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(options.listen)?;
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            conns: Slab::with_capacity(1024),
            timers: BinaryHeap::new(),
            defaults: Defaults {
                events: options.events,
                gap_ms: options.gap_ms,
                delay_ms: options.delay_ms,
                fault: None,
            },
            record: Record::open(options.record.as_deref())?,
            replies: Replies::new(&options.models),
            counters: Counters::default(),
            accepted: 0,
            fillers: Vec::new(),
        })
    }

    /// The address that clients connect to.
    ///
    /// # Errors
    /// What the system says about the socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// Only when epoll itself fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            let wait = self
                .timers
                .peek()
                .map(|Reverse(timer)| Duration::from_nanos(timer.due_ns.saturating_sub(now_ns())));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                if event.token() == LISTENER {
                    self.accept();
                } else {
                    let closed = event.is_read_closed() || event.is_error();
                    self.on_ready(event.token().0, event.is_readable(), closed);
                }
            }
            self.fire_timers();
        }
    }

    /// Begins or ends [`Fault::Drop`], as the defaults say.
    fn adopt_fault(&mut self) {
        let drops = self.defaults.fault == Some(Fault::Drop);
        if drops != self.fillers.is_empty() {
            return;
        }
        if drops {
            let _ = rustix::net::listen(&self.listener, 0);
            if let Ok(own) = self.local_addr() {
                let fill = |_| TcpStream::connect(own).ok();
                self.fillers = (0..FILLERS).filter_map(fill).collect();
            }
        } else {
            self.fillers.clear();
            let _ = rustix::net::listen(&self.listener, BACKLOG);
            self.accept();
        }
    }

    fn accept(&mut self) {
        if !self.fillers.is_empty() {
            return;
        }
        // Ends with WouldBlock, or with an error such as EMFILE that the next connection repeats.
        while let Ok((mut stream, _)) = self.listener.accept() {
            let _ = stream.set_nodelay(true);
            let entry = self.conns.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self
                .poll
                .registry()
                .register(&mut stream, Token(entry.key()), interest)
                .is_err()
            {
                continue;
            }
            self.accepted += 1;
            entry.insert(Conn {
                stream,
                serial: self.accepted,
                reader: RequestReader::default(),
                out: Vec::new(),
                sent: 0,
                close_when_sent: false,
                stage: Stage::Reading,
            });
        }
    }

    fn on_ready(&mut self, slot: usize, readable: bool, closed: bool) {
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        let mut fate = conn.flush();
        if fate == Fate::Keep && (readable || closed) {
            fate = conn.fill(closed);
        }
        self.go_on(slot, fate);
    }

    /// Responds to complete requests, and closes the connection where that is due.
    fn go_on(&mut self, slot: usize, mut fate: Fate) {
        while fate == Fate::Keep {
            let mut is_fault_new = false;
            let Some(conn) = self.conns.get_mut(slot) else {
                return;
            };
            if !matches!(conn.stage, Stage::Reading) || conn.close_when_sent {
                return;
            }
            let (route, ask) = match conn.reader.poll() {
                Ok(None) => return,
                Ok(Some(request)) => {
                    conn.close_when_sent = request.close;
                    let route = Route::of(request.method, request.path);
                    let ask = match route {
                        Route::Counters => None,
                        Route::SetFault => {
                            let refused = self.defaults.set(request.body).err().map(Err);
                            is_fault_new = true;
                            refused
                        }
                        _ if route.is_inference() => Some(Ask::read(request.body, self.defaults)),
                        _ => Some(Ok(Ask::plain(self.defaults))),
                    };
                    if !route.is_control() {
                        self.record.arrived(&request);
                    }
                    (route, ask)
                }
                Err(_) => {
                    self.counters.requests_malformed += 1;
                    self.record.malformed();
                    conn.close_when_sent = true;
                    reply::write_json(&mut conn.out, "400 Bad Request", b"{}");
                    fate = conn.flush();
                    break;
                }
            };
            conn.reader.consume();
            if is_fault_new {
                self.adopt_fault();
            }
            self.counters.requests[route as usize] += 1;
            fate = self.begin(slot, route, ask);
        }
        if fate == Fate::Drop {
            self.drop_conn(slot);
        }
    }

    /// Starts the response to a request, or the wait for it.
    fn begin(&mut self, slot: usize, route: Route, ask: Option<Result<Ask, BadStubField>>) -> Fate {
        let open = self.conns.len();
        let Some(conn) = self.conns.get_mut(slot) else {
            return Fate::Keep;
        };
        match ask {
            None if route == Route::Counters => {
                let body = self.counters.to_json(self.accepted, open);
                reply::write_json(&mut conn.out, "200 OK", body.as_bytes());
            }
            None => self.replies.write_fixed(route, &mut conn.out),
            Some(Err(BadStubField)) => {
                let body = br#"{"error":{"message":"the field `stub` is not understood"}}"#;
                reply::write_json(&mut conn.out, "400 Bad Request", body);
            }
            Some(Ok(ask)) if ask.delay_ms > 0 => {
                let due_ns = now_ns() + ask.delay_ms * NS_PER_MS;
                self.timers.push(Reverse(Timer {
                    due_ns,
                    slot,
                    serial: conn.serial,
                }));
                conn.stage = Stage::Delayed(route, ask);
                return Fate::Keep;
            }
            Some(Ok(ask)) => return self.respond(slot, route, ask),
        }
        conn.flush()
    }

    fn respond(&mut self, slot: usize, route: Route, ask: Ask) -> Fate {
        let Some(conn) = self.conns.get_mut(slot) else {
            return Fate::Keep;
        };
        self.counters.faults += u64::from(ask.fault.is_some());
        let middle =
            route.is_inference() && matches!(ask.fault, Some(Fault::Cut | Fault::BadChunk));
        // What another endpoint may still respond to counts as not begun.
        if !matches!(
            ask.fault,
            Some(Fault::Reset | Fault::Close | Fault::Hang | Fault::Drop | Fault::Busy)
        ) {
            self.record.begun(ask.nonce.as_deref());
        }
        match ask.fault {
            Some(Fault::Reset) => {
                // With a linger time of zero a close sends RST (socket(7), SO_LINGER).
                let zero = Some(Duration::ZERO);
                let _ = rustix::net::sockopt::set_socket_linger(&conn.stream, zero);
                return Fate::Drop;
            }
            Some(Fault::Close) => return Fate::Drop,
            Some(Fault::Hang | Fault::Drop) => {
                conn.stage = Stage::Hung(ask.nonce);
                return Fate::Keep;
            }
            Some(Fault::Status500) => {
                let body = br#"{"error":{"message":"asked for","type":"server_error"}}"#;
                reply::write_json(&mut conn.out, "500 Internal Server Error", body);
            }
            Some(Fault::Busy) if route.is_inference() => {
                let statuses = ["503 Service Unavailable", "429 Too Many Requests"];
                let status = statuses[(self.counters.faults % 2) as usize];
                let body = br#"{"error":{"message":"not now","type":"overloaded"}}"#;
                reply::write_json(&mut conn.out, status, body);
            }
            _ if !route.is_inference() => self.replies.write_fixed(route, &mut conn.out),
            _ if ask.stream => {
                self.counters.streams_started += 1;
                conn.out.extend_from_slice(STREAM_HEAD);
                let due_ns = now_ns();
                conn.stage = Stage::Streaming(StreamState {
                    ask,
                    seq: 0,
                    due_ns,
                    at: 0,
                });
                return match conn.flush() {
                    Fate::Keep => self.send_event(slot),
                    Fate::Drop => Fate::Drop,
                };
            }
            _ if middle => {
                let chunked = ask.fault == Some(Fault::BadChunk);
                self.replies
                    .write_half_response(route, ask.tools, chunked, &mut conn.out);
                conn.close_when_sent = true;
            }
            _ => self
                .replies
                .write_response(route, ask.tools, ask.nonce.as_deref(), &mut conn.out),
        }
        conn.flush()
    }

    /// Sends the next event of a stream, or its end after the last one.
    fn send_event(&mut self, slot: usize) -> Fate {
        let Some(conn) = self.conns.get_mut(slot) else {
            return Fate::Keep;
        };
        let Stage::Streaming(state) = &mut conn.stage else {
            return Fate::Keep;
        };
        let middle = state.seq >= state.ask.events / 2;
        if let (true, Some(fault @ (Fault::Cut | Fault::BadChunk))) = (middle, state.ask.fault) {
            self.counters.streams_broken += 1;
            conn.stage = Stage::Reading;
            conn.close_when_sent = true;
            if fault == Fault::BadChunk {
                conn.out.extend_from_slice(BROKEN_CHUNK);
            }
            return conn.flush();
        }
        if state.seq < state.ask.events {
            let event = StubEvent {
                seq: state.seq,
                last: state.seq + 1 == state.ask.events,
                sent_ns: now_ns(),
                at: state.at,
                nonce: state.ask.nonce.as_deref(),
                added_bytes: state.ask.event_bytes,
                tools: state.ask.tools,
            };
            state.at += self.replies.write_event(&event, &mut conn.out) as u64;
            state.seq += 1;
            if !event.last {
                state.due_ns += state.ask.gap_ms * NS_PER_MS;
                let timer = Timer {
                    due_ns: state.due_ns,
                    slot,
                    serial: conn.serial,
                };
                self.timers.push(Reverse(timer));
                return conn.flush();
            }
            if conn.flush() == Fate::Drop {
                return Fate::Drop;
            }
        }
        self.counters.streams_completed += 1;
        conn.stage = Stage::Reading;
        conn.out.extend_from_slice(STREAM_END);
        conn.flush()
    }

    fn fire_timers(&mut self) {
        // No more than were armed when this began: a gap of zero must not keep the connections from
        // being read.
        let now = now_ns();
        for _ in 0..self.timers.len() {
            match self.timers.peek() {
                Some(Reverse(timer)) if timer.due_ns <= now => {}
                _ => return,
            }
            let Some(Reverse(timer)) = self.timers.pop() else {
                return;
            };
            let Some(conn) = self.conns.get_mut(timer.slot) else {
                continue;
            };
            if conn.serial != timer.serial {
                continue;
            }
            let fate = match std::mem::replace(&mut conn.stage, Stage::Reading) {
                Stage::Delayed(route, ask) => self.respond(timer.slot, route, ask),
                stage => {
                    conn.stage = stage;
                    self.send_event(timer.slot)
                }
            };
            self.go_on(timer.slot, fate);
        }
    }

    fn drop_conn(&mut self, slot: usize) {
        let mut conn = self.conns.remove(slot);
        match conn.stage {
            Stage::Streaming(state) => {
                self.counters.streams_aborted += 1;
                self.record.left(state.ask.nonce.as_deref());
            }
            Stage::Delayed(_, Ask { nonce, .. }) | Stage::Hung(nonce) => {
                self.counters.requests_aborted += 1;
                self.record.left(nonce.as_deref());
            }
            Stage::Reading if conn.reader.is_inside_request() => {
                self.counters.requests_aborted += 1;
                self.record.partial();
            }
            Stage::Reading => {}
        }
        let _ = self.poll.registry().deregister(&mut conn.stream);
    }
}

impl Conn {
    /// Reads what has come. A short read means that nothing is left (epoll(7)), except when the
    /// peer has closed: that was announced once and is only seen by reading to the end.
    fn fill(&mut self, closed: bool) -> Fate {
        loop {
            let space = self.reader.space();
            let room = space.len();
            match self.stream.read(space) {
                Ok(0) => return Fate::Drop,
                Ok(count) => {
                    self.reader.advance(count);
                    if count < room && !closed {
                        return Fate::Keep;
                    }
                    // The head says how long the body is; with that the next read is a large one.
                    if matches!(self.stage, Stage::Reading) {
                        let _ = self.reader.poll();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Fate::Keep,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Drop,
            }
        }
    }

    fn flush(&mut self) -> Fate {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Fate::Keep,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Fate::Drop,
            }
        }
        self.out.clear();
        self.sent = 0;
        let responded = matches!(self.stage, Stage::Reading);
        if self.close_when_sent && responded {
            Fate::Drop
        } else {
            Fate::Keep
        }
    }
}

impl Counters {
    fn to_json(&self, accepted: u64, open: usize) -> String {
        let requests: serde_json::Map<_, _> = Route::ALL
            .into_iter()
            .map(|route| {
                (
                    route.path().to_owned(),
                    self.requests[route as usize].into(),
                )
            })
            .collect();
        let ended = self.streams_completed + self.streams_broken + self.streams_aborted;
        serde_json::json!({
            "requests": requests,
            "connections_accepted": accepted,
            "connections_open": open,
            "streams_started": self.streams_started,
            "streams_in_flight": self.streams_started - ended,
            "streams_completed": self.streams_completed,
            "streams_broken": self.streams_broken,
            "streams_aborted": self.streams_aborted,
            "requests_aborted": self.requests_aborted,
            "requests_malformed": self.requests_malformed,
            "faults": self.faults,
        })
        .to_string()
    }
}
