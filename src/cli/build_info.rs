//! What this program is and what it was built from, as the build script found out.
//!
//! contract: operations 4 (`/version`, `/internal/status`), 9 (`--version`)

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, shortened, or `unknown`.
pub const COMMIT: &str = env!("OLLA_COMMIT");
/// The day of the commit, or of the build outside a repository: `YYYY-MM-DD`.
pub const DATE: &str = env!("OLLA_BUILD_DATE");
/// The target triple.
pub const TARGET: &str = env!("OLLA_TARGET");
/// What the compiler says of itself.
pub const COMPILER: &str = env!("OLLA_COMPILER");

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
