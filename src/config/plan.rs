//! The validated configuration: what the gateway runs by.
//!
//! The nesting follows the configuration's keys, so `plan.proxy.read_timeout` is the key
//! `proxy.read_timeout`. Every rule of the form "absent or 0 means …" is resolved here once: a
//! duration that can be none is an `Option`, a size without a limit likewise. A `Plan` is shared
//! by `Arc` and never changed. This file holds no parsing, no I/O and no defaults: those stand
//! with the declaration of each key (`settings.rs`, `fleet.rs`).
//!
//! Contract: docs/contract/operations.md#11, docs/contract/surface.md#10 to
//! docs/contract/surface.md#12, docs/contract/balancing.md#5, docs/contract/balancing.md#8,
//! docs/contract/balancing.md#9, docs/contract/balancing.md#13, docs/contract/translation.md#2

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::endpoint::{EndpointPlan, NameFilter};
use super::listener::ServerTlsPlan;

/// The largest number of endpoints that a configuration may name.
///
/// Cores keep sets of endpoints as fixed bitmaps and walk the fleet for each request; the bound
/// keeps both cheap, and is far above what one gateway in front of GPU servers needs.
pub const MAX_ENDPOINTS: usize = 512;

/// Declares an enum whose values are words of the configuration.
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
    /// What moves bytes between kernel and gateway (`server.io_driver`).
    IoDriver {
        /// io_uring where the kernel allows it, else epoll.
        Auto = "auto",
        /// io_uring, or no start.
        IoUring = "io_uring",
        /// epoll.
        Epoll = "epoll",
    }
}

words! {
    /// Name of the proxy engine (`proxy.engine`); both behave alike, the name shows in status.
    Engine {
        /// The default.
        Olla = "olla",
        /// Accepted for configurations that name it.
        Sherpa = "sherpa",
    }
}

words! {
    /// `proxy.profile`: shown in status and metrics. Every response is passed on as it arrives,
    /// which each of Olla's profiles allows (docs/contract/surface.md#8.1).
    StreamProfile {
        /// The default.
        Auto = "auto",
        /// Accepted for configurations that name it.
        Streaming = "streaming",
        /// Accepted for configurations that name it.
        Standard = "standard",
    }
}

words! {
    /// Choice among candidates (`proxy.load_balancer`; docs/contract/balancing.md#7).
    Balancer {
        /// The highest priority, shared among equals.
        Priority = "priority",
        /// One after the other.
        RoundRobin = "round-robin",
        /// The fewest requests in flight.
        LeastConnections = "least-connections",
    }
}

words! {
    /// What becomes of Ollama's model management routes (`proxy.model_management`).
    ModelManagement {
        /// 501 with an error that names the key.
        Refuse = "refuse",
        /// To the endpoint that the request names, or to the only healthy one.
        Forward = "forward",
    }
}

words! {
    /// Where a sticky session's key comes from (docs/contract/balancing.md#8).
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
        /// Other endpoints too, as `fallback_behavior` says.
        Optimistic = "optimistic",
        /// Asks the endpoints again when the model is not available.
        Discovery = "discovery",
    }
}

words! {
    /// Where a request goes when its model is not available (docs/contract/balancing.md#5).
    Fallback {
        /// Nowhere, unless the strategy finds the model after all.
        CompatibleOnly = "compatible_only",
        /// Nowhere.
        None = "none",
        /// To any healthy endpoint in scope.
        All = "all",
    }
}

words! {
    /// `logging.level`.
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// Normal work.
        Info = "info",
        /// What an operator should look at.
        Warn = "warn",
        /// What went wrong.
        Error = "error",
    }
}

words! {
    /// `logging.format`.
    LogFormat {
        /// One object a line.
        Json = "json",
        /// `key=value` lines.
        Text = "text",
    }
}

