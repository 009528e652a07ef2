//! The channels between cores and the control thread; the pages thread replies by them too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use olla_engine::core::Ringer;
use olla_engine::rt::{Bell, Exhausted};

use super::pages::Rendering;
use super::reply::ReplyTo;
use crate::catalogue::{Lens, ModelRules};
use crate::config::Plan;
use crate::fleet::{Cause, ErrorKind};
use crate::providers::Profiles;

/// Messages in the queue to the control thread. A core drops a message that finds it full: the
/// cause remains, so another request will send the same.
const CONTROL_QUEUE_MAX: usize = 4096;

/// Messages in the queue to one core; the same number of requests may wait for one.
const CORE_QUEUE_MAX: usize = 4096;

/// Time limit for each step of [`ControlSender::send_confirmed`].
const CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Wakes cores after a snapshot or a message; empty until the cores run.
type CoreRinger = Arc<OnceLock<Ringer>>;

/// A failure of live traffic, as the endpoint's last error shows it.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// Its kind.
    pub kind: ErrorKind,
    /// What happened, in words that follow the endpoint's name.
    pub sentence: &'static str,
    /// The path that was asked, without its query.
    pub path: String,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
}

/// A message to the control thread.
#[derive(Debug)]
pub(crate) enum ToControl {
    /// A request could not connect to an endpoint.
    ConnectFailed {
        /// Its `Endpoint.id`.
        endpoint: u32,
        /// Why not.
        cause: Cause,
    },
    /// An endpoint closed a fresh connection on a whole request: check it now.
    Suspected {
        /// Its `Endpoint.id`.
        endpoint: u32,
    },
    /// A first byte has come from an endpoint of a model that was not in its memory.
    FirstByteOfCold {
        /// Its `Endpoint.id`.
        endpoint: u32,
    },
    /// Live traffic has failed at an endpoint; only some of the failures of a row are told
    /// ([`Live::trouble`](crate::fleet::Live::trouble)).
    TrafficFailed {
        /// Its `Endpoint.id`.
        endpoint: u32,
        /// What happened.
        trouble: Trouble,
    },
    /// The model of a request is not available: list the models of these endpoints now.
    Refresh(RefreshRequest),
    /// Ask endpoints of Ollama's which models they have loaded.
    Running(RunningRequest),
    /// The configuration was read again and is valid: put it in force.
    Reload {
        /// The configuration.
        plan: Arc<Plan>,
        /// The profiles that it admits.
        profiles: Arc<Profiles>,
        /// The rules for model names.
        rules: Arc<ModelRules>,
        /// Tells the sender whether it took effect.
        confirmation: Confirmation,
    },
    /// [`AccessKeeper::newest`](crate::access::AccessKeeper::newest) is another: publish it.
    KeysChanged,
    /// Stored keys have changed: publish them.
    KeysInForce {
        /// Tells the sender that requests which begin from now on see them.
        confirmation: Confirmation,
    },
    /// A token names a key that its issuer's set does not have: fetch it now, if that is allowed.
    IssuerKeys(ReplyTo),
    /// A core could not accept connections for want of a resource.
    AcceptFailed(Exhausted),
    /// A request could not connect to an endpoint for want of a resource of this machine.
    ConnectExhausted(Exhausted),
}

/// A model that no endpoint of a scope lists.
#[derive(Debug)]
pub(crate) struct RefreshRequest {
    /// The name in the request.
    pub model: Box<str>,
    /// The `Endpoint.id`s of the endpoints to list.
    pub endpoints: Vec<u32>,
    /// Time limit of the listings.
    pub limit: Duration,
    /// Where the outcome goes.
    pub reply_to: ReplyTo,
}

/// A request for the loaded models (docs/contract/dialects.md#11.3).
#[derive(Debug)]
pub(crate) struct RunningRequest {
    /// The `Endpoint.id`s of the endpoints to ask, in the order of the configuration.
    pub endpoints: Vec<u32>,
    /// Whether the loaded models of endpoints of other types follow.
    pub with_others: bool,
    /// What the client may see; `None` = all.
    pub lens: Option<Arc<Lens>>,
    /// Where the list goes.
    pub reply_to: ReplyTo,
}

/// A message to a core.
#[derive(Debug)]
pub(crate) enum ToCore {
    /// A refresh is over.
    Refreshed {
        /// The request that waits for it.
        ticket: u64,
        /// Whether any endpoint was listed.
        any: bool,
    },
    /// The loaded models.
    Running {
        /// The request that waits for them.
        ticket: u64,
        /// The whole response.
        body: Bytes,
    },
    /// The issuer's keys were fetched, or are not to be fetched now.
    IssuerKeysTried {
        /// The request that waits for it.
        ticket: u64,
    },
    /// Send the counts to the pages thread now, then `PageEvent::CountsFlushed`.
    FlushCounts {
        /// Number of the collection.
        round: u64,
    },
    /// Hand over what was counted for the usage ledger now, then `StateEvent::Flushed`.
    FlushUsage {
        /// Number of the collection.
        round: u64,
    },
    /// A page or a listing.
    Rendered {
        /// The request that waits for it.
        ticket: u64,
        /// The rendering.
        rendering: Rendering,
    },
}

/// Lets the sender of a message withdraw it until the control thread accepts it, so that both agree
/// on whether it took effect.
#[derive(Debug)]
pub(crate) struct Confirmation {
    is_open: Arc<AtomicBool>,
    done: Sender<()>,
}

