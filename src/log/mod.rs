//! The log: structured events as JSON or `key=value` lines, written by a thread of its own.
//!
//! A thread formats its lines into its own [`LineLog`] and hands full buffers to the writer over a
//! bounded channel. A core never waits for the log: when the channel is full, lines are dropped and
//! counted, and a WARN reports how many. The log must not contain bodies, credentials or
//! `Authorization`; [`redact`] is for queries, targets and errors.
//!
//! This module does not read the configuration (it is given a [`LoggingPlan`]) and does not decide
//! which events are logged.
//!
//! Contract: docs/contract/operations.md#8

mod encode;
pub(crate) mod events;
mod file;
mod line;
pub(crate) mod redact;
mod writer;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::clock::{millis, since};
use crate::config::{Env, Finding, LogFormat, LogLevel, LogOutput, LoggingPlan, Severity};

pub(crate) use line::{LineFields, LineLog, LogLine};

use file::FilePlan;
use line::LogChunk;
use writer::{Writer, WriterMessage};

/// The four severities.
pub(crate) type Level = LogLevel;

/// Capacity of the channel to the writer. With [`line::CHUNK_BYTES`] each, a blocked writer holds
/// 4 MiB of lines in each form; further lines are dropped.
const CHANNEL_MESSAGES_MAX: usize = 64;

/// Empty buffers kept for reuse.
const SPARE_BUFFERS_MAX: usize = 16;

/// How long a thread that may block waits for room in the channel.
const PATIENCE: Duration = Duration::from_millis(100);

/// Milliseconds since 1970 by the system's clock.
pub(crate) fn unix_ms() -> u64 {
    millis(since(UNIX_EPOCH, SystemTime::now()))
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// A text.
    Str(&'a str),
    /// A count.
    Num(u64),
    /// A number; three digits after the point are shown.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Str(text)
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Num(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// The level and forms in force, in one byte that every line reads.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mode(u8);

impl Mode {
    const LEVEL: u8 = 0b11;
    const JSON_OUT: u8 = 1 << 2;
    const COLOUR: u8 = 1 << 3;
    const FILE: u8 = 1 << 4;

    const fn new(level: Level, json_out: bool, colour: bool, file: bool) -> Self {
        let json_out = if json_out { Self::JSON_OUT } else { 0 };
        let colour = if colour { Self::COLOUR } else { 0 };
        let file = if file { Self::FILE } else { 0 };
        Self(rank(level) | json_out | colour | file)
    }

    /// Whether lines of this level are wanted.
    const fn enables(self, level: Level) -> bool {
        rank(level) >= self.0 & Self::LEVEL
    }

    /// Whether standard output takes JSON; else it takes text.
    const fn json_out(self) -> bool {
        self.0 & Self::JSON_OUT != 0
    }

    /// Whether JSON lines are needed at all.
    const fn json(self) -> bool {
        self.0 & (Self::JSON_OUT | Self::FILE) != 0
    }

    /// Whether text lines are needed.
    const fn text(self) -> bool {
        !self.json_out()
    }

    const fn colour(self) -> bool {
        self.0 & Self::COLOUR != 0
    }

    /// Whether JSON lines also go to the file.
    const fn file(self) -> bool {
        self.0 & Self::FILE != 0
    }
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mode({:#07b})", self.0)
    }
}

const fn rank(level: Level) -> u8 {
    match level {
        Level::Debug => 0,
        Level::Info => 1,
        Level::Warn => 2,
        Level::Error => 3,
    }
}

/// The name in a line.
const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
    }
}

/// Properties of standard output and of the environment, determined once at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Whether standard output is a terminal.
    pub is_terminal: bool,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// `FORCE_COLOR` is set, not empty and not `0`.
    pub force_color: bool,
}

impl Terminal {
    /// Those of this process.
    pub(crate) fn of_process(env: &Env) -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            no_color: env.get("NO_COLOR").is_some(),
            force_color: env.get("FORCE_COLOR").is_some_and(|value| value != "0"),
        }
    }

    /// Colour only on a terminal, unless the environment says otherwise.
    fn colour(self, forced: bool) -> bool {
        !self.no_color && (self.force_color || forced || self.is_terminal)
    }

    /// On a terminal always text, unless `OLLA_LOGGING_FORMAT` is set, which wins everywhere.
    fn is_json(self, format: LogFormat, from_env: bool) -> bool {
        format == LogFormat::Json && (from_env || !self.is_terminal)
    }
}

/// The shared handle of the log.
#[derive(Debug, Clone)]
pub(crate) struct Logger(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mode: AtomicU8,
    /// Lines dropped since the writer last reported them.
    dropped: AtomicU64,
    to_writer: Sender<WriterMessage>,
    spares: Receiver<Vec<u8>>,
    terminal: Terminal,
}

