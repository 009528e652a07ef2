//! Why a request went where it went, for those who ask.
//!
//! Contract: docs/contract/scheduling.md#8

use std::io::Write as _;

use olla_engine::h1::emit;
use olla_engine::handler::Request;

use super::exchange::Exchange;
use crate::config::AdminRight;
use crate::field_names::X_OLLA_EXPLAIN;
use crate::routing::sticky::{Session, StickyOutcome};
use crate::schedule::choose::Evaluated;
use crate::schedule::dispatch::Dispatch;

/// Candidates that are explained.
const EXPLAINED_MAX: usize = 8;

/// The most bytes of an explanation.
const EXPLANATION_BYTES_MAX: usize = 1 << 10;

impl Exchange {
    /// Collects the candidates of the choice if the client may know them and wants to.
    pub(super) fn begin_explanation(&mut self, request: &Request<'_>) {
        let asks = request.head.get(request.bytes, X_OLLA_EXPLAIN) == Some(b"1");
        let may = self
            .key
            .as_ref()
            .is_none_or(|key| key.admin() != AdminRight::None);
        if asks && may && self.predicts() && self.takes_slot {
            self.kept.schedule.explained = Some(Vec::new());
        }
    }

    /// Writes what the response says of the choice.
    pub(super) fn choice_fields(&self, out: &mut Vec<u8>) {
        let schedule = &self.kept.schedule;
        // A head that is sent while the request still waits says nothing of this.
        if let Some(waited) = schedule.waited_ms.filter(|_| self.in_queue.is_none()) {
            emit::field_number(out, b"X-Olla-Queue-Ms", waited);
        }
        let Some(dispatch) = schedule.dispatch.as_ref() else {
            return;
        };
        if !self.predicts() || self.kept.model.is_empty() {
            return;
        }
        let choice = Choice {
            session: self.holding_session().map(Session::outcome),
            was_ready: dispatch.was_ready(),
            has_waited: schedule.waited_ms.is_some(),
        };
        let chosen = Dispatch::chosen(dispatch);
        let word = choice.word(chosen).unwrap_or(LEAST_TIME);
        emit::field(out, b"X-Olla-Routing-Choice", word.as_bytes());
        if self.gateway.common.scheduler.placements().is_some() {
            let share = two_decimals(hundredths(chosen.needs.hit, chosen.needs.prompt));
            emit::field(out, b"X-Olla-Prefix-Hit", &share);
        }
        if let Some(list) = &schedule.explained {
            self.write_explanation(list, out);
        }
    }

    /// Writes the candidates, the best first, as far as they fit.
    fn write_explanation(&self, list: &[Evaluated], out: &mut Vec<u8>) {
        let mut sorted: Vec<&Evaluated> = list.iter().collect();
        sorted.sort_by(|one, other| one.total().total_cmp(&other.total()));
        let mut text = Vec::new();
        for seen in sorted.into_iter().take(EXPLAINED_MAX) {
            let before = text.len();
            let name = self.view.endpoint(seen.index).map_or("", |e| e.name());
            let terms = &seen.terms;
            let comma = if before == 0 { "" } else { "," };
            // Writing to a vector does not fail.
            drop(write!(
                text,
                "{comma}{name}={};load={};queue={};prefill={};decode={};hit={}",
                millis(terms.total()),
                millis(terms.load),
                millis(terms.queue),
                millis(terms.prefill),
                millis(terms.decode),
                seen.needs.hit
            ));
            if text.len() > EXPLANATION_BYTES_MAX {
                text.truncate(before);
                break;
            }
        }
        emit::field_lossy(out, b"X-Olla-Explain", &text);
    }
}

/// The word for an endpoint of which nothing else is to be said.
pub(super) const LEAST_TIME: &str = "least_time";

/// Why an endpoint was chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// What became of the request's session.
    pub(super) session: Option<StickyOutcome>,
    /// The model was in the endpoint's memory.
    pub(super) was_ready: bool,
    /// The request has waited in the queue, or would wait.
    pub(super) has_waited: bool,
}

impl Choice {
    /// The first word that is true; `None` if none of the special ones is.
    pub(super) fn word(self, chosen: &Evaluated) -> Option<&'static str> {
        let needs = &chosen.needs;
        match self.session {
            Some(StickyOutcome::Repin) => Some("sticky_moved"),
            Some(StickyOutcome::Hit) => Some("sticky"),
            _ if !self.was_ready => Some("cold_load"),
            _ if needs.hit > 0 && needs.hit.saturating_mul(2) >= needs.prompt => Some("prefix_hit"),
            _ if self.has_waited => Some("queued"),
            _ => None,
        }
    }
}

/// A share in hundredths, rounded.
fn hundredths(part: u64, whole: u64) -> u8 {
    if whole == 0 {
        return 0;
    }
    let share = part.saturating_mul(200).saturating_add(whole) / whole.saturating_mul(2);
    share.min(100) as u8
}

/// At most 100 hundredths as text. Every response has it: the formatting machinery would cost more
/// than the choice.
fn two_decimals(hundredths: u8) -> [u8; 4] {
    let digit = |value: u8| b'0' + value % 10;
    [
        digit(hundredths / 100),
        b'.',
        digit(hundredths / 10),
        digit(hundredths),
    ]
}

/// Seconds in whole milliseconds.
pub(super) fn millis(seconds: f32) -> u64 {
    (f64::from(seconds) * 1000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::ModelKey;

    #[test]
    fn the_first_word_that_is_true_is_said() {
        use StickyOutcome::{Disabled, Hit, Miss, Repin};
        let table = [
            (Some(Repin), false, (9, 10), true, "sticky_moved"),
            (Some(Hit), false, (9, 10), true, "sticky"),
            (Some(Miss), false, (9, 10), true, "cold_load"),
            (Some(Disabled), true, (5, 10), true, "prefix_hit"),
            (None, true, (4, 10), true, "queued"),
            (None, true, (0, 0), true, "queued"),
            (None, true, (4, 10), false, LEAST_TIME),
        ];
        for (session, was_ready, (hit, prompt), has_waited, word) in table {
            let choice = Choice {
                session,
                was_ready,
                has_waited,
            };
            let mut chosen = Evaluated::unpredicted(0, ModelKey::of("m"));
            (chosen.needs.hit, chosen.needs.prompt) = (hit, prompt);
            let said = choice.word(&chosen).unwrap_or(LEAST_TIME);
            assert_eq!(said, word, "{choice:?}");
        }
    }

    #[test]
    fn shares_are_rounded() {
        let table = [
            (0, 0, 0),
            (0, 7, 0),
            (1, 3, 33),
            (2, 3, 67),
            (199, 200, 100),
            (5, 5, 100),
            (9, 5, 100),
        ];
        for (part, whole, share) in table {
            assert_eq!(hundredths(part, whole), share, "{part} of {whole}");
        }
        for (share, text) in [(0, b"0.00"), (7, b"0.07"), (93, b"0.93"), (100, b"1.00")] {
            assert_eq!(two_decimals(share), *text);
        }
    }
}
