//! The prompt of a request as an engine sees it: what an endpoint may hold of it in its prefix cache,
//! and how many tokens it has.
//!
//! The prompt is the sequence of the raw bytes of `tools`, `system`, `instructions`, and then of the
//! elements of `messages` with a comma between them; without messages, of `input` or else `prompt`,
//! the elements or the text. The blanks around those commas are no part of it. The sequence is cut
//! into blocks, and each block has a hash of itself and everything before it: two requests have as
//! many leading hashes in common as they have leading blocks.
//!
//! The bytes are hashed where they are. The inspector has noted the borders between elements on its
//! way over the body ([`PromptParts`](crate::inspect::PromptParts)), so that nothing is scanned
//! again, unless an element is neither an object nor an array.
//!
//! Contract: docs/contract/scheduling.md#2

mod chain;
mod sequence;
#[cfg(test)]
mod tests;

use crate::inspect::Findings;
use chain::{Chain, FileAt};
pub use chain::{SHARED_SEED, mix, seed_of_key};

/// The bytes of a block.
pub const BLOCK_BYTES: usize = 512;

/// Blocks that are hashed: the first MiB of a prompt.
pub const BLOCKS_MAX: usize = 2_048;

/// Tokens of a file, however long it is, and of a body that is not JSON.
const TOKENS_OF_FILE: u64 = 1_000;

/// Files whose place in the prompt is known.
const FILES_MAX: usize = 16;

/// The size of a prompt, in whole and up to each block.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The bytes of the body less those of its files.
    text_bytes: u64,
    /// The files, or 1 for a body that is not JSON.
    files: u64,
    blocks: usize,
    /// The files that lie in the blocks, in the order of the sequence.
    placed: Option<Box<[FileAt; FILES_MAX]>>,
}

impl Prompt {
    /// Reads the prompt from a body and what an inspector that wanted it found there. The hashes of
    /// its blocks replace the content of `hashes`; there are at most [`BLOCKS_MAX`], and none if the
    /// body is no whole object, or the elements or the text are none.
    ///
    /// Prompts with different seeds have no hash in common: [`SHARED_SEED`], or [`seed_of_key`] for
    /// a client whose prompts are kept apart from those of others.
    pub fn read(body: &[u8], findings: &Findings, seed: u64, hashes: &mut Vec<u64>) -> Self {
        hashes.clear();
        let mut prompt = Self {
            text_bytes: 0,
            files: u64::from(!body.is_empty()),
            blocks: 0,
            placed: None,
        };
        if !findings.object {
            return prompt;
        }
        let tally = &findings.tally;
        prompt.text_bytes = (body.len() as u64).saturating_sub(tally.file_bytes);
        prompt.files = tally.files;
        let parts = &findings.prompt;
        if parts.is_whole && sequence::bytes_at_most(parts) >= BLOCK_BYTES {
            let mut placed = [FileAt::default(); FILES_MAX];
            let mut chain = Chain::new(seed, hashes, &parts.files, &mut placed);
            let is_sound = sequence::read(body, parts, &mut chain).is_some();
            chain.finish();
            if !is_sound {
                hashes.clear();
            }
            prompt.blocks = hashes.len();
            if tally.files > 0 {
                prompt.placed = Some(Box::new(placed));
            }
        }
        prompt
    }

    /// The size of a prompt whose blocks are not hashed.
    pub fn size(body: &[u8], findings: &Findings) -> Self {
        let is_object = findings.object;
        let files = u64::from(!body.is_empty());
        let bytes = (body.len() as u64).saturating_sub(findings.tally.file_bytes);
        Self {
            text_bytes: if is_object { bytes } else { 0 },
            files: if is_object {
                findings.tally.files
            } else {
                files
            },
            blocks: 0,
            placed: None,
        }
    }

    /// A prompt of text only, of which so many blocks are hashed.
    #[cfg(test)]
    pub(super) fn of_text(text_bytes: u64, blocks: usize) -> Self {
        Self {
            text_bytes,
            files: 0,
            blocks,
            placed: None,
        }
    }

    /// The bytes of the body that are no files; 0 for a body that is no JSON.
    pub const fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The files in the body; 1 for a body that is no JSON.
    pub const fn files(&self) -> u64 {
        self.files
    }

    /// The tokens of the first `blocks` blocks, and those of the rest of the body. Their sum is the
    /// same for every number of blocks. At least one byte counts as a token.
    pub fn tokens(&self, blocks: usize, bytes_per_token: f64) -> (u64, u64) {
        let bytes_per_token = bytes_per_token.max(1.0);
        let (bytes, files) = self.matched(blocks.min(self.blocks));
        let matched = (bytes as f64 / bytes_per_token) as u64;
        let matched = matched.saturating_add(files.saturating_mul(TOKENS_OF_FILE));
        let all = (self.text_bytes as f64 / bytes_per_token).ceil() as u64;
        let all = all.saturating_add(self.files.saturating_mul(TOKENS_OF_FILE));
        let matched = matched.min(all);
        (matched, all - matched)
    }

    /// The bytes of text and the files in the first blocks; a file is in the block in which it ends.
    fn matched(&self, blocks: usize) -> (u64, u64) {
        let end = blocks * BLOCK_BYTES;
        let (mut bytes, mut files) = (end as u64, 0);
        for file in self.placed.iter().flat_map(|placed| placed.iter()) {
            bytes = bytes.saturating_sub(file.bytes_before(end) as u64);
            files += u64::from(file.ends_before(end));
        }
        (bytes.min(self.text_bytes), files)
    }
}
