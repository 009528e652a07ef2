//! A translated document, and the warnings that its translation gave.

use std::fmt;

/// A translated document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Translated {
    /// Compact JSON.
    pub body: Vec<u8>,
    /// Warnings for the log.
    pub warnings: Vec<Warning>,
    /// Of a response: the bytes of its content, for an estimate of its tokens.
    pub output_bytes: u64,
}

/// A part that could not be translated. The request is served without it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A tool that no client can execute was left out: one of Anthropic's own, or one without a
    /// name.
    ToolLeftOut {
        /// Its `type`, else empty.
        kind: String,
        /// Its `name`, else empty.
        name: String,
    },
    /// The arguments of a tool call were not a JSON object; the client got an empty object.
    ArgumentsUnreadable {
        /// The tool.
        name: String,
    },
    /// A streamed tool call never got a name and was dropped.
    CallWithoutName,
    /// Arguments of a tool call arrived after its block was closed, and were dropped.
    ArgumentsTooLate {
        /// The tool.
        name: String,
    },
}

/// Maximum number of warnings for one document; further ones are not reported.
const WARNINGS_MAX: usize = 16;

/// Adds a warning if there is room; it is built only then.
pub(crate) fn warn(warnings: &mut Vec<Warning>, warning: impl FnOnce() -> Warning) {
    if warnings.len() < WARNINGS_MAX {
        warnings.push(warning());
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToolLeftOut { kind, name } => {
                write!(
                    f,
                    "tool {name:?} of type {kind:?} left out: no schema or no name"
                )
            }
            Self::ArgumentsUnreadable { name } => {
                write!(f, "arguments for tool {name:?} are not a JSON object")
            }
            Self::CallWithoutName => f.write_str("a tool call without a name was dropped"),
            Self::ArgumentsTooLate { name } => {
                write!(
                    f,
                    "arguments for tool {name:?} came after its end and were dropped"
                )
            }
        }
    }
}
