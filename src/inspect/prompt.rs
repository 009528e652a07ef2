//! Where the parts of a body are that make up the prompt, noted while the body is scanned.
//! `schedule::prompt` puts them in the order in which an engine sees them.
//!
//! Contract: docs/contract/scheduling.md#2

use std::ops::Range;

use super::keep_alive;
use super::scan::{self, Strings, before};
use super::tally::{BodyTally, TEXT_BYTES_MAX};
use super::{Wanted, is_absent};
use crate::json::scan::is_blank;

/// Borders between elements that are noted. The elements of an array with more of them are looked
/// for again when they are needed.
const GAPS_MAX: usize = 16 << 10;

/// There is room for so many from the first on.
const GAPS_USUAL: usize = 64;

/// Files whose place is noted.
const FILES_MAX: usize = 16;

/// The bytes of an array from which a prompt is read, blanks included.
pub(crate) const LIST_BYTES_MAX: usize = 2 << 20;

/// A part of a body of less than 4 GiB; empty = there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodySpan {
    start: u32,
    end: u32,
}

impl BodySpan {
    /// Its place in the body.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl From<Range<usize>> for BodySpan {
    /// A larger body is not read (`PromptParts::is_whole`), so that what is cut off here is not seen.
    fn from(range: Range<usize>) -> Self {
        Self {
            start: range.start as u32,
            end: range.end as u32,
        }
    }
}

/// The parts of the prompt in a body: raw JSON, strings with their quotes. Of duplicate keys the last
/// counts. What is not noted is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptParts {
    pub(crate) tools: BodySpan,
    pub(crate) system: BodySpan,
    pub(crate) instructions: BodySpan,
    pub(crate) messages: BodySpan,
    pub(crate) input: BodySpan,
    pub(crate) prompt: BodySpan,
    /// What is between the elements of an array, where that is not only a comma: blanks, a comma and
    /// blanks. Before the first element it begins with the bracket, and behind the last one it has no
    /// comma.
    pub(crate) gaps: Vec<BodySpan>,
    /// The bracket of that array.
    list: u32,
    in_list: bool,
    /// There are too many, or an element is neither object nor array.
    gaps_are_missing: bool,
    /// The first files, without their quotes.
    pub(crate) files: Vec<BodySpan>,
    /// The body is a whole object of a size that is read.
    pub(crate) is_whole: bool,
    pub(super) keep_alive: BodySpan,
    unloads: bool,
}

impl PromptParts {
    /// Whether the request asks for its model to be unloaded when it ends: `keep_alive` is zero
    /// (docs/contract/scheduling.md#3).
    pub const fn unloads(&self) -> bool {
        self.unloads
    }

    /// What is between the elements of this array, if that was noted.
    pub(crate) fn gaps_of(&self, array: BodySpan) -> Option<&[BodySpan]> {
        (self.list == array.start && !self.gaps_are_missing).then_some(&self.gaps)
    }

    /// The same of a body in which other parts were replaced.
    pub(super) fn move_by(&mut self, moved: impl Fn(&Range<usize>) -> Range<usize>) {
        let list = moved(&(self.list as usize..self.list as usize + 1));
        self.list = list.start as u32;
        let spans = [
            &mut self.tools,
            &mut self.system,
            &mut self.instructions,
            &mut self.messages,
            &mut self.input,
            &mut self.prompt,
            &mut self.keep_alive,
        ];
        let spans = spans.into_iter().chain(&mut self.gaps);
        for span in spans.chain(&mut self.files) {
            if !span.is_empty() {
                *span = BodySpan::from(moved(&span.range()));
            }
        }
    }

    /// At the bracket that opens a top-level value; `is_list`: the borders of its elements are noted.
    pub(super) fn open(&mut self, at: usize, is_list: bool) {
        self.in_list = is_list;
        if is_list {
            self.gaps.clear();
            self.gaps_are_missing = false;
            self.list = at as u32;
        }
    }

    pub(super) const fn is_in_list(&self) -> bool {
        self.in_list
    }

    /// Once the body is complete or has ended early.
    pub(super) fn finish(&mut self, body: &[u8]) {
        for span in [
            &mut self.tools,
            &mut self.system,
            &mut self.instructions,
            &mut self.messages,
            &mut self.input,
            &mut self.prompt,
        ] {
            if !span.is_empty() && is_absent(body, &span.range()) {
                *span = BodySpan::default();
            }
        }
        self.unloads = !self.keep_alive.is_empty()
            && body
                .get(self.keep_alive.range())
                .is_some_and(keep_alive::is_zero);
    }

    /// At the bracket at `at`, which opens an element of the list or closes the list.
    #[cold]
    fn note_border(&mut self, body: &[u8], at: usize) {
        let list = self.list as usize;
        // As Python writes it.
        if let Some([b'}', b',', b' ']) = before(body, at)
            && self.gaps.len() < self.gaps.capacity()
            && at - list < LIST_BYTES_MAX
        {
            self.gaps.push(BodySpan::from(at - 2..at));
            return;
        }
        self.note_unusual_border(body, at);
    }

