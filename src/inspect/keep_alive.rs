//! How Ollama reads `keep_alive`: a number of seconds, or a duration in Go's notation.

/// Whether a value, as it stands in JSON, means that the model is unloaded at once. A negative one
/// means the opposite.
pub(super) fn is_zero(raw: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(raw) else {
        return false;
    };
    match text.strip_prefix('"') {
        Some(text) => text.strip_suffix('"').is_some_and(is_zero_duration),
        None => text.starts_with(['-', '0']) && is_zero_number(text),
    }
}

/// Nanoseconds are cut off, a negative zero is none below.
fn is_zero_number(text: &str) -> bool {
    text.parse::<f64>()
        .is_ok_and(|seconds| (0.0..1e-9).contains(&seconds))
}

/// As Go's `time.ParseDuration`: a sign, then `0` or numbers with units.
fn is_zero_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches('0');
        let number = number
            .strip_prefix('.')
            .map_or(number, |fraction| fraction.trim_start_matches('0'));
        // A digit is needed, a point alone is no number.
        if !rest[..rest.len() - number.len()].contains('0') {
            return false;
        }
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        match units.iter().find_map(|unit| number.strip_prefix(unit)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    !text.is_empty() && !text.ends_with(['-', '+'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros() {
        for zero in [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "0e5",
            "0.0000000001",
            r#""0""#,
            r#""-0""#,
            r#""+0""#,
            r#""0s""#,
            r#""0m""#,
            r#""0h0m0s""#,
            r#""-0ms""#,
            r#""0.0s""#,
            r#""0.s""#,
            r#""00h""#,
            r#"".0s""#,
            r#""0µs""#,
        ] {
            assert!(is_zero(zero.as_bytes()), "{zero}");
        }
        for other in [
            "1",
            "-1",
            "0.1",
            "null",
            "true",
            "[0]",
            "{}",
            "NaN",
            "",
            "\"",
            r#""""#,
            r#""-""#,
            r#""5m""#,
            r#""0m5s""#,
            r#""-1""#,
            r#""0x""#,
            r#""00""#,
            r#"".s""#,
            r#""0 s""#,
            r#""0s0""#,
            r#""0.5s""#,
            r#""s""#,
            r#""10s""#,
            r#""--0""#,
        ] {
            assert!(!is_zero(other.as_bytes()), "{other}");
        }
        assert!(!is_zero(b"\"0\xff\""));
    }
}
