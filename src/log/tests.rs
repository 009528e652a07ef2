use crate::log::line::HOLD_MS;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use flate2::read::GzDecoder;
use serde_json::Value as Json;

use super::file::LogFile;
use super::*;

const PIPE: Terminal = Terminal {
    is_terminal: false,
    no_color: false,
    force_color: false,
};
const TERMINAL: Terminal = Terminal {
    is_terminal: true,
    ..PIPE
};
const LONG: Duration = Duration::from_secs(30);

/// Standard output as a buffer that can be held shut.
#[derive(Clone, Default)]
struct Out(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    shut: bool,
    waiting: bool,
}

impl Out {
    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().bytes.clone()).unwrap()
    }

    fn lines(&self) -> Vec<Json> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        self.text().lines().map(parse).collect()
    }

    fn shut(&self, shut: bool) {
        self.0.0.lock().unwrap().shut = shut;
        self.0.1.notify_all();
    }

    fn await_writer(&self) {
        let state = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(state, |state| !state.waiting).unwrap());
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock().unwrap();
        state.waiting = state.shut;
        self.0.1.notify_all();
        let mut state = self.0.1.wait_while(state, |state| state.shut).unwrap();
        state.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn start(terminal: Terminal, env: &[(&str, &str)]) -> (Logger, Out) {
    let out = Out::default();
    let env = Env::of(env.iter().copied());
    let logger = Logger::start_on(Box::new(out.clone()), terminal, &env).unwrap();
    (logger, out)
}

fn plan() -> LoggingPlan {
    crate::config::early_logging(&Env::default())
}

/// A folder of its own for each test, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("olla-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn names(&self) -> BTreeSet<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let entries = fs::read_dir(&self.0).unwrap();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn file_plan(folder: &Folder) -> LoggingPlan {
    LoggingPlan {
        output: LogOutput::File,
        dir: folder.0.clone(),
        ..plan()
    }
}

#[test]
fn a_json_line_is_one_object_with_its_fields_in_order() {
    let (logger, out) = start(PIPE, &[]);
    let mut log = logger.line_log();
    if let Some(mut line) = log.event(Level::Info, events::REQUEST_COMPLETED, 1_776_249_000_123) {
        line.str("endpoint", "gpu \"1\"")
            .num("duration_ms", 12)
            .some("model", "")
            .positive("total_bytes", 0)
            .float("provider_tokens_per_second", 31.25)
            .bytes("path", b"/a\xff");
    }
    log.flush();
    assert!(logger.flush_and_stop(LONG));
    let want = concat!(
        r#"{"timestamp":"2026-04-15T10:30:00.123Z","level":"INFO","msg":"Request completed","#,
        r#""endpoint":"gpu \"1\"","duration_ms":12,"provider_tokens_per_second":31.25,"#,
        "\"path\":\"/a\u{fffd}\"}\n",
    );
    assert_eq!(out.text(), want);
}

#[test]
fn a_text_line_is_words_and_quotes() {
    let (logger, out) = start(PIPE, &[("OLLA_LOGGING_FORMAT", "text")]);
    let fields = [
        ("endpoint", "a b".into()),
        ("target", "http://h/x".into()),
        ("none", Value::Float(f64::NAN)),
    ];
    logger.emit(Level::Warn, events::CONNECTION_FAILED, &fields);
    assert!(logger.flush_and_stop(LONG));
    let text = out.text();
    let (time, rest) = text.split_once(' ').unwrap();
    assert_eq!(time.len(), "time=2026-04-15T10:30:00.123Z".len());
    let want = "level=WARN msg=\"Connection failed to endpoint, marking as unhealthy\" \
                endpoint=\"a b\" target=http://h/x none=null\n";
    assert_eq!(rest, want);
}

