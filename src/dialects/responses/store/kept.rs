//! A response as it is kept (docs/contract/dialects.md#9).

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dialects::responses::stored_input::StoredInput;
use crate::json::{self, JsonText, JsonValue};

/// What an object may have beside its items without being counted. More is: instructions and tools
/// are repeated in it.
const FREE_BYTES: usize = 4 << 10;

/// The longest output that is parsed, in bytes, so that it does not hold a core for long.
const PARSED_MAX: usize = 128 << 10;

/// Bytes of all responses that are kept, and of those they build on.
#[derive(Debug, Default)]
pub(super) struct BytesKept(AtomicUsize);

impl BytesKept {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A finished response object, and where the items of its output are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptObject {
    pub(crate) object: Vec<u8>,
    /// The array, with its brackets.
    pub(crate) output: Range<usize>,
}

/// A finished response, with its input and what it builds on.
#[derive(Debug)]
pub(crate) struct KeptResponse {
    object: KeptObject,
    input: StoredInput,
    parent: Option<Arc<Self>>,
    /// Bytes of the items of the whole conversation.
    history_bytes: usize,
    counted: Option<(usize, Arc<BytesKept>)>,
}

/// Where an item stands.
#[derive(Debug, Clone)]
pub(super) struct ItemPlace {
    pub(super) id: String,
    is_output: bool,
    span: Range<usize>,
}

impl KeptResponse {
    pub(crate) fn new(object: KeptObject, input: StoredInput, parent: Option<Arc<Self>>) -> Self {
        let before = parent.as_ref().map_or(0, |parent| parent.history_bytes);
        let history_bytes = before + input.items.len() + object.output.len();
        Self {
            object,
            input,
            parent,
            history_bytes,
            counted: None,
        }
    }

    /// What counts against the bound on all responses.
    pub(super) fn bytes(&self) -> usize {
        let items = self.input.items.len() + self.object.output.len();
        items + uncovered(self.object.object.len() - self.object.output.len())
    }

    /// Counts it until it is dropped.
    pub(super) fn count(&mut self, kept: &Arc<BytesKept>) {
        let bytes = self.bytes();
        kept.0.fetch_add(bytes, Ordering::Relaxed);
        self.counted = Some((bytes, Arc::clone(kept)));
    }

    /// The object as it was sent.
    pub(crate) fn object(&self) -> &[u8] {
        &self.object.object
    }

    /// Its own input, an array of items.
    pub(crate) fn input(&self) -> &[u8] {
        &self.input.items
    }

    /// The items of its output, an array.
    pub(crate) fn output(&self) -> &[u8] {
        self.object
            .object
            .get(self.object.output.clone())
            .unwrap_or(b"[]")
    }

    /// Bytes of [`Self::conversation`].
    pub(crate) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// The items of the whole conversation: arrays, in their order.
    pub(crate) fn conversation(&self) -> Vec<&[u8]> {
        let mut arrays = Vec::new();
        let mut at = Some(self);
        while let Some(response) = at {
            arrays.push(response.output());
            arrays.push(response.input());
            at = response.parent.as_deref();
        }
        arrays.reverse();
        arrays
    }

    /// Its own items; those of a long output are not told apart.
    pub(super) fn places(&self) -> Vec<ItemPlace> {
        let input = self.input.places.iter().map(|(id, span)| ItemPlace {
            id: id.clone(),
            is_output: false,
            span: span.clone(),
        });
        let is_short = self.object.output.len() <= PARSED_MAX;
        let output = is_short.then(|| json::parse(self.output())).flatten();
        let output = output.into_iter().flat_map(JsonValue::elements);
        let output = output.filter_map(|item| {
            Some(ItemPlace {
                id: item.string_field("id").map(JsonText::decode)?.into_owned(),
                is_output: true,
                span: item.span(),
            })
        });
        input.chain(output).collect()
    }

    /// The item at a place.
    pub(super) fn item(&self, place: &ItemPlace) -> Option<&[u8]> {
        let array = if place.is_output {
            self.output()
        } else {
            self.input()
        };
        array.get(place.span.clone())
    }
}

/// What counts of the bytes of an object that are no items.
pub(crate) fn uncovered(bytes: usize) -> usize {
    bytes.saturating_sub(FREE_BYTES)
}

impl Drop for KeptResponse {
    fn drop(&mut self) {
        if let Some((bytes, kept)) = self.counted.take() {
            kept.0.fetch_sub(bytes, Ordering::Relaxed);
        }
        // One after the other: a long conversation must not fill the stack.
        let mut next = self.parent.take();
        while let Some(mut response) = next.and_then(Arc::into_inner) {
            next = response.parent.take();
        }
    }
}
