//! Ids of tool calls, made from a seed: this module knows no source of randomness.

/// What a request's ids are made from: 16 random bytes, fresh for each request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdSeed(pub [u8; 16]);

/// Digits without `0 O I l`.
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// So many base58 digits, other ones for each `nth` call of a response. They differ between
/// requests; they are not secret.
pub(crate) fn call_digits(seed: IdSeed, nth: u64, digits: usize) -> String {
    let seed = u128::from_be_bytes(seed.0);
    let state = (seed >> 64) as u64 ^ seed as u64 ^ nth.wrapping_mul(0xd134_2543_de82_ef95);
    let mut random = fastrand::Rng::with_seed(state);
    let digits = (0..digits).map(|_| char::from(base58(random.u128(..58))));
    String::from_iter(digits)
}

/// A digit of base 58.
pub(crate) fn base58(digit: u128) -> u8 {
    BASE58.get(digit as usize).copied().unwrap_or(b'1')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_differ() {
        let a = IdSeed(*b"0123456789abcdef");
        let b = IdSeed(*b"1123456789abcdef");
        let digits = call_digits(a, 0, 9);
        assert!(digits.len() == 9 && digits.bytes().all(|digit| BASE58.contains(&digit)));
        assert_ne!(digits, call_digits(a, 1, 9));
        assert_ne!(digits, call_digits(b, 0, 9));
        assert_eq!(digits, call_digits(a, 0, 9));
    }
}