#[test]
fn findings_of_the_configuration_are_lines() {
    let (logger, out) = start(PIPE, &[]);
    let message = "expected \"olla\" or \"sherpa\", got \"turbo\"";
    let mut finding = Finding {
        key: "proxy.engine".to_owned(),
        ..Finding::in_file(Path::new("o.toml"), 4, message)
    };
    logger.report(&finding);
    finding.severity = Severity::Warning;
    finding.key.clear();
    logger.report(&finding);
    finding.severity = Severity::Note;
    logger.report(&finding);
    assert!(logger.flush_and_stop(LONG));
    let lines = out.lines();
    assert_eq!(lines.len(), 2, "a note is not logged");
    assert_eq!(lines[0]["level"], "ERROR");
    assert_eq!(lines[0]["key"], "proxy.engine");
    let reason = format!("proxy.engine: {message} (o.toml line 4)");
    assert_eq!(lines[0]["reason"], reason.as_str());
    assert_eq!(
        (&lines[1]["level"], lines[1].get("key")),
        (&"WARN".into(), None)
    );
}

#[test]
fn levels_that_are_off_cost_nothing_and_write_nothing() {
    let table = [
        ("debug", 4),
        ("info", 3),
        ("WARN", 2),
        ("Warning", 2),
        ("error", 1),
        ("loud", 3),
    ];
    for (word, want) in table {
        let (logger, out) = start(PIPE, &[("OLLA_LOG_LEVEL", word)]);
        for level in [Level::Debug, Level::Info, Level::Warn, Level::Error] {
            let is_written = logger.mode().enables(level);
            assert_eq!(is_written, logger.line_log().event(level, "x", 0).is_some());
            logger.emit(level, "y", &[]);
        }
        assert!(logger.flush_and_stop(LONG));
        let emitted = out.lines().iter().filter(|line| line["msg"] == "y").count();
        assert_eq!(emitted, want, "{word}");
    }
}

#[test]
fn the_form_follows_terminal_and_environment() {
    const TEXT: &[(&str, &str)] = &[("OLLA_LOGGING_FORMAT", "text")];
    const JSON: &[(&str, &str)] = &[("OLLA_LOGGING_FORMAT", "JSON")];
    const BAD: &[(&str, &str)] = &[("OLLA_LOGGING_FORMAT", "xml")];
    let table = [
        (PIPE, &[] as &[_], true),
        (TERMINAL, &[], false),
        (TERMINAL, JSON, true),
        (TERMINAL, BAD, false),
        (PIPE, TEXT, false),
        (PIPE, BAD, true),
    ];
    for (terminal, env, json) in table {
        let (logger, _) = start(terminal, env);
        assert_eq!(logger.mode().json_out(), json, "{terminal:?} {env:?}");
    }
    let (logger, _) = start(TERMINAL, &[]);
    logger.configure(&LoggingPlan {
        format: LogFormat::Json,
        ..plan()
    });
    assert!(!logger.mode().json_out(), "a terminal takes text");
}

#[test]
fn colour_follows_terminal_and_environment() {
    type Vars = &'static [(&'static str, &'static str)];
    let table: [(Vars, bool, bool); 7] = [
        // environment, on a pipe, on a terminal
        (&[], false, true),
        (&[("NO_COLOR", "1")], false, false),
        (&[("NO_COLOR", ""), ("FORCE_COLOR", "0")], false, true),
        (&[("FORCE_COLOR", "1")], true, true),
        (&[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], false, false),
        (&[("OLLA_FORCE_COLORS", "true")], true, true),
        (&[("OLLA_FORCE_COLORS", "false")], false, true),
    ];
    for (env, pipe, terminal) in table {
        let of = |is_terminal| {
            let vars = Env::of(env.iter().copied());
            let terminal = Terminal {
                is_terminal,
                ..Terminal::of_process(&vars)
            };
            terminal.colour(crate::config::early_logging(&vars).force_colors)
        };
        assert_eq!((of(false), of(true)), (pipe, terminal), "{env:?}");
    }
    let (logger, out) = start(TERMINAL, &[]);
    logger.emit(Level::Error, "x", &[("key", "v".into())]);
    assert!(logger.flush_and_stop(LONG));
    assert!(out.text().contains("level=\x1b[31mERROR\x1b[0m"));
    assert!(
        out.text().ends_with(" \x1b[2mkey=\x1b[0mv\n"),
        "{}",
        out.text()
    );
}