impl Logger {
    /// Starts the writer on standard output. Until [`Self::configure`] is called the level is
    /// `OLLA_LOG_LEVEL`'s and the form that of the environment.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(env: &Env) -> std::io::Result<Self> {
        Self::start_on(Box::new(std::io::stdout()), Terminal::of_process(env), env)
    }

    fn start_on(
        out: Box<dyn Write + Send>,
        terminal: Terminal,
        env: &Env,
    ) -> std::io::Result<Self> {
        let (to_writer, messages) = crossbeam_channel::bounded(CHANNEL_MESSAGES_MAX);
        let (give_back, spares) = crossbeam_channel::bounded(SPARE_BUFFERS_MAX);
        let early = crate::config::early_logging(env);
        let json_out = terminal.is_json(early.format, early.format_from_env);
        let mode = Mode::new(
            early.level,
            json_out,
            terminal.colour(early.force_colors),
            false,
        );
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(mode.0),
            dropped: AtomicU64::new(0),
            to_writer,
            spares,
            terminal,
        });
        let writer = Writer::new(out, messages, give_back, Arc::downgrade(&shared));
        let thread = std::thread::Builder::new().name("olla-log".to_owned());
        thread.spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// Applies a configuration, at the start and at a reload. Lines written before keep their
    /// form. A folder that cannot be written is a WARN.
    pub(crate) fn configure(&self, plan: &LoggingPlan) {
        let terminal = self.0.terminal;
        let json_out = terminal.is_json(plan.format, plan.format_from_env);
        let file = plan.output == LogOutput::File;
        let mode = Mode::new(
            plan.level,
            json_out,
            terminal.colour(plan.force_colors),
            file,
        );
        let file = file.then(|| FilePlan::of(plan));
        // The writer is told of the file first, so that it is open when the first line for it
        // comes.
        let _ = self
            .0
            .to_writer
            .send_timeout(WriterMessage::File(file), PATIENCE);
        self.0.mode.store(mode.0, Ordering::Relaxed);
    }

    /// A log for one core's thread; it never waits.
    pub(crate) fn line_log(&self) -> LineLog {
        LineLog::new(self.clone(), false)
    }

    /// Writes one line at once; for the control thread and the start, which may block briefly.
    pub(crate) fn emit(&self, level: Level, msg: &str, fields: &[(&'static str, Value<'_>)]) {
        let mut log = LineLog::new(self.clone(), true);
        if let Some(mut line) = log.event(level, msg, unix_ms()) {
            for (key, value) in fields {
                line.value(key, value);
            }
        }
    }

    /// Writes a finding of the configuration: an ERROR or a WARN with key, value and place; nothing
    /// for a note. It holds no secret, since findings never do.
    pub(crate) fn report(&self, finding: &Finding) {
        let (level, msg) = match finding.severity {
            Severity::Error => (Level::Error, events::CONFIG_INVALID),
            Severity::Warning => (Level::Warn, events::CONFIG_WARNING),
            Severity::Note => return,
        };
        let reason = finding.sentence();
        let fields = [
            ("key", Value::Str(&finding.key)),
            ("reason", Value::Str(&reason)),
        ];
        let fields = if finding.key.is_empty() {
            &fields[1..]
        } else {
            &fields[..]
        };
        self.emit(level, msg, fields);
    }

    /// Waits until everything sent before is written, at most for `patience`. False: the time was
    /// up. [`LineLog`]s must have been flushed or dropped before; later lines are lost.
    pub(crate) fn flush_and_stop(&self, patience: Duration) -> bool {
        let (done, wait) = crossbeam_channel::bounded(1);
        let started = std::time::Instant::now();
        if self
            .0
            .to_writer
            .send_timeout(WriterMessage::Stop(done), patience)
            .is_err()
        {
            return false;
        }
        let left = patience.saturating_sub(started.elapsed());
        wait.recv_timeout(left).is_ok()
    }

    fn mode(&self) -> Mode {
        Mode(self.0.mode.load(Ordering::Relaxed))
    }

    /// An empty buffer, reused if one is available.
    fn spare(&self) -> Vec<u8> {
        self.0.spares.try_recv().unwrap_or_default()
    }

    fn send(&self, chunk: LogChunk, patient: bool) {
        let lines = chunk.lines;
        let message = WriterMessage::LogChunk(chunk);
        let lost = if patient {
            self.0.to_writer.send_timeout(message, PATIENCE).is_err()
        } else {
            matches!(
                self.0.to_writer.try_send(message),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            )
        };
        if lost {
            self.0.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
