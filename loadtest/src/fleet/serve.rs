//! The sockets of the engines, and the loop that lets them happen in real time.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use slab::Slab;

use super::chat::{self, Form, STREAM_HEAD};
use super::engine::{Engine, Job, Output, What};
use super::pages::{self, Page};
use super::scenario::{EngineSpec, Scenario};
use crate::alarm::Alarm;
use crate::clock::now_ns;
use crate::report::Times;
use crate::wire::{Request, RequestReader};

const ALARM: Token = Token(usize::MAX);

/// Tokens from here on are listeners.
const LISTENERS: usize = usize::MAX / 2;

/// The engines, bound.
#[derive(Debug)]
pub(super) struct Fleet {
    poll: Poll,
    alarm: Alarm,
    stations: Vec<Station>,
    conns: Slab<Conn>,
    /// The connection of each request in an engine.
    requests: HashMap<u64, usize>,
    last_id: u64,
    late: Times,
}

/// An engine and its address.
#[derive(Debug)]
struct Station {
    engine: Engine,
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    station: usize,
    reader: RequestReader,
    out: Vec<u8>,
    sent: usize,
    close_when_sent: bool,
    serving: Option<Serving>,
}

/// The response in progress.
#[derive(Debug)]
struct Serving {
    form: Form,
    begun: bool,
    /// The text of a response that is not streamed.
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Drop,
}

/// What a request is to an engine.
enum Call {
    Chat(Box<Job>, Form),
    /// Status and content of a response that is known at once.
    Page(&'static str, Page),
    /// The start of the load, for all engines.
    Begin,
}

impl Call {
    fn read(request: &Request<'_>, id: u64, engine: &mut Engine, late: &Times) -> Self {
        let path = request.path.split('?').next().unwrap_or_default();
        let page = match (request.method, path) {
            ("POST", "/v1/chat/completions") => {
                return match chat::read(request.body, id, engine.spec()) {
                    Ok((job, form)) => Self::Chat(Box::new(job), form),
                    Err(refusal) => {
                        let (status, body) = chat::refusal(&refusal);
                        Self::Page(status, body.into())
                    }
                };
            }
            ("POST", "/fleet/begin") => return Self::Begin,
            ("GET", "/fleet/stats") => Some(stats(engine, late).into()),
            ("GET", path) => pages::page(path, engine),
            _ => None,
        };
        match page {
            Some(page) => Self::Page("200 OK", page),
            None => Self::Page("404 Not Found", json!({"detail": "Not Found"}).into()),
        }
    }
}

impl Fleet {
    /// Binds a listener for each engine.
    pub(super) fn bind(scenario: &Scenario, first: SocketAddr, seed: u64) -> io::Result<Self> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let mut stations = Vec::new();
        let groups = scenario.engines.iter();
        for spec in groups.flat_map(|spec| std::iter::repeat_n(spec, spec.count)) {
            let mut address = first;
            if first.port() != 0 {
                let port = usize::from(first.port()) + stations.len();
                address.set_port(u16::try_from(port).map_err(io::Error::other)?);
            }
            let mut listener = TcpListener::bind(address)?;
            let token = Token(LISTENERS + stations.len());
            poll.registry()
                .register(&mut listener, token, Interest::READABLE)?;
            let own_seed = seed << 16 | stations.len() as u64;
            stations.push(Station {
                engine: Engine::new(spec, scenario.noise, own_seed, now_ns()),
                address: listener.local_addr()?,
                listener,
            });
        }
        Ok(Self {
            poll,
            alarm,
            stations,
            conns: Slab::with_capacity(1024),
            requests: HashMap::new(),
            last_id: 0,
            late: Times::default(),
        })
    }

    /// The address of an engine.
    pub(super) fn address(&self, place: usize) -> SocketAddr {
        self.stations[place].address
    }

    /// What each engine is.
    pub(super) fn specs(&self) -> impl Iterator<Item = &EngineSpec> {
        self.stations.iter().map(|station| station.engine.spec())
    }