    #[cold]
    fn note_unusual_border(&mut self, body: &[u8], at: usize) {
        let list = self.list as usize;
        let inner = without_blanks(body.get(list + 1..at).unwrap_or(b""));
        let before = match body.get(at) {
            Some(b'[' | b'{') if inner.is_empty() && at == list + 1 => return,
            Some(b'[' | b'{') if inner.is_empty() => Some(list),
            Some(b'[' | b'{') => inner.strip_suffix(b",").and_then(|inner| end(list, inner)),
            _ => end(list, inner),
        };
        match before {
            Some(before) if before - list > LIST_BYTES_MAX => {}
            Some(before) if self.gaps.len() < GAPS_MAX => {
                if self.gaps.is_empty() {
                    self.gaps.reserve(GAPS_USUAL);
                }
                self.gaps.push(BodySpan::from(before..at));
            }
            _ => self.gaps_are_missing = true,
        }
    }
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().rposition(|byte| !is_blank(*byte));
    last.and_then(|last| bytes.get(..=last)).unwrap_or(b"")
}

/// Where an element ends that is an object or array, behind which only blanks are.
fn end(list: usize, inner: &[u8]) -> Option<usize> {
    let inner = without_blanks(inner);
    (inner.ends_with(b"}") || inner.ends_with(b"]")).then(|| list + 1 + inner.len())
}

/// Calls `take` with the blanks between the elements of an array until it returns false; a run of
/// them may come in parts. They are looked for, which costs about as much as the inspection did.
pub(crate) fn blanks_between(
    body: &[u8],
    array: Range<usize>,
    take: impl FnMut(Range<usize>) -> bool,
) {
    let body = body.get(..array.end).unwrap_or(body);
    scan::blanks_between(body, array.start + 1, take);
}

/// What is noted of a value that is scanned. `BORDERS`: also the borders of its elements.
pub(super) struct Notes<'n, const BORDERS: bool> {
    tally: &'n mut BodyTally,
    parts: &'n mut PromptParts,
    keeps_files: bool,
}

impl<'n, const BORDERS: bool> Notes<'n, BORDERS> {
    #[inline]
    pub(super) fn of(wanted: Wanted, tally: &'n mut BodyTally, parts: &'n mut PromptParts) -> Self {
        Self {
            tally,
            parts,
            keeps_files: wanted.prompt,
        }
    }

    /// Takes a string at the top level, between its quotes.
    #[inline]
    pub(super) fn text(&mut self, body: &[u8], text: Range<usize>) {
        if text.len() > TEXT_BYTES_MAX {
            self.long_text(body, text, false);
        }
    }

    #[cold]
    fn long_text(&mut self, body: &[u8], text: Range<usize>, in_images: bool) {
        let is_file = self.tally.long_text(body, &text, in_images);
        if is_file && self.keeps_files && self.parts.files.len() < FILES_MAX {
            self.parts.files.push(BodySpan::from(text));
        }
    }
}

