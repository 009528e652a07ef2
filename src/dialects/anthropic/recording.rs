//! Collects one request and its response for the inspector's files. It copies bodies, so it is for
//! debugging only.
//!
//! Contract: docs/contract/translation.md#13

use std::ops::ControlFlow;
use std::path::PathBuf;

use olla_engine::handler::Request;

use super::records::{Record, RecordKind};
use super::translate::{Assembly, session};
use crate::config::InspectorPlan;
use crate::dialects::chat::inflate::Inflater;
use crate::dialects::conversation::BodyRecorder;

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

    fn record(&self, kind: RecordKind, body: Vec<u8>) -> Record {
        Record {
            folder: self.folder.clone(),
            session: self.session.clone(),
            kind,
            body,
        }
    }
}

impl BodyRecorder for Recording {
    fn is_replaced(&self) -> bool {
        self.is_replaced
    }

    fn request(&mut self, model: &str, body: &[u8]) -> Option<Record> {
        let is_first = !std::mem::replace(&mut self.has_request, true);
        is_first.then(|| self.record(RecordKind::Request(model.to_owned()), body.to_vec()))
    }

    fn responds(&mut self, events: bool, inflater: Option<Box<Inflater>>) {
        self.assembly = events.then(Box::default);
        self.inflater = inflater;
        self.body.clear();
    }

    fn push(&mut self, piece: &[u8]) {
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

    fn whole(&mut self, body: &[u8]) {
        self.responds(false, None);
        self.push(body);
    }

    fn response(mut self: Box<Self>, status: u16) -> Option<Record> {
        if !self.has_request {
            return None;
        }
        let body = match self.assembly.take() {
            Some(assembly) => assembly.finish(),
            None => std::mem::take(&mut self.body),
        };
        Some(self.record(RecordKind::Response(status), body))
    }
}
