//! A stream that begins before an endpoint has responded: its first events while the client waits,
//! then whatever the response makes of the rest, or an error.
//!
//! Contract: docs/contract/surface.md#8.4, docs/contract/dialects.md#4,
//! docs/contract/dialects.md#15

use std::time::Duration;

use super::Conversation;
use super::response::Replying;
use crate::dialects::Error;
use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::writer::Moment;

impl Conversation {
    /// See [`crate::dialects::Dialect::silence_max`].
    pub(in crate::dialects) fn silence_max(&self, keep_alive: Duration) -> Duration {
        let own = self.translator.facts().silence_max;
        let own = own.filter(|_| self.writes_stream());
        own.map_or(keep_alive, |own| own.min(keep_alive))
    }

    /// See [`crate::dialects::Dialect::early`].
    pub(in crate::dialects) fn early(&self, at: Moment, out: &mut Vec<u8>) -> bool {
        if !self.writes_stream() {
            return false;
        }
        let mut stream = self.translator.beginning();
        if self.has_begun.replace(true) {
            stream.begin(at, &mut Vec::new());
        }
        let _ = stream.idle(at, out);
        true
    }

    /// Brings the stream of a response to where the client's is.
    pub(super) fn catch_up(&mut self, at: Moment) {
        if !self.has_begun.get() {
            return;
        }
        let mut events = Vec::new();
        if let Replying::Events(stream) | Replying::DocumentAsEvents(stream) = &mut self.replying {
            stream.begin(at, &mut events);
            self.watch(&events);
        }
    }

    /// See [`crate::dialects::Dialect::fail`].
    pub(in crate::dialects) fn fail(&mut self, error: &Error, at: Moment) -> Option<Vec<u8>> {
        if !self.has_begun.get() {
            return None;
        }
        if !matches!(
            self.replying,
            Replying::Events(_) | Replying::DocumentAsEvents(_)
        ) {
            self.replying = Replying::Events(Box::new(self.translator.beginning()));
            if let Some(recorder) = &mut self.recorder {
                recorder.responds(true, None);
            }
        }
        self.catch_up(at);
        let mut events = Vec::new();
        if let Replying::Events(stream) | Replying::DocumentAsEvents(stream) = &mut self.replying {
            stream.fail(Refusal::from(error), at, &mut events);
        }
        self.failed = true;
        self.watch(&events);
        Some(events)
    }
}

#[cfg(test)]
mod tests;
