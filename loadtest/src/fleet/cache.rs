//! The prefix cache of an engine, and the chain of blocks that a prompt is for it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

/// Length of a block, in bytes.
pub const BLOCK_BYTES: usize = 128;

/// Bytes that count as one token.
pub const TOKEN_BYTES: usize = 4;

/// Tokens of a block.
pub const BLOCK_TOKENS: u64 = (BLOCK_BYTES / TOKEN_BYTES) as u64;

/// A text as blocks, each with the hash of itself and all before it.
#[derive(Clone, Debug)]
pub struct Chain {
    blocks: Vec<u64>,
    /// What does not fill a block yet.
    tail: Vec<u8>,
    last: u64,
    bytes: usize,
}

impl Chain {
    /// An empty text. Texts for different models have no block in common.
    pub fn new(model: usize) -> Self {
        Self {
            blocks: Vec::new(),
            tail: Vec::with_capacity(BLOCK_BYTES),
            last: model as u64,
            bytes: 0,
        }
    }

    /// Appends a message: role, line end, content, line end.
    pub fn push_message(&mut self, role: &str, content: &str) {
        for part in [role, "\n", content, "\n"] {
            self.push(part.as_bytes());
        }
    }

    /// Appends bytes.
    pub fn push(&mut self, mut text: &[u8]) {
        self.bytes += text.len();
        if !self.tail.is_empty() {
            let missing = (BLOCK_BYTES - self.tail.len()).min(text.len());
            self.tail.extend_from_slice(&text[..missing]);
            text = &text[missing..];
            if self.tail.len() == BLOCK_BYTES {
                let block = std::mem::take(&mut self.tail);
                self.add_block(&block);
            }
        }
        let mut blocks = text.chunks_exact(BLOCK_BYTES);
        for block in &mut blocks {
            self.add_block(block);
        }
        self.tail.extend_from_slice(blocks.remainder());
    }

    fn add_block(&mut self, block: &[u8]) {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.last);
        hasher.write(block);
        self.last = hasher.finish();
        self.blocks.push(self.last);
    }

    /// The whole blocks.
    pub fn blocks(&self) -> &[u64] {
        &self.blocks
    }

    /// Length in tokens, rounded down.
    pub fn tokens(&self) -> u64 {
        (self.bytes / TOKEN_BYTES) as u64
    }
}

/// Blocks in the order of their last use; a new one takes the place of the oldest.
#[derive(Debug)]
pub struct PrefixCache {
    capacity: usize,
    places: HashMap<u64, usize>,
    /// A ring through the entries: `entries[0]` is its head, followed by the newest.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    block: u64,
    newer: usize,
    older: usize,
}

impl PrefixCache {
    /// An empty cache with room for this many blocks.
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            places: HashMap::new(),
            entries: vec![Entry {
                block: 0,
                newer: 0,
                older: 0,
            }],
        }
    }

    /// How many of the first blocks it has, one after another; they become the newest.
    pub fn hit(&mut self, blocks: &[u64]) -> usize {
        let mut count = 0;
        for block in blocks {
            let Some(&place) = self.places.get(block) else {
                break;
            };
            self.unlink(place);
            self.link_newest(place);
            count += 1;
        }
        count
    }

    /// Takes these blocks, the last one as the newest.
    pub fn put(&mut self, blocks: &[u64]) {
        if self.capacity == 0 {
            return;
        }
        for &block in blocks {
            let known = self.places.get(&block).copied();
            let place = match known {
                Some(place) => {
                    self.unlink(place);
                    place
                }
                None => self.take_place(block),
            };
            self.link_newest(place);
        }
    }

    /// A place for a new block: another one, or that of the oldest block.
    fn take_place(&mut self, block: u64) -> usize {
        let place = if self.places.len() < self.capacity {
            self.entries.push(self.entries[0]);
            self.entries.len() - 1
        } else {
            // The head is followed by the newest and preceded by the oldest.
            let oldest = self.entries[0].newer;
            self.unlink(oldest);
            self.places.remove(&self.entries[oldest].block);
            oldest
        };
        self.entries[place].block = block;
        self.places.insert(block, place);
        place
    }

    fn unlink(&mut self, place: usize) {
        let Entry { newer, older, .. } = self.entries[place];
        self.entries[newer].older = older;
        self.entries[older].newer = newer;
    }

    fn link_newest(&mut self, place: usize) {
        let newest = self.entries[0].older;
        self.entries[place].newer = 0;
        self.entries[place].older = newest;
        self.entries[newest].newer = place;
        self.entries[0].older = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::Chance;

    fn chain(text: &str) -> Chain {
        let mut chain = Chain::new(0);
        chain.push(text.as_bytes());
        chain
    }

    #[test]
    fn a_chain_is_the_same_however_the_text_comes() {
        let text = "a long prompt with several sentences ".repeat(40);
        let whole = chain(&text);
        assert_eq!(whole.blocks().len(), text.len() / BLOCK_BYTES);
        assert_eq!(whole.tokens(), (text.len() / TOKEN_BYTES) as u64);
        for step in [1, 5, 127, 128, 129, 300] {
            let mut parts = Chain::new(0);
            for part in text.as_bytes().chunks(step) {
                parts.push(part);
            }
            assert_eq!(parts.blocks(), whole.blocks(), "{step}");
        }
    }

    #[test]
    fn a_block_stands_for_all_before_it_and_for_its_model() {
        let (first, second) = ("x".repeat(BLOCK_BYTES), "y".repeat(BLOCK_BYTES));
        let both = chain(&(first.clone() + &second));
        assert_eq!(both.blocks()[0], chain(&first).blocks()[0]);
        assert_ne!(both.blocks()[1], chain(&second).blocks()[0]);
        let mut other = Chain::new(1);
        other.push(first.as_bytes());
        assert_ne!(other.blocks(), chain(&first).blocks());
    }

    #[test]
    fn a_message_counts_its_role_and_two_line_ends() {
        let mut chain = Chain::new(0);
        chain.push_message("user", &"x".repeat(94));
        assert_eq!(chain.tokens(), 25);
    }

    #[test]
    fn only_the_run_from_the_first_block_hits() {
        let mut cache = PrefixCache::new(10);
        cache.put(&[1, 2, 3]);
        for (blocks, want) in [
            (&[1, 2, 3, 4][..], 3),
            (&[1, 9, 3], 1),
            (&[2, 3], 2),
            (&[9], 0),
            (&[], 0),
        ] {
            assert_eq!(cache.hit(blocks), want, "{blocks:?}");
        }
        assert_eq!(PrefixCache::new(0).hit(&[1]), 0);
        let mut none = PrefixCache::new(0);
        none.put(&[1]);
        assert_eq!(none.hit(&[1]), 0);
    }

    #[test]
    fn the_least_recently_used_goes_as_in_a_list() {
        let mut chance = Chance::new(5);
        let mut cache = PrefixCache::new(8);
        let mut list: Vec<u64> = Vec::new();
        for _ in 0..5000 {
            let block = chance.below(14) as u64;
            if chance.one_in(2) {
                let known = list.contains(&block);
                assert_eq!(cache.hit(&[block]), usize::from(known));
                if known {
                    list.retain(|one| *one != block);
                    list.push(block);
                }
            } else {
                cache.put(&[block]);
                list.retain(|one| *one != block);
                list.push(block);
                if list.len() > 8 {
                    list.remove(0);
                }
            }
        }
    }
}
