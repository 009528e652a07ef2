//! Secrets that are made here: their form, and their making.
//!
//! Contract: docs/contract/access.md#3.2

use std::fmt;

/// Where each secret begins.
const PREFIX: &str = "olla-";

/// The digits of base 62, in their order.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The digits of the 32 random bytes.
pub(crate) const RANDOM_DIGITS: usize = 43;

/// The digits of the checksum.
const SUM_DIGITS: usize = 6;

/// A new secret. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NewSecret(String);

impl NewSecret {
    /// Makes one of the system's random source.
    ///
    /// # Errors
    /// The source has none.
    pub(crate) fn make() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self::of(random))
    }

    /// The secret of these random bytes.
    pub(crate) fn of(random: [u8; 32]) -> Self {
        let digits = base62(random);
        let sum = base62_of(crc32fast::hash(digits.as_bytes()));
        Self(format!("{PREFIX}{digits}{sum}"))
    }

    /// The secret, to be shown once.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// 32 bytes as one big-endian number in base 62, with zeros in front: 43 digits.
pub(crate) fn base62(mut bytes: [u8; 32]) -> String {
    let mut digits = [b'0'; RANDOM_DIGITS];
    for digit in digits.iter_mut().rev() {
        // Long division by 62; the remainder is the next digit from the right.
        let mut rest = 0_u32;
        for byte in &mut bytes {
            let dividend = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(dividend / 62).unwrap_or(u8::MAX);
            rest = dividend % 62;
        }
        *digit = digit_of(rest);
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

fn base62_of(mut number: u32) -> String {
    let mut digits = [b'0'; SUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = digit_of(number % 62);
        number /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

fn digit_of(value: u32) -> u8 {
    let digit = usize::try_from(value).ok().and_then(|at| DIGITS.get(at));
    digit.copied().unwrap_or(b'0')
}

/// Whether a text has the form and the checksum of a secret that was made here.
pub(crate) fn is_made_here(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX.as_bytes()) else {
        return false;
    };
    let Some((digits, sum)) = rest.split_at_checked(RANDOM_DIGITS) else {
        return false;
    };
    sum.len() == SUM_DIGITS
        && rest.iter().all(u8::is_ascii_alphanumeric)
        && base62_of(crc32fast::hash(digits)).as_bytes() == sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "olla-EQcCNR6WkewLTwzvKyCmzgNXrUKY4m2ArgyHfhdeokR3gAVw1";

    #[test]
    fn the_example_of_the_contract() {
        let hex = "3cd9794ec2829369933665c46fecadffbc806cfe0684a8b09445f73048dcdf97";
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        let secret = NewSecret::of(std::array::from_fn(byte));
        assert_eq!(secret.expose(), EXAMPLE);
        assert_eq!(format!("{secret:?}"), "(hidden)");
        assert!(is_made_here(EXAMPLE.as_bytes()));
    }

    #[test]
    fn the_ends_of_the_range() {
        let zeros = NewSecret::of([0; 32]);
        assert_eq!(zeros.expose().len(), 54);
        assert!(
            zeros
                .expose()
                .starts_with(&format!("olla-{}", "0".repeat(43)))
        );
        assert!(is_made_here(zeros.expose().as_bytes()));
        assert!(is_made_here(NewSecret::of([255; 32]).expose().as_bytes()));
    }

    proptest! {
        #[test]
        fn each_secret_has_its_form_and_no_other(bytes: [u8; 32], at in 5_usize..54, to in "[0-9A-Za-z]") {
            let secret = NewSecret::of(bytes);
            let text = secret.expose();
            prop_assert!(is_made_here(text.as_bytes()));
            prop_assert!(!is_made_here(&text.as_bytes()[..53]));
            let longer = format!("{text}0");
            prop_assert!(!is_made_here(longer.as_bytes()));
            let mut other = text.to_owned();
            other.replace_range(at..=at, &to);
            // A CRC finds every burst of up to 32 bits.
            prop_assert_eq!(is_made_here(other.as_bytes()), other == text);
        }

        #[test]
        fn any_bytes_are_judged(bytes: Vec<u8>) {
            is_made_here(&bytes);
        }
    }
}
