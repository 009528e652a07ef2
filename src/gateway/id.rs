//! Request ids.
//!
//! Contract: docs/contract/surface.md#6

use std::cell::RefCell;

/// The longest id that is accepted from a client, in bytes.
const ID_BYTES_MAX: usize = 128;

/// Random bytes fetched from the system at one time.
const RANDOM_BYTES: usize = 4096;

/// Hex digits of a generated id.
const HEX_DIGITS: usize = 12;

const ADJECTIVES: [&str; 32] = [
    "amber", "brisk", "calm", "clear", "daring", "deft", "eager", "early", "fleet", "frank",
    "gentle", "grand", "hardy", "humble", "keen", "kind", "lively", "lucid", "merry", "mild",
    "noble", "placid", "proud", "quick", "quiet", "rapid", "sharp", "steady", "sunny", "swift",
    "vivid", "witty",
];

const NOUNS: [&str; 32] = [
    "alpaca", "badger", "beaver", "bison", "condor", "coyote", "crane", "dingo", "egret", "falcon",
    "ferret", "finch", "gecko", "heron", "ibex", "jackal", "kestrel", "lemur", "llama", "lynx",
    "marten", "narwhal", "ocelot", "osprey", "otter", "panda", "puffin", "raven", "stoat", "tapir",
    "vicuna", "walrus",
];

/// The id of one request.
#[derive(Debug, Clone)]
pub(super) struct RequestId {
    bytes: [u8; ID_BYTES_MAX],
    len: u8,
}

impl Default for RequestId {
    fn default() -> Self {
        Self {
            bytes: [0; ID_BYTES_MAX],
            len: 0,
        }
    }
}

impl RequestId {
    /// Forgets the id of the request before.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes the id of the client, if it is valid.
    pub(super) fn take(&mut self, own: Option<&[u8]>) -> bool {
        let Some(own) = own.filter(|own| is_acceptable(own)) else {
            return false;
        };
        self.len = 0;
        self.push(own);
        true
    }

    /// Generates an id: two words and twelve random hex digits.
    pub(super) fn make(&mut self, random: &Randomness) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = random.take();
        let word = |words: &[&'static str; 32], byte: u8| words[usize::from(byte % 32)];
        self.len = 0;
        self.push(word(&ADJECTIVES, bytes[6]).as_bytes());
        self.push(b"-");
        self.push(word(&NOUNS, bytes[7]).as_bytes());
        self.push(b"-");
        for byte in bytes.iter().take(HEX_DIGITS / 2) {
            let digit = |nibble: u8| DIGITS[usize::from(nibble % 16)];
            self.push(&[digit(byte >> 4), digit(*byte)]);
        }
    }

    /// Appends bytes of an id. No id is longer than [`ID_BYTES_MAX`].
    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len() as u8;
    }

    /// The id; printable ASCII.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The id as a string.
    pub(super) fn as_str(&self) -> &str {
        // Ids are ASCII: those of clients are checked, the words of generated ones are ASCII.
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

fn is_acceptable(id: &[u8]) -> bool {
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(|byte| (0x21..=0x7e).contains(byte))
}

/// Random bytes of the system, read a page at a time.
#[derive(Debug)]
pub(super) struct Randomness(RefCell<(Vec<u8>, usize)>);

impl Randomness {
    pub(super) fn new() -> Self {
        Self(RefCell::new((vec![0; RANDOM_BYTES], RANDOM_BYTES)))
    }

    /// Eight random bytes.
    pub(super) fn take(&self) -> [u8; 8] {
        let (bytes, at) = &mut *self.0.borrow_mut();
        if *at + 8 > bytes.len() {
            // If the system has no random bytes, ids repeat.
            let _ = getrandom::fill(bytes);
            *at = 0;
        }
        let mut taken = [0; 8];
        taken.copy_from_slice(&bytes[*at..*at + 8]);
        *at += 8;
        taken
    }

    /// A random number.
    pub(super) fn number(&self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Sixteen random bytes.
    pub(super) fn seed(&self) -> [u8; 16] {
        let mut seed = [0; 16];
        let (front, back) = seed.split_at_mut(8);
        front.copy_from_slice(&self.take());
        back.copy_from_slice(&self.take());
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_taken_if_it_is_printable_and_short() {
        let long = "x".repeat(128);
        for own in ["a", "req-1", "~!\"#", long.as_str()] {
            let mut id = RequestId::default();
            assert!(id.take(Some(own.as_bytes())));
            assert_eq!(id.as_str(), own);
        }
        let longer = "x".repeat(129);
        for own in ["", "a b", "a\tb", "é", "a\u{7f}", longer.as_str()] {
            assert!(!RequestId::default().take(Some(own.as_bytes())), "{own:?}");
        }
        assert!(!RequestId::default().take(None));
    }

    #[test]
    fn made_ids_are_words_and_digits_and_differ() {
        let random = Randomness::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2000 {
            let mut id = RequestId::default();
            id.make(&random);
            let parts: Vec<_> = id.as_str().split('-').collect();
            assert_eq!(parts.len(), 3, "{}", id.as_str());
            assert!(parts[2].len() == 12 && u64::from_str_radix(parts[2], 16).is_ok());
            assert!((8..=64).contains(&id.as_bytes().len()));
            assert!(seen.insert(id.as_str().to_owned()));
        }
    }
}
