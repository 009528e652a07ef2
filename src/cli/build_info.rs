//! Version and origin of this build, as determined by the build script.
//!
//! Contract: docs/contract/operations.md#4 (`/version`, `/internal/status`),
//! docs/contract/operations.md#9 (`--version`)

/// The version of the package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
include!(concat!(env!("OUT_DIR"), "/build_facts.rs"));

/// The line of `--version`.
pub(crate) fn line() -> String {
    format!("olla {VERSION} ({COMMIT} {DATE} {TARGET})\n")
}
