//! Looks up a few paths in JSON text without building values.
//!
//! A response has a kilobyte or sixty-four, of which about ten numbers matter; everything else is
//! skipped. The text comes from an endpoint and may be anything: in a text that is not JSON nothing
//! is found, and the values found are not validated.

use memchr::memchr_iter;

use crate::json::scan::{nested_end, part, scalar_end, skip_blanks, string_end};

/// Most segments of a path; it also bounds how deep the search goes.
pub(super) const SEGMENTS_MAX: usize = 8;

/// Most different paths of one profile, the built-in ones included.
pub(super) const SLOTS_MAX: usize = 64;

/// Bytes at the end of a truncated document that are searched. Counts and times are at the end of a
/// response, after the generated text.
const CUT_BYTES_MAX: usize = 8 * 1024;

/// A whole number with at most this many digits is exact in an f64.
const DIGITS_MAX: usize = 15;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    Key(Box<str>),
    Index(usize),
}

/// Parses a path such as `usage.prompt_tokens` or `choices[0].finish_reason`; a leading `$.` is
/// ignored.
pub(super) fn parse_path(text: &str) -> Result<Vec<Segment>, String> {
    let text = text.trim();
    let bare = text.strip_prefix("$.").unwrap_or(text);
    let mut segments = Vec::new();
    for part in bare.split('.') {
        let (key, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
        if key.is_empty() || key.contains(['"', '\\', '*', ']']) {
            return Err(format!(
                "expected a path such as usage.prompt_tokens, got {text:?}"
            ));
        }
        segments.push(Segment::Key(key.into()));
        while !rest.is_empty() {
            let (index, after) = rest
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                .and_then(|(index, after)| Some((index.parse().ok()?, after)))
                .ok_or_else(|| format!("expected a number as index, got {text:?}"))?;
            segments.push(Segment::Index(index));
            rest = after;
        }
    }
    if segments.len() > SEGMENTS_MAX {
        return Err(format!(
            "expected a path of at most {SEGMENTS_MAX} parts, got {text:?}"
        ));
    }
    Ok(segments)
}

/// The value at the end of a path. Texts are raw: their escapes are not decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum FoundScalar<'a> {
    Number(f64),
    Text(&'a [u8]),
    Bool(bool),
}

/// The values found, by slot; `null` counts as not found.
pub(super) type FoundValues<'a> = [Option<FoundScalar<'a>>; SLOTS_MAX];

/// All paths of a profile, merged to one tree.
#[derive(Debug, Clone, Default)]
pub(super) struct JsonPaths {
    roots: PathLevel,
    /// The last key of each path of several segments and its slot, for truncated documents.
    last_keys: Vec<(Box<str>, usize)>,
    slots: Vec<Vec<Segment>>,
}

#[derive(Debug, Clone)]
struct Node {
    segment: Segment,
    slot: Option<usize>,
    children: PathLevel,
}

/// The possible next segments at one level.
#[derive(Debug, Clone, Default)]
struct PathLevel {
    /// A sign of each key, with the index of its node. Nearly all keys of a response are in no
    /// path, which comparing these few words shows.
    signs: Vec<(u64, usize)>,
    nodes: Vec<Node>,
}

/// The level below the end of a path.
static NOTHING: PathLevel = PathLevel {
    signs: Vec::new(),
    nodes: Vec::new(),
};

impl PathLevel {
    /// The node of a segment, created for a new one.
    fn node(&mut self, segment: &Segment) -> Option<&mut Node> {
        let known = self.nodes.iter().position(|node| node.segment == *segment);
        let at = known.unwrap_or_else(|| {
            let at = self.nodes.len();
            if let Segment::Key(key) = segment {
                self.signs.push((sign(key.as_bytes()), at));
            }
            self.nodes.push(Node {
                segment: segment.clone(),
                slot: None,
                children: Self::default(),
            });
            at
        });
        self.nodes.get_mut(at)
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[inline]
    fn of_key(&self, key: &[u8]) -> Option<&Node> {
        let wanted = sign(key);
        let of_sign = |(known, at): &(u64, usize)| {
            if *known != wanted {
                return None;
            }
            let node = self.nodes.get(*at)?;
            matches!(&node.segment, Segment::Key(name) if name.as_bytes() == key).then_some(node)
        };
        self.signs.iter().find_map(of_sign)
    }

    fn of_index(&self, index: usize) -> Option<&Node> {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.segment == Segment::Index(index))
    }
}