impl<const BORDERS: bool> Strings for Notes<'_, BORDERS> {
    const COUNT: bool = true;
    const LENGTH_MIN: usize = TEXT_BYTES_MAX + 1;
    const BORDERS: bool = BORDERS;

    fn take(&mut self, body: &[u8], text: Range<usize>, in_images: bool) {
        self.long_text(body, text, in_images);
    }

    #[inline]
    fn border(&mut self, body: &[u8], at: usize) {
        self.parts.note_border(body, at);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Findings, Inspector};
    use super::*;

    const PROMPT: Wanted = Wanted {
        name_key: false,
        vision: false,
        tally: false,
        prompt: true,
    };

    fn find(body: &str) -> Findings {
        let body = body.as_bytes();
        let found = Inspector::new(PROMPT).finish(body);
        let mut by_byte = Inspector::new(PROMPT);
        for end in 0..body.len() {
            let mut cut_once = Inspector::new(PROMPT);
            cut_once.advance(&body[..end]);
            assert_eq!(cut_once.finish(body), found, "cut at {end}");
            by_byte.advance(&body[..end]);
        }
        assert_eq!(by_byte.finish(body), found, "byte by byte");
        found
    }

    fn parts(body: &str) -> [&str; 6] {
        let parts = find(body).prompt;
        assert!(parts.is_whole, "{body}");
        [
            parts.tools,
            parts.system,
            parts.instructions,
            parts.messages,
            parts.input,
            parts.prompt,
        ]
        .map(|span| &body[span.range()])
    }

    #[test]
    fn parts_are_found_at_the_top_level() {
        let table = [
            ("{}", ["", "", "", "", "", ""]),
            (
                r#"{"messages":[ {} ],"tools":[1],"system":"s","instructions":"i","input":"t","prompt":["p"]}"#,
                ["[1]", "\"s\"", "\"i\"", "[ {} ]", "\"t\"", "[\"p\"]"],
            ),
            (
                r#"{"x":{"tools":[1],"input":"a"},"tools":7,"system":{"a":1}}"#,
                ["7", r#"{"a":1}"#, "", "", "", ""],
            ),
            // Of duplicates the last counts; null and [] count as absent.
            (
                r#"{"tools":[1],"tools":[2],"system":"a","system":null,"input":[ ]}"#,
                ["[2]", "", "", "", "", ""],
            ),
            (
                r#"{"t\u006fols":[1],"\u0069nstructions":"i","Input":"x"}"#,
                ["[1]", "", "\"i\"", "", "", ""],
            ),
        ];
        for (body, expected) in table {
            assert_eq!(parts(body), expected, "{body}");
        }
        for broken in ["", "[]", r#"{"input":"a""#, r#"{"input":"a","#] {
            assert!(!find(broken).prompt.is_whole, "{broken}");
        }
    }

    #[test]
    fn borders_that_are_more_than_a_comma() {
        let table: [(&str, Option<&[&str]>); 12] = [
            (r#"{"messages":[{},{"a":[{},{}]},[]]}"#, Some(&[])),
            (
                r#"{"messages":[ {}, {"a":[1, {} ]} ,{} ]}"#,
                Some(&["[ ", ", ", " ,", " "]),
            ),
            // Another array, or a value of another kind, leaves the noted ones alone.
            (
                r#"{"messages":[{}, {}],"x":[{} , {}],"prompt":"a"}"#,
                Some(&[", "]),
            ),
            (r#"{"messages":[{}, {}],"prompt":[{} ,{}]}"#, None),
            // An element of another kind, or none.
            (r#"{"messages":[{},"a",{}]}"#, None),
            (r#"{"messages":["a",{}]}"#, None),
            (r#"{"messages":[{},"a"]}"#, None),
            (r#"{"messages":["a","b"]}"#, None),
            (r#"{"messages":[{} {}]}"#, None),
            (r#"{"messages":[{},,{}]}"#, None),
            (r#"{"messages":[{}, ]}"#, None),
            (r#"{"messages":[,{}]}"#, None),
        ];
        for (body, gaps) in table {
            let found = find(body).prompt;
            let found = found.gaps_of(found.messages).map(|gaps| {
                let texts = gaps.iter().map(|gap| &body[gap.range()]);
                texts.collect::<Vec<_>>()
            });
            assert_eq!(found.as_deref(), gaps, "{body}");
        }
    }

    #[test]
    fn more_borders_than_are_noted() {
        let body = |count: usize| format!(r#"{{"messages":[{}{{}}]}}"#, "{}, ".repeat(count));
        for (count, noted) in [(GAPS_MAX, true), (GAPS_MAX + 1, false)] {
            let body = body(count);
            let found = Inspector::new(PROMPT).finish(body.as_bytes()).prompt;
            assert_eq!(found.gaps_of(found.messages).is_some(), noted, "{count}");
            assert_eq!(found.gaps.len(), GAPS_MAX);
        }
    }

    #[test]
    fn files_and_their_places() {
        let file = format!("data:{}", "A".repeat(1_030));
        let body = format!(r#"{{"input":"{file}","x":["{file}","{}"]}}"#, &file[5..]);
        let found = find(&body);
        assert_eq!((found.tally.files, found.tally.file_bytes), (2, 2_070));
        for span in &found.prompt.files {
            assert_eq!(body[span.range()], file);
        }
        let many = format!(r#"{{"images":["{}"]}}"#, vec![file; 20].join("\",\""));
        let found = Inspector::new(PROMPT).finish(many.as_bytes());
        assert_eq!(
            (found.tally.files, found.prompt.files.len()),
            (20, FILES_MAX)
        );
    }

    #[test]
    fn only_what_the_prompt_needs() {
        let body = r#"{"model":"a","model":"b","max_tokens":9,"n":2,"options":{"num_predict":12}}"#;
        let found = find(body);
        let tally = BodyTally {
            output: Some(12),
            choices: Some(2),
            ..BodyTally::default()
        };
        assert_eq!(found.tally, tally);
        let nothing = Wanted {
            prompt: false,
            ..PROMPT
        };
        let body = r#"{"messages":[{}, {}],"tools":[1],"keep_alive":0}"#;
        let found = Inspector::new(nothing).finish(body.as_bytes());
        assert_eq!(found.prompt, PromptParts::default());
    }

    #[test]
    fn requests_that_unload_their_model() {
        for (body, unloads) in [
            (r#"{"keep_alive":0}"#, true),
            (r#"{"keep_alive" : "0s" , "x":1}"#, true),
            (r#"{"keep_alive":5,"keep_alive":0}"#, true),
            (r#"{"keep_alive":0,"keep_alive":"5m"}"#, false),
            (r#"{"keep_alive":0,"keep_alive":null}"#, false),
            (r#"{"keep_alive":[0]}"#, false),
            (r#"{"options":{"keep_alive":0}}"#, false),
            (r#"{"keep\u005falive":0}"#, true),
            ("{}", false),
        ] {
            assert_eq!(find(body).prompt.unloads(), unloads, "{body}");
        }
    }
}
