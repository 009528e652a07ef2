//! What the translation of a response takes from its request.

use super::ids::IdSeed;

/// What the translation of a response has to know of its request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseContext {
    /// The name that the client asked for.
    pub model: String,
    /// The request's stop sequences.
    pub stop_sequences: Vec<String>,
    /// Estimate of the request's tokens, for endpoints that do not count.
    pub input_tokens: u64,
    /// The tokens of the context with which the endpoint serves the model, if it reports them.
    pub served_context: Option<u64>,
    /// The seed of the ids that the translation makes.
    pub seed: IdSeed,
}