/// The first bytes of a key, or all of a short one, and its length: different for different keys,
/// with few exceptions.
#[inline]
fn sign(key: &[u8]) -> u64 {
    let bytes = if let Some(first) = key.first_chunk() {
        u64::from_le_bytes(*first)
    } else if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
    } else {
        key.iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
    };
    bytes ^ (key.len() as u64) << 56
}

impl JsonPaths {
    /// The slot of a path; equal paths have the same one. `None`: there are [`SLOTS_MAX`] already.
    pub(super) fn add(&mut self, path: Vec<Segment>) -> Option<usize> {
        if let Some(slot) = self.slots.iter().position(|known| *known == path) {
            return Some(slot);
        }
        let slot = self.slots.len();
        if slot >= SLOTS_MAX {
            return None;
        }
        let mut level = &mut self.roots;
        for (nth, segment) in path.iter().enumerate() {
            let node = level.node(segment)?;
            if nth + 1 == path.len() {
                node.slot = Some(slot);
            }
            level = &mut node.children;
        }
        if let [_, .., Segment::Key(key)] = path.as_slice() {
            self.last_keys.push((key.clone(), slot));
        }
        self.slots.push(path);
        Some(slot)
    }

    /// Searches a document that begins at the first byte. Returns the position after it, if it is
    /// complete.
    pub(super) fn whole<'a>(&self, doc: &'a [u8], found: &mut FoundValues<'a>) -> Option<usize> {
        value(doc, 0, &self.roots, None, found)
    }

    /// Searches the end of a truncated document. Keys are recognised by their quotes and colon,
    /// because quotes within texts are escaped. Of equal keys the last one counts.
    pub(super) fn cut<'a>(&self, doc: &'a [u8], found: &mut FoundValues<'a>) {
        let doc = part(doc, doc.len().saturating_sub(CUT_BYTES_MAX)..);
        let mut by_last_key: FoundValues<'a> = [None; SLOTS_MAX];
        for quote in memchr_iter(b'"', doc) {
            if quote > 0 && doc.get(quote - 1) == Some(&b'\\') {
                continue;
            }
            for node in &self.roots.nodes {
                if let Segment::Key(key) = &node.segment
                    && let Some(at) = behind_key(doc, quote, key)
                {
                    value(doc, at, &node.children, node.slot, found);
                }
            }
            for (key, slot) in &self.last_keys {
                if let Some(at) = behind_key(doc, quote, key) {
                    value(doc, at, &NOTHING, Some(*slot), &mut by_last_key);
                }
            }
        }
        fill(found, &by_last_key);
    }
}

/// Copies the values that are still missing.
pub(super) fn fill<'a>(found: &mut FoundValues<'a>, more: &FoundValues<'a>) {
    for (slot, more) in found.iter_mut().zip(more) {
        *slot = slot.or(*more);
    }
}

/// The position of the value, if the quote at this position begins the key.
fn behind_key(doc: &[u8], quote: usize, key: &str) -> Option<usize> {
    let rest = doc.get(quote + 1..)?.strip_prefix(key.as_bytes())?;
    let rest = rest.strip_prefix(b"\"")?;
    let colon = skip_blanks(rest, 0);
    (rest.get(colon) == Some(&b':')).then_some(doc.len() - rest.len() + colon + 1)
}

/// Reads or skips one value and returns the position after it. Recursion is as deep as the
/// tree of paths.
fn value<'a>(
    doc: &'a [u8],
    at: usize,
    level: &PathLevel,
    slot: Option<usize>,
    found: &mut FoundValues<'a>,
) -> Option<usize> {
    let at = skip_blanks(doc, at);
    match *doc.get(at)? {
        b'{' if !level.is_empty() => object(doc, at + 1, level, found),
        b'[' if !level.is_empty() => array(doc, at + 1, level, found),
        b'{' | b'[' => nested_end(doc, at),
        _ => {
            let end = value_end(doc, at)?;
            if slot.is_some() {
                keep(slot, doc.get(at..end).and_then(scalar), found);
            }
            Some(end)
        }
    }
}

