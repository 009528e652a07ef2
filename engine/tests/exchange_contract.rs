//! What the engine promises an exchange, over real sockets and on both drivers: `done` once for each
//! exchange that began, `attempt_ended` once for each pick, whenever the client or the backend
//! leaves; a connection's exchanges leave each other what they keep; an exchange's own response
//! takes the place of a backend's as long as the client has seen nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use olla_engine::core::{Engine, Options};
use olla_engine::decoding::{BodyDecoder, Decoded, Decoding, Undecodable};
use olla_engine::exchange::Fault;
use olla_engine::h1::emit;
use olla_engine::handler::{
    Ask, AtEnd, AtHead, AttemptEnd, Cx, Done, End, Exchange, Handler, Local, Made, Outcome,
    Passing, Pick, Request, Response, Routed, Target, Work,
};
use olla_engine::rt::Wanted;
use socket2::{Domain, Socket, Type};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// After this long without bytes a client gets some of the exchange's own.
const QUIET: Duration = Duration::from_millis(20);

/// What became of an exchange.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// With its outcome and the number of the request on its connection.
    Done(Outcome, u32),
    /// Dropped without `done`, or with an attempt more or less than was picked.
    Astray { picks: u32, ends: u32 },
}

struct Watched {
    backend: SocketAddr,
    /// A decoder waits for it when its step begins and before the step ends.
    may_go_on: Arc<Barrier>,
    fates: Sender<Fate>,
    /// Work that hangs goes on when the other end is dropped.
    gate: crossbeam_channel::Receiver<()>,
}

/// A decoder whose only step ends when the test says so.
struct Slow {
    may_go_on: Arc<Barrier>,
    is_complete: bool,
}

impl BodyDecoder for Slow {
    fn decode(&mut self, input: &[u8], out: &mut [u8]) -> Result<Decoded, Undecodable> {
        if !self.is_complete {
            self.may_go_on.wait();
            self.may_go_on.wait();
            self.is_complete = true;
            out[..input.len()].copy_from_slice(input);
            out[..input.len()].make_ascii_uppercase();
            let (read, written) = (input.len(), input.len());
            return Ok(Decoded { read, written });
        }
        Ok(Decoded {
            read: 0,
            written: 0,
        })
    }

    fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn is_steady(&self) -> bool {
        false
    }

    fn memory_max(&self) -> usize {
        0
    }
}

/// An exchange does what the first segment of its path says.
struct Watching {
    handler: Rc<Watched>,
    number: u32,
    path: Vec<u8>,
    picks: u32,
    ends: u32,
    is_done: bool,
    /// Whether work was asked for, and the bytes that it was done on.
    asked: bool,
    worked_on: Option<Receiver<Vec<u8>>>,
}

impl Handler for Watched {
    type Exchange = Watching;

    fn begin(self: &Rc<Self>, number: u32) -> Watching {
        Watching {
            handler: Rc::clone(self),
            number: number + 1,
            path: Vec::new(),
            picks: 0,
            ends: 0,
            is_done: false,
            asked: false,
            worked_on: None,
        }
    }
}

impl Watching {
    fn does(&self, what: &str) -> bool {
        self.path.starts_with(what.as_bytes())
    }

    /// Whether work is to be done now. On the second call it has been done on these bytes.
    fn works(&mut self, what: &str, bytes: &[u8]) -> bool {
        if !self.does(what) {
            return false;
        }
        match self.worked_on.take() {
            None => self.asked = true,
            Some(worked_on) => {
                self.asked = false;
                assert_eq!(worked_on.try_recv().as_deref(), Ok(bytes));
            }
        }
        self.asked
    }

    fn respond(status: u16, local: &mut Local) {
        local.clear();
        emit::status_line(&mut local.head, status, b"");
        local.body = "own".into();
    }

    fn own(&self) -> Made {
        let mut own = Box::<Local>::default();
        Self::respond(418, &mut own);
        Made::Own(own)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if !self.is_done || self.picks != self.ends {
            let (picks, ends) = (self.picks, self.ends);
            let _ = self.handler.fates.send(Fate::Astray { picks, ends });
        }
    }
}

