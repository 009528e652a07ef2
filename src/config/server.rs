//! The declarations of the keys of `[server]`: the listener, its limits, CORS.
//!
//! contract: operations 11, surface 1.2, 10-12

use std::num::{NonZeroU32, NonZeroUsize};

use super::bounds::{MIB, U32_MAX, secs};
use super::endpoint::is_token;
use super::plan::{
    CorsPlan, EndpointRatesPlan, IoDriver, OriginPattern, RateLimitsPlan, RequestLimitsPlan,
    ServerPlan, ServerTlsPlan,
};
use super::section::Section;
use super::tree::ConfigValue;

/// `[server]`.
pub(super) fn server(s: &mut Section<'_, '_>) -> ServerPlan {
    let host = host(s);
    let port = s
        .key("port", "Port to listen on.")
        .env("OLLA_SERVER_PORT")
        .restart()
        .int(40114, 1, 65535);
    let read_timeout = s
        .key(
            "read_timeout",
            "The whole request, headers and body; 0 = none.",
        )
        .env("OLLA_SERVER_READ_TIMEOUT")
        .duration_or_none(secs(30));
    let read_header_timeout = s
        .key(
            "read_header_timeout",
            "Until a request's headers are complete; 0 = 10s.",
        )
        .env("OLLA_SERVER_READ_HEADER_TIMEOUT")
        .duration_or(secs(10), secs(10));
    let write_timeout = s
        .key(
            "write_timeout",
            "Headers received to end of the answer; 0 = none. Cuts streams.",
        )
        .env("OLLA_SERVER_WRITE_TIMEOUT")
        .duration_or_none(secs(0));
    let idle_timeout = s
        .key(
            "idle_timeout",
            "Keep-alive connection without a request; 0 = read_timeout.",
        )
        .duration_or_none(secs(0))
        .or(read_timeout);
    let shutdown_timeout = s
        .key(
            "shutdown_timeout",
            "For requests in flight after SIGTERM; 0 = cut at once.",
        )
        .duration(secs(10));
    let request_logging = s
        .key(
            "request_logging",
            "Log each request: its arrival, dispatch, end and access line.",
        )
        .bool(true);
    let machine = machine(s);
    ServerPlan {
        host,
        port,
        read_timeout,
        read_header_timeout,
        write_timeout,
        idle_timeout,
        shutdown_timeout,
        request_logging,
        workers: machine.workers,
        pin_workers: machine.pin_workers,
        io_driver: machine.io_driver,
        tls: server_tls(&mut s.section("tls")),
        request_limits: request_limits(&mut s.section("request_limits")),
        rate_limits: rate_limits(&mut s.section("rate_limits")),
        cors: cors(&mut s.section("cors")),
    }
}

/// The keys that fit the gateway to the machine.
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
                "Event loops; 0 = one for each CPU that the process may use.",
            )
            .env("OLLA_SERVER_WORKERS")
            .restart()
            .int(0, 0, 1024),
        ),
        pin_workers: s
            .key("pin_workers", "Keep each event loop on its own CPU.")
            .env("OLLA_SERVER_PIN_WORKERS")
            .restart()
            .bool(true),
        io_driver: s
            .key(
                "io_driver",
                "auto = io_uring where the kernel allows it, else epoll.",
            )
            .env("OLLA_SERVER_IO_DRIVER")
            .restart()
            .word(IoDriver::Auto),
    }
}

