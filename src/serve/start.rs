//! Start of the threads, the wait for signals, and the shutdown.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use olla_engine::core::{Engine, HeldBytes, Options, Ringer};
use olla_engine::rt::{self, Bell, Wanted, sys};
use olla_engine::snapshot::Broadcast;
use olla_engine::tls::{TlsIdentity, TlsListener};

use super::signals::{Listening, SignalRequest, name};
use super::{Read, configured, cpus, read, room};
use crate::access::KeySources;
use crate::catalogue::ModelRules;
use crate::cli::{CommandOutput, build_info};
use crate::config::{Env, Fingerprints, InForce, IoDriver, Plan, RestartOnly, StatePath};
use crate::control::{
    self, ControlThread, KeysThread, PagesSetup, PagesThread, ProcessInfo, StoreThread,
};
use crate::format;
use crate::gateway::{Gateway, ViaEntry};
use crate::log::{Level, Logger, Value, events};
use crate::operations::{Build, Links};
use crate::providers::Profiles;
use crate::shared::{
    Common, ControlSender, CoreSenders, Limiters, PageEvent, PagesSender, Snapshot, StateSender,
    ToControl, ToCore,
};
use crate::state::Store;

/// The inputs of a start.
pub(super) struct Setup {
    pub(super) plan: Arc<Plan>,
    pub(super) profiles: Profiles,
    pub(super) rules: Arc<ModelRules>,
    pub(super) fingerprints: Fingerprints,
    pub(super) restart_only: RestartOnly,
    /// The configuration file, for reloads.
    pub(super) config: Option<PathBuf>,
    /// Whether `--profile` is set.
    pub(super) profile: bool,
    pub(super) env: Env,
}

/// A running gateway.
struct Running {
    engine: Engine,
    control: ControlThread,
    keys: KeysThread,
    pages: PagesThread,
    store: StoreThread,
    link: ControlSender,
    page_sender: PagesSender,
    state_sender: StateSender,
    common: Arc<Common>,
    fingerprints: Fingerprints,
    restart_only: RestartOnly,
    plan: Arc<Plan>,
    cores: usize,
    tls: TlsListener,
}

/// Interval at which the threads are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Time limit for writing the inspector's files at shutdown.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for writing usage and quotas at shutdown.
const STATE_TIMEOUT: Duration = Duration::from_secs(5);

/// A lower limit of open files causes a warning.
const OPEN_FILES_MIN: u64 = 4096;

/// Runs until a signal and returns the exit code. `ready` is called with the URL when the socket is
/// open.
pub(super) fn run(setup: Setup, logger: &Logger, ready: impl FnOnce(&str)) -> u8 {
    let started = Instant::now();
    let mut signals = match Listening::start() {
        Ok(signals) => signals,
        Err(error) => return failed(logger, "signals cannot be handled", &error.to_string()),
    };
    raise_open_files(logger);
    warn_of_dangers(&setup, logger);
    let (config, env) = (setup.config.clone(), setup.env.clone());
    let mut running = match start(setup, logger) {
        Ok(running) => running,
        Err(error) => return failed(logger, "the gateway cannot be started", &error),
    };
    ready(&running.plan.server.local_url());
    loop {
        match signals.wait(Instant::now() + CHECK_INTERVAL) {
            Some(SignalRequest::End(signal)) => {
                return end(&running, &mut signals, signal, started, logger);
            }
            Some(SignalRequest::Reload) => reload(&mut running, config.clone(), &env, logger),
            None if running.engine.is_broken()
                || running.control.is_broken()
                || running.pages.is_broken()
                || running.store.is_broken() =>
            {
                return failed(logger, "a thread has ended", "see the message above");
            }
            None => {}
        }
    }
}

fn failed(logger: &Logger, what: &str, error: &str) -> u8 {
    logger.emit(Level::Error, what, &[("error", error.into())]);
    CommandOutput::FAILED
}

/// Number of descriptors for which the kernel's table is sized at start (512 KB).
const OPEN_FILES_RESERVED: u32 = 65_536;

