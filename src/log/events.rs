//! The fixed texts of the log's events. Names and fields are part of the contract: whoever reads
//! the log by machine selects by them.
//!
//! Contract: docs/contract/operations.md#6, docs/contract/operations.md#7,
//! docs/contract/operations.md#8

/// A proxied request has arrived. INFO: `client_ip`, `method`, `path`, `compatible_endpoints`,
/// \[`user_agent`], \[`model`], \[`content_length`], \[`translator_mode`].
pub const REQUEST_RECEIVED: &str = "Request received";
/// An attempt begins. INFO: `endpoint`, `target`, `model`.
pub const REQUEST_DISPATCHING: &str = "Request dispatching";
/// A request was answered to its end. INFO: `endpoint`, `duration_ms`, `status`="completed",
/// \[`model`], \[`total_bytes`], \[`translator_mode`], provider fields, \[`routing_strategy`,
/// `routing_action`, `routing_reason`], \[`sticky_outcome`], \[`session_id`], \[`fallback_reason`].
pub const REQUEST_COMPLETED: &str = "Request completed";
/// A request was refused by the gateway. WARN: `client_ip`, `path`, `status`, `duration_ms`,
/// \[`model`], routing fields.
pub const REQUEST_REJECTED: &str = "Request rejected";
/// A request failed. ERROR: `error` and the fields of [`REQUEST_METRICS`].
pub const REQUEST_FAILED: &str = "Request failed";
/// Where a request's time went. DEBUG: `endpoint`, `model`, `client_ip`, `total_bytes`,
/// `duration_ms`, `latency_ms`, `request_processing_ms`, `backend_response_ms`, `first_data_ms`,
/// `streaming_ms`, `header_processing_ms`, `path_resolution_ms`, `selection_ms`, provider fields.
pub const REQUEST_METRICS: &str = "Request metrics";
/// One line for every answer; begun with [`LineLog::access`](super::LineLog::access).
/// `remote_addr`, `method`, `path`, `query`, `status`, `request_bytes`, `response_bytes`,
/// `duration_ms`, `user_agent`, `referer`, `content_type`, `accept`.
pub const ACCESS_LOG: &str = "Access log";
/// A request found an endpoint dead. WARN: `endpoint`, `error`, `remaining_endpoints`.
pub const CONNECTION_FAILED: &str = "Connection failed to endpoint, marking as unhealthy";
/// A check found an endpoint worse. WARN: `endpoint`, `endpoint_url` (display), `from`, `to`,
/// `latency_ms`, `next_check_in_ms`, \[`status_code`], \[`error`].
pub const ENDPOINT_STATUS_CHANGED: &str = "Endpoint status changed";
/// A check found an endpoint well again. INFO, fields as [`ENDPOINT_STATUS_CHANGED`].
pub const ENDPOINT_RECOVERED: &str = "Endpoint recovered";
/// The models of all endpoints were put together anew, because listings or only the health of
/// endpoints had changed. DEBUG: `changed` (`models`, `health`), `models`, `listed`, `duration_ms`.
pub const CATALOGUE_BUILT: &str = "Catalogue built";
/// Something of a request or an answer of the Messages API has no counterpart. WARN: `reason`.
pub const NOT_TRANSLATED: &str = "Not everything was translated";
/// A record of the inspector is lost. WARN: \[`path`], `error`.
pub const NOT_RECORDED: &str = "Inspector record not written";
/// A client named a session that cannot be a file's name. WARN.
pub const SESSION_REPLACED: &str = "Inspector session name not usable, default taken";
/// The socket is open. INFO: `address`.
pub const LISTENING: &str = "HTTP server listening";
/// The start is over. INFO: `bind`.
pub const STARTED: &str = "Olla started, waiting for requests...";
/// Where the dashboard is. INFO: `url`.
pub const DASHBOARD: &str = "Dashboard available";
/// A signal asks for the end. INFO: `signal`.
pub const SHUTDOWN_SIGNAL: &str = "Shutdown signal received";
/// Requests were cut at the end of the shutdown. WARN: `cut`.
pub const REQUESTS_CUT: &str = "Requests cut at shutdown";
/// Memory at shutdown. INFO: `resident_bytes`, `resident_peak_bytes`, `virtual_bytes`,
/// `anonymous_bytes`.
pub const NERDSTATS_MEMORY: &str = "Process memory stats";
/// The runtime at shutdown. INFO: `cpu_seconds`, `threads`, `open_fds`, `workers`, `io_driver`,
/// `compiler`.
pub const NERDSTATS_RUNTIME: &str = "Runtime stats";
/// The end. INFO: `uptime`, `drained`, `cut`.
pub const SHUT_DOWN: &str = "Olla has shutdown";
/// A reload is in force. INFO: `changed`, the key paths separated by commas.
pub const RELOADED: &str = "Configuration reloaded";
/// A reload was refused and the old configuration stays. ERROR.
pub const RELOAD_FAILED: &str = "Configuration not reloaded";
/// One error of the configuration. ERROR: `key`, `reason`.
pub const CONFIG_INVALID: &str = "Configuration invalid";
/// One remark about the configuration. WARN: `key`, `reason`.
pub const CONFIG_WARNING: &str = "Configuration warning";
/// The dashboard was refused. WARN: `reason`, `config_key`, `client_ip`, `host`.
pub const DASHBOARD_DENIED: &str = "dashboard access denied";
/// Connections cannot be accepted for want of a resource; at most once a minute. WARN: `reason`,
/// `failures` since the last such line, \[`open_files_limit`], `remedy`.
pub const ACCEPT_FAILED: &str = "Connections not accepted";
/// Lines were lost because the log could not be written fast enough. WARN: `dropped`.
pub const LINES_DROPPED: &str = "Log lines dropped";
/// The log file cannot be opened or written. WARN: `path`, `error`.
pub const FILE_UNAVAILABLE: &str = "Log file unavailable";
