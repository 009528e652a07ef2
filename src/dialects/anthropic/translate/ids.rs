//! Ids of messages and tool calls in Anthropic's forms.

use crate::dialects::chat::ids::{IdSeed, base58, call_digits};

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
    format!("toolu_{}", call_digits(seed, nth, TOOL_ID_DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_that_clients_know() {
        let is_base58 = |digits: &str| {
            digits
                .bytes()
                .all(|digit| (0..58).any(|value| base58(value) == digit))
        };
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
