//! The validated configuration.
//!
//! The nesting follows the keys of the configuration: `plan.proxy.read_timeout` is the key
//! `proxy.read_timeout`. Rules of the form "absent or 0 means …" are resolved already: an optional
//! duration or limit is an `Option`. A `Plan` is shared by `Arc` and never changed. This file holds
//! no parsing, no I/O and no defaults: those are with the declaration of each key (`settings.rs`,
//! `fleet.rs`).
//!
//! Contract: docs/contract/operations.md#11, docs/contract/surface.md#10 to
//! docs/contract/surface.md#12, docs/contract/balancing.md#5, docs/contract/balancing.md#8,
//! docs/contract/balancing.md#9, docs/contract/balancing.md#13

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::access::{KeyAccessPlan, StatePlan};
use super::endpoint::{EndpointPlan, NameFilter};
use super::responses::ResponseStorePlan;
use super::retry::RetryPlan;
pub(crate) use super::schedule::{LeastTimePlan, QueuePlan};
use super::server_tls::ServerTlsPlan;
use super::translators::TranslatorsPlan;
use super::watch::{DnsPlan, HealthCheckPlan, ModelDiscoveryPlan, StatusPlan};

/// Maximum number of endpoints in a configuration.
///
/// Cores keep sets of endpoints as fixed bitmaps and walk the fleet for each request; the bound
/// keeps both cheap, and is far above the needs of one gateway in front of GPU servers.
pub(crate) const MAX_ENDPOINTS: usize = 512;

/// Declares an enum with values that are words of the configuration.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word as it is written in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl super::reader::Word for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

