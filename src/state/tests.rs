//! The store and the ledger together, on files.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::Connection;
use serde_json::Value;

use super::report::UsageReport;
use super::usage::UsageRow;
use super::*;

/// A folder that is deleted at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("olla-state-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("state.db")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn day(text: &str) -> Day {
    Day::parse(text).unwrap()
}

fn usage(day_text: &str, key: &str, requests: u64) -> UsageDelta {
    let row = UsageRow {
        day: day(day_text),
        key: key.into(),
        model: "m".into(),
        endpoint: "gpu".into(),
    };
    let figures = UsageFigures {
        requests,
        prompt_tokens: 10 * requests,
        seconds: 0.5,
        ..UsageFigures::default()
    };
    vec![(row, figures)]
}

fn key(name: &str, byte: u8) -> KeyRecord {
    KeyRecord {
        name: name.to_owned(),
        hash: [byte; 32],
        old: None,
        created_ms: 1_000,
        last_used_ms: None,
        fields: "{}".to_owned(),
    }
}

fn shown(report: &UsageReport) -> Vec<(String, u64)> {
    let value: Value = serde_json::from_slice(&report.body).unwrap();
    let rows = value["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let name = row["day"].as_str().or(row["key"].as_str()).unwrap();
        (name.to_owned(), row["requests"].as_u64().unwrap())
    })
    .collect()
}

fn query(text: &str) -> UsageQuery {
    UsageQuery::parse(text, day("2026-11-30")).unwrap()
}

fn keys(store: &Store) -> Vec<KeyRecord> {
    let mut keys = Vec::new();
    store.each_key(|key| keys.push(key)).unwrap();
    keys
}

#[test]
fn keys_and_windows_are_found_again() {
    let folder = Folder::new("keys");
    let mut store = Store::open(&folder.file()).unwrap();
    let mut alice = key("alice", 1);
    store.put_key(&key("bob", 2)).unwrap();
    store.put_key(&alice).unwrap();
    assert!(
        store.put_key(&key("carol", 2)).is_err(),
        "the hash is taken"
    );
    alice.old = Some(([1; 32], 99));
    alice.hash = [3; 32];
    alice.fields = r#"{"note":"x"}"#.to_owned();
    store.put_key(&alice).unwrap();
    let window = StoredWindow {
        name: "alice".to_owned(),
        span: SPANS[0],
        start_ms: 5,
        used: 7,
    };
    let batch = StoreBatch {
        windows: vec![window.clone()],
        last_used: vec![("alice".to_owned(), 60_000), ("nobody".to_owned(), 1)],
    };
    store.write(&usage::Ledger::default(), &batch).unwrap();
    alice.last_used_ms = Some(60_000);
    assert_eq!(keys(&store), [alice, key("bob", 2)]);
    store.delete_key("bob").unwrap();
    let secret = store.secret("salt", || Ok(vec![1, 2])).unwrap();
    drop(store);
    let store = Store::open(&folder.file()).unwrap();
    assert_eq!(keys(&store).len(), 1);
    assert_eq!(store.windows().unwrap(), [window]);
    assert_eq!(store.secret("salt", || Ok(vec![9])).unwrap(), secret);
}

#[test]
fn the_file_is_for_its_owner_alone_and_for_one_gateway() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("owner");
    let store = Store::open(&folder.file()).unwrap();
    let mode = std::fs::metadata(folder.file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let fault = Store::open(&folder.file()).unwrap_err();
    assert_eq!(fault.reason, "another gateway has it open");
    let found = check(&folder.file()).unwrap();
    assert_eq!((found.version, found.keys), (1, 0));
    drop(store);
    Store::open(&folder.file()).unwrap();
}

