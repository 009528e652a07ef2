//! What it means to serve LLMs, on top of the engine: which server has which model, which of them
//! a request goes to, and what clients and operators are told. `docs/architecture.md` has the
//! picture.

mod access;
mod catalogue;
mod cli;
mod clock;
mod config;
mod control;
mod demo;
mod dialects;
mod encoding;
mod endpoint_set;
mod field_names;
mod fleet;
mod format;
mod gateway;
mod glob;
mod inspect;
mod json;
mod log;
mod operations;
mod providers;
mod roots;
mod routing;
mod schedule;
mod serve;
mod shared;
mod state;

pub use serve::program;

/// Internals for benches, fuzz targets and the tests in `tests`; no part of the interface.
#[doc(hidden)]
pub mod bench {
    pub mod catalogue {
        pub use crate::catalogue::{Catalogue, CatalogueOptions, CatalogueSource, ModelRules};
    }

    pub mod config {
        pub use crate::config::{
            Balancer, BaseUrl, ConfigInputs, EndpointPlan, Env, Fallback, FileFormat, KeyDoc,
            Loaded, NameFilter, RoutingPlan, Severity, Strategy, TypeName, import, plan_from_str,
            reference,
        };
    }

    pub mod encoding {
        pub use crate::encoding::{Coding, Encoded};
    }

    pub mod inspect {
        pub use crate::inspect::{
            BodySpan, BodyTally, Findings, Form, Inspector, PromptParts, Splice, Wanted,
            model_name, rewrite_model,
        };
    }

    pub mod ollama {
        pub use crate::dialects::ollama_trial::{
            End, Progress, ollama_reply, ollama_request, ollama_stream,
        };
    }

    pub mod providers {
        pub use crate::providers::{ListedModel, Profile, Profiles, admits, parse_listing};
    }

    pub mod responses {
        pub use crate::dialects::chat::stream::{End, Progress};
        pub use crate::dialects::responses::trial::{
            responses_object, responses_request, responses_stream,
        };
    }

    pub mod routing {
        pub use crate::endpoint_set::EndpointSet;
        pub use crate::fleet::Endpoint;
        pub use crate::routing::aliases::Aliases;
        pub use crate::routing::balance::{Picker, Turns};
        pub use crate::routing::decide::{Decision, Refresh, RoutingRequest, RoutingRules, decide};
        pub use crate::routing::names::ModelIndex;
        pub use crate::routing::scope::{ScopeId, Scopes, Standing};
    }

    pub mod schedule {
        pub use crate::schedule::choose::{
            Candidate, Candidates, Chooser, Evaluated, PromptDemand,
        };
        pub use crate::schedule::load::EndpointLoad;
        pub use crate::schedule::models::{ModelKey, ModelTable};
        pub use crate::schedule::placements::Placements;
        pub use crate::schedule::predict::{Medians, Weights};
        pub use crate::schedule::prompt::{
            BLOCK_BYTES, BLOCKS_MAX, Prompt, SHARED_SEED, mix, seed_of_key,
        };
    }

    pub mod translate {
        pub use crate::dialects::anthropic::translate::{
            Assembly, IdSeed, NativeTail, ResponseContext, check, count_tokens, error_from_backend,
            from_openai, is_not_spoken_here, message_stream, to_openai,
        };
        pub use crate::dialects::chat::stream::{End, Progress};
        pub use crate::dialects::chat::writer::Moment;
    }
}
