//! The declarations of the keys of `[proxy]`: forwarding to endpoints.
//!
//! Contract: docs/contract/operations.md#11, docs/contract/balancing.md#8,
//! docs/contract/balancing.md#9, docs/contract/balancing.md#13, docs/contract/surface.md#8.3,
//! docs/contract/README.md#5, docs/contract/README.md#10,
//! docs/contract/scheduling.md#1, docs/contract/scheduling.md#3, docs/contract/scheduling.md#7

use std::num::NonZeroUsize;
use std::time::Duration;

use super::bounds::{U32_MAX, name_filter, secs};
use super::plan::{
    Balancer, Engine, ModelManagement, ProxyPlan, StickyPlan, StickySource, StreamProfile,
};
use super::retry::retry;
use super::schedule::least_time;
use super::section::Section;
use super::values::show_duration;

/// Maximum of `proxy.sticky_sessions.prefix_hash_bytes`, which is Olla's.
const PREFIX_BYTES_MAX: u64 = u32::MAX as u64;

/// docs/contract/scheduling.md#7.
const PREFIX_HASH_IGNORED: &str = "prefix_hash is ignored under the balancer \"least-time\", \
     except among equal endpoints: it knows by itself where a prompt is cached";

/// `[proxy]`.
pub(super) fn proxy(s: &mut Section<'_, '_>) -> ProxyPlan {
    let engine = s
        .key(
            "engine",
            "Both names select the same engine; shown in status and metrics.",
        )
        .env("OLLA_PROXY_ENGINE")
        .restart()
        .word(Engine::Olla);
    let profile = s
        .key(
            "profile",
            "Shown in status and metrics; every response is passed on as it arrives.",
        )
        .env("OLLA_PROXY_PROFILE")
        .word(StreamProfile::Auto);
    s.note(
        "profile",
        "shown in status and metrics, has no other effect",
    );
    let load_balancer = s
        .key(
            "load_balancer",
            "How an endpoint is chosen among those that have the model.",
        )
        .env("OLLA_PROXY_LOAD_BALANCER")
        .word_by(Balancer::LeastTime, balancer_name);
    if load_balancer == Balancer::LeastConnections {
        s.note_old_default("load_balancer", Balancer::LeastTime);
    }
    let times = times(s);
    let model_management = s
        .key(
            "model_management",
            "Whether Ollama's pull, push, create, copy and delete are forwarded.",
        )
        .env("OLLA_PROXY_MODEL_MANAGEMENT")
        .word(ModelManagement::Refuse);
    former(s);
    ProxyPlan {
        engine,
        profile,
        load_balancer,
        connection_timeout: times.connection,
        connection_keep_alive: times.keep_alive,
        idle_connection_timeout: times.idle_connection,
        response_timeout: times.response,
        read_timeout: times.read,
        response_header_timeout: times.response_header,
        tls_handshake_timeout: times.tls_handshake,
        stream_keep_alive: times.stream_keep_alive,
        model_load_timeout: times.model_load,
        model_management,
        retry: retry(&mut s.section("retry")),
        least_time: least_time(&mut s.section("least_time")),
        sticky_sessions: sticky(&mut s.section("sticky_sessions"), load_balancer),
        profile_filter: name_filter(
            &mut s.section("profile_filter"),
            "Globs of the provider types to use; an empty list uses all.",
            "Globs of the provider types not to use; exclude wins over include.",
        ),
    }
}

/// The durations of `[proxy]`.
struct Times {
    connection: Duration,
    keep_alive: Duration,
    idle_connection: Duration,
    response: Option<Duration>,
    read: Duration,
    response_header: Duration,
    tls_handshake: Duration,
    stream_keep_alive: Option<Duration>,
    model_load: Duration,
}

