//! A scriptable backend: a thread for each connection, on a reserved port.

mod link;
mod script;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::api::{self, Model};
use crate::http::{Received, Wire};
use crate::ports;
use crate::wait::{PATIENCE, wait_for};
pub use link::Link;
use script::Scripted;
pub use script::{Rule, Script, Step};

/// Open connections of one backend; further ones are closed at once.
const CONNECTIONS_MAX: usize = 2048;

/// Recorded requests; the oldest are dropped.
const RECORDED_MAX: usize = 1 << 16;

type Handler = dyn Fn(&Received, &mut Link) + Send + Sync;
type Wrap = dyn Fn(TcpStream) -> io::Result<Wire> + Send + Sync;

/// Values in place of a status of health checks: no response, and llama.cpp's while it loads.
const SILENT: u16 = 0;
const LOADING: u16 = 1;
const LOADING_BODY: &str =
    r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;

/// A running backend. It responds to health checks and model listings by itself and does not record
/// them; every other request is recorded and goes to its script. It stops when it is dropped.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    handler: Behavior,
    wrap: Box<Wrap>,
    models: Mutex<Vec<Model>>,
    health: AtomicU16,
    checks: AtomicUsize,
    listings: AtomicUsize,
    /// How often the gateway has read each path, and its last request.
    readings: Mutex<HashMap<String, (usize, Received)>>,
    /// The responses to it.
    documents: Mutex<HashMap<String, (u16, String)>>,
    requests: AtomicUsize,
    recorded: AtomicUsize,
    seen: Mutex<VecDeque<Received>>,
    open: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
    stopping: AtomicBool,
}

/// What responds to the requests.
enum Behavior {
    Handler(Box<Handler>),
    Script(Scripted),
}

impl Backend {
    /// Starts a backend that lists these models and responds as `handler` does.
    ///
    /// # Panics
    /// When the system has no port left.
    pub fn new(
        models: &[&str],
        handler: impl Fn(&Received, &mut Link) + Send + Sync + 'static,
    ) -> Self {
        let handler = Behavior::Handler(Box::new(handler));
        Self::start(named(models), 200, handler, Box::new(Wire::plain))
    }

    /// Starts a backend that lists these models and responds to everything with status 200.
    ///
    /// # Panics
    /// When the system has no port left.
    pub fn ok(models: &[&str]) -> Self {
        Self::new(models, |_, link| link.ok())
    }

    /// Starts a backend that follows a script.
    ///
    /// # Panics
    /// When the system has no port left.
    pub fn scripted(script: Script) -> Self {
        let (models, health) = (script.models.clone(), script.health);
        let behavior = Behavior::Script(Scripted::new(script));
        Self::start(models, health, behavior, Box::new(Wire::plain))
    }

    #[cfg(feature = "tls")]
    pub(crate) fn wrapped(
        models: &[&str],
        wrap: Box<Wrap>,
        handler: impl Fn(&Received, &mut Link) + Send + Sync + 'static,
    ) -> Self {
        let handler = Behavior::Handler(Box::new(handler));
        Self::start(named(models), 200, handler, wrap)
    }

    fn start(models: Vec<Model>, health: u16, handler: Behavior, wrap: Box<Wrap>) -> Self {
        let backend = Self {
            address: ports::reserve(),
            shared: Arc::new(Shared {
                handler,
                wrap,
                models: Mutex::new(models),
                health: AtomicU16::new(health),
                checks: AtomicUsize::new(0),
                listings: AtomicUsize::new(0),
                readings: Mutex::default(),
                documents: Mutex::default(),
                requests: AtomicUsize::new(0),
                recorded: AtomicUsize::new(0),
                seen: Mutex::default(),
                open: Mutex::default(),
                accepted: AtomicU64::new(0),
                stopping: AtomicBool::new(false),
            }),
            accepting: Mutex::default(),
        };
        backend.listen();
        backend
    }