words! {
    /// `logging.output`.
    LogOutput {
        /// Standard output alone.
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
    /// `[proxy]`: the way to the backends.
    pub proxy: ProxyPlan,
    /// `[discovery]`: which backends there are and how they are asked for models.
    pub discovery: DiscoveryPlan,
    /// `[model_registry]`: how models are kept and requests routed.
    pub model_registry: ModelRegistryPlan,
    /// `[model_aliases]`, in the order of their names.
    pub model_aliases: Vec<AliasPlan>,
    /// `[translators]`.
    pub translators: TranslatorsPlan,
    /// `[logging]`.
    pub logging: LoggingPlan,
    /// `[dashboard]`.
    pub dashboard: DashboardPlan,
    /// `[engineering]`.
    pub engineering: EngineeringPlan,
    /// What only environment variables set.
    pub process: ProcessPlan,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerPlan {
    /// Name or address to listen on, IPv6 without brackets; empty = all interfaces.
    pub host: String,
    /// Port, never 0.
    pub port: u16,
    /// The whole request, headers and body; `None` = no limit.
    pub read_timeout: Option<Duration>,
    /// Until a request's headers are complete.
    pub read_header_timeout: Duration,
    /// From the end of the request's headers to the end of the answer; `None` = no limit.
    pub write_timeout: Option<Duration>,
    /// A keep-alive connection without a new request; `None` = no limit.
    pub idle_timeout: Option<Duration>,
    /// How long requests in flight may go on after a signal; zero = cut at once.
    pub shutdown_timeout: Duration,
    /// Whether the lines about each request are logged (docs/contract/operations.md#8).
    pub request_logging: bool,
    /// Event loops; `None` = one for each CPU that the process may use.
    pub workers: Option<NonZeroUsize>,
    /// Whether each event loop stays on its own CPU.
    pub pin_workers: bool,
    /// What moves bytes between kernel and gateway.
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
    /// Bytes of a request's body; `None` = no limit.
    pub max_body_size: Option<u64>,
    /// Bytes of a request's head, at least 4096.
    pub max_header_size: u64,
    /// Bytes of bodies held at one time over the process; `None` = a quarter of the memory that
    /// the process may use.
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
    /// Capacity of each bucket; 0 with a limit on admits nothing.
    pub burst_size: u32,
    /// How often forgotten clients are swept; `None` = never.
    pub cleanup_interval: Option<Duration>,
    /// Whether `X-Forwarded-For` and `X-Real-IP` of a trusted peer name the client.
    pub trust_proxy_headers: bool,
    /// The trusted peers; empty trusts nobody.
    pub trusted_proxy_cidrs: Vec<IpNet>,
    /// `[server.rate_limits.per_endpoint]`.
    pub per_endpoint: EndpointRatesPlan,
}

/// `[server.rate_limits.per_endpoint]`: requests dispatched to one backend in a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRatesPlan {
    /// For endpoints without an override; 0 = no limit.
    pub default_requests_per_minute: u32,
    /// Endpoint name and its rate, sorted by name; 0 = no limit.
    pub overrides: Vec<(String, u32)>,
}

impl EndpointRatesPlan {
    /// Requests a minute for the endpoint of this name, `None` = no limit.
    pub fn of(&self, endpoint: &str) -> Option<NonZeroU32> {
        let found = self.overrides.iter().find(|(name, _)| name == endpoint);
        NonZeroU32::new(found.map_or(self.default_requests_per_minute, |(_, rate)| *rate))
    }
}

/// `[server.cors]` (docs/contract/surface.md#12).
#[derive(Debug, Clone, PartialEq)]
pub struct CorsPlan {
    /// Off: nothing is added and preflights go to the backend.
    pub enabled: bool,
    /// Never empty when enabled.
    pub allowed_origins: Vec<OriginPattern>,
    /// In upper case.
    pub allowed_methods: Vec<String>,
    /// `*` = any.
    pub allowed_headers: Vec<String>,
    /// Empty = every `X-Olla-*` header of the contract.
    pub exposed_headers: Vec<String>,
    /// Whether credentials may be sent; never together with any origin.
    pub allow_credentials: bool,
    /// `Access-Control-Max-Age`; `None` = the header is left out.
    pub max_age: Option<Duration>,
}

impl CorsPlan {
    /// Whether every origin is allowed, so that answers say `*`.
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
    /// One `*` inside: what stands before and after it.
    Around {
        /// Before the `*`.
        prefix: String,
        /// After the `*`.
        suffix: String,
    },
}

impl OriginPattern {
    /// Whether the value of an `Origin` header fits, letter case ignored.
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
    /// Choice among candidates.
    pub load_balancer: Balancer,
    /// TCP connect.
    pub connection_timeout: Duration,
    /// TCP keep-alive interval.
    pub connection_keep_alive: Duration,
    /// How long an idle connection is kept for the next request; zero = not at all.
    pub idle_connection_timeout: Duration,
    /// First byte sent to end of the answer; `None` = no limit.
    pub response_timeout: Option<Duration>,
    /// Longest silence inside an answer's body.
    pub read_timeout: Duration,
    /// Request sent to first header of the answer.
    pub response_header_timeout: Duration,
    /// TLS handshake.
    pub tls_handshake_timeout: Duration,
    /// What becomes of Ollama's model management routes.
    pub model_management: ModelManagement,
    /// `[proxy.retry]`.
    pub retry: RetryPlan,
    /// `[proxy.sticky_sessions]`.
    pub sticky_sessions: StickyPlan,
    /// `[proxy.profile_filter]`: which provider profiles exist (docs/contract/catalogue.md#1.6).
    pub profile_filter: NameFilter,
}

/// `[proxy.retry]` (docs/contract/balancing.md#9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPlan {
    /// False = one attempt.
    pub enabled: bool,
    /// False = one attempt.
    pub on_connection_failure: bool,
    /// Most endpoints tried for one request, the first included; `None` = all candidates.
    pub max_attempts: Option<NonZeroUsize>,
}

impl RetryPlan {
    /// Most endpoints that one request may try when it has this many candidates.
    pub fn attempts_max(&self, candidates: usize) -> usize {
        if !self.enabled || !self.on_connection_failure {
            return candidates.min(1);
        }
        self.max_attempts
            .map_or(candidates, |max| candidates.min(max.get()))
    }
}

