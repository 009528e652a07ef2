//! What signals ask for.

use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The end.
    End(i32),
    /// The configuration anew.
    Reload,
}

/// The signals that have a meaning, and those that must not end the process: other servers act on
/// SIGUSR1 and SIGUSR2, and SIGPIPE says that a reader of the log has gone away.
pub(super) struct Listening(Signals);

impl Listening {
    /// Takes them over.
    ///
    /// # Errors
    /// The system's refusal.
    pub(super) fn start() -> std::io::Result<Self> {
        Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE]).map(Self)
    }

    /// What has been asked since the last call, without waiting.
    pub(super) fn pending(&mut self) -> Option<Asked> {
        self.0.pending().find_map(asked)
    }

    /// Waits for the next, at most until then.
    pub(super) fn wait(&mut self, until: Instant) -> Option<Asked> {
        loop {
            if let Some(asked) = self.pending() {
                return Some(asked);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            pause(left.min(Duration::from_millis(20)));
        }
    }
}

/// A signal ends the sleep of no other thread, so it is looked for now and then.
#[expect(
    clippy::disallowed_methods,
    reason = "the main thread has nothing else to do"
)]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// `None` = the signal is ignored.
fn asked(signal: i32) -> Option<Asked> {
    match signal {
        SIGHUP => Some(Asked::Reload),
        SIGINT | SIGTERM => Some(Asked::End(signal)),
        _ => None,
    }
}

/// The name of a signal that ends.
pub(super) fn name(signal: i32) -> &'static str {
    if signal == SIGINT {
        "SIGINT"
    } else {
        "SIGTERM"
    }
}