    fn listen(&self) {
        let listener = TcpListener::bind(self.address).unwrap();
        let shared = Arc::clone(&self.shared);
        let accept = move || {
            for stream in listener.incoming() {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream));
            }
        };
        *locked(&self.accepting) = Some(thread::spawn(accept));
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its base URL with another scheme and host.
    pub fn url_as(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Its `host:port`.
    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Responds to health checks with this status from now on.
    pub fn set_health(&self, status: u16) {
        self.shared.health.store(status, Ordering::SeqCst);
    }

    /// Does not respond to health checks from now on.
    pub fn set_silent(&self) {
        self.set_health(SILENT);
    }

    /// Responds to health checks as llama.cpp does while it loads its model.
    pub fn set_loading(&self) {
        self.set_health(LOADING);
    }

    /// Health checks so far.
    pub fn checks(&self) -> usize {
        self.shared.checks.load(Ordering::SeqCst)
    }

    /// Lists these models from now on.
    pub fn set_models(&self, models: &[&str]) {
        *locked(&self.shared.models) = named(models);
    }

    /// Follows another script from now on.
    ///
    /// # Panics
    /// When the backend was not started with a script.
    pub fn set_script(&self, script: Script) {
        let Behavior::Script(scripted) = &self.shared.handler else {
            panic!("the backend has a handler, not a script");
        };
        self.set_health(script.health);
        (*locked(&self.shared.models)).clone_from(&script.models);
        scripted.set(script);
    }

    /// Responds like this from now on when the gateway itself reads a path: `/api/ps`, `/props`,
    /// `/metrics`, `/running` or a listing.
    pub fn set_document(&self, path: &str, status: u16, body: &str) {
        let document = (status, body.to_owned());
        locked(&self.shared.documents).insert(path.to_owned(), document);
    }

    /// How often the gateway itself has read a path.
    pub fn readings(&self, path: &str) -> usize {
        let readings = locked(&self.shared.readings);
        readings.get(path).map_or(0, |(count, _)| *count)
    }

    /// The last request with which the gateway itself has read a path.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn last_reading(&self, path: &str) -> Received {
        locked(&self.shared.readings)[path].1.clone()
    }

    /// Model listings so far.
    pub fn listings(&self) -> usize {
        self.shared.listings.load(Ordering::SeqCst)
    }

    /// Requests so far, health checks and model listings included.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The recorded requests. At most 65,536 are kept.
    pub fn seen(&self) -> Vec<Received> {
        locked(&self.shared.seen).iter().cloned().collect()
    }

    /// Number of recorded requests.
    pub fn count(&self) -> usize {
        self.shared.recorded.load(Ordering::SeqCst)
    }

    /// The last recorded request.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn last(&self) -> Received {
        locked(&self.shared.seen).back().unwrap().clone()
    }

    /// Waits until `count` requests have been recorded.
    ///
    /// # Panics
    /// When that takes longer than [`PATIENCE`].
    #[track_caller]
    pub fn wait_count(&self, count: usize) {
        let what = format!("{count} requests at the backend");
        wait_for(&what, PATIENCE, || (self.count() >= count).then_some(()));
    }

    /// Ends every open connection and keeps listening.
    pub fn drop_connections(&self) {
        for (_, stream) in locked(&self.shared.open).drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops listening and ends every connection.
    ///
    /// # Panics
    /// When the thread that accepts connections has panicked, or connections are still accepted
    /// after [`PATIENCE`].
    #[track_caller]
    pub fn stop(&self) {
        self.end();
        // A process that another test is starting has the listening socket until it runs its program.
        wait_for("the end of a listener", PATIENCE, || {
            TcpStream::connect(self.address).is_err().then_some(())
        });
    }

    fn end(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts connections.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = locked(&self.accepting).take() {
            accepting.join().unwrap();
        }
        self.drop_connections();
    }

    /// Listens again, on the same port.
    ///
    /// # Panics
    /// When the backend was not stopped.
    pub fn restart(&self) {
        self.shared.stopping.store(false, Ordering::SeqCst);
        self.listen();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end();
    }
}