/// `[proxy.sticky_sessions]` (docs/contract/balancing.md#8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickyPlan {
    /// Off: no sticky headers at all.
    pub enabled: bool,
    /// Sliding; `None` = never expires.
    pub idle_ttl: Option<Duration>,
    /// Most entries kept; `None` = no limit.
    pub max_sessions: Option<NonZeroUsize>,
    /// In the order tried; empty = never a key.
    pub key_sources: Vec<StickySource>,
    /// Leading bytes hashed; `None` = the whole value.
    pub prefix_hash_bytes: Option<NonZeroUsize>,
}

/// `[discovery]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscoveryPlan {
    /// `[discovery.model_discovery]`.
    pub model_discovery: ModelDiscoveryPlan,
    /// `discovery.static.endpoints`, in the order of the file, at most [`MAX_ENDPOINTS`]; names
    /// and URLs are unique.
    pub endpoints: Vec<EndpointPlan>,
}

/// `[discovery.model_discovery]` (docs/contract/catalogue.md#3.1). The three bounds are above zero
/// when discovery is enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDiscoveryPlan {
    /// Off: no endpoint is asked for its models.
    pub enabled: bool,
    /// Between two rounds.
    pub interval: Duration,
    /// For each endpoint and attempt.
    pub timeout: Duration,
    /// Most endpoints asked at one time.
    pub concurrent_workers: usize,
    /// Further attempts after a failed one.
    pub retry_attempts: u32,
    /// Pause before a further attempt.
    pub retry_backoff: Duration,
}

/// `[model_registry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRegistryPlan {
    /// Off: every pair of endpoint and name is an entry of its own.
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
    /// After this long without being reported a model is forgotten; never zero.
    pub stale_threshold: Duration,
    /// Between two sweeps; never zero.
    pub cleanup_interval: Duration,
}

/// One entry of `[model_aliases]` (docs/contract/catalogue.md#5.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AliasPlan {
    /// What a client asks for, without outer blanks.
    pub name: String,
    /// Real model names, first choice first, without duplicates, never empty.
    pub targets: Vec<String>,
}

/// `[translators]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranslatorsPlan {
    /// `[translators.anthropic]`.
    pub anthropic: AnthropicPlan,
}

/// `[translators.anthropic]` (docs/contract/translation.md#2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnthropicPlan {
    /// Off: its routes answer 404.
    pub enabled: bool,
    /// Off: always translate, whatever the backend speaks.
    pub passthrough_enabled: bool,
    /// Largest request body in bytes, 1 to 100 MiB.
    pub max_message_size: u64,
    /// `[translators.anthropic.inspector]`.
    pub inspector: InspectorPlan,
}

/// `[translators.anthropic.inspector]`: a debugging aid (docs/contract/translation.md#13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectorPlan {
    /// On: a warning at every start.
    pub enabled: bool,
    /// Folder, as written; when enabled it lies outside the system's folders.
    pub output_dir: PathBuf,
    /// Header that names the session's file, a token when enabled.
    pub session_header: String,
}

/// `[logging]` and the variables of the log (docs/contract/operations.md#8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggingPlan {
    /// Least severity logged.
    pub level: LogLevel,
    /// Form of the lines.
    pub format: LogFormat,
    /// Whether the format came from `OLLA_LOGGING_FORMAT`, which holds on a terminal too.
    pub format_from_env: bool,
    /// Where the lines go; `OLLA_FILE_OUTPUT` is already considered.
    pub output: LogOutput,
    /// Folder of the file.
    pub dir: PathBuf,
    /// Size in bytes at which the file is rotated.
    pub rotate_bytes: u64,
    /// Rotated files kept; 0 = all.
    pub max_backups: u32,
    /// Age at which a rotated file goes; `None` = never.
    pub max_age: Option<Duration>,
    /// Colour even where standard output is no terminal (`OLLA_FORCE_COLORS`).
    pub force_colors: bool,
}

/// `[dashboard]` (docs/contract/operations.md#7).
#[derive(Debug, Clone, PartialEq)]
pub struct DashboardPlan {
    /// Off: its paths answer 404.
    pub enabled: bool,
    /// `[dashboard.access_policy]`.
    pub access_policy: AccessPlan,
    /// Whether the policy holds for `/internal/*` and `/version` too.
    pub gate_internal_api: bool,
}

/// `[dashboard.access_policy]`.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessPlan {
    /// Networks that may connect; never empty when the dashboard is enabled.
    pub allowed_cidrs: Vec<IpNet>,
    /// Host names, in lower case, without port and brackets.
    pub allowed_hosts: Vec<String>,
}

/// `[engineering]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineeringPlan {
    /// Whether memory and runtime figures are logged at shutdown.
    pub show_nerdstats: bool,
}

/// What only environment variables set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessPlan {
    /// `OLLA_ENABLE_PROFILER`.
    pub enable_profiler: bool,
}
