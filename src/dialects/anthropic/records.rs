//! The inspector's files: written by a thread of their own, which begins with the first record.
//! A core never waits for it: records beyond the queue are dropped, and the log reports how many.
//!
//! Contract: docs/contract/translation.md#13

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use olla_engine::rt::sys;
use time::{OffsetDateTime, UtcOffset};

use crate::dialects::anthropic::translate::{
    FILE_MODE, FOLDER_MODE, RecordSession, record_path, request_record, response_record,
};
use crate::log::{Level, Logger, Value, events};

/// Records in the queue. Each holds a body, so this also bounds memory.
const RECORDS_MAX: usize = 64;

/// One line of a session's file, before it is formatted.
#[derive(Debug)]
pub(crate) struct Record {
    pub(super) folder: PathBuf,
    /// A valid file name.
    pub(super) session: String,
    pub(super) kind: RecordKind,
    pub(super) body: Vec<u8>,
}

/// The side that a record is of.
#[derive(Debug)]
pub(super) enum RecordKind {
    /// A request, with the name of its model.
    Request(String),
    /// A response, with its status.
    Response(u16),
}

#[derive(Debug)]
enum Order {
    Write(OffsetDateTime, Box<Record>),
    /// Confirm that every earlier record is written.
    Flush(Sender<()>),
}

/// Sends records to the writer thread.
#[derive(Debug)]
pub(crate) struct Records {
    logger: Logger,
    orders: OnceLock<Sender<Order>>,
    /// Records dropped since the log last reported them.
    lost: Arc<AtomicU64>,
}

impl Records {
    /// Starts no thread yet; the first record does.
    pub(crate) fn new(logger: Logger) -> Self {
        Self {
            logger,
            orders: OnceLock::new(),
            lost: Arc::default(),
        }
    }

    /// Queues a record.
    pub(crate) fn write(&self, record: Box<Record>) {
        let orders = self.orders.get_or_init(|| self.begin());
        let order = Order::Write(now(), record);
        if orders.try_send(order).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn begin(&self) -> Sender<Order> {
        let (sender, orders) = bounded(RECORDS_MAX);
        let writer = Writer {
            orders,
            logger: self.logger.clone(),
            lost: Arc::clone(&self.lost),
        };
        let thread = std::thread::Builder::new().name("inspector".to_owned());
        if let Err(error) = thread.spawn(move || writer.run()) {
            // Every record is dropped then.
            let error = error.to_string();
            let fields = [("error", Value::Str(&error))];
            self.logger.emit(Level::Warn, events::NOT_RECORDED, &fields);
        }
        sender
    }

    /// Waits until the queued records are written, for at most `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let Some(orders) = self.orders.get() else {
            return;
        };
        let (done, is_done) = bounded(1);
        if orders.send_timeout(Order::Flush(done), limit).is_ok() {
            // A slow disk loses records; shutdown does not wait for it.
            let _ = is_done.recv_timeout(limit);
        }
    }
}

struct Writer {
    orders: Receiver<Order>,
    logger: Logger,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(self) {
        for order in &self.orders {
            match order {
                Order::Write(at, record) => self.write(at, &record),
                Order::Flush(done) => {
                    // The caller may have stopped waiting.
                    let _ = done.send(());
                }
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let fields = [
                    ("error", Value::Str("the queue was full")),
                    ("lost", Value::Num(lost)),
                ];
                self.logger.emit(Level::Warn, events::NOT_RECORDED, &fields);
            }
        }
    }

    fn write(&self, at: OffsetDateTime, record: &Record) {
        let session = RecordSession {
            name: &record.session,
            is_replaced: false,
        };
        let path = record_path(&record.folder, at, session);
        if let Err(error) = append(&path, &line(at, record)) {
            let (path, error) = (path.display().to_string(), error.to_string());
            let fields = [("path", Value::Str(&path)), ("error", Value::Str(&error))];
            self.logger.emit(Level::Warn, events::NOT_RECORDED, &fields);
        }
    }
}

fn line(at: OffsetDateTime, record: &Record) -> Vec<u8> {
    match &record.kind {
        RecordKind::Request(model) => request_record(at, model, &record.body),
        RecordKind::Response(status) => response_record(at, *status, &record.body),
    }
}

fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE).create(folder)?;
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .append(true)
        .create(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(line)
}

/// The time in the local time zone.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    let offset = sys::utc_offset_secs(now.unix_timestamp());
    UtcOffset::from_whole_seconds(offset).map_or(now, |offset| now.to_offset(offset))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Env;

    #[test]
    fn records_become_lines_of_files_that_only_the_owner_reads() {
        let name = format!("olla-records-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let records = Records::new(Logger::start(&Env::of([])).unwrap());
        for (kind, body) in [
            (RecordKind::Request("m".to_owned()), "{\n\"a\":1}"),
            (RecordKind::Response(502), "{\"error\":{}}"),
        ] {
            records.write(Box::new(Record {
                folder: folder.join("deep/er"),
                session: "s-1".to_owned(),
                kind,
                body: body.into(),
            }));
        }
        records.flush(Duration::from_secs(10));
        let day = std::fs::read_dir(folder.join("deep/er"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let file = day.join("s-1.jsonl");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&day), mode(&file)), (FOLDER_MODE, FILE_MODE));
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].starts_with(r#"{"type":"request","ts":""#)
                && lines[0].contains(r#""body":{"a":1}"#)
        );
        assert!(lines[1].contains(r#""status":502"#), "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
