//! The signals of the process.

use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::Signals;

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// End the process.
    End(i32),
    /// Reload the configuration.
    Reload,
}

/// Receives the signals that have a meaning, and those that must not end the process: other servers
/// reopen logs on SIGUSR1 and SIGUSR2, SIGPIPE means that the reader of the log has ended, and
/// SIGXFSZ comes with the error of a write that a limit on the size of files refuses.
pub(super) struct Listening(Signals);

impl Listening {
    /// Installs the handlers.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub(super) fn start() -> std::io::Result<Self> {
        Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGPIPE, SIGXFSZ]).map(Self)
    }

    /// A signal that has arrived, without waiting.
    pub(super) fn pending(&mut self) -> Option<SignalRequest> {
        self.0.pending().find_map(meaning)
    }

    /// Waits for a signal until this time.
    pub(super) fn wait(&mut self, until: Instant) -> Option<SignalRequest> {
        loop {
            if let Some(request) = self.pending() {
                return Some(request);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            pause(left.min(Duration::from_millis(20)));
        }
    }
}

/// The handler does not end this sleep, so signals are polled.
#[expect(
    clippy::disallowed_methods,
    reason = "the main thread has nothing else to do"
)]
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// The meaning of a signal; `None` = ignored.
fn meaning(signal: i32) -> Option<SignalRequest> {
    match signal {
        SIGHUP => Some(SignalRequest::Reload),
        SIGINT | SIGTERM => Some(SignalRequest::End(signal)),
        _ => None,
    }
}

/// The name of a signal that ends the process.
pub(super) fn name(signal: i32) -> &'static str {
    if signal == SIGINT {
        "SIGINT"
    } else {
        "SIGTERM"
    }
}
