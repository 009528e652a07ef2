//! The messages of the log's events. Messages and fields are part of the contract, because programs
//! that read the log select by them.
//!
//! Contract: docs/contract/operations.md#6, docs/contract/operations.md#7,
//! docs/contract/operations.md#8

/// A proxied request has arrived. INFO: `client_ip`, `method`, `path`, `compatible_endpoints`,
/// \[`user_agent`], \[`model`], \[`content_length`], \[`translator_mode`].
pub(crate) const REQUEST_RECEIVED: &str = "Request received";
/// An attempt begins. INFO: `endpoint`, `target`, `model`.
pub(crate) const REQUEST_DISPATCHING: &str = "Request dispatching";
/// A response was relayed to its end. INFO: `endpoint`, `duration_ms`, `status`="completed",
/// \[`model`], \[`total_bytes`], \[`translator_mode`], provider fields, \[`routing_strategy`,
/// `routing_action`, `routing_reason`], \[`sticky_outcome`], \[`session_id`], \[`fallback_reason`].
pub(crate) const REQUEST_COMPLETED: &str = "Request completed";
/// A request was refused by the gateway. WARN: `client_ip`, `path`, `status`, `duration_ms`,
/// \[`model`], routing fields.
pub(crate) const REQUEST_REJECTED: &str = "Request rejected";
/// A request failed. ERROR: `error` and the fields of [`REQUEST_METRICS`].
pub(crate) const REQUEST_FAILED: &str = "Request failed";
/// The times of a request's phases. DEBUG: `endpoint`, `model`, `client_ip`, `total_bytes`,
/// `duration_ms`, `latency_ms`, `request_processing_ms`, `backend_response_ms`, `first_data_ms`,
/// `streaming_ms`, `header_processing_ms`, `path_resolution_ms`, `selection_ms`, provider fields.
pub(crate) const REQUEST_METRICS: &str = "Request metrics";
/// One line for every response, written with [`LineLog::access`](super::LineLog::access).
/// `remote_addr`, `method`, `path`, `query`, `status`, `request_bytes`, `response_bytes`,
/// `duration_ms`, `user_agent`, `referer`, `content_type`, `accept`.
pub(crate) const ACCESS_LOG: &str = "Access log";
/// A credential was refused, or none was sent (DEBUG). WARN: `reason`, `key_id`, \[`key`],
/// \[`token_reason`], `client_ip`, `method`, `path`, \[`suppressed`].
pub(crate) const KEY_REFUSED: &str = "Key refused";
/// The keys of a source were read. INFO: `source`, `keys`, `added`, `removed`, `changed`.
pub(crate) const KEYS_LOADED: &str = "Keys loaded";
/// The issuer's keys were fetched, or read from their file. INFO: `keys`.
pub(crate) const SIGNING_KEYS_FETCHED: &str = "Signing keys fetched";
/// The issuer's keys could not be fetched (WARN) or read (ERROR): `error`, \[`last_success`],
/// \[`next_try_s`].
pub(crate) const SIGNING_KEYS_NOT_FETCHED: &str = "Signing keys not fetched";
/// An operator has changed something. INFO: `key`, `action`, `target`, `result`, `client_ip`.
pub(crate) const ADMIN_ACTION: &str = "Admin action";
/// A field of the keys file has no meaning. WARN: `error`.
pub(crate) const KEYS_FILE_ODD: &str = "Unknown field in the keys file";
/// A version of the keys file is not used; its keys stay. ERROR: `error`, `errors`.
pub(crate) const KEYS_FILE_REFUSED: &str = "Keys file refused, keeping the keys before";
/// A request could not reach an endpoint. WARN: `endpoint`, `error`, `remaining_endpoints`,
/// \[`reason`].
pub(crate) const CONNECTION_FAILED: &str = "Connection failed to endpoint, marking as unhealthy";
/// A request leaves an endpoint for another. INFO: `endpoint`, `model`, `reason` (as in
/// `olla_retries_total`), \[`status_code`], \[`cooldown_ms`], `next_endpoint`.
pub(crate) const ENDPOINT_LEFT: &str = "Endpoint left for another";
/// An endpoint's connection ended on a request; it is checked at once. WARN: `endpoint`,
/// `error`.
pub(crate) const CONNECTION_DROPPED: &str = "Endpoint closed the connection on a request";
/// A check or a lost connection changed the status of an endpoint. WARN: `endpoint`, `endpoint_url`
/// (display), `from`, `to`, `latency_ms`, `next_check_in_ms`, \[`status_code`], \[`error`] (a kind of
/// docs/contract/observe.md#1), \[`reason`].
pub(crate) const ENDPOINT_STATUS_CHANGED: &str = "Endpoint status changed";
/// A check succeeded again after failures. INFO, fields as [`ENDPOINT_STATUS_CHANGED`].
pub(crate) const ENDPOINT_RECOVERED: &str = "Endpoint recovered";
/// The catalogue was rebuilt, because listings or the health of endpoints had changed. DEBUG:
/// `changed` (`models`, `health`), `models`, `listed`, `duration_ms`.
pub(crate) const CATALOGUE_BUILT: &str = "Catalogue built";
/// A part of a Messages request or response has no counterpart. WARN: `reason`.
pub(crate) const NOT_TRANSLATED: &str = "Not everything was translated";
/// A field of a request had no effect after translation; at most once a minute for each. WARN:
/// `request_id`, `translator`, `field`.
pub(crate) const FIELD_DROPPED: &str = "Request field dropped in translation";
/// A record of the inspector could not be written. WARN: \[`path`], `error`.
pub(crate) const NOT_RECORDED: &str = "Inspector record not written";
/// A client sent a session name that is not a valid file name. WARN.
pub(crate) const SESSION_REPLACED: &str = "Inspector session name not usable, default taken";
/// The gateway listens. INFO: `address`.
pub(crate) const LISTENING: &str = "HTTP server listening";
/// Startup is complete. INFO: `bind`.
pub(crate) const STARTED: &str = "Olla started, waiting for requests...";
/// The address of the dashboard. INFO: `url`.
pub(crate) const DASHBOARD: &str = "Dashboard available";
/// A signal requests the shutdown. INFO: `signal`.
pub(crate) const SHUTDOWN_SIGNAL: &str = "Shutdown signal received";
/// Requests were aborted at the end of the shutdown. WARN: `cut`.
pub(crate) const REQUESTS_CUT: &str = "Requests cut at shutdown";
/// Memory at shutdown. INFO: `resident_bytes`, `resident_peak_bytes`, `virtual_bytes`,
/// `anonymous_bytes`.
pub(crate) const NERDSTATS_MEMORY: &str = "Process memory stats";
/// The runtime at shutdown. INFO: `cpu_seconds`, `threads`, `open_fds`, `workers`, `io_driver`,
/// `compiler`.
pub(crate) const NERDSTATS_RUNTIME: &str = "Runtime stats";
/// The shutdown is complete. INFO: `uptime`, `drained`, `cut`.
pub(crate) const SHUT_DOWN: &str = "Olla has shutdown";
/// The configuration was read at start. INFO: `file`, or `reason` if there is no file.
pub(crate) const CONFIG_READ: &str = "Configuration read";
/// The URL of an endpoint ends in the version prefix that follows these words and that paths begin
/// with already. INFO: `endpoint`, `prefix`.
pub(crate) const VERSION_PREFIX_LEFT_OUT: [&str; 2] =
    ["Endpoint URL ends in ", ", which is left out"];
