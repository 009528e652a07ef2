//! What a dialect has to write so that a chat completion becomes a stream of its own.

use std::fmt;
use std::time::Duration;

use super::calls::TooMany;
use super::chunk::ChatChunk;
use super::completion::Completion;
use super::error::Refusal;
use super::outcome::Counts;
use super::warning::Warning;

/// The time of a call, as the gateway saw it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Since the request arrived.
    pub elapsed: Duration,
}

/// Writes a client's stream out of the chunks of a chat completion. The reader calls `start` once,
/// before anything else, then `chunk` any number of times or `whole` once, then `finish` or
/// `fail`.
/// Each call appends what is complete by then; nothing waits for the next one.
pub(crate) trait ChatWriter: fmt::Debug + Send {
    /// The stream begins: with the endpoint's first data, or because the client has got nothing for
    /// too long. `counts` came with that data.
    fn start(&mut self, counts: Option<Counts>, at: Moment, out: &mut Vec<u8>);

    /// A chunk.
    ///
    /// # Errors
    /// It has more calls than can be held; the stream fails.
    fn chunk(
        &mut self,
        chunk: &ChatChunk<'_>,
        at: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), TooMany>;

    /// A whole response in place of chunks; `finish` follows.
    fn whole(&mut self, completion: &Completion<'_>, at: Moment, out: &mut Vec<u8>);

    /// The response is complete, with or without a finish reason.
    fn finish(&mut self, at: Moment, out: &mut Vec<u8>);

    /// An error ends the stream: the endpoint sent one, broke off, or sent too much.
    fn fail(&mut self, error: &Refusal, at: Moment, out: &mut Vec<u8>);

    /// An error as the client gets it, in a stream or in place of one.
    fn understood(&self, error: Refusal) -> Refusal {
        error
    }

    /// The client has got nothing for a while: something without meaning for it.
    fn keep_alive(&mut self, at: Moment, out: &mut Vec<u8>);

    /// Whether a response without a single chunk is one without content; else it is no valid response.
    fn takes_nothing(&self) -> bool {
        false
    }

    /// Bytes that are held until more comes.
    fn held(&self) -> usize;

    /// Bytes of the response's content so far, for an estimate of its tokens.
    fn output_bytes(&self) -> u64;

    /// What the log is to say, at the end.
    fn warnings(&self) -> &[Warning];
}