#[test]
fn the_access_log_is_not_for_text_output() {
    let (logger, _) = start(PIPE, &[("OLLA_LOGGING_FORMAT", "text")]);
    assert!(logger.line_log().access(Level::Info, 0).is_none());

    let (logger, out) = start(PIPE, &[]);
    assert!(logger.line_log().access(Level::Debug, 0).is_none());
    logger
        .line_log()
        .access(Level::Info, 0)
        .unwrap()
        .num("status", 200);
    assert!(logger.flush_and_stop(LONG));
    assert_eq!(out.lines()[0]["msg"], "Access log");

    let folder = Folder::new("access");
    let (logger, out) = start(PIPE, &[("OLLA_LOGGING_FORMAT", "text")]);
    logger.configure(&LoggingPlan {
        format: LogFormat::Text,
        ..file_plan(&folder)
    });
    let mut log = logger.line_log();
    log.access(Level::Info, 0).unwrap().num("status", 404);
    drop(log.event(Level::Info, "other", 0).unwrap());
    drop(log);
    assert!(logger.flush_and_stop(LONG));
    let text = out.text();
    assert!(
        !text.contains("Access") && text.contains("msg=other"),
        "{text}"
    );
    let file = fs::read_to_string(folder.0.join("olla.log")).unwrap();
    let messages: Vec<Json> = file
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(
        (&messages[0]["status"], &messages[1]["msg"]),
        (&404.into(), &"other".into())
    );
}

#[test]
fn a_buffer_goes_when_it_is_full_or_old() {
    let (logger, _) = start(PIPE, &[]);
    let mut log = logger.line_log();
    assert_eq!(log.lines, 0);
    drop(log.event(Level::Info, "a", 1_000).unwrap());
    drop(log.event(Level::Info, "b", 1_020).unwrap());
    assert_eq!(log.lines, 2);
    log.tick(1_000 + HOLD_MS - 1);
    assert_eq!(log.lines, 2);
    log.tick(1_000 + HOLD_MS);
    assert_eq!(log.lines, 0);

    drop(log.event(Level::Info, "c", 1_000).unwrap());
    log.tick(900);
    assert_eq!(log.lines, 0, "a clock that went back holds nothing");

    let mut lines = 0;
    while lines == 0 || log.lines > 0 {
        drop(log.event(Level::Info, &"x".repeat(1000), 2_000).unwrap());
        lines += 1;
        assert!(lines < 100, "never sent");
    }
    // A line is a little longer than its message.
    assert!(lines * 1100 > line::CHUNK_BYTES, "sent after {lines}");
}

