//! The state store: one SQLite file with the keys of the admin API, the windows of quotas and the
//! usage ledger.
//!
//! One process has it open for writing: a lock on the file says so, which readers do not need. The
//! file is never overwritten or repaired.
//!
//! Contract: docs/contract/access.md#13

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::day::Day;
use super::fault::{StoreFault, StoreFaultKind};
use super::integer::{signed, unsigned};
use super::query::{Groups, UsageQuery};
use super::usage::{Ledger, UsageFigures};
use super::{rows, schema};

/// How long a statement waits for another program that has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// What an SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The columns of a [`KeyRecord`].
const SELECT_KEYS: &str =
    "SELECT name, hash, old_hash, old_until, created, last_used, fields FROM keys";

/// A key of the admin API. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRecord {
    /// Its name.
    pub name: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// The hash of the secret before, and until when that is valid.
    pub old: Option<([u8; 32], u64)>,
    /// When it was made.
    pub created_ms: u64,
    /// When a request was last sent with it, to the minute.
    pub last_used_ms: Option<u64>,
    /// Its fields as JSON (docs/contract/access.md#4.2).
    pub fields: String,
}

/// What was used in the current window of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredWindow {
    /// The name that the counters belong to.
    pub name: String,
    /// `day` or `month`.
    pub span: &'static str,
    /// When the window began, in Unix milliseconds.
    pub start_ms: u64,
    /// Tokens.
    pub used: u64,
}

/// The names of windows in the store.
pub(crate) const SPANS: [&str; 2] = ["day", "month"];

/// What is written every second.
#[derive(Debug, Default)]
pub(crate) struct StoreBatch {
    /// Windows that have changed.
    pub windows: Vec<StoredWindow>,
    /// Keys that were used, and when, in Unix milliseconds.
    pub last_used: Vec<(String, u64)>,
}

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    /// Closed before the file below: closing that gives up all locks of this process on the file,
    /// SQLite's too.
    connection: Connection,
    file: File,
    path: PathBuf,
}

impl Store {
    /// Opens the store, and makes it if there is no file.
    ///
    /// # Errors
    /// When it cannot be opened for writing, is no SQLite file or one of another program or a later
    /// version, or another process has it.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreFault> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(StoreFault::unusable("it is not a regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreFault::unusable("another gateway has it open"));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        expect_magic(&file)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let mut store = Self {
            connection,
            file,
            path: path.to_owned(),
        };
        store.prepare()?;
        Ok(store)
    }

    fn prepare(&mut self) -> Result<(), StoreFault> {
        self.connection.busy_timeout(BUSY_TIMEOUT)?;
        // Before anything is written: a file of others stays as it is.
        let version = schema::version(&self.connection)?;
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = self
            .connection
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        schema::migrate(&transaction, version)?;
        transaction.commit()?;
        Ok(())
    }

    /// Whether the path still leads to the file that was opened.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn expect_in_place(&self) -> Result<(), StoreFault> {
        let own = self.file.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => Ok(()),
            Ok(_) => Err(StoreFault::gone("the file was replaced by another")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreFault::gone("the file was deleted"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Calls a function with each key, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn each_key(&self, mut take: impl FnMut(KeyRecord)) -> Result<(), StoreFault> {
        let text = format!("{SELECT_KEYS} ORDER BY name");
        let mut statement = self.connection.prepare(&text)?;
        for key in statement.query_map([], stored_key)? {
            take(key?);
        }
        Ok(())
    }

    /// The key of a name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn key(&self, name: &str) -> Result<Option<KeyRecord>, StoreFault> {
        let text = format!("{SELECT_KEYS} WHERE name = ?1");
        let key = self.connection.query_row(&text, [name], stored_key);
        Ok(key.optional()?)
    }

    /// Writes a key, and waits until it is on the disk.
    ///
    /// # Errors
    /// When the store cannot be written; then it is unchanged.
    pub(crate) fn put_key(&self, key: &KeyRecord) -> Result<(), StoreFault> {
        self.expect_in_place()?;
        self.connection.execute(
            "INSERT INTO keys (name, hash, old_hash, old_until, created, last_used, fields) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (name) DO UPDATE SET \
             hash = ?2, old_hash = ?3, old_until = ?4, fields = ?7",
            params![
                key.name,
                key.hash,
                key.old.map(|(hash, _)| hash),
                key.old.map(|(_, until)| signed(until)),
                signed(key.created_ms),
                key.last_used_ms.map(signed),
                key.fields,
            ],
        )?;
        Ok(())
    }

    /// Deletes a key, and waits until that is on the disk.
    ///
    /// # Errors
    /// When the store cannot be written; then it is unchanged.
    pub(crate) fn delete_key(&self, name: &str) -> Result<(), StoreFault> {
        self.expect_in_place()?;
        self.connection
            .execute("DELETE FROM keys WHERE name = ?1", [name])?;
        Ok(())
    }

    /// All windows, by name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn windows(&self) -> Result<Vec<StoredWindow>, StoreFault> {
        let mut statement = self
            .connection
            .prepare("SELECT name, span, start, used FROM quota ORDER BY name, span")?;
        let windows = statement.query_map([], stored_window)?;
        Ok(windows
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?)
    }

    /// The windows of a name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn windows_of(&self, name: &str) -> Result<Vec<StoredWindow>, StoreFault> {
        let mut statement = self
            .connection
            .prepare("SELECT name, span, start, used FROM quota WHERE name = ?1")?;
        let windows = statement.query_map([name], stored_window)?;
        Ok(windows
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?)
    }

    /// Writes rows of the ledger, windows and last uses: all or nothing.
    ///
    /// # Errors
    /// When the store cannot be written; then it is unchanged.
    pub(crate) fn write(&mut self, ledger: &Ledger, batch: &StoreBatch) -> Result<(), StoreFault> {
        self.expect_in_place()?;
        if ledger.len() == 0 && batch.windows.is_empty() && batch.last_used.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction()?;
        rows::add(&transaction, ledger)?;
        {
            let mut put = transaction.prepare(
                "INSERT INTO quota (name, span, start, used) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (name, span) DO UPDATE SET start = ?3, used = ?4",
            )?;
            for window in &batch.windows {
                let start = signed(window.start_ms);
                put.execute(params![
                    window.name,
                    window.span,
                    start,
                    signed(window.used)
                ])?;
            }
            let mut used = transaction.prepare("UPDATE keys SET last_used = ?2 WHERE name = ?1")?;
            for (name, at_ms) in &batch.last_used {
                used.execute(params![name, signed(*at_ms)])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Deletes the rows of the ledger before a day.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn forget_before(&self, day: Day) -> Result<(), StoreFault> {
        self.expect_in_place()?;
        rows::delete_before(&self.connection, day)
    }

    /// Deletes the windows of quotas that began before a time in Unix milliseconds.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn forget_windows_before(&self, start_ms: u64) -> Result<(), StoreFault> {
        self.expect_in_place()?;
        let start = signed(start_ms);
        self.connection
            .execute("DELETE FROM quota WHERE start < ?1", [start])?;
        Ok(())
    }

    /// The bytes that are kept under a name. Those that `make` returns are kept if there are none.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(crate) fn secret(
        &self,
        name: &str,
        make: impl FnOnce() -> Result<Vec<u8>, StoreFault>,
    ) -> Result<Vec<u8>, StoreFault> {
        let kept = self
            .connection
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional()?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let made = make()?;
        self.connection.execute(
            "INSERT INTO meta (name, value) VALUES (?1, ?2)",
            params![name, made],
        )?;
        Ok(made)
    }

    /// The groups of a report that are in the store, one more than its limit, and their total.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn usage(&self, query: &UsageQuery) -> Result<(Groups, UsageFigures), StoreFault> {
        rows::report(&self.connection, query)
    }
}