fn raise_open_files(logger: &Logger) {
    if let Ok((before, after)) = sys::raise_open_files() {
        let level = if after < OPEN_FILES_MIN {
            Level::Warn
        } else {
            Level::Info
        };
        let fields = [("soft_before", before.into()), ("soft", Value::Num(after))];
        logger.emit(level, "Open file limit", &fields);
    }
    // Without it, the table grows while connections arrive, which takes some milliseconds.
    let _ = sys::reserve_descriptors(OPEN_FILES_RESERVED);
}

/// Warns at every start about settings that are dangerous or without effect.
fn warn_of_dangers(setup: &Setup, logger: &Logger) {
    for endpoint in &setup.plan.discovery.endpoints {
        if endpoint.tls.insecure_skip_verify {
            let fields = [("endpoint", endpoint.name.as_str().into())];
            logger.emit(
                Level::Warn,
                "TLS certificates of this endpoint are not verified",
                &fields,
            );
        }
    }
    if setup.profile || setup.plan.process.enable_profiler {
        logger.emit(Level::Warn, "The profiler is not built in", &[]);
    }
}

/// The number of event loops.
fn workers(plan: &Plan) -> usize {
    plan.server.workers.map_or_else(
        || cpus::usable(sys::cpus().len()),
        std::num::NonZeroUsize::get,
    )
}

/// Starts the thread that follows the keys file.
fn start_keys(
    common: &Arc<Common>,
    link: &ControlSender,
    logger: &Logger,
) -> Result<KeysThread, String> {
    control::log_changed(logger, None, &common.access.sources());
    KeysThread::start(Arc::clone(common), link.clone(), logger.clone())
        .map_err(|error| error.to_string())
}

/// Lets the other threads ring the bells of the cores.
fn ring_with(engine: &Engine, ringer: &OnceLock<Ringer>, common: &Common) {
    // The cell is empty: this is the only place that sets it.
    let _ = ringer.set(engine.ringer());
    common.starts.ring_with(engine.ringer());
    engine.ringer().ring();
}

fn start(setup: Setup, logger: &Logger) -> Result<Running, String> {
    let plan = Arc::clone(&setup.plan);
    let now = Instant::now();
    let cores = workers(&plan);
    let addresses = addresses(&plan)?;
    let store = open_store(&plan)?;
    let common = Arc::new(Common::new(now, logger, &plan));
    load_keys(store.as_ref(), &common)?;
    let profiles = Arc::new(setup.profiles.filtered(&plan.proxy.profile_filter));
    let limiters = Arc::new(Limiters::new(&plan.server.rate_limits, cores));
    let first = control::first_snapshot(
        &plan,
        &profiles,
        &setup.rules,
        limiters,
        common.access.newest(),
    );
    let broadcast = Arc::new(Broadcast::new(Arc::new(first)));
    let ringer = Arc::new(OnceLock::new());
    let (bell, listening) = Bell::new().map_err(|error| error.to_string())?;
    let (link, messages) = ControlSender::new(bell);
    let (core_senders, receivers) = CoreSenders::new(cores, Arc::clone(&ringer));
    let (page_sender, pages) = start_pages(&broadcast, &core_senders, &common, cores)?;
    let (state_sender, store) = start_store(store, &broadcast, (&core_senders, &link), &common)?;
    let control = ControlThread::start(
        control::ControlSetup {
            plan: Arc::clone(&plan),
            profiles,
            rules: setup.rules,
            logger: logger.clone(),
            broadcast: Arc::clone(&broadcast),
            messages,
            cores: core_senders,
            pages: page_sender.clone(),
            common: Arc::clone(&common),
        },
        listening,
    )
    .map_err(|error| error.to_string())?;
    let keys = start_keys(&common, &link, logger)?;
    let options = options(&plan, addresses, cores, common.held_bytes.clone());
    options.tls.set(identity(&plan)?);
    let make = gateways(
        Arc::clone(&common),
        broadcast,
        (link.clone(), page_sender.clone(), state_sender.clone()),
        receivers,
    );
    let engine = start_engine(&options, make)?;
    ring_with(&engine, &ringer, &common);
    log_started(&engine, &options, &plan, logger);
    Ok(Running {
        engine,
        control,
        keys,
        pages,
        store,
        link,
        page_sender,
        state_sender,
        common,
        fingerprints: setup.fingerprints,
        restart_only: setup.restart_only,
        plan,
        cores,
        tls: options.tls,
    })
}

