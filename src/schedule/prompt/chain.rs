//! The hashes of a sequence of bytes that arrives in pieces, block by block.

use std::ops::Range;

use twox_hash::XxHash3_64;

use super::{BLOCK_BYTES, BLOCKS_MAX, FILES_MAX};
use crate::inspect::BodySpan;

/// Where the chain of hashes begins if all clients share their prompts.
pub const SHARED_SEED: u64 = 0x6F6C_6C61_2F70_7266;

/// Where it begins for a client whose prompts are kept apart, by the name of its key. The secret
/// keeps others from looking for a prompt of their own that has the hashes of this client's.
pub fn seed_of_key(secret: u64, name: &str) -> u64 {
    mix(
        SHARED_SEED ^ secret,
        XxHash3_64::oneshot_with_seed(secret, name.as_bytes()),
    )
}

/// Continues a chain with a value: a block, or what else must not be mixed up, such as the model's
/// name. Different values lead to different results, and so do different chains with the same value.
#[inline]
pub const fn mix(chain: u64, value: u64) -> u64 {
    // The finisher of SplitMix64 (D. Stafford's variant 13).
    let bits = chain.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ value;
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// Pieces that are shorter are copied.
const PENDING_BYTES: usize = 4 * BLOCK_BYTES;

/// No file is shorter.
const FILE_BYTES_MIN: usize = 1_024;

/// The place of a file in the sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FileAt {
    start: u32,
    /// 0 = there is no file.
    end: u32,
}

impl FileAt {
    /// Its bytes that lie before an offset.
    pub(super) fn bytes_before(self, offset: usize) -> usize {
        (self.end as usize)
            .min(offset)
            .saturating_sub(self.start as usize)
    }

    /// Whether it ends before an offset, with its closing quote or without.
    pub(super) const fn ends_before(self, offset: usize) -> bool {
        self.end > 0 && self.end as usize <= offset
    }
}

/// A sequence that is being hashed.
pub(super) struct Chain<'p> {
    hashes: &'p mut Vec<u64>,
    last: u64,
    /// The last bytes, `filled` of them, from the start of a block on.
    pending: [u8; PENDING_BYTES],
    filled: usize,
    /// The files of the body, and those of them that the sequence has.
    files: &'p [BodySpan],
    placed: &'p mut [FileAt; FILES_MAX],
    placed_count: usize,
}

impl<'p> Chain<'p> {
    pub(super) fn new(
        seed: u64,
        hashes: &'p mut Vec<u64>,
        files: &'p [BodySpan],
        placed: &'p mut [FileAt; FILES_MAX],
    ) -> Self {
        Self {
            hashes,
            last: seed,
            pending: [0; PENDING_BYTES],
            filled: 0,
            files,
            placed,
            placed_count: 0,
        }
    }

    /// Whether nothing more is hashed.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.hashes.len() + self.filled / BLOCK_BYTES >= BLOCKS_MAX
    }

    /// Appends a part of the body.
    #[inline]
    pub(super) fn push(&mut self, body: &[u8], part: Range<usize>) {
        if !self.files.is_empty() {
            self.place_files(&part);
        }
        self.push_bytes(body.get(part).unwrap_or(b""));
    }

    pub(super) fn push_comma(&mut self) {
        self.push_bytes(b",");
    }

    /// Small pieces are collected; of large ones the whole blocks are hashed where they are.
    #[inline]
    fn push_bytes(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        match self.pending.get_mut(self.filled..end) {
            Some(slot) => {
                slot.copy_from_slice(bytes);
                self.filled = end;
            }
            None => self.push_large(bytes),
        }
    }

    fn push_large(&mut self, bytes: &[u8]) {
        let missing = self.filled.next_multiple_of(BLOCK_BYTES) - self.filled;
        let (head, bytes) = bytes.split_at(missing.min(bytes.len()));
        if let Some(slot) = self.pending.get_mut(self.filled..self.filled + head.len()) {
            slot.copy_from_slice(head);
            self.filled += head.len();
        }
        self.hash_pending();
        let (blocks, rest) = bytes.as_chunks();
        self.last = hash(blocks, self.last, self.hashes);
        if let Some(slot) = self.pending.get_mut(..rest.len()) {
            slot.copy_from_slice(rest);
            self.filled = rest.len();
        }
    }

    /// Ends the sequence. What is shorter than a block is not hashed.
    pub(super) fn finish(mut self) {
        self.hash_pending();
    }

    fn hash_pending(&mut self) {
        let (blocks, _) = self.pending.as_chunks();
        let whole = blocks.get(..self.filled / BLOCK_BYTES).unwrap_or(&[]);
        self.last = hash(whole, self.last, self.hashes);
        self.filled = 0;
    }

    /// Notes where the files are that begin in a part which is appended next. Only what comes last
    /// in a sequence ends within a file.
    #[cold]
    fn place_files(&mut self, part: &Range<usize>) {
        if part.len() < FILE_BYTES_MIN {
            return;
        }
        let offset = self.hashes.len() * BLOCK_BYTES + self.filled;
        let in_u32 = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        for file in self.files.iter().map(|file| file.range()) {
            let slot = self.placed.get_mut(self.placed_count);
            if let Some(slot) = slot.filter(|_| part.contains(&file.start)) {
                let start = offset + (file.start - part.start);
                *slot = FileAt {
                    start: in_u32(start),
                    end: in_u32(start + file.len()),
                };
                self.placed_count += 1;
            }
        }
    }
}