impl Exchange for Watching {
    type Kept = u32;

    fn head(&mut self, ask: &Ask<'_>, local: &mut Local) -> AtHead {
        self.path = ask.request.head.path.of(ask.request.bytes).to_vec();
        if self.does("/local") {
            Self::respond(200, local);
            return AtHead::Respond;
        }
        AtHead::Body(Some(1 << 20))
    }

    fn decoding(&mut self) -> Option<Decoding> {
        self.does("/decode").then(|| Decoding {
            decoder: Box::new(Slow {
                may_go_on: Arc::clone(&self.handler.may_go_on),
                is_complete: false,
            }),
            bytes_max: 100,
        })
    }

    fn route(&mut self, ask: &Ask<'_>, local: &mut Local) -> Routed {
        if self.does("/decode") {
            Self::respond(200, local);
            local.body = bytes::Bytes::copy_from_slice(ask.body);
            return Routed::Respond;
        }
        if self.does("/wait-route") {
            return Routed::Wait(ask.cx.now + PATIENCE);
        }
        if self.works("/work-route", ask.body) || self.works("/work-hangs-route", ask.body) {
            return Routed::Work;
        }
        Routed::Upstream
    }

    fn pick(&mut self, ask: &Ask<'_>, failed: Option<Fault>, local: &mut Local) -> Pick {
        if self.does("/wait-pick") {
            return Pick::Wait(ask.cx.now + PATIENCE);
        }
        if self.works("/work-pick", ask.body) || self.works("/work-hangs-pick", ask.body) {
            return Pick::Work;
        }
        if let Some(fault) = failed {
            self.failed(ask, fault, local);
            return Pick::Respond;
        }
        self.picks += 1;
        Pick::Upstream(Target::default())
    }

    fn addresses(&self) -> Arc<[SocketAddr]> {
        if self.does("/nowhere") {
            return Arc::from([reserve()]);
        }
        Arc::from([self.handler.backend])
    }

    fn request_head(&mut self, _: &Ask<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"POST ");
        out.extend_from_slice(&self.path);
        out.extend_from_slice(b" HTTP/1.1\r\nHost: b\r\n");
    }

    fn response_head(&mut self, _: &Ask<'_>, _: &Response<'_>, out: &mut Vec<u8>) -> Passing {
        emit::status_line(out, 200, b"OK");
        match () {
            () if self.does("/again") && self.picks == 1 => Passing::Again,
            () if self.does("/collect") || self.does("/work-collect") => Passing::Collect(1 << 10),
            () if self.does("/work-hangs-collect") => Passing::Collect(1 << 10),
            () if self.does("/work-transform") || self.does("/work-hangs-transform") => {
                Passing::Transform(Duration::from_secs(5))
            }
            () if self.does("/kept") => Passing::KeepAlive(QUIET),
            () if self.does("/transform-idle") => Passing::Transform(QUIET),
            () if self.does("/transform") || self.does("/own") || self.does("/report") => {
                Passing::Transform(Duration::from_secs(5))
            }
            () => Passing::Tap,
        }
    }

    fn transform(
        &mut self,
        _: &Ask<'_>,
        payload: &[u8],
        end: Option<End>,
        out: &mut Vec<u8>,
    ) -> Made {
        let is_new = !payload.is_empty();
        if is_new && self.works("/work-transform", payload)
            || self.works("/work-hangs-transform", payload)
        {
            return Made::Work;
        }
        if self.does("/own-late") && end.is_none() {
            out.extend_from_slice(payload);
            return Made::More;
        }
        if self.does("/own") {
            return self.own();
        }
        out.extend_from_slice(payload);
        match end {
            None => Made::More,
            Some(End::Whole) => Made::Complete,
            Some(End::Broken(_)) if self.does("/report") => Made::Complete,
            Some(End::Broken(_)) => Made::Broken,
        }
    }

    fn silent(&mut self, _: &Ask<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"still");
    }

    fn idle(&mut self, _: &Ask<'_>, out: &mut Vec<u8>) -> Made {
        out.extend_from_slice(b"still");
        Made::More
    }

    fn collected(&mut self, _: &Ask<'_>, response: &[u8], local: &mut Local) -> AtEnd {
        if self.works("/work-collect", response) || self.works("/work-hangs-collect", response) {
            return AtEnd::Work;
        }
        Self::respond(200, local);
        local.body = bytes::Bytes::copy_from_slice(response);
        if self.does("/collect-again") && self.picks == 1 {
            return AtEnd::Again;
        }
        AtEnd::Respond
    }

    fn work(&mut self) -> Work {
        let (sender, worked_on) = channel();
        self.worked_on = Some(worked_on);
        let gate = self.does("/work-hangs").then(|| self.handler.gate.clone());
        Box::new(move |bytes| {
            if let Some(gate) = gate {
                let _ = gate.recv();
            }
            let _ = sender.send(bytes.to_vec());
        })
    }

    fn attempt_ended(&mut self, _: &Ask<'_>, _: AttemptEnd, _: u64) {
        self.ends += 1;
    }

    fn done(mut self, _: &Cx<'_>, _: Option<&Request<'_>>, done: &Done) -> u32 {
        self.is_done = true;
        if self.picks == self.ends {
            let fate = Fate::Done(done.outcome, self.number);
            let _ = self.handler.fates.send(fate);
        }
        self.number
    }
}