fn options(
    plan: &Plan,
    addresses: Vec<SocketAddr>,
    workers: usize,
    held_bytes: HeldBytes,
) -> Options {
    Options {
        addresses,
        workers,
        pin: plan.server.pin_workers,
        driver: match plan.server.io_driver {
            IoDriver::Auto => Wanted::Auto,
            IoDriver::IoUring => Wanted::IoUring,
            IoDriver::Epoll => Wanted::Epoll,
        },
        buffered_bytes_max: usize::try_from(room::buffered_bytes_max(plan)).unwrap_or(usize::MAX),
        held_bytes,
        tls: TlsListener::default(),
    }
}

fn start_engine(
    options: &Options,
    make: impl Fn(usize) -> Gateway + Clone + Send + 'static,
) -> Result<Engine, String> {
    let engine = Engine::start(options, make).map_err(|error| error.to_string())?;
    // Without it, clients could use up what health checks need.
    let _ = rt::reserve_descriptors(options.workers * options.addresses.len());
    Ok(engine)
}

/// The certificate of the listener, if it uses TLS.
fn identity(plan: &Plan) -> Result<Option<TlsIdentity>, String> {
    let Some(tls) = &plan.server.tls else {
        return Ok(None);
    };
    let identity = tls.identity(Path::new(""));
    identity
        .map(Some)
        .map_err(|fault| format!("server.tls.{}: {}", fault.key, fault.reason))
}

/// Starts the thread of the state store.
fn start_store(
    store: Option<(Store, StatePath)>,
    broadcast: &Arc<Broadcast<Snapshot>>,
    (cores, link): (&CoreSenders, &ControlSender),
    common: &Arc<Common>,
) -> Result<(StateSender, StoreThread), String> {
    let (sender, messages) = StateSender::new();
    let thread = StoreThread::start(control::StoreSetup {
        store,
        broadcast: Arc::clone(broadcast),
        messages,
        cores: cores.clone(),
        control: link.clone(),
        common: Arc::clone(common),
    });
    Ok((sender, thread.map_err(|error| error.to_string())?))
}

/// Puts the keys of the state store in force, if there is one.
fn load_keys(store: Option<&(Store, StatePath)>, common: &Common) -> Result<(), String> {
    store.map_or(Ok(()), |(store, path)| {
        control::load_keys(store, path, &common.access, &common.logger)
    })
}

/// Opens the state store, if there is to be one.
///
/// # Errors
/// A message with the key, the path and the reason.
fn open_store(plan: &Plan) -> Result<Option<(Store, StatePath)>, String> {
    let path = plan.state.path.clone();
    path.map(|path| Ok((control::open_store(&path)?, path)))
        .transpose()
}

/// A number that no other gateway has.
fn instance() -> u64 {
    let mut bytes = [0; 8];
    if getrandom::fill(&mut bytes).is_err() {
        // Without random bytes of the system, time and process tell gateways apart.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.subsec_nanos());
        return u64::from(nanos) << 32 | u64::from(std::process::id());
    }
    u64::from_ne_bytes(bytes)
}

/// A function that makes the handler of each core.
fn gateways(
    common: Arc<Common>,
    broadcast: Arc<Broadcast<Snapshot>>,
    (link, pages, state): (ControlSender, PagesSender, StateSender),
    receivers: Vec<crossbeam_channel::Receiver<ToCore>>,
) -> impl Fn(usize) -> Gateway + Clone + Send + 'static {
    let receivers = Arc::new(receivers);
    let via = Arc::new(ViaEntry::new(instance()));
    move |core| {
        let receiver = receivers
            .get(core)
            .cloned()
            .unwrap_or_else(crossbeam_channel::never);
        Gateway::new(
            core,
            Arc::clone(&via),
            Arc::clone(&common),
            broadcast.subscribe(),
            (link.clone(), pages.clone(), state.clone()),
            receiver,
        )
    }
}

