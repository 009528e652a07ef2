//! One core: its listeners, its connections, its idle backend connections. Only [`Shared`] is
//! shared with other threads.

mod accept;
mod attempt;
mod body;
mod connection;
mod context;
mod decode;
mod early;
mod fill;
mod lane;
mod pace;
mod relay;
mod rounds;
mod serve;
mod stall;
mod transform;
mod turn;
mod waiting;

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};

use rounds::Rounds;
use turn::Turn;

pub use crate::budget::HeldBytes;
use crate::budget::{Budget, Client};
use crate::h1::emit;
use crate::handler::{Handler, Work};
use crate::limits::{
    BIND_RETRIES, BIND_RETRY_AFTER, BUDGET_WAKES_PER_TICK_MAX, DEADLINE_BACKLOG_PAUSE,
    DEADLINES_PER_WAKE_MAX, HANDED_OVER_SOCKETS_MAX,
};
use crate::offload::{Input, Offload};
use crate::rt::{self, Accepted, Bell, Deadlines, Driver, Listener, Wanted, sys};
use crate::tls::TlsListener;
use crate::upstream::Pool;
use crate::waiting_buffers::WaitingBuffers;

/// How a set of cores is started.
#[derive(Debug)]
pub struct Options {
    /// Addresses to listen on; each core binds all of them.
    pub addresses: Vec<SocketAddr>,
    /// Number of cores.
    pub workers: usize,
    /// Whether each stays on its own CPU.
    pub pin: bool,
    /// Which driver.
    pub driver: Wanted,
    /// Bytes of request bodies that all cores together may hold.
    pub buffered_bytes_max: usize,
    /// Shows how many they hold.
    pub held_bytes: HeldBytes,
    /// The certificate of the listeners, if they speak TLS.
    pub tls: TlsListener,
}

impl Default for Options {
    /// One core on no address yet, with room for 1 GiB of request bodies.
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            workers: 1,
            pin: false,
            driver: Wanted::Auto,
            buffered_bytes_max: 1 << 30,
            held_bytes: HeldBytes::default(),
            tls: TlsListener::default(),
        }
    }
}

/// The part of a core that other threads may use.
#[derive(Debug)]
struct Shared {
    bell: Bell,
    /// Sockets for this core that another one accepted.
    handed_over: Sender<(Accepted, SocketAddr)>,
    connections: Padded,
    /// Requests in flight.
    requests: Padded,
}

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(AtomicUsize);

/// The running cores.
#[derive(Debug)]
pub struct Engine {
    cores: Arc<[Shared]>,
    draining: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    driver: Driver,
}

/// The state of one core, as its tasks see it.
pub(crate) struct Core<H: Handler> {
    pub(crate) handler: Rc<H>,
    pub(crate) pool: Pool,
    pub(crate) waiting_buffers: WaitingBuffers,
    pub(crate) deadlines: Deadlines,
    pub(crate) budget: Budget,
    tls: TlsListener,
    index: usize,
    cores: Arc<[Shared]>,
    draining: Arc<AtomicBool>,
    now: Cell<Instant>,
    unix_ms: Cell<u64>,
    date: Cell<[u8; 29]>,
    date_second: Cell<u64>,
    news: Rounds,
    room: Rounds,
    turn: Turn,
    incoming_bodies: body::IncomingBodies,
    offload: Offload,
    decodings: decode::Decodings,
}

