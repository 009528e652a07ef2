//! Made-up completions and embeddings.

/// Sentences that fit any prompt.
const SENTENCES: [&str; 8] = [
    "This is a simulated model, so do not rely on its advice.",
    "A real model would take longer and need more electricity.",
    "The gateway selected this endpoint by the name of the model in the request.",
    "Each word reaches you as soon as it is generated, because the gateway forwards tokens without delay.",
    "If you disconnect now, the endpoint stops generating at once.",
    "If this endpoint fails, the next request goes to another one with the same model.",
    "The headers of this response name the endpoint and the reason for choosing it.",
    "Open the dashboard to watch requests and tokens.",
];

/// The words of a completion, each with the space before it; about fifty.
pub(super) fn completion(prompt: &str) -> Vec<String> {
    let topic: String = prompt.trim().chars().take(80).collect();
    let topic = if topic.is_empty() {
        "nothing in particular".to_owned()
    } else {
        topic
    };
    let pick = prompt
        .bytes()
        .fold(0_usize, |sum, byte| sum.wrapping_add(byte.into()));
    let mut text = format!("Your prompt: {topic}");
    for step in [0, 1, 3] {
        text.push(' ');
        text.push_str(SENTENCES[pick.wrapping_add(step) % SENTENCES.len()]);
    }
    let mut words: Vec<String> = text.split(' ').map(|word| format!(" {word}")).collect();
    if let Some(first) = words.first_mut() {
        *first = first.trim_start().to_owned();
    }
    words
}

/// A vector for a text: without meaning, but always the same.
pub(super) fn embedding(text: &str) -> Vec<f64> {
    let mut state = text.bytes().fold(0x9e37_79b9_u32, |hash, byte| {
        hash.wrapping_mul(16_777_619) ^ u32::from(byte)
    });
    (0..64)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1_u32 << 24) * 2.0 - 1.0
        })
        .collect()
}