words! {
    /// The interface to the kernel for sockets (`server.io_driver`).
    IoDriver {
        /// io_uring where the kernel allows it, otherwise epoll.
        Auto = "auto",
        /// io_uring; without it the start fails.
        IoUring = "io_uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// Name of the proxy engine (`proxy.engine`). Both behave alike; the status shows the name.
    Engine {
        /// The default.
        Olla = "olla",
        /// Accepted for existing configurations.
        Sherpa = "sherpa",
    }
}

words! {
    /// `proxy.profile`: shown in status and metrics. Every response is forwarded as it arrives,
    /// which each of Olla's profiles allows (docs/contract/surface.md#8.1).
    StreamProfile {
        /// The default.
        Auto = "auto",
        /// Accepted for existing configurations.
        Streaming = "streaming",
        /// Accepted for existing configurations.
        Standard = "standard",
    }
}

words! {
    /// The balancer (`proxy.load_balancer`; docs/contract/balancing.md#7).
    Balancer {
        /// The least predicted time to the first token (docs/contract/scheduling.md#1).
        LeastTime = "least-time",
        /// The highest priority; equal priorities share the requests.
        Priority = "priority",
        /// Each candidate in turn.
        RoundRobin = "round-robin",
        /// The fewest requests in flight.
        LeastConnections = "least-connections",
    }
}

words! {
    /// Handling of Ollama's model management routes (`proxy.model_management`).
    ModelManagement {
        /// Respond with 501 and an error that names the key.
        Refuse = "refuse",
        /// Forward to the endpoint that the request names, or to the only healthy one.
        Forward = "forward",
    }
}

words! {
    /// What becomes of a request that should name a model and does not (`routing.no_model`;
    /// docs/contract/balancing.md#2.1).
    NoModel {
        /// It goes on if there is one endpoint or one model to choose, else it is refused.
        Auto = "auto",
        /// It goes to any endpoint.
        Any = "any",
        /// It is refused.
        Refuse = "refuse",
    }
}

words! {
    /// The source of a sticky session's key (docs/contract/balancing.md#8).
    StickySource {
        /// `X-Olla-Session-ID`.
        SessionHeader = "session_header",
        /// The first bytes of `messages`, or of `prompt`.
        PrefixHash = "prefix_hash",
        /// `Authorization`.
        AuthHeader = "auth_header",
        /// The peer's address.
        Ip = "ip",
    }
}

words! {
    /// `model_registry.routing_strategy.type` (docs/contract/balancing.md#5).
    Strategy {
        /// Only endpoints known to have the model.
        Strict = "strict",
        /// Other endpoints too, according to `fallback_behavior`.
        Optimistic = "optimistic",
        /// List the models of the endpoints again if the model is not available.
        Discovery = "discovery",
    }
}

words! {
    /// Routing of a request for a model that is not available (docs/contract/balancing.md#5).
    Fallback {
        /// Refuse the request, unless the strategy finds the model after all.
        CompatibleOnly = "compatible_only",
        /// Refuse the request.
        None = "none",
        /// Any healthy endpoint in scope.
        All = "all",
    }
}

words! {
    /// `logging.level`.
    LogLevel {
        /// Details for debugging.
        Debug = "debug",
        /// Normal operation.
        Info = "info",
        /// Conditions that need attention.
        Warn = "warn",
        /// Failures.
        Error = "error",
    }
}

words! {
    /// `logging.format`.
    LogFormat {
        /// One JSON object per line.
        Json = "json",
        /// `key=value` lines.
        Text = "text",
    }
}

words! {
    /// `logging.output`.
    LogOutput {
        /// Standard output only.
        Stdout = "stdout",
        /// Standard output and a rotated file.
        File = "file",
    }
}

/// The whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// `[server]`: the listener and its limits.
    pub server: ServerPlan,
    /// `[proxy]`: forwarding to endpoints.
    pub proxy: ProxyPlan,
    /// `[discovery]`: the endpoints and the discovery of their models.
    pub discovery: DiscoveryPlan,
    /// `[dns]`.
    pub dns: DnsPlan,
    /// `[status]`.
    pub status: StatusPlan,
    /// `[model_registry]`: the catalogue of models and the routing of requests.
    pub model_registry: ModelRegistryPlan,
    /// `[routing]`.
    pub routing: RequestsPlan,
    /// `[queue]`.
    pub queue: QueuePlan,
    /// `[model_aliases]`, in the order of their names.
    pub model_aliases: Vec<AliasPlan>,
    /// `[translators]`.
    pub translators: TranslatorsPlan,
    /// `[responses]`.
    pub responses: ResponseStorePlan,
    /// `[logging]`.
    pub logging: LoggingPlan,
    /// `[dashboard]`.
    pub dashboard: DashboardPlan,
    /// `[access]`.
    pub access: Arc<KeyAccessPlan>,
    /// `[state]`.
    pub state: StatePlan,
    /// `[engineering]`.
    pub engineering: EngineeringPlan,
    /// Options that only environment variables set.
    pub process: ProcessPlan,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerPlan {
    /// Name or address to listen on, IPv6 without brackets; empty = all interfaces.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
    /// Longest pause within a request's body; `None` = no limit.
    pub read_timeout: Option<Duration>,
    /// Bytes a second that each full stretch of `read_timeout` must bring of a body; 0 = no limit.
    pub min_body_rate: u64,
    /// Time limit for receiving a request's head.
    pub read_header_timeout: Duration,
    /// Time limit from the end of the request's head to the end of the response; `None` = no limit.
    pub write_timeout: Option<Duration>,
    /// Idle timeout of keep-alive connections; `None` = no limit.
    pub idle_timeout: Option<Duration>,
    /// How long a client may take no byte of a response that waits for it; `None` = no limit.
    pub stall_timeout: Option<Duration>,
    /// Time for requests in flight to finish after a signal; zero = cut at once.
    pub shutdown_timeout: Duration,
    /// Whether each request is logged (docs/contract/operations.md#8).
    pub request_logging: bool,
    /// Whether `/v1`, `/api` and `/` are served (docs/contract/dialects.md#2.2).
    pub root_routes: bool,
    /// Number of event loops; `None` = one for each CPU that the process may use.
    pub workers: Option<NonZeroUsize>,
    /// Whether each event loop is pinned to a CPU.
    pub pin_workers: bool,
    /// The interface to the kernel for sockets.
    pub io_driver: IoDriver,
    /// Certificate and key of the listener; `None` = plain HTTP.
    pub tls: Option<ServerTlsPlan>,
    /// `[server.request_limits]`.
    pub request_limits: RequestLimitsPlan,
    /// `[server.rate_limits]`.
    pub rate_limits: RateLimitsPlan,
    /// `[server.cors]`.
    pub cors: CorsPlan,
}

/// `[server.request_limits]` (docs/contract/surface.md#11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestLimitsPlan {
    /// Maximum size of a request's body; `None` = no limit.
    pub max_body_size: Option<u64>,
    /// Maximum size of a request's head, at least 4096.
    pub max_header_size: u64,
    /// Maximum size of all request bodies held at once; `None` = a quarter of the memory that the
    /// process may use.
    pub max_buffered_bytes: Option<u64>,
}

/// `[server.rate_limits]` (docs/contract/surface.md#10). Rates are per minute, 0 = no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimitsPlan {
    /// All clients together, on proxied routes.
    pub global_requests_per_minute: u32,
    /// Each client address, on proxied routes.
    pub per_ip_requests_per_minute: u32,
    /// Each client address, on `/internal/health`.
    pub health_requests_per_minute: u32,
    /// Each client address, on pages and listings: requests per second.
    pub pages_per_second: u32,
    /// Capacity of each bucket but those of pages; with 0 an enabled limit refuses all requests.
    pub burst_size: u32,
    /// Interval at which idle clients are removed; `None` = never.
    pub cleanup_interval: Option<Duration>,
    /// Whether `X-Forwarded-For` and `X-Real-IP` of a trusted peer name the client.
    pub trust_proxy_headers: bool,
    /// Networks of the trusted peers; empty = none.
    pub trusted_proxy_cidrs: Vec<IpNet>,
    /// `[server.rate_limits.per_endpoint]`.
    pub per_endpoint: EndpointRatesPlan,
}

