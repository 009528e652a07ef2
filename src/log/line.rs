//! The log of one thread: lines are formatted into a buffer of the thread, which is sent to the
//! writer when it is full or its first line is [`HOLD_MS`] old.
//!
//! Formatting takes no lock, reads no clock and, except for a new buffer every [`CHUNK_BYTES`],
//! allocates nothing. Lines of one thread keep their order; lines of different threads may be out
//! of order by up to [`HOLD_MS`].
//!
//! Contract: docs/contract/operations.md#8

use olla_engine::h1::emit::decimal;

use super::encode::{self, Stamp};
use super::{Level, Logger, Mode, Value};

/// The size in bytes at which a buffer is sent to the writer.
pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Milliseconds that a line may wait in its buffer, as long as [`LineLog::tick`] is called.
pub(crate) const HOLD_MS: u64 = 50;

/// Whole lines of one thread.
#[derive(Debug)]
pub(super) struct LogChunk {
    pub(super) json: Vec<u8>,
    pub(super) text: Vec<u8>,
    /// The mode in which the lines were formatted.
    pub(super) mode: Mode,
    pub(super) lines: u64,
}

/// The log of one thread.
#[derive(Debug)]
pub(crate) struct LineLog {
    logger: Logger,
    buffers: Buffers,
    /// The mode in which the lines in the buffers were formatted.
    mode: Mode,
    /// The number of lines in the buffers.
    pub(super) lines: u64,
    /// When the first of them was written; meaningless without lines.
    since_ms: u64,
    /// Whether to wait for room in the channel: the control thread may, a core must not.
    patient: bool,
}

/// The forms in which a line is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forms {
    pub(super) json: bool,
    pub(super) text: bool,
    /// Whether the text has colours.
    pub(super) colour: bool,
}

impl Forms {
    fn of(mode: Mode) -> Self {
        Self {
            json: mode.json(),
            text: mode.text(),
            colour: mode.colour(),
        }
    }
}

/// What every line begins with.
pub(super) struct Heading<'a> {
    pub(super) level: Level,
    pub(super) msg: &'a str,
    pub(super) unix_ms: u64,
}

/// Finished and half-finished lines in the forms that are written.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) json: Vec<u8>,
    pub(super) text: Vec<u8>,
    stamp: Stamp,
}

impl LineLog {
    pub(super) fn new(logger: Logger, patient: bool) -> Self {
        Self {
            mode: logger.mode(),
            logger,
            buffers: Buffers::default(),
            lines: 0,
            since_ms: 0,
            patient,
        }
    }

    /// Begins a line if its level is enabled. `unix_ms` is the time in milliseconds since 1970.
    /// The line ends when it is dropped.
    pub(crate) fn event(&mut self, level: Level, msg: &str, unix_ms: u64) -> Option<LogLine<'_>> {
        let mode = self.logger.mode();
        if !mode.enables(level) {
            return None;
        }
        let forms = Forms::of(mode);
        Some(self.begin(
            mode,
            forms,
            &Heading {
                level,
                msg,
                unix_ms,
            },
        ))
    }

    /// Begins a line of the access log, which goes to the file and to JSON output only.
    pub(crate) fn access(&mut self, level: Level, unix_ms: u64) -> Option<LogLine<'_>> {
        let mode = self.logger.mode();
        if !mode.enables(level) || !mode.json() {
            return None;
        }
        let forms = Forms {
            text: false,
            ..Forms::of(mode)
        };
        let msg = super::events::ACCESS_LOG;
        Some(self.begin(
            mode,
            forms,
            &Heading {
                level,
                msg,
                unix_ms,
            },
        ))
    }

    fn begin(&mut self, mode: Mode, forms: Forms, heading: &Heading<'_>) -> LogLine<'_> {
        if mode != self.mode {
            self.flush();
            self.mode = mode;
        }
        if self.lines == 0 {
            self.since_ms = heading.unix_ms;
        }
        self.buffers.begin(forms, heading);
        LogLine { log: self, forms }
    }

    /// Sends lines that have waited for [`HOLD_MS`]. A core calls this from its periodic work; it
    /// costs one comparison when there is nothing to send.
    pub(crate) fn tick(&mut self, unix_ms: u64) {
        // Lines must not be held when the clock was set back.
        let waited = unix_ms.checked_sub(self.since_ms);
        if self.lines > 0 && waited.is_none_or(|waited| waited >= HOLD_MS) {
            self.flush();
        }
    }

    /// Sends the buffers. If the channel is full, their lines are dropped and counted.
    pub(crate) fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let fresh = |used: &Vec<u8>, logger: &Logger| {
            if used.is_empty() {
                Vec::new()
            } else {
                logger.spare()
            }
        };
        let json = fresh(&self.buffers.json, &self.logger);
        let text = fresh(&self.buffers.text, &self.logger);
        let chunk = LogChunk {
            json: std::mem::replace(&mut self.buffers.json, json),
            text: std::mem::replace(&mut self.buffers.text, text),
            mode: self.mode,
            lines,
        };
        self.logger.send(chunk, self.patient);
    }
}

