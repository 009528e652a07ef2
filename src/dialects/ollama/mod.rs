//! Ollama's own API over the whole fleet.
//!
//! [`own`] has the routes that need no endpoint, [`running`] merges lists of loaded models.
//!
//! Contract: docs/contract/dialects.md#2, docs/contract/dialects.md#11

mod own;
mod running;

use super::{ApiFamily, CommonRoutes, DialectRoute, Operation};
use crate::catalogue::ListingForm;
pub(crate) use running::RunningModels;

/// The routes below every prefix and at the root (docs/contract/dialects.md#2.1).
pub(super) const COMMON_ROUTES: CommonRoutes = CommonRoutes {
    family: ApiFamily::Ollama,
    routes: &[
        DialectRoute {
            path: b"/api/show",
            allow: "POST",
            operation: Operation::Describe,
        },
        DialectRoute {
            path: b"/api/tags",
            allow: "GET, HEAD",
            operation: Operation::Listing(ListingForm::Ollama),
        },
        DialectRoute {
            path: b"/api/ps",
            allow: "GET, HEAD",
            operation: Operation::Running,
        },
    ],
};

/// Further routes at the root (docs/contract/dialects.md#2.2).
pub(crate) const OLLAMA_ROOT: &[DialectRoute] = &[
    DialectRoute {
        path: b"/api/version",
        allow: "GET, HEAD",
        operation: Operation::List(own::version),
    },
    DialectRoute {
        path: b"/api/hello",
        allow: "GET, HEAD",
        operation: Operation::List(own::hello),
    },
];
