//! The declarations of the keys of `[server]`: the listener, its limits, CORS.
//!
//! Contract: docs/contract/operations.md#11, docs/contract/surface.md#1.2,
//! docs/contract/surface.md#10 to docs/contract/surface.md#12

use std::num::NonZeroUsize;
use std::time::Duration;

use super::bounds::{
    GLOBAL_REQUESTS_PER_MINUTE, HEALTH_REQUESTS_PER_MINUTE, MIB, PAGES_PER_SECOND,
    PER_IP_REQUESTS_PER_MINUTE, U32_MAX, secs,
};
use super::endpoint::is_token;
use super::inputs::ConfigInputs;
use super::plan::{
    CorsPlan, EndpointRatesPlan, IoDriver, OriginPattern, RateLimitsPlan, RequestLimitsPlan,
    ServerPlan,
};
use super::section::Section;
use super::server_tls::server_tls;
use super::tree::ConfigValue;
use super::values::show_duration;

/// `[server]`.
pub(super) fn server(s: &mut Section<'_, '_>, inputs: &ConfigInputs<'_>) -> ServerPlan {
    let host = host(s);
    let port = s
        .key("port", "TCP port to listen on.")
        .env("OLLA_SERVER_PORT")
        .restart()
        .int(40114, 1, 65535);
    let times = listener_times(s);
    let shutdown_timeout = s
        .key(
            "shutdown_timeout",
            "Time for requests in flight to finish after SIGTERM; 0 cuts them at once.",
        )
        .duration(secs(10));
    let request_logging = s
        .key(
            "request_logging",
            "Log each request: received, dispatched, completed, and the access line.",
        )
        .bool(true);
    let root_routes = s
        .key(
            "root_routes",
            "Serve /v1, /api and / for clients that take only a host and a port.",
        )
        .env("OLLA_SERVER_ROOT_ROUTES")
        .bool(true);
    let machine = machine(s);
    ServerPlan {
        host,
        port,
        read_timeout: times.read_timeout,
        min_body_rate: times.min_body_rate,
        read_header_timeout: times.read_header_timeout,
        write_timeout: times.write_timeout,
        idle_timeout: times.idle_timeout,
        stall_timeout: times.stall_timeout,
        shutdown_timeout,
        request_logging,
        root_routes,
        workers: machine.workers,
        pin_workers: machine.pin_workers,
        io_driver: machine.io_driver,
        tls: server_tls(&mut s.section("tls"), inputs),
        request_limits: request_limits(&mut s.section("request_limits")),
        rate_limits: rate_limits(&mut s.section("rate_limits")),
        cors: cors(&mut s.section("cors")),
    }
}

/// How long a client may take (docs/contract/surface.md#1.2).
struct ListenerTimes {
    read_timeout: Option<Duration>,
    min_body_rate: u64,
    read_header_timeout: Duration,
    write_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    stall_timeout: Option<Duration>,
}

/// Longer than what usually stands in front keeps its connections (docs/contract/surface.md#1.2).
const OUR_IDLE_TIMEOUT: Duration = secs(120);

fn listener_times(s: &mut Section<'_, '_>) -> ListenerTimes {
    let read_timeout = s
        .key(
            "read_timeout",
            "Longest pause within a request's body; 0 disables the limit.",
        )
        .env("OLLA_SERVER_READ_TIMEOUT")
        .duration_or_none(secs(30));
    let min_body_rate = s
        .key(
            "min_body_rate",
            "Bytes a second of a body over each read_timeout; 0 disables the limit.",
        )
        .env("OLLA_SERVER_MIN_BODY_RATE")
        .size(500, Some(u32::MAX.into()));
    let read_header_timeout = s
        .key(
            "read_header_timeout",
            "Time limit for receiving a request's head; 0 selects 10s.",
        )
        .env("OLLA_SERVER_READ_HEADER_TIMEOUT")
        .duration_or(secs(10), secs(10));
    let write_timeout = s
        .key(
            "write_timeout",
            "Time limit for a whole response, streams included; 0 disables the limit.",
        )
        .env("OLLA_SERVER_WRITE_TIMEOUT")
        .duration_or_none(secs(0));
    let idle_timeout = s
        .key(
            "idle_timeout",
            "Keep-alive connections idle for this time are closed; 0 keeps them.",
        )
        .env("OLLA_SERVER_IDLE_TIMEOUT")
        .duration_or_none(OUR_IDLE_TIMEOUT);
    if idle_timeout.is_none() {
        s.note_old_default("idle_timeout", show_duration(OUR_IDLE_TIMEOUT));
    }
    let stall_timeout = s
        .key(
            "stall_timeout",
            "Time in which a client must take some of its response; 0 disables the limit.",
        )
        .env("OLLA_SERVER_STALL_TIMEOUT")
        .duration_or_none(secs(60));
    ListenerTimes {
        read_timeout,
        min_body_rate,
        read_header_timeout,
        write_timeout,
        idle_timeout,
        stall_timeout,
    }
}

/// The keys that depend on the machine.
struct Machine {
    workers: Option<NonZeroUsize>,
    pin_workers: bool,
    io_driver: IoDriver,
}

