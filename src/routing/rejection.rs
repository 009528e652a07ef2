//! The errors of requests that no endpoint serves, and the routing headers.
//!
//! This is the only place that gives a routing failure its status, type, code and message. No
//! message contains an address (docs/contract/balancing.md#6).
//!
//! Contract: docs/contract/balancing.md#5 to docs/contract/balancing.md#6,
//! docs/contract/surface.md#9, docs/contract/operations.md#8

use std::fmt;

use super::aliases::{AliasId, Aliases};

/// Characters of a name that a message shows. A client may send a name as long as a body.
const NAME_CHARS_MAX: usize = 256;

/// Why no endpoint serves a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The prefix's types have no configured endpoint.
    NoProvider,
    /// No endpoint in scope is routable.
    NoHealthy,
    /// No endpoint in scope lists the model.
    ModelNotFound,
    /// The request must name a model and names none (docs/contract/balancing.md#2.1).
    ModelRequired,
    /// Endpoints in scope list the model, but none of them is routable.
    ModelUnavailable,
    /// Every endpoint that could serve is out of its own rate tokens
    /// (docs/contract/surface.md#10.1).
    Throttled,
    /// Every attempt failed before a response.
    BackendError,
    /// The endpoint was silent until `response_header_timeout`.
    BackendTimeout,
    /// Model management names no endpoint, and there are several (docs/contract/README.md#5).
    EndpointNeeded,
    /// Model management names an endpoint that is none, or none of Ollama's.
    EndpointUnknown,
}

impl Fault {
    /// The response's status.
    pub const fn status(self) -> u16 {
        match self {
            Self::EndpointNeeded | Self::ModelRequired => 400,
            Self::NoProvider | Self::ModelNotFound | Self::EndpointUnknown => 404,
            Self::Throttled => 429,
            Self::BackendError | Self::BackendTimeout => 502,
            Self::NoHealthy | Self::ModelUnavailable => 503,
        }
    }

    /// `error.type`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::EndpointNeeded | Self::ModelRequired => "bad_request",
            Self::NoProvider | Self::ModelNotFound | Self::EndpointUnknown => "not_found",
            Self::Throttled => "rate_limit_exceeded",
            Self::BackendError | Self::BackendTimeout => "bad_gateway",
            Self::NoHealthy | Self::ModelUnavailable => "service_unavailable",
        }
    }

    /// `error.code`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoProvider | Self::EndpointUnknown => "ENDPOINT_NOT_FOUND",
            Self::NoHealthy => "NO_HEALTHY_ENDPOINTS",
            Self::ModelNotFound => "MODEL_NOT_FOUND",
            Self::ModelUnavailable => "MODEL_UNAVAILABLE",
            Self::ModelRequired => "MODEL_REQUIRED",
            Self::Throttled => "RATE_LIMIT_EXCEEDED",
            Self::BackendError => "BACKEND_ERROR",
            Self::BackendTimeout => "BACKEND_TIMEOUT",
            Self::EndpointNeeded => "BAD_REQUEST",
        }
    }

    /// `error.message`, before it is escaped for JSON.
    pub fn message(self, about: About<'_>) -> RejectionMessage<'_> {
        RejectionMessage { fault: self, about }
    }
}

/// What a message may name.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    /// The provider of the prefix.
    pub provider: Option<&'a str>,
    /// The model that the client requested.
    pub model: Option<&'a str>,
    /// The endpoint of the last attempt, or the one that the client named.
    pub endpoint: Option<&'a str>,
    /// Why the request names no model.
    pub missing: Option<&'a str>,
    /// What that endpoint did, in words that follow its name.
    pub because: Option<&'a str>,
    /// The two endpoints that closed the connection on the whole request
    /// (docs/contract/balancing.md#9.3).
    pub closed_by: Option<[&'a str; 2]>,
}

/// The prefixes that reach every provider with OpenAI's API, so they name no provider.
const OPENAI: [&str; 2] = ["openai", "openai-compatible"];

/// A message that can be displayed.
#[derive(Debug, Clone, Copy)]
pub struct RejectionMessage<'a> {
    fault: Fault,
    about: About<'a>,
}

impl fmt::Display for RejectionMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provider = Named(" of provider", self.about.provider);
        let specific = self.about.provider.filter(|name| !OPENAI.contains(name));
        let specific = Named(" of provider", specific);
        let model = Named(" the model", self.about.model);
        let for_model = Named(" for model", self.about.model);
        let endpoint = Named("", self.about.endpoint);
        match self.fault {
            Fault::NoProvider => write!(f, "no endpoint{provider} is configured"),
            Fault::NoHealthy => write!(f, "no healthy endpoint{specific}{for_model}"),
            Fault::ModelNotFound => write!(f, "no endpoint{specific} has{model}"),
            Fault::ModelUnavailable => write!(f, "no healthy endpoint{specific} has{model}"),
            Fault::ModelRequired => {
                let missing = self.about.missing.unwrap_or("the request names none");
                write!(f, "the request must name a model: {missing}")
            }
            Fault::Throttled => write!(
                f,
                "all endpoints{for_model} are at their request limit, which \
                 server.rate_limits.per_endpoint sets"
            ),
            Fault::BackendError if let Some([one, two]) = self.about.closed_by => {
                let (one, two) = (Short(one), Short(two));
                write!(
                    f,
                    "the endpoints {one} and {two} closed the connection on this request"
                )
            }
            Fault::BackendError => {
                let because = self.about.because.unwrap_or("sent no usable response");
                write!(f, "endpoint{endpoint} {because}")
            }
            Fault::BackendTimeout => {
                let because = self.about.because.unwrap_or("did not respond in time");
                write!(f, "endpoint{endpoint} {because}")
            }
            Fault::EndpointNeeded => {
                write!(
                    f,
                    "several endpoints{provider} match: name one in X-Olla-Endpoint"
                )
            }
            Fault::EndpointUnknown => {
                write!(
                    f,
                    "X-Olla-Endpoint{endpoint} does not name an endpoint{provider}"
                )
            }
        }
    }
}

