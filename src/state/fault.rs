//! Why the store could not be used.

use std::fmt;
use std::io;

use rusqlite::ErrorCode;

/// A failure of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreFault {
    /// Its kind.
    pub kind: StoreFaultKind,
    /// The reason, without the path.
    pub reason: String,
}

/// The kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFaultKind {
    /// It cannot be read or written: disk full, read-only, input or output error.
    Unavailable,
    /// SQLite found damage.
    Damaged,
    /// The file is no longer where it was.
    Gone,
    /// The file is none that this program may use.
    Unusable,
}

impl StoreFault {
    pub(super) fn unusable(reason: impl Into<String>) -> Self {
        Self {
            kind: StoreFaultKind::Unusable,
            reason: reason.into(),
        }
    }

    pub(super) fn gone(reason: impl Into<String>) -> Self {
        Self {
            kind: StoreFaultKind::Gone,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<io::Error> for StoreFault {
    fn from(error: io::Error) -> Self {
        Self {
            kind: StoreFaultKind::Unavailable,
            reason: error.to_string(),
        }
    }
}

impl From<rusqlite::Error> for StoreFault {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreFaultKind::Damaged,
            _ => StoreFaultKind::Unavailable,
        };
        Self {
            kind,
            reason: error.to_string(),
        }
    }
}