impl Drop for LineLog {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A line being written. Keys consist of lower-case letters, digits and `_`; each is used once.
#[derive(Debug)]
pub(crate) struct LogLine<'a> {
    log: &'a mut LineLog,
    forms: Forms,
}

/// Texts that several lines have, written once.
#[derive(Debug, Default)]
pub(crate) struct LineFields {
    json: Vec<u8>,
}

impl LineFields {
    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.json.clear();
    }

    /// Adds a text.
    pub(crate) fn str(&mut self, key: &'static str, value: &str) -> &mut Self {
        json_key(&mut self.json, key);
        encode::json_string(&mut self.json, value);
        self
    }
}

impl LogLine<'_> {
    /// A text.
    #[inline]
    pub(crate) fn str(&mut self, key: &'static str, value: &str) -> &mut Self {
        if self.forms.json {
            let out = &mut self.log.buffers.json;
            json_key(out, key);
            encode::json_string(out, value);
        }
        self.text_too(key, &Value::Str(value))
    }

    /// Texts that were written before, for lines that have them in common: `texts` are the same.
    #[inline]
    pub(crate) fn fields(
        &mut self,
        written: &LineFields,
        texts: &[(&'static str, &str)],
    ) -> &mut Self {
        if self.forms.json {
            self.log.buffers.json.extend_from_slice(&written.json);
        }
        for (key, value) in texts {
            self.text_too(key, &Value::Str(value));
        }
        self
    }

    /// A text, unless it is empty.
    pub(crate) fn some(&mut self, key: &'static str, value: &str) -> &mut Self {
        if value.is_empty() {
            self
        } else {
            self.str(key, value)
        }
    }

    /// A text as bytes; invalid UTF-8 is replaced.
    #[inline]
    pub(crate) fn bytes(&mut self, key: &'static str, value: &[u8]) -> &mut Self {
        if self.forms.json && !self.forms.text {
            let out = &mut self.log.buffers.json;
            let before = out.len();
            json_key(out, key);
            if encode::json_plain(out, value) {
                return self;
            }
            out.truncate(before);
        }
        self.any_bytes(key, value)
    }

    #[cold]
    fn any_bytes(&mut self, key: &'static str, value: &[u8]) -> &mut Self {
        match std::str::from_utf8(value) {
            Ok(text) => self.str(key, text),
            Err(_) => {
                let end = value.len().min(encode::FIELD_BYTES_MAX + 4);
                let head = &value[..end];
                self.str(key, &String::from_utf8_lossy(head))
            }
        }
    }

    /// A whole number.
    #[inline]
    pub(crate) fn num(&mut self, key: &'static str, value: u64) -> &mut Self {
        if self.forms.json {
            let out = &mut self.log.buffers.json;
            json_key(out, key);
            decimal(out, value);
        }
        self.text_too(key, &Value::Num(value))
    }

    /// A whole number, unless it is 0.
    pub(crate) fn positive(&mut self, key: &'static str, value: u64) -> &mut Self {
        if value == 0 {
            self
        } else {
            self.num(key, value)
        }
    }

    /// A number, with three digits after the point at most.
    pub(crate) fn float(&mut self, key: &'static str, value: f64) -> &mut Self {
        self.value(key, &Value::Float(value))
    }

    /// A value of any kind.
    pub(crate) fn value(&mut self, key: &'static str, value: &Value<'_>) -> &mut Self {
        if self.forms.json {
            json_field(&mut self.log.buffers.json, key, value);
        }
        self.text_too(key, value)
    }

    /// The same in the text form, if that is written.
    #[inline]
    fn text_too(&mut self, key: &'static str, value: &Value<'_>) -> &mut Self {
        if self.forms.text {
            text_field(&mut self.log.buffers.text, self.forms.colour, key, value);
        }
        self
    }
}

impl Drop for LogLine<'_> {
    fn drop(&mut self) {
        let log = &mut *self.log;
        log.buffers.end(self.forms);
        log.lines += 1;
        if log.buffers.json.len().max(log.buffers.text.len()) >= CHUNK_BYTES {
            log.flush();
        }
    }
}

