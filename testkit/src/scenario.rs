//! Scenarios that run on each I/O driver of the gateway.

use std::sync::OnceLock;
use std::thread;

use crate::driver::Driver;
use crate::gateway::{Config, Gateway};

/// Runs a scenario on both drivers at the same time. The threads are named after the drivers, so a
/// panic message names the driver.
pub fn on_both_drivers(scenario: impl Fn(Driver) + Sync) {
    on_drivers(&[Driver::Epoll, Driver::IoUring], scenario);
}

/// Runs a scenario on these drivers. A driver that the kernel refuses is skipped with a message.
///
/// # Panics
/// When the scenario panics on a driver.
pub fn on_drivers(drivers: &[Driver], scenario: impl Fn(Driver) + Sync) {
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
        // The scope itself would replace the message of a panic.
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

/// Why the gateway cannot use io_uring on this machine; `None` when it can.
pub fn io_uring_refused() -> Option<&'static str> {
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