fn log_started(engine: &Engine, options: &Options, plan: &Plan, logger: &Logger) {
    let driver = engine.driver().to_string();
    for address in &options.addresses {
        let address = address.to_string();
        let fields = [
            ("address", Value::Str(&address)),
            ("io_driver", Value::Str(&driver)),
            ("workers", Value::Num(options.workers as u64)),
        ];
        logger.emit(Level::Info, events::LISTENING, &fields);
    }
    let bind = plan.server.bind();
    logger.emit(
        Level::Info,
        events::STARTED,
        &[("bind", bind.as_str().into())],
    );
    if plan.dashboard.enabled {
        let url = format!("{}/internal/ui/", plan.server.local_url());
        logger.emit(
            Level::Info,
            events::DASHBOARD,
            &[("url", url.as_str().into())],
        );
    }
}

/// The addresses to listen on: those of the host that this machine supports.
#[expect(clippy::disallowed_methods, reason = "at start, before any core runs")]
fn addresses(plan: &Plan) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = (plan.server.host.as_str(), plan.server.port);
    // Each address family has its own socket, and `::` stands for both.
    let mut addresses: Vec<SocketAddr> = if host.is_empty() || host == "::" {
        vec![
            SocketAddr::from(([0, 0, 0, 0], port)),
            SocketAddr::from(([0_u16; 8], port)),
        ]
    } else {
        let resolved = (host, port).to_socket_addrs();
        resolved
            .map_err(|error| format!("server.host \"{host}\" cannot be resolved: {error}"))?
            .collect()
    };
    addresses.sort_unstable();
    addresses.dedup();
    // The name service of a machine without IPv6 may still return IPv6 addresses.
    let all = addresses.clone();
    addresses.retain(|address| is_supported(address.ip()));
    if addresses.is_empty() {
        Ok(all)
    } else {
        Ok(addresses)
    }
}