fn times(s: &mut Section<'_, '_>) -> Times {
    Times {
        connection: s
            .key(
                "connection_timeout",
                "Time limit for connecting to an endpoint; 0 selects the default.",
            )
            .duration_or(secs(60), secs(60)),
        keep_alive: s
            .key(
                "connection_keep_alive",
                "Interval of TCP keep-alive probes; 0 selects the default.",
            )
            .env("OLLA_PROXY_CONNECTION_KEEP_ALIVE")
            .duration_or(secs(30), secs(30)),
        idle_connection: s
            .key(
                "idle_connection_timeout",
                "Idle endpoint connections are closed after this time; 0 disables reuse.",
            )
            .env("OLLA_PROXY_IDLE_CONNECTION_TIMEOUT")
            .duration(secs(4)),
        response: s
            .key(
                "response_timeout",
                "Time limit from sending a request to the end of its response; 0 disables it.",
            )
            .env("OLLA_PROXY_RESPONSE_TIMEOUT")
            .inert_in_yaml()
            .duration_or_none(secs(0)),
        read: s
            .key(
                "read_timeout",
                "Time limit between two pieces of a response; 0 selects 60s.",
            )
            .env("OLLA_PROXY_READ_TIMEOUT")
            .duration_or(secs(600), secs(60)),
        response_header: response_header(s),
        tls_handshake: s
            .key(
                "tls_handshake_timeout",
                "Time limit for the TLS handshake with an endpoint; 0 selects the default.",
            )
            .env("OLLA_PROXY_TLS_HANDSHAKE_TIMEOUT")
            .duration_or(secs(10), secs(10)),
        stream_keep_alive: s
            .key(
                "stream_keep_alive",
                "Streams silent for this time get a comment; 0 disables it.",
            )
            .env("OLLA_PROXY_STREAM_KEEP_ALIVE")
            .seconds_or_none(secs(15)),
        model_load: model_load(s),
    }
}

/// Ten minutes, as long as the SDKs of OpenAI and Anthropic wait
/// (docs/contract/surface.md#8.3).
fn response_header(s: &mut Section<'_, '_>) -> Duration {
    const OURS: Duration = secs(600);
    let limit = s
        .key(
            "response_header_timeout",
            "Time limit for the first response header; 0 selects the default.",
        )
        .env("OLLA_PROXY_RESPONSE_HEADER_TIMEOUT")
        .duration_or(OURS, OURS);
    if limit == secs(30) {
        s.note_old_default("response_header_timeout", show_duration(OURS));
    }
    limit
}

/// As long as the largest models take to load (docs/contract/scheduling.md#3).
fn model_load(s: &mut Section<'_, '_>) -> Duration {
    let doc = "Time limit for a model to be loaded; 0 selects the default.";
    s.key("model_load_timeout", doc)
        .duration_or(secs(600), secs(600))
}

/// The name of a balancer, also in the spelling of older files of Olla.
fn balancer_name(text: &str) -> String {
    match text {
        "round_robin" => Balancer::RoundRobin.as_str(),
        "least_conn" | "least_connections" => Balancer::LeastConnections.as_str(),
        other => other,
    }
    .to_owned()
}

fn former(s: &mut Section<'_, '_>) {
    s.key(
        "stream_buffer_size",
        "Size of a stream buffer; the gateway sizes its buffers itself.",
    )
    .inert()
    .size(0, None);
    s.key("max_retries", "Use proxy.retry.max_attempts.")
        .inert()
        .int(3, 0, U32_MAX);
    s.key("retry_backoff", "There is no pause between attempts.")
        .inert()
        .duration(Duration::from_millis(500));
}

fn sticky(s: &mut Section<'_, '_>, balancer: Balancer) -> StickyPlan {
    use StickySource::{AuthHeader, PrefixHash, SessionHeader};
    let enabled = s
        .key(
            "enabled",
            "Keep a conversation on the endpoint that has its prompt cached.",
        )
        .env("OLLA_PROXY_STICKY_SESSIONS_ENABLED")
        .bool(false);
    let ttl: u64 = s
        .key(
            "idle_ttl_seconds",
            "Seconds after which an idle session expires; 0 disables expiry.",
        )
        .int(600, 0, U32_MAX);
    if enabled && ttl == 0 {
        s.warn("idle_ttl_seconds", "0 means that sessions never expire");
    }
    let max_sessions = s
        .key(
            "max_sessions",
            "Maximum number of sessions, the oldest are dropped; 0 disables the limit.",
        )
        .int(10_000, 0, U32_MAX);
    let key_sources = s
        .key(
            "key_sources",
            "What identifies a conversation; the first one present is used.",
        )
        .words(&[SessionHeader, PrefixHash, AuthHeader]);
    let names_prefix = s.is_given("key_sources") && key_sources.contains(&PrefixHash);
    if enabled && balancer == Balancer::LeastTime && names_prefix && !s.is_faulty("key_sources") {
        s.warn("key_sources", PREFIX_HASH_IGNORED);
    }
    s.key(
        "prefix_hash_bytes",
        "prefix_hash is the hash of the system prompt and the first user message.",
    )
    .inert()
    .size(512, Some(PREFIX_BYTES_MAX));
    StickyPlan {
        enabled,
        idle_ttl: Some(secs(ttl)).filter(|ttl| !ttl.is_zero()),
        max_sessions: NonZeroUsize::new(max_sessions),
        key_sources,
    }
}