/// A kind of thing and its name in quotes; empty without a name.
struct Named<'a>(&'static str, Option<&'a str>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(name) => write!(f, "{} \"{}\"", self.0, Short(name)),
            None => Ok(()),
        }
    }
}

/// A name cut to what a message shows.
struct Short<'a>(&'a str);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(NAME_CHARS_MAX) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

/// The three `X-Olla-Routing-*` headers, on every response to a request that names a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutingHeaders {
    /// `X-Olla-Routing-Strategy`.
    pub strategy: &'static str,
    /// `X-Olla-Routing-Decision`.
    pub verdict: RoutingDecision,
    /// `X-Olla-Routing-Reason`.
    pub reason: Reason,
}

/// The values of `X-Olla-Routing-Decision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingDecision {
    /// Routed to endpoints that have the model.
    Routed,
    /// Routed to endpoints that may not have the model.
    Fallback,
    /// Refused.
    Rejected,
}

impl RoutingDecision {
    /// The word of the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Fallback => "fallback",
            Self::Rejected => "rejected",
        }
    }
}

/// A value of `X-Olla-Routing-Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A word of the strategy.
    Word(&'static str),
    /// An alias was resolved.
    Alias {
        /// Which.
        alias: AliasId,
        /// The number of candidates at that moment.
        endpoints: usize,
    },
}

impl Reason {
    /// The header's value. An alias stands in it as it is configured, whatever characters that
    /// has.
    pub fn show(self, aliases: &Aliases) -> impl fmt::Display + '_ {
        fmt::from_fn(move |f| match self {
            Self::Word(word) => f.write_str(word),
            Self::Alias { alias, endpoints } => {
                let name = aliases.name(alias);
                write!(f, "alias \"{name}\" resolved to {endpoints} endpoint(s)")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, type and code, and what the message says of a request that has a model, a provider
    /// and an endpoint.
    #[rustfmt::skip]
    const ANSWERS: [(Fault, u16, &str, &str, &str); 10] = [
        (Fault::NoProvider, 404, "not_found", "ENDPOINT_NOT_FOUND", "\"vllm\""),
        (Fault::NoHealthy, 503, "service_unavailable", "NO_HEALTHY_ENDPOINTS", "\"m1\""),
        (Fault::ModelNotFound, 404, "not_found", "MODEL_NOT_FOUND", "\"m1\""),
        (Fault::ModelUnavailable, 503, "service_unavailable", "MODEL_UNAVAILABLE", "\"m1\""),
        (Fault::ModelRequired, 400, "bad_request", "MODEL_REQUIRED", "not JSON"),
        (Fault::Throttled, 429, "rate_limit_exceeded", "RATE_LIMIT_EXCEEDED", "limit"),
        (Fault::BackendError, 502, "bad_gateway", "BACKEND_ERROR", "\"gpu-1\""),
        (Fault::BackendTimeout, 502, "bad_gateway", "BACKEND_TIMEOUT", "\"gpu-1\""),
        (Fault::EndpointNeeded, 400, "bad_request", "BAD_REQUEST", "X-Olla-Endpoint"),
        (Fault::EndpointUnknown, 404, "not_found", "ENDPOINT_NOT_FOUND", "\"gpu-1\""),
    ];

    #[test]
    fn every_fault_has_its_answer() {
        let about = About {
            provider: Some("vllm"),
            model: Some("m1"),
            endpoint: Some("gpu-1"),
            missing: Some("the body is not JSON"),
            ..About::default()
        };
        for (fault, status, kind, code, named) in ANSWERS {
            assert_eq!(fault.status(), status, "{fault:?}");
            assert_eq!((fault.kind(), fault.code()), (kind, code));
            let message = fault.message(about).to_string();
            assert!(message.contains(named), "{message}");
            assert!(!fault.message(About::default()).to_string().contains('"'));
        }
    }

    #[test]
    fn a_message_says_what_the_backend_did() {
        let about = About {
            endpoint: Some("gpu-1"),
            because: Some("has a TLS certificate that has expired"),
            ..About::default()
        };
        let message = Fault::BackendError.message(about).to_string();
        let want = "endpoint \"gpu-1\" has a TLS certificate that has expired";
        assert_eq!(message, want);
        let both = About {
            closed_by: Some(["gpu-1", "gpu-2"]),
            ..about
        };
        let message = Fault::BackendError.message(both).to_string();
        let want = "the endpoints gpu-1 and gpu-2 closed the connection on this request";
        assert_eq!(message, want);
    }

    #[test]
    fn endless_names_are_cut() {
        let model = "é".repeat(100_000);
        let about = About {
            model: Some(&model),
            ..About::default()
        };
        let message = Fault::ModelNotFound.message(about).to_string();
        assert!(message.chars().count() < 300, "{}", message.len());
        assert!(message.ends_with("é…\""), "{message}");
    }
}
