//! Where the long values of a text end, found in one walk, so that later walks on any level pass
//! over them in one step.
//!
//! The index is optional: a value that is not in it is walked over. So its size can be bounded.

use super::scan::string_end;

/// The shortest value that is indexed; a search costs more than walking over a shorter one.
const LONG_BYTES: usize = 64;

/// The most entries, of eight bytes each: far more than a request of usual form has, and a bound
/// for one that is made of brackets.
const ENTRIES_MAX: usize = 1 << 16;

/// The deepest value that is indexed; the structure of the API is not nested as deep.
const DEPTH_MAX: usize = 64;

/// Start and end of each long value, by start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SpanIndex(Vec<(u32, u32)>);

/// An index without values.
pub(super) static NO_INDEX: SpanIndex = SpanIndex(Vec::new());

impl SpanIndex {
    /// The index of a text that is JSON. Positions beyond 4 GiB are not in it.
    pub(super) fn of(text: &[u8]) -> Self {
        let mut entries: Vec<(u32, u32)> = Vec::new();
        // For each open value its place in `entries`, if it has one.
        let mut open = [None; DEPTH_MAX];
        let mut depth = 0_usize;
        let mut pos = 0;
        while let Some(&byte) = text.get(pos) {
            let start = pos;
            pos += 1;
            match byte {
                b'"' => {
                    pos = string_end(text, pos).unwrap_or(text.len()) + 1;
                    if pos - start >= LONG_BYTES
                        && let Some(at) = begin(&mut entries, start)
                    {
                        end(&mut entries, at, pos);
                    }
                }
                b'{' | b'[' => {
                    if let Some(slot) = open.get_mut(depth) {
                        *slot = begin(&mut entries, start);
                    }
                    depth += 1;
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if let Some(at) = open.get_mut(depth).and_then(Option::take) {
                        end(&mut entries, at, pos);
                    }
                }
                _ => {}
            }
        }
        Self(entries)
    }

    /// The end of the value that starts at `start`, if it is a long one.
    pub(super) fn end_of(&self, start: usize) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let start = u32::try_from(start).ok()?;
        let at = self.0.binary_search_by_key(&start, |entry| entry.0).ok()?;
        self.0.get(at).map(|entry| entry.1 as usize)
    }
}

/// Adds an entry if there is room.
fn begin(entries: &mut Vec<(u32, u32)>, start: usize) -> Option<usize> {
    let start = u32::try_from(start).ok()?;
    if entries.len() >= ENTRIES_MAX {
        return None;
    }
    entries.push((start, start));
    Some(entries.len() - 1)
}

/// Completes an entry, or takes it back if its value is short; then nothing long is inside of it,
/// and it is the last.
fn end(entries: &mut Vec<(u32, u32)>, at: usize, end: usize) {
    let Some(entry) = entries.get_mut(at) else {
        return;
    };
    let is_short = end - (entry.0 as usize) < LONG_BYTES;
    match u32::try_from(end) {
        Ok(end) if !is_short => entry.1 = end,
        _ => entries.truncate(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_known_by_their_start() {
        let long = "x".repeat(LONG_BYTES);
        let text = format!(r#" {{"a":[1,[],"{{"],"b":["{long}",{{}}],"\"":"{long}\\"}}"#);
        let index = SpanIndex::of(text.as_bytes());
        let list = text.find(r#"["x"#).unwrap();
        let last = text.rfind("\"x").unwrap();
        assert_eq!(
            index.0,
            [
                (1, text.len()),
                (list, list + LONG_BYTES + 7),
                (list + 1, list + LONG_BYTES + 3),
                (last, text.len() - 1),
            ]
            .map(|(start, end)| (start as u32, end as u32))
        );
        assert_eq!(index.end_of(1), Some(text.len()));
        assert_eq!(index.end_of(2), None);
        assert_eq!(NO_INDEX.end_of(1), None);
    }

    #[test]
    fn the_index_is_bounded() {
        let flat = format!(
            "[{}0]",
            format!("[{}],", " ".repeat(LONG_BYTES)).repeat(ENTRIES_MAX)
        );
        let index = SpanIndex::of(flat.as_bytes());
        assert_eq!(index.0.len(), ENTRIES_MAX);
        assert_eq!(index.end_of(0), Some(flat.len()));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(SpanIndex::of(deep.as_bytes()).0.len(), DEPTH_MAX);
    }
}