impl Engine {
    /// Binds the addresses and starts the cores. `make` makes the handler of each, on its thread.
    ///
    /// # Errors
    /// An address that cannot be bound, or a driver that cannot be had.
    pub fn start<H, M>(options: &Options, make: M) -> io::Result<Self>
    where
        H: Handler,
        M: Fn(usize) -> H + Clone + Send + 'static,
    {
        let workers = options.workers.max(1);
        let listeners = bind_all(&options.addresses, workers)?;
        let budget = Budget::new(options.buffered_bytes_max, options.held_bytes.clone());
        let draining = Arc::new(AtomicBool::new(false));
        let (mut shared, mut inner) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let (bell, listening) = Bell::new()?;
            let (sender, receiver) = bounded(HANDED_OVER_SOCKETS_MAX);
            inner.push((listening, receiver));
            shared.push(Shared {
                bell,
                handed_over: sender,
                connections: Padded::default(),
                requests: Padded::default(),
            });
        }
        let cores: Arc<[Shared]> = shared.into();
        let (started, starts) = bounded(workers);
        let cpus = sys::cpus();
        let (offload, mut threads) = Offload::start(workers)?;
        for (index, ((listening, receiver), bound)) in inner.into_iter().zip(listeners).enumerate()
        {
            let start = Start {
                index,
                cpu: options
                    .pin
                    .then(|| cpus.get(index % cpus.len().max(1)).copied())
                    .flatten(),
                driver: options.driver,
                bound,
                listening,
                receiver,
                cores: Arc::clone(&cores),
                draining: Arc::clone(&draining),
                budget: budget.clone(),
                offload: offload.clone(),
                tls: options.tls.clone(),
                started: started.clone(),
            };
            let make = make.clone();
            let name = format!("core-{index}");
            threads.push(
                std::thread::Builder::new()
                    .name(name)
                    .spawn(move || start.run(make))?,
            );
        }
        drop(started);
        let mut driver = None;
        for _ in 0..workers {
            match starts.recv() {
                Ok(Ok(chosen)) => driver = Some(chosen),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::other("a core ended while it started")),
            }
        }
        let driver = driver.unwrap_or(Driver::Epoll { because: None });
        Ok(Self {
            cores,
            draining,
            threads,
            driver,
        })
    }

    /// The driver that the cores use.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Rings the bells of all cores.
    pub fn ringer(&self) -> Ringer {
        Ringer(Arc::clone(&self.cores))
    }

    /// The number of requests in flight.
    pub fn requests(&self) -> usize {
        self.cores
            .iter()
            .map(|core| core.requests.0.load(Ordering::Relaxed))
            .sum()
    }

    /// Stops accepting at once and closes idle connections; requests in flight go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.ringer().ring();
    }

    /// Whether a core has ended. A core only ends by a panic.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// What a connection's task takes, in bytes, without its buffers and what the handler has on the
/// heap. For tests that bound it: tens of thousands of connections have one each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSizes {
    /// While it waits for a request.
    pub connection: usize,
    /// What it takes in addition while it serves one that is relayed as it is.
    pub request: usize,
}

impl TaskSizes {
    /// The sizes with a handler.
    pub fn of<H: Handler>() -> Self {
        Self {
            connection: accept::task_bytes::<H>(),
            request: serve::request_bytes::<H>(),
        }
    }
}

/// Rings the bells of all cores, from any thread.
#[derive(Debug, Clone)]
pub struct Ringer(Arc<[Shared]>);

impl Ringer {
    /// There may be news for every core.
    pub fn ring(&self) {
        self.0.iter().for_each(|core| core.bell.ring());
    }

    /// There may be news for one core.
    pub fn ring_one(&self, core: usize) {
        if let Some(core) = self.0.get(core) {
            core.bell.ring();
        }
    }
}

/// One set of bound sockets for each core.
fn bind_all(addresses: &[SocketAddr], workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
    // Bound once without SO_REUSEPORT first: with it the kernel would let a second gateway of the
    // same user share the port and take half of the traffic, without an error.
    for address in addresses {
        let exclusive = retry_while_in_use(|| rt::bind(*address, false));
        drop(exclusive.map_err(|error| bind_error(*address, &error))?);
    }
    let bind = |address: &SocketAddr| {
        rt::bind(*address, true).map_err(|error| bind_error(*address, &error))
    };
    (0..workers)
        .map(|_| addresses.iter().map(bind).collect())
        .collect()
}

