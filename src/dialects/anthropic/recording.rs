//! Collects one request and its response for the inspector's files. It copies bodies, so it is for
//! debugging only.
//!
//! Contract: docs/contract/translation.md#13

use std::ops::ControlFlow;
use std::path::PathBuf;

use olla_engine::handler::Request;

use super::records::{Record, RecordKind};
use super::translate::{Assembly, Inflater, session};
use crate::config::InspectorPlan;

/// Maximum number of bytes of a response that are kept; the rest is not written.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// One request, and the part of its response that has arrived.
#[derive(Debug)]
pub(super) struct Recording {
    folder: PathBuf,
    session: String,
    is_replaced: bool,
    /// The request was written: it could be sent.
    has_request: bool,
    /// For a stream of events.
    assembly: Option<Box<Assembly>>,
    inflater: Option<Box<Inflater>>,
    body: Vec<u8>,
}

impl Recording {
    pub(super) fn begin(plan: &InspectorPlan, request: &Request<'_>) -> Self {
        let value = |name: &[u8]| {
            let mut fields = request.head.fields.iter();
            fields
                .find(|field| field.name.of(request.bytes).eq_ignore_ascii_case(name))
                .map(|field| field.value.of(request.bytes))
        };
        let session = session(
            value(plan.session_header.as_bytes()),
            value(b"X-Request-ID"),
        );
        Self {
            folder: plan.output_dir.clone(),
            session: session.name.to_owned(),
            is_replaced: session.is_replaced,
            has_request: false,
            assembly: None,
            inflater: None,
            body: Vec::new(),
        }
    }

    /// Whether the client named a session that cannot be a file's name.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    /// The request, the first time.
    pub(super) fn request(&mut self, model: &str, body: &[u8]) -> Option<Record> {
        let is_first = !std::mem::replace(&mut self.has_request, true);
        is_first.then(|| self.record(RecordKind::Request(model.to_owned()), body.to_vec()))
    }

    /// Whether there is a request that a response may belong to.
    pub(super) fn has_request(&self) -> bool {
        self.has_request
    }

    /// A response begins: as events or not, compressed or not.
    pub(super) fn responds(&mut self, events: bool, inflater: Option<Box<Inflater>>) {
        self.assembly = events.then(Box::default);
        self.inflater = inflater;
        self.body.clear();
    }

    /// Adds a piece of the response as the client gets it.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let (assembly, body) = (&mut self.assembly, &mut self.body);
        let mut keep = |piece: &[u8]| match assembly {
            Some(assembly) => assembly.push(piece),
            None => {
                let room = ANSWER_BYTES_MAX.saturating_sub(body.len());
                body.extend_from_slice(piece.get(..room).unwrap_or(piece));
            }
        };
        match &mut self.inflater {
            None => keep(piece),
            // A body that cannot be decompressed is not recorded.
            Some(inflater) => {
                let _ = inflater.push(piece, |plain| {
                    keep(plain);
                    ControlFlow::Continue(())
                });
            }
        }
    }

    /// A whole response, in place of anything seen before.
    pub(super) fn whole(&mut self, body: &[u8]) {
        self.responds(false, None);
        self.push(body);
    }

    pub(super) fn response(mut self, status: u16) -> Record {
        let body = match self.assembly.take() {
            Some(assembly) => assembly.finish(),
            None => std::mem::take(&mut self.body),
        };
        self.record(RecordKind::Response(status), body)
    }

    fn record(&self, kind: RecordKind, body: Vec<u8>) -> Record {
        Record {
            folder: self.folder.clone(),
            session: self.session.clone(),
            kind,
            body,
        }
    }
}
