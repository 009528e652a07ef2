//! What is kept of a secret: its SHA-256.
//!
//! Contract: docs/contract/access.md#3.2

use std::fmt;

use ring::digest::{SHA256, digest};

/// The SHA-256 of a secret's bytes. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest([u8; 32]);

/// Where the stored form of a digest begins.
const PREFIX: &str = "sha256:";

impl KeyDigest {
    /// The digest of a secret as it is sent behind `Bearer `.
    pub fn of(secret: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(bytes)
    }

    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the stored form: `sha256:` and 64 hexadecimal digits of any case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?.as_bytes();
        let (pairs, []) = digits.as_chunks::<2>() else {
            return None;
        };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// The stored form.
    pub fn stored(&self) -> String {
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in self.0 {
            push_hex(&mut text, byte);
        }
        text
    }

    /// The id of a key: the first 8 hexadecimal digits. Logs and listings show it.
    pub fn id(&self) -> String {
        let mut text = String::with_capacity(8);
        for byte in self.0.iter().take(4) {
            push_hex(&mut text, *byte);
        }
        text
    }
}

fn push_hex(text: &mut String, byte: u8) {
    for digit in [byte >> 4, byte & 15] {
        text.extend(char::from_digit(u32::from(digit), 16));
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Whether a secret that is brought along has its form: 16 to 256 bytes of `0x21`–`0x7E`.
pub(crate) fn is_secret(secret: &[u8]) -> bool {
    (16..=256).contains(&secret.len()) && secret.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_contract() {
        let secret = b"olla-EQcCNR6WkewLTwzvKyCmzgNXrUKY4m2ArgyHfhdeokR3gAVw1";
        let stored = "sha256:f8e1db8bf86099164958573841492df0a72c21e8c5e5b4d38f6c5d5d868393e7";
        let digest = KeyDigest::of(secret);
        assert_eq!(digest.stored(), stored);
        assert_eq!(digest.id(), "f8e1db8b");
        assert_eq!(KeyDigest::parse(stored), Some(digest));
        let upper = format!("sha256:{}", stored["sha256:".len()..].to_uppercase());
        assert_eq!(KeyDigest::parse(&upper), Some(digest));
        assert_eq!(format!("{digest:?}"), "(hidden)");
        let wrong = [
            "",
            "sha256:",
            &stored[7..],
            &stored[..70],
            &format!("{stored}0"),
            &stored.replace('f', "g"),
            &stored.replace("sha", "SHA"),
        ];
        for text in wrong {
            assert_eq!(KeyDigest::parse(text), None, "{text}");
        }
    }

    #[test]
    fn secrets_are_visible_ascii_of_some_length() {
        let long = "x".repeat(256);
        for (text, is) in [
            ("0123456789abcdef", true),
            ("0123456789abcde", false),
            ("0123456789 abcdef", false),
            ("0123456789abcdé~~", false),
            ("0123456789abcdef\n", false),
            ("!~!~!~!~!~!~!~!~", true),
            (long.as_str(), true),
            (&format!("{long}x"), false),
        ] {
            assert_eq!(is_secret(text.as_bytes()), is, "{text}");
        }
    }
}