fn is_supported(ip: IpAddr) -> bool {
    ip.is_ipv4() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Starts the thread that renders pages.
fn start_pages(
    broadcast: &Arc<Broadcast<Snapshot>>,
    cores: &CoreSenders,
    common: &Arc<Common>,
    workers: usize,
) -> Result<(PagesSender, PagesThread), String> {
    let (sender, messages) = PagesSender::new();
    let thread = PagesThread::start(PagesSetup {
        broadcast: Arc::clone(broadcast),
        messages,
        cores: cores.clone(),
        process: ProcessInfo {
            build: build(),
            started: SystemTime::now(),
            workers,
        },
        common: Arc::clone(common),
    });
    let thread = thread.map_err(|error| error.to_string())?;
    Ok((sender, thread))
}

fn build() -> Build {
    Build {
        name: "olla".to_owned(),
        version: build_info::VERSION.to_owned(),
        edition: "rust".to_owned(),
        description: env!("CARGO_PKG_DESCRIPTION").to_owned(),
        commit: build_info::COMMIT.to_owned(),
        date: build_info::DATE.to_owned(),
        compiler: build_info::COMPILER.to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        links: Links::default(),
    }
}

/// Reloads the configuration: all of the new one takes effect, or nothing of it
/// (docs/contract/operations.md#9, SIGHUP).
fn reload(running: &mut Running, config: Option<PathBuf>, env: &Env, logger: &Logger) {
    // Only the file may have changed; the environment of a running process does not.
    let keys = running.common.access.sources().file;
    let in_force = InForce {
        restart_only: &running.restart_only,
        file_keys: &keys,
    };
    let read: Read = read(config.as_deref(), env, Some(in_force));
    // If they were held, an earlier version would not be freed.
    drop(keys);
    if let Err(reason) = apply(running, read, logger) {
        running.page_sender.event(PageEvent::Reloaded(false));
        let fields = [("reason", Value::Str(&reason))];
        logger.emit(Level::Error, events::RELOAD_FAILED, &fields);
    }
}

/// Applies a configuration. The running gateway is changed only after the last step that can fail.
///
/// # Errors
/// The reason for keeping the old configuration.
fn apply(running: &mut Running, read: Read, logger: &Logger) -> Result<(), String> {
    let plan = configured(&read, logger).ok_or("the configuration has errors")?;
    let identity = identity(&plan)?;
    let profiles = Arc::new(read.profiles.filtered(&plan.proxy.profile_filter));
    let rules = Arc::new(read.rules);
    // Keys are in force a moment before the rest; nothing refers from one to the other.
    let access = &running.common.access;
    let keys_before = access.sources();
    access.change(|sources| {
        *sources = sources.following(&plan.access);
    });
    let taken = running
        .link
        .send_confirmed(|confirmation| ToControl::Reload {
            plan: Arc::clone(&plan),
            profiles,
            rules,
            confirmation,
        });
    if !taken {
        access.change(|sources| {
            *sources = KeySources {
                stored: Arc::clone(&sources.stored),
                ..keys_before
            };
        });
        return Err("the control thread is busy; try again".to_owned());
    }
    control::log_changed(logger, Some(&keys_before), &access.sources());
    running.keys.reloaded();
    logger.configure(&plan.logging);
    running.tls.set(identity);
    let changed = read
        .loaded
        .fingerprints
        .changed_since(&running.fingerprints);
    let changed = changed.join(",");
    let fields = [("changed", Value::Str(&changed))];
    logger.emit(Level::Info, events::RELOADED, &fields);
    running.plan = plan;
    running.fingerprints = read.loaded.fingerprints;
    Ok(())
}

/// Shuts down after the requests in flight have finished or the timeout has passed
/// (docs/contract/balancing.md#12, docs/contract/operations.md#9).
fn end(
    running: &Running,
    signals: &mut Listening,
    signal: i32,
    started: Instant,
    logger: &Logger,
) -> u8 {
    logger.emit(
        Level::Info,
        events::SHUTDOWN_SIGNAL,
        &[("signal", name(signal).into())],
    );
    running.common.draining.store(true, Ordering::Relaxed);
    let in_flight = running.engine.requests();
    running.engine.drain();
    let until = Instant::now() + running.plan.server.shutdown_timeout;
    running.common.refuse_waiting_at(until);
    while running.engine.requests() > 0 && Instant::now() < until {
        if let Some(SignalRequest::End(signal)) =
            signals.wait(until.min(Instant::now() + Duration::from_millis(20)))
        {
            return u8::try_from(128 + signal).unwrap_or(u8::MAX);
        }
    }
    let cut = running.engine.requests();
    if cut > 0 {
        logger.emit(
            Level::Warn,
            events::REQUESTS_CUT,
            &[("cut", Value::Num(cut as u64))],
        );
    }
    running.common.records.flush(RECORDS_TIMEOUT);
    // The channel closes when everything is written, or the time is up.
    let _ = running.state_sender.end().recv_timeout(STATE_TIMEOUT);
    if running.plan.engineering.show_nerdstats {
        log_nerdstats(running, logger);
    }
    let uptime = format::uptime(started.elapsed());
    let drained = in_flight.saturating_sub(cut);
    let fields = [
        ("uptime", Value::Str(&uptime)),
        ("drained", Value::Num(drained as u64)),
        ("cut", Value::Num(cut as u64)),
    ];
    logger.emit(Level::Info, events::SHUT_DOWN, &fields);
    0
}

/// Logs statistics of memory and runtime (docs/contract/operations.md#9).
fn log_nerdstats(running: &Running, logger: &Logger) {
    let facts = control::process_facts();
    let memory = [
        ("resident_bytes", Value::Num(facts.resident_bytes)),
        ("resident_peak_bytes", Value::Num(facts.resident_peak_bytes)),
        ("virtual_bytes", Value::Num(facts.virtual_bytes)),
        ("anonymous_bytes", Value::Num(facts.anonymous_bytes)),
    ];
    logger.emit(Level::Info, events::NERDSTATS_MEMORY, &memory);
    let driver = running.engine.driver().to_string();
    let runtime = [
        ("cpu_seconds", Value::Float(facts.cpu_seconds)),
        ("threads", Value::Num(facts.threads)),
        ("open_fds", Value::Num(facts.open_fds)),
        ("workers", Value::Num(running.cores as u64)),
        ("io_driver", Value::Str(&driver)),
        ("compiler", Value::Str(build_info::COMPILER)),
    ];
    logger.emit(Level::Info, events::NERDSTATS_RUNTIME, &runtime);
}
