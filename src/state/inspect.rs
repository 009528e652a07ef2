//! Reading a store from outside: its check, and reports while a gateway has it.
//!
//! Contract: docs/contract/access.md#14

use std::path::Path;
use std::time::SystemTime;

use rusqlite::Connection;

use super::fault::StoreFault;
use super::integer::unsigned;
use super::query::UsageQuery;
use super::report::{self, UsageReport};
use super::{rows, schema, store};

/// Faults of the file that a check reports.
const FAULTS_MAX: usize = 20;

/// What a check of a store has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreCheck {
    /// What SQLite found wrong; empty = nothing.
    pub faults: Vec<String>,
    /// The version of the tables.
    pub version: i64,
    /// Number of keys.
    pub keys: u64,
    /// Number of windows of quotas.
    pub windows: u64,
    /// Number of rows of the usage ledger.
    pub rows: u64,
    /// The first and the last day of the ledger.
    pub days: Option<(String, String)>,
}

/// Checks a store without changing it.
///
/// # Errors
/// When the file cannot be read, or is none of this program's.
pub(crate) fn check(path: &Path) -> Result<StoreCheck, StoreFault> {
    let connection = store::reader(path)?;
    let faults = faults(&connection)?;
    let count = |table: &str| -> Result<u64, StoreFault> {
        let text = format!("SELECT COUNT(*) FROM {table}");
        Ok(connection
            .query_row(&text, [], |row| row.get(0))
            .map(unsigned)?)
    };
    let days = connection.query_row("SELECT MIN(day), MAX(day) FROM usage", [], |row| {
        let (first, last): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
        Ok(first.zip(last))
    })?;
    Ok(StoreCheck {
        faults,
        version: schema::version(&connection)?,
        keys: count("keys")?,
        windows: count("quota")?,
        rows: count("usage")?,
        days,
    })
}

fn faults(connection: &Connection) -> Result<Vec<String>, StoreFault> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({FAULTS_MAX})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    let lines: Vec<String> = lines.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// A usage report of what is in a store.
///
/// # Errors
/// When the file cannot be read, or is none of this program's.
pub(crate) fn usage_of(
    path: &Path,
    query: &UsageQuery,
    now: SystemTime,
) -> Result<UsageReport, StoreFault> {
    let connection = store::reader(path)?;
    let (groups, total) = rows::report(&connection, query)?;
    Ok(report::render(query, &groups, &total, now))
}
