//! Text to fill prompts and responses with: plain words, nothing that JSON would escape, so that its
//! length in a body is its length.

use crate::chance::Chance;

/// Length of a page, in bytes.
const PAGE_BYTES: usize = 512;

const PAGES: usize = 64;

const WORDS: [&str; 48] = [
    "the", "report", "of", "a", "server", "in", "winter", "and", "its", "memory", "with", "every",
    "line", "that", "was", "read", "by", "people", "who", "write", "about", "trains", "to", "find",
    "an", "answer", "before", "they", "leave", "on", "monday", "for", "small", "cities", "near",
    "water", "where", "music", "is", "played", "at", "night", "under", "old", "trees", "from",
    "books", "again",
];

/// Pages of words, composed once: filling a long prompt costs a copy.
#[derive(Debug)]
pub struct Prose(Vec<String>);

impl Default for Prose {
    fn default() -> Self {
        let mut chance = Chance::new(17);
        let page = |_| {
            let mut page = String::with_capacity(PAGE_BYTES + 16);
            while page.len() < PAGE_BYTES {
                page.push_str(chance.pick(&WORDS));
                page.push(' ');
            }
            page.truncate(PAGE_BYTES);
            page
        };
        Self((0..PAGES).map(page).collect())
    }
}

impl Prose {
    /// Appends words until `out` has `length` bytes; leaves it alone when it has more.
    pub fn fill(&self, out: &mut String, length: usize, chance: &mut Chance) {
        while out.len() < length {
            let page = &self.0[chance.below(PAGES)];
            let left = length - out.len();
            out.push_str(&page[..left.min(PAGE_BYTES)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_the_length_and_needs_no_escapes() {
        let prose = Prose::default();
        for length in [0, 1, 511, 512, 513, 5000] {
            let mut text = String::new();
            prose.fill(&mut text, length, &mut Chance::new(3));
            assert_eq!(text.len(), length);
            let json = serde_json::Value::from(text).to_string();
            assert_eq!(json.len(), length + 2);
        }
        let mut text = "already longer".to_owned();
        prose.fill(&mut text, 3, &mut Chance::new(3));
        assert_eq!(text, "already longer");
    }
}