/// Skips one value and returns the position after it.
fn value_end(doc: &[u8], at: usize) -> Option<usize> {
    let at = skip_blanks(doc, at);
    match *doc.get(at)? {
        b'"' => Some(string_end(doc, at + 1)? + 1),
        b'{' | b'[' => nested_end(doc, at),
        _ => {
            let end = scalar_end(doc, at);
            (end > at).then_some(end)
        }
    }
}

fn object<'a>(
    doc: &'a [u8],
    mut at: usize,
    level: &PathLevel,
    found: &mut FoundValues<'a>,
) -> Option<usize> {
    loop {
        at = skip_blanks(doc, at);
        match *doc.get(at)? {
            b'}' => return Some(at + 1),
            b',' => at += 1,
            b'"' => {
                let end = string_end(doc, at + 1)?;
                let key = doc.get(at + 1..end)?;
                at = skip_blanks(doc, end + 1);
                if doc.get(at) != Some(&b':') {
                    return None;
                }
                at = match level.of_key(key) {
                    Some(node) => value(doc, at + 1, &node.children, node.slot, found)?,
                    None => value_end(doc, at + 1)?,
                };
            }
            _ => return None,
        }
    }
}

fn array<'a>(
    doc: &'a [u8],
    mut at: usize,
    level: &PathLevel,
    found: &mut FoundValues<'a>,
) -> Option<usize> {
    let mut index = 0;
    loop {
        at = skip_blanks(doc, at);
        match *doc.get(at)? {
            b']' => return Some(at + 1),
            b',' => {
                index += 1;
                at += 1;
            }
            _ => {
                at = match level.of_index(index) {
                    Some(node) => value(doc, at, &node.children, node.slot, found)?,
                    None => value_end(doc, at)?,
                };
            }
        }
    }
}

fn keep<'a>(slot: Option<usize>, scalar: Option<FoundScalar<'a>>, found: &mut FoundValues<'a>) {
    if let Some(place) = slot.and_then(|slot| found.get_mut(slot)) {
        *place = scalar;
    }
}