fn named(models: &[&str]) -> Vec<Model> {
    models.iter().map(|&name| Model::named(name)).collect()
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let connection = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let _ = stream.set_nodelay(true);
        let Ok(copy) = stream.try_clone() else {
            return;
        };
        {
            let mut open = locked(&self.open);
            if open.len() >= CONNECTIONS_MAX {
                return;
            }
            open.insert(connection, copy);
        }
        if self.stopping.load(Ordering::SeqCst) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // A client that rejects the certificate, leaves, or sends no HTTP ends its connection only.
        if let Ok(wire) = (self.wrap)(stream) {
            let mut link = Link::new(wire);
            while let Ok(Some(request)) = link.receive(connection) {
                self.respond(&request, &mut link);
                if link.is_over() {
                    break;
                }
            }
            // Before the socket itself is closed, because a reset must be the first close.
            locked(&self.open).remove(&connection);
        }
        locked(&self.open).remove(&connection);
    }

    fn respond(&self, request: &Received, link: &mut Link) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let rule = match &self.handler {
            Behavior::Script(script) => script.rule(request),
            Behavior::Handler(_) => None,
        };
        if rule.is_none() && self.respond_by_itself(request, link) {
            return;
        }
        self.record(request);
        match &self.handler {
            Behavior::Handler(handler) => handler(request, link),
            Behavior::Script(script) => script.respond(rule, request, link),
        }
    }

    /// Responds to health checks and model listings.
    fn respond_by_itself(&self, request: &Received, link: &mut Link) -> bool {
        let agents = request.all("User-Agent");
        if agents
            .first()
            .is_some_and(|agent| agent.starts_with("olla-HealthChecker"))
        {
            self.checks.fetch_add(1, Ordering::SeqCst);
            match self.health.load(Ordering::SeqCst) {
                SILENT => drop(link.left_within(PATIENCE)),
                LOADING => link.respond(503, "application/json", LOADING_BODY),
                status => link.respond(status, "text/plain", "health"),
            }
            return true;
        }
        if request.method != "GET" {
            return false;
        }
        let is_reading = agents
            .first()
            .is_some_and(|agent| agent.starts_with("olla-Discovery"));
        if is_reading && self.respond_to_reading(request, link) {
            return true;
        }
        let Some(listing) = api::listing(request.path(), &locked(&self.models)) else {
            return false;
        };
        self.listings.fetch_add(1, Ordering::SeqCst);
        link.respond(200, "application/json", listing.to_string());
        true
    }

    /// Responds to what the gateway itself reads, except for a listing. A handler may have `/api/ps`.
    fn respond_to_reading(&self, request: &Received, link: &mut Link) -> bool {
        let path = request.path();
        {
            let mut readings = locked(&self.readings);
            let count = readings.get(path).map_or(0, |(count, _)| *count);
            readings.insert(path.to_owned(), (count + 1, request.clone()));
        }
        let document = locked(&self.documents).get(path).cloned();
        match (document, path) {
            (Some((status, body)), _) => link.respond(status, "text/plain", body),
            (None, "/props" | "/metrics" | "/running") => link.respond(404, "text/plain", ""),
            (None, "/api/ps") => match &self.handler {
                Behavior::Handler(handler) => handler(request, link),
                Behavior::Script(_) => link.respond(404, "text/plain", ""),
            },
            _ => return false,
        }
        true
    }

    fn record(&self, request: &Received) {
        let mut seen = locked(&self.seen);
        if seen.len() == RECORDED_MAX {
            seen.pop_front();
        }
        seen.push_back(request.clone());
        self.recorded.fetch_add(1, Ordering::SeqCst);
    }
}

/// A panic of another thread is reported there.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