/// `server.host`; an IPv6 address may stand in brackets.
fn host(s: &mut Section<'_, '_>) -> String {
    let fits = |host: &str| {
        let inner = unbracketed(host);
        let clean = !inner.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
        clean && (!inner.contains(':') || inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    let host = s
        .key(
            "host",
            "Name or address to listen on; \"\" = all interfaces.",
        )
        .env("OLLA_SERVER_HOST")
        .restart()
        .text_such(
            "localhost",
            "a host name or an address, without a port",
            fits,
        );
    unbracketed(&host).to_owned()
}

fn server_tls(s: &mut Section<'_, '_>) -> ServerTlsPlan {
    let cert_file = s
        .key(
            "cert_file",
            "PEM file with the listener's certificates; read again on SIGHUP.",
        )
        .path();
    let key_file = s
        .key(
            "key_file",
            "PEM file with the listener's private key; read again on SIGHUP.",
        )
        .path();
    match (&cert_file, &key_file) {
        (Some(_), None) => s.refuse("key_file", "goes with server.tls.cert_file"),
        (None, Some(_)) => s.refuse("cert_file", "goes with server.tls.key_file"),
        _ => {}
    }
    ServerTlsPlan {
        cert_file,
        key_file,
    }
}

fn request_limits(s: &mut Section<'_, '_>) -> RequestLimitsPlan {
    let max_header_size = s
        .key(
            "max_header_size",
            "Bytes of a request's head, at least 4096; 0 = the default.",
        )
        .env("OLLA_SERVER_MAX_HEADER_SIZE")
        .size(MIB, None);
    RequestLimitsPlan {
        max_body_size: some(
            s.key("max_body_size", "Bytes of a request's body; 0 = no limit.")
                .env("OLLA_SERVER_MAX_BODY_SIZE")
                .size(100 * MIB, None),
        ),
        max_header_size: if max_header_size == 0 {
            MIB
        } else {
            max_header_size.max(4096)
        },
        max_buffered_bytes: some(
            s.key(
                "max_buffered_bytes",
                "Bytes of all bodies held at one time; 0 = a quarter of the memory.",
            )
            .env("OLLA_SERVER_MAX_BUFFERED_BYTES")
            .size(0, None),
        ),
    }
}

fn rate_limits(s: &mut Section<'_, '_>) -> RateLimitsPlan {
    let plan = RateLimitsPlan {
        global_requests_per_minute: s
            .key(
                "global_requests_per_minute",
                "All clients together; 0 = no limit.",
            )
            .env("OLLA_SERVER_GLOBAL_RATE_LIMIT")
            .int(1000, 0, U32_MAX),
        per_ip_requests_per_minute: s
            .key(
                "per_ip_requests_per_minute",
                "Each client address; 0 = no limit.",
            )
            .env("OLLA_SERVER_PER_IP_RATE_LIMIT")
            .int(100, 0, U32_MAX),
        health_requests_per_minute: s
            .key(
                "health_requests_per_minute",
                "Each address on /internal/health; 0 = no limit.",
            )
            .env("OLLA_SERVER_HEALTH_RATE_LIMIT")
            .int(1000, 0, U32_MAX),
        burst_size: s
            .key(
                "burst_size",
                "Requests at once before the rates bite; 0 refuses everything.",
            )
            .env("OLLA_SERVER_RATE_BURST_SIZE")
            .int(50, 0, U32_MAX),
        cleanup_interval: s
            .key(
                "cleanup_interval",
                "Between two sweeps of forgotten clients; 0 = never.",
            )
            .env("OLLA_SERVER_RATE_CLEANUP_INTERVAL")
            .duration_or_none(secs(300)),
        trust_proxy_headers: s
            .key(
                "trust_proxy_headers",
                "Believe X-Forwarded-For and X-Real-IP of trusted peers.",
            )
            .env("OLLA_SERVER_TRUST_PROXY_HEADERS")
            .bool(false),
        trusted_proxy_cidrs: s
            .key(
                "trusted_proxy_cidrs",
                "The trusted peers; an empty list trusts nobody.",
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
            "with a limit on, every limited request is answered 429",
        );
    }
    plan
}

fn endpoint_rates(s: &mut Section<'_, '_>) -> EndpointRatesPlan {
    EndpointRatesPlan {
        default_requests_per_minute: s
            .key(
                "default_requests_per_minute",
                "Sent to each endpoint; 0 = no limit.",
            )
            .int(0, 0, U32_MAX),
        overrides: s
            .key(
                "overrides",
                "Endpoint name = requests per minute; 0 = no limit.",
            )
            .resolve_map("a whole number, 0 or more", |value| match value {
                ConfigValue::Int(number) => u32::try_from(*number).ok(),
                _ => None,
            }),
    }
}

fn cors(s: &mut Section<'_, '_>) -> CorsPlan {
    let enabled = s
        .key(
            "enabled",
            "Answer preflights and add Access-Control headers, on every route.",
        )
        .env("OLLA_SERVER_CORS_ENABLED")
        .bool(true);
    let token = "a header name";
    let plan = CorsPlan {
        enabled,
        allowed_origins: s
            .key(
                "allowed_origins",
                "Origins; * = any, or one * inside, as in https://*.example.",
            )
            .env("OLLA_SERVER_CORS_ALLOWED_ORIGINS")
            .judged_if(enabled)
            .texts(&["*"], "an origin, with at most one *", origin),
        allowed_methods: s
            .key("allowed_methods", "Methods that pages may use.")
            .env("OLLA_SERVER_CORS_ALLOWED_METHODS")
            .judged_if(enabled)
            .texts(&["GET", "POST", "OPTIONS"], "a method", |text| {
                is_token(text).then(|| text.to_ascii_uppercase())
            }),
        allowed_headers: s
            .key("allowed_headers", "Headers that pages may send; * = any.")
            .env("OLLA_SERVER_CORS_ALLOWED_HEADERS")
            .judged_if(enabled)
            .texts(&["*"], token, a_token),
        exposed_headers: s
            .key(
                "exposed_headers",
                "Headers that pages may read; empty = every X-Olla header.",
            )
            .env("OLLA_SERVER_CORS_EXPOSED_HEADERS")
            .judged_if(enabled)
            .texts(&[], token, a_token),
        allow_credentials: s
            .key(
                "allow_credentials",
                "Whether pages may send credentials; never with origin *.",
            )
            .env("OLLA_SERVER_CORS_ALLOW_CREDENTIALS")
            .bool(false),
        max_age: NonZeroU32::new(
            s.key(
                "max_age",
                "Seconds that a preflight may be cached; 0 = not said.",
            )
            .env("OLLA_SERVER_CORS_MAX_AGE")
            .judged_if(enabled)
            .int(300, 0, U32_MAX),
        )
        .map(|seconds| secs(seconds.get().into())),
    };
    if enabled {
        judge_cors(s, &plan);
    }
    plan
}

fn judge_cors(s: &mut Section<'_, '_>, plan: &CorsPlan) {
    if plan.allowed_origins.is_empty() {
        s.refuse(
            "allowed_origins",
            "at least one origin while server.cors.enabled is true",
        );
    }
    if plan.allow_credentials && plan.any_origin() {
        s.refuse(
            "allow_credentials",
            "false while server.cors.allowed_origins has \"*\"",
        );
    }
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