/// A configuration file was found and not read, because of an earlier one. WARN: `file`, `read`.
pub(crate) const CONFIG_PASSED_OVER: &str = "Configuration file passed over";
/// A YAML profile does not replace the built-in one of its name. INFO: `profile`, `file`.
pub(crate) const PROFILE_KEPT: &str = "Built-in profile kept";
/// A reload is in force. INFO: `changed`, the key paths separated by commas.
pub(crate) const RELOADED: &str = "Configuration reloaded";
/// A reload was refused; the old configuration stays in force. ERROR.
pub(crate) const RELOAD_FAILED: &str = "Configuration not reloaded";
/// One error of the configuration. ERROR: `key`, `reason`.
pub(crate) const CONFIG_INVALID: &str = "Configuration invalid";
/// One warning about the configuration. WARN: `key`, `reason`.
pub(crate) const CONFIG_WARNING: &str = "Configuration warning";
/// A request for the dashboard was refused. WARN: `reason`, `config_key`, `client_ip`, `host`.
pub(crate) const DASHBOARD_DENIED: &str = "dashboard access denied";
/// A rate limit refuses requests; at most once a minute. WARN: `key`, `value`, `client_ip`.
pub(crate) const RATE_LIMIT_REACHED: &str = "Rate limit reached";
/// A limit of a key refuses a request; at most once a minute and key. INFO: `key`, `policy`, `limit`,
/// `retry_after_s`, \[`suppressed`].
pub(crate) const LIMIT_REACHED: &str = "Limit reached";
/// Connections cannot be accepted because a resource is exhausted; at most once a minute. WARN:
/// `reason`, `failures` since the last such line, \[`open_files_limit`], `remedy`.
pub(crate) const ACCEPT_FAILED: &str = "Connections not accepted";
/// Requests cannot connect to endpoints because a resource of this machine is exhausted; at most
/// once a minute. WARN: as above.
pub(crate) const CONNECT_EXHAUSTED: &str = "Connections to endpoints not opened";
/// Lines were dropped because the output was too slow. WARN: `dropped`.
pub(crate) const LINES_DROPPED: &str = "Log lines dropped";
/// A key of the state store is not in force. WARN: `key`, `error`.
pub(crate) const KEY_ASIDE: &str = "Stored key left aside";
/// The state store fails; at first, then once a minute. ERROR: `path`, `error`, `pending_rows`.
pub(crate) const STORE_FAILED: &str = "State store unavailable";
/// The state store works again, and what waited in memory is written. INFO: `path`.
pub(crate) const STORE_BACK: &str = "State store available again";
/// The log file cannot be opened or written. WARN: `path`, `error`.
pub(crate) const FILE_UNAVAILABLE: &str = "Log file unavailable";