impl Confirmation {
    /// Accepts the message; false if its sender has withdrawn it.
    pub(crate) fn accept(&self) -> bool {
        self.is_open.swap(false, Ordering::AcqRel)
    }

    /// Reports that the message has taken effect.
    pub(crate) fn done(&self) {
        // The channel has room for this one message.
        let _ = self.done.try_send(());
    }
}

/// Sends messages to the control thread.
#[derive(Debug, Clone)]
pub(crate) struct ControlSender {
    channel: Sender<ToControl>,
    bell: Bell,
}

impl ControlSender {
    /// The sender, and the receiver of the control thread, which `bell` wakes.
    pub(crate) fn new(bell: Bell) -> (Self, Receiver<ToControl>) {
        let (channel, receiver) = bounded(CONTROL_QUEUE_MAX);
        (Self { channel, bell }, receiver)
    }

    /// Sends a message and waits until it has taken effect, or has at least been accepted. Returns
    /// false if the control thread does not accept it in time: then it never takes effect. Not for
    /// cores, which must not wait.
    pub(crate) fn send_confirmed(&self, message: impl FnOnce(Confirmation) -> ToControl) -> bool {
        self.send_confirmed_within(CONFIRMATION_TIMEOUT, message)
    }

    fn send_confirmed_within(
        &self,
        timeout: Duration,
        message: impl FnOnce(Confirmation) -> ToControl,
    ) -> bool {
        let (done, confirmed) = bounded(1);
        let is_open = Arc::new(AtomicBool::new(true));
        let confirmation = Confirmation {
            is_open: Arc::clone(&is_open),
            done,
        };
        let sent = self.channel.send_timeout(message(confirmation), timeout);
        if sent.is_err() {
            return false;
        }
        self.bell.ring();
        if confirmed.recv_timeout(timeout).is_ok() {
            return true;
        }
        if is_open.swap(false, Ordering::AcqRel) {
            return false;
        }
        // It was accepted, so it takes effect unless the thread ends. The caller also handles
        // signals, so it does not wait any longer for a thread that a slow file delays.
        confirmed.try_recv() != Err(TryRecvError::Disconnected)
    }

    /// Sends a message; false if the queue is full.
    pub(crate) fn send(&self, message: ToControl) -> bool {
        let sent = self.channel.try_send(message).is_ok();
        self.bell.ring();
        sent
    }
}

/// Sends messages of the control and pages threads to the cores.
#[derive(Debug, Clone)]
pub(crate) struct CoreSenders {
    channels: Arc<[Sender<ToCore>]>,
    ringer: CoreRinger,
}

impl CoreSenders {
    /// The senders to a number of cores, and the receiver of each core.
    pub(crate) fn new(cores: usize, ringer: CoreRinger) -> (Self, Vec<Receiver<ToCore>>) {
        let (channels, receivers): (Vec<_>, Vec<_>) =
            (0..cores).map(|_| bounded(CORE_QUEUE_MAX)).unzip();
        (
            Self {
                channels: channels.into(),
                ringer,
            },
            receivers,
        )
    }

    /// Sends a message to one core.
    pub(crate) fn send(&self, core: usize, message: ToCore) {
        if let Some(channel) = self.channels.get(core) {
            // A full queue means that many requests have stopped waiting.
            let _ = channel.try_send(message);
        }
        if let Some(ringer) = self.ringer.get() {
            ringer.ring_one(core);
        }
    }

    /// Requests the counts of every core; returns the number of cores that will send them.
    pub(crate) fn request_counts(&self, round: u64) -> usize {
        self.request(|| ToCore::FlushCounts { round })
    }

    /// Requests the usage that every core has counted; returns the number of cores that will hand
    /// it over.
    pub(crate) fn request_usage(&self, round: u64) -> usize {
        self.request(|| ToCore::FlushUsage { round })
    }

    fn request(&self, message: impl Fn() -> ToCore) -> usize {
        let channels = self.channels.iter();
        let requested = channels.filter(|channel| channel.try_send(message()).is_ok());
        let count = requested.count();
        self.wake();
        count
    }

    /// Wakes every core.
    pub(crate) fn wake(&self) {
        if let Some(ringer) = self.ringer.get() {
            ringer.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FileFormat;

    #[test]
    fn a_confirmed_message_takes_effect_or_is_withdrawn() {
        let env = crate::config::Env::default();
        let inputs = crate::config::ConfigInputs {
            env: &env,
            cwd: std::path::Path::new("."),
            types: &[],
            admits: &|_, _| true,
        };
        let loaded = crate::config::plan_from_str("", FileFormat::Toml, None, &inputs);
        let plan = loaded.plan.unwrap();
        let message = |confirmation: Confirmation| ToControl::Reload {
            plan: Arc::new(plan.clone()),
            profiles: Arc::new(Profiles::builtin()),
            rules: Arc::new(ModelRules::builtin().clone()),
            confirmation,
        };
        let (bell, _listening) = Bell::new().unwrap();
        let (sender, receiver) = ControlSender::new(bell);
        assert!(!sender.send_confirmed_within(Duration::from_millis(1), message));
        let Ok(ToControl::Reload { confirmation, .. }) = receiver.try_recv() else {
            panic!("no message");
        };
        assert!(!confirmation.accept(), "it was withdrawn");
        let control = std::thread::spawn(move || {
            let Ok(ToControl::Reload { confirmation, .. }) = receiver.recv() else {
                panic!("no message");
            };
            assert!(confirmation.accept());
            confirmation.done();
        });
        assert!(sender.send_confirmed_within(Duration::from_secs(60), message));
        control.join().unwrap();
    }
}
