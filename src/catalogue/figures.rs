//! Parameter sizes and quantisations, as reported, in one short form.
//!
//! Contract: docs/contract/catalogue.md#5.5

use std::sync::LazyLock;

use regex::Regex;

use super::rules::ModelRules;

/// A parameter size in its short form with the exact number of parameters: `8.0B` is `8b`. Any
/// other text is kept unchanged, with the number 0.
pub(super) fn parameter_size(reported: &str) -> (String, u64) {
    size(reported).unwrap_or_else(|| (reported.to_owned(), 0))
}

fn size(reported: &str) -> Option<(String, u64)> {
    let text = reported.trim();
    let (number, millions) = match text.char_indices().last()? {
        (at, 'b' | 'B') => (text.get(..at)?, false),
        (at, 'm' | 'M') => (text.get(..at)?, true),
        _ => (text, false),
    };
    let number = number.strip_suffix(' ').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let value: f64 = number.parse().ok()?;
    let label = match (millions, value) {
        (true, ..1000.0) => format!("{value:.0}m"),
        (true, _) => billions(value / 1000.0),
        (false, _) => billions(value),
    };
    let digits = if millions { 6 } else { 9 };
    Some((label, scaled(whole, fraction, digits).unwrap_or(0)))
}

fn billions(value: f64) -> String {
    let text = format!("{value:.1}");
    format!("{}b", text.strip_suffix(".0").unwrap_or(&text))
}

/// A decimal number times ten to the power of `digits`, cut to a whole number.
fn scaled(whole: &str, fraction: &str, digits: usize) -> Option<u64> {
    let fraction = fraction.get(..digits).unwrap_or(fraction);
    let padding = "0".repeat(digits - fraction.len());
    format!("{whole}{fraction}{padding}").parse().ok()
}

/// A quantisation in its short form: `Q4_K_M` is `q4km`.
pub(super) fn quantization(reported: &str, rules: &ModelRules) -> String {
    let upper = reported.trim().to_uppercase();
    if let Some(short) = rules.quantization(&upper) {
        return short.to_owned();
    }
    let lower = upper.to_lowercase();
    let found = SHORT_FORMS.iter().find_map(|(pattern, template)| {
        let captures = pattern.captures(&lower)?;
        let mut short = String::new();
        captures.expand(template, &mut short);
        Some(short)
    });
    found.unwrap_or(lower)
}

/// Parts of quantisations that are in no table, and their short forms.
static SHORT_FORMS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let forms = [
        (r"q(\d+)_k_([sml])", "q${1}k${2}"),
        (r"q(\d+)_(\d+)", "q${1}_${2}"),
        (r"q(\d+)", "q${1}"),
        (r"fp?(\d+)", "f${1}"),
        (r"int(\d+)", "int${1}"),
    ];
    let compiled = forms.into_iter();
    compiled
        .filter_map(|(pattern, template)| Some((Regex::new(pattern).ok()?, template)))
        .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_form_and_an_exact_number() {
        let table = [
            ("8.0B", "8b", 8_000_000_000),
            ("3.2B", "3.2b", 3_200_000_000),
            ("70.6 B", "70.6b", 70_600_000_000),
            ("7", "7b", 7_000_000_000),
            ("1.23B", "1.2b", 1_230_000_000),
            ("0.5b", "0.5b", 500_000_000),
            ("137M", "137m", 137_000_000),
            ("22.70M", "23m", 22_700_000),
            ("999M", "999m", 999_000_000),
            ("1000M", "1b", 1_000_000_000),
            ("1500M", "1.5b", 1_500_000_000),
            (" 7B ", "7b", 7_000_000_000),
            ("671b", "671b", 671_000_000_000),
            ("1.0000000009B", "1b", 1_000_000_000),
            // Anything else is unchanged.
            ("8x7B", "8x7B", 0),
            ("7  B", "7  B", 0),
            ("-7B", "-7B", 0),
            (".5B", ".5B", 0),
            ("7.B", "7.B", 0),
            ("1e3B", "1e3B", 0),
            ("7K", "7K", 0),
            ("B", "B", 0),
            ("", "", 0),
            ("large", "large", 0),
            ("1.2.3B", "1.2.3B", 0),
            ("٣B", "٣B", 0),
        ];
        for (reported, short, count) in table {
            assert_eq!(
                parameter_size(reported),
                (short.to_owned(), count),
                "{reported}"
            );
        }
        let (_, count) = parameter_size("99999999999999999999B");
        assert_eq!(count, 0, "no number can hold it");
    }

    #[test]
    fn quantisations_have_a_short_form() {
        let table = [
            ("Q2_K", "q2k"),
            ("Q3_K_S", "q3ks"),
            ("Q3_K_M", "q3km"),
            ("Q3_K_L", "q3kl"),
            ("Q4_K_S", "q4ks"),
            ("Q4_K_M", "q4km"),
            ("q4_k_m", "q4km"),
            ("Q4_K_XL", "q4kxl"),
            ("Q5_K_S", "q5ks"),
            ("Q5_K_M", "q5km"),
            ("Q6_K", "q6k"),
            ("Q4_0", "q4"),
            ("Q4_1", "q4_1"),
            ("Q5_0", "q5"),
            ("Q5_1", "q5_1"),
            ("Q8_0", "q8"),
            ("F16", "f16"),
            ("FP16", "f16"),
            ("F32", "f32"),
            ("FP32", "f32"),
            ("BF16", "bf16"),
            ("GPTQ_4BIT", "gptq4"),
            ("GPTQ-4bit", "gptq4"),
            ("AWQ_4BIT", "awq4"),
            ("AWQ-4BIT", "awq4"),
            ("INT8", "int8"),
            ("INT4", "int4"),
            ("MXFP4", "mxfp4"),
            ("NVFP4", "nvfp4"),
            // Not in the table.
            ("Q6_K_L", "q6kl"),
            ("Q6_0", "q6_0"),
            ("UD-Q5_K_M", "q5km"),
            ("IQ4_XS", "q4"),
            ("IQ2_XXS", "q2"),
            ("Q4_K", "q4"),
            ("FP8", "f8"),
            ("F8_E4M3", "f8"),
            ("gptq-int4", "int4"),
            ("4bit", "4bit"),
            ("8BIT", "8bit"),
            ("AWQ", "awq"),
            ("unknown", "unknown"),
        ];
        for (reported, short) in table {
            assert_eq!(
                quantization(reported, ModelRules::builtin()),
                short,
                "{reported}"
            );
        }
    }
}