/// `[server.rate_limits.per_endpoint]`: requests per minute to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRatesPlan {
    /// For endpoints without an override; 0 = no limit.
    pub default_requests_per_minute: u32,
    /// Endpoint name and its rate, sorted by name; 0 = no limit.
    pub overrides: Vec<(String, u32)>,
}

impl EndpointRatesPlan {
    /// Requests per minute to the endpoint of this name; `None` = no limit.
    pub fn of(&self, endpoint: &str) -> Option<NonZeroU32> {
        let found = self.overrides.iter().find(|(name, _)| name == endpoint);
        NonZeroU32::new(found.map_or(self.default_requests_per_minute, |(_, rate)| *rate))
    }
}

/// `[server.cors]` (docs/contract/surface.md#12).
#[derive(Debug, Clone, PartialEq)]
pub struct CorsPlan {
    /// If false, no header is added and preflight requests are forwarded.
    pub enabled: bool,
    /// Allowed origins; never empty if CORS is enabled.
    pub allowed_origins: Vec<OriginPattern>,
    /// Allowed methods, in upper case.
    pub allowed_methods: Vec<String>,
    /// `*` = any.
    pub allowed_headers: Vec<String>,
    /// Empty = every `X-Olla-*` header of the contract.
    pub exposed_headers: Vec<String>,
    /// Whether credentials may be sent; never true if any origin is allowed.
    pub allow_credentials: bool,
    /// Whether pages may reach a private network; never true if any origin is allowed.
    pub allow_private_network: bool,
    /// `Access-Control-Max-Age`; `None` = the header is left out.
    pub max_age: Option<Duration>,
}

impl CorsPlan {
    /// Whether every origin is allowed, so that responses have `*`.
    pub fn any_origin(&self) -> bool {
        self.allowed_origins
            .iter()
            .any(|o| matches!(o, OriginPattern::Any))
    }
}

/// One entry of `server.cors.allowed_origins`, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`.
    Any,
    /// Exactly this origin.
    Exact(String),
    /// Origins with this beginning and this end.
    Around {
        /// The part before the `*`.
        prefix: String,
        /// The part after the `*`.
        suffix: String,
    },
}

impl OriginPattern {
    /// Whether the value of an `Origin` header matches. Letter case is ignored.
    pub fn admits(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Around { prefix, suffix } => {
                let origin = origin.to_ascii_lowercase();
                origin.len() >= prefix.len() + suffix.len()
                    && origin.starts_with(prefix.as_str())
                    && origin.ends_with(suffix.as_str())
            }
        }
    }
}

/// `[proxy]` (docs/contract/balancing.md#13).
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyPlan {
    /// Shown in status and metrics.
    pub engine: Engine,
    /// Shown in status and metrics.
    pub profile: StreamProfile,
    /// The balancer.
    pub load_balancer: Balancer,
    /// Time limit for a TCP connection.
    pub connection_timeout: Duration,
    /// Interval of TCP keep-alive probes.
    pub connection_keep_alive: Duration,
    /// Idle timeout of connections to endpoints; zero disables reuse.
    pub idle_connection_timeout: Duration,
    /// Time limit from the first byte sent to the end of the response; `None` = no limit.
    pub response_timeout: Option<Duration>,
    /// Time limit between two reads of a response body.
    pub read_timeout: Duration,
    /// Time limit from the end of the request to the head of the response.
    pub response_header_timeout: Duration,
    /// Time limit for a TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// A stream gets a sign of life after each such time in which the client got nothing; `None` =
    /// never (docs/contract/surface.md#8.4).
    pub stream_keep_alive: Option<Duration>,
    /// How long a request waits for its model to be loaded, from its arrival
    /// (docs/contract/scheduling.md#3).
    pub model_load_timeout: Duration,
    /// Handling of Ollama's model management routes.
    pub model_management: ModelManagement,
    /// `[proxy.retry]`.
    pub retry: RetryPlan,
    /// `[proxy.least_time]`.
    pub least_time: LeastTimePlan,
    /// `[proxy.sticky_sessions]`.
    pub sticky_sessions: StickyPlan,
    /// `[proxy.profile_filter]`: which provider profiles exist (docs/contract/catalogue.md#1.6).
    pub profile_filter: NameFilter,
}