/// An address that nothing listens on, and that the system gives to nothing else.
fn reserve() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// A backend that does what the last segment of the path says, one connection at a time each.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    while let Some(head) = read_head(&mut stream) {
        let head = String::from_utf8(head).unwrap();
        stream.read_exact(&mut [0; 2]).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let (sent, goes_on): (&[u8], bool) = match path.rsplit('/').next().unwrap() {
            "whole" => (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", true),
            "chunks" => (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
                true,
            ),
            "cut" => (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", false),
            "pauses" => {
                let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
                pause(&mut stream, first);
                (b"0\r\n\r\n", true)
            }
            "pauses-inside" => {
                let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbo";
                pause(&mut stream, first);
                (b"dy\r\n0\r\n\r\n", true)
            }
            "pauses-first" => {
                let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                pause(&mut stream, first);
                (b"4\r\nbody\r\n0\r\n\r\n", true)
            }
            "closes" => (b"", false),
            "malformed" => (b"nonsense\r\n\r\n", false),
            "hangs-early" => (b"", true),
            "hangs-late" => (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbody", true),
            other => panic!("{other}"),
        };
        stream.write_all(sent).unwrap();
        if !goes_on {
            return;
        }
    }
}

/// Sends a part of a response, and is silent for several times [`QUIET`].
fn pause(stream: &mut TcpStream, part: &[u8]) {
    stream.write_all(part).unwrap();
    stream.set_read_timeout(Some(5 * QUIET)).unwrap();
    assert!(stream.read(&mut [0]).is_err(), "the request was complete");
    stream.set_read_timeout(None).unwrap();
}

/// The bytes up to an empty line; `None` at the end of the connection.
fn read_head(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(head)
}

struct Bench {
    _engine: Engine,
    _gate: crossbeam_channel::Sender<()>,
    may_go_on: Arc<Barrier>,
    address: SocketAddr,
    fates: Receiver<Fate>,
}

impl Bench {
    fn start(driver: Wanted) -> Self {
        let (address, backend) = (reserve(), backend());
        let (sender, fates) = channel();
        let (open, gate) = crossbeam_channel::bounded(0);
        let options = Options {
            addresses: vec![address],
            driver,
            ..Options::default()
        };
        let may_go_on = Arc::new(Barrier::new(2));
        let barrier = Arc::clone(&may_go_on);
        let engine = Engine::start(&options, move |_| Watched {
            backend,
            may_go_on: Arc::clone(&barrier),
            fates: sender.clone(),
            gate: gate.clone(),
        });
        Self {
            _gate: open,
            _engine: engine.unwrap(),
            may_go_on,
            address,
            fates,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn fate(&self) -> Fate {
        self.fates.recv_timeout(PATIENCE).unwrap()
    }
}

fn request(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
}

fn last_request(path: &str) -> String {
    request(path).replacen("Host: a", "Host: a\r\nConnection: close", 1)
}

#[test]
fn each_exchange_ends_once_however_its_request_ends() {
    let cut = Outcome::Broken(Fault::Closed);
    // Path, outcome, the beginning of what the client gets and its end.
    let table = [
        ("/local/whole", Outcome::Local, "HTTP/1.1 200", "own"),
        ("/pass/whole", Outcome::Relayed, "HTTP/1.1 200", "body"),
        (
            "/pass/chunks",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "0\r\n\r\n",
        ),
        ("/pass/cut", cut, "HTTP/1.1 200", "body"),
        ("/pass/closes", Outcome::Local, "HTTP/1.1 502", "\r\n\r\n"),
        (
            "/pass/malformed",
            Outcome::Local,
            "HTTP/1.1 502",
            "\r\n\r\n",
        ),
        ("/nowhere/whole", Outcome::Local, "HTTP/1.1 502", "\r\n\r\n"),
        (
            "/transform/whole",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "0\r\n\r\n",
        ),
        ("/transform/cut", cut, "HTTP/1.1 200", "body\r\n"),
        ("/report/cut", cut, "HTTP/1.1 200", "body\r\n0\r\n\r\n"),
        ("/own/whole", Outcome::Relayed, "HTTP/1.1 418", "own"),
        ("/own/chunks", Outcome::Relayed, "HTTP/1.1 418", "own"),
        ("/own/cut", Outcome::Relayed, "HTTP/1.1 418", "own"),
        ("/own-late/cut", cut, "HTTP/1.1 200", "body\r\n"),
        ("/collect/whole", Outcome::Relayed, "HTTP/1.1 200", "body"),
        ("/collect/cut", Outcome::Local, "HTTP/1.1 502", "\r\n\r\n"),
        (
            "/collect-again/whole",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "body",
        ),
        ("/again/whole", Outcome::Relayed, "HTTP/1.1 200", "body"),
        (
            "/work-route/whole",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "body",
        ),
        ("/work-pick/whole", Outcome::Relayed, "HTTP/1.1 200", "body"),
        (
            "/work-collect/whole",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "body",
        ),
        (
            "/work-transform/whole",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "0\r\n\r\n",
        ),
        (
            "/work-transform/pauses",
            Outcome::Relayed,
            "HTTP/1.1 200",
            "0\r\n\r\n",
        ),
        ("/work-transform/cut", cut, "HTTP/1.1 200", "body\r\n"),
    ];
    for driver in [Wanted::Auto, Wanted::Epoll] {
        let bench = Bench::start(driver);
        for (path, outcome, begins, ends) in table {
            let mut client = bench.connect();
            client.write_all(last_request(path).as_bytes()).unwrap();
            assert_eq!(bench.fate(), Fate::Done(outcome, 1), "{path}");
            let mut got = Vec::new();
            let _ = client.read_to_end(&mut got);
            let got = String::from_utf8(got).unwrap();
            assert!(got.starts_with(begins), "{path}: {got}");
            assert!(got.ends_with(ends), "{path}: {got}");
        }
    }
}

#[test]
fn each_exchange_ends_once_whenever_its_client_leaves() {
    let leaving = [
        "/wait-route/whole",
        "/wait-pick/whole",
        "/pass/hangs-early",
        "/pass/hangs-late",
        "/transform/hangs-early",
        "/transform/hangs-late",
        "/collect/hangs-early",
        "/collect/hangs-late",
        // The first ones keep the threads, the others wait for them.
        "/work-hangs-route/whole",
        "/work-hangs-pick/whole",
        "/work-hangs-collect/whole",
        "/work-hangs-transform/whole",
    ];
    for driver in [Wanted::Auto, Wanted::Epoll] {
        let bench = Bench::start(driver);
        for path in leaving {
            for resets in [false, true] {
                let mut client = bench.connect();
                client.write_all(request(path).as_bytes()).unwrap();
                if path.ends_with("late") && !path.starts_with("/collect") {
                    assert!(read_head(&mut client).is_some(), "{path}");
                }
                leave(client, resets);
                assert_eq!(bench.fate(), Fate::Done(Outcome::ClientLeft, 1), "{path}");
            }
        }
        // In the middle of a body the client may still read why it was refused.
        for resets in [false, true] {
            let mut client = bench.connect();
            let whole = request("/pass/whole");
            let (part, _) = whole.split_at(whole.len() - 1);
            client.write_all(part.as_bytes()).unwrap();
            leave(client, resets);
            assert!(matches!(bench.fate(), Fate::Done(..)));
        }
        // In the middle of a head there is no exchange yet.
        let mut client = bench.connect();
        client.write_all(b"POST /pass").unwrap();
        leave(client, false);
        let mut client = bench.connect();
        client.write_all(b"no head at all\r\n\r\n").unwrap();
        assert_eq!(bench.fate(), Fate::Done(Outcome::Local, 1));
        assert_eq!(bench.fates.try_recv().ok(), None);
    }
}

#[test]
fn a_core_serves_others_while_a_decoder_takes_long() {
    for driver in [Wanted::Auto, Wanted::Epoll] {
        let bench = Bench::start(driver);
        let mut slow = [bench.connect(), bench.connect()];
        for client in &mut slow {
            client
                .write_all(last_request("/decode").as_bytes())
                .unwrap();
        }
        for _ in &slow {
            bench.may_go_on.wait();
            let mut other = bench.connect();
            other.write_all(last_request("/local").as_bytes()).unwrap();
            assert_eq!(bench.fate(), Fate::Done(Outcome::Local, 1));
            let mut got = Vec::new();
            other.read_to_end(&mut got).unwrap();
            assert!(got.ends_with(b"own"));
            assert_eq!(bench.fates.try_recv().ok(), None);
            bench.may_go_on.wait();
            assert_eq!(bench.fate(), Fate::Done(Outcome::Local, 1));
        }
        for mut client in slow {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            assert!(got.ends_with(b"OK"), "{}", got.escape_ascii());
        }
    }
}

fn leave(client: TcpStream, resets: bool) {
    if resets {
        let client = Socket::from(client);
        client.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

#[test]
fn the_exchanges_of_a_connection_leave_each_other_what_they_keep() {
    let bench = Bench::start(Wanted::Auto);
    let mut client = bench.connect();
    let paths = [
        "/pass/whole",
        "/local/whole",
        "/collect/whole",
        "/own/whole",
        "/pass/chunks",
    ];
    for (number, path) in (1..).zip(paths) {
        client.write_all(request(path).as_bytes()).unwrap();
        let outcome = if path.starts_with("/local") {
            Outcome::Local
        } else {
            Outcome::Relayed
        };
        assert_eq!(bench.fate(), Fate::Done(outcome, number), "{path}");
        assert!(read_head(&mut client).is_some());
    }
}

/// A silent response is filled where its framing has room, and only there.
#[test]
fn a_silent_response_is_kept_alive() {
    const STILL: &str = "5\r\nstill\r\n";
    const BODY: &str = "4\r\nbody\r\n";
    for driver in [Wanted::Auto, Wanted::Epoll] {
        let bench = Bench::start(driver);
        for (path, before, after) in [
            ("/kept/pauses", "", STILL),
            ("/kept/pauses-first", STILL, ""),
            ("/kept/pauses-inside", "", ""),
            ("/transform-idle/pauses", "", STILL),
            ("/transform-idle/pauses-first", STILL, ""),
        ] {
            let mut client = bench.connect();
            client.write_all(last_request(path).as_bytes()).unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).unwrap();
            assert_eq!(bench.fate(), Fate::Done(Outcome::Relayed, 1), "{path}");
            let (_, body) = response.split_once("\r\n\r\n").unwrap();
            let body = body.strip_suffix("0\r\n\r\n").unwrap();
            let (first, rest) = body.split_once(BODY).unwrap();
            for (got, filling) in [(first, before), (rest, after)] {
                assert_eq!(got.replace(STILL, ""), "", "{path}: {response}");
                assert_eq!(got.is_empty(), filling.is_empty(), "{path}: {response}");
            }
        }
    }
}
