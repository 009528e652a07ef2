//! The declarations of the keys of `[proxy]`: the way to the backends.
//!
//! contract: operations 11, balancing 8, 9, 13, README 5, 10

use std::num::NonZeroUsize;
use std::time::Duration;

use super::bounds::{MIB, U32_MAX, name_filter, secs};
use super::plan::{
    Balancer, Engine, ModelManagement, ProxyPlan, RetryPlan, StickyPlan, StickySource,
    StreamProfile,
};
use super::section::Section;

/// Most bytes that may be asked to wait for one answer.
const STREAM_BUFFER_BYTES_MAX: u64 = 64 * MIB;

/// Most bytes of a conversation's beginning that may be hashed.
const PREFIX_BYTES_MAX: u64 = u32::MAX as u64;

/// `[proxy]`.
pub(super) fn proxy(s: &mut Section<'_, '_>) -> ProxyPlan {
    let engine = s
        .key(
            "engine",
            "Both names stand for the same engine; shown in status and metrics.",
        )
        .env("OLLA_PROXY_ENGINE")
        .restart()
        .word(Engine::Olla);
    let profile = s
        .key(
            "profile",
            "auto = pass everything on at once but binary types, which may gather.",
        )
        .env("OLLA_PROXY_PROFILE")
        .word(StreamProfile::Auto);
    let load_balancer = s
        .key(
            "load_balancer",
            "How one endpoint is chosen among those that have the model.",
        )
        .env("OLLA_PROXY_LOAD_BALANCER")
        .word(Balancer::LeastConnections);
    let times = times(s);
    let buffer = s
        .key(
            "stream_buffer_size",
            "Bytes that wait here for one answer; 0 = 65536 (sherpa: 8192).",
        )
        .size(0, Some(STREAM_BUFFER_BYTES_MAX));
    let model_management = s
        .key(
            "model_management",
            "Ollama's pull, push, create, copy and delete.",
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
        stream_buffer_size: match (usize::try_from(buffer).unwrap_or(usize::MAX), engine) {
            (0, Engine::Olla) => 65536,
            (0, Engine::Sherpa) => 8192,
            (given, _) => given,
        },
        model_management,
        retry: retry(&mut s.section("retry")),
        sticky_sessions: sticky(&mut s.section("sticky_sessions")),
        profile_filter: name_filter(
            &mut s.section("profile_filter"),
            "Globs over provider types that exist; empty = all.",
            "Globs over provider types that do not exist; wins.",
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
}

fn times(s: &mut Section<'_, '_>) -> Times {
    Times {
        connection: s
            .key(
                "connection_timeout",
                "To connect to a backend; 0 = the default.",
            )
            .duration_or(secs(60), secs(60)),
        keep_alive: s
            .key(
                "connection_keep_alive",
                "Interval of TCP keep-alive probes; 0 = the default.",
            )
            .env("OLLA_PROXY_CONNECTION_KEEP_ALIVE")
            .duration_or(secs(30), secs(30)),
        idle_connection: s
            .key(
                "idle_connection_timeout",
                "Idle backend connections are kept so long; 0 = not.",
            )
            .env("OLLA_PROXY_IDLE_CONNECTION_TIMEOUT")
            .duration(secs(4)),
        response: s
            .key(
                "response_timeout",
                "First byte sent to end of the answer; 0 = none.",
            )
            .env("OLLA_PROXY_RESPONSE_TIMEOUT")
            .duration_or_none(secs(900)),
        read: s
            .key("read_timeout", "Longest silence inside an answer; 0 = 60s.")
            .env("OLLA_PROXY_READ_TIMEOUT")
            .duration_or(secs(600), secs(60)),
        response_header: s
            .key(
                "response_header_timeout",
                "Request sent to first header; 0 = the default.",
            )
            .env("OLLA_PROXY_RESPONSE_HEADER_TIMEOUT")
            .duration_or(secs(30), secs(30)),
        tls_handshake: s
            .key(
                "tls_handshake_timeout",
                "For https endpoints; 0 = the default.",
            )
            .env("OLLA_PROXY_TLS_HANDSHAKE_TIMEOUT")
            .duration_or(secs(10), secs(10)),
    }
}

fn former(s: &mut Section<'_, '_>) {
    s.key("max_retries", "Former key; see proxy.retry.")
        .inert()
        .int(3, 0, U32_MAX);
    s.key(
        "retry_backoff",
        "Former key; there is no pause between attempts.",
    )
    .inert()
    .duration(Duration::from_millis(500));
}

fn retry(s: &mut Section<'_, '_>) -> RetryPlan {
    RetryPlan {
        enabled: s
            .key(
                "enabled",
                "Try another endpoint when one cannot be reached.",
            )
            .bool(true),
        on_connection_failure: s
            .key(
                "on_connection_failure",
                "The only failure that is retried; false = none is.",
            )
            .bool(true),
        max_attempts: NonZeroUsize::new(
            s.key(
                "max_attempts",
                "Most endpoints for one request, the first included; 0 = all.",
            )
            .int(0, 0, U32_MAX),
        ),
    }
}

fn sticky(s: &mut Section<'_, '_>) -> StickyPlan {
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
            "Seconds without a request until forgotten; 0 = never.",
        )
        .int(600, 0, U32_MAX);
    if enabled && ttl == 0 {
        s.warn("idle_ttl_seconds", "sessions never expire");
    }
    let max_sessions = s
        .key(
            "max_sessions",
            "Most sessions kept, the oldest go first; 0 = no limit.",
        )
        .int(10_000, 0, U32_MAX);
    let key_sources = s
        .key(
            "key_sources",
            "What tells conversations apart; the first that is there counts.",
        )
        .words(&[SessionHeader, PrefixHash, AuthHeader]);
    let prefix_bytes = s
        .key(
            "prefix_hash_bytes",
            "Leading bytes of the messages that count; 0 = all.",
        )
        .size(512, Some(PREFIX_BYTES_MAX));
    StickyPlan {
        enabled,
        idle_ttl: Some(secs(ttl)).filter(|ttl| !ttl.is_zero()),
        max_sessions: NonZeroUsize::new(max_sessions),
        key_sources,
        prefix_hash_bytes: NonZeroUsize::new(usize::try_from(prefix_bytes).unwrap_or(usize::MAX)),
    }
}