/// `[proxy.sticky_sessions]` (docs/contract/balancing.md#8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyPlan {
    /// If false, there are no sticky headers.
    pub enabled: bool,
    /// Idle time after which a session expires; `None` = never.
    pub idle_ttl: Option<Duration>,
    /// Maximum number of sessions; `None` = no limit.
    pub max_sessions: Option<NonZeroUsize>,
    /// Sources of the key, in the order in which they are tried; without one there are no keys.
    pub key_sources: Vec<StickySource>,
}

/// `[discovery]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoveryPlan {
    /// `[discovery.health_check]`.
    pub health_check: HealthCheckPlan,
    /// `[discovery.model_discovery]`.
    pub model_discovery: ModelDiscoveryPlan,
    /// `discovery.static.endpoints`, in the order of the file, at most [`MAX_ENDPOINTS`]; names
    /// and URLs are unique.
    pub endpoints: Vec<EndpointPlan>,
}

/// `[model_registry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRegistryPlan {
    /// If false, each pair of endpoint and name is one entry.
    pub enable_unifier: bool,
    /// `[model_registry.routing_strategy]`.
    pub routing_strategy: RoutingPlan,
    /// `[model_registry.unification]`.
    pub unification: UnificationPlan,
}

/// `[model_registry.routing_strategy]` with its `options` (docs/contract/balancing.md#5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingPlan {
    /// The key `type`.
    pub strategy: Strategy,
    /// The key `options.fallback_behavior`.
    pub fallback_behavior: Fallback,
    /// The key `options.discovery_timeout`, never zero.
    pub discovery_timeout: Duration,
    /// The key `options.discovery_refresh_on_miss`.
    pub discovery_refresh_on_miss: bool,
}

/// `[model_registry.unification]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnificationPlan {
    /// Time after which a model that is no longer listed is removed; never zero.
    pub stale_threshold: Duration,
    /// Interval at which such models are removed; never zero.
    pub cleanup_interval: Duration,
}

/// One entry of `[model_aliases]` (docs/contract/catalogue.md#5.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasPlan {
    /// The name in requests, without surrounding blanks.
    pub name: String,
    /// Names of models in the order of preference, without duplicates, never empty.
    pub targets: Vec<String>,
}

impl AliasPlan {
    /// Whether its name is a pattern, which covers every name that fits
    /// (docs/contract/balancing.md#4.3).
    pub fn is_pattern(&self) -> bool {
        self.name.contains('*')
    }
}

/// `[logging]` and the variables of the log (docs/contract/operations.md#8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingPlan {
    /// Lowest severity that is logged.
    pub level: LogLevel,
    /// Format of the lines.
    pub format: LogFormat,
    /// Whether `OLLA_LOGGING_FORMAT` sets the format, which then also applies to a terminal.
    pub format_from_env: bool,
    /// The outputs; `OLLA_FILE_OUTPUT` is taken into account.
    pub output: LogOutput,
    /// Folder of the file.
    pub dir: PathBuf,
    /// Size in bytes at which the file is rotated.
    pub rotate_bytes: u64,
    /// Number of rotated files to keep; 0 = all.
    pub max_backups: u32,
    /// Age at which a rotated file is deleted; `None` = never.
    pub max_age: Option<Duration>,
    /// Whether colours are used without a terminal (`OLLA_FORCE_COLORS`).
    pub force_colors: bool,
}

/// `[dashboard]` (docs/contract/operations.md#7).
#[derive(Debug, Clone, PartialEq)]
pub struct DashboardPlan {
    /// If false, its paths respond with 404.
    pub enabled: bool,
    /// `[dashboard.access_policy]`.
    pub access_policy: AccessPlan,
    /// Whether the policy also applies to `/internal/*` and `/version`.
    pub gate_internal_api: bool,
    /// Networks whose clients may change things without a key; empty = this machine only
    /// (docs/contract/observe.md#8).
    pub allow_changes_from: Vec<IpNet>,
}

/// `[dashboard.access_policy]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessPlan {
    /// Networks that may connect; never empty if the dashboard is enabled.
    pub allowed_cidrs: Vec<IpNet>,
    /// Host names, in lower case, without port and brackets.
    pub allowed_hosts: Vec<String>,
}

/// `[routing]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestsPlan {
    /// What becomes of a request that should name a model and does not.
    pub no_model: NoModel,
}

/// `[engineering]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineeringPlan {
    /// Whether statistics of memory and runtime are logged at shutdown.
    pub show_nerdstats: bool,
}

/// Options that only environment variables set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// `OLLA_ENABLE_PROFILER`.
    pub enable_profiler: bool,
}