/// Continues a chain with blocks, as long as there is room.
fn hash(blocks: &[[u8; BLOCK_BYTES]], chain: u64, hashes: &mut Vec<u64>) -> u64 {
    let mut chain = chain;
    let room = BLOCKS_MAX.saturating_sub(hashes.len());
    for block in blocks.iter().take(room) {
        chain = mix(chain, XxHash3_64::oneshot(block));
        hashes.push(chain);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(pieces: &[&[u8]]) -> Vec<u64> {
        let (mut hashes, mut placed) = (Vec::new(), [FileAt::default(); FILES_MAX]);
        let mut chain = Chain::new(7, &mut hashes, &[], &mut placed);
        pieces
            .iter()
            .for_each(|piece| chain.push(piece, 0..piece.len()));
        chain.finish();
        hashes
    }

    #[test]
    fn pieces_make_no_difference() {
        let text: Vec<u8> = (0..2_000_u32).map(|n| ((n * n) >> 3) as u8).collect();
        let whole = hashes(&[&text]);
        assert_eq!(whole.len(), 3);
        for cut in 0..text.len() {
            let (head, rest) = text.split_at(cut);
            assert_eq!(hashes(&[head, b"", rest]), whole, "{cut}");
        }
        for piece in [1, 7, 511, 512, 513, 1_024] {
            let pieces: Vec<_> = text.chunks(piece).collect();
            assert_eq!(hashes(&pieces), whole, "{piece}");
        }
    }

    #[test]
    fn a_block_is_hashed_with_what_is_before_it() {
        let blocks = [[1; BLOCK_BYTES], [2; BLOCK_BYTES], [1; BLOCK_BYTES]];
        let all = hashes(&[blocks.as_flattened()]);
        assert_ne!(all[0], all[2]);
        assert_eq!(hashes(&[&blocks[0]]), all[..1]);
        assert_ne!(hashes(&[&blocks[1]])[0], all[1]);
        let expected = mix(7, XxHash3_64::oneshot(&blocks[0]));
        assert_eq!(all[0], expected);
        assert_eq!(all[1], mix(expected, XxHash3_64::oneshot(&blocks[1])));
    }

    #[test]
    fn a_sequence_has_a_bound() {
        let text = vec![5; (BLOCKS_MAX + 3) * BLOCK_BYTES];
        let whole = hashes(&[&text]);
        assert_eq!(whole.len(), BLOCKS_MAX);
        assert_eq!(hashes(&[&text[..300], &text[300..]]), whole);
        assert_eq!(hashes(&[&text, &text]), whole);
    }

    #[test]
    fn seeds_differ_by_key() {
        let seeds = [
            SHARED_SEED,
            seed_of_key(1, ""),
            seed_of_key(1, "a"),
            seed_of_key(1, "b"),
        ];
        for (at, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..at].contains(seed));
        }
    }
}