fn scalar(token: &[u8]) -> Option<FoundScalar<'_>> {
    match token {
        [b'"', text @ .., b'"'] => Some(FoundScalar::Text(text)),
        b"true" => Some(FoundScalar::Bool(true)),
        b"false" => Some(FoundScalar::Bool(false)),
        // Most numbers are short counts, which are parsed faster this way.
        _ if token.len() <= DIGITS_MAX && token.iter().all(u8::is_ascii_digit) => {
            let digit = |number: u64, byte: &u8| number * 10 + u64::from(byte - b'0');
            Some(FoundScalar::Number(token.iter().fold(0, digit) as f64))
        }
        _ => {
            let number: f64 = std::str::from_utf8(token).ok()?.parse().ok()?;
            number.is_finite().then_some(FoundScalar::Number(number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(list: &[&str]) -> JsonPaths {
        let mut paths = JsonPaths::default();
        for path in list {
            paths.add(parse_path(path).unwrap()).unwrap();
        }
        paths
    }

    #[test]
    fn paths_are_read_or_refused() {
        let key = |key: &str| Segment::Key(key.into());
        for (text, expected) in [
            ("model", vec![key("model")]),
            ("$.usage.total", vec![key("usage"), key("total")]),
            (
                "choices[0].finish_reason",
                vec![key("choices"), Segment::Index(0), key("finish_reason")],
            ),
            (
                "a[1][2]",
                vec![key("a"), Segment::Index(1), Segment::Index(2)],
            ),
        ] {
            assert_eq!(parse_path(text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "$.",
            "a..b",
            ".a",
            "a.",
            "a[",
            "a[x]",
            "a[-1]",
            "[0]",
            "a[0]b",
            "a.*",
            "a.b.c.d.e.f.g.h.i",
        ] {
            assert!(parse_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_slot_for_one_path_and_no_more_than_there_are() {
        let mut paths = JsonPaths::default();
        assert_eq!(paths.add(parse_path("a.b").unwrap()), Some(0));
        assert_eq!(paths.add(parse_path("a").unwrap()), Some(1));
        assert_eq!(paths.add(parse_path("$.a.b").unwrap()), Some(0));
        for nth in 2..SLOTS_MAX {
            assert_eq!(paths.add(vec![Segment::Index(nth)]), Some(nth));
        }
        assert_eq!(paths.add(parse_path("z").unwrap()), None);
    }

    #[test]
    fn finds_what_is_there() {
        let paths = paths(&["model", "usage.total", "choices[1].end", "done"]);
        let text = |text: &'static str| Some(FoundScalar::Text(text.as_bytes()));
        let number = |number| Some(FoundScalar::Number(number));
        let table = [
            (r#"{"model":"m"}"#, [text("m"), None, None, None]),
            (
                r#" { "x" : [1,{"model":"no"},"]"], "usage" : { "total" : 1.5e1 } , "done":true }"#,
                [None, number(15.0), None, Some(FoundScalar::Bool(true))],
            ),
            (
                r#"{"choices":[{"end":"a"},{"end":"b"}],"model":"q\"\\"}"#,
                [text(r#"q\"\\"#), None, text("b"), None],
            ),
            (
                r#"{"usage":null,"model":null,"done":"x"}"#,
                [None, None, None, text("x")],
            ),
            (
                r#"{"usage":{"total":{"deep":1}},"done":false}"#,
                [None, None, None, Some(FoundScalar::Bool(false))],
            ),
            (
                r#"{"usage":{"total":1,"total":2}}"#,
                [None, number(2.0), None, None],
            ),
            // Cut or broken: what came before counts.
            (
                r#"{"model":"m","usage":{"total":7"#,
                [text("m"), number(7.0), None, None],
            ),
            (r#"{"model" "m"}"#, [None; 4]),
            (r#"[{"model":"m"}]"#, [None; 4]),
            ("", [None; 4]),
            ("\"", [None; 4]),
            ("{\"model\":}", [None; 4]),
            ("{\"model\":1e999}", [None; 4]),
        ];
        for (doc, expected) in table {
            let mut found = [None; SLOTS_MAX];
            paths.whole(doc.as_bytes(), &mut found);
            assert_eq!(found[..4], expected, "{doc}");
        }
    }

    #[test]
    fn finds_fields_behind_a_cut() {
        let paths = paths(&["eval_count", "usage.total", "choices[0].end"]);
        let number = |number| Some(FoundScalar::Number(number));
        let table = [
            (r#"1,2],"eval_count":9}"#, [number(9.0), None, None]),
            (
                r#"text"}],"usage":{"in":1,"total" : 3}}"#,
                [None, number(3.0), None],
            ),
            // In a text: escaped, so not a key.
            (r#"he said \"eval_count\": 5 "}"#, [None; 3]),
            (
                r#""eval_count":1,"eval_count":2"#,
                [number(2.0), None, None],
            ),
            // The way to it is cut off: its own name counts.
            (
                r#"x"},"end":"stop"}],"n":1}"#,
                [None, None, Some(FoundScalar::Text(b"stop"))],
            ),
            (r#""eval_count""#, [None; 3]),
        ];
        for (doc, expected) in table {
            let mut found = [None; SLOTS_MAX];
            paths.cut(doc.as_bytes(), &mut found);
            assert_eq!(found[..3], expected, "{doc}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(doc in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'),
                        Just(b':'), Just(b','), Just(b'a'), Just(b'1'), any::<u8>()], 0..80)) {
            let paths = paths(&["a", "a.a", "a[0].a", "a.a.a"]);
            let mut found = [None; SLOTS_MAX];
            paths.whole(&doc, &mut found);
            paths.cut(&doc, &mut found);
        }

        /// What serde_json reads, this finds.
        #[test]
        fn agrees_with_serde_json(text in ".*", number in any::<i32>(), other in ".*", deep in any::<bool>()) {
            let doc = serde_json::json!({
                "skip": {"usage": {"total": other}, "list": [other, number, {"model": 1}]},
                "usage": {"x": [text], "total": number},
                "done": deep,
                "model": text,
            });
            let bytes = serde_json::to_vec(&doc).unwrap();
            let paths = paths(&["model", "usage.total", "done"]);
            let mut found = [None; SLOTS_MAX];
            prop_assert_eq!(paths.whole(&bytes, &mut found), Some(bytes.len()));
            let quoted = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(found[0], Some(FoundScalar::Text(&quoted[1..quoted.len() - 1])));
            prop_assert_eq!(found[1], Some(FoundScalar::Number(f64::from(number))));
            prop_assert_eq!(found[2], Some(FoundScalar::Bool(deep)));
        }
    }
}