impl Buffers {
    pub(super) fn begin(&mut self, forms: Forms, heading: &Heading<'_>) {
        let Heading {
            level,
            msg,
            unix_ms,
        } = *heading;
        let name = super::level_name(level);
        if forms.json {
            let out = &mut self.json;
            out.extend_from_slice(b"{\"timestamp\":\"");
            out.extend_from_slice(self.stamp.of(unix_ms));
            out.extend_from_slice(b"\",\"level\":\"");
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\",\"msg\":");
            encode::json_string(out, msg);
        }
        if forms.text {
            let out = &mut self.text;
            out.extend_from_slice(b"time=");
            out.extend_from_slice(self.stamp.of(unix_ms));
            out.extend_from_slice(b" level=");
            if forms.colour {
                out.extend_from_slice(level_colour(level));
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(PLAIN);
            } else {
                out.extend_from_slice(name.as_bytes());
            }
            out.extend_from_slice(b" msg=");
            encode::text_string(out, msg);
        }
    }

    pub(super) fn end(&mut self, forms: Forms) {
        if forms.json {
            self.json.extend_from_slice(b"}\n");
        }
        if forms.text {
            self.text.push(b'\n');
        }
    }
}

/// One field of an object.
pub(super) fn json_field(out: &mut Vec<u8>, key: &str, value: &Value<'_>) {
    json_key(out, key);
    match value {
        Value::Str(text) => encode::json_string(out, text),
        other => scalar(out, other),
    }
}

/// The key is assembled in a local buffer and appended at once: for a key that is known at compile
/// time, only a few moves are left.
#[inline]
fn json_key(out: &mut Vec<u8>, key: &str) {
    debug_assert!(is_plain(key), "{key:?} would need escaping");
    let mut buffer = [0; KEY_BYTES_MAX + 4];
    match buffer.get_mut(..key.len() + 4) {
        Some(whole) => {
            whole[0] = b',';
            whole[1] = b'"';
            whole[2..key.len() + 2].copy_from_slice(key.as_bytes());
            whole[key.len() + 2] = b'"';
            whole[key.len() + 3] = b':';
            out.extend_from_slice(whole);
        }
        None => {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
        }
    }
}

/// One `key=value`.
pub(super) fn text_field(out: &mut Vec<u8>, colour: bool, key: &str, value: &Value<'_>) {
    out.push(b' ');
    if colour {
        out.extend_from_slice(DIM);
    }
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    if colour {
        out.extend_from_slice(PLAIN);
    }
    match value {
        Value::Str(text) => encode::text_string(out, text),
        other => scalar(out, other),
    }
}

fn scalar(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::Str(_) => {}
        Value::Num(number) => decimal(out, number),
        Value::Float(number) => encode::float(out, number),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The longest key that is appended at once; a longer one is written in pieces.
const KEY_BYTES_MAX: usize = 32;

const PLAIN: &[u8] = b"\x1b[0m";
const DIM: &[u8] = b"\x1b[2m";

fn level_colour(level: Level) -> &'static [u8] {
    match level {
        Level::Debug => b"\x1b[36m",
        Level::Info => b"\x1b[32m",
        Level::Warn => b"\x1b[33m",
        Level::Error => b"\x1b[31m",
    }
}
