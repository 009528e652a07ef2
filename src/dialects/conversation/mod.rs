//! The state of one request of a dialect whose endpoints may get a chat completion instead.

mod hooks;
mod translator;

pub(crate) use hooks::{NativeStream, Recorder};
pub(crate) use translator::{
    ChatMaking, ChatOperation, ChatRequest, CheckedRequest, Demand, NativeStart, NativeSupport,
    NativeVerdict, Outgoing, Translator, TranslatorFacts,
};
