//! Version and origin of this build, as determined by the build script.
//!
//! Contract: docs/contract/operations.md#4 (`/version`, `/internal/status`),
//! docs/contract/operations.md#9 (`--version`)

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
include!(concat!(env!("OUT_DIR"), "/build_facts.rs"));

/// Operating system and architecture in the usual short form: `linux/amd64`.
pub const fn platform() -> &'static str {
    match (
        std::env::consts::OS.as_bytes(),
        std::env::consts::ARCH.as_bytes(),
    ) {
        (b"linux", b"x86_64") => "linux/amd64",
        (b"linux", b"aarch64") => "linux/arm64",
        (b"macos", b"aarch64") => "darwin/arm64",
        (b"macos", b"x86_64") => "darwin/amd64",
        _ => TARGET,
    }
}

/// The line of `--version`.
pub fn line() -> String {
    format!("olla {VERSION} ({COMMIT} {DATE} {TARGET})\n")
}
