//! The channels between cores and the control thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use olla_engine::core::Ringer;
use olla_engine::rt::Bell;

use crate::catalogue::{CatalogueError, Rules};
use crate::config::Plan;
use crate::operations;
use crate::operations::stats::Delta;
use crate::providers::Profiles;

/// Events under way to the control thread. What a core cannot put in is lost: another request will
/// find the same.
const EVENTS_MAX: usize = 4096;

/// Letters under way to one core; as many requests may wait for one.
const LETTERS_MAX: usize = 4096;

/// How long [`Link::insist`] waits.
const INSIST: Duration = Duration::from_secs(5);

/// Rings every core after a snapshot or a letter.
pub type CoreRinger = Arc<OnceLock<Ringer>>;

/// What a core tells the control thread.
#[derive(Debug)]
pub enum Event {
    /// A request could not reach an endpoint.
    Failed {
        /// Its `Endpoint.id`.
        endpoint: u32,
        /// One word.
        error: &'static str,
    },
    /// A request's model is not available: ask these endpoints for their models now.
    Refresh {
        /// Their `Endpoint.id`s.
        endpoints: Vec<u32>,
        /// At most so long.
        limit: Duration,
        /// Where the outcome goes.
        reply: Address,
    },
    /// The configuration was read again and is to be followed.
    Reload {
        /// The configuration.
        plan: Arc<Plan>,
        /// The profiles, filtered as it says.
        profiles: Arc<Profiles>,
        /// How names of models are understood.
        rules: Arc<Rules>,
        /// Whether it still holds.
        offer: Offer,
    },
    /// The configuration was read again: whether it can be followed.
    Reloaded {
        /// False: the old one stays.
        successful: bool,
    },
    /// What a core has counted.
    Counted(Box<Delta>),
    /// A core has told all that it had counted when it was asked to.
    HandedOver {
        /// Which asking.
        round: u64,
    },
    /// A client wants a long listing.
    Listing {
        /// Which.
        ask: Box<ListingAsk>,
        /// Where it goes.
        reply: Address,
    },
    /// A client wants a page.
    Page {
        /// Which, and how.
        ask: Box<PageAsk>,
        /// Where it goes.
        reply: Address,
    },
}

/// A listing of the catalogue that is too long for a core to write.
#[derive(Debug)]
pub enum ListingAsk {
    /// `/olla/models` with this query.
    Models(String),
    /// Below a provider's prefix: that, and the rest of the path.
    Scoped(String, String),
}

/// A page that a client wants.
#[derive(Debug)]
pub struct PageAsk {
    /// Which.
    pub route: operations::Route,
    /// Without its question mark.
    pub query: String,
    /// The request's `If-None-Match`.
    pub if_none_match: Option<Vec<u8>>,
    /// The request's `Accept-Encoding`.
    pub accept_encoding: Option<Vec<u8>>,
}

/// Where an answer goes: a core, and which of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Index of the core.
    pub core: usize,
    /// Number of the request, unique on its core.
    pub ticket: u64,
}

/// What the control thread tells a core.
#[derive(Debug)]
pub enum ToCore {
    /// A refresh is over.
    Refreshed {
        /// Which request waits for it.
        ticket: u64,
        /// Whether any endpoint answered.
        any: bool,
    },
    /// Tell now what was counted, then say so.
    HandOver {
        /// Which asking.
        round: u64,
    },
    /// A listing.
    Listing {
        /// Which request waits for it.
        ticket: u64,
        /// The answer; `None` = there is no such listing any more.
        listing: Option<Result<Bytes, CatalogueError>>,
    },
    /// A page.
    Page {
        /// Which request waits for it.
        ticket: u64,
        /// The answer.
        page: Box<Rendered>,
    },
}

/// An answer to a [`PageAsk`].
pub use crate::operations::conditional::Reply as Rendered;

/// A message that its sender may withdraw as long as the control thread has not taken it, so that
/// both agree on whether it took effect.
#[derive(Debug)]
pub struct Offer {
    is_open: Arc<AtomicBool>,
    done: Sender<()>,
}

impl Offer {
    /// Takes the offer; false when it was withdrawn.
    pub fn take(&self) -> bool {
        self.is_open.swap(false, Ordering::AcqRel)
    }

    /// Reports that the message has taken effect.
    pub fn done(&self) {
        // The channel has room for this one message.
        let _ = self.done.try_send(());
    }
}