#[test]
fn other_files_are_refused_and_left_as_they_are() {
    let folder = Folder::new("others");
    let path = folder.file();
    let refused = |why: &str| {
        let before = std::fs::read(&path).unwrap();
        let fault = Store::open(&path).unwrap_err();
        assert!(fault.reason.contains(why), "{fault}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(check(&path).is_err());
        std::fs::remove_file(&path).unwrap();
    };
    std::fs::write(&path, "notes of mine, longer than a header").unwrap();
    refused("not a SQLite file");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(other);
    refused("another program");
    let later = Connection::open(&path).unwrap();
    later.execute_batch("PRAGMA user_version = 2").unwrap();
    drop(later);
    refused("version 2");
    let missing = folder.0.join("none/state.db");
    assert!(Store::open(&missing).is_err());
    assert!(Store::open(&folder.0).is_err(), "a folder");
    assert!(
        check(&path).is_err() && !path.exists(),
        "a check makes no file"
    );
}

#[test]
fn a_report_adds_what_is_not_written_yet() {
    let folder = Folder::new("report");
    let now = Instant::now();
    let today = day("2026-11-30");
    let mut book = Book::new(Some(Store::open(&folder.file()).unwrap()), 400, now);
    book.add(usage("2026-11-29", "a", 1));
    book.add(usage("2026-11-30", "b", 2));
    assert!(book.due() > now);
    let later = now + Duration::from_secs(1);
    assert_eq!(
        book.write(later, today, &StoreBatch::default()),
        WriteOutcome::Done
    );
    assert_eq!(book.counts(), (0, 0));
    book.add(usage("2026-11-30", "b", 4));
    book.add(usage("2026-11-30", "c", 8));
    let report = |text: &str| {
        let report = book.report(&query(text), SystemTime::UNIX_EPOCH).unwrap();
        let value: Value = serde_json::from_slice(&report.body).unwrap();
        let total = value["total"]["requests"].as_u64().unwrap();
        let next = value["next"].as_str().map(str::to_owned);
        (shown(&report), total, next)
    };
    let row = |name: &str, requests| (name.to_owned(), requests);
    let (rows, total, next) = report("group=key&since=2026-11-01");
    assert_eq!(rows, [row("a", 1), row("b", 6), row("c", 8)]);
    assert_eq!((total, next), (15, None));
    // A page that ends between rows of the store and rows in memory.
    let (rows, total, next) = report("group=key&since=2026-11-01&limit=2");
    assert_eq!((rows, total), (vec![row("a", 1), row("b", 6)], 15));
    let text = format!("group=key&since=2026-11-01&limit=2&after={}", next.unwrap());
    assert_eq!(report(&text), (vec![row("c", 8)], 15, None));
    let (rows, ..) = report("group=day&since=2026-11-01&key=b");
    assert_eq!(rows, [row("2026-11-30", 6)]);
    // Another process sees what is written.
    let query = query("group=key&since=2026-11-01");
    let outside = usage_of(&folder.file(), &query, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(shown(&outside), [row("a", 1), row("b", 2)]);
    drop(book);
    let outside = usage_of(&folder.file(), &query, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(shown(&outside), [row("a", 1), row("b", 2)]);
    let found = check(&folder.file()).unwrap();
    let days = Some(("2026-11-29".to_owned(), "2026-11-30".to_owned()));
    assert_eq!((found.rows, found.days, found.faults.len()), (2, days, 0));
}

#[test]
fn old_rows_are_deleted_daily() {
    let folder = Folder::new("old");
    let now = Instant::now();
    for store in [None, Some(Store::open(&folder.file()).unwrap())] {
        let mut book = Book::new(store, 2, now);
        for (text, requests) in [("2026-11-28", 1), ("2026-11-29", 2), ("2026-11-30", 4)] {
            book.add(usage(text, "a", requests));
        }
        let rows = |book: &Book| {
            let all = query("group=day&since=2026-01-01");
            let rows = shown(&book.report(&all, SystemTime::UNIX_EPOCH).unwrap());
            rows.into_iter()
                .map(|(_, requests)| requests)
                .collect::<Vec<_>>()
        };
        book.write(now, day("2026-11-30"), &StoreBatch::default());
        assert_eq!(rows(&book), [2, 4]);
        book.write(now, day("2026-12-01"), &StoreBatch::default());
        assert_eq!(rows(&book), [4]);
        book.add(usage("2026-11-29", "a", 8));
        book.write(now, day("2026-12-01"), &StoreBatch::default());
        assert_eq!(rows(&book), [8, 4], "not before the next day");
    }
}

#[test]
fn while_the_store_fails_usage_waits_in_memory() {
    let folder = Folder::new("fails");
    let now = Instant::now();
    let today = day("2026-11-30");
    let path = folder.file();
    let aside = folder.0.join("aside");
    let mut book = Book::new(Some(Store::open(&path).unwrap()), 400, now);
    book.add(usage("2026-11-30", "a", 1));
    std::fs::rename(&path, &aside).unwrap();
    let failed = |written| match written {
        WriteOutcome::Failed { fault, is_news } => (fault.kind, is_news),
        other => panic!("{other:?}"),
    };
    let mut at = now + Duration::from_secs(1);
    let gone = StoreFaultKind::Gone;
    assert_eq!(
        failed(book.write(at, today, &StoreBatch::default())),
        (gone, true)
    );
    assert!(!book.is_up());
    assert_eq!(book.counts(), (1, 1));
    assert_eq!(book.due(), at + Duration::from_secs(5));
    at += Duration::from_secs(5);
    assert_eq!(
        failed(book.write(at, today, &StoreBatch::default())),
        (gone, false)
    );
    std::fs::write(&path, "another file").unwrap();
    at += Duration::from_secs(60);
    assert_eq!(
        failed(book.write(at, today, &StoreBatch::default())),
        (gone, true)
    );
    assert!(matches!(
        book.change_key("a", Some(&key("a", 1))),
        Some(Err(_))
    ));
    std::fs::rename(&aside, &path).unwrap();
    at += Duration::from_secs(5);
    assert_eq!(
        book.write(at, today, &StoreBatch::default()),
        WriteOutcome::Again
    );
    assert!(book.is_up());
    assert_eq!(book.counts(), (0, 3));
    assert_eq!(book.change_key("a", Some(&key("a", 1))), Some(Ok(())));
}

#[test]
fn damage_is_found_and_named() {
    let folder = Folder::new("damage");
    let path = folder.file();
    let now = Instant::now();
    let mut book = Book::new(Some(Store::open(&path).unwrap()), 400, now);
    for n in 0..2000 {
        book.add(usage("2026-11-30", &format!("key {n}"), 1));
    }
    book.write(now, day("2026-11-30"), &StoreBatch::default());
    drop(book);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096 * 4].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let damaged = match check(&path) {
        Ok(found) => !found.faults.is_empty(),
        Err(fault) => fault.kind == StoreFaultKind::Damaged,
    };
    assert!(damaged);
    let mut book = Book::new(Some(Store::open(&path).unwrap()), 400, now);
    for n in 0..2000 {
        book.add(usage("2026-11-30", &format!("key {n}"), 1));
    }
    let written = book.write(now, day("2026-11-30"), &StoreBatch::default());
    let WriteOutcome::Failed { fault, .. } = written else {
        panic!("{written:?}");
    };
    assert_eq!(fault.kind, StoreFaultKind::Damaged);
    assert_eq!(book.counts().0, 2000, "nothing is lost");
}
