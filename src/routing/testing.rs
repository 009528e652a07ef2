//! Profiles and endpoints for the tests of this area.

use std::sync::Arc;

use crate::config::{
    AUTO, AnthropicPlan, BaseUrl, EndpointPlan, InspectorPlan, OllamaPlan, TranslatorRules,
    TranslatorsPlan,
};
use crate::fleet::Endpoint;
use crate::providers::{OPENAI_COMPATIBLE, Profile, Profiles};

/// The built-in profiles.
pub(super) fn profiles() -> Vec<Arc<Profile>> {
    Profiles::builtin().all().to_vec()
}

/// A healthy endpoint of a type (`auto` included).
pub(crate) fn endpoint(id: usize, name: &str, kind: &str) -> Endpoint {
    let shown = if kind == AUTO {
        OPENAI_COMPATIBLE
    } else {
        kind
    };
    let profile = profiles()
        .into_iter()
        .find(|profile| profile.name == shown)
        .unwrap();
    let url = BaseUrl::parse("http://h:1").unwrap();
    Endpoint::healthy(id, EndpointPlan::new(name, url, kind), profile)
}

/// Healthy endpoints of one type with these priorities.
pub(super) fn endpoints(priorities: &[u32]) -> Vec<Endpoint> {
    let numbered = priorities.iter().enumerate();
    numbered
        .map(|(id, priority)| {
            let mut endpoint = endpoint(id, &format!("e{id}"), "vllm");
            let mut plan = EndpointPlan::clone(&endpoint.plan);
            plan.priority = *priority;
            endpoint.plan = Arc::new(plan);
            endpoint
        })
        .collect()
}

/// The translators of a configuration that says nothing of them but whether they are enabled.
pub(crate) fn translators(enabled: bool) -> TranslatorsPlan {
    let rules = TranslatorRules {
        enabled,
        passthrough_enabled: true,
        prefer_native: true,
    };
    TranslatorsPlan {
        responses: rules,
        anthropic: AnthropicPlan {
            rules,
            max_message_size: None,
            inspector: InspectorPlan {
                enabled: false,
                output_dir: "inspector".into(),
                session_header: "X-Session-ID".to_owned(),
            },
        },
        ollama: OllamaPlan {
            rules,
            version: "0.14.0".to_owned(),
        },
    }
}
