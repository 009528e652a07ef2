//! The thread that writes the log. Only this thread may block on output.
//!
//! It ends on [`WriterMessage::Stop`] or when the last handle is dropped.

use std::io::Write;
use std::sync::Weak;
use std::sync::atomic::{AtomicU8, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::file::{FilePlan, LogFile};
use super::line::{Buffers, CHUNK_BYTES, Forms, Heading, LogChunk, json_field, text_field};
use super::{Level, Mode, Shared, Value, events, unix_ms};

/// The largest buffer that is kept for reuse.
const SPARE_BYTES_MAX: usize = 2 * CHUNK_BYTES;

/// A message to the writer.
#[derive(Debug)]
pub(super) enum WriterMessage {
    /// Write these lines.
    LogChunk(LogChunk),
    /// From now on write to this file too, or to none.
    File(Option<FilePlan>),
    /// Write what is queued, confirm, and end.
    Stop(Sender<()>),
}

/// State of the thread.
pub(super) struct Writer {
    out: Box<dyn Write + Send>,
    messages: Receiver<WriterMessage>,
    give_back: Sender<Vec<u8>>,
    shared: Weak<Shared>,
    file: Option<LogFile>,
    /// Buffers for the writer's own lines.
    buffers: Buffers,
    /// The last mode, for use after the handles are dropped.
    mode: AtomicU8,
}

impl Writer {
    pub(super) fn new(
        out: Box<dyn Write + Send>,
        messages: Receiver<WriterMessage>,
        give_back: Sender<Vec<u8>>,
        shared: Weak<Shared>,
    ) -> Self {
        let buffers = Buffers::default();
        let mode = AtomicU8::new(0);
        Self {
            out,
            messages,
            give_back,
            shared,
            file: None,
            buffers,
            mode,
        }
    }

    pub(super) fn run(mut self) {
        while let Ok(message) = self.messages.recv() {
            match message {
                WriterMessage::LogChunk(chunk) => self.write(chunk),
                WriterMessage::File(plan) => self.switch_file(plan),
                WriterMessage::Stop(done) => {
                    self.finish();
                    let _ = done.send(());
                    return;
                }
            }
            self.report_dropped();
        }
        self.finish();
    }

    fn write(&mut self, chunk: LogChunk) {
        self.mode.store(chunk.mode.0, Ordering::Relaxed);
        let out = if chunk.mode.json_out() {
            &chunk.json
        } else {
            &chunk.text
        };
        self.print(out);
        if chunk.mode.file() {
            self.append(&chunk.json);
        }
        for mut buffer in [chunk.json, chunk.text] {
            if (1..=SPARE_BYTES_MAX).contains(&buffer.capacity()) {
                buffer.clear();
                let _ = self.give_back.try_send(buffer);
            }
        }
    }

    /// Errors are ignored: when standard output is closed, there is no place left to report them.
    fn print(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let _ = self.out.write_all(bytes).and_then(|()| self.out.flush());
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else {
            return;
        };
        if let Err(fault) = file.append(bytes, unix_ms()) {
            let path = file.path().display().to_string();
            self.say(events::FILE_UNAVAILABLE, &path, &fault.to_string());
        }
    }

    fn switch_file(&mut self, plan: Option<FilePlan>) {
        if let (Some(file), Some(plan)) = (&mut self.file, &plan)
            && file.retune(plan)
        {
            return;
        }
        self.file = None;
        let Some(plan) = plan else {
            return;
        };
        let mut file = LogFile::new(plan);
        if let Err(fault) = file.open(unix_ms()) {
            let path = file.path().display().to_string();
            self.say(events::FILE_UNAVAILABLE, &path, &fault.to_string());
        }
        self.file = Some(file);
    }

    /// Writes a WARN of its own to standard output only.
    fn say(&mut self, msg: &str, path: &str, error: &str) {
        self.warn(
            msg,
            &[("path", Value::Str(path)), ("error", Value::Str(error))],
        );
    }

    fn warn(&mut self, msg: &str, fields: &[(&'static str, Value<'_>)]) {
        let mode = self.shared.upgrade().map_or_else(
            || self.mode.load(Ordering::Relaxed),
            |shared| shared.mode.load(Ordering::Relaxed),
        );
        let mode = Mode(mode);
        if !mode.enables(Level::Warn) {
            return;
        }
        let json = mode.json_out();
        let forms = Forms {
            json,
            text: !json,
            colour: mode.colour(),
        };
        let buffers = &mut self.buffers;
        let heading = Heading {
            level: Level::Warn,
            msg,
            unix_ms: unix_ms(),
        };
        buffers.begin(forms, &heading);
        for (key, value) in fields {
            if json {
                json_field(&mut buffers.json, key, value);
            } else {
                text_field(&mut buffers.text, forms.colour, key, value);
            }
        }
        buffers.end(forms);
        let line = std::mem::take(if json {
            &mut buffers.json
        } else {
            &mut buffers.text
        });
        self.print(&line);
    }

    fn report_dropped(&mut self) {
        let dropped = self
            .shared
            .upgrade()
            .map_or(0, |shared| shared.dropped.swap(0, Ordering::Relaxed));
        if dropped > 0 {
            self.warn(events::LINES_DROPPED, &[("dropped", Value::Num(dropped))]);
        }
    }

    fn finish(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            if let WriterMessage::LogChunk(chunk) = message {
                self.write(chunk);
            }
        }
        self.report_dropped();
        let _ = self.out.flush();
    }
}
