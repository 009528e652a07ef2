//! What scheduling knows of one request.

use std::time::{Duration, Instant};

use super::picked::Begun;
use crate::endpoint_set::EndpointSet;
use crate::schedule::ModelKey;
use crate::schedule::choose::Evaluated;
use crate::schedule::dispatch::Dispatch;
use crate::schedule::prompt::Prompt;
use crate::schedule::queue::Charge;
use crate::schedule::slot::Slot;

/// What scheduling knows of one request.
#[derive(Debug, Default)]
pub(super) struct Scheduling {
    /// The size of its prompt; `None` = it takes no slot.
    pub(super) prompt: Option<Prompt>,
    /// The requested name of the model, which all endpoints know it by unless it is an alias.
    pub(super) model: Option<ModelKey>,
    /// The hashes of the prompt's blocks.
    pub(super) blocks: Vec<u64>,
    /// Whether the first events of a stream that waits can be written.
    pub(super) begun: Begun,
    /// The endpoint that was chosen, and the slot that the request holds there.
    pub(super) chosen: Option<(Evaluated, Slot)>,
    /// The attempt that was sent.
    pub(super) dispatch: Option<Dispatch>,
    /// When bytes last arrived, until the first one of the response's body was seen.
    pub(super) heard: Option<Instant>,
    pub(super) has_first_byte: bool,
    /// The response is a stream.
    pub(super) is_stream: bool,
    /// The attempt's response is complete.
    pub(super) is_whole: bool,
    /// The response is a 503 that may say that the model is being loaded.
    pub(super) may_be_loading: bool,
    /// What the dialect would pass at once is held for that.
    pub(super) holds_as_it_is: bool,
    /// It says so, and goes to the client because nothing waits.
    pub(super) passes_loading: bool,
    /// How long that endpoint is left alone if it says something else.
    pub(super) pause: Duration,
    /// Endpoints that it does not wait for now.
    pub(super) skipped: EndpointSet,
    /// Endpoints where it started in vain, since it last looked again.
    pub(super) refused: EndpointSet,
    /// How long it waited in the queue, in milliseconds.
    pub(super) waited_ms: Option<u64>,
    /// What its flow was charged when it started from the queue.
    pub(super) charge: Option<Charge>,
    /// The candidates as they were evaluated, if the client asked for them.
    pub(super) explained: Option<Vec<Evaluated>>,
}

/// The most that a connection keeps of the hashes of blocks.
const BLOCKS_KEPT_MAX: usize = 256;

impl Scheduling {
    /// Forgets the request.
    pub(super) fn clear(&mut self) {
        self.prompt = None;
        self.model = None;
        self.blocks.clear();
        self.begun = Begun::No;
        self.chosen = None;
        self.dispatch = None;
        self.heard = None;
        self.has_first_byte = false;
        self.is_stream = false;
        self.is_whole = false;
        self.may_be_loading = false;
        self.holds_as_it_is = false;
        self.passes_loading = false;
        self.skipped = EndpointSet::EMPTY;
        self.refused = EndpointSet::EMPTY;
        self.waited_ms = None;
        self.charge = None;
        self.explained = None;
    }

    /// Frees what a request has made unusually large.
    pub(super) fn shrink(&mut self) {
        if self.blocks.capacity() > BLOCKS_KEPT_MAX {
            self.blocks = Vec::new();
        }
    }
}