/// A core's end.
#[derive(Debug, Clone)]
pub struct Link {
    events: Sender<Event>,
    bell: Bell,
}

impl Link {
    /// Both ends of the way to the control thread.
    pub fn new(bell: Bell) -> (Self, Receiver<Event>) {
        let (events, receiver) = bounded(EVENTS_MAX);
        (Self { events, bell }, receiver)
    }

    /// Tells the control thread something that must not be lost; waits a little for room. Not for
    /// cores.
    pub fn insist(&self, event: Event) -> bool {
        let told = self.events.send_timeout(event, INSIST).is_ok();
        self.bell.ring();
        told
    }

    /// Offers a message to the control thread and waits until it has taken effect, or at least was
    /// taken; false when the thread does not take it in time: then it never will. Not for cores.
    pub fn offer(&self, message: impl FnOnce(Offer) -> Event) -> bool {
        self.offer_within(INSIST, message)
    }

    fn offer_within(&self, patience: Duration, message: impl FnOnce(Offer) -> Event) -> bool {
        let (done, wait) = bounded(1);
        let is_open = Arc::new(AtomicBool::new(true));
        let offer = Offer {
            is_open: Arc::clone(&is_open),
            done,
        };
        if self.events.send_timeout(message(offer), patience).is_err() {
            return false;
        }
        self.bell.ring();
        if wait.recv_timeout(patience).is_ok() {
            return true;
        }
        if is_open.swap(false, Ordering::AcqRel) {
            return false;
        }
        // It was taken, so it takes effect unless the thread ends. A thread that is held up by a slow
        // file must not hold up signals, which the caller handles too.
        wait.try_recv() != Err(TryRecvError::Disconnected)
    }

    /// Tells the control thread something; false when it has too much to do already.
    pub fn tell(&self, event: Event) -> bool {
        let told = self.events.try_send(event).is_ok();
        self.bell.ring();
        told
    }
}

/// The control thread's ends of the ways to the cores.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    senders: Arc<[Sender<ToCore>]>,
    ringer: CoreRinger,
}

impl Mailboxes {
    /// The boxes of so many cores, and the cores' ends.
    pub fn new(cores: usize, ringer: CoreRinger) -> (Self, Vec<Receiver<ToCore>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..cores).map(|_| bounded(LETTERS_MAX)).unzip();
        (
            Self {
                senders: senders.into(),
                ringer,
            },
            receivers,
        )
    }

    /// Sends a letter to one core.
    pub fn send(&self, core: usize, letter: ToCore) {
        if let Some(sender) = self.senders.get(core) {
            // A full box means that many requests have given up waiting.
            let _ = sender.try_send(letter);
        }
        if let Some(ringer) = self.ringer.get() {
            ringer.ring_one(core);
        }
    }

    /// Asks every core to tell what it has counted; how many were asked.
    pub fn ask_for_counts(&self, round: u64) -> usize {
        let asked = self
            .senders
            .iter()
            .filter(|sender| sender.try_send(ToCore::HandOver { round }).is_ok());
        let count = asked.count();
        self.ring();
        count
    }

    /// Rings every core.
    pub fn ring(&self) {
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
    fn an_offer_takes_effect_or_is_withdrawn() {
        let env = crate::config::Env::default();
        let inputs = crate::config::ConfigInputs {
            env: &env,
            cwd: std::path::Path::new("."),
            types: &[],
            admits: &|_, _| true,
        };
        let loaded = crate::config::plan_from_str("", FileFormat::Toml, None, &inputs);
        let plan = loaded.plan.unwrap();
        let event = |offer: Offer| Event::Reload {
            plan: Arc::new(plan.clone()),
            profiles: Arc::new(Profiles::builtin()),
            rules: Arc::new(Rules::builtin().clone()),
            offer,
        };
        let (bell, _listening) = Bell::new().unwrap();
        let (link, events) = Link::new(bell);
        assert!(!link.offer_within(Duration::from_millis(1), event));
        let Ok(Event::Reload { offer, .. }) = events.try_recv() else {
            panic!("no offer");
        };
        assert!(!offer.take(), "it was withdrawn");
        let taker = std::thread::spawn(move || {
            let Ok(Event::Reload { offer, .. }) = events.recv() else {
                panic!("no offer");
            };
            assert!(offer.take());
            offer.done();
        });
        assert!(link.offer_within(Duration::from_secs(60), event));
        taker.join().unwrap();
    }
}
