//! Made-up answers.

/// Sentences that fit any question.
const SENTENCES: [&str; 8] = [
    "This is a simulated model, so take its wisdom with a grain of salt.",
    "A real one would think longer and cost more electricity.",
    "The gateway found this backend by the name of the model in the request.",
    "Every word reaches you as soon as it is made, because nothing on the way waits for the next.",
    "If you leave now, the backend stops at once; nobody computes for nobody.",
    "Should this backend go away, the next request finds another that has the model.",
    "The headers of this answer tell which backend spoke and why it was chosen.",
    "Have a look at the dashboard to see the tokens go by.",
];

/// The words of an answer to a question, each with the blank before it; about fifty.
pub(super) fn answer(question: &str) -> Vec<String> {
    let topic: String = question.trim().chars().take(80).collect();
    let topic = if topic.is_empty() {
        "nothing in particular".to_owned()
    } else {
        topic
    };
    let pick = question
        .bytes()
        .fold(0_usize, |sum, byte| sum.wrapping_add(byte.into()));
    let mut text = format!("You asked: {topic}");
    for step in [0, 1, 3] {
        text.push(' ');
        text.push_str(
            SENTENCES
                .get((pick + step) % SENTENCES.len())
                .copied()
                .unwrap_or_default(),
        );
    }
    let mut words: Vec<String> = text.split(' ').map(|word| format!(" {word}")).collect();
    if let Some(first) = words.first_mut() {
        *first = first.trim_start().to_owned();
    }
    words
}

/// A vector for a text: not meaningful, but always the same.
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
