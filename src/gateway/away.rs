//! Steps of a dialect that would hold a core for too long: the engine's threads take them.
//!
//! The dialect itself goes with its step and comes back with the result. A dialect needs nothing
//! for it: what it does on a core it does on another thread in the same way.

use crossbeam_channel::{Receiver, bounded};
use olla_engine::handler::Work;

use crate::access::output::{LimitedBody, OutputTooLong};
use crate::dialects::{Dialect, Error, Piece, Sent, Whole};
use crate::inspect::Findings;

/// The result of a step.
pub(super) enum Done {
    /// [`Dialect::read`], with the model that it found.
    Read(String, Result<(), Error>),
    /// The body with its output limited, if it had to be.
    Limited(Result<Option<LimitedBody>, OutputTooLong>),
    /// [`Dialect::request`].
    Request(Result<Sent, Error>),
    /// [`Dialect::piece`], with what the client gets.
    Piece(Piece, Vec<u8>),
    /// [`Dialect::whole`].
    Whole(Whole),
    /// The events of a document that ends a stream which the gateway began.
    Document(Vec<u8>),
    /// A response that was computed of the request's body, and what else was found in it.
    Computed(Result<Vec<u8>, Error>, Box<Findings>),
}

/// A step that another thread takes.
pub(super) struct Away {
    /// Until the engine takes it.
    work: Option<Work>,
    back: Receiver<(Dialect, Done)>,
}

impl Away {
    /// Gives a step away, and the dialect with it. The step gets the bytes that the current call of
    /// the engine is about.
    pub(super) fn send(
        mut dialect: Dialect,
        step: impl FnOnce(&mut Dialect, &[u8]) -> Done + Send + 'static,
    ) -> Self {
        let (sender, back) = bounded(1);
        let work: Work = Box::new(move |bytes| {
            let done = step(&mut dialect, bytes);
            // The request may have ended meanwhile.
            let _ = sender.send((dialect, done));
        });
        Self {
            work: Some(work),
            back,
        }
    }

    /// What the engine has to do.
    pub(super) fn take_work(&mut self) -> Option<Work> {
        self.work.take()
    }

    /// The dialect and the result, once the work is done.
    pub(super) fn come_back(self) -> Option<(Dialect, Done)> {
        self.back.try_recv().ok()
    }
}

impl std::fmt::Debug for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Away")
    }
}
