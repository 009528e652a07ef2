//! What a dialect may add to a response that passes.

use std::fmt;

use crate::dialects::Record;
use crate::dialects::chat::inflate::Inflater;
use crate::dialects::chat::stream::End;

/// Follows a stream of a native endpoint, which passes as it is.
pub(crate) trait NativeStream: fmt::Debug + Send {
    /// A part of it has passed.
    fn push(&mut self, payload: &[u8]);

    /// The client has got nothing for a while: appends a sign of life if the stream is where one may
    /// stand.
    fn keep_alive(&self, out: &mut Vec<u8>);

    /// It ended before its end: appends what says so.
    fn broken(&self, how: End, out: &mut Vec<u8>);
}

/// Records one request and its response for debugging.
pub(crate) trait BodyRecorder: fmt::Debug + Send {
    /// Whether the client named a session that cannot be recorded under its name.
    fn is_replaced(&self) -> bool;

    /// The request; a record of it the first time.
    fn request(&mut self, model: &str, body: &[u8]) -> Option<Record>;

    /// A response begins: as events or not, compressed or not.
    fn responds(&mut self, events: bool, inflater: Option<Box<Inflater>>);

    /// A piece of the response as the client gets it.
    fn push(&mut self, piece: &[u8]);

    /// A whole response, in place of anything seen before.
    fn whole(&mut self, body: &[u8]);

    /// The record of the response; `None` if the request was not recorded.
    fn response(self: Box<Self>, status: u16) -> Option<Record>;
}
