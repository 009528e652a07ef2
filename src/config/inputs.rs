//! What a configuration is read against: the environment, the working directory, the types that an
//! endpoint may have.

use std::path::Path;

use super::endpoint::NameFilter;
use super::env::Env;

/// The type of an endpoint whose kind is found out by asking.
pub const AUTO: &str = "auto";

/// One accepted value of an endpoint's `type`. [`AUTO`] needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    /// As it may be written.
    pub written: String,
    /// The profile it stands for.
    pub canonical: String,
}

/// What a configuration is read against.
#[derive(Clone, Copy)]
pub struct ConfigInputs<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The working directory; relative paths start here.
    pub cwd: &'a Path,
    /// The accepted endpoint types.
    pub types: &'a [TypeName],
    /// Whether a filter admits a name (docs/contract/catalogue.md#4).
    pub admits: &'a dyn Fn(&NameFilter, &str) -> bool,
}