    /// Serves until the process ends.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Some(due_ns) = self
                .stations
                .iter()
                .filter_map(|h| h.engine.next_due())
                .min()
            {
                self.alarm.set(due_ns)?;
            }
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            // What is due comes before what has just arrived.
            self.advance();
            for event in &events {
                match event.token() {
                    ALARM => {}
                    Token(number) if number >= LISTENERS => self.accept(number - LISTENERS),
                    Token(slot) => {
                        let closed = event.is_read_closed() || event.is_error();
                        self.on_ready(slot, event.is_readable(), closed);
                    }
                }
            }
            self.advance();
        }
    }

    /// Lets everything happen that is due.
    fn advance(&mut self) {
        let now = now_ns();
        for station in 0..self.stations.len() {
            let engine = &mut self.stations[station].engine;
            while let Some(due_ns) = engine.next_due().filter(|due| *due <= now) {
                self.late.record((now - due_ns).max(1));
                engine.step();
            }
            self.deliver(station);
        }
    }

    /// Passes on what has left an engine. A client that is gone makes more leave.
    fn deliver(&mut self, station: usize) {
        loop {
            let outputs = self.stations[station].engine.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                self.pass_on(station, output);
            }
        }
    }

    fn pass_on(&mut self, station: usize, Output { id, what }: Output) {
        let Some(&slot) = self.requests.get(&id) else {
            return;
        };
        let is_last = !matches!(what, What::Piece(_));
        if is_last {
            self.requests.remove(&id);
        }
        let spec = self.stations[station].engine.spec();
        let Some(conn) = self.conns.get_mut(slot) else {
            return;
        };
        conn.respond(spec, what);
        if conn.flush() == Fate::Drop {
            self.drop_conn(slot);
        } else if is_last {
            self.go_on(slot);
        }
    }

    fn accept(&mut self, station: usize) {
        // Ends with WouldBlock, or with an error such as EMFILE that the next connection repeats.
        while let Ok((mut stream, _)) = self.stations[station].listener.accept() {
            let _ = stream.set_nodelay(true);
            let entry = self.conns.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            if registry
                .register(&mut stream, Token(entry.key()), interest)
                .is_err()
            {
                continue;
            }
            entry.insert(Conn {
                stream,
                station,
                reader: RequestReader::default(),
                out: Vec::new(),
                sent: 0,
                close_when_sent: false,
                serving: None,
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
        if fate == Fate::Drop {
            self.drop_conn(slot);
        } else {
            self.go_on(slot);
        }
    }

    /// Takes up the requests of a connection that are whole.
    fn go_on(&mut self, slot: usize) {
        loop {
            let Some(conn) = self.conns.get_mut(slot) else {
                return;
            };
            if conn.serving.is_some() || conn.close_when_sent {
                return;
            }
            let station = conn.station;
            let engine = &mut self.stations[station].engine;
            let call = match conn.reader.poll() {
                Ok(None) => return,
                Ok(Some(request)) => {
                    conn.close_when_sent = request.close;
                    self.last_id += 1;
                    Call::read(&request, self.last_id, engine, &self.late)
                }
                Err(_) => {
                    conn.close_when_sent = true;
                    Call::Page("400 Bad Request", json!({"detail": "not HTTP"}).into())
                }
            };
            conn.reader.consume();
            match call {
                Call::Page(status, page) => conn.write(status, &page),
                Call::Chat(job, form) => {
                    self.requests.insert(form.id, slot);
                    conn.begin(form, engine.spec().early_head);
                    engine.arrive(now_ns(), form.id, *job);
                }
                Call::Begin => {
                    conn.write("200 OK", &json!({}).into());
                    self.begin_load();
                }
            }
            if self
                .conns
                .get_mut(slot)
                .is_some_and(|conn| conn.flush() == Fate::Drop)
            {
                self.drop_conn(slot);
            }
            self.deliver(station);
        }
    }

    fn begin_load(&mut self) {
        let now = now_ns();
        self.late = Times::default();
        for station in &mut self.stations {
            station.engine.begin(now);
        }
    }

    fn drop_conn(&mut self, slot: usize) {
        let mut conn = self.conns.remove(slot);
        let _ = self.poll.registry().deregister(&mut conn.stream);
        if let Some(Serving { form, .. }) = conn.serving
            && self.requests.remove(&form.id).is_some()
        {
            self.stations[conn.station].engine.leave(now_ns(), form.id);
        }
    }
}

impl Conn {
    /// Begins the response to a request.
    fn begin(&mut self, form: Form, early_head: bool) {
        let begun = form.stream && early_head;
        if begun {
            self.out.extend_from_slice(STREAM_HEAD);
        }
        self.serving = Some(Serving {
            form,
            begun,
            text: String::new(),
        });
    }

    /// Writes what came from the engine.
    fn respond(&mut self, spec: &EngineSpec, what: What) {
        let Some(serving) = &mut self.serving else {
            return;
        };
        let form = serving.form;
        match what {
            What::Piece(text) if form.stream => {
                let first = serving.text.is_empty();
                if !serving.begun {
                    serving.begun = true;
                    self.out.extend_from_slice(STREAM_HEAD);
                }
                chat::write_piece(spec, form, &text, first, &mut self.out);
                if first {
                    serving.text = text;
                }
            }
            What::Piece(text) => serving.text.push_str(&text),
            What::Done(usage) if form.stream => {
                chat::write_end(spec, form, usage, &mut self.out);
                self.serving = None;
            }
            What::Done(usage) => {
                let body = chat::whole(spec, form, &serving.text, usage);
                self.serving = None;
                self.write("200 OK", &body.into());
            }
            What::Refused => {
                // An engine that sends the head early cannot refuse any more: it ends the stream.
                if serving.begun {
                    self.close_when_sent = true;
                } else {
                    let (status, body) = chat::loading();
                    self.write(status, &body.into());
                }
                self.serving = None;
            }
        }
    }

    fn write(&mut self, status: &str, page: &Page) {
        // Writing to a vector cannot fail.
        let _ = write!(
            self.out,
            "HTTP/1.1 {status}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{}",
            page.content_type,
            page.body.len(),
            page.body
        );
    }

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
                    if self.serving.is_none() {
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
        if self.close_when_sent && self.serving.is_none() {
            Fate::Drop
        } else {
            Fate::Keep
        }
    }
}

/// The page `/fleet/stats`.
fn stats(engine: &mut Engine, late: &Times) -> Value {
    let (loads, slots) = (engine.loads(), engine.spec().slots);
    let counts = engine.counts(now_ns());
    json!({
        "slots": slots,
        "requests": counts.requests,
        "completed": counts.completed,
        "refused": counts.refused,
        "left": counts.left,
        "loads": loads,
        "prompt_tokens": counts.usage.prompt_tokens,
        "cached_tokens": counts.usage.cached_tokens,
        "output_tokens": counts.usage.output_tokens,
        "full_share": counts.running.share_of(u32::try_from(slots).unwrap_or(u32::MAX)),
        "by_second": counts.by_second,
        "running": {"first_tick": counts.running.first(), "values": counts.running.values()},
        "late_us": late.to_json(),
    })
}
