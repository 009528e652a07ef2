//! What the tests of the whole program share: the real binary on a free port, backends that follow
//! a script, clients on raw sockets. Nothing here judges; the scenarios do.
//!
//! Every scenario runs on both drivers, side by side: see [`on_both_drivers`]. What the kernel
//! refuses is skipped and said.

mod backend;
mod client;
mod full;
mod process;

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use backend::{Backend, Link, Received};
pub(crate) use client::{Answer, Client, exchange, get, post};
pub(crate) use full::FullListener;
pub(crate) use process::{Config, Gateway, endpoint, run_to_end};

/// What moves the bytes in the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Driver {
    IoUring,
    Epoll,
}

impl Driver {
    /// As in `server.io_driver`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// Longest wait for anything that should come at once. Generous, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a scenario on both drivers at the same time. A thread has the driver's name, which is in
/// the message of its panic.
pub(crate) fn on_both_drivers(scenario: impl Fn(Driver) + Sync) {
    on_drivers(&[Driver::Epoll, Driver::IoUring], scenario);
}

/// Runs a scenario on these drivers.
pub(crate) fn on_drivers(drivers: &[Driver], scenario: impl Fn(Driver) + Sync) {
    let outcomes = thread::scope(|scope| {
        let mut running = Vec::new();
        for &driver in drivers {
            if driver == Driver::IoUring
                && let Some(reason) = io_uring_refused()
            {
                println!("skipped on io_uring: {reason}");
                continue;
            }
            let scenario = &scenario;
            let named = thread::Builder::new().name(driver.name().to_owned());
            running.push(named.spawn_scoped(scope, move || scenario(driver)).unwrap());
        }
        // The scope itself would hide which of them failed.
        running
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect::<Vec<_>>()
    });
    for outcome in outcomes {
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Why this machine has no io_uring for the gateway, if it has none.
pub(crate) fn io_uring_refused() -> Option<&'static str> {
    static REFUSED: OnceLock<Option<String>> = OnceLock::new();
    REFUSED
        .get_or_init(|| {
            let config = Config::new(Driver::IoUring).more("discovery.static.endpoints = []");
            match Gateway::try_start(&config) {
                Ok(_) => None,
                Err(log) => Some(log.lines().last().unwrap_or_default().to_owned()),
            }
        })
        .as_deref()
}

/// Looks until `look` finds something. Panics when it has not after `within`.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {within:?} in vain: {what}");
        thread::park_timeout(Duration::from_millis(3));
    }
}

/// Looks until something holds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || holds().then_some(()));
}
