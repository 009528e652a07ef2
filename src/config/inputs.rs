//! The inputs of reading a configuration besides its file: the environment, the working directory and
//! the types of endpoints.

use std::path::Path;

use super::endpoint::NameFilter;
use super::env::Env;

/// The type of an endpoint that the gateway detects.
pub(crate) const AUTO: &str = "auto";

/// One accepted value of an endpoint's `type`. [`AUTO`] needs none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    /// The name in a configuration.
    pub written: String,
    /// The name of the profile.
    pub canonical: String,
}

/// The inputs of reading a configuration besides its file.
#[derive(Clone, Copy)]
pub struct ConfigInputs<'a> {
    /// The environment.
    pub env: &'a Env,
    /// The working directory, where relative paths begin.
    pub cwd: &'a Path,
    /// The accepted endpoint types.
    pub types: &'a [TypeName],
    /// Whether a filter admits a name (docs/contract/catalogue.md#4).
    pub admits: &'a dyn Fn(&NameFilter, &str) -> bool,
}