/// A file of another kind is refused before SQLite sees it.
fn expect_magic(file: &File) -> Result<(), StoreFault> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(());
    }
    let mut start = Vec::with_capacity(MAGIC.len());
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start == MAGIC {
        Ok(())
    } else {
        Err(StoreFault::unusable("it is not a SQLite file"))
    }
}

/// A window of a row; `None` = its span is unknown.
fn stored_window(row: &Row<'_>) -> rusqlite::Result<Option<StoredWindow>> {
    let span: String = row.get(1)?;
    let Some(span) = SPANS.iter().find(|known| **known == span) else {
        return Ok(None);
    };
    Ok(Some(StoredWindow {
        name: row.get(0)?,
        span,
        start_ms: unsigned(row.get(2)?),
        used: unsigned(row.get(3)?),
    }))
}

fn stored_key(row: &Row<'_>) -> rusqlite::Result<KeyRecord> {
    let old: Option<[u8; 32]> = row.get(2)?;
    let until: Option<i64> = row.get(3)?;
    let last_used: Option<i64> = row.get(5)?;
    Ok(KeyRecord {
        name: row.get(0)?,
        hash: row.get(1)?,
        old: old.zip(until.map(unsigned)),
        created_ms: unsigned(row.get(4)?),
        last_used_ms: last_used.map(unsigned),
        fields: row.get(6)?,
    })
}

/// A connection that only reads, also while a gateway has the file.
///
/// # Errors
/// When the file cannot be read or is none of this program's.
pub(super) fn reader(path: &Path) -> Result<Connection, StoreFault> {
    expect_magic(&File::open(path)?)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(path), flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if schema::version(&connection)? == 0 {
        return Err(StoreFault {
            kind: StoreFaultKind::Unusable,
            reason: "the file is empty".to_owned(),
        });
    }
    Ok(connection)
}

/// The address of a file for SQLite. A file that no process has open is read as it is: otherwise
/// files would be made beside it that may belong to another user than the gateway's.
fn uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_os_str().as_bytes();
    let name = percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC);
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let is_quiet = !Path::new(&log).exists();
    format!(
        "file:{name}?mode=ro{}",
        if is_quiet { "&immutable=1" } else { "" }
    )
}
