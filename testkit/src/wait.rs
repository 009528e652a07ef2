//! Waiting for something that can be observed, never longer than a limit.

use std::thread;
use std::time::{Duration, Instant};

/// Time limit for anything that should happen at once. It is generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(3);

/// Polls `look` until it returns a value.
///
/// # Panics
/// When it has returned none `within` the time limit.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "timed out after {within:?}: {what}");
        thread::park_timeout(POLL_INTERVAL);
    }
}

/// Polls a condition until it holds.
///
/// # Panics
/// When it does not hold within [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, PATIENCE, || holds().then_some(()));
}
