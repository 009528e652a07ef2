//! Ids of messages and tool calls, made from a seed: this module knows no source of randomness.

/// What a request's ids are made from: 16 random bytes, fresh for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdSeed(pub [u8; 16]);

/// Digits without `0 O I l`.
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Digits of a tool call's id after its prefix.
const TOOL_ID_DIGITS: usize = 22;

/// The id of a message: `msg_01` and the seed in base 58 (docs/contract/translation.md#8.1).
pub(super) fn message_id(seed: IdSeed) -> String {
    let mut number = u128::from_be_bytes(seed.0);
    // 58^22 > 2^128.
    let mut digits = [base58(0); 22];
    for digit in digits.iter_mut().rev() {
        *digit = base58(number % 58);
        number /= 58;
    }
    format!("msg_01{}", String::from_utf8_lossy(&digits))
}

/// The id of a tool call that the endpoint gave none: `toolu_` and 22 base58 digits, another one
/// for each `nth` call of the message.
pub(super) fn tool_id(seed: IdSeed, nth: u64) -> String {
    let seed = u128::from_be_bytes(seed.0);
    // The ids have to differ; they need not be secret.
    let state = (seed >> 64) as u64 ^ seed as u64 ^ nth.wrapping_mul(0xd134_2543_de82_ef95);
    let mut random = fastrand::Rng::with_seed(state);
    let digits = (0..TOOL_ID_DIGITS).map(|_| char::from(base58(random.u128(..58))));
    format!("toolu_{}", String::from_iter(digits))
}

fn base58(digit: u128) -> u8 {
    BASE58.get(digit as usize).copied().unwrap_or(b'1')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_that_clients_know() {
        let is_base58 = |digits: &str| digits.bytes().all(|digit| BASE58.contains(&digit));
        for seed in [[0; 16], [1; 16], [0xff; 16], *b"0123456789abcdef"] {
            let id = message_id(IdSeed(seed));
            let digits = id.strip_prefix("msg_01").unwrap();
            assert!(
                (16..=24).contains(&digits.len()) && is_base58(digits),
                "{id}"
            );
            let id = tool_id(IdSeed(seed), 0);
            let digits = id.strip_prefix("toolu_").unwrap();
            assert!(digits.len() == 22 && is_base58(digits), "{id}");
        }
    }

    #[test]
    fn ids_differ() {
        let a = IdSeed(*b"0123456789abcdef");
        let b = IdSeed(*b"1123456789abcdef");
        assert_ne!(message_id(a), message_id(b));
        assert_ne!(tool_id(a, 0), tool_id(a, 1));
        assert_ne!(tool_id(a, 0), tool_id(b, 0));
        assert_eq!(tool_id(a, 3), tool_id(a, 3));
    }
}