/// Binds to a port that may be in use for a moment longer: by the process that this one replaces,
/// or by an outgoing connection that the system gave it to.
#[expect(clippy::disallowed_methods, reason = "at start, before any core runs")]
fn retry_while_in_use<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..BIND_RETRIES {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                std::thread::sleep(BIND_RETRY_AFTER);
            }
            bound => return bound,
        }
    }
    bind()
}

fn bind_error(address: SocketAddr, error: &io::Error) -> io::Error {
    let reason = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; end the other process or choose another port".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "not allowed (ports below 1024 need a privilege)".to_owned()
        }
        _ => error.to_string(),
    };
    io::Error::new(
        error.kind(),
        format!("cannot listen on {address}: {reason}"),
    )
}

/// What a core's thread is started with.
struct Start {
    index: usize,
    cpu: Option<usize>,
    driver: Wanted,
    bound: Vec<TcpListener>,
    listening: rt::Listening,
    receiver: Receiver<(Accepted, SocketAddr)>,
    cores: Arc<[Shared]>,
    draining: Arc<AtomicBool>,
    budget: Budget,
    offload: Offload,
    tls: TlsListener,
    started: Sender<io::Result<Driver>>,
}

impl Start {
    fn run<H: Handler>(self, make: impl Fn(usize) -> H) {
        if let Some(cpu) = self.cpu {
            sys::pin_to(cpu);
        }
        let started = self.started.clone();
        let ended = rt::run(self.driver, |driver| {
            let handler = Rc::new(make(self.index));
            self.serve(handler, driver)
        });
        if let Err(error) = ended {
            // The receiver is gone once the start is over.
            let _ = started.send(Err(error));
        }
    }

    async fn serve<H: Handler>(self, handler: Rc<H>, driver: Driver) {
        let now = Instant::now();
        let waiting_buffers = WaitingBuffers::default();
        let core = Rc::new(Core {
            handler,
            pool: Pool::new(waiting_buffers.clone()),
            waiting_buffers,
            deadlines: Deadlines::new(now),
            budget: self.budget,
            tls: self.tls,
            index: self.index,
            cores: self.cores,
            draining: self.draining,
            now: Cell::new(now),
            unix_ms: Cell::new(0),
            date: Cell::new([b' '; 29]),
            date_second: Cell::new(u64::MAX),
            news: Rounds::default(),
            room: Rounds::default(),
            turn: Turn::default(),
            incoming_bodies: body::IncomingBodies::default(),
            offload: self.offload,
            decodings: decode::Decodings::default(),
        });
        core.read_clock();
        let mut stops = Vec::new();
        for bound in self.bound {
            match Listener::new(bound) {
                Ok((listener, stop)) => {
                    stops.push(stop);
                    rt::spawn(accept::accept(Rc::clone(&core), listener));
                }
                Err(error) => {
                    let _ = self.started.send(Err(error));
                    return;
                }
            }
        }
        let watched = Rc::clone(&core);
        rt::spawn(async move { watched.pool.watch().await });
        rt::spawn(tick(Rc::clone(&core)));
        let turning = Rc::clone(&core);
        rt::spawn(async move { turning.turn.run().await });
        let _ = self.started.send(Ok(driver));
        drop(self.started);
        let receiver = self.receiver;
        let mut stops = Some(stops);
        let on_ring = || {
            core.read_clock();
            if core.is_draining() {
                stops.take().into_iter().flatten().for_each(rt::Stop::stop);
                core.deadlines.expire_idle();
                core.pool.clear();
            }
            while let Ok((stream, peer)) = receiver.try_recv() {
                accept::adopt(&core, stream, peer);
            }
            core.handler.news(core.now());
            core.news.wake_all();
        };
        let _ = self.listening.listen(on_ring).await;
    }
}

