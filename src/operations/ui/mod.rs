//! The dashboard's files, in the binary.
//!
//! Plain HTML, one style sheet and ES modules, as they lie in this folder: nothing is built, and
//! nothing is loaded from elsewhere. The only thing done to them is naming: every file but the
//! page is served under a name with the hash of all files in it, so that it can be cached for ever
//! and no mixture of two versions can come about; the references in the files are rewritten to
//! those names once, at the first use.
//!
//! Answers no request: access policy, conditional answers and headers belong to the route.
//!
//! contract: operations 7

use std::sync::OnceLock;

use crate::config::Fingerprints as _;

/// Where the files live below the dashboard's prefix; other paths without a dot are the page.
const FOLDER: &str = "assets/";

/// For the page: cached, but asked after each time (contract: operations 7).
const REVALIDATE: &str = "no-cache";

/// For names with a hash in them (contract: operations 7).
const FOREVER: &str = "public, max-age=31536000, immutable";

const PAGE: &str = include_str!("index.html");