fn machine(s: &mut Section<'_, '_>) -> Machine {
    Machine {
        workers: NonZeroUsize::new(
            s.key(
                "workers",
                "Number of event loops; 0 starts one for each available CPU.",
            )
            .env("OLLA_SERVER_WORKERS")
            .restart()
            .int(0, 0, 1024),
        ),
        pin_workers: s
            .key("pin_workers", "Pin each event loop to a CPU of its own.")
            .env("OLLA_SERVER_PIN_WORKERS")
            .restart()
            .bool(true),
        io_driver: s
            .key(
                "io_driver",
                "auto uses io_uring where the kernel allows it, otherwise epoll.",
            )
            .env("OLLA_SERVER_IO_DRIVER")
            .restart()
            .word(IoDriver::Auto),
    }
}

/// `server.host`; an IPv6 address may have brackets.
fn host(s: &mut Section<'_, '_>) -> String {
    let fits = |host: &str| {
        let inner = unbracketed(host);
        let clean = !inner.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
        clean && (!inner.contains(':') || inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let host = s
        .key(
            "host",
            "Host name or address to listen on; \"\" listens on all interfaces.",
        )
        .env("OLLA_SERVER_HOST")
        .restart()
        .text_such(
            "localhost",
            "a host name or an IP address without a port",
            fits,
        );
    unbracketed(&host).to_owned()
}

/// The default of `max_header_size` (docs/contract/surface.md#11).
const HEADER_BYTES: u64 = 64 << 10;

fn request_limits(s: &mut Section<'_, '_>) -> RequestLimitsPlan {
    let max_header_size = s
        .key(
            "max_header_size",
            "Maximum size of a request's head, at least 4096; 0 selects the default.",
        )
        .env("OLLA_SERVER_MAX_HEADER_SIZE")
        .size(HEADER_BYTES, None);
    RequestLimitsPlan {
        max_body_size: some(
            s.key(
                "max_body_size",
                "Maximum size of a request's body; 0 disables the limit.",
            )
            .env("OLLA_SERVER_MAX_BODY_SIZE")
            .size(100 * MIB, None),
        ),
        max_header_size: if max_header_size == 0 {
            HEADER_BYTES
        } else {
            max_header_size.max(4096)
        },
        max_buffered_bytes: some(
            s.key(
                "max_buffered_bytes",
                "Maximum size of all requests held at once; 0 uses a quarter of RAM.",
            )
            .env("OLLA_SERVER_MAX_BUFFERED_BYTES")
            .restart()
            .size(0, None),
        ),
    }
}

fn rate_limits(s: &mut Section<'_, '_>) -> RateLimitsPlan {
    let plan = RateLimitsPlan {
        global_requests_per_minute: s
            .key(
                "global_requests_per_minute",
                "Limit for all clients together; 0 disables it.",
            )
            .env("OLLA_SERVER_GLOBAL_RATE_LIMIT")
            .int(GLOBAL_REQUESTS_PER_MINUTE, 0, U32_MAX),
        per_ip_requests_per_minute: s
            .key(
                "per_ip_requests_per_minute",
                "Limit for each client address, of IPv6 each /64; 0 disables it.",
            )
            .env("OLLA_SERVER_PER_IP_RATE_LIMIT")
            .int(PER_IP_REQUESTS_PER_MINUTE, 0, U32_MAX),
        health_requests_per_minute: s
            .key(
                "health_requests_per_minute",
                "Limit for each client address on /internal/health; 0 disables it.",
            )
            .env("OLLA_SERVER_HEALTH_RATE_LIMIT")
            .int(HEALTH_REQUESTS_PER_MINUTE, 0, U32_MAX),
        pages_per_second: pages_per_second(s),
        burst_size: s
            .key(
                "burst_size",
                "Requests that may arrive at once before a limit applies; 0 refuses all.",
            )
            .env("OLLA_SERVER_RATE_BURST_SIZE")
            .int(50, 0, U32_MAX),
        cleanup_interval: s
            .key(
                "cleanup_interval",
                "Interval at which idle clients are forgotten; 0 never forgets them.",
            )
            .env("OLLA_SERVER_RATE_CLEANUP_INTERVAL")
            .duration_or_none(secs(300)),
        trust_proxy_headers: s
            .key(
                "trust_proxy_headers",
                "Take the client address from X-Forwarded-For or X-Real-IP of trusted peers.",
            )
            .env("OLLA_SERVER_TRUST_PROXY_HEADERS")
            .bool(false),
        trusted_proxy_cidrs: s
            .key(
                "trusted_proxy_cidrs",
                "Networks of the trusted peers; an empty list trusts none.",
            )
            .env("OLLA_SERVER_TRUSTED_PROXY_CIDRS")
            .networks(&[
                "127.0.0.0/8",
                "10.0.0.0/8",
                "172.16.0.0/12",
                "192.168.0.0/16",
            ]),
        per_endpoint: endpoint_rates(&mut s.section("per_endpoint")),
    };
    let limited = plan.global_requests_per_minute > 0
        || plan.per_ip_requests_per_minute > 0
        || plan.health_requests_per_minute > 0;
    if plan.burst_size == 0 && limited {
        s.warn(
            "burst_size",
            "0 refuses every request (429) while a rate limit is enabled",
        );
    }
    plan
}

fn pages_per_second(s: &mut Section<'_, '_>) -> u32 {
    s.key(
        "pages_per_second",
        "Listings, /version and /internal/* but health per address; 0 disables it.",
    )
    .int(PAGES_PER_SECOND, 0, U32_MAX / 60)
}

fn endpoint_rates(s: &mut Section<'_, '_>) -> EndpointRatesPlan {
    EndpointRatesPlan {
        default_requests_per_minute: s
            .key(
                "default_requests_per_minute",
                "Requests a minute to each endpoint; 0 disables the limit.",
            )
            .int(0, 0, U32_MAX),
        overrides: s
            .key(
                "overrides",
                "Requests a minute by endpoint name; 0 disables the limit.",
            )
            .resolve_map("an integer of at least 0", |value| match value {
                ConfigValue::Int(number) => u32::try_from(*number).ok(),
                _ => None,
            }),
    }
}

fn cors(s: &mut Section<'_, '_>) -> CorsPlan {
    let enabled = s
        .key(
            "enabled",
            "Respond to preflight requests and add Access-Control headers on every route.",
        )
        .env("OLLA_SERVER_CORS_ENABLED")
        .bool(true);
    let token = "a header name";
    let plan = CorsPlan {
        enabled,
        allowed_origins: s
            .key(
                "allowed_origins",
                "Allowed origins; * allows any, and may stand inside: https://*.example.",
            )
            .env("OLLA_SERVER_CORS_ALLOWED_ORIGINS")
            .checked_if(enabled)
            .texts(&["*"], "an origin with at most one *", origin),
        allowed_methods: s
            .key("allowed_methods", "Methods that pages may use.")
            .env("OLLA_SERVER_CORS_ALLOWED_METHODS")
            .checked_if(enabled)
            .texts(&["GET", "POST", "OPTIONS"], "a method", |text| {
                is_token(text).then(|| text.to_ascii_uppercase())
            }),
        allowed_headers: s
            .key(
                "allowed_headers",
                "Request headers that pages may send; * allows any.",
            )
            .env("OLLA_SERVER_CORS_ALLOWED_HEADERS")
            .checked_if(enabled)
            .texts(&["*"], token, a_token),
        exposed_headers: s
            .key(
                "exposed_headers",
                "Response headers that pages may read; an empty list exposes all X-Olla-*.",
            )
            .env("OLLA_SERVER_CORS_EXPOSED_HEADERS")
            .checked_if(enabled)
            .texts(&[], token, a_token),
        allow_credentials: s
            .key(
                "allow_credentials",
                "Allow pages to send credentials; not allowed with the origin *.",
            )
            .env("OLLA_SERVER_CORS_ALLOW_CREDENTIALS")
            .bool(false),
        allow_private_network: s
            .key(
                "allow_private_network",
                "Let pages of the internet reach a private network; not with the origin *.",
            )
            .env("OLLA_SERVER_CORS_ALLOW_PRIVATE_NETWORK")
            .bool(false),
        max_age: max_age(s, enabled),
    };
    if enabled {
        check_cors(s, &plan);
    }
    plan
}

fn max_age(s: &mut Section<'_, '_>, enabled: bool) -> Option<Duration> {
    let seconds: u32 = s
        .key(
            "max_age",
            "Seconds for which a preflight may be cached; 0 leaves the header out.",
        )
        .env("OLLA_SERVER_CORS_MAX_AGE")
        .checked_if(enabled)
        .int(300, 0, U32_MAX);
    (seconds > 0).then(|| secs(seconds.into()))
}

fn check_cors(s: &mut Section<'_, '_>, plan: &CorsPlan) {
    if plan.allowed_origins.is_empty() {
        s.expected(
            "allowed_origins",
            "at least one origin while server.cors.enabled is true",
        );
    }
    if plan.allow_credentials && plan.any_origin() {
        refuse_with_any_origin(s, "allow_credentials");
    }
    if plan.allow_private_network && plan.any_origin() {
        refuse_with_any_origin(s, "allow_private_network");
    }
}

fn refuse_with_any_origin(s: &mut Section<'_, '_>, key: &str) {
    s.expected(
        key,
        "false while server.cors.allowed_origins contains \"*\"",
    );
}

fn a_token(text: &str) -> Option<String> {
    is_token(text).then(|| text.to_owned())
}

fn origin(text: &str) -> Option<OriginPattern> {
    let text = text.trim().to_ascii_lowercase();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return None;
    }
    match text.split_once('*') {
        None => Some(OriginPattern::Exact(text)),
        Some(("", "")) => Some(OriginPattern::Any),
        Some((_, suffix)) if suffix.contains('*') => None,
        Some((prefix, suffix)) => Some(OriginPattern::Around {
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
        }),
    }
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn some(size: u64) -> Option<u64> {
    (size > 0).then_some(size)
}