/// Periodic work: deadlines, body budget, idle connections.
async fn tick<H: Handler>(core: Rc<Core<H>>) {
    let mut ticks = 0_u32;
    let mut next = core.now() + rt::TICK;
    loop {
        let more = core.deadlines.wake(core.now(), DEADLINES_PER_WAKE_MAX);
        rt::sleep(if more {
            DEADLINE_BACKLOG_PAUSE
        } else {
            rt::TICK
        })
        .await;
        core.read_clock();
        if core.now() < next {
            continue;
        }
        next = core.now() + rt::TICK;
        core.deadlines.check(core.now());
        core.handler.tick(core.now());
        if core.handler.has_lost_backends() {
            core.deadlines.hasten();
        }
        if core.handler.has_revoked() {
            core.deadlines.hasten_all();
        }
        // One timer for all: a thousand timers would keep a core busy.
        core.room.wake_first(BUDGET_WAKES_PER_TICK_MAX);
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(16) {
            core.pool.expire(core.now());
        }
    }
}

impl<H: Handler> Core<H> {
    /// The time, up to one tick old.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// The time, now.
    pub(crate) fn clock(&self) -> Instant {
        let now = Instant::now();
        self.now.set(now);
        now
    }

    /// The time at which a piece of a response came: exact for the first one, which tells how long
    /// the backend took.
    pub(crate) fn piece_clock(&self, is_first: &mut bool) -> Instant {
        if std::mem::take(is_first) {
            self.clock()
        } else {
            self.now()
        }
    }

    fn read_clock(&self) {
        self.clock();
        // A clock that is set to a time before 1970 counts as 1970.
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        self.unix_ms
            .set(u64::try_from(unix.as_millis()).unwrap_or(0));
        if self.date_second.replace(unix.as_secs()) != unix.as_secs() {
            self.date.set(emit::date(unix.as_secs()));
        }
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        self.unix_ms.get()
    }

    pub(crate) fn date(&self) -> [u8; 29] {
        self.date.get()
    }

    /// Whether connections end with the request they are at.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    fn shared(&self) -> Option<&Shared> {
        self.cores.get(self.index)
    }

    /// Counts a request from here until the guard is dropped.
    pub(crate) fn begin_request(&self) -> RequestGuard<'_> {
        let counter = self.shared().map(|shared| &shared.requests.0);
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        RequestGuard(counter)
    }

    /// Waits until the bell was rung once more.
    pub(crate) async fn wait_for_news(&self) {
        self.news.wait().await;
    }

    /// Has work for a client done on another thread, and returns its input.
    pub(crate) async fn work_on<I: Input + 'static>(
        &self,
        client: Client,
        work: Work,
        input: I,
    ) -> I {
        let ringer = Ringer(Arc::clone(&self.cores));
        let core = self.index;
        let ring = move || ringer.ring_one(core);
        let handed = self.offload.hand(client, work, input, ring);
        loop {
            if let Some(input) = handed.take() {
                return input;
            }
            self.wait_for_news().await;
        }
    }

    /// Whether more than one request is in flight.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared()
            .is_some_and(|shared| shared.requests.0.load(Ordering::Relaxed) > 1)
    }

    /// Waits until all other tasks that are ready have run; see [`Turn`].
    pub(crate) async fn end_of_turn(&self) {
        self.turn.end().await;
    }

    /// Waits until there may be room for a body in the budget.
    pub(crate) async fn wait_for_room(&self) {
        self.room.wait().await;
    }
}

/// See [`Core::begin_request`].
pub(crate) struct RequestGuard<'c>(Option<&'c AtomicUsize>);

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.0 {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binding_to_a_port_in_use_is_retried_a_few_times() {
        let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
        let mut results = vec![Ok(7), Err(in_use()), Err(in_use())];
        assert_eq!(retry_while_in_use(|| results.pop().unwrap()).unwrap(), 7);
        let mut attempts = 0;
        let never: io::Result<()> = retry_while_in_use(|| {
            attempts += 1;
            Err(in_use())
        });
        assert_eq!(never.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(attempts, BIND_RETRIES + 1);
        let other: io::Result<()> =
            retry_while_in_use(|| Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
