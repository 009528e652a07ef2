//! The fields by which a request limits its output.
//!
//! Contract: docs/contract/access.md#7.1

/// A field that limits the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputField {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    NPredict,
    NumPredict,
    /// `num_predict` in `options`.
    OptionsNumPredict,
}

/// What a key at the top of a body means for its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputKey {
    /// Its value is a limit.
    Field(OutputField),
    /// Its value is an object that may have `num_predict`.
    Options,
}

const KEYS: [(&[u8], OutputKey); 6] = [
    (b"max_tokens", OutputKey::Field(OutputField::MaxTokens)),
    (
        b"max_completion_tokens",
        OutputKey::Field(OutputField::MaxCompletionTokens),
    ),
    (
        b"max_output_tokens",
        OutputKey::Field(OutputField::MaxOutputTokens),
    ),
    (b"n_predict", OutputKey::Field(OutputField::NPredict)),
    (b"num_predict", OutputKey::Field(OutputField::NumPredict)),
    (b"options", OutputKey::Options),
];

impl OutputField {
    /// The name in errors.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::NPredict => "n_predict",
            Self::NumPredict => "num_predict",
            Self::OptionsNumPredict => "options.num_predict",
        }
    }

    /// Its place in a set.
    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl OutputKey {
    /// The meaning of a key between its quotes, and whether it is written as servers write it. Some
    /// servers read it in any letter case.
    pub(crate) fn of(raw: &[u8]) -> Option<(Self, bool)> {
        // No other length has a meaning; most keys end here.
        if !matches!(raw.len(), 7 | 9..=11 | 17 | 21) {
            return None;
        }
        let mut keys = KEYS.into_iter();
        let (name, key) = keys.find(|(name, _)| raw.eq_ignore_ascii_case(name))?;
        Some((key, raw == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_letter_case() {
        for (name, key) in KEYS {
            assert_eq!(OutputKey::of(name), Some((key, true)));
            let upper = name.to_ascii_uppercase();
            assert_eq!(OutputKey::of(&upper), Some((key, false)));
        }
        assert_eq!(OutputKey::of(b"messages"), None);
        assert_eq!(OutputKey::of(b"max_token"), None);
    }
}
