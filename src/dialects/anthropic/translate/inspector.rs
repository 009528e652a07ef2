//! The records of the debugging inspector: lines of JSON and the names of their files
//! (docs/contract/translation.md#13). Writing them is done elsewhere, off the cores.
//!
//! Only bodies are recorded, never headers: credentials stay out.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::json::{self, write_number, write_string};

/// Permissions of the folders, by which only the owner looks into them.
pub(crate) const FOLDER_MODE: u32 = 0o700;

/// Permissions of the files.
pub(crate) const FILE_MODE: u32 = 0o600;

/// The longest name of a session, in characters.
const SESSION_CHARS_MAX: usize = 64;

/// The session of requests that name none, or one that cannot be a file's name.
const DEFAULT_SESSION: &str = "default";

/// The session that a request belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordSession<'a> {
    /// Fit to be a file's name.
    pub name: &'a str,
    /// The request named another one that is not; the log should say so.
    pub is_replaced: bool,
}

/// The session by the value of the configured header, else by that of `X-Request-ID`.
pub(crate) fn session<'a>(
    header: Option<&'a [u8]>,
    request_id: Option<&'a [u8]>,
) -> RecordSession<'a> {
    let is_fit = |name: &&str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        name.len() <= SESSION_CHARS_MAX && name.bytes().all(fits)
    };
    let filled = |value: Option<&'a [u8]>| value.filter(|value| !value.is_empty());
    let Some(named) = filled(header).or(filled(request_id)) else {
        return RecordSession {
            name: DEFAULT_SESSION,
            is_replaced: false,
        };
    };
    let name = std::str::from_utf8(named).ok().filter(is_fit);
    RecordSession {
        name: name.unwrap_or(DEFAULT_SESSION),
        is_replaced: name.is_none(),
    }
}

/// The file of a session's records of one day: `FOLDER/YYYY-MM-DD/SESSION.jsonl`. `now` is in
/// local time.
pub(crate) fn record_path(
    folder: &Path,
    now: OffsetDateTime,
    session: RecordSession<'_>,
) -> PathBuf {
    let day = format!(
        "{:04}-{:02}-{:02}",
        now.year(),
        u8::from(now.month()),
        now.day()
    );
    let mut path = folder.join(day);
    path.push(format!("{}.jsonl", session.name));
    path
}

/// The line of a request that passed validation, its body as received but on one line.
pub(crate) fn request_record(now: OffsetDateTime, model: &str, body: &[u8]) -> Vec<u8> {
    let mut line = begin("request", now, body.len());
    line.extend_from_slice(br#","model":"#);
    write_string(model, &mut line);
    end(body, &mut line);
    line
}

/// The line of a response: a whole body, or what an [`Assembly`](super::Assembly) made of a
/// stream. A body that is not JSON is recorded as a string.
pub(crate) fn response_record(now: OffsetDateTime, status: u16, body: &[u8]) -> Vec<u8> {
    let mut line = begin("response", now, body.len());
    line.extend_from_slice(br#","status":"#);
    write_number(u64::from(status), &mut line);
    end(body, &mut line);
    line
}

fn begin(kind: &str, now: OffsetDateTime, body_bytes: usize) -> Vec<u8> {
    let mut line = Vec::with_capacity(body_bytes + 128);
    line.extend_from_slice(br#"{"type":"#);
    write_string(kind, &mut line);
    line.extend_from_slice(br#","ts":"#);
    // RFC 3339 has no form for years beyond four digits; the record has none then.
    let time = now.format(&Rfc3339).unwrap_or_else(|_| String::new());
    write_string(&time, &mut line);
    line
}

fn end(body: &[u8], line: &mut Vec<u8>) {
    line.extend_from_slice(br#","body":"#);
    match json::parse(body) {
        Some(body) => body.write_compact(line),
        None => write_string(&String::from_utf8_lossy(body), line),
    }
    line.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use time::{Date, Month, Time, UtcOffset};

    use super::*;

    fn now() -> OffsetDateTime {
        let date = Date::from_calendar_date(2026, Month::March, 4).unwrap();
        let time = Time::from_hms_milli(23, 5, 6, 70).unwrap();
        OffsetDateTime::new_in_offset(date, time, UtcOffset::from_hms(2, 0, 0).unwrap())
    }

    #[test]
    fn sessions_become_safe_names() {
        let long = "a".repeat(64);
        let too_long = "a".repeat(65);
        for (header, request_id, name, is_replaced) in [
            (Some("work_1-B"), Some("r1"), "work_1-B", false),
            (None, Some("r1"), "r1", false),
            (Some(""), Some("r1"), "r1", false),
            (None, None, "default", false),
            (Some(long.as_str()), None, long.as_str(), false),
            (Some(too_long.as_str()), Some("r1"), "default", true),
            (Some("../x"), None, "default", true),
            (Some("a b"), None, "default", true),
            (Some("é"), None, "default", true),
            (None, Some("a.b"), "default", true),
        ] {
            let session = session(header.map(str::as_bytes), request_id.map(str::as_bytes));
            assert_eq!(
                (session.name, session.is_replaced),
                (name, is_replaced),
                "{header:?}"
            );
        }
        assert!(session(Some(b"\xff"), None).is_replaced);
    }

    #[test]
    fn files_are_named_by_day_and_session() {
        assert_eq!(
            record_path(Path::new("logs/x"), now(), session(Some(b"s"), None)),
            Path::new("logs/x/2026-03-04/s.jsonl")
        );
    }

    #[test]
    fn records_are_one_line_each() {
        let line = request_record(
            now(),
            "m",
            b"{ \"model\":\"m\",\n \"zz\": 1.50, \"u\":\"\\u00e9\" }",
        );
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"type":"request","ts":"2026-03-04T23:05:06.07+02:00","model":"m","#,
                "\"body\":{\"model\":\"m\",\"zz\":1.50,\"u\":\"é\"}}\n"
            )
        );
        let line = response_record(now(), 502, b"<html>\n\"x\"");
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"type":"response","ts":"2026-03-04T23:05:06.07+02:00","status":502,"#,
                "\"body\":\"<html>\\n\\\"x\\\"\"}\n"
            )
        );
    }
}
