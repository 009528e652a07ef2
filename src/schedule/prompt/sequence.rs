//! The order of the parts of a prompt, and the elements of their arrays.

use std::ops::Range;

use super::chain::Chain;
use crate::inspect::{BodySpan, LIST_BYTES_MAX, PromptParts, blanks_between};
use crate::json::scan::{is_blank, part, skip_blanks};

/// No prompt is longer.
pub(super) fn bytes_at_most(parts: &PromptParts) -> usize {
    let spans = [
        parts.tools,
        parts.system,
        parts.instructions,
        conversation(parts),
    ];
    spans.iter().map(|span| span.range().len()).sum()
}

/// Appends the prompt; `None` if the conversation is malformed.
pub(super) fn read(body: &[u8], parts: &PromptParts, chain: &mut Chain<'_>) -> Option<()> {
    let span = conversation(parts);
    let raw = span.range();
    for span in [parts.tools, parts.system, parts.instructions] {
        if !span.is_empty() {
            chain.push(body, span.range());
        }
    }
    match body.get(raw.start) {
        _ if span.is_empty() => {}
        Some(b'[') => match parts.gaps_of(span) {
            Some(gaps) => read_noted(body, &raw, gaps, chain),
            None => return read_searched(body, &raw, chain),
        },
        Some(b'"') if parts.messages.is_empty() => chain.push(body, raw.start + 1..raw.end - 1),
        _ => return None,
    }
    Some(())
}

/// Appends the elements of an array from what was noted between them.
fn read_noted(body: &[u8], array: &Range<usize>, gaps: &[BodySpan], chain: &mut Chain<'_>) {
    let last = array.end - 1;
    let limit = array.start + LIST_BYTES_MAX;
    let (mut from, mut end) = (array.start + 1, last.min(limit));
    for gap in gaps {
        let gap = gap.range();
        if gap.end > limit || gap.end == last || chain.is_full() {
            end = end.min(gap.start);
            break;
        }
        if gap.start > array.start {
            // As a rule the comma is next to the element.
            let is_near = body.get(gap.start) == Some(&b',');
            chain.push(body, from..gap.start + usize::from(is_near));
            if !is_near {
                chain.push_comma();
            }
        }
        from = gap.end;
    }
    chain.push(body, from..end);
}

/// Appends the elements of an array by looking for the blanks between them; `None` if those, or a
/// comma at either end, show that they are malformed.
fn read_searched(body: &[u8], array: &Range<usize>, chain: &mut Chain<'_>) -> Option<()> {
    let end = array.end.min(array.start + LIST_BYTES_MAX);
    let is_at = |at: usize, bytes: &[u8]| body.get(at).is_some_and(|byte| bytes.contains(byte));
    let mut is_sound = true;
    let mut from = array.start + 1;
    blanks_between(body, array.start..end, |blanks| {
        if from < blanks.start {
            chain.push(body, from..blanks.start);
        }
        from = blanks.end;
        is_sound = is_at(blanks.start - 1, b",[ \n\r\t") || is_at(blanks.end, b",] \n\r\t");
        is_sound && !chain.is_full()
    });
    if end == array.end {
        let inner = part(body, array.start + 1..array.end - 1);
        let last = inner.iter().rfind(|byte| !is_blank(**byte));
        is_sound &= last != Some(&b',') && inner.get(skip_blanks(inner, 0)) != Some(&b',');
    }
    is_sound.then_some(())?;
    chain.push(body, from..end.min(array.end - 1));
    Some(())
}

fn conversation(parts: &PromptParts) -> BodySpan {
    let spans = [parts.messages, parts.input, parts.prompt];
    let mut present = spans.into_iter().filter(|span| !span.is_empty());
    present.next().unwrap_or_default()
}
