//! Backends whose requests run until they are told to end: what holds a slot, and for how long.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use testkit::{
    Backend, Client, Config, Driver, Gateway, Link, PATIENCE, Received, get, wait_until,
};

pub(crate) const CHAT: &str = "/olla/proxy/v1/chat/completions";
pub(crate) const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
pub(crate) const STREAM: &str =
    r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
/// What a backend streams.
pub(crate) const EVENTS: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n";

/// Requests are in the order in which they were sent.
pub(crate) const ONE_CORE: &str = "server.workers = 1\n";

/// The paths whose requests hold a slot here; everything else has its response at once.
const HOLDING: [&str; 3] = ["/chat/completions", "/messages", "/api/chat"];

/// How soon a backend notices that its client has left, or that it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A backend that counts the requests which run at a time.
pub(crate) struct Slots {
    pub(crate) backend: Backend,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    running: usize,
    peak: usize,
    ended: usize,
    left: usize,
    /// So many may end.
    permits: usize,
}

impl Slots {
    /// Responds with a small object.
    pub(crate) fn new(models: &[&str]) -> Self {
        Self::responding(models, |_, link| link.ok())
    }

    /// Responds with a stream of events.
    pub(crate) fn streaming(models: &[&str]) -> Self {
        Self::responding(models, |_, link| {
            link.respond(200, "text/event-stream", EVENTS);
        })
    }

    /// Begins a stream at once, and ends it once it may end.
    pub(crate) fn beginning(models: &[&str]) -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let own = Arc::clone(&counts);
        let backend = Backend::new(models, move |_, link| {
            let event = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
            link.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n",
                event.len()
            ));
            if run(&own, link) {
                link.send("0\r\n\r\n");
            }
        });
        Self { backend, counts }
    }

    /// Responds like this once a request may end.
    pub(crate) fn responding(
        models: &[&str],
        respond: impl Fn(&Received, &mut Link) + Send + Sync + 'static,
    ) -> Self {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let own = Arc::clone(&counts);
        let backend = Backend::new(models, move |request, link| {
            let holds = HOLDING.iter().any(|path| request.path().ends_with(path));
            if !holds {
                link.ok();
            } else if run(&own, link) {
                respond(request, link);
            }
        });
        Self { backend, counts }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap()
    }

    /// Requests that run now.
    pub(crate) fn running(&self) -> usize {
        self.counts().running
    }

    /// The most that have run at a time.
    pub(crate) fn peak(&self) -> usize {
        self.counts().peak
    }

    /// Lets so many more requests end.
    pub(crate) fn release(&self, count: usize) {
        self.counts().permits += count;
    }

    /// Takes back what was released and not used.
    pub(crate) fn forget(&self) {
        self.counts().permits = 0;
    }

    /// Lets one request end, and waits until it has.
    #[track_caller]
    pub(crate) fn end_one(&self) {
        let ended = self.counts().ended;
        self.release(1);
        wait_until("the end of a request", || self.counts().ended > ended);
    }

    #[track_caller]
    pub(crate) fn wait_running(&self, count: usize) {
        wait_until("requests that run", || self.running() == count);
    }

    /// Waits until so many requests have been left by their clients.
    #[track_caller]
    pub(crate) fn wait_left(&self, count: usize) {
        wait_until("a client that leaves", || self.counts().left == count);
    }

    /// The values of `X-N` of its requests, in their order.
    pub(crate) fn order(&self) -> Vec<String> {
        let seen = self.backend.seen();
        let named = seen.iter().filter_map(|request| request.header("X-N"));
        named.map(str::to_owned).collect()
    }
}

/// Runs a request until it may end; false if its client leaves before.
fn run(counts: &Mutex<Counts>, link: &mut Link) -> bool {
    {
        let mut counts = counts.lock().unwrap();
        counts.running += 1;
        counts.peak = counts.peak.max(counts.running);
    }
    let until = std::time::Instant::now() + PATIENCE * 3;
    loop {
        let has_left = link.left_within(LOOK_EVERY).is_some();
        let mut counts = counts.lock().unwrap();
        if has_left {
            counts.running -= 1;
            counts.left += 1;
            return false;
        }
        if counts.permits > 0 || std::time::Instant::now() > until {
            counts.permits = counts.permits.saturating_sub(1);
            // Before its response, after which the gateway may send the next one.
            counts.running -= 1;
            counts.ended += 1;
            return true;
        }
    }
}

pub(crate) fn start(driver: Driver, endpoints: &[String], more: &str) -> Gateway {
    Gateway::start(&Config::new(driver).more(&endpoints.concat()).more(more))
}

/// Sends a request on a connection of its own, with these header lines.
#[track_caller]
pub(crate) fn send(gateway: &Gateway, path: &str, fields: &[&str], body: &str) -> Client {
    let mut client = Client::to(gateway);
    let mut head = format!("POST {path}\r\nContent-Type: application/json");
    for field in fields {
        head.push_str("\r\n");
        head.push_str(field);
    }
    client.request(&head, body.as_bytes());
    client
}

/// Sends a chat request with a number. With one core ([`ONE_CORE`]), the gateway has read it and put
/// it where it belongs when this returns.
#[track_caller]
pub(crate) fn send_in_turn(gateway: &Gateway, number: &str, fields: &[&str]) -> Client {
    let named = format!("X-N: {number}");
    let fields: Vec<&str> = fields.iter().copied().chain([&*named]).collect();
    let client = send(gateway, CHAT, &fields, BODY);
    in_turn(gateway);
    client
}

/// Waits until a gateway with one core has read all that was sent.
#[track_caller]
pub(crate) fn in_turn(gateway: &Gateway) {
    for _ in 0..2 {
        assert_eq!(get(gateway, "/internal/health", &[]).status, 200);
    }
}
