//! The API families, by their names in the configuration.

use super::reader::Word;

/// An API family (docs/contract/dialects.md#1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialectName {
    /// OpenAI's chat completions, and the rest of its older API.
    OpenAiChat,
    /// OpenAI's responses.
    OpenAiResponses,
    /// Anthropic's messages.
    AnthropicMessages,
    /// Ollama's own API.
    OllamaNative,
}

impl DialectName {
    /// The name as it is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::AnthropicMessages => "anthropic-messages",
            Self::OllamaNative => "ollama-native",
        }
    }
}

impl Word for DialectName {
    const ALL: &'static [Self] = &[
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::AnthropicMessages,
        Self::OllamaNative,
    ];

    fn word(self) -> &'static str {
        self.as_str()
    }
}
