//! Keeps the end of a response for its token statistics, and how a response passes meanwhile.

use olla_engine::h1::FieldId;
use olla_engine::handler::{Passing, Response};

use super::event_count::EventCount;
use super::exchange::Exchange;
use super::keep_alive::EventBorder;
use crate::providers::figures::AnswerKind;

impl Exchange {
    /// Starts to keep the end of a response, if it may contain token statistics.
    pub(super) fn begin_tail(&mut self, response: &Response<'_>) -> AnswerKind {
        let kind = AnswerKind::of(
            response.head.get(response.bytes, FieldId::ContentType),
            response.head.get(response.bytes, FieldId::ContentEncoding),
        );
        self.reads_figures = kind != AnswerKind::Opaque && response.head.status < 400;
        self.kept.events = EventCount::of(kind);
        if self.reads_figures {
            let tail = self.kept.tail.get_or_insert_default();
            tail.begin(kind);
        }
        kind
    }

    /// How a response passes that the dialect leaves as it is. Event streams are kept alive.
    pub(super) fn passing(&mut self, watch: bool, kind: AnswerKind) -> Passing {
        let keep_alive = self.view.plan().proxy.stream_keep_alive;
        match keep_alive.filter(|_| kind == AnswerKind::Events) {
            Some(after) => {
                self.border = Some(EventBorder::default());
                Passing::KeepAlive(after)
            }
            None if watch || self.reads_figures => Passing::Tap,
            None => Passing::Pass,
        }
    }

    pub(super) fn push_tail(&mut self, payload: &[u8]) {
        if let Some(tail) = self.kept.tail.as_mut().filter(|_| self.reads_figures) {
            tail.push(payload);
        }
        if let Some(events) = &mut self.kept.events {
            events.push(payload);
        }
    }
}
