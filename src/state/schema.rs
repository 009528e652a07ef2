//! The tables of the store, and how a file of an earlier version becomes one of this version.
//!
//! Contract: docs/contract/access.md#13

use rusqlite::{Connection, Transaction};

use super::fault::StoreFault;

/// The version of the tables (`PRAGMA user_version`).
pub(super) const VERSION: i64 = 1;

/// Times are Unix milliseconds. A migration leads from the version of its index to the next; a file
/// without tables has version 0.
const MIGRATIONS: [&str; VERSION as usize] = ["
CREATE TABLE keys  (name TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, old_hash BLOB, old_until INTEGER,
                    created INTEGER NOT NULL, last_used INTEGER, fields TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE quota (name TEXT, span TEXT, start INTEGER, used INTEGER NOT NULL, PRIMARY KEY (name, span)) WITHOUT ROWID;
CREATE TABLE usage (day TEXT, key TEXT, model TEXT, endpoint TEXT, requests INTEGER, errors INTEGER, prompt_tokens INTEGER,
                    cached_tokens INTEGER, completion_tokens INTEGER, seconds REAL, PRIMARY KEY (day, key, model, endpoint)) WITHOUT ROWID;
CREATE TABLE meta  (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
"];

/// The version of a file. A file without one is new, and must not have tables.
///
/// # Errors
/// When the file cannot be read, is of a later version, or belongs to another program.
pub(super) fn version(connection: &Connection) -> Result<i64, StoreFault> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match version {
        0 if tables > 0 => Err(StoreFault::unusable(
            "the file is a database of another program",
        )),
        0..=VERSION => Ok(version),
        _ => Err(StoreFault::unusable(format!(
            "the file has version {version}, and this olla knows versions up to {VERSION}; use a \
             newer olla"
        ))),
    }
}

/// Brings the tables to the version of this program, all steps or none.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn migrate(transaction: &Transaction<'_>, from: i64) -> Result<(), StoreFault> {
    let done = usize::try_from(from).unwrap_or(0);
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    if from != VERSION {
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}