#[test]
fn a_reload_changes_level_and_form_between_lines() {
    let (logger, out) = start(PIPE, &[]);
    let mut log = logger.line_log();
    drop(log.event(Level::Info, "one", 0).unwrap());
    logger.configure(&LoggingPlan {
        format: LogFormat::Text,
        level: LogLevel::Warn,
        ..plan()
    });
    assert!(log.event(Level::Info, "two", 0).is_none());
    drop(log.event(Level::Warn, "three", 0).unwrap());
    drop(log);
    assert!(logger.flush_and_stop(LONG));
    let text = out.text();
    let lines: Vec<_> = text.lines().collect();
    assert!(
        lines[0].starts_with('{') && lines[0].contains("one"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("time=") && lines[1].contains("three"),
        "{text}"
    );
}

#[test]
fn a_stuck_output_loses_lines_counts_them_and_holds_nobody() {
    let (logger, out) = start(PIPE, &[]);
    out.shut(true);
    let mut log = logger.line_log();
    let mut sent = 0;
    let mut write = |log: &mut LineLog| {
        drop(log.event(Level::Info, "x", 0).unwrap());
        log.flush();
        sent += 1;
    };
    write(&mut log);
    out.await_writer();
    let lost = 10;
    for _ in 0..CHANNEL_MESSAGES_MAX + lost {
        write(&mut log);
    }
    out.shut(false);
    assert!(logger.flush_and_stop(LONG));
    let lines = out.lines();
    let dropped: Vec<_> = lines
        .iter()
        .filter(|line| line["msg"] == events::LINES_DROPPED)
        .map(|line| line["dropped"].as_u64().unwrap())
        .collect();
    assert_eq!(dropped, [lost as u64]);
    assert_eq!(lines.len(), sent - lost + 1);
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let (logger, out) = start(PIPE, &[]);
    out.shut(true);
    logger.emit(Level::Info, "x", &[]);
    assert!(!logger.flush_and_stop(Duration::from_millis(20)));
    out.shut(false);
}

#[test]
fn a_folder_that_cannot_be_written_is_a_warning() {
    let folder = Folder::new("blocked");
    fs::write(&folder.0, "a file where the folder should be").unwrap();
    let (logger, out) = start(PIPE, &[]);
    logger.configure(&file_plan(&folder));
    logger.emit(Level::Info, "still here", &[]);
    assert!(logger.flush_and_stop(LONG));
    let lines = out.lines();
    let warning = lines.iter().find(|line| line["level"] == "WARN").unwrap();
    assert_eq!(warning["msg"], events::FILE_UNAVAILABLE);
    assert!(warning["path"].as_str().unwrap().ends_with("olla.log"));
    assert!(lines.iter().any(|line| line["msg"] == "still here"));
    fs::remove_file(&folder.0).unwrap();
}

#[test]
fn no_file_and_no_folder_unless_asked_for() {
    let folder = Folder::new("unasked");
    let (logger, _) = start(PIPE, &[]);
    logger.configure(&LoggingPlan {
        output: LogOutput::Stdout,
        ..file_plan(&folder)
    });
    logger.emit(Level::Info, "x", &[]);
    assert!(logger.flush_and_stop(LONG));
    assert!(!folder.0.exists());
}

fn unzipped(path: &Path) -> String {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    text
}

#[test]
fn a_full_file_is_rotated_gzipped_and_in_the_end_removed() {
    let folder = Folder::new("rotate");
    let plan = LoggingPlan {
        rotate_bytes: 25,
        max_backups: 2,
        ..file_plan(&folder)
    };
    let mut file = LogFile::new(FilePlan::of(&plan));
    for n in 0..5_u64 {
        let line = format!("line number {n}\n");
        file.append(line.as_bytes(), 1_776_249_000_000 + n).unwrap();
        file.settle();
    }
    let names = folder.names();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let want = [
        "olla-2026-04-15T10-30-00.003.log.gz",
        "olla-2026-04-15T10-30-00.004.log.gz",
        "olla.log",
    ];
    assert_eq!(names, want);
    assert_eq!(unzipped(&folder.0.join(want[0])), "line number 2\n");
    let current = fs::read_to_string(folder.0.join("olla.log")).unwrap();
    assert_eq!(current, "line number 4\n");
}

#[test]
fn what_an_earlier_run_left_is_gzipped_or_too_old() {
    let folder = Folder::new("leftover");
    fs::create_dir_all(&folder.0).unwrap();
    let write = |name: &str, age: u64| {
        let path = folder.0.join(name);
        fs::write(&path, name).unwrap();
        let modified = SystemTime::now() - Duration::from_secs(age);
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
    };
    write("olla-2020-01-01T00-00-00.000.log", 1000);
    write("olla-2020-01-02T00-00-00.000.log", 10);
    write("olla-notes.log", 1000);
    write("other.log", 1000);
    let plan = LoggingPlan {
        max_age: Some(Duration::from_secs(100)),
        ..file_plan(&folder)
    };
    let mut file = LogFile::new(FilePlan::of(&plan));
    file.append(b"x\n", 0).unwrap();
    file.settle();
    let names = folder.names();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let want = [
        "olla-2020-01-02T00-00-00.000.log.gz",
        "olla-notes.log",
        "olla.log",
        "other.log",
    ];
    assert_eq!(names, want);
}

#[test]
fn two_rotations_at_one_instant_keep_both_files() {
    let folder = Folder::new("instant");
    let plan = LoggingPlan {
        rotate_bytes: 5,
        ..file_plan(&folder)
    };
    let mut file = LogFile::new(FilePlan::of(&plan));
    for line in ["one\n", "two\n", "three\n"] {
        file.append(line.as_bytes(), 0).unwrap();
        file.settle();
    }
    let kept = |name: &str| unzipped(&folder.0.join(name));
    assert_eq!(kept("olla-1970-01-01T00-00-00.000.log.gz"), "one\n");
    assert_eq!(kept("olla-1970-01-01T00-00-00.000-1.log.gz"), "two\n");
}
